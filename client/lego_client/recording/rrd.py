"""A recording in rerun's format, to be looked at with `rerun FILE.rrd` (the extra `rerun`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path

from lego_core.errors import LegoError

from lego_client.events import DescriptionPiece, Guidance, Progress, QueryFailed
from lego_client.recording.happenings import Asked, AskedAnew, Connected, Disconnected, Happening, Heard, Note, View
from lego_client.recording.recording import Entry, Recording

Bar = Callable[[Iterable[Entry]], Iterable[Entry]]


def export_rerun(recording: Recording, path: Path, bar: Bar = lambda entries: entries) -> None:
    """Writes views and guidance as pictures, the words as text, on the recording's own times.

    Args:
        recording: What to write.
        path: Where to write.
        bar: Wraps the entries, to show how far the work is.

    Raises:
        LegoError: The package rerun-sdk is missing, or the file cannot be written.
    """
    try:
        import rerun as rr
        import rerun.blueprint as rrb
    except ImportError as error:
        raise LegoError("rerun's format needs the package rerun-sdk: pip install 'lego-ar[rerun]'") from error
    layout = rrb.Blueprint(
        rrb.Vertical(
            rrb.Horizontal(rrb.Spatial2DView(origin="view"), rrb.Spatial2DView(origin="guidance")),
            rrb.Horizontal(rrb.TextDocumentView(origin="description"), rrb.TextLogView(origin="log")),
            row_shares=[3, 1],
        )
    )
    stream = rr.RecordingStream("lego-ar")
    try:
        stream.save(path, default_blueprint=layout)
    except Exception as error:  # the library raises RuntimeError and OSError alike
        raise LegoError(f"{path} cannot be written ({error}); choose another place") from error
    words = ""
    for entry in bar(recording.entries):
        stream.set_time("time", timestamp=recording.began + timedelta(seconds=entry.seconds))
        stream.set_time("session", duration=entry.seconds)
        happening = recording.load(entry)
        words = _description(words, happening)
        if line := _line(happening):
            stream.log("log", rr.TextLog(line))
        match happening:
            case View(jpeg=jpeg):
                stream.log("view", rr.EncodedImage(contents=jpeg, media_type="image/jpeg"))
            case Heard(event=Progress(preview=picture)) | Heard(event=Guidance(image=picture)) if picture:
                stream.log("guidance", rr.EncodedImage(contents=picture, media_type="image/jpeg"))
        if isinstance(happening, Asked | AskedAnew | Heard):
            stream.log("description", rr.TextDocument(words))
    stream.flush()
    stream.disconnect()


def _description(words: str, happening: Happening) -> str:
    """Returns the description as far as it has been written once something has happened."""
    match happening:
        case Asked() | AskedAnew():
            return ""
        case Heard(event=DescriptionPiece(text=text)):
            return words + text
        case Heard(event=Guidance(description=description)):
            return description
    return words


def _line(happening: Happening) -> str:
    match happening:
        case Connected(target=target, resumed=resumed):
            return f"connected to {target}{' again' if resumed else ''}"
        case Disconnected(reason=reason):
            return f"connection lost: {reason}"
        case Asked(text=text):
            return f"asked: {text}"
        case AskedAnew():
            return "asked anew"
        case Heard(event=Guidance(description=description, steps=steps, seed=seed)):
            return f"answered: {description} ({steps} steps, seed {seed})"
        case Heard(event=QueryFailed(code=code, message=message)):
            return f"failed ({code}): {message}"
        case Note(text=text):
            return f"note: {text}"
    return ""
