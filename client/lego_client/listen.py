"""The command `lego-client listen`: shows what is heard and what is made of it, to try one's microphone."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from lego_core.errors import LegoError
from rich.console import Console
from rich.live import Live
from rich.text import Text

from lego_client.cli_options import SecurityOptions, takes_groups
from lego_client.errors import ServerError
from lego_client.session import check_target
from lego_client.stream import Route

if TYPE_CHECKING:  # speech is an extra, and is imported when it is asked for
    from lego_core.speech.recognise import Recogniser

    from lego_client.speech.hearing import Heard
    from lego_client.speech.microphone import AudioSource
    from lego_client.speech.speak import Speaker
    from lego_client.speech.wake import WakeWord

BY_SERVER = "server"
GrammarOption = Annotated[
    str | None, typer.Option(help="JSGF file of all there is to say, for pocketsphinx, or 'household'.")
]
_PANEL = "Speech"


@dataclass(frozen=True)
class HearingOptions:
    """What listens, and what writes down what it hears."""

    microphone: Annotated[
        str | None,
        typer.Option(
            help="Index or part of the name of a microphone; default: the system's own.", rich_help_panel=_PANEL
        ),
    ] = None
    audio: Annotated[
        str | None,
        typer.Option(
            help="A WAV file instead, or - for raw 16-bit mono samples at 16 kHz through a pipe.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    recogniser: Annotated[
        str,
        typer.Option(
            help="auto, moonshine-base, moonshine-tiny or pocketsphinx, all on this machine; or server: what you say "
            "is then sent to it.",
            rich_help_panel=_PANEL,
        ),
    ] = "auto"
    speech_model: Annotated[
        Path | None, typer.Option(help="Directory of a Moonshine model of your own.", rich_help_panel=_PANEL)
    ] = None
    wake: Annotated[
        str | None,
        typer.Option(help="Listen only to what begins so, for example 'hey lego'.", rich_help_panel=_PANEL),
    ] = None
    headphones: Annotated[
        bool,
        typer.Option(
            "--headphones",
            help="The microphone cannot hear the voice, so you may interrupt it.",
            rich_help_panel=_PANEL,
        ),
    ] = False

    @property
    def word(self) -> WakeWord | None:
        """What must come first; None where all that is said is meant."""
        from lego_client.speech.wake import WakeWord

        return None if self.wake is None else WakeWord(self.wake)

    def open_source(self, fast: bool = False) -> AudioSource:
        """Returns where sound comes from.

        Args:
            fast: Read a file as fast as can be.

        Raises:
            LegoError: There is no such microphone or file, or the extra is not installed.
        """
        if self.audio is not None and self.microphone is not None:
            raise LegoError(f"--audio {self.audio} and --microphone {self.microphone} are given; choose one")
        return audio_source(self.microphone, self.audio, fast)

    def open_recogniser(
        self, server: str, security: SecurityOptions, grammar: str | None = None, *, patient: bool = False
    ) -> Recogniser:
        """Returns what writes speech down: here, or on a server.

        Args:
            server: HOST:PORT, for `--recogniser server`.
            security: The way to it.
            grammar: All there is to say.
            patient: A server that cannot be reached now may be there when something is said.

        Raises:
            LegoError: It cannot be had, or the options make no sense together.
            ServerError: The server cannot be reached.
        """
        if self.recogniser != BY_SERVER:
            from lego_core.speech.recognise import open_recogniser

            return open_recogniser(self.recogniser, self.speech_model, grammar_path(grammar))
        if self.speech_model is not None or grammar is not None:
            raise LegoError("--speech-model and --grammar are for recognisers of this machine; the server has its own")
        from lego_client.speech.remote import ServerRecogniser

        recogniser = ServerRecogniser(Route(check_target(server), security.connection(server)))
        try:
            recogniser.check()
        except ServerError:
            if not patient:
                raise
        return recogniser


@takes_groups
def listen(
    *,
    hearing: HearingOptions,
    fast: Annotated[
        bool, typer.Option("--fast", help="Read the file as fast as can be, not as it was spoken.")
    ] = False,
    grammar: GrammarOption = None,
    speak: Annotated[bool, typer.Option("--speak", help="Speak back what would be asked.")] = False,
    server: Annotated[
        str, typer.Option("--server", envvar="LEGO_SERVER", help="HOST:PORT, for --recogniser server.")
    ] = "localhost:50051",
    security: SecurityOptions,
) -> None:
    """Shows what is heard, while it is said and after, and what it would ask; asks nothing.

    Nothing is sent anywhere, unless a server is to write it down (--recogniser server).
    """
    from lego_client.speech.speak import Speaker

    if fast and (hearing.audio is None or hearing.audio == "-"):
        raise LegoError("--fast is for a WAV file; give --audio FILE.wav with it")
    word = hearing.word
    source = hearing.open_source(fast)
    recogniser = hearing.open_recogniser(server, security, grammar)
    asyncio.run(_listen(source, recogniser, word, Speaker() if speak else None, hearing.headphones))


def grammar_path(grammar: str | None) -> Path | None:
    """Returns the file of a grammar; "household" is one of ours."""
    if grammar == "household":
        from lego_core.speech.sphinx import HOUSEHOLD

        return HOUSEHOLD
    return Path(grammar) if grammar is not None else None


def audio_source(microphone: str | None, audio: str | None, fast: bool = False) -> AudioSource:
    """Returns where sound comes from: a microphone, a WAV file, or "-" for samples through a pipe.

    Args:
        microphone: Index or part of a name; None for the system's own.
        audio: A file instead.
        fast: Read it as fast as can be.

    Raises:
        LegoError: There is no such microphone or file, or the extra is not installed.
    """
    from lego_client.speech.microphone import AudioFile, Microphone, RawStream, find_microphone

    if audio is None:
        find_microphone(microphone)  # said before a recogniser is loaded for nothing
        return Microphone(microphone)
    if audio == "-":
        # Unbuffered: a thread that still waits for a buffer when the program ends would bring the interpreter down.
        return RawStream(open(sys.stdin.fileno(), "rb", buffering=0, closefd=False))
    return AudioFile(Path(audio), paced=not fast)


async def _listen(
    source: AudioSource, recogniser: Recogniser, word: WakeWord | None, speaker: Speaker | None, headphones: bool
) -> None:
    from lego_client.speech.correction import Dialogue
    from lego_client.speech.hearing import Listener
    from lego_client.speech.microphone import Notice
    from lego_client.speech.transcribe import Final, NothingUnderstood

    dialogue = Dialogue()
    console = Console()
    console.print(
        Text(f"listening to {source.name} with {recogniser.name}; Ctrl-C ends it", style="dim"), soft_wrap=True
    )
    async with AsyncExitStack() as stack:
        if speaker is not None:
            await stack.enter_async_context(speaker)
        listener = await stack.enter_async_context(Listener(source, recogniser, voice=speaker, headphones=headphones))
        display = stack.enter_context(_Display(console))
        async for heard in listener:
            display.show(heard)
            if isinstance(heard, Final):
                said = heard.text if word is None else word.after(heard.text)
                if said is None:
                    display.tell("not addressed to the assistant", "dim")
                elif said:
                    meaning = dialogue.hear(said)
                    display.tell(f"{meaning.intent.value}: {meaning.query or '-'} ({meaning.explanation})", "green")
                    if speaker is not None:
                        speaker.release()
                        speaker.say(meaning.query or meaning.explanation)
            elif speaker is not None and isinstance(heard, NothingUnderstood):
                speaker.release()
            elif speaker is not None and not isinstance(heard, Notice):
                speaker.hold()


class _Display:
    """Rewrites one line while something is said; where there is no terminal, one line after the other."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> _Display:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, heard: Heard) -> None:
        from lego_client.speech.microphone import Notice
        from lego_client.speech.transcribe import Final, NothingUnderstood, Partial

        match heard:
            case Partial(text):
                self._passing(text)
            case Final(text, confidence, _, delay, complete):
                sure = "" if confidence is None else f"{confidence:.0%} sure, "
                cut = "" if complete else ", cut off"
                self._passing("")
                self.tell(f"{text}  ({sure}{delay:.1f} s after the last word{cut})")
            case NothingUnderstood():
                self._passing("")
                self.tell("nothing understood", "dim")
            case Notice(message):
                self.tell(f"notice: {message}", "yellow")
            case _:
                self._passing("...")

    def tell(self, line: str, style: str = "") -> None:
        self._console.print(Text(line, style=style), soft_wrap=True)

    def _passing(self, line: str) -> None:
        if self._console.is_terminal:
            self._live.update(Text(line, style="dim"), refresh=True)
        elif line:
            self._console.print(Text(f"  {line}", style="dim"), soft_wrap=True)
