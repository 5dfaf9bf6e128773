"""A live session by ear: spoken questions and corrections, and answers spoken back."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from lego_core.errors import LegoError

from lego_client.live.conversation import Conversation
from lego_client.live.exchange import Exchange
from lego_client.live.state import LiveState
from lego_client.live.steps import Steps

if TYPE_CHECKING:  # speech is an extra, and is imported when it is asked for
    from lego_core.speech.recognise import Recogniser

    from lego_client.speech.correction import Meaning
    from lego_client.speech.hearing import Heard
    from lego_client.speech.microphone import AudioSource
    from lego_client.speech.speak import Speaker
    from lego_client.speech.wake import WakeWord

_LOOK_SECONDS = 0.1  # between two looks whether somebody speaks

Listen = Literal["off", "talk", "voice"]
LISTEN: tuple[Listen, ...] = ("off", "talk", "voice")


@dataclass(frozen=True)
class Hearing:
    """What listens to the wearer.

    Attributes:
        source: The microphone, or a file in its place.
        recogniser: Writes down what is said.
        by_key: Whether a key begins and ends a question; else a voice does.
        wake: Only what begins with it is meant for the assistant; None takes everything.
        headphones: Whether the microphone cannot hear the assistant's own voice.
    """

    source: AudioSource
    recogniser: Recogniser
    by_key: bool
    wake: WakeWord | None = None
    headphones: bool = False


class Voice:
    """Hears the wearer and speaks to them. Use it as `async with Voice(...) as voice`, and `run` it.

    Args:
        hearing: What listens; None for nobody.
        speaker: What speaks; None for nobody.
        conversation: What is asked, and heard from.
        state: Told what is understood.
        steps: The task that is led through; None without one.
    """

    def __init__(
        self, hearing: Hearing | None, speaker: Speaker | None, conversation: Conversation, state: LiveState,
        steps: Steps | None = None,
    ) -> None:  # fmt: skip
        self._hearing = hearing
        self._speaker = speaker
        self._conversation = conversation
        self._state = state
        self._steps = steps
        self._stack = AsyncExitStack()
        self._talk = None
        conversation.when_ended(self._answered)
        if steps is not None:
            steps.when_told(self._say)
        if hearing is not None:
            from lego_client.speech.activity import PushToTalk
            from lego_client.speech.correction import Dialogue

            self._dialogue = Dialogue()
            self._talk = PushToTalk() if hearing.by_key else None
            state.microphone = True

    async def __aenter__(self) -> Self:
        if self._speaker is not None:
            await self._stack.enter_async_context(self._speaker)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    @property
    def by_key(self) -> bool:
        """Whether a key begins and ends a spoken question."""
        return self._talk is not None

    def talk(self) -> None:
        """Begins or ends a spoken question."""
        assert self._talk is not None
        if not self._state.microphone:
            self._state.tell("nobody listens any more; type your question")
            return
        if self._talk.pressed:
            self._talk.release()
        else:
            self._hush()
            self._talk.press()
            self._conversation.look_ahead()
        self._state.talking = self._talk.pressed

    async def run(self) -> None:
        """Listens until cancelled. What keeps it from listening is told, and typing goes on."""
        if self._hearing is None:
            return
        from lego_client.speech.hearing import Listener

        hearing = self._hearing
        looking = asyncio.create_task(self._look_while_heard())
        try:
            async with Listener(
                hearing.source, hearing.recogniser, self._talk, voice=self._speaker, headphones=hearing.headphones
            ) as listener:
                async for heard in listener:
                    self.hear(heard)
        except LegoError as error:
            self._state.tell(f"{error}; you can still type", 30)
        except Exception as error:  # the wearer must hear of it, whatever it is
            self._state.tell(f"listening failed ({error}); you can still type", 30)
        finally:
            looking.cancel()
            self._state.microphone, self._state.hearing, self._state.talking = False, "", False

    def hear(self, heard: Heard) -> None:
        """Acts on what was heard; `run` passes on all that its listener hears."""
        from lego_client.speech.hearing import SpeechBegan
        from lego_client.speech.microphone import Notice
        from lego_client.speech.transcribe import Final, NothingUnderstood, Partial

        match heard:
            case SpeechBegan():
                self._state.hearing = "…"
                self._look_ahead()
                if self._speaker is not None:
                    self._speaker.hold()
            case Partial(text):
                self._state.hearing = text
            case Notice(message):
                self._state.tell(message)
            case NothingUnderstood():
                self._end_of_speech()
                if self.by_key:
                    self._state.tell("nothing was understood; say it again, or type it")
            case Final(text):
                self._end_of_speech()
                wake = None if self._hearing is None else self._hearing.wake
                said = text if wake is None else wake.after(text)
                if said:
                    self._obey(said)

    async def _look_while_heard(self) -> None:
        """Sends views until what is said has been understood: the last of them is what is asked about."""
        while True:
            if self._state.hearing or self._state.talking:
                self._look_ahead()
            await asyncio.sleep(_LOOK_SECONDS)

    def _look_ahead(self) -> None:
        if self._hearing is not None and self._hearing.wake is None:  # else it may be meant for somebody else
            self._conversation.look_ahead()

    def _obey(self, said: str) -> None:
        if self._steps is not None:
            self._hush()
            if self._steps.hear(said):
                return
        if not any(letter.isalnum() for letter in said):  # a recogniser may write a sigh as "..."
            return
        if self._state.newest is not None:  # typed, or of the task
            self._dialogue.asked(self._state.newest.query)
        self._act(self._dialogue.hear(said))

    def _end_of_speech(self) -> None:
        # The key may be down again: what ended may be the question before, or a microphone that was gone for a moment.
        self._state.hearing, self._state.talking = "", self._talk is not None and self._talk.pressed
        if self._speaker is not None:
            try:
                self._speaker.release()
            except LegoError as error:
                self._state.tell(str(error))

    def _act(self, meaning: Meaning) -> None:
        from lego_client.speech.correction import Intent

        match meaning.intent:
            case Intent.STOP:
                self._hush()
                self._conversation.cancel()
                self._state.tell("stopped", 2)
            case Intent.NOTHING:
                return
            case Intent.REPEAT:
                self._state.selected = 0
                if self._state.newest is not None:
                    self._say(self._state.newest.description)
            case _ if meaning.query is None:
                self._state.tell(meaning.explanation)
                self._say(meaning.explanation)
            case _:
                self._hush()
                self._conversation.ask(meaning.query)

    async def _answered(self, exchange: Exchange) -> None:
        if exchange is self._state.newest:
            self._say(exchange.description if exchange.guidance is not None else exchange.failed)

    def _say(self, text: str) -> None:
        if self._speaker is None or not self._state.aloud:
            return
        try:
            self._speaker.say(text)
        except LegoError as error:
            self._state.tell(str(error))

    def _hush(self) -> None:
        if self._speaker is not None:
            self._speaker.hush()
