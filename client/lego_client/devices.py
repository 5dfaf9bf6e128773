"""What is attached to this machine, for `lego-client devices`."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from lego_client.sources.cameras import Camera, list_cameras

__all__ = ["cameras_table", "list_cameras"]

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
