"""Guidance for a wearable whose SDK calls back in threads of its own: the newest frame wins, a button asks.

The device here is simulated: `SimulatedGlasses` plays the pictures of a folder and "presses" its button once. Put your
SDK's class in its place; nothing else has to change.

    python examples/wearable.py localhost:50051 frames/ "how do I open the drawer?"
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from lego_client import DescriptionPiece, Event, Guidance, Guide, LegoError, QueryFailed, ServerError
from numpy.typing import NDArray
from PIL import Image


class SimulatedGlasses:
    """Stands for a wearable's SDK: frames of a folder come ten times a second, and the button is pressed once.

    Args:
        folder: Pictures, played in the order of their names.
        on_frame: Called in the device's thread with each frame, (H, W, 3) uint8 RGB.
        on_button: Called in the device's thread once half of the pictures have been played.
    """

    def __init__(
        self, folder: Path, on_frame: Callable[[NDArray[np.uint8]], None], on_button: Callable[[], None]
    ) -> None:
        self._pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".png"))
        self._on_frame = on_frame
        self._on_button = on_button
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        for number, path in enumerate(self._pictures):
            with Image.open(path) as picture:
                self._on_frame(np.asarray(picture.convert("RGB")))
            if number == len(self._pictures) // 2:
                self._on_button()
            if self._stopped.wait(0.1):
                return


def show(event: Event) -> None:
    """Where a wearable would draw and speak, this prints and writes a file."""
    match event:
        case DescriptionPiece(text=text):
            print(text, end="", flush=True)
        case Guidance(image=jpeg, seed=seed):
            Path("guidance.jpg").write_bytes(jpeg)
            print(f"\nguidance.jpg (seed {seed})")
        case QueryFailed(message=message):
            sys.exit(f"no guidance: {message}")


async def main(server: str, folder: str, query: str) -> None:
    pressed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def press() -> None:  # in the device's thread, from which asyncio is reached in this way only
        loop.call_soon_threadsafe(pressed.set)

    async with Guide(server) as guide:
        glasses = SimulatedGlasses(Path(folder), guide.push, press)  # push may be called in any thread
        glasses.start()
        try:
            await pressed.wait()
            async for event in guide.ask(None, query):  # None: about the newest frame that was pushed
                show(event)
        finally:
            glasses.stop()


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (LegoError, ServerError) as error:
        sys.exit(f"error: {error}")
