"""Live view and guidance frame in one picture of the view's size. `ghost` has the composition that moves with the head."""

from __future__ import annotations

from typing import Protocol

import cv2
from lego_core.errors import LegoError

from lego_client.overlay.pixels import Picture, blank, checked, fitted, put_centred, scaled, size_of

CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")

_WHITE = (255, 255, 255)
_INK = (18, 20, 24)


class Composition(Protocol):
    """A way to show guidance with the live view."""

    def compose(self, view: Picture, guidance: Picture) -> Picture:
        """Returns a new picture, as large as the view; neither argument is changed.

        Args:
            view: (H, W, 3) uint8 RGB, what the wearer sees now.
            guidance: (h, w, 3) uint8 RGB of any size, the guidance frame or a preview of it.

        Raises:
            LegoError: One of them is not such a picture, or too small.
        """
        ...


class SideBySide:
    """The view on the left, the guidance frame on the right, each whole."""

    def compose(self, view: Picture, guidance: Picture) -> Picture:
        """See `Composition`."""
        view, guidance = checked(view, "the view"), checked(guidance, "the guidance frame")
        width, height = size_of(view)
        page = blank((width, height))
        gap = max(2, width // 160)
        half = (width - gap) // 2
        put_centred(page, view, 0, half)
        put_centred(page, guidance, width - half, half)
        return page


class PictureInPicture:
    """The view, with the guidance frame small in one corner.

    Args:
        corner: One of `CORNERS`.
        size: Share of the view's width and height that the guidance frame may take, 0.1 to 0.9.

    Raises:
        LegoError: There is no such corner, or the size is out of range.
    """

    def __init__(self, corner: str = "top-right", size: float = 0.4) -> None:
        if corner not in CORNERS:
            raise LegoError(f"the corner is {corner!r}; it must be one of {', '.join(CORNERS)}")
        if not 0.1 <= size <= 0.9:
            raise LegoError(f"the size is {size:g}; it must be from 0.1 to 0.9 of the view")
        self._corner = corner
        self._size = size

    def compose(self, view: Picture, guidance: Picture) -> Picture:
        """See `Composition`."""
        view, guidance = checked(view, "the view"), checked(guidance, "the guidance frame")
        width, height = size_of(view)
        page = view.copy()
        inset = fitted(guidance, (max(1, int(width * self._size)), max(1, int(height * self._size))))
        margin = min(width, height) // 40
        x = margin if self._corner.endswith("left") else width - margin - inset.shape[1]
        y = margin if self._corner.startswith("top") else height - margin - inset.shape[0]
        page[y : y + inset.shape[0], x : x + inset.shape[1]] = inset
        opposite = x + inset.shape[1] - 1, y + inset.shape[0] - 1
        cv2.rectangle(page, (x - 1, y - 1), (opposite[0] + 1, opposite[1] + 1), _INK)
        cv2.rectangle(page, (x, y), opposite, _WHITE)
        return page


class Slider:
    """Before and after in one place: the frame asked about left of a line, the guidance frame right of it.

    The live view does not show, so that both halves are of one moment; it gives the size.

    Args:
        asked: (H, W, 3) uint8 RGB, the frame that was asked about.
        position: Where the line is: 0 shows guidance only, 1 the frame asked about only.

    Raises:
        LegoError: `asked` is no picture, or the position is out of range.
    """

    def __init__(self, asked: Picture, position: float = 0.5) -> None:
        self._asked = checked(asked, "the frame asked about")
        self.position = position

    @property
    def position(self) -> float:
        """Where the line is, 0 to 1; may be moved at any time."""
        return self._position

    @position.setter
    def position(self, position: float) -> None:
        if not 0 <= position <= 1:
            raise LegoError(f"the position is {position:g}; it must be from 0 to 1")
        self._position = position

    def compose(self, view: Picture, guidance: Picture) -> Picture:
        """See `Composition`."""
        view, guidance = checked(view, "the view"), checked(guidance, "the guidance frame")
        size = size_of(view)
        place = fitted(self._asked, size)
        # A guidance frame shows what its frame shows, whatever its own size: both fill the same place.
        before, after = place, scaled(guidance, size_of(place))
        split = round(self._position * place.shape[1])
        page = blank(size)
        x, y = (size[0] - place.shape[1]) // 2, (size[1] - place.shape[0]) // 2
        shown = page[y : y + place.shape[0], x : x + place.shape[1]]
        shown[:, :split], shown[:, split:] = before[:, :split], after[:, split:]
        if 0 < split < place.shape[1]:
            half = max(1, size[0] // 320)
            shown[:, max(0, split - 2 * half) : split + 2 * half] = _INK
            shown[:, max(0, split - half) : split + half] = _WHITE
        return page
