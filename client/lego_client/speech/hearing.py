"""From sound to what the wearer said: a stream of events for an event loop that never waits for any of it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol, Self

from lego_core.errors import LegoError
from lego_core.speech.audio import Samples
from lego_core.speech.recognise import Recogniser

from lego_client.speech.activity import Begin, End, Ending, More, Piece, Segmenter, Utterances, VoiceActivity
from lego_client.speech.level import LevelWatch
from lego_client.speech.microphone import AudioSource, Notice
from lego_client.speech.transcribe import Final, NothingUnderstood, Partial, Transcriber


@dataclass(frozen=True)
class SpeechBegan:
    """The wearer begins to speak: the time to stop talking, and to look at what is seen."""


_TOO_SLOW = "recognition is too slow on this machine, and a sentence was lost; choose a smaller model"

Heard = SpeechBegan | Partial | Final | NothingUnderstood | Notice


class Voice(Protocol):
    """What speaks to the wearer, as the listener sees it; `lego_client.speech.speak.Speaker` is one."""

    @property
    def audible(self) -> bool:
        """Whether the microphone may hear it now."""
        ...


class Listener:
    """Listens for as long as it is entered.

        async with Listener(Microphone(), await asyncio.to_thread(open_recogniser)) as listener:
            async for heard in listener:
                ...             # SpeechBegan, then Partial ..., then Final or NothingUnderstood; Notice at any time

    Two threads do the work: one reads the source and tells speech from noise, one recognises. The iteration ends when
    a file has ended and all of it is written down.

    Args:
        source: Where sound comes from; closed when this is left.
        recogniser: Closed when this is left.
        segmenter: What cuts utterances; `PushToTalk` where the wearer presses a button.
        voice: What speaks to the wearer. While it does, nothing is heard, so that it does not answer itself.
        headphones: Whether the microphone cannot hear `voice`; then the wearer can speak while it does.
        partial_seconds: How much new speech is worth another partial transcript; infinity for none.
    """

    def __init__(
        self,
        source: AudioSource,
        recogniser: Recogniser,
        segmenter: Segmenter | None = None,
        *,
        voice: Voice | None = None,
        headphones: bool = False,
        partial_seconds: float = 0.8,
    ) -> None:
        self._source = source
        self._recogniser = recogniser
        self._segmenter = segmenter or Utterances()
        self._voice = None if headphones else voice
        self._partial_seconds = partial_seconds
        self._activity = VoiceActivity()
        self._level = LevelWatch(source.name)
        self._muted = False
        self._ear = threading.Thread(target=self._listen, name=f"ear of {source.name}", daemon=True)
        self._events: asyncio.Queue[Heard | LegoError | None] = asyncio.Queue()

    @property
    def muted(self) -> bool:
        """Whether nothing is heard, by the wearer's wish."""
        return self._muted

    @muted.setter
    def muted(self, muted: bool) -> None:
        self._muted = muted

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._transcriber = Transcriber(self._recogniser, self._emit, self._partial_seconds)
        self._ear.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._source.close()
        await asyncio.to_thread(self._transcriber.close)
        # Reading a pipe cannot be broken off; the thread is a daemon, so the program can still end.
        await asyncio.to_thread(self._ear.join, 1.0)

    def __aiter__(self) -> AsyncIterator[Heard]:
        return self

    async def __anext__(self) -> Heard:
        """Returns what is heard next.

        Raises:
            LegoError: The source or the recogniser failed, and what to do about it.
        """
        event = await self._events.get()
        if event is None:
            self._events.put_nowait(None)  # whoever asks again gets the same answer
            raise StopAsyncIteration
        if isinstance(event, LegoError):
            self._events.put_nowait(None)
            raise event
        return event

    def _emit(self, event: Heard | LegoError | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody is left to be told
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def _listen(self) -> None:
        """Runs in the ear's thread."""
        try:
            for sound in self._source.chunks():
                if isinstance(sound, Notice):
                    if sound.interrupted:
                        self._interrupt()
                    self._emit(sound)
                elif self._muted or (self._voice is not None and self._voice.audible):
                    self._interrupt()
                else:
                    self._hear(sound)
            self._pass_on(self._segmenter.interrupt(), at_end=True)
            self._transcriber.wait()
            self._emit(None)
        except LegoError as error:
            self._emit(error)
        except Exception as error:  # of a driver that may raise anything; whoever listens must hear of it
            self._emit(LegoError(f"{self._source.name} failed: {error}"))

    def _hear(self, chunk: Samples) -> None:
        if (warning := self._level.look(chunk)) is not None:
            self._emit(Notice(warning))
        self._pass_on(self._segmenter.feed(chunk, self._activity.probability(chunk)))

    def _interrupt(self) -> None:
        self._pass_on(self._segmenter.interrupt())
        self._activity.reset()

    def _pass_on(self, pieces: list[Piece], at_end: bool = False) -> None:
        for piece in pieces:
            match piece:
                case Begin(samples):
                    if not self._source.live:
                        self._transcriber.wait(1)  # a file has time
                    self._emit(SpeechBegan())
                    if self._transcriber.begin(samples):
                        self._emit(Notice(_TOO_SLOW))
                case More(samples, voiced):
                    self._transcriber.more(samples, voiced)
                case End(why, worth):
                    self._transcriber.end(worth, complete=at_end or why is not Ending.INTERRUPTED)
