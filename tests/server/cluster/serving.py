"""A server with replicas, in the Ray of these tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from lego_proto.v1 import guidance_pb2 as pb

from tests.server.cluster.engines import EngineDirectory, load_recorded
from tests.server.harness import GuideClient, RunningServer, config_of, picture, running

# Ray counts CPUs, it does not measure them: these are small enough for any machine.
_CONFIG = {"replica_cpus": 0.1, "max_replicas": 2, "min_replicas": 2, "threads": 1}


@asynccontextmanager
async def serving(directory: EngineDirectory, ray_address: str, **config: Any) -> AsyncIterator[RunningServer]:
    """Starts replicas, or takes over those that a test with the same settings has kept, and a server before them."""
    from lego_server.cluster.application import Application, applications_of

    config = {**_CONFIG, "ray_address": ray_address, **config}
    settings = config_of(**config)
    application = Application(load_recorded, directory.path, settings)
    if not await asyncio.to_thread(lambda: application.adopt(applications_of(settings.cluster.name))):
        await asyncio.to_thread(application.start)
    async with running(application, **config) as server:
        yield server


async def ask(server: RunningServer, color: tuple[int, int, int], **query: Any) -> list[pb.GuideResponse]:
    """Asks one question in a session of its own; returns all that came, the last a result or an error."""
    client = await server.open_session()
    await client.frame(1, picture(color))
    await client.query(1, **query)
    responses = await last(client)
    await client.call.done_writing()
    return responses


async def last(client: GuideClient) -> list[pb.GuideResponse]:
    """Reads up to a result or an error."""
    responses = [await client.read()]
    while responses[-1].WhichOneof("message") not in ("result", "error"):
        responses.append(await client.read())
    return responses


def words(responses: list[pb.GuideResponse]) -> str:
    """What a wearer has read."""
    return "".join(each.description_delta.text for each in responses)
