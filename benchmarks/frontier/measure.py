"""Rounds, in which every side answers the same query by every sampling, and scenes, on which pictures are judged."""

from __future__ import annotations

import io
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from lego_core.config import GuidanceDefaults, LegoConfig
from lego_core.errors import LegoError
from lego_core.files import read_json
from lego_core.manifest import Manifest
from lego_training.evaluation.toy import FIRST_SEED, judge
from lego_training.toy_kitchen.language import question
from lego_training.toy_kitchen.pair import KitchenPair, make_pair
from numpy.typing import NDArray
from PIL import Image
from rich.progress import Progress

from benchmarks.frontier.samplings import name_of
from benchmarks.frontier.sides import TORCH_SIDES, Outcome, Side

# Scenes whose pictures are judged begin at FIRST_SEED; those that are timed lie elsewhere.
FIRST_ROUND = FIRST_SEED + 500_000
WHOLE = (0.0, 1.0)  # guidance at every step


class Figures:
    """Everything measured so far, in a JSON file that is written anew after every round and every scene.

    Attributes:
        settings: What was asked for; a run goes on only with the same.
        rounds: For each, the seed of its scene, `others`, the share of the processor that other processes took, and
            `answers[side][sampling]`: seconds of the stages, `psnr_db` to the
            picture of the first sampling by the first side (null where they are equal), `parity_db` to that of the same
            sampling by the first side with the same code for it, and `same_words`.
        judges: Which sides' pictures are judged.
        scenes: For each, the seed and `judged[side][sampling]`: `success`, `slots`, `inside_psnr_db` (to the target,
            where it differs from the frame) and `outside_psnr_db` (to the frame, elsewhere).
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, settings
        self.rounds: list[dict[str, Any]] = []
        self.judges: list[str] = []
        self.scenes: list[dict[str, Any]] = []

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads figures again.

        Raises:
            LegoError: The file holds none.
        """
        try:
            values = read_json(path)
            figures = cls(path, values["settings"])
            figures.rounds, figures.judges, figures.scenes = values["rounds"], values["judges"], values["scenes"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LegoError(f"{path} holds no figures of this benchmark ({error}); name another --json") from error
        return figures

    @classmethod
    def resume(cls, path: Path, settings: dict[str, Any]) -> Self:
        """Takes up a file of the same settings, or begins one.

        Raises:
            LegoError: It is of other settings, or holds no figures.
        """
        if not path.is_file():
            return cls(path, settings)
        figures = cls.read(path)
        for key, value in settings.items():
            if figures.settings.get(key) != value:
                raise LegoError(
                    f"{path} was measured with {key} {figures.settings.get(key)!r}, not {value!r}: remove it to start "
                    "anew, or name another --json"
                )
        return figures

    def save(self, **summary: Any) -> None:
        """Writes the file, with what was made of the figures in it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.path.name}.partial")
        values = {
            "settings": self.settings, **summary, "judges": self.judges, "rounds": self.rounds, "scenes": self.scenes,
        }  # fmt: skip
        partial.write_text(json.dumps(values) + "\n")
        partial.replace(self.path)


def settings_of(
    model: Path, lego: LegoConfig, sides: Sequence[str], samplings: Sequence[GuidanceDefaults], threads: int
) -> dict[str, Any]:
    """Returns what figures depend on, as JSON has it.

    Raises:
        LegoError: The model has no engines.
    """
    settings = {
        "model": str(model), "model_version": Manifest.load(model).model_version,
        "threads": threads, "machine": platform.processor() or platform.machine(),
        "sides": list(sides), "samplings": {name_of(each, lego): asdict(each) for each in samplings},
    }  # fmt: skip
    as_json: dict[str, Any] = json.loads(json.dumps(settings))
    return as_json


def warm_up(sides: Mapping[str, Side], samplings: Sequence[GuidanceDefaults]) -> None:
    """Has every side answer once by each kind of sampling, in a few steps: a first call pays for what comes once."""
    # Beside the graphs, an engine may have to prepare for as many rows as a call has, which change with the interval.
    kinds = {
        (each.sampler, each.cache_interval > 1, each.guidance_interval == WHOLE): each
        for each in sorted(samplings, key=lambda row: -row.steps)
    }
    short = [
        each
        if each.sampler == "distilled" or each.steps < 4
        else replace(each, steps=4, guidance_interval=WHOLE if whole else (0.5, 1.0))
        for (_, _, whole), each in kinds.items()
    ]
    with Progress() as progress:
        task = progress.add_task("warming up", total=len(sides))
        for side in sides.values():
            for sampling in short:
                if side.answers(sampling):
                    side.answer(*_query(make_pair(FIRST_ROUND - 1, "val")), 0, sampling)
            progress.advance(task)


def run_rounds(
    figures: Figures, sides: Mapping[str, Side], samplings: Sequence[GuidanceDefaults], lego: LegoConfig, rounds: int
) -> None:
    """Times every side by every sampling on the same query, side after side, `rounds` times."""
    with Progress() as progress:
        task = progress.add_task("rounds", total=rounds, completed=min(len(figures.rounds), rounds))
        while len(figures.rounds) < rounds:
            pair = make_pair(FIRST_ROUND + len(figures.rounds), "val")
            before = _processor_seconds()
            answers: dict[str, dict[str, Any]] = {name: {} for name in sides}
            reference: Outcome | None = None
            alike: dict[bool, dict[GuidanceDefaults, Outcome]] = {True: {}, False: {}}
            for sampling in samplings:
                for name, side in sides.items():
                    if not side.answers(sampling):
                        continue
                    outcome = side.answer(*_query(pair), pair.seed, sampling)
                    reference = reference or outcome
                    # diffusers has schedulers of its own: by the first sampling alone all sides paint the same.
                    kind = name in TORCH_SIDES or sampling == samplings[0]
                    twin = alike[kind].setdefault(sampling, outcome)
                    answers[name][name_of(sampling, lego)] = {
                        **{stage: round(seconds, 5) for stage, seconds in outcome.seconds.items()},
                        "psnr_db": psnr(reference.picture, outcome.picture),
                        "parity_db": psnr(twin.picture, outcome.picture),
                        "same_words": outcome.description == reference.description,
                    }
            elapsed, busy, own = np.subtract(_processor_seconds(), before).tolist()
            others = max(0.0, busy - own) / (elapsed * (os.cpu_count() or 1))
            figures.rounds.append({"seed": pair.seed, "others": round(others, 3), "answers": answers})
            figures.save()
            progress.advance(task)


def run_scenes(
    figures: Figures, sides: Mapping[str, Side], samplings: Sequence[GuidanceDefaults], lego: LegoConfig, scenes: int
) -> None:
    """Judges pictures of `scenes` unseen scenes: of the fastest engine, and of the fastest of the diffusers sides.

    The first sampling, whose noise and so whose pictures are the same on all sides, is judged once.
    """
    figures.judges = figures.judges or _fastest(figures, sides)
    rows = {
        name: [each for each in samplings[name != figures.judges[0] :] if sides[name].answers(each)]
        for name in figures.judges
    }
    with Progress() as progress:
        task = progress.add_task("scenes", total=scenes, completed=min(len(figures.scenes), scenes))
        while len(figures.scenes) < scenes:
            pair = make_pair(FIRST_SEED + len(figures.scenes), "val")
            judged: dict[str, dict[str, Any]] = {name: {} for name in rows}
            for name, each in rows.items():
                for sampling in each:
                    outcome = sides[name].answer(*_query(pair), pair.seed, sampling)
                    judged[name][name_of(sampling, lego)] = _judge(pair, outcome)
            figures.scenes.append({"seed": pair.seed, "judged": judged})
            figures.save()
            progress.advance(task)


def psnr(wanted: NDArray[np.uint8], found: NDArray[np.uint8]) -> float | None:
    """Returns the peak signal-to-noise ratio of two pictures in decibels; None if they are equal."""
    error = float(np.square(wanted.astype(np.float64) - found).mean()) / 255**2
    return None if error == 0 else round(-10 * float(np.log10(error)), 2)


def _query(pair: KitchenPair) -> tuple[bytes, str]:
    """The frame as it arrives, without loss, and what is asked."""
    buffer = io.BytesIO()
    Image.fromarray(pair.input_frame).save(buffer, "PNG")
    return buffer.getvalue(), question(pair.action)


def _processor_seconds() -> tuple[float, float, float]:
    """Seconds on the clock, those in which processors were busy, and this process' and its children's of them."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, *others = map(int, file.readline().split()[1:9])  # idle and iowait are not busy
    busy = (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")
    return time.perf_counter(), busy, sum(os.times()[:4])


def _judge(pair: KitchenPair, outcome: Outcome) -> dict[str, Any]:
    size = pair.input_frame.shape[1::-1]
    picture = np.asarray(Image.fromarray(outcome.picture).resize(size, Image.Resampling.BICUBIC))
    result = judge(pair, picture, outcome.description)
    inside = -10 * float(np.log10(max(result.inside_target_mse, 1e-10)))
    return {
        "success": result.success, "slots": result.slots,
        "inside_psnr_db": round(inside, 2), "outside_psnr_db": round(result.outside_psnr_db, 2),
    }  # fmt: skip


def _fastest(figures: Figures, sides: Mapping[str, Side]) -> list[str]:
    """The fastest engine and the fastest diffusers side by the first sampling, those that there are."""

    def seconds(name: str) -> float:
        first = next(iter(figures.settings["samplings"]))
        return float(np.median([each["answers"][name][first]["whole"] for each in figures.rounds]))

    kinds = [name for name in sides if name not in TORCH_SIDES], [name for name in sides if name in TORCH_SIDES]
    return [min(kind, key=seconds) for kind in kinds if kind]
