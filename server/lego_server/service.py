"""The gRPC service."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc

from lego_server.failures import RequestError, shutting_down
from lego_server.frames import check_frame
from lego_server.models import Models
from lego_server.refusals import Refusal
from lego_server.security.access import current_access
from lego_server.speech.desk import NO_SPEECH
from lego_server.stream import Streams
from lego_server.wire import result_to_proto, server_info_to_proto, wishes_from_proto


class GuidanceService(guidance_pb2_grpc.GuidanceServicer):
    """Serves `lego.v1.Guidance`."""

    def __init__(self, models: Models, streams: Streams) -> None:
        self._models = models
        self._telemetry = models.telemetry
        self._streams = streams
        self._generating: set[asyncio.Task[Any]] = set()
        self._handing_back = False

    async def Guide(  # the protocol's name
        self, requests: AsyncIterator[pb.GuideRequest], context: grpc.aio.ServicerContext
    ) -> None:
        """A wearer's session; it outlives a broken stream for a while."""
        await self._streams.carry(_GrpcLink(requests, context), context.invocation_metadata() or ())

    async def Generate(  # the protocol's name
        self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> pb.GuidanceResult:
        """One frame, one query, one answer; stops when the call is cancelled or past its deadline."""
        self._streams.refuse_if_draining()
        self._telemetry.enter_call(context.invocation_metadata() or ())
        task = asyncio.current_task()
        assert task is not None
        self._generating.add(task)
        try:
            guide = self._models.find(request.model)
            query = guide.check_query(request.text, wishes_from_proto(request.options), context.time_remaining())
            guide.refuse_if_full(query)
            pixels = await asyncio.to_thread(check_frame, request.image, self._models.config.limits)
            with current_access().admit_query(pixels):
                frame = await guide.prepare_frame(request.image)
                # Whoever is not known is nobody's like: to be fair to all of them as to one would be fair to none.
                answer = await guide.answer(query, frame, current_access().wearer or secrets.token_hex(8))
        except RequestError as error:
            self._telemetry.metrics.rejected(error.reason)
            raise Refusal.of(error) from error
        except asyncio.CancelledError:
            if not self._handing_back:  # the client is gone
                raise
            task.uncancel()
            raise Refusal.of(shutting_down()) from None
        finally:
            self._generating.discard(task)
        return result_to_proto(answer)

    async def GetServerInfo(  # the protocol's name
        self, request: pb.GetServerInfoRequest, context: grpc.aio.ServicerContext
    ) -> pb.ServerInfo:
        """What this server runs and allows."""
        try:
            guide = self._models.find(request.model)
            max_image_pixels = current_access().max_image_pixels(self._models.config.limits.max_image_pixels)
        except RequestError as error:
            self._telemetry.metrics.rejected(error.reason)
            raise Refusal.of(error) from error
        return server_info_to_proto(guide, self._models, max_image_pixels)

    async def Transcribe(  # the protocol's name
        self, requests: AsyncIterator[pb.TranscribeRequest], context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[pb.Transcript, None]:
        """One utterance, written down as it is spoken."""
        self._streams.refuse_if_draining()
        desk, metrics = self._models.speech, self._telemetry.metrics
        if desk is None:
            raise Refusal(grpc.StatusCode.UNIMPLEMENTED, NO_SPEECH)
        call = asyncio.current_task()
        assert call is not None
        # What is waited for may also be the client, which need not read.
        loop = asyncio.get_running_loop()
        until = loop.time() + desk.longest_seconds
        end = loop.call_at(until, call.cancel)
        try:
            async with aclosing(desk.write_down(requests, metrics)) as transcripts:
                async for transcript in transcripts:
                    yield transcript
        except RequestError as error:
            metrics.rejected(error.reason)
            raise Refusal.of(error) from error
        except asyncio.CancelledError:
            if loop.time() < until:  # the client is gone
                raise
            call.uncancel()
            text = f"the utterance was not written down within {desk.longest_seconds:g} s; say it again, more briefly"
            raise Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, text) from None
        finally:
            end.cancel()

    async def drain(self, seconds: float) -> None:
        """Takes no new work, hands back what has not begun, and waits for the rest, so long at most.

        Sessions end once their query is answered; what is not answered in time is handed back, too.
        """
        for guide in self._models.guides:
            guide.hand_back_waiting()
        self._streams.drain()
        until = asyncio.get_running_loop().time() + seconds
        while (self._streams.answering or self._generating) and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        self._handing_back = True
        for task in self._generating:
            task.cancel()
        self._streams.hand_back()


class _GrpcLink:
    """A `Guide` call, as streams see it; gRPC cancels the call whose connection breaks."""

    parted = False  # who has said all but is still there waits for an answer

    def __init__(self, requests: AsyncIterator[pb.GuideRequest], context: grpc.aio.ServicerContext) -> None:
        self.requests = requests
        self._context = context

    async def send(self, response: pb.GuideResponse) -> None:
        try:
            await self._context.write(response)
        except grpc.aio.InternalError as error:  # gRPC is about to cancel the call, and says so by its writing first
            raise asyncio.CancelledError from error
