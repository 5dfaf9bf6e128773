"""The guidance frame laid onto the scene itself: it stays on the drawer while the wearer's head moves."""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np

from lego_client.overlay.fade import Fade
from lego_client.overlay.homography import Matrix, corners, transform
from lego_client.overlay.layer import Layer
from lego_client.overlay.pixels import Picture, checked, size_of
from lego_client.overlay.registration import Registration, SceneTracker
from lego_client.overlay.smoothing import OneEuroFilter

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
        homography: (3, 3) by which the ghost is drawn, from pixels of the asked frame to the view: that of the
            registration, steadied; None before the frame was first found.
    """

    def __init__(self, asked: Picture, clock: Callable[[], float] = time.monotonic) -> None:
        self._asked = checked(asked, "the frame asked about").copy()
        self._clock = clock
        self._tracker = SceneTracker(self._asked)
        self._smooth = OneEuroFilter(_CUTOFF_HZ, _BETA)
        self._fade = Fade()
        self._guidance: Picture | None = None
        self._layer: Layer | None = None
        self.registration: Registration | None = None
        self.homography: Matrix | None = None

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
        view = checked(view, "the view")
        if guidance is not self._guidance:
            self._layer = Layer.of(self._asked, checked(guidance, "the guidance frame"))
            self._guidance = guidance
        self._place(view)
        if self._layer is None or self.homography is None or self.opacity == 0:
            return view.copy()
        return self._layer.over(view, self.homography, self.opacity)

    def _place(self, view: Picture) -> None:
        """Says where in the view the ghost belongs, and how visible it is."""
        now = self._clock()
        self.registration = self._tracker.locate(view)
        found = self.registration.confidence > 0
        if not found and self._fade.opacity == 0:
            self._smooth.reset()
        self._fade.update(found, now)
        if self.registration.homography is None:
            return
        quad = corners(size_of(self._asked))
        unit = max(size_of(view)) / _REFERENCE_WIDTH
        seen = transform(self.registration.homography, quad) / unit
        steady = self._smooth(seen.astype(np.float64), now) * unit
        self.homography = cv2.getPerspectiveTransform(quad, steady.astype(np.float32))
