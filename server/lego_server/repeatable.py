"""Steps of a query that can be begun anew without its listener noticing."""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any

from lego_server.assistant import Answer, DescriptionPiece, Event, StepDone, Steps
from lego_server.delivery import Delivery, Spoilt
from lego_server.failures import Reason, RequestError
from lego_server.work import Work

_RETRY = 0.5  # seconds


class Repeatable(Generator[Work | Event, Any, None]):
    """Is what `begin` returns, and after each `restart` that once more, less the events that have been told."""

    def __init__(self, begin: Callable[[], Steps]) -> None:
        self._begin: Callable[[], Steps] | None = begin
        self._steps = begin()
        self._delivery = Delivery()

    def restart(self) -> None:
        """Drops what has been done, and what it holds of the engine's memory; the next `send` is a first one."""
        assert self._begin is not None, "it has been closed"
        self._steps.close()
        self._steps = self._begin()
        self._delivery.restart()

    def send(self, value: Any) -> Work | Event:
        """Goes on to the next engine call, or the next event that has not been told.

        Raises:
            RequestError: UNAVAILABLE: the description has become another than the one that has been told.
        """
        item = self._steps.send(value)
        while isinstance(item, DescriptionPiece | StepDone | Answer):
            try:
                fresh = self._delivery.fresh(item)
            except Spoilt:
                text = "the answer was begun anew and came out otherwise; ask again"
                raise RequestError(Reason.UNAVAILABLE, text, retry_after=_RETRY) from None
            if fresh is not None:
                return fresh
            item = self._steps.send(None)
        return item

    def throw(
        self, kind: Any, value: BaseException | object = None, traceback: TracebackType | None = None, /
    ) -> Work | Event:
        """See `Generator.throw`."""
        return self._steps.throw(kind if value is None else value)  # type: ignore[arg-type]

    def close(self) -> None:
        """Ends it for good, and frees what it would begin anew with."""
        self._steps.close()
        self._begin = None
