"""A sound system with the functions of `sounddevice` that are used, and microphones that can be pulled out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NOT_THERE = ("Error querying device -1",)
BUSY = ("Error opening InputStream: Device unavailable", -9985)
DENIED = ("Error opening InputStream: Unanticipated host error", -9999, (0, -1, "Permission denied"))


class PortAudioError(Exception):
    """As sounddevice's own: a message, then PortAudio's code, then the system's own words."""


@dataclass
class Device:
    """A microphone.

    Attributes:
        name: Its name.
        channels: How many it has; it takes no other number if `stubborn`.
        rate: What it runs at.
        stubborn: Whether it refuses whatever is not its own.
        refuses: What opening it raises.
        level: Of each sample it sends.
        silent: Whether it sends no more sound, although it was opened.
        hangs: Whether closing it never returns.
        opened: How often it was opened.
    """

    name: str
    channels: int = 1
    rate: int = 16_000
    stubborn: bool = False
    refuses: tuple[Any, ...] | None = None
    level: float = 0.25
    silent: bool = False
    hangs: threading.Event | None = None
    opened: int = 0


@dataclass
class SoundDriver:
    """The module.

    Attributes:
        attached: What is plugged in, whether or not it has been seen yet.
    """

    attached: list[Device] = field(default_factory=list)
    PortAudioError = PortAudioError

    def __post_init__(self) -> None:
        self._seen = list(self.attached)

    def _terminate(self) -> None:
        self._seen = []

    def _initialize(self) -> None:
        self._seen = list(self.attached)

    def query_devices(self, device: int | None = None, kind: str | None = None) -> Any:
        rows = [
            {
                "name": each.name, "index": number, "max_input_channels": each.channels,
                "default_samplerate": float(each.rate),
            }
            for number, each in enumerate(self._seen)
        ]  # fmt: skip
        if kind is None:
            return [
                *rows,
                {"name": "Speakers", "index": len(rows), "max_input_channels": 0, "default_samplerate": 48e3},
            ]
        if not rows:
            raise PortAudioError(*NOT_THERE)
        return rows[0]

    def InputStream(self, **options: Any) -> InputStream:
        device = self._seen[options["device"]]
        if device.refuses is not None:
            raise PortAudioError(*device.refuses)
        if device.stubborn and options["samplerate"] != device.rate:
            raise PortAudioError("Invalid sample rate", -9997)
        if device.stubborn and options["channels"] != device.channels:
            raise PortAudioError("Invalid number of channels", -9998)
        device.opened += 1
        return InputStream(
            device, options["blocksize"], options["channels"], options["samplerate"], options["callback"]
        )


class InputStream:
    """Calls back from a thread of its own, in real time, as PortAudio does."""

    def __init__(self, device: Device, block: int, channels: int, rate: int, callback: Callable[..., None]) -> None:
        self._device = device
        self._seconds = block / rate
        self._samples = np.full((block, channels), device.level, np.float32)
        self._callback = callback
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        if self._device.hangs is not None:
            self._device.hangs.wait()
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._closing.is_set():
            if not self._device.silent:
                self._callback(self._samples.copy(), len(self._samples), None, None)
            due += self._seconds
            time.sleep(max(0.0, due - time.monotonic()))
