"""`lego-server bench`: what its loads do to a server, and what its figures say."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from lego_core.errors import LegoError
from lego_server.bench.load import Measurement, measure
from lego_server.bench.questions import Questions
from lego_server.bench.report import latencies, summarise
from lego_server.bench.sample import Load, Sample
from PIL import Image

from tests.server.fake_engine import FakeEngine
from tests.server.harness import picture, running

BENCH = [sys.executable, "-m", "lego_server", "bench"]


async def measured(engine: FakeEngine, load: Load, **config: Any) -> Measurement:
    async with running(engine, **config) as server:
        address = f"127.0.0.1:{server.server.port}"
        return await measure(address, load, Questions(False, None, 0), asyncio.Event())


async def test_a_closed_loop_asks_again_once_answered_and_no_sooner() -> None:
    load = Load(wearers=2, count=8, preview_every=2, warm_up=1)
    measurement = await measured(FakeEngine(delay=0.002), load)
    samples = measurement.samples
    assert [sample.outcome for sample in samples] == ["answered"] * len(samples)
    assert 8 <= len(samples) <= 9  # both may find room for the last one
    assert {sample.wearer for sample in samples} == {0, 1}
    for wearer in (0, 1):
        own = [sample for sample in samples if sample.wearer == wearer]
        for before, after in pairwise(own):
            assert before.done is not None and after.intended >= before.done
    for sample in samples:
        assert sample.sent is not None and sample.first_token is not None
        assert sample.first_preview is not None and sample.done is not None
        assert sample.intended <= sample.sent < sample.first_token < sample.first_preview < sample.done
    assert measurement.server == {"model": "fake-0123456789ab", "engine": "fake-cpu"}


async def test_an_open_loops_queries_are_due_whether_or_not_the_server_keeps_up() -> None:
    # One at a time, each taking 0.1 s and more, while 40 a second are due: latencies must grow to the backlog's length.
    load = Load(wearers=1, rate=40, seconds=0.5, warm_up=0, seed=3)
    measurement = await measured(FakeEngine(delay=0.02), load)
    dues = [sample.intended for sample in measurement.samples]
    assert 10 <= len(dues) <= 32 and dues == sorted(dues) and dues[-1] < 0.5
    waits = latencies(measurement.samples, "result")
    assert len(waits) == len(dues)
    service = measurement.seconds / len(dues)
    assert waits[-1] > (len(dues) - 1) * service - dues[-1], "waiting for a wearer must count"
    assert latencies(measurement.samples, "send delay")[-1] > 3 * service


async def test_refusals_are_retried_in_a_closed_loop_and_counted_in_an_open_one() -> None:
    config: dict[str, Any] = {"max_active": 1, "max_waiting": 0}
    closed = await measured(FakeEngine(delay=0.004), Load(wearers=3, count=4, warm_up=0), **config)
    assert {sample.outcome for sample in closed.samples} == {"answered"}
    retried = summarise(closed)["retries"]
    assert retried["n"] > 0
    # No sooner than the server says (0.5 s at least), and not all at once.
    delays = [delay for sample in closed.samples for delay in sample.retry_delays]
    assert min(delays) >= 0.55 and len(set(delays)) == len(delays)
    opened = await measured(FakeEngine(delay=0.004), Load(wearers=8, rate=100, seconds=0.2, warm_up=0), **config)
    summary = summarise(opened)
    assert summary["not_answered"]["overloaded"] > 0
    assert summary["answered"] + summary["not_answered"]["overloaded"] == len(opened.samples)
    assert summary["retries"]["n"] == 0


async def test_wearers_leave_no_sessions_behind() -> None:
    async with running(FakeEngine()) as server:
        load = Load(wearers=3, count=3, warm_up=1)
        await measure(f"127.0.0.1:{server.server.port}", load, Questions(False, None, 0), asyncio.Event())
        registry = server.server.telemetry.metrics.registry
        assert registry.get_sample_value("lego_sessions_opened_total") == 6
        assert registry.get_sample_value("lego_sessions") == 0


async def test_a_stopped_load_keeps_what_it_has() -> None:
    stop = asyncio.Event()
    async with running(FakeEngine(delay=0.01)) as server:
        load = Load(wearers=2, seconds=60, warm_up=0)
        address = f"127.0.0.1:{server.server.port}"
        measuring = asyncio.create_task(measure(address, load, Questions(False, None, 0), stop))
        await asyncio.sleep(0.6)
        stop.set()
        measurement = await asyncio.wait_for(measuring, 5)
    outcomes = [sample.outcome for sample in measurement.samples]
    assert measurement.stopped and "answered" in outcomes and outcomes.count("unfinished") == 2


def test_figures_count_from_when_a_query_was_due() -> None:
    samples = [
        Sample(0, intended=float(due), sent=due + 1.0, done=due + 2.0 + due, outcome="answered") for due in range(100)
    ]
    samples.append(Sample(0, intended=5.0, sent=5.0, done=5.1, outcome="overloaded", retry_delays=[]))
    summary = summarise(Measurement(samples, seconds=50.0))
    assert summary["throughput"] == 2.0
    assert summary["latency"]["result"]["n"] == 100
    assert summary["latency"]["result"]["p50"] == pytest.approx(2 + 49.5)
    assert summary["latency"]["result"]["p99"] == pytest.approx(2 + 98.01)
    assert summary["latency"]["first token"] == {"n": 0}
    assert summary["not_answered"] == {"overloaded": 1}


def test_frames_differ_only_when_asked_to_and_come_from_a_folder_when_there_is_one(tmp_path: Path) -> None:
    alike, distinct = Questions(False, None, 1), Questions(True, None, 1)
    assert alike.next() == alike.next()
    first, second = distinct.next(), distinct.next()
    assert first[0] != second[0] and first[1] != second[1]
    assert Questions(True, None, 1).next() == first, "the same seed draws the same"
    with pytest.raises(LegoError, match="holds no pictures"):
        Questions(True, tmp_path, 0)
    (tmp_path / "a.png").write_bytes(picture())
    assert Questions(True, tmp_path, 0).next()[0] == picture()


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    pytest.importorskip("onnx")
    from tests.server.tiny_engine import write_tiny_engine

    path = tmp_path_factory.mktemp("engines")
    write_tiny_engine(path)
    yield path


def test_the_command_starts_a_server_of_its_own_and_leaves_figures_and_a_plot(engines: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "new" / "serial.json"
    arguments = ["--engines", str(engines), "--threads", "1", "--serial", "--wearers", "2", "--count", "4"]
    result = subprocess.run([*BENCH, *arguments, "--json", str(out)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    recorded = json.loads(out.read_text())
    assert recorded["summary"]["answered"] == len(recorded["samples"]) >= 4
    assert recorded["setting"]["options"]["--max-active"] == "1"
    assert recorded["load"]["wearers"] == 2
    assert Image.open(out.with_suffix(".png")).size[0] > 500
    assert "a second" in result.stdout and "result" in result.stdout


def test_ctrl_c_writes_what_there_is(engines: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "some.json", tmp_path / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "lego_server", "serve", "--engines", str(engines), "--port", "0", "--verbose"],
            stdout=subprocess.PIPE, stderr=output, text=True,
        )  # fmt: skip
    assert server.stdout is not None
    address = server.stdout.readline().split()[-1]
    arguments = ["--server", address, "--wearers", "1", "--seconds", "600", "--no-plot", "--json", str(out)]
    process = subprocess.Popen([*BENCH, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while log.read_text().count("query_answered") < 5 and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        server.kill()
        server.communicate()
    assert process.returncode == 130, errors
    assert errors == f"stopped: what was measured until then is above and in {out}\n"
    summary = json.loads(out.read_text())["summary"]
    assert summary["stopped"] is True and summary["answered"] >= 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "there is nothing to measure: give --engines DIR to start a server, or --server HOST:PORT"),
        (["--server", "127.0.0.1:9", "--serial"], "leave --max-active, --max-waiting, --max-batch out"),
        (["--serial", "--max-batch", "2", "--engines", "x"], "--serial decides what --max-batch is"),
        (["--server", "127.0.0.1:9", "--wearers", "0"], "wearers is 0; it must lie between 1 and 10000"),
        (["--server", "127.0.0.1:9", "--no-plot"], "no guidance server answers at 127.0.0.1:9"),
        (
            ["--engines", "/nowhere", "--no-plot"],
            "the server did not start: error: /nowhere is not an engine directory",
        ),
    ],
)
def test_what_cannot_be_measured_is_one_line_and_exit_code_2(arguments: list[str], told: str) -> None:
    result = subprocess.run([*BENCH, *arguments], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2, result.stdout
    assert result.stderr.startswith("error: ") and told in result.stderr
