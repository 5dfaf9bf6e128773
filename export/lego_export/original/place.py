"""Where a checkpoint is made; without torch, so that it can be looked at before anything slow begins."""

from __future__ import annotations

from pathlib import Path

from lego_core.errors import LegoError


def check_place(checkpoint: Path, cure: str = "choose a new directory") -> None:
    """Checks that a checkpoint directory can be made.

    Args:
        checkpoint: The directory.
        cure: What to do where something is there, for the message.

    Raises:
        LegoError: Something is there already.
    """
    if checkpoint.exists() and (not checkpoint.is_dir() or any(checkpoint.iterdir())):
        raise LegoError(f"{checkpoint} is there already; {cure}")
