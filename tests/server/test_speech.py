"""Speech written down by the server, over a real connection."""

from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from lego_core.errors import LegoError
from lego_core.speech.audio import RATE, read_wav, to_int16
from lego_core.speech.recognise import UtteranceLost, installed_recognisers
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc
from lego_server.speech import desk as desk_module
from lego_server.speech.config import SpeechSettings
from lego_server.speech.desk import SpeechDesk, open_desk
from lego_server.telemetry import Telemetry

from tests.client.speech.scripted_recogniser import ScriptedRecogniser
from tests.client.speech.sounds import beckett, silence, words
from tests.server.fake_engine import FakeEngine
from tests.server.harness import RunningServer, eventually, running

SECOND = to_int16(silence(1))


def scripted(*recognisers: ScriptedRecogniser, **settings: Any) -> SpeechDesk:
    chosen = SpeechSettings("auto", workers=len(recognisers), **settings)
    return SpeechDesk(iter(recognisers).__next__, chosen)


async def transcripts(server: RunningServer, *requests: pb.TranscribeRequest) -> list[pb.Transcript]:
    """As a client does that blocks; gRPC's other one may take the end of a call for a fault of its own writing."""

    def call() -> list[pb.Transcript]:
        with grpc.insecure_channel(server.server.address) as channel:
            return list(guidance_pb2_grpc.GuidanceStub(channel).Transcribe(iter(requests), timeout=60))

    return await asyncio.to_thread(call)


def pieces(sound: bytes, partial: bool = False, seconds: float = 0.5) -> list[pb.TranscribeRequest]:
    size = int(2 * RATE * seconds)
    return [pb.TranscribeRequest(audio=sound[at : at + size], partial=partial) for at in range(0, len(sound), size)]


async def refused(server: RunningServer, *requests: pb.TranscribeRequest) -> grpc.Call:
    with pytest.raises(grpc.RpcError) as error:
        await transcripts(server, *requests)
    assert isinstance(error.value, grpc.Call)
    return error.value


async def test_partial_transcripts_come_in_order_and_the_final_one_is_of_the_whole() -> None:
    recogniser = ScriptedRecogniser(samples_a_word=RATE)
    async with running(FakeEngine(), speech=scripted(recogniser)) as server:
        heard = await transcripts(server, *pieces(3 * SECOND, partial=True, seconds=1))
    assert [(each.text, each.final) for each in heard] == [
        ("word1", False), ("word1 word2", False), ("word1 word2 word3", False), ("word1 word2 word3", True),
    ]  # fmt: skip
    assert heard[-1].confidence == 0.5
    assert recogniser.calls[-1] == "close"


async def test_what_writes_speech_down_is_told_and_its_limit() -> None:
    async with running(FakeEngine(), speech=scripted(ScriptedRecogniser(), max_utterance_seconds=12.5)) as server:
        info = await server.stub.GetServerInfo(pb.GetServerInfoRequest())
    assert (info.speech.recogniser, info.speech.max_utterance_ms) == ("scripted", 12_500)


async def test_a_server_without_a_recogniser_says_so() -> None:
    async with running(FakeEngine()) as server:
        info = await server.stub.GetServerInfo(pb.GetServerInfoRequest())
        error = await refused(server, *pieces(SECOND))
    assert not info.HasField("speech")
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "writes down no speech" in (error.details() or "") and "--speech auto" in (error.details() or "")


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        (pieces(3 * SECOND), "the utterance has 2.5 s of sound; this server takes 2 s"),
        ([pb.TranscribeRequest(audio=bytes(10 * 2**20))], "the utterance has 327.7 s of sound"),
        ([pb.TranscribeRequest(audio=b"odd")], "3 bytes; samples of 16 bits make an even number"),
        ([pb.TranscribeRequest()], "has no sound and asks for nothing"),
    ],
)
async def test_what_is_too_long_or_no_sound_is_refused_unheard(
    requests: list[pb.TranscribeRequest], words: str
) -> None:
    recogniser = ScriptedRecogniser()
    async with running(FakeEngine(), speech=scripted(recogniser, max_utterance_seconds=2.0)) as server:
        error = await refused(server, *requests)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and words in (error.details() or "")
        assert recogniser.calls == []
        assert (await transcripts(server, *pieces(SECOND)))[-1].final  # the next one is welcome


async def test_silence_of_no_length_is_nothing() -> None:
    async with running(FakeEngine(), speech=scripted(ScriptedRecogniser())) as server:
        assert await transcripts(server) == [pb.Transcript(final=True)]


async def test_one_utterance_too_many_is_refused_and_place_is_made_when_another_is_given_up() -> None:
    async with running(FakeEngine(), speech=scripted(ScriptedRecogniser(), max_streams=1)) as server:
        speaking = server.stub.Transcribe()
        await speaking.write(pb.TranscribeRequest(audio=SECOND, partial=True))
        await speaking.read()
        error = await refused(server, *pieces(SECOND))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "1 utterances are being written down" in (error.details() or "")
        assert ("grpc-retry-pushback-ms", "2000") in [(key, value) for key, value in error.trailing_metadata() or ()]
        speaking.cancel()
        desk = server.server._models.speech
        assert desk is not None
        await eventually(lambda: desk._streams == 0)
        assert (await transcripts(server, *pieces(SECOND)))[-1].final


async def test_who_is_gone_has_nothing_written_down_any_more() -> None:
    recogniser = ScriptedRecogniser()
    recogniser.gate.clear()
    async with running(FakeEngine(), speech=scripted(recogniser)) as server:
        speaking = server.stub.Transcribe()
        await speaking.write(pb.TranscribeRequest(audio=SECOND, partial=True))
        await eventually(recogniser.entered.is_set)
        speaking.cancel()
        await eventually(lambda: recogniser.stopped)
        recogniser.gate.set()
        assert (await transcripts(server, *pieces(SECOND)))[-1].final


async def test_who_falls_silent_without_an_end_loses_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "_IDLE_SECONDS", 0.1)
    async with running(FakeEngine(), speech=scripted(ScriptedRecogniser())) as server:
        speaking = server.stub.Transcribe()
        await speaking.write(pb.TranscribeRequest(audio=SECOND))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await speaking.read()
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_as_many_are_written_down_at_once_as_there_are_workers() -> None:
    recognisers = ScriptedRecogniser(), ScriptedRecogniser()
    for recogniser in recognisers:
        recogniser.gate.clear()
    async with running(FakeEngine(), speech=scripted(*recognisers)) as server:
        both = asyncio.gather(*(transcripts(server, *pieces(SECOND, partial=True, seconds=1)) for _ in range(2)))
        await eventually(lambda: all(recogniser.entered.is_set() for recogniser in recognisers))
        for recogniser in recognisers:
            recogniser.gate.set()
        assert [len(heard) for heard in await both] == [2, 2]


async def test_a_recogniser_that_is_lost_is_replaced_and_the_next_utterance_written_down() -> None:
    lost, new = ScriptedRecogniser(fails=LegoError("its process ended")), ScriptedRecogniser(samples_a_word=RATE)
    to_come = iter((lost, new))
    async with running(FakeEngine(), speech=SpeechDesk(to_come.__next__, SpeechSettings("auto"))) as server:
        error = await refused(server, *pieces(SECOND))
        assert error.code() is grpc.StatusCode.INTERNAL and "say it again" in (error.details() or "")
        assert (await transcripts(server, *pieces(SECOND)))[-1].text == "word1"
    assert lost.calls[-1] == new.calls[-1] == "close"


async def test_a_recogniser_that_cannot_be_replaced_yet_is_tried_again() -> None:
    lost, new = ScriptedRecogniser(fails=LegoError("its process ended")), ScriptedRecogniser(samples_a_word=RATE)
    to_come = iter((lost, LegoError("no memory"), new))

    def open_one() -> ScriptedRecogniser:
        if isinstance(one := next(to_come), LegoError):
            raise one
        return one

    async with running(FakeEngine(), speech=SpeechDesk(open_one, SpeechSettings("auto"))) as server:
        for _ in range(2):
            await refused(server, *pieces(SECOND))
        assert (await transcripts(server, *pieces(SECOND)))[-1].text == "word1"


async def test_one_utterance_that_is_lost_costs_no_recogniser() -> None:
    recogniser = ScriptedRecogniser(fails=UtteranceLost("too loud"))
    async with running(FakeEngine(), speech=scripted(recogniser)) as server:
        await refused(server, *pieces(SECOND))
        assert "close" not in recogniser.calls


async def test_asking_again_without_saying_more_has_nothing_read_again() -> None:
    recogniser = ScriptedRecogniser(samples_a_word=RATE)
    again = [pb.TranscribeRequest(partial=True)] * 50
    async with running(FakeEngine(), speech=scripted(recogniser)) as server:
        heard = await transcripts(server, *pieces(SECOND, partial=True, seconds=1), *again)
    assert [each.text for each in heard] == ["word1"] * 52
    assert recogniser.calls.count("hypothesis") == 1


async def test_a_partial_transcript_waits_for_no_recogniser() -> None:
    recogniser = ScriptedRecogniser(samples_a_word=RATE)
    recogniser.gate.clear()
    async with running(FakeEngine(), speech=scripted(recogniser)) as server:
        first = asyncio.create_task(transcripts(server, *pieces(SECOND, partial=True, seconds=1)))
        await eventually(recogniser.entered.is_set)
        second = server.stub.Transcribe()
        await second.write(pb.TranscribeRequest(audio=SECOND, partial=True))
        assert (await second.read()).text == ""
        recogniser.gate.set()
        await second.done_writing()
        assert (await second.read()).text == "word1"
        await first


async def test_a_call_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SpeechDesk, "longest_seconds", 0.3)
    recogniser = ScriptedRecogniser()
    recogniser.gate.clear()
    desk = scripted(recogniser)
    async with running(FakeEngine(), speech=desk) as server:
        speaking = server.stub.Transcribe()
        await speaking.write(pb.TranscribeRequest(audio=SECOND, partial=True))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await asyncio.wait_for(speaking.read(), 10)
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "not written down within 0.3 s" in (error.value.details() or "")
        await eventually(lambda: desk._streams == 0 and recogniser.stopped)
        recogniser.gate.set()
        assert (await transcripts(server, *pieces(SECOND)))[-1].final


async def test_a_recogniser_that_fails_is_told_and_logged_without_what_was_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = scripted(ScriptedRecogniser(fails=RuntimeError("out of memory")))
    async with running(FakeEngine(), speech=desk) as server:
        error = await refused(server, *pieces(SECOND))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "say it again, or type it" in (error.details() or "") and "memory" not in (error.details() or "")
    assert "the recogniser scripted failed" in caplog.text


async def test_sound_and_time_are_counted_and_words_are_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    telemetry = Telemetry()
    desk = scripted(ScriptedRecogniser(samples_a_word=RATE), max_utterance_seconds=5.0)
    async with running(FakeEngine(), telemetry=telemetry, speech=desk) as server:
        await transcripts(server, *pieces(3 * SECOND, partial=True))
        await refused(server, *pieces(6 * SECOND))
    registry = telemetry.metrics.registry
    assert registry.get_sample_value("lego_speech_seconds_total") == 8  # of the second, what came before it was refused
    assert registry.get_sample_value("lego_transcription_seconds_count") == 7
    assert registry.get_sample_value("lego_rejects_total", {"reason": "invalid"}) == 1
    assert "utterance" in caplog.text and "word1" not in caplog.text


async def test_a_real_voice_is_written_down_by_a_real_recogniser() -> None:
    voice = read_wav(beckett())
    desk = await asyncio.to_thread(open_desk, SpeechSettings("moonshine-base"))
    async with running(FakeEngine(), speech=desk) as server:
        heard = await transcripts(server, *pieces(to_int16(voice)))
    assert "no matter try again fail again fail better" in words(heard[-1].text)


async def test_a_household_question_of_a_synthesiser_is_understood_well_enough(tmp_path: Path) -> None:
    espeak = shutil.which("espeak-ng")
    if espeak is None:
        pytest.skip("espeak-ng is not installed; apt install espeak-ng")
    if not installed_recognisers():
        pytest.skip('no recogniser is installed: pip install "lego-ar[server-speech]"')
    path = tmp_path / "said.wav"
    subprocess.run(  # noqa: ASYNC221
        [espeak, "-v", "en-us", "-s", "140", "-w", path, "how do I open the drawer?"], check=True
    )
    desk = await asyncio.to_thread(open_desk, SpeechSettings("auto"))
    async with running(FakeEngine(), speech=desk) as server:
        heard = await transcripts(server, *pieces(to_int16(read_wav(path))))
    assert "open the" in words(heard[-1].text)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(LegoError, match="--speech-model is given without --speech"):
        SpeechSettings(model=Path("base-en"))
    with pytest.raises(LegoError, match="choose one of auto, moonshine-base"):
        SpeechSettings("whisper")
    assert open_desk(SpeechSettings()) is None
