"""Pinhole camera of the toy kitchen.

World axes: x to the right, y up, z away from the wearer, in metres. The near edge of the worktop is the line
y = 0, z = 0.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Point = tuple[float, float, float]

NEAREST_DEPTH = 0.05


@dataclass(frozen=True)
class Camera:
    """A head-mounted camera.

    Attributes:
        position: Optical centre in world metres.
        yaw: Degrees to the right.
        pitch: Degrees downwards.
        roll: Degrees clockwise.
        focal: Focal length in picture widths.
    """

    position: Point
    yaw: float
    pitch: float
    roll: float
    focal: float

    @cached_property
    def axes(self) -> Floats:
        """Rows right, down, forward in world axes, (3, 3)."""
        yaw, pitch, roll = np.radians([self.yaw, self.pitch, self.roll])
        right = np.array([np.cos(yaw), 0.0, -np.sin(yaw)])
        forward = np.array([np.sin(yaw) * np.cos(pitch), -np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
        down = -np.array([np.sin(yaw) * np.sin(pitch), np.cos(pitch), np.cos(yaw) * np.sin(pitch)])
        tilted_right = np.cos(roll) * right + np.sin(roll) * down
        tilted_down = np.cos(roll) * down - np.sin(roll) * right
        return np.stack([tilted_right, tilted_down, forward])

    def project(self, points: Floats) -> tuple[Floats, Floats]:
        """Projects world points (N, 3) in metres.

        Returns:
            Picture positions (N, 2) in 0..1, x right and y down, and depths (N,) in metres.
        """
        seen = (np.asarray(points, dtype=np.float64) - self.position) @ self.axes.T
        depth = np.maximum(seen[:, 2], NEAREST_DEPTH)
        return 0.5 + self.focal * seen[:, :2] / depth[:, None], depth


def rotation_about_z(degrees: float) -> Floats:
    """Rotation matrix (3, 3) that tips the y axis towards -x for positive degrees."""
    angle = np.radians(degrees)
    return np.array([[np.cos(angle), -np.sin(angle), 0.0], [np.sin(angle), np.cos(angle), 0.0], [0.0, 0.0, 1.0]])
