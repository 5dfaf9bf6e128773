"""Between what happened and the messages it is stored as: topics, protobuf, and pictures beside their events."""

from __future__ import annotations

from dataclasses import dataclass, replace

from google.protobuf.message import DecodeError
from lego_proto.v1 import recording_pb2 as pb

from lego_client.events import Guidance, Progress, QueryEvent
from lego_client.protocol import (
    event_from_proto,
    event_to_proto,
    options_from_proto,
    options_to_proto,
    server_info_from_proto,
    server_info_to_proto,
)
from lego_client.recording.happenings import (
    Asked,
    AskedAnew,
    Connected,
    Disconnected,
    Ended,
    Happening,
    Heard,
    Note,
    Started,
    View,
)

FORMAT = 1

SESSION = "/session"
VIEW = "/view"
SEEN = "/seen"
PREVIEWS = "/previews"
GUIDANCE = "/guidance"
PICTURES = (VIEW, SEEN, PREVIEWS, GUIDANCE)


@dataclass(frozen=True)
class Message:
    """A message of the file.

    Attributes:
        topic: `SESSION`, whose data is a `SessionRecord`; or one of `PICTURES`, whose data is the JPEG itself.
        data: As said.
        sequence: Of a picture: its frame's id, or its query's.
    """

    topic: str
    data: bytes
    sequence: int = 0


def messages_of(happening: Happening) -> list[Message]:
    """Returns what is stored of a happening: a record, and before it its picture."""
    match happening:
        case View(frame_id=frame_id, jpeg=jpeg):
            return [Message(VIEW if frame_id else SEEN, jpeg, frame_id)]
        case Heard(event=Progress(preview=preview) as event) if preview:
            return [
                Message(PREVIEWS, preview, event.query_id),
                _record(Heard(replace(event, preview=b"")), picture=True),
            ]
        case Heard(event=Guidance(image=image) as event):
            return [Message(GUIDANCE, image, event.query_id), _record(Heard(replace(event, image=b"")), picture=True)]
        case _:
            return [_record(happening)]


def with_picture(happening: Happening, picture: bytes) -> Happening:
    """Puts an event and its picture together again."""
    match happening:
        case Heard(event=Progress() as event):
            return Heard(replace(event, preview=picture))
        case Heard(event=Guidance() as event):
            return Heard(replace(event, image=picture))
    return happening


def read_record(data: bytes) -> tuple[Happening | None, bool, int]:
    """Reads a record of `SESSION`.

    Returns:
        What happened (None for what a later version may have added), whether its picture is stored before it, and the
        format's number where the record says it, else 0.

    Raises:
        ValueError: It is no record.
    """
    try:
        record = pb.SessionRecord.FromString(data)
    except DecodeError as error:
        raise ValueError(str(error)) from error
    number = record.started.format if record.WhichOneof("record") == "started" else 0
    return _happening(record), record.picture, number


def _record(happening: Happening, picture: bool = False) -> Message:
    record = pb.SessionRecord(picture=picture)
    match happening:
        case Started():
            record.started.CopyFrom(
                pb.RecordingStarted(format=FORMAT, software=happening.software, settings=happening.settings)
            )
        case Connected():
            record.connection.CopyFrom(
                pb.ConnectionChanged(
                    state=pb.ConnectionChanged.STATE_CONNECTED, session_id=happening.session_id,
                    resumed=happening.resumed, server=server_info_to_proto(happening.server), target=happening.target,
                )
            )  # fmt: skip
        case Disconnected(reason=reason, for_good=for_good):
            state = pb.ConnectionChanged.STATE_ENDED if for_good else pb.ConnectionChanged.STATE_LOST
            record.connection.CopyFrom(pb.ConnectionChanged(state=state, reason=reason))
        case Asked():
            record.asked.CopyFrom(
                pb.QueryAsked(
                    query_id=happening.query_id, text=happening.text, frame_id=happening.frame_id,
                    options=options_to_proto(happening.options), deadline_seconds=happening.deadline_seconds,
                    model=happening.model,
                )
            )  # fmt: skip
        case AskedAnew(query_id=query_id, earlier_query_id=earlier):
            record.asked_anew.CopyFrom(pb.QueryAskedAnew(query_id=query_id, earlier_query_id=earlier))
        case Heard(event=event):
            record.event.CopyFrom(event_to_proto(event))
        case Note():
            record.note.CopyFrom(
                pb.RecordingNote(
                    text=happening.text, dropped=happening.dropped, limit_reached=happening.limit_reached
                )
            )  # fmt: skip
        case Ended(dropped=dropped):
            record.ended.CopyFrom(pb.RecordingEnded(dropped=dropped))
    return Message(SESSION, record.SerializeToString())


def _happening(record: pb.SessionRecord) -> Happening | None:
    match record.WhichOneof("record"):
        case "started":
            return Started(dict(record.started.software), dict(record.started.settings))
        case "connection":
            return _connection(record.connection)
        case "asked":
            asked = record.asked
            return Asked(
                asked.query_id, asked.text, asked.frame_id if asked.HasField("frame_id") else None,
                options_from_proto(asked.options),
                asked.deadline_seconds if asked.HasField("deadline_seconds") else None, asked.model,
            )  # fmt: skip
        case "asked_anew":
            return AskedAnew(record.asked_anew.query_id, record.asked_anew.earlier_query_id)
        case "event":
            event: QueryEvent | None = event_from_proto(record.event)
            return None if event is None else Heard(event)
        case "note":
            return Note(record.note.text, record.note.dropped, record.note.limit_reached)
        case "ended":
            return Ended(record.ended.dropped)
    return None


def _connection(change: pb.ConnectionChanged) -> Happening | None:
    match change.state:
        case pb.ConnectionChanged.STATE_CONNECTED:
            server = server_info_from_proto(change.server)
            return Connected(change.target, change.session_id, server, change.resumed)
        case pb.ConnectionChanged.STATE_LOST | pb.ConnectionChanged.STATE_ENDED:
            return Disconnected(change.reason, change.state == pb.ConnectionChanged.STATE_ENDED)
    return None
