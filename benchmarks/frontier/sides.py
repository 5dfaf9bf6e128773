"""What answers a query: the diffusers pipeline as anyone would write it, and our engines.

A side is given the frame as it arrives (an encoded picture), the question, the seed of the noise and how to sample. It
gives the sentence, the picture, and how long either took.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from lego_core.config import GuidanceDefaults
from lego_core.errors import LegoError
from lego_core.images import guidance_frame
from lego_server import work
from lego_server.assistant import Answer, Assistant, DescriptionPiece, Question
from lego_server.config import Limits
from lego_server.engines import load_engine
from lego_server.engines.devices import CPU_DEVICES
from lego_server.frames import prepare_frame
from lego_server.options import OptionWishes, resolve_options
from numpy.typing import NDArray

from benchmarks.frontier.samplings import with_student_steps

STAGES = ("description", "guidance", "whole")
TORCH_SIDES = ("torch", "torch-bf16", "torch-compile", "torch-compile-bf16")
SIDES = (*TORCH_SIDES, *CPU_DEVICES)
TITLES = {
    "torch": "diffusers, fp32", "torch-bf16": "diffusers, bf16 autocast", "torch-compile": "diffusers, torch.compile",
    "torch-compile-bf16": "diffusers, torch.compile, bf16 autocast", "cpu": "LEGO-AR, onnxruntime",
    "openvino": "LEGO-AR, OpenVINO fp32", "openvino-bf16": "LEGO-AR, OpenVINO bf16",
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """One query's answer.

    Attributes:
        description: The sentence.
        picture: The guidance frame, (H, W, 3).
        seconds: From the frame's bytes to the sentence, from there to the picture, and both, by `STAGES`.
    """

    description: str
    picture: NDArray[np.uint8]
    seconds: dict[str, float]


class Side(Protocol):
    """Answers queries, one after the other."""

    def answers(self, sampling: GuidanceDefaults) -> bool:
        """Whether it can sample so."""
        ...

    def answer(self, frame: bytes, query: str, seed: int, sampling: GuidanceDefaults) -> Outcome:
        """Answers one query."""
        ...


def open_side(name: str, model: Path, threads: int) -> Side:
    """Loads a side.

    Raises:
        LegoError: There is none of this name, or this machine cannot run it.
    """
    if name not in SIDES:
        raise LegoError(f"--sides has {name!r}; choose from {', '.join(SIDES)}")
    if name in TORCH_SIDES:
        from benchmarks.frontier.diffusers_side import DiffusersSide

        return DiffusersSide(model, threads, compiled="compile" in name, bf16="bf16" in name)
    return EngineSide(model, name, threads)


class EngineSide:
    """One of the server's engines, asked by the server's own assistant, without network, sessions or other wearers."""

    def __init__(self, model: Path, device: str, threads: int) -> None:
        self._engine = load_engine(model, device, threads)

    def answers(self, sampling: GuidanceDefaults) -> bool:
        """See `Side`."""
        return True

    def answer(self, frame: bytes, query: str, seed: int, sampling: GuidanceDefaults) -> Outcome:
        """See `Side`; the picture is encoded as JPEG too, as the server does."""
        engine, begin = self._engine, time.perf_counter()
        manifest = engine.manifest
        if sampling.sampler == "distilled":
            manifest = replace(manifest, lego=with_student_steps(manifest.lego, sampling.steps))
        prepared = prepare_frame(frame, Limits(), manifest.lego)
        options = resolve_options(OptionWishes(seed=seed, **asdict(sampling)), manifest, 1000, 1000)
        question = Question(prepared, engine.texts.prompt(query), options, begin, time.perf_counter())
        steps, result = Assistant(manifest, engine.texts).answer(question), None
        pixels, described = np.empty(0, np.float32), begin
        while True:
            item: Any = steps.send(result)
            result = None
            if isinstance(item, Answer):
                seconds = clock(begin, described, time.perf_counter())
                picture = guidance_frame(pixels, prepared.width, prepared.height, "default")
                return Outcome(item.description, np.asarray(picture), seconds)
            if isinstance(item, work.Work):
                result = work.run(engine, [item])[0]
                if isinstance(item, work.DecodeLatent):
                    pixels = result
            elif isinstance(item, DescriptionPiece) and item.done:
                described = time.perf_counter()


def clock(begin: float, described: float, end: float) -> dict[str, float]:
    """Returns the seconds of `STAGES`."""
    return dict(zip(STAGES, (described - begin, end - described, end - begin), strict=True))
