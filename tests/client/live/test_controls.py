"""Keys, and the screen that shows what they do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from lego_client.live.keyboard import names_of
from lego_client.live.terminal import blocks
from lego_client.overlay.labels import State
from lego_client.overlay.modes import MODES

from tests.client.live.parts import QUERY, Live, live, until
from tests.client.scripted_server import ScriptedServer

_MIDDLE = np.s_[90:300]  # of the screen: without badge and caption


async def answered(wearer: Live, query: str = QUERY) -> None:
    wearer.type(query)
    await until(lambda: wearer.state.doing is State.ANSWER)


async def test_while_typing_keys_are_letters(server: ScriptedServer, tmp_path: Path) -> None:
    async with live(server.target, tmp_path) as wearer:
        for name in ("enter", *"qmh", "backspace", " ", "é"):
            wearer.controls.press(name)
        assert wearer.state.typing == "qm é"
        wearer.controls.press("escape")
        assert wearer.state.typing is None and not wearer.state.leaving and wearer.state.exchanges == []
        wearer.type("   ")  # nothing to ask
        assert wearer.state.typing is None and wearer.state.exchanges == []


async def test_answers_can_be_leafed_through(server: ScriptedServer, tmp_path: Path) -> None:
    async with live(server.target, tmp_path) as wearer:
        for query in ("one", "two", "three"):
            await answered(wearer, query)
        seen = []
        for name in ("left", "left", "left", "right"):
            wearer.controls.press(name)
            assert wearer.state.shown is not None
            seen.append(wearer.state.shown.query)
        assert seen == ["two", "one", "one", "two"]
        await answered(wearer, "four")
        assert wearer.state.shown.query == "four"


async def test_a_question_is_repeated_about_the_present_view(server: ScriptedServer, tmp_path: Path) -> None:
    async with live(server.target, tmp_path) as wearer:
        wearer.controls.press("r")
        assert "no question to repeat" in wearer.state.notice
        await answered(wearer)
        wearer.controls.press("R")
        await until(lambda: len(server.script.queries) == 2)
        assert {query.text for query in server.script.queries} == {QUERY}


async def test_every_key_of_the_help_does_something(server: ScriptedServer, tmp_path: Path) -> None:
    async with live(server.target, tmp_path) as wearer:
        await answered(wearer)
        wearer.controls.press("m")
        assert wearer.state.mode == MODES[1]
        wearer.controls.press("]")
        assert wearer.state.slider == pytest.approx(0.55)
        wearer.controls.press("v")
        assert wearer.state.aloud
        wearer.controls.press("s")
        assert wearer.saved == ["saved"]
        wearer.controls.press("?")
        assert wearer.state.help
        wearer.controls.press("escape")
        assert not wearer.state.help
        wearer.controls.press("q")
        assert wearer.state.leaving


@pytest.mark.parametrize("mode", MODES)
async def test_the_screen_shows_the_answer_in_every_mode(server: ScriptedServer, tmp_path: Path, mode: str) -> None:
    async with live(server.target, tmp_path) as wearer:
        wearer.source.wait_for(1, 5)
        before = wearer.screen.draw()
        assert before.shape == (360, 640, 3)
        await answered(wearer)
        wearer.state.mode = mode
        shown = wearer.screen.draw()
        while np.abs(shown[_MIDDLE].astype(int) - before[_MIDDLE]).mean() <= 3:  # a ghost fades in
            await asyncio.sleep(0.05)
            shown = wearer.screen.draw()
        assert shown.shape == before.shape
        wearer.state.help = True
        assert np.any(wearer.screen.draw() != shown)


def test_what_a_terminal_sends_is_told_by_name() -> None:
    assert list(names_of("a\x1b[D\x1b[C\r\x7fé\x1b")) == ["a", "left", "right", "enter", "backspace", "é", "escape"]
    assert list(names_of("\x1b[5~x\x1b[1;5A/")) == ["x", "/"]


def test_a_picture_in_a_terminal_keeps_its_shape_and_colours() -> None:
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[:50] = (255, 0, 0)
    text = blocks(picture, 40, 30)
    lines = text.plain.splitlines()
    assert len(lines) == 10 and {len(line) for line in lines} == {40}
    assert str(text.spans[0].style) == "#ff0000 on #ff0000"
