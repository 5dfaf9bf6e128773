"""Sessions to record."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

from lego_client.backoff import Backoff
from lego_client.events import Event, GuidanceOptions
from lego_client.recording.happenings import Happening
from lego_client.recording.recorder import Recorder
from lego_client.recording.recording import Recording
from lego_client.session import GuidanceClient, SentFrame

from tests.client.scenes import scene
from tests.client.scripted_server import ScriptedServer

QUERIES = ("how do I open the drawer?", "how do I close it?")


def quick(seconds: float = 5.0) -> Backoff:
    return Backoff(seconds, base=0.01, cap=0.05)


def shade(number: int) -> int:
    """Of the frame that question `number`, from 0, is about."""
    return 40 + 40 * number


async def record_session(server: ScriptedServer, path: Path, queries: tuple[str, ...] = QUERIES) -> list[Event]:
    """Asks each query about a frame of its own, with a preview after every other step; returns what came of them."""
    with Recorder(path, {"command": "test", "source": "scenes"}) as recorder:
        return await ask_in_turn(server, recorder, queries)


async def ask_in_turn(server: ScriptedServer, recorder: Recorder, queries: tuple[str, ...] = QUERIES) -> list[Event]:
    found: list[Event] = []
    async with GuidanceClient(server.target, observer=recorder, backoff=quick()) as client:
        for number, query in enumerate(queries):
            found += await events_of(client, query, await client.send_frame(scene(shade(number))))
    return found


async def events_of(client: GuidanceClient, query: str, frame: SentFrame) -> list[Event]:
    async with aclosing(client.ask(query, frame, GuidanceOptions(preview_every=2))) as events:
        return [event async for event in events]


def happenings(recording: Recording) -> list[Happening]:
    """Returns all that happened, with the pictures."""
    return [recording.load(entry) for entry in recording.entries]


def kinds(recording: Recording) -> list[str]:
    return [type(entry.happening).__name__ for entry in recording.entries]
