"""Engines against the torch reference: graph by graph, word by word, and picture by picture."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from lego_core.config import GuidanceDefaults, LegoConfig, Sampler
from lego_core.errors import LegoError
from lego_core.images import frame_to_pixels, frame_to_vision_pixels
from lego_core.manifest import CACHE_GRAPH, Manifest
from lego_model.checkpoint import LegoCheckpoint, fingerprint
from lego_model.describe import Description, describe, states_of
from lego_model.pipeline import LegoPipeline
from lego_server import work
from lego_server.assistant import Answer, Assistant, Question
from lego_server.engines import load_engine
from lego_server.engines.base import Engine
from lego_server.engines.devices import require_device
from lego_server.frames import PreparedFrame
from lego_server.options import SamplingOptions
from PIL import Image

from lego_export.checking import checkable
from lego_export.graphs import define_graphs
from lego_export.parity import Parity, check_graph, open_session
from lego_export.samples import QUERIES, Samples

BATCHES = (1, 3, 5)
_PEAK = 2.0  # pixels lie in [-1, 1]
_SEED = 7
REUSING = "euler, features reused"
_CACHE_INTERVAL = 2


@dataclass(frozen=True)
class GraphResult:
    """One graph at one batch size."""

    graph: str
    batch: int
    parity: Parity
    tolerance: float

    @property
    def failure(self) -> str | None:
        """What is wrong, or None."""
        if self.parity.relative <= self.tolerance:
            return None
        return (
            f"graph {self.graph} at batch {self.batch} is off by {self.parity.relative:.1e} of its largest value, "
            f"more than {self.tolerance:g}"
        )


@dataclass(frozen=True)
class FrameResult:
    """One query about one frame, answered by both sides.

    Attributes:
        frame: Index of the frame.
        query: What was asked.
        sampler: What painted.
        steps: Denoising steps.
        reference: Description by the torch pipeline.
        description: Description by the engines.
        psnr: Of the guidance frame against the torch pipeline's, in decibels.
        least_psnr: What is asked of it.
        words_may_differ: The engines compute in less than float32, so now and then another token wins. The guidance
            frame is painted from the torch pipeline's description then.
        cache_interval: Every how many steps the U-Net's deep layers were evaluated, on both sides.
    """

    frame: int
    query: str
    sampler: str
    steps: int
    reference: str
    description: str
    psnr: float
    least_psnr: float
    words_may_differ: bool = False
    cache_interval: int = 1

    @property
    def sampling(self) -> str:
        """What painted, as `compared_samplings` names it."""
        return self.sampler if self.cache_interval == 1 else REUSING

    @property
    def failures(self) -> list[str]:
        """What is wrong, if anything."""
        place = f"frame {self.frame}, sampler {self.sampling}"
        failures = []
        if self.description != self.reference and not self.words_may_differ:
            failures.append(f"{place}: the engines write {self.description!r}, torch writes {self.reference!r}")
        if not self.psnr >= self.least_psnr:
            failures.append(f"{place}: PSNR {self.psnr:.1f} dB, less than {self.least_psnr:g} dB")
        return failures


@dataclass(frozen=True)
class Verification:
    """Everything `verify_engines` found."""

    model_version: str
    precision: str
    graphs: tuple[GraphResult, ...]
    frames: tuple[FrameResult, ...]

    @property
    def equal_descriptions(self) -> int:
        """How many of `frames` were described in torch's words."""
        return sum(each.description == each.reference for each in self.frames)

    @property
    def failures(self) -> list[str]:
        """Every exceeded tolerance, in words; empty if the engines are good."""
        graphs = [result.failure for result in self.graphs if result.failure is not None]
        return graphs + [failure for result in self.frames for failure in result.failures]

    def save(self, path: Path) -> None:
        """Writes a JSON report."""
        report: dict[str, Any] = {
            "model_version": self.model_version,
            "precision": self.precision,
            "graphs": [
                {
                    "graph": each.graph, "batch": each.batch, "relative_tolerance": each.tolerance,
                    **{name: _json_number(value) for name, value in each.parity.rounded().items()},
                }
                for each in self.graphs
            ],
            "end_to_end": [
                {
                    "frame": each.frame, "query": each.query, "sampler": each.sampler, "steps": each.steps,
                    "cache_interval": each.cache_interval,
                    "description": each.description, "descriptions_equal": each.description == each.reference,
                    "psnr_db": _json_number(round(each.psnr, 2)), "least_psnr_db": each.least_psnr,
                }
                for each in self.frames
            ],
            "failures": self.failures,
        }  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")


def verify_engines(
    engines: Path,
    checkpoint: Path,
    frames: Sequence[Image.Image],
    *,
    batches: Sequence[int] = BATCHES,
    steps: int | None = None,
    threads: int = 0,
    device: str = "cpu",
    announce: Callable[[str], None] = lambda stage: None,
) -> Verification:
    """Compares an engine directory with the checkpoint it was built from, by the tolerances in its manifest.

    On a CPU half-precision graphs run with every rounding spelled out (`lego_export.checking`); it would skip some.

    Args:
        engines: The engine directory.
        checkpoint: Its checkpoint.
        frames: RGB pictures to ask about.
        batches: Batch sizes each graph is tried at.
        steps: Denoising steps; None takes the model's own.
        threads: Of onnxruntime; 0 lets it choose.
        device: What runs the server's engine that paints. Each graph by itself is compared on the GPU by
            onnxruntime if it is "cuda", and on the CPU otherwise.
        announce: Called with the name of each graph and then of each of `compared_samplings`, before its turn.

    Raises:
        LegoError: A directory is not what it should be, or the engines come from another checkpoint.
    """
    manifest = Manifest.load(engines)
    # Whatever is known at once comes before the weights, which may take minutes to read.
    require_device(device)
    LegoConfig.load(checkpoint)
    found = fingerprint(Path(checkpoint))
    if found != manifest.checkpoint_fingerprint:
        raise LegoError(
            f"{engines} was built from another checkpoint ({manifest.checkpoint_fingerprint[:12]}) than {checkpoint} "
            f"({found[:12]}): rebuild it with lego-export build, or name the right --checkpoint"
        )
    modules = LegoCheckpoint.load(checkpoint, vllm_as_stored=True)
    definitions = define_graphs(modules)
    samples = Samples(modules, definitions, frames)
    graphs, results = [], []
    # A GPU computes as the graphs say, so that nothing need be spelled out. What plans are made of is checked here.
    graphs_on = "cuda" if device == "cuda" else "cpu"
    with nullcontext(engines) if graphs_on == "cuda" else checkable(engines, manifest) as directory:
        engine = load_engine(directory if device == "cpu" else engines, device, threads)
        for name in manifest.graph_names:
            announce(name)
            definition = definitions[name]
            session = open_session(directory / manifest.graphs[name].file, threads, device=graphs_on)
            graphs += [
                GraphResult(
                    name, batch, check_graph(session, definition, samples.feeds(name, batch)),
                    manifest.precision_of(name).tolerance,
                )
                for batch in batches
            ]  # fmt: skip
        pipeline = LegoPipeline(modules)
        words = [_describe(pipeline, frame, QUERIES[i % len(QUERIES)]) for i, frame in enumerate(frames)]
        for name, sampling in compared_samplings(manifest).items():
            announce(name)
            for index, frame in enumerate(frames):
                results.append(_answer_both(pipeline, engine, frame, words[index], index, sampling, steps, manifest))
    return Verification(manifest.model_version, manifest.precision, tuple(graphs), tuple(results))


def compared_samplings(manifest: Manifest) -> dict[str, GuidanceDefaults]:
    """Returns what is compared, by name: Euler, which adds no noise on the way, the model's own sampler, its student.

    The student only where there is one; and where the engines have the graph for it, Euler with features reused.
    """
    student: list[Sampler] = [] if manifest.lego.student is None else ["distilled"]
    samplers: list[Sampler] = ["euler", manifest.lego.guidance.sampler, *student]
    samplings: dict[str, GuidanceDefaults] = {sampler: manifest.lego.defaults(sampler) for sampler in samplers}
    if CACHE_GRAPH in manifest.graphs:
        samplings[REUSING] = replace(samplings["euler"], cache_interval=_CACHE_INTERVAL)
    return samplings


def psnr(reference: np.ndarray, found: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio in decibels of pixels in [-1, 1]; infinite if they are equal."""
    error = float(np.mean((reference.clip(-1, 1) - found.clip(-1, 1)) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(_PEAK**2 / error))


def _json_number(value: float) -> float | None:
    """JSON has no infinity: equal pictures, or a broken graph, are written as null."""
    return value if math.isfinite(value) else None


def _describe(pipeline: LegoPipeline, frame: Image.Image, query: str) -> Description:
    return describe(pipeline.checkpoint, pipeline.embed(frame), query)


def _answer_both(
    pipeline: LegoPipeline, engine: Engine, frame: Image.Image, words: Description, index: int,
    sampling: GuidanceDefaults, steps: int | None, manifest: Manifest,
) -> FrameResult:  # fmt: skip
    query = QUERIES[index % len(QUERIES)]
    if steps and sampling.sampler != "distilled":  # which has its own, whatever the others take
        sampling = replace(sampling, steps=steps)
    options = SamplingOptions(_SEED + index, **asdict(sampling))
    read = words
    description, pixels = answer_with_engine(engine, frame, query, options)
    words_may_differ = any(each.compute != "fp32" for each in manifest.precisions.values())
    if words_may_differ and description != words.text:
        # Both sides read the sentence: written word by word, it may have been made of other tokens.
        read = states_of(pipeline.checkpoint, pipeline.embed(frame), query, words.text)
        _, pixels = answer_with_engine(engine, frame, query, replace(options, description=words.text))
    reference = pipeline.paint(
        pipeline.encode_frames([frame]), pipeline.context([read]), [options.seed], **asdict(sampling)
    )
    return FrameResult(
        index, query, sampling.sampler, sampling.steps, words.text, description, psnr(reference[0].numpy(), pixels),
        manifest.least_psnr, words_may_differ, sampling.cache_interval,
    )  # fmt: skip


def answer_with_engine(
    engine: Engine, frame: Image.Image, query: str, options: SamplingOptions
) -> tuple[str, np.ndarray]:
    """Answers a query as the server does: its assistant asks for the engine calls, its `work` makes them.

    Returns:
        The description, and the guidance frame's pixels (3, R, R) before they become a JPEG.
    """
    lego = engine.manifest.lego
    prepared = PreparedFrame(
        frame_to_pixels(frame, lego.resolution), frame_to_vision_pixels(frame, lego.vision), frame.width, frame.height
    )
    question = Question(prepared, engine.texts.prompt(query), options, arrived=0.0, prepared=0.0)
    steps = Assistant(engine.manifest, engine.texts).answer(question)
    result: Any = None
    pixels = np.empty(0, np.float32)
    while True:
        item = steps.send(result)
        result = None
        if isinstance(item, Answer):
            return item.description, pixels
        if isinstance(item, work.Work):
            result = work.run(engine, [item])[0]
            if isinstance(item, work.DecodeLatent):
                pixels = result
