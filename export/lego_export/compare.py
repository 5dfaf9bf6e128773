"""One grid of guidance frames: the same frames, words and seeds, painted by torch and by several engine directories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from lego_core.config import LegoConfig
from lego_core.errors import LegoError
from lego_core.images import pixels_to_frame
from lego_core.manifest import Manifest
from lego_model.checkpoint import LegoCheckpoint, fingerprint
from lego_model.describe import describe, states_of
from lego_model.pipeline import LegoPipeline
from lego_server.engines import load_engine
from lego_server.options import SamplingOptions
from PIL import Image, ImageDraw

from lego_export.checking import checkable
from lego_export.samples import QUERIES
from lego_export.verify import answer_with_engine, psnr

_SEED = 7
_MARGIN = 6  # pixels between pictures
_LINE = 14  # pixels, height of a line of text


@dataclass(frozen=True)
class Painting:
    """What one side made of one frame.

    Attributes:
        pixels: (3, R, R) in about [-1, 1].
        psnr: Against the torch pipeline's, in decibels; infinite for its own.
    """

    pixels: np.ndarray
    psnr: float


@dataclass(frozen=True)
class Comparison:
    """Paintings by the name of who made them, torch first; one per frame."""

    frames: tuple[Image.Image, ...]
    paintings: dict[str, tuple[Painting, ...]]

    def grid(self) -> Image.Image:
        """Returns a picture with a row per frame: the frame, torch's answer, and each engine's with its PSNR."""
        side = max(next(iter(self.paintings.values()))[0].pixels.shape[1], 160)  # wide enough for the text below
        cell = (side + _MARGIN, side + 2 * _LINE + _MARGIN)
        grid = Image.new("RGB", (cell[0] * (1 + len(self.paintings)), cell[1] * len(self.frames)), "white")
        draw = ImageDraw.Draw(grid)

        def put(column: int, row: int, picture: Image.Image, *lines: str) -> None:
            left, top = column * cell[0], row * cell[1]
            grid.paste(picture.resize((side, side), Image.Resampling.LANCZOS), (left, top))
            for number, line in enumerate(lines):
                draw.text((left + 2, top + side + number * _LINE), line, fill="black")

        for row, frame in enumerate(self.frames):
            put(0, row, frame.convert("RGB"), "frame")
            for column, (name, paintings) in enumerate(self.paintings.items(), start=1):
                pixels, agreement = paintings[row].pixels, paintings[row].psnr
                picture = pixels_to_frame(pixels, pixels.shape[2], pixels.shape[1])
                lines = () if column == 1 else (f"{agreement:.1f} dB" if np.isfinite(agreement) else "equal",)
                put(column, row, picture, name, *lines)
        return grid


def compare_engines(
    directories: Sequence[Path],
    checkpoint: Path,
    frames: Sequence[Image.Image],
    *,
    queries: Sequence[str] = (),
    steps: int | None = None,
    threads: int = 0,
    announce: Callable[[str], None] = lambda name: None,
) -> Comparison:
    """Paints frames with the model's own sampler from torch's descriptions, by torch and by each engine directory.

    Args:
        directories: Engine directories of the checkpoint; lowered graphs run with every rounding spelled out
            (`lego_export.checking`).
        checkpoint: What they were built from.
        frames: RGB pictures to ask about.
        queries: What to ask, one to a frame; some of our own if there are none.
        steps: Denoising steps; None takes the model's own.
        threads: Of onnxruntime; 0 lets it choose.
        announce: Called with the name of each side before its turn.

    Raises:
        LegoError: A directory is not what it should be or comes from another checkpoint, or there are not as many
            queries as frames.
    """
    queries = queries or [QUERIES[index % len(QUERIES)] for index in range(len(frames))]
    if len(queries) != len(frames):
        raise LegoError(f"there are {len(frames)} frames and {len(queries)} queries: give one to each, or none")
    manifests = [Manifest.load(directory) for directory in directories]
    LegoConfig.load(checkpoint)  # says what is wrong where it is no checkpoint
    found = fingerprint(checkpoint)
    for directory, manifest in zip(directories, manifests, strict=True):
        if manifest.checkpoint_fingerprint != found:
            raise LegoError(f"{directory} was built from another checkpoint than {checkpoint}: compare those of one")
    announce("torch")
    modules = LegoCheckpoint.load(checkpoint, vllm_as_stored=True)
    pipeline = LegoPipeline(modules)
    guidance = replace(pipeline.config.guidance, steps=steps or pipeline.config.guidance.steps)
    words = []
    for frame, query in zip(frames, queries, strict=True):
        image = pipeline.embed(frame)
        # Every side reads the sentence: written word by word, it may have been made of other tokens.
        words.append(states_of(modules, image, query, describe(modules, image, query).text))
    options = [
        SamplingOptions(_SEED + index, description=each.text, **asdict(guidance)) for index, each in enumerate(words)
    ]  # fmt: skip
    reference = [
        pipeline.paint(
            pipeline.encode_frames([frame]), pipeline.context([each]), [option.seed], **asdict(guidance)
        )[0].numpy()
        for frame, each, option in zip(frames, words, options, strict=True)
    ]  # fmt: skip
    paintings = {"torch, fp32": tuple(Painting(pixels, float("inf")) for pixels in reference)}
    for name, directory, manifest in zip(column_names(directories), directories, manifests, strict=True):
        announce(name)
        with checkable(directory, manifest) as checked:
            engine = load_engine(checked, threads=threads)
            painted = [
                answer_with_engine(engine, frame, query, option)[1]
                for frame, query, option in zip(frames, queries, options, strict=True)
            ]
        paintings[name] = tuple(
            Painting(pixels, psnr(expected, pixels)) for pixels, expected in zip(painted, reference, strict=True)
        )
    return Comparison(tuple(frames), paintings)


def column_names(directories: Sequence[Path]) -> list[str]:
    """Returns the folders' own names, and the whole path where two folders have the same."""
    names = [directory.resolve().name for directory in directories]
    return [
        name if names.count(name) == 1 else str(directory) for name, directory in zip(names, directories, strict=True)
    ]
