"""What is attached to this machine, for `lego-client devices`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from lego_client.speech.microphone import MicrophoneInfo


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
