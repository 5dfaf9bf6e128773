"""What the wearer had before their eyes at a moment of a recording."""

from __future__ import annotations

from dataclasses import replace

from lego_core.errors import LegoError
from lego_core.images import decode_image
from PIL import Image

from lego_client.errors import ServerError
from lego_client.events import DescriptionPiece, Guidance, Progress, QueryFailed, QueryRestarted
from lego_client.page import Shown
from lego_client.recording.happenings import Asked, AskedAnew, Connected, Disconnected, Happening, Heard, View

_NOTHING_SEEN = (640, 360)  # pixels


class Stage:
    """Takes happenings in order, and knows what they left to be seen.

    Attributes:
        view: The newest frame of the camera; grey before the first.
        seen: Whether there was a frame yet.
    """

    def __init__(self) -> None:
        self.view = Image.new("RGB", _NOTHING_SEEN, (34, 37, 43))
        self.seen = False
        self._shown = Shown()
        self._query_id = 0
        self._asked_at = 0.0
        self._answered_at: float | None = None
        self._offline = ""

    def take(self, seconds: float, happening: Happening) -> None:
        """Takes the next happening.

        Args:
            seconds: From the beginning of the recording.
            happening: With its picture. One that cannot be decoded is passed over, as the rest can still be shown.
        """
        match happening:
            case View(jpeg=jpeg):
                try:
                    self.view, self.seen = decode_image(jpeg), True
                except LegoError:
                    return
            case Connected():
                self._offline = ""
            case Disconnected(for_good=for_good):
                self._offline = "connection lost" if for_good else "connection lost, trying again"
            case Asked(query_id=query_id, text=text):
                self._shown, self._query_id = Shown(query=text), query_id
                self._asked_at, self._answered_at = seconds, None
            case AskedAnew(query_id=query_id, earlier_query_id=earlier) if earlier == self._query_id:
                self._query_id = query_id
                self._shown = self._shown.with_event(QueryRestarted(query_id))
            case Heard(event=event) if event.query_id == self._query_id:
                self._hear(seconds, event)

    def shown(self, seconds: float) -> Shown:
        """Returns what stands beside the view at a moment at or after the last happening."""
        if not self._shown.query:
            return replace(self._shown, description=self._offline)
        if self._answered_at is not None:
            clock = f"after {self._answered_at - self._asked_at:.1f} s"
        else:
            clock = self._offline or f"{seconds - self._asked_at:.1f} s"
        return replace(self._shown, clock=clock)

    def _hear(self, seconds: float, event: DescriptionPiece | Progress | Guidance | QueryFailed) -> None:
        if isinstance(event, Guidance | QueryFailed):
            self._answered_at = seconds
        if isinstance(event, QueryFailed):
            self._shown = replace(self._shown, description=event.message or event.code, denoised=None)
            return
        try:
            self._shown = self._shown.with_event(event)
        except ServerError as error:
            self._shown = replace(self._shown, description=str(error))
