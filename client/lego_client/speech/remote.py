"""A recogniser that runs on the server: for devices that are too small for one of their own.

Of what the microphone hears only utterances are sent, as they are spoken; the server keeps none of them.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any, cast

import grpc
from lego_core.errors import LegoError
from lego_core.speech.audio import Samples, to_int16
from lego_core.speech.recognise import Transcript, UtteranceLost
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc as pb_grpc

from lego_client.diagnosis import tls_fault
from lego_client.errors import ServerError
from lego_client.stream import Route

_INFO_SECONDS = 10.0
_UTTERANCE_SECONDS = 90.0  # for which one may go on, its recognition included; servers allow less
# What the next utterance would meet as well.
_FOR_GOOD = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
)


class ServerRecogniser:
    """A `Recogniser`. Each utterance is a call of its own; nothing is sent before the first.

    Args:
        route: The server, and how to reach it.

    Raises:
        LegoError: A certificate file cannot be used, or a token would travel in the clear.
    """

    exact = False  # a busy server answers with what it wrote down before

    def __init__(self, route: Route) -> None:
        route.connection.check(route.target)
        self.name = f"the recogniser of {route.target}"
        self._route = route
        self._channel = route.connection.open_blocking_channel(route.target, [("grpc.use_local_subchannel_pool", 1)])
        self._stub = pb_grpc.GuidanceStub(self._channel)
        self._call: Any = None  # an iterator of transcripts that can be cancelled, which gRPC has no public type for
        self._requests: queue.SimpleQueue[pb.TranscribeRequest | None] = queue.SimpleQueue()

    def check(self) -> None:
        """Asks the server whether it has a recogniser.

        Raises:
            LegoError: It has none.
            ServerError: It cannot be reached, or does not let this client in.
        """
        metadata = self._route.connection.metadata
        try:
            info = self._stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=_INFO_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            fault = tls_fault(self._route.target, self._route.connection)
            raise ServerError(fault) if fault else self._route.explained(cast(grpc.Call, error)) from error
        if not info.HasField("speech"):
            raise LegoError(
                f"the server at {self._route.target} writes down no speech; have its operator serve with --speech "
                "auto, or choose another --recogniser"
            )
        self.name = f"{info.speech.recogniser} of {self._route.target}"

    def start(self) -> None:
        """A new utterance begins; what the server has of an earlier one is dropped."""
        self.drop()
        requests: queue.SimpleQueue[pb.TranscribeRequest | None] = queue.SimpleQueue()
        self._requests = requests
        self._call = self._stub.Transcribe(
            iter(requests.get, None), timeout=_UTTERANCE_SECONDS, metadata=self._route.connection.metadata
        )

    def feed(self, samples: Samples) -> None:
        """Sends the next (N,) samples."""
        self._requests.put(pb.TranscribeRequest(audio=to_int16(samples)))

    def hypothesis(self, stop: Callable[[], bool]) -> Transcript | None:
        """Asks what was said so far."""
        if stop():
            return None
        self._requests.put(pb.TranscribeRequest(partial=True))
        return self._next()

    def finish(self) -> Transcript:
        """Says that the utterance is over, and waits for what it was."""
        self._requests.put(None)
        return self._next()

    def close(self) -> None:
        """Leaves the server."""
        self.drop()
        self._channel.close()

    def drop(self) -> None:
        """Has the server forget the utterance."""
        if self._call is not None:
            self._requests.put(None)  # lets go the thread that waits for more to send
            self._call.cancel()
            self._call = None

    def _next(self) -> Transcript:
        """Waits for the next transcript.

        Raises:
            UtteranceLost: There will be none of this utterance.
            LegoError: Nor of any other.
        """
        try:
            written: pb.Transcript = next(self._call)
        except grpc.RpcError as error:
            sentence = str(self._route.explained(cast(grpc.Call, error), had_session=True))
            if error.code() in _FOR_GOOD:
                raise LegoError(sentence) from error
            raise UtteranceLost(f"what you said was lost: {sentence}") from error
        except StopIteration:
            raise UtteranceLost(f"the server at {self._route.target} gave no transcript; say it again") from None
        return Transcript(written.text, written.confidence if written.HasField("confidence") else None)
