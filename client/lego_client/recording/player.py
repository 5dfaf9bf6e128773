"""Where a replay stands in its recording: forward at its pace, or anywhere at once."""

from __future__ import annotations

from bisect import bisect_right

from lego_client.page import Shown
from lego_client.recording.happenings import Asked, Heard, View
from lego_client.recording.recording import Recording
from lego_client.recording.stage import Stage


class Player:
    """Brings a stage to any moment of a recording, and decodes only the pictures that are to be seen there.

    Attributes:
        seconds: The moment, from the beginning of the recording.
        stage: What there is to be seen.
    """

    def __init__(self, recording: Recording) -> None:
        self.seconds = 0.0
        self.stage = Stage()
        self._recording = recording
        self._times = [entry.seconds for entry in recording.entries]
        self._next = 0

    @property
    def shown(self) -> Shown:
        """What stands beside the view now."""
        return self.stage.shown(self.seconds)

    def go(self, seconds: float) -> None:
        """Goes to a moment, later or earlier; never past the beginning.

        Raises:
            LegoError: The file cannot be read any more.
        """
        seconds = max(0.0, seconds)
        if seconds < self.seconds:
            self.stage, self._next = Stage(), 0
        end = max(self._next, bisect_right(self._times, seconds))
        passed = self._recording.entries[self._next : end]
        self.seconds, self._next = seconds, end
        last_view = max((n for n, entry in enumerate(passed) if isinstance(entry.happening, View)), default=-1)
        last_query = max((n for n, entry in enumerate(passed) if isinstance(entry.happening, Asked)), default=-1)
        for number, entry in enumerate(passed):
            over = (isinstance(entry.happening, View) and number < last_view) or (
                isinstance(entry.happening, Heard) and number < last_query
            )
            if not over:
                self.stage.take(entry.seconds, self._recording.load(entry))
