"""Bytes from the network to messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import DecodeError

from lego_server.failures import Reason, RequestError

T = TypeVar("T")


def strict(deserialize: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """Has bytes that are no message told to the client as its own mistake, which gRPC takes for the server's."""

    def read(data: bytes) -> T:
        try:
            return deserialize(data)
        except DecodeError as error:
            raise RequestError(
                Reason.INVALID, f"the {len(data)} bytes are no message of this call ({error}); send one as "
                "lego/v1/guidance.proto describes it",
            ) from error  # fmt: skip

    return read
