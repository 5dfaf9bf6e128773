"""Several models behind one server, and one that takes another's place."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc
from lego_server.config import EngineSettings
from lego_server.models import named_directories
from lego_server.server import GuidanceServer, serve

from tests.server.fake_engine import FakeEngine, make_manifest
from tests.server.harness import GuideClient, RunningServer, config_of, eventually, picture


def engine_of(name: str, fingerprint: str, delay: float = 0.0) -> FakeEngine:
    engine = FakeEngine(delay)
    engine.manifest = replace(
        engine.manifest, lego=replace(engine.manifest.lego, name=name), checkpoint_fingerprint=fingerprint
    )
    return engine


@asynccontextmanager
async def serving(engines: dict[str, FakeEngine]) -> AsyncIterator[RunningServer]:
    server = GuidanceServer(engines, config_of(port=0, shutdown_seconds=0.2))
    await server.start()
    await server.warm_up()
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield RunningServer(server, channel, guidance_pb2_grpc.GuidanceStub(channel))
    await server.stop()


async def ask(client: GuideClient, query_id: int, model: str, steps: int = 4) -> pb.GuidanceResult:
    options = pb.GuidanceOptions(seed=1, steps=steps)
    query = pb.Query(query_id=query_id, text="how do I open the drawer", model=model, options=options)
    await client.call.write(pb.GuideRequest(query=query))
    return await client.result()


async def test_clients_choose_by_name_or_version_and_the_first_is_the_default() -> None:
    engines = {"kitchen": engine_of("kitchen", "aaaaaaaaaaaaaaaa"), "garage": engine_of("garage", "bbbbbbbbbbbbbbbb")}
    async with serving(engines) as server:
        client = GuideClient(server.stub)
        info = (await client.read()).session_started.server
        await client.frame()
        versions = [
            (await ask(client, number, model)).model_version
            for number, model in enumerate(("", "garage", "kitchen", "garage-bbbbbbbbbbbb"), 1)
        ]
        single = await server.stub.Generate(pb.GenerateRequest(image=picture(), text="open the lid", model="garage"))
        about = await server.stub.GetServerInfo(pb.GetServerInfoRequest(model="garage"))

    assert list(info.models) == ["kitchen", "garage"]
    assert [version.split("-")[0] for version in versions] == ["kitchen", "garage", "kitchen", "garage"]
    assert single.model_version == about.model_version == "garage-bbbbbbbbbbbb"


async def test_an_unknown_model_is_told_with_those_there_are() -> None:
    async with serving({"kitchen": engine_of("kitchen", "aaaaaaaaaaaaaaaa")}) as server:
        client = await server.open_session()
        await client.frame()
        await client.call.write(pb.GuideRequest(query=pb.Query(query_id=1, text="open the lid", model="attic")))
        error = await client.error()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.stub.GetServerInfo(pb.GetServerInfoRequest(model="attic"))

    assert error.code == pb.QueryError.CODE_INVALID and "'attic'; this server has kitchen" in error.message
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_model_is_replaced_while_a_session_and_its_query_go_on() -> None:
    old, new = engine_of("kitchen", "aaaaaaaaaaaaaaaa", delay=0.005), engine_of("kitchen", "bbbbbbbbbbbbbbbb")
    engines = {"kitchen": old}
    async with serving(engines) as server:
        client = await server.open_session()
        await client.frame(7)
        asking = asyncio.create_task(ask(client, 1, "", steps=60))
        await eventually(lambda calls=old.calls: calls["denoise"] > 5)  # type: ignore[misc]
        await server.server.replace("kitchen", new)
        begun_before = await asking
        after = await ask(client, 2, "")
        gone = weakref.ref(old)
        del old
        engines.clear()
        await eventually(lambda: gc.collect() >= 0 and gone() is None)

    assert begun_before.model_version == "kitchen-aaaaaaaaaaaa"
    assert (after.model_version, after.frame_id) == ("kitchen-bbbbbbbbbbbb", 7)


async def test_a_model_that_cannot_answer_does_not_take_anothers_place() -> None:
    bad = engine_of("kitchen", "bbbbbbbbbbbbbbbb")
    bad.broken_words = {"drawer"}
    async with serving({"kitchen": engine_of("kitchen", "aaaaaaaaaaaaaaaa")}) as server:
        with pytest.raises(LegoError, match="failed on a first query"):
            await server.server.replace("kitchen", bad)
        client = await server.open_session()
        await client.frame()
        assert (await ask(client, 1, "")).model_version == "kitchen-aaaaaaaaaaaa"


async def test_sighup_serves_what_has_changed_and_keeps_what_is_there_where_that_is_wrong(tmp_path: Path) -> None:
    engines = [engine_of("kitchen", "aaaaaaaaaaaaaaaa"), engine_of("kitchen", "bbbbbbbbbbbbbbbb")]
    loaded = iter(engines)
    told: list[str] = []
    directory = tmp_path / "engines"
    directory.mkdir()
    serving_ = asyncio.create_task(
        serve(lambda _: next(loaded), {"kitchen": directory}, config_of(port=0, shutdown_seconds=0.1), told.append)
    )
    await eventually(lambda: any(line.startswith("listening") for line in told))
    os.kill(os.getpid(), signal.SIGHUP)
    await eventually(lambda: any("not replaced" in line and "manifest.json" in line for line in told))
    _write_empty_manifest(directory, "bbbbbbbbbbbbbbbb")
    os.kill(os.getpid(), signal.SIGHUP)
    await eventually(lambda: "kitchen is now kitchen-bbbbbbbbbbbb" in told)
    serving_.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving_


async def test_sighup_is_heard_again_whatever_went_wrong_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = (engine_of("kitchen", letter * 16) for letter in "abc")
    loads = iter([first, MemoryError("no room for the weights"), second, third])
    told: list[str] = []

    def load(_: Path) -> FakeEngine:
        loaded = next(loads)
        if isinstance(loaded, MemoryError):
            raise loaded
        return loaded

    def announce(line: str) -> None:
        told.append(line)
        if "is now" in line:
            raise BrokenPipeError(f"nobody reads {line}")

    directory = tmp_path / "engines"
    directory.mkdir()
    _write_empty_manifest(directory, "bbbbbbbbbbbbbbbb")
    config = config_of(port=0, shutdown_seconds=0.1)
    serving_ = asyncio.create_task(serve(load, {"kitchen": directory}, config, announce))
    await eventually(lambda: any(line.startswith("listening") for line in told))
    address = told[-1].rpartition(" ")[2]
    async with grpc.aio.insecure_channel(address) as channel:
        stub = guidance_pb2_grpc.GuidanceStub(channel)
        versions = []
        for sign in ("no room for the weights", "is now kitchen-bbbbbbbbbbbb", "is now kitchen-cccccccccccc"):
            os.kill(os.getpid(), signal.SIGHUP)
            await eventually(lambda sign=sign: sign in caplog.text)  # type: ignore[misc]
            versions.append((await stub.GetServerInfo(pb.GetServerInfoRequest())).model_version)
    serving_.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving_
    assert versions == ["kitchen-aaaaaaaaaaaa", "kitchen-bbbbbbbbbbbb", "kitchen-cccccccccccc"]
    assert caplog.text.count("Traceback") == 3


def _write_empty_manifest(directory: Path, fingerprint: str) -> None:
    """A manifest that can be read; the engine of these tests needs no graphs."""
    from lego_core.manifest import GraphSpec

    manifest = make_manifest()
    graphs = {name: GraphSpec("graph.onnx", "", (), ()) for name in manifest.graph_names}
    (directory / "graph.onnx").touch()
    replace(manifest, graphs=graphs, checkpoint_fingerprint=fingerprint).save(directory)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (EngineSettings(), "give --engines DIR"),
        (EngineSettings(directory="{}", models=("garage",)), "must be NAME=DIRECTORY"),
        (EngineSettings(directory="{}", models=("fake=there",)), "two models are called fake"),
    ],
)
def test_models_named_wrongly_are_refused(tmp_path: Path, settings: EngineSettings, told: str) -> None:
    _write_empty_manifest(tmp_path, "aaaaaaaaaaaaaaaa")
    if settings.directory:
        settings = replace(settings, directory=str(tmp_path))
    with pytest.raises(LegoError, match=told):
        named_directories(settings)
