"""Figures as Prometheus reads them, and what dashboards and alerts make of them."""

from __future__ import annotations

import asyncio
import json
import math
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2 as pb
from lego_server.metrics import Metrics, MetricsPort
from lego_server.server import serve
from prometheus_client.parser import text_string_to_metric_families

from tests.server.fake_engine import FakeEngine
from tests.server.harness import GuideClient, RunningServer, config_of, eventually, picture, running

DEPLOY = Path(__file__).parents[2] / "deploy"


def value(server: RunningServer, name: str, **labels: str) -> float:
    found = server.server.telemetry.metrics.registry.get_sample_value(name, labels)
    assert found is not None, f"there is no figure {name}{labels}"
    return found


async def test_an_answered_query_is_counted_and_timed() -> None:
    async with running(FakeEngine(delay=0.002), max_batch=2) as server:
        before = value(server, "lego_denoising_steps_total")
        client = await server.open_session()
        assert value(server, "lego_sessions") == 1
        await client.frame()
        await asyncio.sleep(0.05)
        await client.query(1, steps=6, preview_every=2)
        result = await client.result()
        assert value(server, "lego_denoising_steps_total") == before + 6
        assert value(server, "lego_queries_total", outcome="answered") == 2  # the warm-up's too
        for name in ("first_token", "guidance", "frame_age"):
            assert value(server, f"lego_{name}_seconds_count") == 2
        assert value(server, "lego_first_preview_seconds_count") == 1
        assert value(server, "lego_frame_age_seconds_sum") > value(server, "lego_guidance_seconds_sum") + 0.04
        told = result.timings.denoise_ms / 1000
        warm_up = 0.05
        assert told <= value(server, "lego_stage_seconds_sum", stage="denoise") < told + warm_up
        # One query alone with three branches: every U-Net call had three rows.
        assert value(server, "lego_unet_call_rows_bucket", le="2.0") == 0
        assert value(server, "lego_unet_call_rows_bucket", le="3.0") == value(server, "lego_unet_call_rows_count")
        assert value(server, "lego_model_info", model="fake-0123456789ab", engine="fake-cpu") == 1


async def test_queue_and_rejects_are_told_while_they_last() -> None:
    engine = FakeEngine()
    async with running(engine, max_active=1, max_waiting=1) as server:
        engine.gate.clear()
        calls = [server.stub.Generate(pb.GenerateRequest(image=picture(), text="open the drawer")) for _ in range(2)]
        tasks = [asyncio.ensure_future(call) for call in calls]
        await eventually(lambda: server.server.live_queries == 2 and value(server, "lego_active_queries") == 1)
        assert value(server, "lego_queue_depth") == 1
        with pytest.raises(grpc.aio.AioRpcError):
            await server.stub.Generate(pb.GenerateRequest(image=picture(), text="open the drawer"))
        client = await server.open_session()
        await client.query(1)
        await client.error()
        with pytest.raises(grpc.aio.AioRpcError):
            await server.stub.GetServerInfo(pb.GetServerInfoRequest(model="attic"))
        engine.gate.set()
        await asyncio.gather(*tasks)
        await eventually(lambda: server.server.live_queries == 0)
        assert (value(server, "lego_active_queries"), value(server, "lego_queue_depth")) == (0, 0)
        assert value(server, "lego_rejects_total", reason="overloaded") == 1
        assert value(server, "lego_rejects_total", reason="no_frame") == 1
        assert value(server, "lego_rejects_total", reason="invalid") == 1


async def test_a_refusal_counts_once_however_often_it_is_sent() -> None:
    async with running(FakeEngine()) as server:
        client = GuideClient(server.stub)
        token = (await client.read()).session_started.resume_token
        await client.query(1)
        assert (await client.error()).code == pb.QueryError.CODE_NO_FRAME
        client.call.cancel()
        client = await server.open_session()
        await client.write(pb.GuideRequest(resume=pb.Resume(token=token, received=0)))
        assert (await client.read()).session_started.resumed
        assert (await client.error()).code == pb.QueryError.CODE_NO_FRAME
        assert value(server, "lego_rejects_total", reason="no_frame") == 1


async def test_failed_and_dropped_queries_are_told_apart() -> None:
    engine = FakeEngine(delay=0.005)
    engine.broken_words = {"lid"}
    async with running(engine) as server:
        client = await server.open_session()
        await client.frame()
        await client.query(1, steps=500)
        await client.read_until("progress")
        await client.query(2, "open the lid")
        await client.error()  # the first one's
        await client.error()
        await eventually(lambda: value(server, "lego_queries_total", outcome="dropped") == 1)
        assert value(server, "lego_queries_total", outcome="failed") == 1
        assert value(server, "lego_engine_call_failures_total", call="prefill") == 1
        registry = server.server.telemetry.metrics.registry
        assert registry.get_sample_value("lego_rejects_total", {"reason": "superseded"}) is None


async def test_a_query_handed_back_by_a_server_that_stops_has_not_failed() -> None:
    async with running(FakeEngine(delay=0.01), max_active=1, shutdown_seconds=0.1) as server:
        for number, client in enumerate([await server.open_session() for _ in range(2)], start=1):
            await client.frame()
            await client.query(1, steps=500)
            await eventually(lambda number=number: server.server.live_queries == number)
        await server.server.stop()
        await eventually(lambda: value(server, "lego_queries_total", outcome="dropped") == 2)
        assert value(server, "lego_queries_total", outcome="failed") == 0


async def test_the_port_serves_what_prometheus_reads_and_is_told() -> None:
    told: list[str] = []
    config = config_of(port=0, shutdown_seconds=0.1).with_values({"metrics": {"port": 0}})
    serving = asyncio.create_task(serve(lambda _: FakeEngine(), {"fake": Path()}, config, told.append))
    await eventually(lambda: len(told) == 2)
    address = told[0].removeprefix("metrics at ")
    text = await asyncio.to_thread(lambda: urllib.request.urlopen(address, timeout=5).read().decode())
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"lego_guidance_seconds", "lego_queries", "process_resident_memory_bytes"} <= names
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    with pytest.raises(OSError):
        await asyncio.to_thread(lambda: urllib.request.urlopen(address, timeout=5))


def test_a_taken_metrics_port_is_an_error_that_says_what_to_do() -> None:
    first = MetricsPort(Metrics(), "127.0.0.1", 0)
    try:
        with pytest.raises(
            LegoError,
            match=f"cannot serve metrics on 127.0.0.1:{first.port} .Address already in use.; .*--metrics-port",
        ):
            MetricsPort(Metrics(), "127.0.0.1", first.port)
    finally:
        first.close()


def test_a_metrics_host_that_can_be_none_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(LegoError, match=r"on a\.\.b:0 .that is no host name.; choose .* or --metrics-host"):
        MetricsPort(Metrics(), "a..b", 0)


def test_the_certificates_expiry_is_whatever_it_is_told() -> None:
    metrics = Metrics()
    name = "lego_certificate_expiry_timestamp_seconds"
    without = metrics.registry.get_sample_value(name)
    assert without is not None and math.isnan(without)
    metrics.watch_certificate(lambda: 1_900_000_000.0)
    assert metrics.registry.get_sample_value(name) == 1_900_000_000.0


def names_there_are() -> set[str]:
    """Returns every series that a server has, with a histogram's and a counter's suffixes."""
    metrics = Metrics()
    # Figures by label are there once a label is.
    metrics.rejected("sessions")
    metrics.engine_called("denoise", 1, 3, 0.1)
    metrics.engine_call_failed("denoise")
    metrics.answered(1, 1, {"denoise": 1})
    metrics.serving("model", "engine")
    return {sample.name for family in metrics.registry.collect() for sample in family.samples} | {"up"}


def expressions(tree: Any) -> Iterator[str]:
    """Yields every PromQL expression in a dashboard or in rules."""
    if isinstance(tree, dict):
        asks = tree.get("type") != "datasource"  # that variable's query is the kind of data source
        yield from (tree[key] for key in ("expr", "query") if asks and isinstance(tree.get(key), str))
        for each in tree.values():
            yield from expressions(each)
    elif isinstance(tree, list):
        for each in tree:
            yield from expressions(each)


@pytest.mark.parametrize("file", ["grafana/lego.json", "prometheus/alerts.yaml"])
def test_dashboards_and_alerts_name_only_figures_there_are(file: str) -> None:
    text = (DEPLOY / file).read_text()
    tree = json.loads(text) if file.endswith("json") else yaml.safe_load(text)
    named = set()
    for expression in expressions(tree):
        found = set(re.findall(r"\b(?:lego_\w+|process_\w+|up)\b", re.sub(r"\{[^}]*\}", "", expression)))
        assert found, f"{expression} names no figure"
        named |= found
    assert len(named) > 5
    assert named <= names_there_are()
