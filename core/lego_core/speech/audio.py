"""Sound as every part of speech sees it: float32 in [-1, 1], one channel, 16 kHz, in chunks of 32 ms."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lego_core.errors import LegoError
from lego_core.speech.extra import needs_extra

RATE = 16_000
CHUNK = 512  # samples; what the voice activity detector takes
CHUNK_SECONDS = CHUNK / RATE
Samples = NDArray[np.float32]

_RATES = range(4_000, 384_001)
_MOST_CHANNELS = 32
_MOST_SECONDS = 3600  # an hour of 16 kHz float32 is 230 MB
_CONVERT = "convert it, for example with: ffmpeg -i INPUT -ar 16000 -ac 1 -c:a pcm_s16le OUTPUT.wav"


def clean(samples: NDArray[np.floating]) -> Samples:
    """Returns samples within [-1, 1]; what is not a number (a broken driver sends such) is silence."""
    cleaned: Samples = np.nan_to_num(np.asarray(samples, np.float32), nan=0.0, posinf=1.0, neginf=-1.0)
    return np.clip(cleaned, np.float32(-1), np.float32(1), out=cleaned)


def from_int16(data: bytes) -> Samples:
    """Returns 16-bit little-endian samples in [-1, 1]; an odd last byte is left out."""
    return _floats(data[: len(data) // 2 * 2], 2)


def to_int16(samples: Samples) -> bytes:
    """Returns (N,) samples as 16-bit little-endian ones."""
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


class Resampler:
    """Brings sound of another rate to 16 kHz, piece by piece, without aliasing.

    Args:
        rate: Samples a second of what comes in.
    """

    def __init__(self, rate: int) -> None:
        self._stream = None
        if rate != RATE:
            with needs_extra("resampling from other rates than 16 kHz"):
                import soxr
            self._stream = soxr.ResampleStream(rate, RATE, 1, dtype="float32")

    def __call__(self, samples: Samples, last: bool = False) -> Samples:
        """Returns what is ready of (N,) samples; `last` brings the rest."""
        if self._stream is None:
            return samples
        resampled: Samples = self._stream.resample_chunk(samples, last=last)
        return resampled


def read_wav(path: Path) -> Samples:
    """Returns a WAV file as (N,) samples at 16 kHz: any rate, any number of channels (their mean), 8 to 32 bits.

    Raises:
        LegoError: It is no such file, holds no sound or more than an hour of it, or is compressed or of floats.
    """
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate, frames = file.getparams()[:4]
            if rate not in _RATES or not 1 <= channels <= _MOST_CHANNELS or width not in (1, 2, 3, 4):
                raise LegoError(f"{path} has {channels} channels of {8 * width} bits at {rate} Hz; {_CONVERT}")
            if frames > rate * _MOST_SECONDS:
                raise LegoError(f"{path} lasts {frames / rate / 60:.0f} minutes; give at most 60, cut it")
            data = file.readframes(frames)
    except FileNotFoundError:
        raise LegoError(f"there is no {str(path)!r}; give a WAV file") from None
    except (wave.Error, EOFError, RuntimeError) as error:
        raise LegoError(f"{path} is no plain WAV file ({str(error) or 'it ends too early'}); {_CONVERT}") from error
    except OSError as error:
        raise LegoError(f"{path} cannot be read ({error.strerror}); check the path and who may read it") from error
    whole = data[: len(data) // (width * channels) * width * channels]  # a cut-off file may end within a frame
    if not whole:
        raise LegoError(f"{path} holds no sound; record again")
    mono = _floats(whole, width).reshape(-1, channels).mean(1, dtype=np.float32)
    return clean(Resampler(rate)(mono, last=True))


def _floats(data: bytes, width: int) -> Samples:
    if width == 1:  # unsigned, unlike all others
        data = (np.frombuffer(data, np.uint8) ^ 128).tobytes()
    if width == 3:  # each sample becomes the upper three bytes of four
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data, width = padded.tobytes(), 4
    samples = np.frombuffer(data, f"<i{width}").astype(np.float32)
    samples /= 2 ** (8 * width - 1)
    return samples
