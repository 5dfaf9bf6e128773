"""What is attached to this machine, for `lego-client devices`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from lego_client.sources.cameras import Camera, list_cameras

if TYPE_CHECKING:
    from lego_client.speech.microphone import MicrophoneInfo

__all__ = ["cameras_table", "list_cameras", "list_microphones", "microphones_table"]

_SIZES_SHOWN = 6


def cameras_table(cameras: list[Camera]) -> Table:
    """Returns one row per camera: what to write after --source, then what it is."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("--source", "camera", "path", "formats"):
        table.add_column(name, overflow="fold")
    for camera in cameras:
        formats = "\n".join(f"{letters} {_sizes(sizes)}".rstrip() for letters, sizes in camera.formats.items())
        table.add_row(str(camera.number), Text(camera.name), Text(camera.path), Text(formats or "not told"))
    return table


def _sizes(sizes: list[tuple[int, int]]) -> str:
    shown = [f"{width}x{height}" for width, height in sizes[:_SIZES_SHOWN]]
    return " ".join([*shown, f"and {len(sizes) - len(shown)} more"] if len(sizes) > len(shown) else shown)


def list_microphones() -> list[MicrophoneInfo]:
    """Returns the microphones of this machine.

    Raises:
        LegoError: The extra `speech` or PortAudio is not installed, so that nobody can tell.
    """
    from lego_client.speech import microphone

    return microphone.list_microphones()


def microphones_table(microphones: list[MicrophoneInfo]) -> Table:
    """Returns one row per microphone: what to write after --microphone, then what it is."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("--microphone", "microphone", "channels", "rate"):
        table.add_column(name, overflow="fold")
    for each in microphones:
        name = f"{each.name} (default)" if each.default else each.name
        table.add_row(str(each.index), Text(name), str(each.channels), f"{each.rate} Hz")
    return table
