"""One question and its answer, as far as it has come."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from lego_core.errors import LegoError

from lego_client.answer import Answer, Moment, failure
from lego_client.errors import ServerError
from lego_client.events import (
    DescriptionPiece,
    Event,
    Guidance,
    GuidanceOptions,
    Progress,
    QueryFailed,
    QueryRestarted,
)
from lego_client.overlay.pixels import Picture
from lego_client.pending import SentFrame
from lego_client.pictures import open_jpeg


@dataclass
class Exchange:
    """A question under way or answered. Only `Conversation` changes it.

    Attributes:
        query: What the wearer asked.
        options: How it is to be painted.
        asked_at: `time.monotonic()` of the question.
        frame: The frame it is about; None until it has been chosen.
        asked_picture: The same, decoded as the server decodes it: (H, W, 3) uint8 RGB.
        description: As much as has been written.
        step: Denoising steps done.
        steps: Of all; 0 until the first.
        picture: The guidance frame, or the newest preview of it: (h, w, 3) uint8 RGB; None before.
        guidance: The answer, once it is there.
        failed: Why there will be none; "" while there may be.
    """

    query: str
    options: GuidanceOptions
    asked_at: float = field(default_factory=time.monotonic)
    frame: SentFrame | None = None
    asked_picture: Picture | None = None
    description: str = ""
    step: int = 0
    steps: int = 0
    picture: Picture | None = None
    guidance: Guidance | None = None
    failed: str = ""
    _moments: list[Moment] = field(default_factory=list)

    @property
    def pending(self) -> bool:
        """Whether it is still to be answered."""
        return self.guidance is None and not self.failed

    @property
    def age_seconds(self) -> float:
        """Seconds since the moment that the picture shows, by this machine's own clock."""
        return time.monotonic() - self.asked_at if self.frame is None else self.frame.age

    @property
    def seconds(self) -> float:
        """Seconds from the question to the last thing that came of it."""
        return self._moments[-1].seconds if self._moments else 0.0

    def decode_asked(self) -> None:
        """Makes the picture of the frame asked about; takes milliseconds, and may run in any thread."""
        if self.frame is not None:
            self.asked_picture = pixels_of(self.frame.encoded.jpeg)

    def take(self, event: Event) -> None:
        """Takes the next event in.

        Raises:
            LegoError: The query failed, by the wearer's doing.
            ServerError: The query failed, by the server's; or it sent a picture that is none.
        """
        self._moments.append(Moment(time.monotonic() - self.asked_at, event))
        match event:
            case DescriptionPiece(text=text):
                self.description += text
            case Progress(step=step, steps=steps, preview=preview):
                self.step, self.steps = step, steps
                if preview:
                    self.picture = pixels_of(preview)
            case QueryRestarted():
                self.description, self.step, self.steps, self.picture = "", 0, 0, None
            case Guidance(description=description, image=image):
                self.picture = pixels_of(image)
                self.description, self.guidance = description, event
            case QueryFailed():
                raise failure(event)

    def fail(self, error: LegoError | ServerError | str) -> None:
        """Ends it without an answer."""
        if self.guidance is None:
            self.failed = str(error)

    def answer(self, source: str) -> Answer | None:
        """Returns what can be saved; None before there is a guidance frame.

        Args:
            source: The name of the camera.
        """
        if self.guidance is None or self.frame is None:
            return None
        return Answer(self.query, source, self.frame, self.options, self.guidance, tuple(self._moments))


def pixels_of(jpeg: bytes) -> Picture:
    """Decodes a picture of the protocol: (H, W, 3) uint8 RGB.

    Raises:
        ServerError: It is none.
    """
    return np.asarray(open_jpeg(jpeg))
