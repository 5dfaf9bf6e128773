"""A server killed outright: the next one on its port serves who comes with what the old one gave."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc

from tests.server.harness import GuideClient


def _serve(directory: Path, port: int = 0) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "lego_server", "serve", "--engines", str(directory), "--port", str(port), "--threads",
         "1"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, process.stdout.readline().split()[-1]


async def test_an_old_token_gets_a_new_session_from_the_server_after_a_killed_one(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from tests.server.tiny_engine import write_tiny_engine

    write_tiny_engine(tmp_path)
    process, address = _serve(tmp_path)
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            client = GuideClient(guidance_pb2_grpc.GuidanceStub(channel))
            started = (await client.read()).session_started
            await client.frame()
            await client.query(1)
            before = await client.result()
            await client.query(2, steps=1000)
            await client.read_until("progress")
            process.kill()
            with pytest.raises(grpc.aio.AioRpcError) as lost:
                await client.result()
            assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
        process.wait()
        process, again = _serve(tmp_path, int(address.rpartition(":")[2]))
        assert again == address, "the port is free at once"
        async with grpc.aio.insecure_channel(address) as channel:
            client = GuideClient(guidance_pb2_grpc.GuidanceStub(channel))
            await client.read()
            await client.call.write(pb.GuideRequest(resume=pb.Resume(token=started.resume_token, received=99)))
            fresh = (await client.read()).session_started
            assert not fresh.resumed and fresh.resume_token not in ("", started.resume_token)
            await client.frame()
            await client.query(1)
            assert (await client.result()).image == before.image
    finally:
        process.kill()
        process.wait()
