"""The command `lego-client listen`: shows what is heard and what is made of it, to try one's microphone."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from lego_core.errors import LegoError
from rich.console import Console
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:  # speech is an extra, and is imported when it is asked for
    from lego_core.speech.recognise import Recogniser

    from lego_client.speech.hearing import Heard
    from lego_client.speech.microphone import AudioSource
    from lego_client.speech.speak import Speaker
    from lego_client.speech.wake import WakeWord

MicrophoneOption = Annotated[
    str | None, typer.Option(help="Index or part of the name of a microphone; default: the system's own.")
]
RecogniserOption = Annotated[
    str, typer.Option(help="auto, moonshine-base, moonshine-tiny or pocketsphinx; all of them work on this machine.")
]
SpeechModelOption = Annotated[Path | None, typer.Option(help="Directory of a Moonshine model of your own.")]
GrammarOption = Annotated[
    str | None, typer.Option(help="JSGF file of all there is to say, for pocketsphinx, or 'household'.")
]
WakeOption = Annotated[str | None, typer.Option(help="Listen only to what begins so, for example 'hey lego'.")]


def listen(
    microphone: MicrophoneOption = None,
    audio: Annotated[
        str | None, typer.Option(help="A WAV file instead, or - for raw 16-bit mono samples at 16 kHz through a pipe.")
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Read the file as fast as can be, not as it was spoken.")
    ] = False,
    recogniser: RecogniserOption = "auto",
    speech_model: SpeechModelOption = None,
    grammar: GrammarOption = None,
    wake: WakeOption = None,
    speak: Annotated[bool, typer.Option("--speak", help="Speak back what would be asked.")] = False,
    headphones: Annotated[
        bool, typer.Option("--headphones", help="The microphone cannot hear the voice, so you may interrupt it.")
    ] = False,
) -> None:
    """Shows what is heard, while it is said and after, and what it would ask; nothing is sent anywhere."""
    from lego_core.speech.recognise import open_recogniser

    from lego_client.speech.speak import Speaker
    from lego_client.speech.wake import WakeWord

    if audio is not None and microphone is not None:
        raise LegoError(f"--audio {audio} and --microphone {microphone} are given; choose one")
    if fast and (audio is None or audio == "-"):
        raise LegoError("--fast is for a WAV file; give --audio FILE.wav with it")
    word = WakeWord(wake) if wake is not None else None
    speaker = Speaker() if speak else None
    source = audio_source(microphone, audio, fast)
    opened = open_recogniser(recogniser, speech_model, grammar_path(grammar))
    asyncio.run(_listen(source, opened, word, speaker, headphones))


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
