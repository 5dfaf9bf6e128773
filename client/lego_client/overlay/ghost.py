"""The guidance frame laid onto the scene itself: it stays on the drawer while the wearer's head moves."""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from lego_client.overlay.changes import changed_region
from lego_client.overlay.fade import Fade
from lego_client.overlay.homography import Matrix, corners, scaling, transform
from lego_client.overlay.pixels import Picture, checked, lay_over, size_of
from lego_client.overlay.registration import Registration, SceneTracker
from lego_client.overlay.smoothing import OneEuroFilter

_STRONG, _FAINT, _UNMARKED = 0.8, 0.12, 0.45  # opacity where changed, elsewhere, and where nothing stands out
_BORDER = 0.05  # share of the shorter side over which the ghost's rim fades
_FEATHER = 3.0  # pixels of the changed region's edge
_ACCENT, _INK = (116, 190, 255, 255), (10, 12, 16, 170)  # RGBA, multiplied by alpha
_CUTOFF_HZ = 2.5
_BETA = 0.16  # at most 1 / (2 π 0.16) = 1 pixel behind, of a view 640 pixels wide
_REFERENCE_WIDTH = 640


class Ghost:
    """The view, with the guidance frame where the frame asked about lies in it; what the action changes stands out.

    One ghost belongs to one frame that was asked about. Guidance may change from call to call (previews, then the
    picture); the same array must not be changed in place.

    Args:
        asked: (H, W, 3) uint8 RGB, the frame that was asked about.
        clock: Seconds; for a film, the position in it.

    Raises:
        LegoError: `asked` is no picture, or too small.

    Attributes:
        registration: Where the frame was found in the newest view; None before the first.
    """

    def __init__(self, asked: Picture, clock: Callable[[], float] = time.monotonic) -> None:
        self._asked = checked(asked, "the frame asked about").copy()
        self._clock = clock
        self._tracker = SceneTracker(self._asked)
        self._smooth = OneEuroFilter(_CUTOFF_HZ, _BETA)
        self._fade = Fade()
        self._guidance: Picture | None = None
        self._layer = _Layer(np.zeros((1, 1, 4), np.uint8), [])
        self.registration: Registration | None = None

    @property
    def opacity(self) -> float:
        """How visible the ghost is, 0 to 1."""
        return self._fade.opacity

    @property
    def lost(self) -> bool:
        """Whether the scene is not in the newest view and the ghost has gone."""
        return self.registration is not None and self.registration.confidence == 0 and self.opacity == 0

    def compose(self, view: Picture, guidance: Picture) -> Picture:
        """See `Composition`."""
        view, guidance = checked(view, "the view"), checked(guidance, "the guidance frame")
        if guidance is not self._guidance:
            self._guidance, self._layer = guidance, _Layer.of(self._asked, guidance)
        homography = self._locate(view)
        if homography is None or self.opacity == 0:
            return view.copy()
        return lay_over(view, self._layer.warped(homography, size_of(self._asked), size_of(view)), self.opacity)

    def _locate(self, view: Picture) -> Matrix | None:
        """Returns the smoothed homography from the asked frame to the view; None before it was ever found."""
        now = self._clock()
        self.registration = self._tracker.locate(view)
        found = self.registration.confidence > 0
        if not found and self._fade.opacity == 0:
            self._smooth.reset()
        self._fade.update(found, now)
        if self.registration.homography is None:
            return None
        quad = corners(size_of(self._asked))
        unit = max(size_of(view)) / _REFERENCE_WIDTH
        seen = transform(self.registration.homography, quad) / unit
        steady = self._smooth(seen.astype(np.float64), now) * unit
        homography: Matrix = cv2.getPerspectiveTransform(quad, steady.astype(np.float32))
        return homography


class _Layer:
    """A guidance frame made ready to be warped."""

    def __init__(self, pixels: NDArray[np.uint8], outlines: list[NDArray[np.float32]]) -> None:
        self._pixels = pixels  # (h, w, 4) RGBA, multiplied by alpha
        self._outlines = outlines  # each (N, 2), in its pixels

    @classmethod
    def of(cls, asked: Picture, guidance: Picture) -> _Layer:
        size = size_of(guidance)
        region = changed_region(asked, guidance)
        marked = region.any()
        # The region was found on a smaller picture: it is smoothed before it is scaled, and outlined after.
        soft = cv2.resize(cv2.GaussianBlur(region, (0, 0), _FEATHER), size, interpolation=cv2.INTER_LINEAR)
        share = soft.astype(np.float32) / 255
        opacity = (_FAINT + (_STRONG - _FAINT) * share if marked else np.full_like(share, _UNMARKED)) * _rim(size)
        pixels = np.dstack([guidance * opacity[..., None], 255 * opacity])
        outlines, _ = cv2.findContours((soft >= 128).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_L1)
        return cls(np.rint(pixels).astype(np.uint8), [line.reshape(-1, 2).astype(np.float32) for line in outlines])

    def warped(self, homography: Matrix, asked: tuple[int, int], view: tuple[int, int]) -> NDArray[np.uint8]:
        """Returns the layer as it lies over the view: (H, W, 4)."""
        to_view = homography @ scaling((self._pixels.shape[1], self._pixels.shape[0]), asked)
        layer: NDArray[np.uint8] = cv2.warpPerspective(self._pixels, to_view, view)
        lines = [np.rint(transform(to_view, line) * 16).astype(np.int32) for line in self._outlines]
        thin = max(1, round(max(view) / 320))
        for colour, thickness in ((_INK, thin + 2), (_ACCENT, thin)):
            cv2.polylines(layer, lines, True, colour, thickness, cv2.LINE_AA, shift=4)
        return layer


def _rim(size: tuple[int, int]) -> NDArray[np.float32]:
    """Returns (h, w): 1 inside and falling to 0 at the border."""
    band = max(1.0, _BORDER * min(size))
    across, down = (
        np.minimum(1, (np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5) / band).astype(np.float32) for n in size
    )
    return np.minimum(down[:, None], across)
