"""A task led through in a live session, over a real connection."""

from __future__ import annotations

from pathlib import Path

from lego_client.overlay.labels import State
from lego_client.task.memory import load_walk
from lego_client.task.plan import Step, Task
from lego_client.task.walk import Walk

from tests.client.live.parts import Live, live, until
from tests.client.scripted_server import PIECES, ScriptedServer

TEA = Task(
    "Make tea",
    (
        Step("Get water", "how do I turn on the tap?", "Cold water.", ("it runs",)),
        Step("Fill the cup", "how do I pour the water?"),
    ),
    "You need a cup.",
)


def asked(server: ScriptedServer) -> list[str]:
    return [query.text for query in server.script.queries]


async def answered(wearer: Live, query: str) -> None:
    def is_there() -> bool:
        newest = wearer.state.newest
        return newest is not None and newest.query == query and newest.guidance is not None

    await until(is_there)


async def test_next_back_and_repeat_are_typed_and_each_step_is_asked_about(
    server: ScriptedServer, tmp_path: Path
) -> None:
    first, second = (step.query for step in TEA.steps)
    async with live(server.target, tmp_path, walk=Walk(TEA)) as wearer:
        assert wearer.state.step_shown == "Make tea: 2 steps. You need a cup. First: Get water."
        wearer.type("what next?")
        await answered(wearer, first)
        assert wearer.state.step_shown == "Step 1 of 2: Get water. Cold water."
        wearer.type("it runs")
        await answered(wearer, second)
        wearer.type("go back")
        await until(lambda: asked(server) == [first, second, first])
        wearer.type("repeat")
        await until(lambda: asked(server) == [first, second, first, first])


async def test_keys_do_the_same_and_the_end_is_told(server: ScriptedServer, tmp_path: Path) -> None:
    async with live(server.target, tmp_path, walk=Walk(TEA)) as wearer:
        for key in "nbnb":
            wearer.controls.press(key)
        await answered(wearer, TEA.steps[0].query)
        wearer.controls.press("w")
        assert wearer.state.notice == "Step 1 of 2: Get water. 0 done."
        for key in "nn":
            wearer.controls.press(key)
        assert wearer.state.step == wearer.state.notice == "That was the last step: Make tea is finished."
        assert {"n", "b", "w"} <= {name for key in wearer.controls.keys for name in key.names}


async def test_without_a_task_there_are_no_keys_for_one(server: ScriptedServer, tmp_path: Path) -> None:
    async with live(server.target, tmp_path) as wearer:
        assert not {"n", "b", "w"} & {name for key in wearer.controls.keys for name in key.names}


async def test_a_question_of_ones_own_keeps_the_place(server: ScriptedServer, tmp_path: Path) -> None:
    async with live(server.target, tmp_path, walk=Walk(TEA)) as wearer:
        wearer.type("next")
        await answered(wearer, TEA.steps[0].query)
        wearer.type("how do I put the lid back?")
        await answered(wearer, "how do I put the lid back?")
        assert wearer.state.step_shown == "" and wearer.state.doing is State.ANSWER
        wearer.type("next")
        await answered(wearer, TEA.steps[1].query)
        assert wearer.state.step_shown == "Step 2 of 2: Fill the cup."
        assert wearer.state.newest is not None and wearer.state.newest.description == "".join(PIECES)


async def test_what_is_done_is_kept_for_the_next_session(server: ScriptedServer, tmp_path: Path) -> None:
    kept = tmp_path / "tea.json"
    async with live(server.target, tmp_path, walk=Walk(TEA), kept=kept) as wearer:
        wearer.controls.press("n")
        wearer.controls.press("n")
    again = load_walk(kept, TEA)
    assert again.place == 1
    async with live(server.target, tmp_path, walk=again) as wearer:
        assert "Step 2 of 2: Fill the cup. 1 done." in wearer.state.step


async def test_stop_gives_up_the_question_and_what_cannot_be_kept_is_told(
    server: ScriptedServer, tmp_path: Path
) -> None:
    server.script.step_seconds = 0.5
    async with live(server.target, tmp_path, walk=Walk(TEA), kept=tmp_path / "view.png" / "tea.json") as wearer:
        wearer.type("next")
        await until(lambda: "cannot be written" in wearer.state.notice)
        await until(server.script.working.is_set)
        wearer.type("stop")
        await until(lambda: server.script.cancelled == [1])
        assert wearer.state.step == "Step 1 of 2: Get water. Cold water."
