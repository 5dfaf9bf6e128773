"""Where sound comes from: a microphone, a WAV file, or raw samples through a pipe. One interface for all."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from io import RawIOBase
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

import numpy as np
from lego_core.errors import LegoError
from lego_core.speech.audio import CHUNK, CHUNK_SECONDS, RATE, Resampler, Samples, clean, from_int16, read_wav
from lego_core.speech.extra import needs_extra

_Result = TypeVar("_Result")

QUEUE_SECONDS = 3.0
_WAKING_SECONDS = 4.0  # a sound server may take a second or two before the first sound comes
_DEAD_SECONDS = 1.5  # after that, sound comes every few hundredths of a second
_DRIVER_SECONDS = 5.0
_FIRST_RETRY_S, _LAST_RETRY_S = 0.25, 5.0

# PortAudio's error codes (portaudio.h)
_BUSY, _NO_SUCH_RATE, _NO_SUCH_CHANNELS = -9985, -9997, -9998


@dataclass(frozen=True)
class Notice:
    """What the wearer should know of the sound that comes in.

    Attributes:
        message: One sentence.
        interrupted: Whether sound is missing from here on, so that no sentence can go over this point.
    """

    message: str
    interrupted: bool = False


@dataclass(frozen=True)
class MicrophoneInfo:
    """A microphone of this machine.

    Attributes:
        index: What it may be chosen by; it changes when devices come and go.
        name: What it may be chosen by, as a whole or in part.
        channels: How many it has.
        rate: Samples a second it runs at by itself.
        default: Whether it is taken when none is named.
    """

    index: int
    name: str
    channels: int
    rate: int
    default: bool


class AudioSource(ABC):
    """Sound, chunk by chunk; a context manager.

    Attributes:
        name: What to call it in messages.
        live: Whether it goes on while nobody reads: what is not read in time is lost.
    """

    def __init__(self, name: str, *, live: bool) -> None:
        self.name = name
        self.live = live
        self._closing = threading.Event()

    @abstractmethod
    def chunks(self) -> Generator[Samples | Notice, None, None]:
        """Yields (512,) float32 samples in [-1, 1] at 16 kHz, and notices; blocks, so read it in a thread.

        Ends when there is no more, or soon after `close`.

        Raises:
            LegoError: Nothing can be had from it, and what to do about that.
        """

    def close(self) -> None:
        """Ends `chunks`. May be called more than once and from any thread."""
        self._closing.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class AudioFile(AudioSource):
    """A WAV file.

    Args:
        path: 8 to 32 bits, any rate and number of channels.
        paced: Whether it takes as long as it lasts, as a microphone would, or as long as it takes to read.

    Raises:
        LegoError: It cannot be read.
    """

    def __init__(self, path: Path, *, paced: bool = True) -> None:
        super().__init__(path.name, live=False)
        self._samples = read_wav(path)
        self._paced = paced

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self._samples) / RATE

    def chunks(self) -> Generator[Samples | Notice, None, None]:
        """Yields the file from its start; the last chunk is filled up with silence."""
        began = time.monotonic()
        for start in range(0, len(self._samples), CHUNK):
            if self._paced:
                due = began + (start + CHUNK) / RATE
                self._closing.wait(max(0.0, due - time.monotonic()))
            if self._closing.is_set():
                return
            chunk = self._samples[start : start + CHUNK]
            yield np.pad(chunk, (0, CHUNK - len(chunk)))


class RawStream(AudioSource):
    """Raw samples from a pipe, as `arecord -f S16_LE -r 16000 -t raw` writes them: 16 bits, one channel, 16 kHz.

    Args:
        file: Opened for reading bytes, which may come in pieces. Closing this source does not close it.
        name: What to call it in messages.
    """

    def __init__(self, file: BinaryIO | RawIOBase, name: str = "standard input") -> None:
        super().__init__(name, live=False)
        self._file = file

    def chunks(self) -> Generator[Samples | Notice, None, None]:
        """Yields until the pipe ends; the last chunk is filled up with silence."""
        data = b""
        while not self._closing.is_set():
            new = self._file.read(2 * CHUNK - len(data))
            data += new or b""
            if len(data) == 2 * CHUNK or (not new and data):
                samples = from_int16(data)
                yield np.pad(samples, (0, CHUNK - len(samples)))
                data = b""
            if not new:
                return


class Microphone(AudioSource):
    """A microphone of this machine. One that was unplugged is opened again when it is back.

    Args:
        device: Index or part of the name; None is the system's default.
        driver: The module `sounddevice`, or what has its functions.

    Raises:
        LegoError: `sounddevice` or PortAudio is not installed.
    """

    def __init__(self, device: str | None = None, driver: Any = None) -> None:
        super().__init__(f"microphone {device!r}" if device else "the default microphone", live=True)
        self._device = device
        self._driver = driver or _sounddevice()

    def chunks(self) -> Generator[Samples | Notice, None, None]:
        """Yields for as long as the microphone is there, and again from when it is back.

        Raises:
            LegoError: At the first try it is not there, in use, or not allowed to be used.
        """
        capture: _Capture | None = _Capture(self._driver, find_microphone(self._device, self._driver))
        while capture is not None:
            try:
                yield from self._listen(capture)
            finally:
                capture.close()
            if self._closing.is_set():
                return
            yield Notice(
                f"{self.name} stopped delivering sound; check its plug. It goes on when it is back", interrupted=True
            )
            capture = self._opened_again()
            if capture is not None:
                yield Notice(f"{self.name} is back")

    def _listen(self, capture: _Capture) -> Generator[Samples | Notice, None, None]:
        """Yields until no more sound comes or this source is closed."""
        left = np.zeros(0, np.float32)
        told = 0
        while not self._closing.is_set():
            samples = capture.read()
            if samples is None:
                return
            if capture.lost > told:
                told = capture.lost
                message = f"this machine is too slow for {self.name}: sound was lost; close other programs"
                yield Notice(message, interrupted=True)
            left = np.concatenate([left, samples])
            while len(left) >= CHUNK:
                yield left[:CHUNK]
                left = left[CHUNK:]

    def _opened_again(self) -> _Capture | None:
        """Waits until the microphone is back; None when this source is closed before."""
        wait = _FIRST_RETRY_S
        while not self._closing.wait(wait):
            wait = min(_LAST_RETRY_S, 2 * wait)
            try:
                _in_time(partial(_list_again, self._driver))
                return _Capture(self._driver, find_microphone(self._device, self._driver))
            except LegoError:
                continue
        return None


class _Capture:
    """An open stream. PortAudio's own thread fills a bounded queue, whose oldest sound goes when it is full.

    Attributes:
        lost: Pieces of sound that nobody read in time.
    """

    def __init__(self, driver: Any, microphone: MicrophoneInfo) -> None:
        self.lost = 0
        self._driver = driver
        self._arrived = threading.Event()
        self._patience = _WAKING_SECONDS
        # Most systems bring any microphone to 16 kHz and one channel; bare hardware may insist on its own.
        own = (microphone.rate, min(2, microphone.channels))
        for rate, channels in dict.fromkeys([(RATE, 1), (microphone.rate, 1), own]):
            self._resample = Resampler(rate)
            block = max(1, round(rate * CHUNK_SECONDS))
            self._heard: deque[Samples] = deque(maxlen=round(QUEUE_SECONDS / CHUNK_SECONDS))
            try:
                self._stream = _in_time(partial(self._open, microphone.index, rate, channels, block))
                return
            except driver.PortAudioError as error:
                if _code(error) not in (_NO_SUCH_RATE, _NO_SUCH_CHANNELS):
                    raise LegoError(_why_not(microphone, error)) from error
        raise LegoError(f"{microphone.name} records neither at 16 kHz nor at {microphone.rate} Hz; choose another")

    def _open(self, device: int, rate: int, channels: int, block: int) -> Any:
        stream = self._driver.InputStream(
            samplerate=rate, channels=channels, blocksize=block, dtype="float32", device=device, callback=self._called
        )
        stream.start()
        return stream

    def _called(self, samples: Samples, frames: int, at: object, status: object) -> None:
        """Takes a copy and returns: this is PortAudio's thread, which must not wait."""
        if len(self._heard) == self._heard.maxlen:
            self.lost += 1
        self._heard.append(samples.mean(1, dtype=np.float32))
        self._arrived.set()

    def read(self) -> Samples | None:
        """Returns (N,) samples, N what the device likes; None when none has come for too long."""
        if not self._heard:
            self._arrived.clear()
            if not self._heard and not self._arrived.wait(self._patience):
                return None
        self._patience = _DEAD_SECONDS
        return clean(self._resample(self._heard.popleft()))

    def close(self) -> None:
        """Ends it.

        Raises:
            LegoError: The sound system does not answer.
        """
        # A driver whose device is gone complains of that here too.
        with contextlib.suppress(self._driver.PortAudioError):
            _in_time(self._stream.close)


def list_microphones(driver: Any = None) -> list[MicrophoneInfo]:
    """Returns the microphones of this machine, in the system's order.

    Args:
        driver: The module `sounddevice`, or what has its functions.

    Raises:
        LegoError: `sounddevice` or PortAudio is not installed.
    """
    driver = driver or _sounddevice()
    try:
        default = driver.query_devices(kind="input")["index"]
    except driver.PortAudioError:
        default = None
    return [
        MicrophoneInfo(
            each["index"], each["name"], each["max_input_channels"], round(each["default_samplerate"]),
            each["index"] == default,
        )
        for each in driver.query_devices() if each["max_input_channels"] > 0
    ]  # fmt: skip


def find_microphone(device: str | None, driver: Any = None) -> MicrophoneInfo:
    """Returns the microphone that is meant.

    Args:
        device: Its index or part of its name, whatever the case; None is the system's default.
        driver: The module `sounddevice`, or what has its functions.

    Raises:
        LegoError: None or several fit; the message names those there are.
    """
    present = list_microphones(driver)
    if not present:
        raise LegoError("this machine has no microphone; plug one in, or give a recording with --audio FILE.wav")
    if device is None:
        return next((each for each in present if each.default), present[0])
    if device.isascii() and device.isdigit():
        fitting = [each for each in present if each.index == int(device)]
    else:
        fitting = [each for each in present if device.casefold() in each.name.casefold()]
        fitting = [each for each in fitting if each.name.casefold() == device.casefold()] or fitting
    if len(fitting) == 1:
        return fitting[0]
    names = "; ".join(f"{each.index} {each.name}" for each in fitting or present)
    if fitting:
        raise LegoError(f"{device!r} fits {len(fitting)} microphones; give the index of one: {names}")
    raise LegoError(f"there is no microphone {device!r}; present: {names}")


def _sounddevice() -> Any:
    with needs_extra("listening to a microphone"):
        try:
            with _without_chatter():
                import sounddevice
        except OSError as error:  # the Python package is there, the library beneath it is not
            cure = "install it (Debian and Ubuntu: apt install libportaudio2)"
            raise LegoError(f"the sound library PortAudio is missing ({error}); {cure}") from error
    return sounddevice


def _list_again(driver: Any) -> None:
    """PortAudio lists devices once, when it starts; only starting it again shows what was plugged in since."""
    with _without_chatter():
        driver._terminate()
        driver._initialize()


@contextlib.contextmanager
def _without_chatter() -> Generator[None, None, None]:
    """Keeps from the terminal what ALSA writes there, from C, of every device that it tries and that is not there."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _in_time(call: Callable[[], _Result]) -> _Result:
    """Returns what a call of the driver returns; drivers have been seen to wait for ever for a sound server that died.

    Raises:
        LegoError: It takes too long.
    """
    results: list[_Result] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:  # raised again by whoever waits
            errors.append(error)

    thread = threading.Thread(target=run, name="sound driver", daemon=True)
    thread.start()
    thread.join(_DRIVER_SECONDS)
    if errors:
        raise errors[0]
    if not results:
        raise LegoError(f"the sound system has not answered for {_DRIVER_SECONDS:g} s; start this program again")
    return results[0]


def _code(error: Exception) -> int:
    return error.args[1] if len(error.args) > 1 and isinstance(error.args[1], int) else 0


def _why_not(microphone: MicrophoneInfo, error: Exception) -> str:
    text = " ".join(str(part) for part in error.args)
    if _code(error) == _BUSY:
        return f"microphone {microphone.name!r} is in use by another program; close that one, or choose another"
    if "denied" in text.casefold() or "permission" in text.casefold() or "not permitted" in text.casefold():
        return f"microphone {microphone.name!r} may not be used by this program; allow it in the system's settings"
    return f"microphone {microphone.name!r} cannot be opened ({error.args[0]}); check its plug, or choose another"
