"""A short film of a played clip: the view, and beside it the guidance as the wearer saw it come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from lego_core.errors import LegoError
from PIL import Image, ImageDraw, ImageEnhance

from lego_client.answer import Answer
from lego_client.events import DescriptionPiece, Guidance, Progress, QueryRestarted
from lego_client.mp4 import mp4_writer
from lego_client.pictures import font, line_height, open_jpeg, wrap
from lego_client.play import TimedAnswer
from lego_client.sources.opencv import frames_per_second, opened, read_rgb

_MARGIN = 16
_PANEL_WIDTH, _PANEL_HEIGHT = 640, 400  # pixels at most
_LOOK_S = 3.0  # how long the guidance stands before the clip goes on
_LONGEST_WAIT_S = 6.0  # a slower answer is shown in this time; the clock in the picture keeps the true seconds
_QUERY_FONT, _TEXT_FONT, _NOTE_FONT = 26, 23, 15
_TEXT_LINES = 3

_BACKGROUND = (18, 20, 24)
_PANEL = (34, 37, 43)
_WHITE = (240, 240, 238)
_ACCENT = (116, 190, 255)
_FAINT = (140, 145, 154)


@dataclass(frozen=True)
class _Shown:
    """What stands beside and under the view at one instant."""

    query: str = ""
    description: str = ""
    picture: Image.Image | None = None
    clock: str = ""
    denoised: float | None = None


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
        panel = _panel_size(int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        film_size = _film_size(panel)
        with mp4_writer(path, fps, film_size) as write:
            for view, shown in _scenes(video, fps, answers):
                write(np.asarray(_draw(view, shown, panel, film_size, notice)))


def _scenes(video: cv2.VideoCapture, fps: float, answers: list[TimedAnswer]) -> Iterator[tuple[Image.Image, _Shown]]:
    """Yields the view and what stands beside it, one film frame after another."""
    waiting = list(answers)
    shown = _Shown()
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


def _answering(answer: Answer, fps: float) -> Iterator[tuple[Image.Image, _Shown]]:
    """Yields the frame asked about, held, while description, previews and guidance come."""
    view = open_jpeg(answer.frame.encoded.jpeg)
    pace = max(1.0, answer.seconds / _LONGEST_WAIT_S)  # true seconds per second of film
    shown = _Shown(query=answer.query)
    moments = list(answer.moments)
    for frame in range(round(answer.seconds / pace * fps)):
        seconds = frame / fps * pace
        while moments and moments[0].seconds <= seconds:
            shown = _with_event(shown, moments.pop(0).event)
        yield view, replace(shown, clock=f"{seconds:.1f} s")
    final = _final(answer)
    for _ in range(round(_LOOK_S * fps)):
        yield view, final


def _with_event(shown: _Shown, event: object) -> _Shown:
    match event:
        case DescriptionPiece(text=text):
            return replace(shown, description=shown.description + text)
        case Progress(step=step, steps=steps, preview=preview):
            picture = open_jpeg(preview) if preview else shown.picture
            return replace(shown, picture=picture, denoised=step / max(1, steps))
        case QueryRestarted():
            return _Shown(query=shown.query)
        case Guidance(image=image, description=description):
            return replace(shown, description=description, picture=open_jpeg(image), denoised=None)
    return shown


def _final(answer: Answer) -> _Shown:
    guidance = answer.guidance
    return _Shown(answer.query, guidance.description, open_jpeg(guidance.image), f"after {answer.seconds:.1f} s")


def _panel_size(width: int, height: int) -> tuple[int, int]:
    scale = min(_PANEL_WIDTH / width, _PANEL_HEIGHT / height)
    return max(2, round(width * scale)), max(2, round(height * scale))


def _film_size(panel: tuple[int, int]) -> tuple[int, int]:
    text = line_height(font(_QUERY_FONT)) + _TEXT_LINES * line_height(font(_TEXT_FONT)) + line_height(font(_NOTE_FONT))
    width, height = 2 * panel[0] + 3 * _MARGIN, panel[1] + text + 3 * _MARGIN
    return width + width % 2, height + height % 2  # MPEG-4 wants even sides


def _draw(
    view: Image.Image, shown: _Shown, panel: tuple[int, int], film_size: tuple[int, int], notice: str
) -> Image.Image:
    page = Image.new("RGB", film_size, _BACKGROUND)
    page.paste(view.resize(panel, Image.Resampling.BILINEAR), (_MARGIN, _MARGIN))
    right = panel[0] + 2 * _MARGIN
    page.paste(_guidance_panel(view, shown, panel), (right, _MARGIN))
    draw = ImageDraw.Draw(page)
    if shown.denoised is not None:
        bottom = _MARGIN + panel[1]
        draw.rectangle((right, bottom - 6, right + shown.denoised * panel[0], bottom - 1), fill=_ACCENT)
    y = panel[1] + 2 * _MARGIN
    room = film_size[0] - 2 * _MARGIN
    if shown.query:
        draw.text((_MARGIN, y), f"“{shown.query}”", font=font(_QUERY_FONT), fill=_ACCENT)
        clock = font(_QUERY_FONT)
        draw.text((film_size[0] - _MARGIN, y), shown.clock, font=clock, fill=_FAINT, anchor="ra")
    y += line_height(font(_QUERY_FONT))
    for line in wrap(shown.description, font(_TEXT_FONT), room)[:_TEXT_LINES]:
        draw.text((_MARGIN, y), line, font=font(_TEXT_FONT), fill=_WHITE)
        y += line_height(font(_TEXT_FONT))
    if notice:
        line = wrap(notice, font(_NOTE_FONT), room)[0]
        draw.text((_MARGIN, film_size[1] - _MARGIN // 2), line, font=font(_NOTE_FONT), fill=_FAINT, anchor="ls")
    return page


def _guidance_panel(view: Image.Image, shown: _Shown, panel: tuple[int, int]) -> Image.Image:
    if shown.picture is not None:
        return shown.picture.resize(panel, Image.Resampling.BICUBIC)
    if shown.query:  # asked, and no picture yet
        return ImageEnhance.Brightness(view.resize(panel, Image.Resampling.BILINEAR)).enhance(0.35)
    return Image.new("RGB", panel, _PANEL)
