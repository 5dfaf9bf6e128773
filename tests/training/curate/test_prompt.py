"""Prompts: what is sent, and what a person's own prompt file must be."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from lego_core.errors import LegoError
from lego_training.curate.prompt import load_prompt, override_request, prompt_path
from lego_training.curate.scenes import NamedBox, Scene

EXAMPLE = {
    "label": "open drawer",
    "boxes": {"right hand": [0.5, 0.5, 0.7, 0.8], "drawer": [0.3, 0.5, 0.8, 0.7]},
    "description": "The right hand pulls the drawer open.",
}
PROMPT = {"system": "Describe.", "request": {"temperature": 0.5}, "things": ["drawer", "cup"], "examples": [EXAMPLE]}


def write(folder: Path, content: Any) -> Path:
    path = folder / "own.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def changed(key: str, value: Any) -> dict[str, Any]:
    return {**copy.deepcopy(PROMPT), key: value}


def test_a_scene_is_asked_about_in_three_messages_of_which_the_second_shows_numbered_examples(tmp_path: Path) -> None:
    scene = Scene("a/b", "", "close drawer", (NamedBox("left hand", (0.1, 0.2, 0.3, 0.456)),))

    assert load_prompt(write(tmp_path, PROMPT)).messages(scene) == [
        {"role": "system", "content": "Describe."},
        {
            "role": "user",
            "content": "Worked examples:\n\n1. Action: open drawer\nObjects: right hand [0.50, 0.50, 0.70, 0.80]; "
            "drawer [0.30, 0.50, 0.80, 0.70]\nDescription: The right hand pulls the drawer open.",
        },
        {
            "role": "user",
            "content": "Now this one.\n\n"
            "Action: close drawer\nObjects: left hand [0.10, 0.20, 0.30, 0.46]\nDescription:",
        },
    ]


def test_a_scene_without_boxes_says_that_they_are_not_known(tmp_path: Path) -> None:
    message = load_prompt(write(tmp_path, PROMPT)).messages(Scene("a/b", "", "close drawer", ()))[2]

    assert "Objects: not known" in message["content"]


def test_kitchens_and_everyday_scenes_have_prompts_of_their_own() -> None:
    paths = {name: prompt_path(name).stem for name in ("epickitchen", "toykitchen", "ego4d")}

    assert paths == {"epickitchen": "kitchen", "toykitchen": "kitchen", "ego4d": "everyday"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ([], "must have the keys system, request, things, examples; it has list"),
        ({"system": "x"}, "must have the keys .*; it has system"),
        (changed("system", " "), "system is empty"),
        (changed("request", ["x"]), "request is .*; it must be a mapping"),
        (changed("request", {"model": "x"}), "the request's model is set by the command"),
        (changed("things", "cup"), "things must be a list"),
        (changed("examples", []), "examples is empty"),
        (changed("examples", [{"label": "x"}]), "example 1: it must have label, boxes and description"),
        (
            changed("examples", [{**EXAMPLE, "boxes": {"cup": [0, 0, 2, 1]}}]),
            "example 1: the box of 'cup' is .* 0 to 1",
        ),
        (
            changed("examples", [EXAMPLE, {**EXAMPLE, "description": "The left hand pulls the drawer open."}]),
            "example 2: its description would be rejected: it names the left hand",
        ),
    ],
)
def test_what_is_wrong_with_a_prompt_is_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(LegoError, match=rf"own\.yaml.*{message}"):
        load_prompt(write(tmp_path, content))


def test_settings_of_the_request_are_overridden_added_and_taken_away() -> None:
    changed_request = override_request({"temperature": 0.7, "seed": 1}, ["temperature=0", "top_p=0.9", "seed=null"])

    assert changed_request == {"temperature": 0, "top_p": 0.9}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "is not of the form key=value"),
        ("=1", "is not of the form key=value"),
        ("stop=[", "has a value that is no YAML"),
        ("n=2", "the request's n is set by the command"),
        ("day=2026-01-01", "holds what JSON cannot"),
        ("temperature=.nan", "holds what JSON cannot"),
    ],
)
def test_an_override_that_is_none_is_named(override: str, message: str) -> None:
    with pytest.raises(LegoError, match=re.escape("--request") + f".*{message}"):
        override_request({}, [override])
