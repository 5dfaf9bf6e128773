"""How visible the ghost is: it goes softly when the scene is lost, and comes back when it has surely been found."""

from __future__ import annotations

_IN_S = 0.25
_OUT_S = 0.35
_SETTLED_S = 0.12  # for so long a scene must have been found again before its ghost comes back


class Fade:
    """Turns found and lost, view by view, into an opacity that never jumps."""

    def __init__(self) -> None:
        self._time: float | None = None
        self._found_since: float | None = None
        self._coming = True  # the first time nothing has been lost yet: it may come at once
        self.opacity = 0.0

    def update(self, found: bool, time: float) -> float:
        """Returns the opacity, 0 to 1, of the view at a time in seconds."""
        passed = 0.0 if self._time is None else max(0.0, time - self._time)
        self._time = time
        if not found:
            self._found_since = None
            self._coming = False
        elif self._found_since is None:
            self._found_since = time
        if self._found_since is not None and time - self._found_since >= _SETTLED_S:
            self._coming = True
        step = passed / _IN_S if self._coming else -passed / _OUT_S
        self.opacity = min(1.0, max(0.0, self.opacity + step))
        return self.opacity
