"""What a listener has been told of a query, so that when it is answered anew the telling goes on where it ended."""

from __future__ import annotations

from lego_server.assistant import Answer, DescriptionPiece, StepDone


class Spoilt(Exception):
    """The second telling is a different story; what has been told cannot be taken back."""


class Delivery:
    """Passes on each thing once, however often it is told."""

    def __init__(self) -> None:
        self._told = ""
        self._all_told = False
        self._step = 0
        self._heard = ""

    @property
    def begun(self) -> bool:
        """Whether the listener has been told anything."""
        return bool(self._told) or self._all_told or self._step > 0

    def restart(self) -> None:
        """The telling begins from the beginning."""
        self._heard = ""

    def fresh(self, event: DescriptionPiece | StepDone | Answer) -> DescriptionPiece | StepDone | Answer | None:
        """Returns what of an event has not been told yet; None if all of it has.

        Raises:
            Spoilt: The description differs from the one that has been told.
        """
        match event:
            case DescriptionPiece(text, done):
                return self._fresh_piece(text, done)
            case StepDone(step):
                if step <= self._step:
                    return None
                self._step = step
            case Answer(description=description) if self._all_told and description != self._told:
                raise Spoilt
        return event

    def _fresh_piece(self, text: str, done: bool) -> DescriptionPiece | None:
        self._heard += text
        shorter, longer = sorted((self._told, self._heard), key=len)
        if not longer.startswith(shorter) or (done and longer != self._heard):
            raise Spoilt
        new = self._heard[len(self._told) :]
        if new and self._all_told:
            raise Spoilt
        if not new and (self._all_told or not done):
            return None
        self._told += new
        self._all_told = done
        return DescriptionPiece(new, done)
