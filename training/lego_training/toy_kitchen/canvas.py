"""Drawing surface: simple solids in world metres, shaded by one light and painted back to front.

The canvas is twice the picture's size; `picture` averages it down, which is what smooths the edges.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lego_training.toy_kitchen.geometry import Camera, Floats, Point
from lego_training.toy_kitchen.palette import RGB, scaled

Picture = NDArray[np.uint8]
Box = tuple[float, float, float, float]

SUPERSAMPLING = 2
_SUBPIXEL_BITS = 4
_SUBPIXELS = 1 << _SUBPIXEL_BITS


@dataclass(frozen=True)
class Light:
    """One distant light.

    Attributes:
        direction: Unit vector from the scene to the light.
        ambient: Share of the colour that unlit faces keep, 0..1.
        gain: Channel factors for warmth and level.
    """

    direction: Point
    ambient: float
    gain: Point


class Canvas:
    """An RGB canvas with a camera, a light, and the bounding boxes of what was named while drawing."""

    def __init__(self, camera: Camera, light: Light, size: int) -> None:
        self.camera = camera
        self.light = light
        self.size = size
        self.pixels = size * SUPERSAMPLING
        self.image: Picture = np.zeros((self.pixels, self.pixels, 3), np.uint8)
        self.boxes: dict[str, Box] = {}
        self._name = ""

    # Projection and shading.

    def place(self, points: ArrayLike) -> Floats:
        """Canvas positions (N, 2) of world points (N, 3)."""
        return self.camera.project(np.atleast_2d(np.asarray(points, dtype=np.float64)))[0] * self.pixels

    def metre_at(self, point: ArrayLike) -> float:
        """Canvas pixels per metre at a world point."""
        depth = self.camera.project(np.atleast_2d(np.asarray(point, dtype=np.float64)))[1][0]
        return float(self.camera.focal * self.pixels / depth)

    def shade(self, rgb: RGB, normal: ArrayLike) -> RGB:
        """Colour of a face with this unit normal under the light."""
        lit = max(0.0, float(np.dot(normal, self.light.direction)))
        return scaled(rgb, self.light.ambient + (1.08 - self.light.ambient) * lit)

    # Boxes.

    @contextmanager
    def named(self, name: str) -> Iterator[None]:
        """Collects the bounding box of everything filled inside the block."""
        outer, self._name = self._name, name
        yield
        self._name = outer

    def _note(self, points: Floats) -> None:
        if not self._name:
            return
        xs, ys = points[:, 0] / self.pixels, points[:, 1] / self.pixels
        left, top, right, bottom = self.boxes.get(self._name, (np.inf, np.inf, -np.inf, -np.inf))
        self.boxes[self._name] = (
            min(left, float(xs.min())),
            min(top, float(ys.min())),
            max(right, float(xs.max())),
            max(bottom, float(ys.max())),
        )

    # Flat shapes on the canvas.

    def fill(self, points: Floats, rgb: RGB) -> None:
        """Fills a canvas polygon (N, 2)."""
        self._note(points)
        fixed = np.rint(points * _SUBPIXELS).astype(np.int32)
        cv2.fillPoly(self.image, [fixed], rgb, cv2.LINE_AA, _SUBPIXEL_BITS)

    def stroke(self, points: Floats, rgb: RGB, width: float) -> None:
        """Draws an open canvas polyline (N, 2), `width` canvas pixels wide."""
        fixed = np.rint(points * _SUBPIXELS).astype(np.int32)
        cv2.polylines(self.image, [fixed], False, rgb, max(1, round(width)), cv2.LINE_AA, _SUBPIXEL_BITS)

    def capsule(self, start: Floats, end: Floats, radius_start: float, radius_end: float, rgb: RGB) -> None:
        """Fills the hull of two canvas discs."""
        discs = np.concatenate([start + radius_start * _CIRCLE, end + radius_end * _CIRCLE])
        self.fill(cv2.convexHull(discs.astype(np.float32))[:, 0].astype(np.float64), rgb)

    def disc(self, centre: Floats, radius: float, rgb: RGB) -> None:
        """Fills a canvas disc."""
        self.fill(centre + radius * _CIRCLE, rgb)

    # See-through shapes.

    def _region(self, points: Floats, margin: float = 2.0) -> tuple[slice, slice] | None:
        low = np.floor(points.min(0) - margin).astype(int)
        high = np.ceil(points.max(0) + margin).astype(int)
        low, high = np.clip(low, 0, self.pixels), np.clip(high, 0, self.pixels)
        if (high <= low).any():
            return None
        return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))

    def glaze(self, points: Floats, rgb: RGB, alpha: float) -> None:
        """Fills a canvas polygon (N, 2) with see-through colour."""
        region = self._region(points)
        if region is None:
            return
        below = self.image[region].copy()
        self.fill(points, rgb)
        self.image[region] = cv2.addWeighted(self.image[region], alpha, below, 1.0 - alpha, 0.0)

    def mist(self, centre: Floats, radius: tuple[float, float], rgb: RGB, alpha: float) -> None:
        """Blends a soft round cloud with these radii in canvas pixels: steam, glow and soft shadow."""
        extent = np.array(radius)
        region = self._region(np.stack([centre - extent, centre + extent]))
        if region is None:
            return
        rows = (np.arange(region[0].start, region[0].stop, dtype=np.float32) - centre[1]) / radius[1]
        columns = (np.arange(region[1].start, region[1].stop, dtype=np.float32) - centre[0]) / radius[0]
        squared = np.clip(1.0 - (rows[:, None] ** 2 + columns[None, :] ** 2), 0.0, 1.0)
        weight = (alpha * squared * squared)[..., None].astype(np.float32)
        below = self.image[region].astype(np.float32)
        self.image[region] = (below + (np.array(rgb, np.float32) - below) * weight + 0.5).astype(np.uint8)

    # Solids in the world.

    def face(self, corners: ArrayLike, rgb: RGB, normal: ArrayLike | None = None) -> None:
        """Fills a flat world polygon (N, 3), shaded by its normal (by default the one that faces the camera)."""
        points = np.asarray(corners, dtype=np.float64)
        if normal is None:
            across = np.cross(points[1] - points[0], points[2] - points[0])
            across /= max(float(np.linalg.norm(across)), 1e-9)
            towards_camera = float(np.dot(across, np.array(self.camera.position) - points[0]))
            normal = across if towards_camera >= 0 else -across
        self.fill(self.place(points), self.shade(rgb, normal))

    def box(self, low: Point, high: Point, rgb: RGB) -> None:
        """Draws an axis-aligned box from its visible faces."""
        (x1, y1, z1), (x2, y2, z2) = low, high
        eye = self.camera.position
        if eye[0] < x1:
            self.face([(x1, y1, z1), (x1, y1, z2), (x1, y2, z2), (x1, y2, z1)], rgb, (-1, 0, 0))
        if eye[0] > x2:
            self.face([(x2, y1, z1), (x2, y1, z2), (x2, y2, z2), (x2, y2, z1)], rgb, (1, 0, 0))
        if eye[1] > y2:
            self.face([(x1, y2, z1), (x2, y2, z1), (x2, y2, z2), (x1, y2, z2)], rgb, (0, 1, 0))
        if eye[2] < z1:
            self.face([(x1, y1, z1), (x2, y1, z1), (x2, y2, z1), (x1, y2, z1)], rgb, (0, 0, -1))

    def ring(self, centre: Point, radius: float, turn: Floats | None = None, count: int = 24) -> Floats:
        """World points (count, 3) of a circle about the (turned) y axis."""
        angle = np.linspace(0.0, 2.0 * np.pi, count, endpoint=False)
        circle = np.stack([radius * np.cos(angle), np.zeros(count), radius * np.sin(angle)], 1)
        turned: Floats = circle if turn is None else circle @ turn.T
        return turned + centre

    def lathe(
        self,
        base: Point,
        profile: Sequence[tuple[float, float]],
        rgb: RGB,
        turn: Floats | None = None,
        segments: int = 20,
    ) -> None:
        """Draws a solid of revolution about its (turned) y axis.

        Args:
            base: World position of the profile's origin.
            profile: (radius, height) pairs in metres from bottom to top.
            rgb: Colour before shading.
            turn: Rotation matrix (3, 3), none for upright.
            segments: Faces around the axis.
        """
        rotation = np.eye(3) if turn is None else turn
        angle = np.linspace(0.0, 2.0 * np.pi, segments + 1)
        circle = np.stack([np.cos(angle), np.zeros_like(angle), np.sin(angle)], 1)
        rings = [radius * circle + np.array([0.0, height, 0.0]) for radius, height in profile]
        placed = self.place(np.concatenate(rings) @ rotation.T + np.array(base)).reshape(len(rings), segments + 1, 2)
        self._note(placed.reshape(-1, 2))
        middle = (angle[:-1] + angle[1:]) / 2
        for level in range(len(rings) - 1):
            slope_r = profile[level + 1][0] - profile[level][0]
            slope_y = profile[level + 1][1] - profile[level][1]
            length = max(np.hypot(slope_r, slope_y), 1e-9)
            normals = (
                np.stack([np.cos(middle) * slope_y, np.full_like(middle, -slope_r), np.sin(middle) * slope_y], 1)
                @ rotation.T
                / length
            )
            quads = np.stack([placed[level, :-1], placed[level, 1:], placed[level + 1, 1:], placed[level + 1, :-1]], 1)
            edge_a, edge_b = quads[:, 1] - quads[:, 0], quads[:, 3] - quads[:, 0]
            edge_c, edge_d = quads[:, 3] - quads[:, 2], quads[:, 1] - quads[:, 2]
            area = edge_a[:, 0] * edge_b[:, 1] - edge_a[:, 1] * edge_b[:, 0]
            area += edge_c[:, 0] * edge_d[:, 1] - edge_c[:, 1] * edge_d[:, 0]
            for quad, normal, front in zip(quads, normals, area < 0, strict=True):
                if front:
                    self._facet(quad, self.shade(rgb, normal))

    def _facet(self, points: Floats, rgb: RGB) -> None:
        # Without line smoothing neighbouring facets meet without a seam.
        fixed = np.rint(points * _SUBPIXELS).astype(np.int32)
        cv2.fillConvexPoly(self.image, fixed, rgb, cv2.LINE_8, _SUBPIXEL_BITS)

    def tube(self, path: ArrayLike, radius: float, rgb: RGB, tip_radius: float | None = None) -> None:
        """Draws a round bar along world points (N, 3), `radius` metres thick, with a highlight along it."""
        points = np.asarray(path, dtype=np.float64)
        placed = self.place(points)
        metres = np.array([self.metre_at(point) for point in points])
        radii = metres * np.linspace(radius, radius if tip_radius is None else tip_radius, len(points))
        towards_light = np.array([self.light.direction[0], -abs(self.light.direction[1])])
        towards_light /= max(float(np.linalg.norm(towards_light)), 1e-9)
        for share, offset, factor in ((1.0, 0.0, 0.68), (0.8, 0.12, 0.95), (0.36, 0.34, 1.22)):
            shifted = placed + towards_light * (radii * offset)[:, None]
            for index in range(len(points) - 1):
                self.capsule(
                    shifted[index],
                    shifted[index + 1],
                    radii[index] * share,
                    radii[index + 1] * share,
                    scaled(rgb, factor),
                )

    # Shadows and the final picture.

    def darken(self, patches: Sequence[tuple[Floats, float]], softness: float) -> None:
        """Multiplies soft shadows into the canvas.

        Args:
            patches: World polygons (N, 3) on a surface, each with its strength 0..1.
            softness: Blur as a share of the picture width.
        """
        half = self.size // 2
        mask = np.full((half, half), 255, np.uint8)
        scale = half / self.pixels
        for points, strength in patches:
            fixed = np.rint(self.place(points) * scale * _SUBPIXELS).astype(np.int32)
            layer = mask.copy()
            cv2.fillPoly(layer, [fixed], round(255 * (1.0 - strength)), cv2.LINE_AA, _SUBPIXEL_BITS)
            np.minimum(mask, layer, out=mask)
        blurred = cv2.GaussianBlur(mask, (0, 0), softness * half)
        wide = cv2.resize(blurred, (self.pixels, self.pixels), interpolation=cv2.INTER_LINEAR)
        self.image = np.asarray(cv2.multiply(self.image, cv2.merge([wide, wide, wide]), scale=1 / 255), np.uint8)

    def picture(self, exposure: NDArray[np.float32]) -> Picture:
        """The canvas averaged down to (size, size, 3) uint8 and multiplied by `exposure` (size, size, 3)."""
        small = cv2.resize(self.image, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.multiply(small, exposure, dtype=cv2.CV_8U), np.uint8)


_CIRCLE: Floats = np.stack(
    [np.cos(np.linspace(0, 2 * np.pi, 20, endpoint=False)), np.sin(np.linspace(0, 2 * np.pi, 20, endpoint=False))], 1
)
