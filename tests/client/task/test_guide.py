"""A task at the keyboard: what is asked about, and what the wearer is told of the camera."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Generator
from pathlib import Path

import numpy as np
from lego_client.cli_options import Patience
from lego_client.events import GuidanceOptions
from lego_client.observer import SessionObserver
from lego_client.pending import SentFrame
from lego_client.session import GuidanceClient
from lego_client.sources import FrameSource
from lego_client.sources.watch import PictureWatch
from lego_client.task.guide import TaskGuide, TaskSettings
from lego_client.task.plan import Step, Task
from lego_client.task.typed import TypedLines
from lego_client.task.walk import Walk
from numpy.typing import NDArray
from rich.console import Console

from tests.client.scripted_server import ScriptedServer

_LATE_S = 2.0


class Covered(FrameSource):
    """A camera under a cap, whose pictures come late."""

    def __init__(self) -> None:
        super().__init__("camera", live=True, watch=PictureWatch(finds_still=False))

    def capture(self) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
        while not self.closing:
            yield np.zeros((32, 32, 3), np.uint8), self.elapsed() - _LATE_S
            self.pause(0.05)


class Ages(SessionObserver):
    """Keeps how old each frame was that was sent."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def frame_sent(self, frame: SentFrame) -> None:
        self.seconds.append(frame.age)


async def test_a_covered_lens_is_told_and_a_frame_is_as_old_as_it_is(server: ScriptedServer, tmp_path: Path) -> None:
    ages, screen = Ages(), io.StringIO()
    settings = TaskSettings(tmp_path, None, GuidanceOptions(), Patience(), interruptible=False)
    walk = Walk(Task("Tea", (Step("Water", "how do I turn on the tap?"),)))
    with Covered() as source:
        async with GuidanceClient(server.target, observer=ages) as client, asyncio.timeout(20):
            guide = TaskGuide(client, source, walk, settings, Console(file=screen))
            await guide.run(TypedLines(io.StringIO("next\n")))
    assert "the picture is black: uncover the lens" in screen.getvalue()
    assert [seconds >= _LATE_S for seconds in ages.seconds] == [True]
