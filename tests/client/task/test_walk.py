"""The way through a task, and what is remembered of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lego_client.task.memory import load_walk, save_walk
from lego_client.task.plan import Step, Task
from lego_client.task.walk import HELP, Status, Walk
from lego_core.errors import LegoError

TASK = Task(
    "Make tea",
    (
        Step("Water", "how do I turn on the tap?", "Cold."),
        Step("Stove", "how do I turn on the stove?", confirm=("it burns",)),
        Step("Pour", "how do I pour the kettle?"),
    ),
    "Mind the heat.",
)


def asked(walk: Walk, *utterances: str) -> list[str | None]:
    return [walk.hear(utterance).query for utterance in utterances]


def test_it_begins_with_what_the_task_is_and_asks_nothing_yet() -> None:
    reply = Walk(TASK).begin()
    assert reply.say == "Make tea: 3 steps. Mind the heat. First: Water."
    assert reply.query is None and not reply.left


def test_next_leads_through_all_steps_and_tells_of_each() -> None:
    walk = Walk(TASK)
    first = walk.hear("what next?")
    assert first.say == "Step 1 of 3: Water. Cold." and first.query == TASK.steps[0].query
    assert asked(walk, "next", "next") == [TASK.steps[1].query, TASK.steps[2].query]
    assert walk.hear("next").say == "That was the last step: Make tea is finished."
    assert walk.finished and walk.statuses == [Status.DONE] * 3


def test_done_goes_on_even_before_a_step_was_shown() -> None:
    walk = Walk(TASK)
    assert walk.hear("done").query == TASK.steps[1].query
    assert walk.statuses == [Status.DONE, Status.OPEN, Status.OPEN]


def test_words_of_the_step_at_hand_mean_done_and_those_of_another_do_not() -> None:
    walk = Walk(TASK)
    assert walk.hear("it burns").query == "it burns"
    walk.hear("done")
    assert walk.hear("It burns!").query == TASK.steps[2].query


def test_a_skipped_step_is_not_done_and_is_named_at_the_end() -> None:
    walk = Walk(TASK)
    asked(walk, "next", "skip", "done")
    reply = walk.hear("done")
    assert reply.say.endswith("is finished. Skipped: Water.")
    assert walk.statuses == [Status.SKIPPED, Status.DONE, Status.DONE]


def test_back_opens_the_step_before_again() -> None:
    walk = Walk(TASK)
    assert asked(walk, "next", "next", "back") == [TASK.steps[0].query, TASK.steps[1].query, TASK.steps[0].query]
    assert walk.statuses[0] is Status.OPEN
    assert walk.hear("back").say == "This is the first step: Water."
    assert asked(walk, "next") == [TASK.steps[1].query]


def test_back_from_the_end_returns_to_the_last_step() -> None:
    walk = Walk(TASK)
    asked(walk, "done", "done", "done")
    assert walk.hear("back").query == TASK.steps[2].query and not walk.finished


def test_repeat_asks_again_and_goes_nowhere() -> None:
    walk = Walk(TASK)
    assert asked(walk, "next", "again", "what do I do?") == [TASK.steps[0].query] * 3
    assert walk.place == 0


def test_a_question_in_between_keeps_the_place() -> None:
    walk = Walk(TASK)
    walk.hear("next")
    assert walk.hear("  how do I open the drawer? ").query == "how do I open the drawer?"
    assert walk.hear("where am I?").say == "Step 1 of 3: Water. 0 done."
    assert walk.hear("next").query == TASK.steps[1].query


def test_politeness_is_answered_with_help_and_not_asked_of_the_server() -> None:
    reply = Walk(TASK).hear("okay")
    assert (reply.say, reply.query) == (HELP, None)


def test_stop_says_where_one_is() -> None:
    walk = Walk(TASK)
    asked(walk, "next", "skip")
    reply = walk.hear("stop")
    assert reply.left and reply.say == "Step 2 of 3: Stove. 0 done. Skipped: Water."


def test_a_saved_walk_goes_on_where_it_stopped(tmp_path: Path) -> None:
    walk = Walk(TASK)
    asked(walk, "done", "skip")
    save_walk(tmp_path / "new" / "state.json", walk)
    later = load_walk(tmp_path / "new" / "state.json", TASK)
    assert later.begin().say == "Make tea: 3 steps. Mind the heat. Step 3 of 3: Pour. 1 done. Skipped: Stove."
    assert asked(later, "what next?") == [TASK.steps[2].query]  # shown again before it can be done


def test_without_a_state_a_walk_begins_at_the_beginning(tmp_path: Path) -> None:
    assert load_walk(tmp_path / "none.json", TASK).place == 0


def test_notes_may_change_and_steps_may_not(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    save_walk(path, Walk(TASK, 1, [Status.DONE, Status.OPEN, Status.OPEN]))
    assert load_walk(path, Task(TASK.title, TASK.steps, "Other notes.")).place == 1
    with pytest.raises(LegoError, match=r"the steps of 'Make tea' have changed since .*state.json was written; delete"):
        load_walk(path, Task(TASK.title, TASK.steps[:2]))
    with pytest.raises(LegoError, match="is the state of the task 'Make tea', not of 'Make coffee'; name another file"):
        load_walk(path, Task("Make coffee", TASK.steps))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"place": 4}, "is not the state of a task"),
        ({"place": True}, "is not the state of a task"),
        ({"statuses": ["open"]}, "is not the state of a task"),
        ({"statuses": ["open", "open", "burnt"]}, "neither open, done nor skipped"),
        ({"statuses": ["open", "open", []]}, "neither open, done nor skipped"),
    ],
)
def test_a_state_that_is_none_is_refused_with_the_cure(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "state.json"
    save_walk(path, Walk(TASK))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(LegoError, match=rf"{message}.*delete .*state.json, or name another file with --state"):
        load_walk(path, TASK)


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, "\x00"])
def test_a_file_that_is_no_state_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(LegoError, match=r"state.json"):
        load_walk(tmp_path / "state.json", TASK)
