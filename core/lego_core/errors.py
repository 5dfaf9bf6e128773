"""The one exception type whose message is written for the person at the keyboard."""

_QUOTED_CHARACTERS = 80


class LegoError(ValueError):
    """Something a person can put right. The message names the value at fault and the cure."""


def quoted(text: str) -> str:
    """Returns a client's own words as a message may repeat them: in quotes, on one line, and cut to 80 characters."""
    cut = text[: _QUOTED_CHARACTERS + 1]  # before it is quoted: it may be megabytes
    return repr(cut) if len(cut) <= _QUOTED_CHARACTERS else f"{cut[:_QUOTED_CHARACTERS]!r}…"
