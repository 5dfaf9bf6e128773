from lego_proto.v1 import guidance_pb2 as _guidance_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SessionRecord(_message.Message):
    __slots__ = ("started", "connection", "asked", "asked_anew", "event", "note", "ended", "picture")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    ASKED_ANEW_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    started: RecordingStarted
    connection: ConnectionChanged
    asked: QueryAsked
    asked_anew: QueryAskedAnew
    event: _guidance_pb2.GuideResponse
    note: RecordingNote
    ended: RecordingEnded
    picture: bool
    def __init__(self, started: _Optional[_Union[RecordingStarted, _Mapping]] = ..., connection: _Optional[_Union[ConnectionChanged, _Mapping]] = ..., asked: _Optional[_Union[QueryAsked, _Mapping]] = ..., asked_anew: _Optional[_Union[QueryAskedAnew, _Mapping]] = ..., event: _Optional[_Union[_guidance_pb2.GuideResponse, _Mapping]] = ..., note: _Optional[_Union[RecordingNote, _Mapping]] = ..., ended: _Optional[_Union[RecordingEnded, _Mapping]] = ..., picture: _Optional[bool] = ...) -> None: ...

class RecordingStarted(_message.Message):
    __slots__ = ("format", "software", "settings")
    class SoftwareEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    format: int
    software: _containers.ScalarMap[str, str]
    settings: _containers.ScalarMap[str, str]
    def __init__(self, format: _Optional[int] = ..., software: _Optional[_Mapping[str, str]] = ..., settings: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ConnectionChanged(_message.Message):
    __slots__ = ("state", "reason", "session_id", "resumed", "server", "target")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[ConnectionChanged.State]
        STATE_CONNECTED: _ClassVar[ConnectionChanged.State]
        STATE_LOST: _ClassVar[ConnectionChanged.State]
        STATE_ENDED: _ClassVar[ConnectionChanged.State]
    STATE_UNSPECIFIED: ConnectionChanged.State
    STATE_CONNECTED: ConnectionChanged.State
    STATE_LOST: ConnectionChanged.State
    STATE_ENDED: ConnectionChanged.State
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    state: ConnectionChanged.State
    reason: str
    session_id: str
    resumed: bool
    server: _guidance_pb2.ServerInfo
    target: str
    def __init__(self, state: _Optional[_Union[ConnectionChanged.State, str]] = ..., reason: _Optional[str] = ..., session_id: _Optional[str] = ..., resumed: _Optional[bool] = ..., server: _Optional[_Union[_guidance_pb2.ServerInfo, _Mapping]] = ..., target: _Optional[str] = ...) -> None: ...

class QueryAsked(_message.Message):
    __slots__ = ("query_id", "text", "frame_id", "options", "deadline_seconds", "model")
    QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    query_id: int
    text: str
    frame_id: int
    options: _guidance_pb2.GuidanceOptions
    deadline_seconds: float
    model: str
    def __init__(self, query_id: _Optional[int] = ..., text: _Optional[str] = ..., frame_id: _Optional[int] = ..., options: _Optional[_Union[_guidance_pb2.GuidanceOptions, _Mapping]] = ..., deadline_seconds: _Optional[float] = ..., model: _Optional[str] = ...) -> None: ...

class QueryAskedAnew(_message.Message):
    __slots__ = ("query_id", "earlier_query_id")
    QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    EARLIER_QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    query_id: int
    earlier_query_id: int
    def __init__(self, query_id: _Optional[int] = ..., earlier_query_id: _Optional[int] = ...) -> None: ...

class RecordingNote(_message.Message):
    __slots__ = ("text", "dropped", "limit_reached")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    LIMIT_REACHED_FIELD_NUMBER: _ClassVar[int]
    text: str
    dropped: int
    limit_reached: bool
    def __init__(self, text: _Optional[str] = ..., dropped: _Optional[int] = ..., limit_reached: _Optional[bool] = ...) -> None: ...

class RecordingEnded(_message.Message):
    __slots__ = ("dropped",)
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    dropped: int
    def __init__(self, dropped: _Optional[int] = ...) -> None: ...
