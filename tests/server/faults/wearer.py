"""A wearer in a process of their own: `wearer.py HOST:PORT FRAME` says so on stdout, asks, and waits to be killed.

FRAME is in base64. Little is imported, so that many can be started quickly.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator

import grpc
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc


def _requests() -> Iterator[pb.GuideRequest]:
    yield pb.GuideRequest(frame=pb.Frame(frame_id=1, image=base64.b64decode(sys.argv[2])))
    options = pb.GuidanceOptions(seed=1, steps=20, preview_every=2)
    print("asking", flush=True)
    yield pb.GuideRequest(query=pb.Query(query_id=1, text="how do I open the drawer", options=options))
    sys.stdin.read()


if __name__ == "__main__":
    with grpc.insecure_channel(sys.argv[1]) as channel:
        for _ in guidance_pb2_grpc.GuidanceStub(channel).Guide(_requests()):
            pass
