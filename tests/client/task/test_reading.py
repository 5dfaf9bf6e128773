"""Task files: what they say, and what is said of their faults."""

from __future__ import annotations

from pathlib import Path

import pytest
from lego_client.task.plan import Step
from lego_client.task.reading import load_task
from lego_core.errors import LegoError

DOCS = Path(__file__).parents[3] / "docs" / "tasks"


def written(tmp_path: Path, text: str) -> str:
    (tmp_path / "task.yaml").write_text(text)
    return str(tmp_path / "task.yaml")


def test_a_task_has_a_title_notes_and_steps(tmp_path: Path) -> None:
    task = load_task(
        written(
            tmp_path,
            "title: Make tea\nnotes: >\n  Mind\n  the heat.\nsteps:\n"
            "  - query: how do I turn on the tap?\n"
            "  - {title: Stove, query: 'how do I turn on the stove?', notes: Hot., confirm: [yes, it burns]}\n",
        )
    )
    assert (task.title, task.notes) == ("Make tea", "Mind the heat.")
    assert task.steps == (
        Step("how do I turn on the tap?", "how do I turn on the tap?"),
        Step("Stove", "how do I turn on the stove?", "Hot.", ("yes", "it burns")),  # words, not YAML's true
    )


def test_every_example_can_be_read() -> None:
    paths = sorted(DOCS.glob("*.yaml"))
    assert len(paths) == 5
    assert all(len(load_task(str(path)).steps) >= 5 for path in paths)


@pytest.mark.parametrize("name", ["tea", "soup", "tidy"])
def test_examples_for_the_toy_kitchen_ask_for_actions_it_has(name: str) -> None:
    from lego_training.toy_kitchen import ACTIONS
    from lego_training.toy_kitchen.language import VEGETABLES

    known = {f"{action.verb} the {noun}" for action in ACTIONS for noun in (action.noun, *VEGETABLES)}
    for step in load_task(str(DOCS / f"{name}.yaml")).steps:
        assert step.query.removeprefix("how do I ").removesuffix("?") in known


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "task.yaml is empty; a task has a title and steps"),
        ("- a", "line 1: the task is a list; it must be keys and values: title, steps, notes"),
        ("title: Tea", "line 1: the task has no steps; add a line 'steps: ...'"),
        ("title: Tea\nsteps: []", "line 2: steps has 0 entries; it must have 1 to 200"),
        ("title: Tea\nsteps: boil", "line 2: steps is 'boil'; it must be a list, each entry behind a dash"),
        ("title: Tea\nsteps:\n- boil", "line 3: step 1 is 'boil'; it must be keys and values: query, title, notes"),
        ("title: Tea\nsteps:\n- query: a\n- title: b", "line 4: step 2 has no query; add a line 'query: ...'"),
        ("title: Tea\nsteps:\n- query:", "line 3: query of step 1 is empty; write some words"),
        ("title: Tea\nsteps:\n- query: [a]", "line 3: query of step 1 is a list; it must be text"),
        ("title: Tea\nsteps:\n- query: a\n  sub: b", "line 4: step 1 has the key 'sub'; it may have query, title"),
        ("title: Tea\ntitle: Coffee\nsteps: []", "line 2: the task has the key 'title' twice; keep one of them"),
        ("title: Tea\nsteps:\n- query: a\n  confirm: yes", "line 4: confirm of step 1 is 'yes'; it must be a list"),
        ("title: Tea\nsteps:\n- query: a\n  confirm: [{}]", "line 4: confirm of step 1 is keys and values; it must be"),
        ("title: 'Tea\nsteps:", "task.yaml is no YAML: line 2, column 7: found unexpected end of stream"),
        ("title: *tea\nsteps: []", "task.yaml is no YAML: line 1, column 8: found undefined alias"),
        ("a: " + "[" * 5000, "task.yaml is nested too deeply to be a task"),
        ("title: " + "x" * 1001 + "\nsteps: []", "line 2: steps has 0 entries"),
    ],
)
def test_a_fault_is_named_with_its_line_and_cure(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LegoError) as raised:
        load_task(written(tmp_path, text))
    assert message in str(raised.value)
    assert "task.yaml" in str(raised.value)


def test_tags_that_would_run_code_are_mere_text(tmp_path: Path) -> None:
    task = load_task(written(tmp_path, "title: !!python/object/apply:os.getcwd x\nsteps:\n- query: a\n"))
    assert task.title == "x"


def test_a_file_that_is_not_text_or_far_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(LegoError, match="cannot be read as text"):
        load_task(str(path))
    path.write_bytes(b"#" * 1_000_001)
    with pytest.raises(LegoError, match="has more than 1000000 bytes; a task is far smaller"):
        load_task(str(path))


def test_a_mistyped_name_is_corrected(tmp_path: Path) -> None:
    written(tmp_path, "title: Tea")
    with pytest.raises(LegoError, match=r"did you mean .*task\.yaml"):
        load_task(str(tmp_path / "taks.yaml"))
