"""One wearer's query from the question to the picture on the screen: where the time goes, span by span.

    python -m benchmarks.waterfall --json docs/results/waterfall.json --plot docs/results/waterfall.png

A real server in a process of its own, over real gRPC, and the live client's own code: a camera, `Conversation`,
`Screen`. Both record OpenTelemetry spans; the server sends its own to a collector here. What is no engine call is
overhead: it is told as a whole and by what it went into. Questions are typed, so that the live client sends views while
they are; with `--at-once` they come out of nothing, as from a key that asks again.
"""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Generator, Sequence
from concurrent import futures
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from typing import Annotated, Any

import grpc
import matplotlib as mpl
import numpy as np
import typer
from lego_client.events import GuidanceOptions
from lego_client.live.conversation import Conversation
from lego_client.live.exchange import Exchange
from lego_client.live.screen import Screen
from lego_client.live.state import LiveState
from lego_client.session import GuidanceClient
from lego_client.sources import FrameSource
from lego_client.tracing import SessionTraces
from lego_core.errors import LegoError
from lego_server.bench.own_server import own_server
from lego_server.bench.questions import Questions
from numpy.typing import NDArray
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

mpl.use("Agg")
import matplotlib.pyplot as plt

_CAMERA_FPS = 15.0
_DISPLAY_FPS = 25.0
_READING_SECONDS = 0.8  # between an answer and the next question: no frame of the one is among those of the other
_LETTERS = 8  # of a question that are typed here; how long it is does not matter
_LETTER_SECONDS = 0.1
_LIMIT_SECONDS = 120.0
ENGINE_CALLS = {
    "engine.encode_frames": "frame encoder", "engine.prefill": "VLLM, prompt", "engine.extend": "VLLM, a token",
    "engine.condition": "text encoder, conditioner", "engine.denoise": "a denoising step",
    "engine.decode_latents": "VAE decoder",
}  # fmt: skip
# What overhead goes into, in the order of a query's life.
PARTS = (
    "choose a frame", "encode it as JPEG", "to the server", "decode and resize it", "to the engine",
    "between engine calls", "picture to JPEG", "to the client", "decode it", "draw the screen",
)  # fmt: skip
BETWEEN = PARTS[5]


@dataclass(frozen=True)
class Span:
    """A stretch of time, in seconds since the question."""

    name: str
    begin: float
    end: float


@dataclass(frozen=True)
class Query:
    """One query's spans.

    Attributes:
        seconds: From the question to the picture on the screen.
        spans: What happened in between, by name.
        calls: Those of them that are engine calls, in order.
    """

    seconds: float
    spans: dict[str, Span]
    calls: list[Span]

    @property
    def model_seconds(self) -> float:
        """Seconds in which an engine call ran; with one wearer, calls follow one another."""
        return sum(call.end - call.begin for call in self.calls)

    @property
    def stretches(self) -> list[Span]:
        """All of `PARTS`, one after the other; those that fell away, as the server had the frame, take no time."""
        ask, query = self.spans["ask"], self.spans["query"]
        encode = self.spans.get("encode frame", Span("", ask.begin, ask.begin))
        frame = self.spans.get("frame", Span("", query.begin, query.begin))
        moments = (
            0.0, encode.begin, encode.end, frame.begin, frame.end, self.calls[0].begin,
            self.calls[-1].end, self.spans["answer"].end, self.spans["picture"].begin, ask.end, self.seconds,
        )  # fmt: skip
        return [Span(name, before, after) for name, (before, after) in zip(PARTS, pairwise(moments), strict=True)]

    @property
    def overhead(self) -> dict[str, float]:
        """Seconds outside engine calls, by what they went into; together all of them."""
        seconds = {each.name: each.end - each.begin for each in self.stretches}
        seconds[BETWEEN] -= self.model_seconds
        return seconds


class _Camera(FrameSource):
    """Looks at a drawn picture, and never quite still, as a camera on a head."""

    def __init__(self, picture: NDArray[np.uint8]) -> None:
        super().__init__("drawn frames", live=True)
        self.looks_at = picture

    def capture(self) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
        for number in count():
            if self.closing:
                return
            # What the server has seen before it would not look at again.
            yield np.roll(self.looks_at, number, axis=1), self.elapsed()
            self.pause(1 / _CAMERA_FPS)


class _Collector(grpc.GenericRpcHandler):
    """Takes in what an OTLP exporter sends."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        def export(request: bytes, _: grpc.ServicerContext) -> bytes:
            for resource in ExportTraceServiceRequest.FromString(request).resource_spans:
                for scope in resource.scope_spans:
                    self.spans.extend(scope.spans)
            return b""

        return grpc.unary_unary_rpc_method_handler(export)


def main(
    model: Annotated[Path, typer.Option(help="Checkpoint with its engines built in place.")] = Path("models/lego-nano"),
    queries: Annotated[int, typer.Option(min=1, help="Queries measured.")] = 60,
    warm_up: Annotated[int, typer.Option(min=0, help="Queries before them.")] = 3,
    steps: Annotated[int, typer.Option(min=0, help="Denoising steps; 0 takes the model's own.")] = 0,
    device: Annotated[str, typer.Option(help="What runs the server's graphs.")] = "cpu",
    mode: Annotated[str, typer.Option(help="How guidance is shown.")] = "picture-in-picture",
    at_once: Annotated[bool, typer.Option(help="Questions are asked without being typed.")] = False,
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path("out/waterfall.json"),
    plot: Annotated[Path, typer.Option(help="Where the plot goes.")] = Path("out/waterfall.png"),
) -> None:
    """Measure queries one after another and write figures and plot."""
    options = ["--engines", str(model), "--device", device]
    measured = asyncio.run(_measure(options, queries, warm_up, steps, mode, at_once))
    _report(measured, json_file, plot)


async def _measure(options: list[str], queries: int, warm_up: int, steps: int, mode: str, at_once: bool) -> list[Query]:
    collector = _Collector()
    port_server = grpc.server(futures.ThreadPoolExecutor(1), options=[("grpc.max_receive_message_length", -1)])
    port_server.add_generic_rpc_handlers((collector,))
    port = port_server.add_insecure_port("127.0.0.1:0")
    port_server.start()
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    asked: list[tuple[int, int]] = []
    async with own_server([*options, "--trace-endpoint", f"http://127.0.0.1:{port}"]) as target:
        await _ask_all(target, SessionTraces(provider), queries + warm_up, steps, mode, at_once, asked)
    port_server.stop(None).wait()
    return _queries(asked, exporter.get_finished_spans(), collector.spans)[warm_up:]


async def _ask_all(
    target: str, traces: SessionTraces, queries: int, steps: int, mode: str, at_once: bool,
    asked: list[tuple[int, int]],
) -> None:  # fmt: skip
    questions = Questions(distinct=True, folder=None, seed=0)
    given = [questions.next() for _ in range(37)]
    frames = [np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")) for jpeg, _ in given]
    state = LiveState(target=target, mode=mode)
    ended: asyncio.Queue[Exchange] = asyncio.Queue()
    with _Camera(frames[0]) as camera:
        conversation = Conversation(
            lambda: GuidanceClient(target, traces=traces), camera, state,
            lambda client: GuidanceOptions(seed=0, steps=steps or None),
        )  # fmt: skip
        conversation.when_ended(ended.put)
        screen = Screen(state, camera, ())
        connection = asyncio.create_task(conversation.connect())
        try:
            while state.offline:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            for number in track(range(queries), "queries"):
                camera.looks_at = frames[number % len(given)]
                await asyncio.sleep(_READING_SECONDS)
                for _ in range(0 if at_once else _LETTERS):
                    conversation.look_ahead()
                    await asyncio.sleep(_LETTER_SECONDS)
                began = time.time_ns()
                conversation.ask(given[number % len(given)][1])
                async with asyncio.timeout(_LIMIT_SECONDS):
                    exchange = await _shown(screen, ended)
                asked.append((began, time.time_ns()))
                if exchange.failed:
                    raise LegoError(exchange.failed)
        finally:
            await conversation.close()
            connection.cancel()
            with suppress(asyncio.CancelledError):
                await connection


async def _shown(screen: Screen, ended: asyncio.Queue[Exchange]) -> Exchange:
    """Draws many times a second, as a window does, and at once when the answer is there; returns once it is drawn."""
    answer = asyncio.create_task(ended.get())
    while not answer.done():
        await asyncio.wait((answer,), timeout=1 / _DISPLAY_FPS)
        await asyncio.to_thread(screen.draw)
    return answer.result()


def _queries(asked: list[tuple[int, int]], ours: Sequence[Any], theirs: Sequence[Any]) -> list[Query]:
    """Puts each query's spans together, the client's and the server's, by when they were: queries do not overlap."""
    found = []
    for begin, end in asked:
        spans = {}
        for span in ours:
            if begin <= span.start_time and span.end_time <= end:
                spans[span.name] = _since(begin, span.name, span.start_time, span.end_time)
                spans |= {each.name: _since(begin, each.name, each.timestamp) for each in span.events}
        calls = []
        for span in theirs:
            if begin <= span.start_time_unix_nano <= end:
                each = _since(begin, span.name, span.start_time_unix_nano, span.end_time_unix_nano)
                if span.name in ENGINE_CALLS:
                    calls.append(each)
                else:
                    spans[span.name] = each
                    spans |= {each.name: _since(begin, each.name, each.time_unix_nano) for each in span.events}
        calls.sort(key=lambda call: call.begin)
        found.append(Query((end - begin) / 1e9, spans, calls))
    return found


def _since(question: int, name: str, begin: int, end: int | None = None) -> Span:
    return Span(name, (begin - question) / 1e9, ((begin if end is None else end) - question) / 1e9)


def _report(queries: list[Query], path: Path, plot: Path) -> None:
    overheads = [sum(query.overhead.values()) for query in queries]
    parts = {name: [query.overhead[name] for query in queries] for name in PARTS}
    totals = {
        "overhead": overheads, "engine calls": [query.model_seconds for query in queries],
        "query to screen": [query.seconds for query in queries],
    }  # fmt: skip
    median = queries[int(np.argsort([query.seconds for query in queries])[len(queries) // 2])]
    figures = {
        "queries": len(queries),
        "milliseconds": {name: _quantiles(values) for name, values in {**parts, **totals}.items()},
        "engine_call_milliseconds": {
            label: _quantiles([call.end - call.begin for query in queries for call in query.calls if call.name == name])
            for name, label in ENGINE_CALLS.items()
            if any(call.name == name for query in queries for call in query.calls)
        },
        "calls": float(np.median([len(query.calls) for query in queries])),
        "overhead_milliseconds": [round(1e3 * value, 3) for value in overheads],
        "median_query": [
            {"name": span.name, "begin_ms": round(1e3 * span.begin, 3), "end_ms": round(1e3 * span.end, 3)}
            for span in sorted((*median.spans.values(), *median.calls), key=lambda span: span.begin)
        ],
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")
    table = Table(
        "milliseconds", "least", "p50", "p95", title=f"{len(queries)} queries, one after another", title_justify="left"
    )
    for name, values in figures["milliseconds"].items():  # type: ignore[attr-defined]
        if values["p95"] == 0:  # the server had the frame
            continue
        table.add_row(name, *(f"{value:.2f}" for value in values.values()), end_section=name == PARTS[-1])
    Console().print(table, f"figures in {path}, plot in {plot}")
    _draw(median, plot)


def _quantiles(values: list[float]) -> dict[str, float]:
    least = {"least": round(1e3 * min(values), 3)}
    return least | {f"p{q}": round(1e3 * float(np.percentile(values, q)), 3) for q in (50, 95)}


def _draw(query: Query, path: Path) -> None:
    bars = list(_bars(query))
    names = list(dict.fromkeys(name for name, *_ in bars))
    figure, axis = plt.subplots(figsize=(9, 0.27 * len(names) + 1))
    for name, begin, end, model in bars:
        axis.barh(
            names.index(name), 1e3 * max(end - begin, 2e-4), left=1e3 * begin, height=0.7,
            color="#4878a8" if model else "#d1813a", edgecolor="white", linewidth=0.3,
        )  # fmt: skip
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel="milliseconds since the question; blue: engine calls, orange: the rest", xlim=(0, None))
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _bars(query: Query) -> Generator[tuple[str, float, float, bool], None, None]:
    """Yields what is drawn: label, begin, end, whether it is an engine call; in the order in which things begin."""
    for each in query.stretches:
        if each.name == BETWEEN:
            for call in query.calls:
                yield ENGINE_CALLS[call.name], call.begin, call.end, True
            for before, after in pairwise(query.calls):
                yield BETWEEN, before.end, after.begin, False
        elif each.end > each.begin:
            yield each.name, each.begin, each.end, False


if __name__ == "__main__":
    typer.run(main)
