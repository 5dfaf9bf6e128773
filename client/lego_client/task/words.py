"""What the wearer means: a way through the task, or a question of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum


class Command(Enum):
    """A way through a task."""

    NEXT = "next"
    BACK = "back"
    REPEAT = "repeat"
    DONE = "done"
    SKIP = "skip"
    WHERE = "where"
    STOP = "stop"


# Whole utterances, without the politeness around them. "What do I do?" repeats; it must not take the step for done.
PHRASES: dict[Command, tuple[str, ...]] = {
    Command.NEXT: (
        "next", "next step", "next one", "go on", "go to the next step", "go to next step", "continue", "carry on",
        "what next", "what is next", "what now", "what comes next", "what is the next step", "what do i do next",
        "what should i do next", "and then what", "then what", "show me the next step", "move on", "start", "begin",
        "let us start", "let us begin", "go", "ready", "i am ready", "all set",
    ),
    Command.BACK: (
        "back", "go back", "step back", "one step back", "go back one step", "previous", "previous step",
        "previous one", "the previous step", "go to the previous step", "go back to the previous step", "undo",
    ),
    Command.REPEAT: (
        "repeat", "repeat that", "repeat it", "repeat this step", "repeat the step", "again", "once more",
        "one more time", "say that again", "say it again", "show me again", "show it again", "show me that again",
        "tell me again", "what was that", "what did you say", "what", "pardon", "sorry", "how was that", "how again",
        "what do i do", "what should i do", "not done", "i am not done", "not yet",
    ),
    Command.DONE: (
        "done", "i am done", "it is done", "that is done", "this is done", "all done", "finished", "i am finished",
        "i have finished", "i finished", "i did it", "i did that", "did it", "did that", "i have done it",
        "i have done that", "have done it", "step done", "this step is done", "mark as done", "mark it as done",
    ),
    Command.SKIP: (
        "skip", "skip it", "skip that", "skip this", "skip this step", "skip the step", "skip this one",
        "leave it out", "leave that out", "leave this out", "not needed", "i do not need that", "i do not need this",
    ),
    Command.WHERE: (
        "where am i", "where are we", "where was i", "where were we", "which step", "what step", "which step is this",
        "what step is this", "which step am i on", "what step am i on", "which step are we on",
        "what step are we on", "how far am i", "how far are we", "how many steps", "how many steps are left",
        "how many are left", "how much is left", "what is left", "what have i done", "status", "progress", "steps",
    ),
    Command.STOP: (
        "stop", "quit", "exit", "leave", "end", "bye", "goodbye", "that is all", "stop here", "i want to stop",
    ),
}  # fmt: skip

_COMMANDS = {phrase: command for command, phrases in PHRASES.items() for phrase in phrases}

_CONTRACTIONS = {
    "what's": "what is", "that's": "that is", "it's": "it is", "i'm": "i am", "i've": "i have", "let's": "let us",
    "don't": "do not", "haven't": "have not", "where's": "where is", "we're": "we are", "whats": "what is",
    "im": "i am", "ive": "i have", "lets": "let us", "thats": "that is", "dont": "do not",
}  # fmt: skip
_BEFORE = frozenset((
    "ok", "okay", "so", "and", "um", "uh", "er", "hey", "well", "alright", "right", "now", "please", "yes", "yeah",
    "good", "great", "oh", "no",
))  # fmt: skip
_AFTER = frozenset(("please", "now", "then", "thanks", "here", "ok", "okay", "right", "already"))


def command_of(text: str, confirm: Iterable[str] = ()) -> Command | None:
    """Tells a way through the task from a question.

    An utterance is a command only as a whole: "back" is one, "how do I put the lid back?" is a question.

    Args:
        text: What was typed or heard.
        confirm: Words that mean the step at hand is done, beside the usual ones.

    Returns:
        The command; None for a question, or for nothing at all.
    """
    words = plain(text)
    if words and words in {plain(phrase) for phrase in confirm}:
        return Command.DONE
    if words in _COMMANDS:
        return _COMMANDS[words]
    bare = _bare(words)
    return _COMMANDS.get(bare) if bare else None


def says_nothing(text: str) -> bool:
    """Says whether there is nothing but politeness: neither a command nor a question."""
    return not _bare(plain(text))


def plain(text: str) -> str:
    """Returns the words alone: in lower case, without punctuation and contractions."""
    words = re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower())
    return " ".join(_CONTRACTIONS.get(word.replace("’", "'"), word.replace("’", "'")) for word in words)


def _bare(words: str) -> str:
    """Takes politeness off both ends."""
    left = words.split()
    while left and left[0] in _BEFORE:
        del left[0]
    while left and left[-1] in _AFTER:
        del left[-1]
    return " ".join(left)
