"""One query, one trace: the client's spans and the server's, over real gRPC."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent import futures
from itertools import pairwise

import grpc
import numpy as np
import pytest
from lego_client.events import Guidance, GuidanceOptions
from lego_client.session import GuidanceClient
from lego_client.tracing import SessionTraces
from lego_core.errors import LegoError
from lego_core.tracing import otlp_provider
from lego_proto.v1 import guidance_pb2 as pb
from lego_server.telemetry import Telemetry
from lego_server.tracing import QueryTraces

from tests.server.fake_engine import FakeEngine
from tests.server.harness import eventually, picture, running
from tests.server.web import web_session

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

FRAME = np.full((90, 160, 3), 120, np.uint8)
CALLS = ["encode_frames", "prefill", "extend", "condition", "denoise", "decode_latents"]
STAGES = ["prepare", "queue", "encode", "describe", "condition", "denoise", "decode"]


def recording() -> tuple[TracerProvider, InMemorySpanExporter]:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


async def forget_warm_up(spans: InMemorySpanExporter) -> None:
    await eventually(lambda: "query" in {span.name for span in spans.get_finished_spans()})
    spans.clear()


async def test_one_query_is_one_trace_from_the_client_through_every_stage_of_the_server() -> None:
    (client_provider, client_spans), (server_provider, server_spans) = recording(), recording()
    telemetry = Telemetry(traces=QueryTraces(server_provider))
    async with running(FakeEngine(delay=0.002), telemetry=telemetry) as server:
        await forget_warm_up(server_spans)
        target = f"127.0.0.1:{server.server.port}"
        async with GuidanceClient(target, traces=SessionTraces(client_provider)) as client:
            sent = await client.send_frame(FRAME)
            options = GuidanceOptions(steps=4, preview_every=2)
            events = [event async for event in client.ask("how do I open the drawer", sent, options)]
        assert isinstance(events[-1], Guidance)
        await eventually(lambda: "query" in {span.name for span in server_spans.get_finished_spans()})

    ours = {span.name: span for span in client_spans.get_finished_spans()}
    theirs = server_spans.get_finished_spans()
    by_name = {span.name: span for span in theirs}
    assert set(ours) == {"session", "encode frame", "send frame", "ask"}
    parts = [span.name for span in theirs if _parent(span) != by_name["query"].context.span_id and span.name != "query"]
    assert sorted(span.name for span in theirs) == sorted(["query", *STAGES, *parts])
    assert {span.context.trace_id for span in (*ours.values(), *theirs)} == {ours["session"].context.trace_id}
    assert _parent(ours["ask"]) == _parent(by_name["query"]) == ours["session"].context.span_id
    assert {_parent(by_name[stage]) for stage in STAGES} == {by_name["query"].context.span_id}
    query = by_name["query"]
    assert query.attributes is not None and ours["ask"].attributes is not None
    assert query.attributes["lego.query"] == ours["ask"].attributes["lego.query"] == 1
    assert query.attributes["lego.outcome"] == ours["ask"].attributes["lego.outcome"] == "answered"
    assert [event.name for event in query.events] == ["first_token", "first_preview", "answer"]
    assert [event.name for event in ours["ask"].events] == ["first_token", "first_preview", "picture"]
    # Below its stage is every engine call, and below the preparation the decoding of the frame.
    assert parts.count("engine.denoise") == 4
    assert parts.count("engine.decode_latents") == 2  # a preview's, and the guidance frame's
    assert set(parts) == {"frame", *(f"engine.{call}" for call in CALLS)}
    stages = {by_name[stage].context.span_id: by_name[stage] for stage in STAGES}
    for span in theirs:
        if span.name in parts:
            assert span.start_time is not None and span.end_time is not None
            stage = stages[_parent(span)]
            assert span.name == "frame" or _begin(stage) <= _begin(span) <= span.end_time * 2 <= _end(stage)
    # Stages follow one another without gaps, and lie within the client's wait.
    for before, after in pairwise(STAGES):
        assert by_name[before].end_time == by_name[after].start_time
    assert _begin(ours["ask"]) <= _begin(query)
    assert not any("drawer" in str(span.attributes) for span in (*theirs, *ours.values()))


@pytest.mark.parametrize("by_header", [True, False])
async def test_a_browsers_query_is_in_the_trace_it_names(by_header: bool) -> None:
    provider, spans = recording()
    trace = f"00-{'5' * 32}-{'7' * 16}-01"
    given = {"additional_headers": {"traceparent": trace}} if by_header else {
        "subprotocols": [f"traceparent.{trace}", "lego.v1"]
    }  # fmt: skip
    async with running(FakeEngine(), telemetry=Telemetry(traces=QueryTraces(provider)), web__port=0) as server:
        await forget_warm_up(spans)
        async with web_session(server.server, **given) as client:
            await client.frame()
            await client.query(1)
            await client.result()
        await eventually(lambda: "query" in {span.name for span in spans.get_finished_spans()})
    [query] = [span for span in spans.get_finished_spans() if span.name == "query"]
    assert (query.context.trace_id, _parent(query)) == (int("5" * 32, 16), int("7" * 16, 16))


async def test_a_superseded_query_that_still_waited_has_a_span_too() -> None:
    provider, spans = recording()
    engine = FakeEngine()
    async with running(engine, telemetry=Telemetry(traces=QueryTraces(provider)), max_active=1) as server:
        await forget_warm_up(spans)
        busy, waiting = await server.open_session(), await server.open_session()
        engine.gate.clear()
        for client in (busy, waiting):
            await client.frame()
            await client.query(1)
            await eventually(lambda: engine.calls["denoise"] == 2)
        await eventually(lambda: server.server.live_queries == 2)
        await waiting.cancel(1)
        await waiting.error()
        engine.gate.set()
        await busy.result()
        await eventually(lambda: sum(span.name == "query" for span in spans.get_finished_spans()) == 2)
    outcomes = [span.attributes["lego.outcome"] for span in spans.get_finished_spans()
                if span.name == "query" and span.attributes is not None]  # fmt: skip
    assert sorted(map(str, outcomes)) == ["answered", "dropped"]


async def test_a_trace_that_its_caller_names_goes_on_in_the_server() -> None:
    provider, spans = recording()
    async with running(FakeEngine(), telemetry=Telemetry(traces=QueryTraces(provider))) as server:
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        request = pb.GenerateRequest(image=picture(), text="open the drawer")
        await server.stub.Generate(request, metadata=(("traceparent", parent),))
        named = int("0af7651916cd43dd8448eb211c80319c", 16)
        await eventually(lambda: any(span.context.trace_id == named for span in spans.get_finished_spans()))


def test_spans_arrive_at_an_otlp_collector() -> None:
    arrived = threading.Event()

    class Collector(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
            assert details.method == "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

            def export(request: bytes, _: grpc.ServicerContext) -> bytes:
                if b"lego-server" in request and b"a stage" in request:
                    arrived.set()
                return b""

            return grpc.unary_unary_rpc_method_handler(export)

    collector = grpc.server(futures.ThreadPoolExecutor(1))
    collector.add_generic_rpc_handlers((Collector(),))
    port = collector.add_insecure_port("127.0.0.1:0")
    collector.start()
    provider = otlp_provider("lego-server", f"http://127.0.0.1:{port}")
    provider.get_tracer("test").start_span("a stage").end()
    provider.shutdown()
    collector.stop(None)
    assert arrived.is_set()


def test_an_endpoint_that_is_no_address_is_refused() -> None:
    with pytest.raises(LegoError, match="the trace endpoint is 'localhost:4317'; it must be an address such as http"):
        otlp_provider("lego-server", "localhost:4317")


def test_without_opentelemetry_everything_runs_and_asking_for_traces_says_what_to_install() -> None:
    # A package that cannot be imported stands for one that is not installed.
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import lego_client.cli, lego_server.cli, lego_server.server\n"
        "assert lego_client.tracing.traces_from_environment().begin('x:1') == ()\n"
        "from lego_core.tracing import otlp_provider\n"
        "try: otlp_provider('lego-server', 'http://localhost:4317')\n"
        "except ValueError as error: print(error)\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stderr
    assert "pip install 'lego-ar[telemetry]'" in finished.stdout


def _begin(span: ReadableSpan) -> int:
    assert span.start_time is not None
    # A stage may begin with its query.
    return span.start_time * 2 + (span.name != "query")


def _end(span: ReadableSpan) -> int:
    assert span.end_time is not None
    return span.end_time * 2


def _parent(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id
