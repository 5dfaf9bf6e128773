"""What the way over Ray to a replica costs: one wearer asks a server in one process and one with a replica, in turns.

    python -m benchmarks.cluster --json docs/results/cluster.json

Both run the same engine with the same threads, and both get the same frames, questions and seeds; only one works at a
time. A frame is new each time, so nothing is remembered. Pictures are compared: they are the same, bit for bit.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import grpc
import psutil
import typer
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc
from lego_server.bench.questions import Questions
from rich.console import Console
from rich.table import Table

SIDES = {"one process": ["serve"], "one replica": ["cluster", "--replica-cpus", "0.5"]}

_REST_SECONDS = 20.0


@dataclass
class Times:
    """Seconds of one side's queries.

    Attributes:
        first_words: Until the first words of the description.
        answer: Until the guidance frame.
        processor: Of processor time, of all of the side's processes; what else the machine does leaves it as it is.
    """

    first_words: list[float] = field(default_factory=list)
    answer: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


def main(
    model: Annotated[Path, typer.Option(help="Engine directory.")] = Path("models/lego-nano"),
    queries: Annotated[int, typer.Option(min=2, help="Queries of each side, for each number of steps.")] = 60,
    steps: Annotated[str, typer.Option(help="Numbers of denoising steps.")] = "1,20,100",
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path("out/cluster.json"),
) -> None:
    """Measure both sides and write the figures."""
    times, rest = asyncio.run(_measure(model, queries, [int(each) for each in steps.split(",")]))
    json_file.parent.mkdir(parents=True, exist_ok=True)
    record = {number: {side: asdict(each) for side, each in sides.items()} for number, sides in times.items()}
    figures = {"model": model.name, "queries": queries, "load": os.getloadavg()[0], "rest": rest, "steps": record}
    json_file.write_text(json.dumps(figures, indent=1))
    table = Table("steps", "", *(f"{side}, ms" for side in SIDES), "more, ms", box=None)
    for number, sides in times.items():
        for what in ("first_words", "answer", "processor"):
            alone, remote = (statistics.median(getattr(each, what)) for each in sides.values())
            pairs = zip(*(getattr(each, what) for each in sides.values()), strict=True)
            more = statistics.median(after - before for before, after in pairs)
            row = (alone, remote, more)
            table.add_row(str(number), what.replace("_", " "), *(f"{1000 * seconds:.1f}" for seconds in row))
    Console().print(table)
    for side, busy in rest.items():
        print(f"at rest, {side} takes {100 * busy:.1f} % of a core")


async def _measure(model: Path, queries: int, steps: list[int]) -> tuple[dict[int, dict[str, Times]], dict[str, float]]:
    """Returns the times by steps and side, and the cores that each side keeps busy at rest."""
    times = {number: {side: Times() for side in SIDES} for number in steps}
    questions = Questions(distinct=True, folder=None, seed=0)
    async with AsyncExitStack() as stack:
        sessions = {side: await stack.enter_async_context(_session(model, command)) for side, command in SIDES.items()}
        before = {side: session.processor_seconds() for side, session in sessions.items()}
        await asyncio.sleep(_REST_SECONDS)
        rest = {side: (each.processor_seconds() - before[side]) / _REST_SECONDS for side, each in sessions.items()}
        for count in range(queries + 1):
            for number in steps:
                frame, text = questions.next()
                pictures = set()
                # Who is first changes, as the second finds the processor's caches as the first has left them.
                for side in sorted(SIDES, reverse=bool(count % 2)):
                    spent = sessions[side].processor_seconds()
                    first, last, picture = await sessions[side].ask(frame, text, number)
                    pictures.add(picture)
                    if count:  # the first of each is not measured
                        times[number][side].first_words.append(first)
                        times[number][side].answer.append(last)
                        times[number][side].processor.append(sessions[side].processor_seconds() - spent)
                assert len(pictures) == 1, "the sides paint different pictures"
    return times, rest


class _Session:
    def __init__(self, call: Any, process: int) -> None:
        self._call = call
        self._count = 0
        self._process = psutil.Process(process)

    def processor_seconds(self) -> float:
        """Returns the processor time so far of the server and every process it has started."""
        family = (self._process, *self._process.children(recursive=True))
        return sum(spent.user + spent.system for each in family for spent in (each.cpu_times(),))

    async def ask(self, frame: bytes, text: str, steps: int) -> tuple[float, float, bytes]:
        """Returns the seconds until the first words and until the answer, and the picture."""
        self._count += 1
        await self._call.write(pb.GuideRequest(frame=pb.Frame(frame_id=self._count, image=frame)))
        while (await self._call.read()).WhichOneof("message") != "frame_received":
            pass
        began, first = time.perf_counter(), 0.0
        options = pb.GuidanceOptions(seed=7, steps=steps)
        await self._call.write(
            pb.GuideRequest(query=pb.Query(query_id=self._count, text=text, frame_id=self._count, options=options))
        )
        while True:
            response = await self._call.read()
            since = time.perf_counter() - began
            if response.HasField("description_delta") and not first:
                first = since
            if response.HasField("error"):
                raise RuntimeError(response.error.message)
            if response.HasField("result"):
                return first, since, response.result.image


@asynccontextmanager
async def _session(model: Path, command: list[str]) -> AsyncIterator[_Session]:
    options = ["--engines", str(model), "--port", "0", "--threads", "1", "--encode-ahead-seconds", "0"]
    process = subprocess.Popen(  # noqa: ASYNC220 (starting it takes a millisecond)
        [sys.executable, "-m", "lego_server", *command, *options],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        async with grpc.aio.insecure_channel(address) as channel:
            yield _Session(guidance_pb2_grpc.GuidanceStub(channel).Guide(), process.pid)
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    typer.run(main)
