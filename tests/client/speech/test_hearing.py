"""From sound to events: files, microphones that fail, a voice in the same room, mute, and a button."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from lego_client.speech.activity import PushToTalk
from lego_client.speech.hearing import Heard, Listener, SpeechBegan
from lego_client.speech.microphone import AudioFile, AudioSource, Microphone, Notice
from lego_client.speech.transcribe import Final, NothingUnderstood, Partial
from lego_core.errors import LegoError
from lego_core.speech.audio import RATE, Samples, read_wav
from lego_core.speech.recognise import open_recogniser

from tests.client.speech.scripted_recogniser import ScriptedRecogniser
from tests.client.speech.sound_driver import Device, SoundDriver
from tests.client.speech.sounds import BECKETT, beckett, chunks, silence, words, write_wav


class Script(AudioSource):
    """Sound and notices in a given order, as fast as they are read; functions among them are called."""

    def __init__(self, *items: Samples | Notice | object, live: bool = False) -> None:
        super().__init__("script", live=live)
        self._items = items

    def chunks(self) -> Generator[Samples | Notice, None, None]:
        for item in self._items:
            if isinstance(item, Notice):
                yield item
            elif callable(item):
                item()
            else:
                assert isinstance(item, np.ndarray)
                yield from chunks(item)


@pytest.fixture(scope="module")
def voice() -> Samples:
    """Returns "no matter", about a second and a half of a real voice."""
    return read_wav(beckett())[: round(1.7 * RATE)]


async def hear(source: AudioSource, **options: object) -> list[Heard]:
    recogniser = options.pop("recogniser", None) or ScriptedRecogniser(samples_a_word=10_000)
    async with Listener(source, recogniser, **options) as listener:  # type: ignore[arg-type]
        return [heard async for heard in listener]


def finals(events: list[Heard]) -> list[Final]:
    return [event for event in events if isinstance(event, Final)]


async def test_a_recording_is_written_down_sentence_by_sentence_to_its_end() -> None:
    recogniser = await asyncio.to_thread(open_recogniser, "moonshine-base")
    events = await hear(AudioFile(beckett(), paced=False), recogniser=recogniser)
    said = " ".join(words(final.text) for final in finals(events))
    assert len(set(said.split()) & set(BECKETT.split())) >= 7
    began = [number for number, event in enumerate(events) if isinstance(event, SpeechBegan)]
    ended = [number for number, event in enumerate(events) if isinstance(event, Final | NothingUnderstood)]
    assert len(began) == len(ended) > 2
    assert all(first < last for first, last in zip(began, ended, strict=True))


async def test_an_utterance_is_begun_shown_and_ended(voice: Samples) -> None:
    events = await hear(Script(silence(1), voice, silence(2)))
    assert isinstance(events[0], SpeechBegan)
    assert any(isinstance(event, Partial) for event in events)
    (final,) = finals(events)
    assert final.complete
    assert final is events[-1]


async def test_a_file_that_ends_within_a_word_is_written_down_whole(voice: Samples) -> None:
    (final,) = finals(await hear(Script(voice)))
    assert final.complete


async def test_silence_however_long_is_no_event_but_zeros_are_told(tmp_path: Path) -> None:
    quiet = np.random.default_rng(0).normal(0, 1e-4, 40 * RATE).astype(np.float32)
    assert await hear(Script(quiet)) == []
    (notice,) = await hear(AudioFile(write_wav(tmp_path / "zeros.wav", silence(10)), paced=False))
    assert isinstance(notice, Notice)
    assert "nothing but zeros" in notice.message


async def test_sound_that_goes_missing_within_a_word_ends_it_there(voice: Samples) -> None:
    events = await hear(
        Script(silence(0.5), voice, Notice("pulled out", interrupted=True), silence(1), voice, silence(2))
    )
    assert Notice("pulled out", interrupted=True) in events
    assert [final.complete for final in finals(events)] == [False, True]


async def test_a_microphone_that_is_pulled_out_is_told_of_and_listened_to_when_it_is_back() -> None:
    device = Device("Headset")
    driver = SoundDriver([device])
    events: list[Heard] = []
    async with Listener(Microphone(driver=driver), ScriptedRecogniser()) as listener:
        await asyncio.sleep(0.2)
        driver.attached[:] = [Device("Headset")]
        device.silent = True
        async for heard in listener:
            events.append(heard)
            if len(events) == 2:
                break
    assert [event.message.split(";")[0] for event in events if isinstance(event, Notice)] == [
        "the default microphone stopped delivering sound",
        "the default microphone is back",
    ]


async def test_a_microphone_that_is_not_there_ends_the_listening_in_a_sentence() -> None:
    async with Listener(Microphone(driver=SoundDriver()), ScriptedRecogniser()) as listener:
        with pytest.raises(LegoError, match="no microphone"):
            await anext(listener)
        with pytest.raises(StopAsyncIteration):
            await anext(listener)


async def test_a_recogniser_that_fails_ends_the_listening_in_a_sentence(voice: Samples) -> None:
    with pytest.raises(LegoError, match="scripted failed"):
        await hear(
            Script(voice),
            recogniser=ScriptedRecogniser(samples_a_word=10_000, fails=RuntimeError("broken")),
            partial_seconds=float("inf"),
        )


class Voice:
    """Speaks between two calls."""

    audible = False

    def begin(self) -> None:
        self.audible = True

    def end(self) -> None:
        self.audible = False


async def test_what_the_assistant_says_is_not_heard(voice: Samples) -> None:
    speaker = Voice()
    sounds = (silence(0.5), speaker.begin, voice, silence(1), speaker.end, silence(0.5), voice, silence(1))
    assert len(finals(await hear(Script(*sounds), voice=speaker))) == 1


async def test_with_headphones_the_wearer_is_heard_while_the_assistant_speaks(voice: Samples) -> None:
    speaker = Voice()
    sounds = (silence(0.5), speaker.begin, voice, silence(1), speaker.end, silence(0.5), voice, silence(1))
    assert len(finals(await hear(Script(*sounds), voice=speaker, headphones=True))) == 2


async def test_nothing_is_heard_while_muted(voice: Samples) -> None:
    recogniser = ScriptedRecogniser(samples_a_word=10_000)
    listener: Listener

    def mute() -> None:
        listener.muted = True

    def unmute() -> None:
        listener.muted = False

    source = Script(silence(0.5), voice[: round(1.2 * RATE)], mute, voice, unmute, silence(0.5), voice, silence(1))
    async with Listener(source, recogniser) as listener:
        events = [heard async for heard in listener]
    assert [final.complete for final in finals(events)] == [False, True]


async def test_a_button_takes_the_place_of_voice_activity(voice: Samples) -> None:
    talk = PushToTalk()
    source = Script(voice, talk.press, voice, silence(0.3), voice, talk.release, silence(1), voice)
    (final,) = finals(await hear(source, segmenter=talk))
    assert final.seconds == pytest.approx(2 * 1.7 + 0.3 + 0.4, abs=0.2)


async def test_a_button_pressed_while_the_assistant_speaks_is_heard_once_it_is_silent(voice: Samples) -> None:
    talk, speaker = PushToTalk(), Voice()
    source = Script(speaker.begin, silence(1), talk.press, silence(0.5), speaker.end, voice, talk.release, silence(1))
    (final,) = finals(await hear(source, segmenter=talk, voice=speaker))
    assert final.seconds == pytest.approx(1.7, abs=0.2)


async def test_leaving_early_ends_all_threads(voice: Samples) -> None:
    recogniser = ScriptedRecogniser()
    async with Listener(AudioFile(beckett()), recogniser) as listener:
        await anext(listener)
    assert recogniser.calls[-1] == "close"
    assert not listener._ear.is_alive()
