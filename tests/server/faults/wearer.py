"""A wearer in a process of their own: `wearer.py HOST:PORT` asks, says so on stdout, and asks again until killed."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import grpc
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc

from tests.server.harness import picture


def _requests() -> Iterator[pb.GuideRequest]:
    yield pb.GuideRequest(frame=pb.Frame(frame_id=1, image=picture()))
    options = pb.GuidanceOptions(seed=1, steps=20, preview_every=2)
    for query_id in range(1, 1_000_000):
        print("asking", flush=True)
        yield pb.GuideRequest(query=pb.Query(query_id=query_id, text="how do I open the drawer", options=options))
        if not sys.stdin.readline():  # until told to ask again
            return


if __name__ == "__main__":
    with grpc.insecure_channel(sys.argv[1]) as channel:
        for _ in guidance_pb2_grpc.GuidanceStub(channel).Guide(_requests()):
            pass
