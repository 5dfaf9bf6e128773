"""Where utterances are written down: a few recognisers in threads, shared by all wearers.

Sound is a wearer's own. It is held while its call lasts, and neither it nor what is made of it is ever logged.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from lego_core.errors import LegoError
from lego_core.speech.audio import RATE, from_int16
from lego_core.speech.recognise import Recogniser, Transcript, UtteranceLost, open_recogniser
from lego_proto.v1 import guidance_pb2 as pb

from lego_server.failures import Reason, RequestError
from lego_server.logs import log_event
from lego_server.metrics import Metrics
from lego_server.security.access import current_access
from lego_server.speech.config import SpeechSettings

_SAMPLE_BYTES = 2
# Whoever speaks sends all the time; who sends nothing for so long has gone on to something else.
_IDLE_SECONDS = 5.0
_SLOWEST, _SPARE_SECONDS = 3.0, 10.0  # a link may bring an utterance more slowly than it is spoken, but it must end
_WRITING_SECONDS = 30.0  # for its last transcript, waiting for a recogniser included
# New sound for which all that was said is read again; a word is hardly shorter.
_PARTIAL_SECONDS = 0.25
_CROWDED_RETRY_SECONDS = 2.0  # utterances are short
_log = logging.getLogger(__name__)

NO_SPEECH = "this server writes down no speech; recognise it on your device, or have it served with --speech auto"


def open_desk(settings: SpeechSettings) -> SpeechDesk | None:
    """Returns what the settings ask for, ready to write; None if they ask for nothing. Takes seconds.

    Raises:
        LegoError: The recogniser is not installed, or the model is none.
    """
    if settings.recogniser is None:
        return None
    return SpeechDesk(partial(open_recogniser, settings.recogniser, settings.model, threads=settings.threads), settings)


class SpeechDesk:
    """Writes down utterances. Belongs to one event loop; `close` it in the end.

    Attributes:
        name: Of the recogniser.
    """

    def __init__(self, open_one: Callable[[], Recogniser], settings: SpeechSettings) -> None:
        """Opens as many recognisers as the settings say.

        Args:
            open_one: Returns a new recogniser; also called for each that has failed for good.
            settings: How many there are, and what an utterance may be.

        Raises:
            LegoError: One cannot be opened.
        """
        self._open = open_one
        self._settings = settings
        self._all = [open_one() for _ in range(settings.workers)]
        self.name = self._all[0].name
        self._free: queue.SimpleQueue[Recogniser] = queue.SimpleQueue()
        for recogniser in self._all:
            self._free.put(recogniser)
        self._threads = ThreadPoolExecutor(settings.workers, thread_name_prefix="recogniser")
        self._streams = 0

    @property
    def longest_seconds(self) -> float:
        """How long a call may take in all, one whose client does not read its transcripts included."""
        return self._listening_seconds + _WRITING_SECONDS

    @property
    def _listening_seconds(self) -> float:
        return _SLOWEST * self._settings.max_utterance_seconds + _SPARE_SECONDS

    def info(self) -> pb.Speech:
        """Returns what clients are told."""
        return pb.Speech(
            recogniser=self.name, max_utterance_ms=int(1000 * self._settings.max_utterance_seconds)
        )  # fmt: skip

    async def write_down(
        self, requests: AsyncIterator[pb.TranscribeRequest], metrics: Metrics
    ) -> AsyncGenerator[pb.Transcript, None]:
        """Yields a transcript for each that is asked for, and the final one once the requests have ended.

        A partial one is the last one again where hardly anything has been said since, or no recogniser is free: all
        that was said is read anew each time, and those whose utterance is whole must not wait for that.

        Raises:
            RequestError: INVALID: too long, or no whole samples. OVERLOADED: no room, or the caller's token has used up
                its share. DEADLINE_EXCEEDED: nothing comes any more. INTERNAL: the recogniser failed.
        """
        audio, read, last = bytearray(), 0, Transcript("")
        until = time.monotonic() + self._listening_seconds
        with self._place():
            try:
                while (request := await _next(requests, until)) is not None:
                    self._check(len(audio), len(request.audio), request.partial)
                    seconds = len(request.audio) / (RATE * _SAMPLE_BYTES)
                    current_access().admit_speech(seconds)
                    metrics.speech_heard(seconds)
                    audio += request.audio
                    if request.partial:
                        unread = len(audio) - read
                        if unread >= _PARTIAL_SECONDS * RATE * _SAMPLE_BYTES and not self._free.empty():
                            read, last = len(audio), await self._recognise(bytes(audio), False, metrics)
                        yield _to_proto(last, final=False)
                yield _to_proto(await self._recognise(bytes(audio), True, metrics), final=True)
            finally:
                log_event(_log, logging.INFO, "utterance", seconds=len(audio) / (RATE * _SAMPLE_BYTES))

    async def close(self) -> None:
        """Ends the recognisers, once what they write is written."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        for recogniser in self._all:
            recogniser.close()

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._streams >= self._settings.max_streams:
            raise RequestError(
                Reason.OVERLOADED,
                f"{self._streams} utterances are being written down, as many as may be; say it again",
                _CROWDED_RETRY_SECONDS,
            )
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    def _check(self, had: int, more: int, partial: bool) -> None:
        """Looks at the sizes only, before anything is made of the bytes."""
        if not more and not partial:  # would keep a place for ever, for nothing
            raise RequestError(Reason.INVALID, "the request has no sound and asks for nothing; send samples, or end it")
        if more % _SAMPLE_BYTES:
            raise RequestError(
                Reason.INVALID, f"a piece of sound has {more} bytes; samples of 16 bits make an even number"
            )
        most = self._settings.max_utterance_seconds
        if had + more > most * RATE * _SAMPLE_BYTES:
            raise RequestError(
                Reason.INVALID,
                f"the utterance has {(had + more) / (RATE * _SAMPLE_BYTES):.1f} s of sound; this server takes {most:g} "
                "s: speak more briefly",
            )

    async def _recognise(self, audio: bytes, final: bool, metrics: Metrics) -> Transcript:
        if not audio:
            return Transcript("")
        gone, began = False, time.monotonic()
        try:
            work = self._threads.submit(self._work, audio, final, lambda: gone)
            written = await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            gone = True
            raise
        except Exception as error:  # of a library that may raise anything
            _log.exception("the recogniser %s failed", self.name)
            raise RequestError(
                Reason.INTERNAL, "the server could not write this down; say it again, or type it"
            ) from error
        metrics.transcribed(time.monotonic() - began)
        return written or Transcript("")

    def _work(self, audio: bytes, final: bool, gone: Callable[[], bool]) -> Transcript | None:
        """Runs in one of as many threads as there are recognisers, so that one is always free."""
        recogniser = self._free.get_nowait()
        try:
            recogniser.start()
            recogniser.feed(from_int16(audio))
            return recogniser.finish() if final else recogniser.hypothesis(gone)
        except UtteranceLost:
            raise
        except LegoError:  # it can write nothing down any more
            recogniser = self._replaced(recogniser)
            raise
        finally:
            self._free.put(recogniser)

    def _replaced(self, lost: Recogniser) -> Recogniser:
        """Returns a new recogniser for one that has failed for good; that one, if there is no new one just now."""
        try:
            new = self._open()
        except LegoError:
            _log.exception("the recogniser %s cannot be opened anew; the next utterance tries again", self.name)
            return lost
        self._all[self._all.index(lost)] = new
        lost.close()
        return new


async def _next(requests: AsyncIterator[pb.TranscribeRequest], until: float) -> pb.TranscribeRequest | None:
    """Returns the next request, None at their end; waits no longer than until then."""
    try:
        async with asyncio.timeout(min(_IDLE_SECONDS, until - time.monotonic())):
            return await anext(requests, None)
    except TimeoutError:
        raise RequestError(
            Reason.DEADLINE_EXCEEDED, "the utterance does not come, or does not end; send it as it is spoken"
        ) from None


def _to_proto(transcript: Transcript, final: bool) -> pb.Transcript:
    return pb.Transcript(text=transcript.text, confidence=transcript.confidence, final=final)
