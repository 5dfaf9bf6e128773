"""What a session tells its client. `wire.py` turns these into protobuf messages."""

from __future__ import annotations

from dataclasses import dataclass

from lego_server.assistant import Answer, DescriptionPiece, StepDone
from lego_server.failures import Reason


@dataclass(frozen=True)
class QueryEvent:
    """Something about a query that is being answered about a frame."""

    query_id: int
    frame_id: int
    event: DescriptionPiece | StepDone | Answer


@dataclass(frozen=True)
class QueryFailed:
    """A query, or with id 0 a frame or a message, came to nothing."""

    query_id: int
    reason: Reason
    text: str
    retry_after: float = 0.0


@dataclass(frozen=True)
class FrameReceived:
    """This frame and all before it have been received."""

    frame_id: int


Message = QueryEvent | QueryFailed | FrameReceived
