"""What every method is, and how its pictures are numbered with seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lego_core.config import Fidelity
from lego_core.images import encode_jpeg, guidance_frame
from PIL import Image
from torch import Tensor

from lego_training.dataset import Record, read_frame


@dataclass(frozen=True)
class Ask:
    """One picture that is wanted.

    Attributes:
        record: Its input frame and its label, normalised.
        seed: Of the noise.
    """

    record: Record
    seed: int

    @classmethod
    def of(cls, record: Record, seed: int) -> Ask:
        """Asks for a record's picture with a seed of its own: it depends on nothing but the run's seed and its ids."""
        name = f"{seed} {record.clip_id}/{record.action_id} {record.action}"
        return cls(record, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 1)

    @property
    def frame(self) -> Image.Image:
        """The input frame.

        Raises:
            LegoError: It cannot be read; the message names it.
        """
        return read_frame(self.record.input_path)


@dataclass(frozen=True)
class Painting:
    """A picture.

    Attributes:
        content: Of its file.
        suffix: Of its file, such as ".jpg".
        description: The words that it was painted from, where the method has any of its own.
    """

    content: bytes
    suffix: str = ".jpg"
    description: str = ""


class Method(Protocol):
    """Turns frames and labels into pictures."""

    def paint(self, asks: Sequence[Ask]) -> list[Painting]:
        """Returns a picture for each ask, the same whatever it is asked together with, up to rounding.

        Raises:
            LegoError: A frame cannot be read; the message names it.
        """


def finish(
    pixels: Tensor, frame: Image.Image, fidelity: Fidelity, description: str = "", file: Fidelity | None = None
) -> Painting:
    """Makes a file of decoded pixels (3, R, R) at the frame's aspect ratio, as the pipeline and the server do.

    Args:
        pixels: About [-1, 1].
        frame: The input frame.
        fidelity: Of size and colours.
        description: That it was painted from.
        file: Fidelity of the file's compression; default: the same.
    """
    picture = guidance_frame(pixels.float().cpu().numpy(), *frame.size, fidelity)
    return Painting(encode_jpeg(picture, fidelity=file or fidelity), ".jpg", description)


class NoEdit:
    """The input frame as it is: what a method scores that does nothing."""

    def paint(self, asks: Sequence[Ask]) -> list[Painting]:
        """See `Method`."""
        return [_file(ask.record.input_path) for ask in asks]


class Target:
    """The true frame of the action: what no method can surpass."""

    def paint(self, asks: Sequence[Ask]) -> list[Painting]:
        """See `Method`."""
        return [_file(ask.record.target_path) for ask in asks]


def _file(path: Path) -> Painting:
    read_frame(path)  # whole, and a picture
    return Painting(path.read_bytes(), path.suffix)
