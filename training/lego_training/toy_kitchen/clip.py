"""First-person videos of the toy kitchen, for trying a client without a camera."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from lego_training.toy_kitchen.canvas import Picture
from lego_training.toy_kitchen.geometry import Camera
from lego_training.toy_kitchen.hands import Hand
from lego_training.toy_kitchen.language import question
from lego_training.toy_kitchen.pair import make_situation
from lego_training.toy_kitchen.render import motion_blurred, render
from lego_training.toy_kitchen.scene import Split
from lego_training.toy_kitchen.staging import Situation

STEADY_SECONDS: Final = 1.2  # the look at the scene with which a clip ends
SHORTEST_SECONDS: Final = 2.0
TOUR_SEEDS: Final = (
    2_000_040,
    2_000_027,
    2_000_044,
)  # open a drawer, open a cupboard, turn on a tap; unseen in training
_WORKTOP_MIDDLE = np.array([[0.0, 0.0, 0.2]])
_SHUTTER = 0.5  # share of the frame time that the shutter is open
_LEAST_BLUR = 1.2  # pixels


def render_clip(
    seed: int, path: Path | str, seconds: float = 4.0, fps: int = 15, size: int = 256, split: Split = "val"
) -> list[tuple[float, str]]:
    """Writes an mp4 in which the wearer looks around and comes to rest on the input frame of a seed's pair.

    Args:
        seed: Seed of the pair, as for `make_pair`.
        path: File to write; its folder must exist.
        seconds: Length, at least 2.
        fps: Frames per second, at least 1.
        size: Height and width in pixels, an even number from 64.
        split: Split of the pair.

    Returns:
        (time in seconds, query) pairs: what the wearer would ask, and when.

    Raises:
        ValueError: If an argument is out of range.
        OSError: If the file cannot be written.
    """
    return render_tour([seed], path, seconds, fps, size, split)


def render_tour(
    seeds: Sequence[int],
    path: Path | str,
    seconds: float = 4.0,
    fps: int = 15,
    size: int = 256,
    split: Split = "val",
) -> list[tuple[float, str]]:
    """Writes an mp4 of several kitchens, one after another, each as in `render_clip`.

    Args:
        seeds: Seeds of the pairs, at least one.
        path: File to write; its folder must exist.
        seconds: Length of each kitchen's part, at least 2.
        fps: Frames per second, at least 1.
        size: Height and width in pixels, an even number from 64.
        split: Split of the pairs.

    Returns:
        (time in seconds, query) pairs, one per seed: what the wearer would ask at the steady end of each part.

    Raises:
        ValueError: If an argument is out of range.
        OSError: If the file cannot be written.
    """
    if not seeds:
        raise ValueError("there are no seeds; give at least one")
    if seconds < SHORTEST_SECONDS or fps < 1 or size < 64 or size % 2:
        raise ValueError(
            f"seconds={seconds}, fps={fps}, size={size}: "
            f"use at least {SHORTEST_SECONDS:g} s, 1 fps, and an even size from 64"
        )
    situations = [make_situation(seed, split)[0] for seed in seeds]
    parts = (
        _frames(situation, np.random.default_rng([seed, split == "val", 2]), seconds, fps, size)
        for seed, situation in zip(seeds, situations, strict=True)
    )
    _write_video(path, chain.from_iterable(parts), fps, size)
    # Parts begin on whole frames, so their times are counted in frames.
    part_seconds = round(seconds * fps) / fps
    return [
        (index * part_seconds + seconds - STEADY_SECONDS / 2, question(situation.label))
        for index, situation in enumerate(situations)
    ]


def _frames(situation: Situation, rng: np.random.Generator, seconds: float, fps: int, size: int) -> Iterator[Picture]:
    """The frames (size, size, 3) uint8 RGB of one look around that ends on the situation's input frame."""
    phases = rng.uniform(0, 2 * np.pi, (2, 6))
    steady_from = seconds - STEADY_SECONDS
    before = None
    for index in range(round(seconds * fps)):
        time = index / fps
        progress = min(1.0, time / steady_from)
        calm = (1.0 - progress) ** 2 * (1.0 + 2.0 * progress)  # leaves and arrives without a jerk
        camera = _swayed(situation.before.camera, phases, time, calm)
        look = replace(situation.before.look, blur=(0.0, 0.0))
        hands = tuple(_moving(hand, progress) for hand in situation.hands_before)
        picture = render(replace(situation.before, camera=camera, look=look), hands, size).picture
        seen = camera.project(_WORKTOP_MIDDLE)[0][0] * size
        if before is not None:
            picture = _blurred(picture, (seen - before) * _SHUTTER)
        before = seen
        noise = rng.standard_normal(picture.shape, dtype=np.float32) * look.noise
        yield np.clip(picture + noise + 0.5, 0, 255).astype(np.uint8)


def _write_video(path: Path | str, frames: Iterable[Picture], fps: int, size: int) -> None:
    if not Path(path).parent.is_dir():
        raise OSError(f"cannot write {path}: its folder does not exist; make it first")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (size, size))
    if not writer.isOpened():
        raise OSError(f"cannot write the video {path}; name it .mp4 and check that its folder may be written")
    try:
        for frame in frames:
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    finally:
        writer.release()


def _swayed(camera: Camera, phases: np.ndarray, time: float, calm: float) -> Camera:
    """The camera as the head turns about; `calm` 0 leaves only the faint tremor of a steady look."""
    slow = np.sin(phases[0] + time * np.array([1.7, 1.3, 1.1, 0.9, 1.2, 1.0]) * 2)
    tremor = np.sin(phases[1] + time * np.array([5.1, 4.3, 3.7, 4.9, 4.1, 3.3])) * 0.025
    yaw, pitch, roll, x, y, z = slow * calm + tremor
    position = np.array(camera.position) + np.array([0.06 * x, 0.03 * y, 0.04 * z])
    return replace(
        camera,
        position=(float(position[0]), float(position[1]), float(position[2])),
        yaw=camera.yaw + 9.0 * float(yaw),
        pitch=camera.pitch + 5.0 * float(pitch),
        roll=camera.roll + 2.5 * float(roll),
    )


def _moving(hand: Hand, progress: float) -> Hand:
    """A hand that comes up late in the clip; one that holds something holds it all along."""
    if hand.target is None or hand.reach == 1.0:
        return hand
    risen = float(np.clip((progress - 0.45) / 0.5, 0.0, 1.0))
    risen = risen * risen * (3.0 - 2.0 * risen)
    return replace(hand, reach=hand.reach * risen)


def _blurred(picture: Picture, motion: np.ndarray) -> Picture:
    length = float(np.hypot(*motion))
    return picture if length < _LEAST_BLUR else motion_blurred(picture, length, float(np.arctan2(motion[1], motion[0])))
