"""`lego-server cluster` as operators run it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest
from lego_proto.v1 import guidance_pb2_grpc

from tests.server.cluster.engines import EngineDirectory, load_recorded
from tests.server.harness import GuideClient, config_of

pytest.importorskip("ray.serve")
pytest.importorskip("onnx")


@dataclass
class _Cluster:
    process: subprocess.Popen[str]
    address: str
    log: Path

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(30) == 0, self.log.read_text()


@contextmanager
def _cluster(directory: Path, *arguments: str) -> Iterator[_Cluster]:
    log = directory / "log.txt"
    with log.open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lego_server", "cluster", "--engines", str(directory), "--port", "0", "--threads",
             "1", "--replica-cpus", "0.1", *arguments],
            stdout=subprocess.PIPE, stderr=output, text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on "), log.read_text()
        yield _Cluster(process, line.split()[-1], log)
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def _session(address: str) -> AsyncIterator[GuideClient]:
    async with grpc.aio.insecure_channel(address) as channel:
        client = GuideClient(guidance_pb2_grpc.GuidanceStub(channel))
        await client.read()
        await client.frame()
        yield client


def _replicas(name: str) -> set[int]:
    return {each.pid for each in psutil.process_iter(["cmdline"])
            if f"ServeReplica:{name}:" in " ".join(each.info["cmdline"] or [])}  # fmt: skip


async def test_sighup_serves_what_has_changed_and_a_server_takes_over_the_replicas_another_has_left(
    directory: EngineDirectory, ray_address: str
) -> None:
    from lego_server.cluster.application import Application, applications_of

    other = config_of(name="kitchen", max_ongoing=3, replica_cpus=0.1, ray_address=ray_address)
    leftover = Application(load_recorded, directory.path, other)
    await asyncio.to_thread(leftover.start)
    arguments = ["--ray-address", ray_address, "--cluster-name", "kitchen"]
    with _cluster(directory.path, *arguments, "--keep-replicas") as first:
        assert leftover.name not in applications_of("kitchen")
        async with _session(first.address) as client:
            await client.query(1)
            old = await client.result()
            directory.rename("bbbbbbbbbbbbbbbb")
            first.process.send_signal(signal.SIGHUP)
            new, number = old, 1
            while new.model_version == old.model_version:
                number += 1
                await client.query(number)
                new = await client.result()
        first.stop()
    kept = _replicas("kitchen:fake-bbbbbbbbbbbb")
    with _cluster(directory.path, *arguments) as second:
        taken_over = _replicas("kitchen")
        async with _session(second.address) as client:
            await client.query(1)
            same = await client.result()
        second.stop()

    assert (old.model_version, new.model_version) == ("fake-aaaaaaaaaaaa", "fake-bbbbbbbbbbbb")
    assert old.image == new.image == same.image  # the graphs are the same; only the name is another
    assert taken_over == kept and len(kept) == 1
    assert "fake is now fake-bbbbbbbbbbbb" in second.log.read_text()


async def test_sigterm_lets_a_query_finish_and_leaves_no_process(directory: EngineDirectory) -> None:
    with _cluster(directory.path) as own:
        family = psutil.Process(own.process.pid).children(recursive=True)
        replicas = _replicas("lego:fake-aaaaaaaaaaaa")
        async with _session(own.address) as client:
            await client.query(1, steps=1000)
            await client.read_until("progress")
            own.process.terminate()
            answer = await client.result()
        assert own.process.wait(30) == 0, own.log.read_text()

    assert answer.steps == 1000
    assert len(replicas) == 1 and replicas <= {each.pid for each in family}
    assert [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []


def test_a_cluster_that_is_not_there_is_told_in_one_line(directory: EngineDirectory) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lego_server", "cluster", "--engines", str(directory.path), "--ray-address",
         "127.0.0.1:1"], capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 2
    assert "no Ray cluster can be reached at 127.0.0.1:1" in done.stderr.splitlines()[-1], done.stderr
