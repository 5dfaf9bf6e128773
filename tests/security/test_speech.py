"""Who may have speech written down, and how much of it."""

from __future__ import annotations

import grpc
import pytest
from lego_core.speech.audio import RATE
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc
from lego_server.security.config import SecurityConfig
from lego_server.security.quota import Limits
from lego_server.speech.config import SpeechSettings
from lego_server.speech.desk import SpeechDesk

from tests.client.speech.scripted_recogniser import ScriptedRecogniser
from tests.security.conftest import TokenFile
from tests.security.serving import Clock, bearing, calling, retry_ms, serving
from tests.server.harness import eventually


async def speak(stub: guidance_pb2_grpc.GuidanceStub, token: str, seconds: int) -> list[pb.Transcript]:
    requests = iter([pb.TranscribeRequest(audio=bytes(2 * RATE * seconds))])
    return [each async for each in stub.Transcribe(requests, metadata=bearing(token), timeout=10)]


async def test_speech_asks_for_a_token_for_guidance(tokens: TokenFile) -> None:
    admin, recogniser = tokens.add("root", "admin"), ScriptedRecogniser()
    desk = SpeechDesk(lambda: recogniser, SpeechSettings("auto"))
    async with serving(SecurityConfig(token_file=tokens.path), speech=desk) as server, calling(server) as stub:
        for token, code in (
            ("lego_" + 40 * "x", grpc.StatusCode.UNAUTHENTICATED),
            (admin, grpc.StatusCode.PERMISSION_DENIED),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await speak(stub, token, 1)
            assert error.value.code() is code
        assert recogniser.calls == []


async def test_a_token_has_so_many_seconds_of_speech_a_minute(tokens: TokenFile) -> None:
    limits = Limits(speech_seconds_per_minute=5)
    anna, bert = tokens.add("anna", limits=limits), tokens.add("bert", limits=limits)
    clock, desk = Clock(), SpeechDesk(ScriptedRecogniser, SpeechSettings("auto"))
    config = SecurityConfig(token_file=tokens.path)
    async with serving(config, clock=clock, speech=desk) as server, calling(server) as stub:
        assert (await speak(stub, anna, 4))[-1].final
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await speak(stub, anna, 2)
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "5 s of speech written down a minute; speak again in 12 s" in (error.value.details() or "")
        assert retry_ms(error.value) == 12_000
        assert (await speak(stub, bert, 5))[-1].final
        clock.seconds += 12
        assert (await speak(stub, anna, 1))[-1].final


async def test_a_token_that_is_revoked_in_the_middle_of_a_sentence_ends_it(tokens: TokenFile) -> None:
    secret, recogniser = tokens.add("anna"), ScriptedRecogniser()
    clock, desk = Clock(), SpeechDesk(lambda: recogniser, SpeechSettings("auto"))
    config = SecurityConfig(token_file=tokens.path)
    async with serving(config, clock=clock, speech=desk) as server, calling(server) as stub:
        speaking = stub.Transcribe(metadata=bearing(secret))
        await speaking.write(pb.TranscribeRequest(audio=bytes(2 * RATE), partial=True))
        await speaking.read()
        tokens.revoke("anna")

        async def until_refused() -> grpc.aio.AioRpcError:
            while True:
                try:
                    await speaking.write(pb.TranscribeRequest(audio=bytes(2 * RATE // 10), partial=True))
                    await speaking.read()
                except grpc.aio.AioRpcError as error:
                    return error

        assert "has been revoked" in ((await until_refused()).details() or "")
    await eventually(lambda: recogniser.calls[-1] == "close")
