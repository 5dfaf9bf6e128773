"""A guidance frame as it lies on the scene: warped into the view and blended with it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lego_client.overlay.changes import changed_region
from lego_client.overlay.homography import Matrix, Points, scaling, transform
from lego_client.overlay.pixels import Picture, lay_over, size_of

_STRONG, _FAINT, _UNMARKED = 0.8, 0.12, 0.45  # opacity where changed, elsewhere, and where nothing stands out
_BORDER = 0.05  # share of the shorter side over which the ghost's rim fades
_FEATHER = 3.0  # pixels of the changed region's edge
_ACCENT, _INK = (116, 190, 255, 255), (10, 12, 16, 170)  # RGBA, multiplied by alpha


class Layer:
    """A guidance frame made ready to lie on the scene: what the action changes stands out, the rest is faint."""

    def __init__(self, pixels: NDArray[np.uint8], outlines: list[Points], asked: tuple[int, int]) -> None:
        self._pixels = pixels  # (h, w, 4) RGBA, multiplied by alpha
        self._outlines = outlines  # each (N, 2), in its pixels
        self._to_asked = scaling((pixels.shape[1], pixels.shape[0]), asked)

    @classmethod
    def of(cls, asked: Picture, guidance: Picture) -> Layer:
        """Makes a layer of guidance (h, w, 3) for the frame asked about (H, W, 3), both uint8 RGB."""
        size = size_of(guidance)
        region = changed_region(asked, guidance)
        marked = region.any()
        # The region was found on a smaller picture: it is smoothed before it is scaled, and outlined after.
        soft = cv2.resize(cv2.GaussianBlur(region, (0, 0), _FEATHER), size, interpolation=cv2.INTER_LINEAR)
        share = soft.astype(np.float32) / 255
        opacity = (_FAINT + (_STRONG - _FAINT) * share if marked else np.full_like(share, _UNMARKED)) * _rim(size)
        pixels = np.dstack([guidance * opacity[..., None], 255 * opacity])
        outlines, _ = cv2.findContours((soft >= 128).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_L1)
        lines = [line.reshape(-1, 2).astype(np.float32) for line in outlines]
        return cls(np.rint(pixels).astype(np.uint8), lines, size_of(asked))

    def over(self, view: Picture, homography: Matrix, opacity: float = 1.0) -> Picture:
        """Returns a view with the layer over it.

        Args:
            view: (H, W, 3) uint8 RGB; is not changed.
            homography: (3, 3) from pixels of the asked frame to pixels of the view.
            opacity: 0 to 1, of the whole layer.
        """
        to_view = homography @ self._to_asked
        layer: NDArray[np.uint8] = cv2.warpPerspective(self._pixels, to_view, size_of(view))
        lines = [np.rint(transform(to_view, line) * 16).astype(np.int32) for line in self._outlines]
        thin = max(1, round(max(size_of(view)) / 320))
        for colour, thickness in ((_INK, thin + 2), (_ACCENT, thin)):
            cv2.polylines(layer, lines, True, colour, thickness, cv2.LINE_AA, shift=4)
        return lay_over(view, layer, opacity)


def _rim(size: tuple[int, int]) -> NDArray[np.float32]:
    """Returns (h, w): 1 inside and falling to 0 at the border."""
    band = max(1.0, _BORDER * min(size))
    across, down = (
        np.minimum(1, (np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5) / band).astype(np.float32) for n in size
    )
    return np.minimum(down[:, None], across)
