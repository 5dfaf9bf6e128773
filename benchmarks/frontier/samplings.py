"""The samplings that are compared: a row of the table each."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, get_args

from lego_core.config import SAMPLERS, GuidanceDefaults, LegoConfig, Preset
from lego_core.errors import LegoError

# Beside the model's presets; what a row does not say is the model's own.
ROWS: tuple[dict[str, Any], ...] = (
    {"sampler": "dpm_solver_pp", "steps": 50},
    {"sampler": "dpm_solver_pp", "steps": 25},
    {"sampler": "dpm_solver_pp", "steps": 20, "cache_interval": 2},
    {"sampler": "dpm_solver_pp", "steps": 20, "cache_interval": 3},
    {"sampler": "dpm_solver_pp", "steps": 12},
    {"sampler": "dpm_solver_pp", "steps": 10, "cache_interval": 2},
    {"sampler": "dpm_solver_pp", "steps": 10, "guidance_interval": (0.2, 1.0)},
    {"sampler": "dpm_solver_pp", "steps": 10, "guidance_interval": (0.5, 1.0)},
    {"sampler": "dpm_solver_pp", "steps": 10, "guidance_interval": (0.2, 1.0), "cache_interval": 2},
    {"sampler": "distilled", "steps": 2},
    {"sampler": "distilled", "steps": 1},
)
_TITLES = {"distilled": "student", "dpm_solver_pp": "DPM-Solver++", "euler_ancestral": "Euler ancestral"}


def default_samplings(lego: LegoConfig) -> list[GuidanceDefaults]:
    """Returns the paper's sampling (100 ancestral steps with dual guidance), then from many evaluations to few."""
    rows = {lego.preset(name) for name in get_args(Preset)}
    rows |= {_row(lego, **each) for each in ROWS if each["sampler"] != "distilled" or lego.student is not None}
    paper = lego.preset("faithful")
    return [paper, *sorted(rows - {paper}, key=_dearest_first)]


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
        rows.append(_row(lego, sampler=sampler, steps=int(steps)))
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
    """Returns what a row is called: sampler, steps, what else is not the model's own, and the preset if it is one."""
    own = replace(lego.defaults(row.sampler), sampler=row.sampler, steps=row.steps)
    others = ((each.name, getattr(row, each.name)) for each in fields(row))
    told = [_told(name, value) for name, value in others if value != getattr(own, name)]
    presets = [name for name in get_args(Preset) if lego.preset(name) == row]
    words = [_TITLES.get(row.sampler, row.sampler), f"{row.steps} step{'s' * (row.steps > 1)}", *told]
    return ", ".join(words) + (f" ({', '.join(presets)})" if presets else "")


def _dearest_first(row: GuidanceDefaults) -> tuple[Any, ...]:
    return row.sampler == "distilled", -row.steps, row.cache_interval, row.guidance_interval


def _told(name: str, value: Any) -> str:
    if name == "guidance_interval":
        return f"guidance {value[0]:g}–{value[1]:g}"
    return f"deep layers 1 in {value}" if name == "cache_interval" else f"{name} {value}"


def _row(lego: LegoConfig, **row: Any) -> GuidanceDefaults:
    if row["sampler"] == "distilled":
        return with_student_steps(lego, row["steps"]).defaults("distilled")
    return replace(lego.guidance, **row)
