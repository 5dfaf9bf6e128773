"""Sessions to record."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

from lego_client.backoff import Backoff
from lego_client.events import Event, GuidanceOptions
from lego_client.recording.recorder import Recorder
from lego_client.session import GuidanceClient

from tests.client.scenes import scene
from tests.client.scripted_server import ScriptedServer

QUERIES = ("how do I open the drawer?", "how do I close it?")


async def record_session(server: ScriptedServer, path: Path, queries: tuple[str, ...] = QUERIES) -> Path:
    """Asks each query about a frame of its own, with a preview after every other step; returns the recording."""
    with Recorder(path, {"command": "test", "source": "scenes"}) as recorder:
        async with GuidanceClient(server.target, observer=recorder, backoff=Backoff(0)) as client:
            for number, query in enumerate(queries):
                frame = await client.send_frame(scene(40 + 40 * number))
                await events_of(client, query, frame)
        assert not recorder.failure
    return path


async def events_of(client: GuidanceClient, query: str, frame: object) -> list[Event]:
    asking = client.ask(query, frame, GuidanceOptions(preview_every=2))  # type: ignore[arg-type]
    async with aclosing(asking) as events:
        found = [event async for event in events]
    await asyncio.sleep(0)
    return found
