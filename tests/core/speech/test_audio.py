"""WAV files of every kind become 16 kHz mono, or a sentence that says what to do."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from lego_core.errors import LegoError
from lego_core.speech.audio import RATE, Resampler, clean, from_int16, read_wav

from tests.client.speech.sounds import tone, write_wav


def loudest_hertz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.fft.rfftfreq(len(samples), 1 / RATE)[spectrum.argmax()])


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_whole_numbers_of_any_width_are_read(tmp_path: Path, width: int) -> None:
    sound = tone(0.5)
    read = read_wav(write_wav(tmp_path / "a.wav", sound, width=width))
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, sound, atol=0.01 if width == 1 else 1e-4)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_any_rate_is_brought_to_16_khz_with_pitch_and_length_kept(tmp_path: Path, rate: int) -> None:
    read = read_wav(write_wav(tmp_path / "a.wav", tone(1.0, 1000, rate), rate))
    assert abs(len(read) - RATE) <= 2
    assert loudest_hertz(read) == pytest.approx(1000, abs=2)


def test_what_16_khz_cannot_carry_is_left_out_and_not_folded_down(tmp_path: Path) -> None:
    read = read_wav(write_wav(tmp_path / "a.wav", tone(1.0, 12_000, 44_100), 44_100))
    assert np.abs(read[500:-500]).max() < 0.01  # its sudden beginning and end are sound of all pitches


def test_channels_are_mixed(tmp_path: Path) -> None:
    both = np.stack([tone(0.2, level=0.8), np.zeros(3200, np.float32)], axis=1)
    read = read_wav(write_wav(tmp_path / "a.wav", both, channels=2))
    np.testing.assert_allclose(read, tone(0.2, level=0.4), atol=1e-3)


def test_8_bit_stereo_at_44_khz_is_read(tmp_path: Path) -> None:
    both = np.stack([tone(1, 500, 44_100)] * 2, axis=1)
    read = read_wav(write_wav(tmp_path / "a.wav", both, 44_100, width=1, channels=2))
    assert loudest_hertz(read) == pytest.approx(500, abs=2)


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "no plain WAV file .it ends too early."),
        (b"ID3 this is an mp3", "ffmpeg"),
        (b"RIFF\x24\x00\x00\x00WAVE", "no plain WAV file"),
    ],
)
def test_what_is_no_wav_file_is_refused_with_a_cure(tmp_path: Path, data: bytes, part: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    with pytest.raises(LegoError, match=part):
        read_wav(path)


def test_floats_are_refused_with_a_cure(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    samples = np.full(100, np.nan, np.float32).tobytes()
    form = struct.pack("<HHIIHH", 3, 1, RATE, RATE * 4, 4, 32)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(samples)) + samples
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    with pytest.raises(LegoError, match="pcm_s16le"):
        read_wav(path)


def test_a_file_without_sound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LegoError, match="holds no sound"):
        read_wav(write_wav(tmp_path / "a.wav", np.zeros(0, np.float32)))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(LegoError, match=r"there is no .*nothing\.wav"):
        read_wav(tmp_path / "nothing.wav")
    with pytest.raises(LegoError, match="cannot be read"):
        read_wav(tmp_path)


def test_a_header_that_claims_hours_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(0.1))
    data = bytearray(path.read_bytes())
    data[40:44] = struct.pack("<I", 2**31)
    path.write_bytes(data)
    with pytest.raises(LegoError, match="lasts 1118 minutes"):
        read_wav(path)


def test_a_file_that_breaks_off_within_a_frame_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.stack([tone(0.1)] * 2, axis=1), channels=2)
    path.write_bytes(path.read_bytes()[:-3])
    assert len(read_wav(path)) == 1599


def test_what_is_no_number_is_silence_and_what_is_too_loud_is_cut() -> None:
    given = np.array([np.nan, np.inf, -np.inf, 2.0, -3.0, 0.25], np.float32)
    np.testing.assert_array_equal(clean(given), [0, 1, -1, 1, -1, 0.25])


def test_an_odd_last_byte_of_raw_samples_is_left_out() -> None:
    np.testing.assert_array_equal(from_int16(b"\x00\x80\xff\x7f\x01"), np.array([-1, 32767 / 32768], np.float32))


def test_resampling_piece_by_piece_is_resampling_the_whole() -> None:
    sound = tone(1.0, 700, 48_000)
    whole = Resampler(48_000)(sound, last=True)
    stream = Resampler(48_000)
    pieces = [stream(piece) for piece in np.array_split(sound, 31)]
    pieces.append(stream(np.zeros(0, np.float32), last=True))
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-5)
