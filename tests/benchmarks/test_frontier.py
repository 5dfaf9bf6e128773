"""Latency against quality: what is warmed up, and what the table says of pictures that are compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lego_core.branches import plan_evaluations
from lego_core.config import GuidanceDefaults, LegoConfig

from benchmarks.frontier.measure import Figures, warm_up
from benchmarks.frontier.report import markdown, plot, summarise
from benchmarks.frontier.samplings import default_samplings
from benchmarks.frontier.sides import STAGES, Outcome

MODEL = Path(__file__).parents[2] / "models" / "lego-nano"


class Listener:
    """A side that answers nothing and remembers how it was to sample."""

    def __init__(self, plain_only: bool = False) -> None:
        self.asked: list[GuidanceDefaults] = []
        self._plain_only = plain_only

    def answers(self, sampling: GuidanceDefaults) -> bool:
        plain = replace(sampling, guidance_interval=(0.0, 1.0), cache_interval=1)
        return sampling == plain or not self._plain_only

    def answer(self, frame: bytes, query: str, seed: int, sampling: GuidanceDefaults) -> Outcome:
        assert self.answers(sampling)
        self.asked.append(sampling)
        return Outcome("", np.zeros((1, 1, 3), np.uint8), dict.fromkeys(STAGES, 0.0))


def calls(samplings: list[GuidanceDefaults]) -> set[tuple[str, int, str]]:
    """Returns the calls of the U-Net that samplings need: by sampler, rows, and what becomes of features."""
    return {
        (each.sampler, len(step.weights), step.features)
        for each in samplings
        for step in plan_evaluations(
            each.steps, each.text_scale, each.image_scale, each.guidance_interval, each.cache_interval
        )
    }


@pytest.mark.skipif(not (MODEL / "lego.json").is_file(), reason=f"there is no {MODEL}")
def test_every_call_that_is_timed_has_been_made_before() -> None:
    samplings, ours, theirs = default_samplings(LegoConfig.load(MODEL)), Listener(), Listener(plain_only=True)
    warm_up({"ours": ours, "theirs": theirs}, samplings)

    assert calls(samplings) == calls(ours.asked)
    assert calls([each for each in samplings if theirs.answers(each)]) == calls(theirs.asked)
    assert max(each.steps for each in ours.asked) == 4


def test_of_pictures_that_are_compared_one_is_the_reference_and_the_others_say_how_near_they_are(
    tmp_path: Path,
) -> None:
    def answer(seconds: float, parity: float | None) -> dict[str, Any]:
        return {**dict.fromkeys(STAGES, seconds), "psnr_db": 25.0, "parity_db": parity, "same_words": True}

    settings = {"sides": ["torch", "cpu", "openvino"], "samplings": {"paper": {}, "few": {}}, "model": "m",
                "threads": 2}  # fmt: skip
    figures = Figures(tmp_path / "figures.json", settings)
    figures.rounds = [{"seed": 0, "others": 0.0, "answers": {
        "torch": {"paper": answer(4, None), "few": answer(2, None)},
        "cpu": {"paper": answer(2, 75.1), "few": answer(1, None)},
        "openvino": {"paper": answer(1, None), "few": answer(0.5, 55.2)},
    }}]  # fmt: skip
    rows = summarise(figures)
    cells = [line.split(" | ") for line in markdown(figures, rows).splitlines()[2:8]]
    plot(rows, tmp_path / "plot.png")

    assert [each[7] for each in cells] == ["reference", "reference", "75.1 dB", "reference", "equal", "55.2 dB"]
    assert [row["times_as_fast"][1] for row in rows] == [1, 2, 2, 4, 4, 8]
    assert (tmp_path / "plot.png").is_file()
