"""A live session without a desktop: what is typed, and what is told."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Generator, Iterator

import numpy as np
import pytest
from lego_client.events import GuidanceOptions
from lego_client.live.controls import Controls
from lego_client.live.conversation import Conversation
from lego_client.live.lines import Lines
from lego_client.live.screen import Screen
from lego_client.live.state import LiveState
from lego_client.live.terminal import Terminal
from lego_client.session import GuidanceClient
from lego_client.sources import FrameSource
from lego_core.errors import LegoError
from numpy.typing import NDArray
from rich.console import Console


class GivesUp(FrameSource):
    """A camera that shows one picture, and then nothing any more."""

    def __init__(self) -> None:
        super().__init__("camera", live=True)

    def capture(self) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
        yield np.zeros((16, 16, 3), np.uint8), 0.0
        raise LegoError("the camera broke off; check its plug")


@pytest.fixture
def source() -> Iterator[GivesUp]:
    with GivesUp() as source:
        with pytest.raises(LegoError):
            source.wait_for(2, 20)
        yield source


@pytest.fixture
def session(source: GivesUp) -> tuple[LiveState, Screen, Controls]:
    """A session whose server is never connected to."""
    state = LiveState("localhost:1")
    conversation = Conversation(lambda: GuidanceClient("localhost:1"), source, state, lambda client: GuidanceOptions())
    controls = Controls(state, conversation, lambda: None)
    return state, Screen(state, source, controls.keys), controls


async def test_a_camera_that_gives_up_and_what_cannot_be_done_are_told_in_lines(
    session: tuple[LiveState, Screen, Controls],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("how?\n\n/help\n/voice\n/quit\nnever read\n"))
    async with asyncio.timeout(20):
        await Lines(*session).run()
    told = capsys.readouterr().out.splitlines()
    assert "the camera broke off; check its plug" in told
    assert "/help is none of the commands" in "".join(told)
    assert "/voice does nothing in this session; start it with --speak" in told
    assert [exchange.query for exchange in session[0].exchanges] == ["how?"]


def test_a_camera_that_gives_up_is_told_in_a_terminal(session: tuple[LiveState, Screen, Controls]) -> None:
    screen = io.StringIO()
    Console(file=screen, width=100).print(Terminal(*session)._render())
    assert "the camera broke off; check its plug" in screen.getvalue()
