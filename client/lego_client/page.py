"""A page of a film or window: the view, beside it the guidance as far as it has come, and the words under both."""

from __future__ import annotations

from dataclasses import dataclass, replace

from PIL import Image, ImageDraw, ImageEnhance

from lego_client.events import DescriptionPiece, Guidance, Progress, QueryRestarted
from lego_client.pictures import font, line_height, open_jpeg, wrap

_MARGIN = 16
_PANEL_WIDTH, _PANEL_HEIGHT = 640, 400  # pixels at most
_QUERY_FONT, _TEXT_FONT, _NOTE_FONT = 26, 23, 15
_TEXT_LINES = 3

_BACKGROUND = (18, 20, 24)
_PANEL = (34, 37, 43)
_WHITE = (240, 240, 238)
_ACCENT = (116, 190, 255)
_FAINT = (140, 145, 154)


@dataclass(frozen=True)
class Shown:
    """What stands beside and under the view at one instant.

    Attributes:
        query: What was asked; empty while nothing was.
        description: As much as has been written.
        picture: The guidance frame, or the newest preview of it.
        clock: What the time says beside the query.
        denoised: Share of the denoising steps done, 0 to 1; None while there is none to do.
    """

    query: str = ""
    description: str = ""
    picture: Image.Image | None = None
    clock: str = ""
    denoised: float | None = None

    def with_event(self, event: object) -> Shown:
        """Returns what stands there once an event of the query has come.

        Raises:
            ServerError: The server sent a picture that is none.
        """
        match event:
            case DescriptionPiece(text=text):
                return replace(self, description=self.description + text)
            case Progress(step=step, steps=steps, preview=preview):
                picture = open_jpeg(preview) if preview else self.picture
                return replace(self, picture=picture, denoised=step / max(1, steps))
            case QueryRestarted():
                return Shown(query=self.query)
            case Guidance(image=image, description=description):
                return replace(self, description=description, picture=open_jpeg(image), denoised=None)
        return self


class Page:
    """Draws pages of one size.

    Attributes:
        size: (width, height) of every page in pixels; both even, as MPEG-4 wants them.
    """

    def __init__(self, view_width: int, view_height: int, notice: str = "") -> None:
        """Chooses the size.

        Args:
            view_width: Of the view in pixels; other views are fitted into its place.
            view_height: The same.
            notice: What a viewer should know of the model; a small last line.
        """
        scale = min(_PANEL_WIDTH / view_width, _PANEL_HEIGHT / view_height)
        self._panel = max(2, round(view_width * scale)), max(2, round(view_height * scale))
        self._notice = notice
        lines = line_height(font(_QUERY_FONT)) + _TEXT_LINES * line_height(font(_TEXT_FONT))
        width = 2 * self._panel[0] + 3 * _MARGIN
        height = self._panel[1] + lines + line_height(font(_NOTE_FONT)) + 3 * _MARGIN
        self.size = width + width % 2, height + height % 2

    def draw(self, view: Image.Image, shown: Shown) -> Image.Image:
        """Returns the page: RGB."""
        panel, size = self._panel, self.size
        page = Image.new("RGB", size, _BACKGROUND)
        page.paste(view.resize(panel, Image.Resampling.BILINEAR), (_MARGIN, _MARGIN))
        right = panel[0] + 2 * _MARGIN
        page.paste(self._guidance(view, shown), (right, _MARGIN))
        draw = ImageDraw.Draw(page)
        if shown.denoised is not None:
            bottom = _MARGIN + panel[1]
            draw.rectangle((right, bottom - 6, right + shown.denoised * panel[0], bottom - 1), fill=_ACCENT)
        y = panel[1] + 2 * _MARGIN
        room = size[0] - 2 * _MARGIN
        if shown.query:
            draw.text((_MARGIN, y), f"“{shown.query}”", font=font(_QUERY_FONT), fill=_ACCENT)
            draw.text((size[0] - _MARGIN, y), shown.clock, font=font(_QUERY_FONT), fill=_FAINT, anchor="ra")
        y += line_height(font(_QUERY_FONT))
        for line in wrap(shown.description, font(_TEXT_FONT), room)[:_TEXT_LINES]:
            draw.text((_MARGIN, y), line, font=font(_TEXT_FONT), fill=_WHITE)
            y += line_height(font(_TEXT_FONT))
        if self._notice:
            line = wrap(self._notice, font(_NOTE_FONT), room)[0]
            draw.text((_MARGIN, size[1] - _MARGIN // 2), line, font=font(_NOTE_FONT), fill=_FAINT, anchor="ls")
        return page

    def _guidance(self, view: Image.Image, shown: Shown) -> Image.Image:
        if shown.picture is not None:
            return shown.picture.resize(self._panel, Image.Resampling.BICUBIC)
        if shown.query:  # asked, and no picture yet
            return ImageEnhance.Brightness(view.resize(self._panel, Image.Resampling.BILINEAR)).enhance(0.35)
        return Image.new("RGB", self._panel, _PANEL)
