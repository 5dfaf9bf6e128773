"""A model that takes another's place, replicas and all."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2 as pb

from tests.server.cluster.engines import EngineDirectory, load_recorded
from tests.server.cluster.serving import serving
from tests.server.harness import config_of, eventually

pytest.importorskip("ray.serve")
pytest.importorskip("onnx")


async def test_a_query_ends_on_the_version_it_began_on_and_its_session_goes_on_with_the_next(
    directory: EngineDirectory, ray_address: str, tmp_path: Path
) -> None:
    from lego_server.cluster.application import Application, applications_of

    newer = EngineDirectory(tmp_path / "newer", fingerprint="bbbbbbbbbbbbbbbb")
    async with serving(directory, ray_address) as server:
        client = await server.open_session()
        await client.frame(7)
        directory.slow(0.1)
        await client.query(1, steps=100)
        await client.read_until("progress")
        config = config_of(replica_cpus=0.1, ray_address=ray_address)
        application = Application(load_recorded, newer.path, config)
        await asyncio.to_thread(application.start)
        await server.server.replace("fake", application)
        directory.slow(0.0)
        before = await client.result()
        await client.query(2)
        after = await client.result()
        info = await server.stub.GetServerInfo(pb.GetServerInfoRequest())
        async with asyncio.timeout(20):  # the old version's replicas are stopped
            while set(await asyncio.to_thread(applications_of, "lego")) != {application.name}:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    assert (before.model_version, after.model_version) == ("fake-aaaaaaaaaaaa", "fake-bbbbbbbbbbbb")
    assert after.frame_id == 7 and info.model_version == "fake-bbbbbbbbbbbb"
    await eventually(lambda: not applications_of("lego"), seconds=20)


def test_replicas_that_find_another_version_on_their_machine_do_not_start(
    directory: EngineDirectory, ray_address: str
) -> None:
    from lego_server.cluster.application import Application, applications_of

    application = Application(load_recorded, directory.path, config_of(replica_cpus=0.1, ray_address=ray_address))
    directory.rename("cccccccccccccccc")
    with pytest.raises(LegoError, match=r"do not start.* holds fake-cccccccccccc .* asks for fake-aaaaaaaaaaaa"):
        application.start()
    until = time.monotonic() + 20
    while application.name in applications_of("lego"):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_replicas_that_find_no_room_are_given_up_in_time(directory: EngineDirectory, ray_address: str) -> None:
    from lego_server.cluster.application import Application

    config = config_of(replica_gpus=1.0, start_seconds=1.0, ray_address=ray_address)
    with pytest.raises(LegoError, match="have not started within 1 s"):
        Application(load_recorded, directory.path, config).start()
