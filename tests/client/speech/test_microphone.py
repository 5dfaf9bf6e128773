"""Where sound comes from: files and pipes, and microphones that are pulled out, taken, forbidden or unread."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from lego_client.speech.microphone import (
    QUEUE_SECONDS,
    AudioFile,
    Microphone,
    Notice,
    RawStream,
    find_microphone,
    list_microphones,
)
from lego_core.errors import LegoError
from lego_core.speech.audio import CHUNK, Samples

from tests.client.speech.sound_driver import BUSY, DENIED, Device, SoundDriver
from tests.client.speech.sounds import tone, write_wav


def sounds(source: AudioFile | RawStream) -> Samples:
    return np.concatenate([chunk for chunk in source.chunks() if not isinstance(chunk, Notice)])


def some(listening: Generator[Samples | Notice, None, None], count: int) -> list[Samples | Notice]:
    return [next(listening) for _ in range(count)]


def next_notice(listening: Generator[Samples | Notice, None, None]) -> Notice:
    return next(each for each in listening if isinstance(each, Notice))


def test_a_file_comes_in_chunks_with_its_end_filled_up(tmp_path: Path) -> None:
    source = AudioFile(write_wav(tmp_path / "a.wav", tone(0.1)), paced=False)
    read = sounds(source)
    assert source.seconds == pytest.approx(0.1)
    assert len(read) == 4 * CHUNK
    np.testing.assert_allclose(read[:1600], tone(0.1), atol=1e-4)
    assert not read[1600:].any()


def test_a_paced_file_takes_as_long_as_it_lasts_and_no_less(tmp_path: Path) -> None:
    began = time.monotonic()
    sounds(AudioFile(write_wav(tmp_path / "a.wav", tone(0.3))))
    assert time.monotonic() - began >= 0.3


def test_a_closed_file_ends(tmp_path: Path) -> None:
    with AudioFile(write_wav(tmp_path / "a.wav", tone(60))) as source:
        listening = source.chunks()
        next(listening)
        source.close()
        assert list(listening) == []


def test_a_pipe_gives_raw_samples_until_it_ends() -> None:
    given = np.arange(CHUNK + 100, dtype="<i2")
    read = sounds(RawStream(io.BytesIO(given.tobytes())))
    np.testing.assert_array_equal(read[: len(given)], given.astype(np.float32) / 32768)
    assert len(read) == 2 * CHUNK


def test_a_pipe_that_gives_sound_in_crumbs_is_put_together() -> None:
    given = np.arange(2 * CHUNK, dtype="<i2")
    reading, writing = os.pipe()

    def write() -> None:
        with open(writing, "wb", buffering=0) as pipe:
            for start in range(0, 4 * CHUNK, 300):
                pipe.write(given.tobytes()[start : start + 300])

    threading.Thread(target=write).start()
    with open(reading, "rb", buffering=0) as pipe:
        read = sounds(RawStream(pipe))
    np.testing.assert_array_equal(read, given.astype(np.float32) / 32768)


def test_an_empty_pipe_gives_nothing() -> None:
    assert list(RawStream(io.BytesIO(b"")).chunks()) == []


def test_a_microphone_is_listened_to_in_chunks() -> None:
    with Microphone(driver=SoundDriver([Device("Headset")])) as microphone:
        for chunk in some(microphone.chunks(), 3):
            np.testing.assert_array_equal(chunk, np.full(CHUNK, 0.25, np.float32))


def test_one_that_has_only_its_own_rate_and_two_channels_is_resampled_and_mixed() -> None:
    device = Device("Bare hardware", channels=2, rate=48_000, stubborn=True)
    with Microphone(driver=SoundDriver([device])) as microphone:
        chunks = some(microphone.chunks(), 5)
        assert all(isinstance(chunk, np.ndarray) and chunk.shape == (CHUNK,) for chunk in chunks)
        np.testing.assert_allclose(chunks[-1], 0.25, atol=0.01)


def test_what_is_no_number_comes_out_as_silence() -> None:
    with Microphone(driver=SoundDriver([Device("Broken", level=float("nan"))])) as microphone:
        (chunk,) = some(microphone.chunks(), 1)
        np.testing.assert_array_equal(chunk, np.zeros(CHUNK))


def test_sound_that_nobody_reads_is_lost_oldest_first_and_that_is_told() -> None:
    with Microphone(driver=SoundDriver([Device("Headset")])) as microphone:
        listening = microphone.chunks()
        next(listening)
        time.sleep(QUEUE_SECONDS + 0.5)
        notice = next(each for each in some(listening, 10) if isinstance(each, Notice))
        assert "too slow" in notice.message
        assert notice.interrupted


def test_one_that_is_pulled_out_is_told_of_once_and_goes_on_when_it_is_back() -> None:
    device = Device("Headset")
    driver = SoundDriver([device])
    with Microphone("head", driver) as microphone:
        listening = microphone.chunks()
        next(listening)
        driver.attached.clear()
        device.silent = True
        lost = next_notice(listening)
        assert lost.interrupted
        assert "stopped delivering sound" in lost.message
        returned = Device("Headset", level=0.5)

        def plug_in() -> None:
            time.sleep(1.0)  # some tries find nothing
            driver.attached.append(returned)

        threading.Thread(target=plug_in).start()
        back = next(listening)
        assert isinstance(back, Notice)
        assert "is back" in back.message
        assert not back.interrupted
        np.testing.assert_array_equal(next(listening), np.full(CHUNK, 0.5, np.float32))
    assert device.opened == returned.opened == 1


def test_one_that_is_gone_can_be_closed() -> None:
    device = Device("Headset")
    driver = SoundDriver([device])
    microphone = Microphone(driver=driver)
    listening = microphone.chunks()
    next(listening)
    driver.attached.clear()
    device.silent = True
    next_notice(listening)
    threading.Timer(0.3, microphone.close).start()
    assert list(listening) == []


def test_a_sound_system_that_hangs_ends_in_a_sentence() -> None:
    device = Device("Headset", hangs=threading.Event())
    listening = Microphone(driver=SoundDriver([device])).chunks()
    next(listening)
    device.silent = True
    with pytest.raises(LegoError, match="has not answered for 5 s"):
        next_notice(listening)
    assert device.hangs is not None
    device.hangs.set()


@pytest.mark.parametrize(
    ("refusal", "part"),
    [(BUSY, "in use by another program"), (DENIED, "allow it in the system's settings"), (("odd",), "check its plug")],
)
def test_one_that_cannot_be_had_is_refused_with_a_cure(refusal: tuple[object, ...], part: str) -> None:
    driver = SoundDriver([Device("Headset", refuses=refusal)])
    with pytest.raises(LegoError, match=f"'Headset'.*{part}"):
        next(Microphone(driver=driver).chunks())


def test_a_machine_without_one_is_told() -> None:
    with pytest.raises(LegoError, match="has no microphone; plug one in"):
        next(Microphone(driver=SoundDriver()).chunks())


def test_microphones_are_listed_without_what_only_speaks() -> None:
    first, second = list_microphones(SoundDriver([Device("Built-in", rate=48_000), Device("USB headset", channels=2)]))
    assert (first.name, first.rate, first.default) == ("Built-in", 48_000, True)
    assert (second.index, second.channels, second.default) == (1, 2, False)


def test_one_is_found_by_index_part_of_its_name_or_its_whole_name() -> None:
    driver = SoundDriver([Device("USB"), Device("USB headset"), Device("Built-in")])
    assert find_microphone(None, driver).name == "USB"
    assert find_microphone("2", driver).name == "Built-in"
    assert find_microphone("HEAD", driver).name == "USB headset"
    assert find_microphone("usb", driver).name == "USB"


@pytest.mark.parametrize(
    ("meant", "part"), [("mixer", "present: 0 USB mic; 1 USB headset"), ("us", "fits 2"), ("7", "no microphone '7'")]
)
def test_one_that_is_not_there_or_not_the_only_one_is_refused_with_the_choice(meant: str, part: str) -> None:
    driver = SoundDriver([Device("USB mic"), Device("USB headset")])
    with pytest.raises(LegoError, match=part):
        find_microphone(meant, driver)


def test_listing_leaves_the_standard_error_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sounddevice", exc_type=OSError, reason="PortAudio is not installed")
    list_microphones()
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"
