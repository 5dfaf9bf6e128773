"""The samplings that are compared: a row of the table each."""

from __future__ import annotations

from dataclasses import replace

from lego_core.config import PRESETS, SAMPLERS, GuidanceDefaults, LegoConfig
from lego_core.errors import LegoError

# (sampler, steps); what the model's presets are comes beside.
ROWS = (("dpm_solver_pp", 50), ("dpm_solver_pp", 25), ("dpm_solver_pp", 12), ("distilled", 2), ("distilled", 1))


def default_samplings(lego: LegoConfig) -> list[GuidanceDefaults]:
    """Returns the paper's sampling (100 ancestral steps with dual guidance), then from many evaluations to few."""
    rows = {lego.preset(name) for name in PRESETS}
    rows |= {_row(lego, *each) for each in ROWS if each[0] != "distilled" or lego.student is not None}
    paper = lego.preset("faithful")
    return [paper, *sorted(rows - {paper}, key=lambda row: (row.sampler == "distilled", -row.steps))]


def parse_samplings(lego: LegoConfig, text: str) -> list[GuidanceDefaults]:
    """Reads "dpm_solver_pp:25,distilled:4".

    Raises:
        LegoError: No such sampler, or no number of steps.
    """
    rows = []
    for each in text.split(","):
        sampler, _, steps = each.strip().partition(":")
        if sampler not in SAMPLERS or not steps.isdecimal():
            raise LegoError(
                f"--samplings has {each!r}; write SAMPLER:STEPS, with one of {', '.join(SAMPLERS)} for the sampler"
            )
        rows.append(_row(lego, sampler, int(steps)))
    return rows


def with_student_steps(lego: LegoConfig, steps: int) -> LegoConfig:
    """Returns the model with a student that takes so many of its steps, evenly spread, and longer ones.

    Raises:
        LegoError: There is no student, or its steps are no multiple of these.
    """
    if lego.student is None:
        raise LegoError(f"{lego.name} has no distilled student; leave distilled out of --samplings")
    timesteps = lego.student.timesteps
    if steps < 1 or len(timesteps) % steps:
        raise LegoError(f"distilled:{steps}: the student has {len(timesteps)} steps; take a number that divides them")
    return replace(lego, student=replace(lego.student, timesteps=timesteps[:: len(timesteps) // steps]))


def name_of(row: GuidanceDefaults, lego: LegoConfig) -> str:
    """Returns what a row is called: sampler, steps, and the preset if it is one."""
    presets = [name for name in PRESETS if lego.preset(name) == row]
    sampler = {"distilled": "student", "dpm_solver_pp": "DPM-Solver++", "euler_ancestral": "Euler ancestral"}
    told = f"{sampler.get(row.sampler, row.sampler)}, {row.steps} step{'s' * (row.steps > 1)}"
    return f"{told} ({', '.join(presets)})" if presets else told


def _row(lego: LegoConfig, sampler: str, steps: int) -> GuidanceDefaults:
    if sampler == "distilled":
        return with_student_steps(lego, steps).defaults("distilled")
    return replace(lego.guidance, sampler=sampler, steps=steps)  # type: ignore[arg-type]  # checked
