"""What a recording tells, as plain data: one thing after another that happened in a session."""

from __future__ import annotations

from dataclasses import dataclass, field

from lego_client.events import GuidanceOptions, QueryEvent, ServerInfo


@dataclass(frozen=True)
class Started:
    """The recording began.

    Attributes:
        software: Versions of the client and of what it runs on, by name.
        settings: What was asked of the program, by name.
    """

    software: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Connected:
    """A stream was open: of the session that was (`resumed`) or of a new one."""

    target: str
    session_id: str
    server: ServerInfo
    resumed: bool


@dataclass(frozen=True)
class Disconnected:
    """The stream broke; unless `for_good`, the client tried to open another."""

    reason: str
    for_good: bool


@dataclass(frozen=True)
class View:
    """A frame of the camera, JPEG bytes. `frame_id` is 0 for one that was not sent."""

    frame_id: int
    jpeg: bytes


@dataclass(frozen=True)
class Asked:
    """A query was asked; `frame_id` is None where no frame had been sent."""

    query_id: int
    text: str
    frame_id: int | None
    options: GuidanceOptions
    deadline_seconds: float | None = None
    model: str = ""


@dataclass(frozen=True)
class AskedAnew:
    """A query was asked again under another id; what came of the earlier one is void."""

    query_id: int
    earlier_query_id: int


@dataclass(frozen=True)
class Heard:
    """Something came of a query."""

    event: QueryEvent


@dataclass(frozen=True)
class Note:
    """Something a viewer should know of the recording itself.

    Attributes:
        text: In one sentence.
        dropped: Frames and previews that are missing, because the disk was too slow.
        limit_reached: No more frames from here on.
    """

    text: str
    dropped: int = 0
    limit_reached: bool = False


@dataclass(frozen=True)
class Ended:
    """The recording was closed; `dropped` frames and previews are missing in all."""

    dropped: int = 0


Happening = Started | Connected | Disconnected | View | Asked | AskedAnew | Heard | Note | Ended
