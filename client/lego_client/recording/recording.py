"""A recording read back: what happened and when, questions and answers. Pictures are read when used."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from lego_core.errors import LegoError

from lego_client.answer import Answer, Moment
from lego_client.encoding import encoded_jpeg
from lego_client.events import Guidance, QueryFailed, QueryRestarted, ServerInfo
from lego_client.pending import SentFrame
from lego_client.recording.container import ContainerReader, Place
from lego_client.recording.happenings import (
    Asked,
    AskedAnew,
    Connected,
    Ended,
    Happening,
    Heard,
    Note,
    Started,
    View,
)
from lego_client.recording.messages import FORMAT, GUIDANCE, PREVIEWS, SEEN, SESSION, VIEW, read_record, with_picture

_SECOND = 1_000_000_000


@dataclass(frozen=True)
class Entry:
    """Something that happened `seconds` after the recording began; its picture, if it has one, is still in the file."""

    seconds: float
    happening: Happening
    picture: Place | None = None


@dataclass
class Question:
    """A query of the session and what came of it.

    Attributes:
        asked: As it was asked.
        seconds: When, from the beginning of the recording.
        frame: The frame asked about; None where none had been sent, or it is missing from the recording.
        entries: What came of it, in order; an `AskedAnew` voids what goes before.
    """

    asked: Asked
    seconds: float
    frame: Entry | None
    entries: list[Entry]

    @property
    def outcome(self) -> Guidance | QueryFailed | None:
        """How it ended; a guidance frame is not read here. None where the recording does not say."""
        last = self.entries[-1].happening if self.entries else None
        if isinstance(last, Heard) and isinstance(last.event, Guidance | QueryFailed):
            return last.event
        return None


class Recording:
    """A recording, read from its beginning to its end or to where it was cut.

    Attributes:
        path: The file.
        began: When.
        seconds: How long.
        started: What it was made with.
        whole: Whether it was closed; if not, it was cut.
        faults: What a person should know of the file, a sentence each.
        entries: All that happened, in order.
        dropped: Frames and previews that are missing because the disk was too slow.
    """

    def __init__(self, path: Path, pass_over_damage: bool = False) -> None:
        """Reads the file.

        Args:
            path: A file that `Recorder` made.
            pass_over_damage: Leave out what is damaged, instead of refusing the file.

        Raises:
            LegoError: The file cannot be read, is no recording, is damaged, or was made by a newer version.
        """
        self.path = path
        self.entries: list[Entry] = []
        self._container = ContainerReader(path, pass_over_damage)
        started: Started | None = None
        first: int | None = None
        picture: Place | None = None
        for place, data in self._container.scan():
            first = place.time if first is None else first
            seconds = (place.time - first) / _SECOND
            if place.topic in (VIEW, SEEN):
                self.entries.append(Entry(seconds, View(place.sequence if place.topic == VIEW else 0, b""), place))
            elif place.topic in (PREVIEWS, GUIDANCE):
                picture = place
            elif place.topic == SESSION:
                happening, has_picture = self._record(data, place)
                if isinstance(happening, Started):
                    started = started or happening
                if happening is not None:
                    self.entries.append(Entry(seconds, happening, picture if has_picture else None))
                picture = None
        self.whole, self.faults = self._container.whole, tuple(self._container.faults)
        if started is None or first is None:
            raise LegoError(
                f"{path} is no recording of lego-client, or nothing of it is left; give a file made with --record"
            )
        self.started = started
        self.began = datetime.fromtimestamp(first / _SECOND, UTC)
        self.seconds = self.entries[-1].seconds
        noted = sum(entry.happening.dropped for entry in self.entries if isinstance(entry.happening, Note))
        last = self.entries[-1].happening
        self.dropped = last.dropped if isinstance(last, Ended) else noted

    @property
    def server(self) -> ServerInfo:
        """What answered last; empty where the session never was connected."""
        connected = (entry.happening for entry in reversed(self.entries) if isinstance(entry.happening, Connected))
        return next((one.server for one in connected), ServerInfo())

    def load(self, entry: Entry) -> Happening:
        """Returns what happened, with its picture.

        Raises:
            LegoError: The file cannot be read any more.
        """
        if entry.picture is None:
            return entry.happening
        picture = self._container.read(entry.picture)
        if isinstance(entry.happening, View):
            return replace(entry.happening, jpeg=picture)
        return with_picture(entry.happening, picture)

    def questions(self) -> list[Question]:
        """Returns the queries of the session, in order."""
        found: list[Question] = []
        by_id: dict[int, Question] = {}
        views: dict[int, Entry] = {}
        for entry in self.entries:
            match entry.happening:
                case View(frame_id=frame_id) if frame_id:
                    views[frame_id] = entry
                case Asked() as asked:
                    frame = None if asked.frame_id is None else views.get(asked.frame_id)
                    by_id[asked.query_id] = question = Question(asked, entry.seconds, frame, [])
                    found.append(question)
                case AskedAnew(query_id=query_id, earlier_query_id=earlier) if earlier in by_id:
                    by_id[query_id] = by_id[earlier]
                    by_id[query_id].entries.append(entry)
                case Heard(event=event) if event.query_id in by_id:
                    by_id[event.query_id].entries.append(entry)
        return found

    def answer(self, question: Question) -> Answer | None:
        """Returns a question's answer as it was given in the session; None where it got none, or its frame is missing.

        Raises:
            LegoError: The file cannot be read any more, or the frame is no picture.
        """
        if question.frame is None or not isinstance(question.outcome, Guidance):
            return None
        moments: list[Moment] = []
        for entry in question.entries:
            match self.load(entry):
                case Heard(event=event):
                    moments.append(Moment(entry.seconds - question.seconds, event))
                case AskedAnew(query_id=query_id):
                    moments.append(Moment(entry.seconds - question.seconds, QueryRestarted(query_id)))
        guidance = moments[-1].event
        assert isinstance(guidance, Guidance)
        source = f"{self.started.settings.get('source', self.path.name)} at {question.frame.seconds:.2f} s"
        return Answer(
            question.asked.text, source, self.frame(question), question.asked.options, guidance, tuple(moments)
        )

    def frame(self, question: Question) -> SentFrame:
        """Returns the frame that a question was asked about; it must have one.

        Raises:
            LegoError: The file cannot be read any more, or the frame is no picture.
        """
        assert question.frame is not None
        view = self.load(question.frame)
        assert isinstance(view, View)
        return SentFrame(view.frame_id, encoded_jpeg(view.jpeg))

    def _record(self, data: bytes, place: Place) -> tuple[Happening | None, bool]:
        try:
            happening, has_picture, number = read_record(data)
        except ValueError as error:
            raise LegoError(
                f"{self.path} holds what is no record, at byte {place.offset} ({error}); was it made by a newer "
                "lego-client? update with: pip install -U lego-ar"
            ) from error
        if number > FORMAT:
            raise LegoError(
                f"{self.path} was made by a newer lego-client (format {number}; this one reads up to {FORMAT}); "
                "update with: pip install -U lego-ar"
            )
        return happening, has_picture
