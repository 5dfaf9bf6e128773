"""A short film of a played clip: the view, and beside it the guidance as the wearer saw it come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from lego_core.errors import LegoError
from PIL import Image

from lego_client.answer import Answer
from lego_client.mp4 import mp4_writer
from lego_client.page import Page, Shown
from lego_client.pictures import open_jpeg
from lego_client.play import TimedAnswer
from lego_client.sources.opencv import frames_per_second, opened, read_rgb

_LOOK_S = 3.0  # how long the guidance stands before the clip goes on
_LONGEST_WAIT_S = 6.0  # a slower answer is shown in this time; the clock in the picture keeps the true seconds


def write_film(path: Path, clip: Path, answers: list[TimedAnswer], notice: str = "") -> None:
    """Writes an MP4 of the clip with its queries; the view stands still while an answer comes, at its true pace.

    Args:
        path: Where to write.
        clip: The clip that was played.
        answers: In order of time.
        notice: What a viewer should know of the model; a small last line.

    Raises:
        LegoError: The clip cannot be read or the film cannot be written.
    """
    with opened(str(clip)) as video:
        if video is None:
            raise LegoError(f"{clip} cannot be read as a video")
        fps = frames_per_second(video)
        width, height = (int(video.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        page = Page(width, height, notice)
        with mp4_writer(path, fps, page.size) as write:
            for view, shown in _scenes(video, fps, answers):
                write(np.asarray(page.draw(view, shown)))


def _scenes(video: cv2.VideoCapture, fps: float, answers: list[TimedAnswer]) -> Iterator[tuple[Image.Image, Shown]]:
    """Yields the view and what stands beside it, one film frame after another."""
    waiting = list(answers)
    shown = Shown()
    index = 0
    while (pixels := read_rgb(video)) is not None:
        while waiting and waiting[0].time <= index / fps:
            answer = waiting.pop(0).answer
            yield from _answering(answer, fps)
            shown = _final(answer)
        yield Image.fromarray(pixels), shown
        index += 1
    for late in waiting:
        yield from _answering(late.answer, fps)


def _answering(answer: Answer, fps: float) -> Iterator[tuple[Image.Image, Shown]]:
    """Yields the frame asked about, held, while description, previews and guidance come."""
    view = open_jpeg(answer.frame.encoded.jpeg)
    pace = max(1.0, answer.seconds / _LONGEST_WAIT_S)  # true seconds per second of film
    shown = Shown(query=answer.query)
    moments = list(answer.moments)
    for frame in range(round(answer.seconds / pace * fps)):
        seconds = frame / fps * pace
        while moments and moments[0].seconds <= seconds:
            shown = shown.with_event(moments.pop(0).event)
        yield view, replace(shown, clock=f"{seconds:.1f} s")
    final = _final(answer)
    for _ in range(round(_LOOK_S * fps)):
        yield view, final


def _final(answer: Answer) -> Shown:
    guidance = answer.guidance
    return Shown(answer.query, guidance.description, open_jpeg(guidance.image), f"after {answer.seconds:.1f} s")
