"""A recording as a folder: every frame and answer a file, and all that happened as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

from lego_core.errors import LegoError

from lego_client.errors import ServerError
from lego_client.events import Guidance, Progress
from lego_client.output import answer_directory, save_answer
from lego_client.recording.happenings import Happening, Heard, View
from lego_client.recording.recording import Entry, Question, Recording

Bar = Callable[[Iterable[Entry]], Iterable[Entry]]


def export_folder(recording: Recording, out: Path, bar: Bar = lambda entries: entries) -> list[Path]:
    """Writes views/, a numbered folder for each answer, session.json and happenings.jsonl.

    Args:
        recording: What to write.
        out: A folder that does not exist, or is empty.
        bar: Wraps the entries, to show how far the work is.

    Returns:
        The folders of the answers, and the two JSON files.

    Raises:
        LegoError: The folder is in use or cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise LegoError(f"{out} is not empty; choose another folder")
        views = out / "views"
        views.mkdir()
        with (out / "happenings.jsonl").open("w", encoding="utf-8") as lines:
            for number, entry in enumerate(bar(recording.entries), 1):
                name = ""
                if isinstance(entry.happening, View):
                    view = recording.load(entry)
                    assert isinstance(view, View)
                    name = f"views/{number:06d}.jpg"
                    (out / name).write_bytes(view.jpeg)
                lines.write(json.dumps(_line(entry, name), ensure_ascii=False) + "\n")
        written = [_answer(recording, out, question) for question in recording.questions()]
        (out / "session.json").write_text(json.dumps(about(recording), indent=2, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        raise LegoError(f"{out} cannot be written ({error.strerror}); choose another folder") from error
    return [*(path for path in written if path is not None), out / "session.json", out / "happenings.jsonl"]


def about(recording: Recording) -> dict[str, object]:
    """Returns what a recording says of itself, as plain JSON values."""
    return {
        "began": recording.began.isoformat(timespec="milliseconds"),
        "seconds": round(recording.seconds, 3),
        "whole": recording.whole,
        "faults": list(recording.faults),
        "dropped": recording.dropped,
        "software": recording.started.software,
        "settings": recording.started.settings,
        "server": asdict(recording.server),
        "views": sum(isinstance(entry.happening, View) for entry in recording.entries),
        "questions": [
            {
                "seconds": round(question.seconds, 3),
                "query": question.asked.text,
                "outcome": type(question.outcome).__name__ if question.outcome else None,
            }
            for question in recording.questions()
        ],
    }


def _answer(recording: Recording, out: Path, question: Question) -> Path | None:
    answer = recording.answer(question)
    if answer is None:
        return None
    directory = answer_directory(out, one_of_many=True)
    created = recording.began + timedelta(seconds=question.entries[-1].seconds)
    try:
        save_answer(directory, answer, recording.server, created)
    except ServerError:  # what it sent is no picture; it is kept as it came
        (directory / "guidance.bin").write_bytes(answer.guidance.image)
    return directory


def _line(entry: Entry, picture: str) -> dict[str, object]:
    happening: Happening = entry.happening
    match happening:
        case View(frame_id=frame_id):
            return {"seconds": entry.seconds, "happening": "View", "frame_id": frame_id or None, "file": picture}
        case Heard(event=event):
            plain = event
            if isinstance(event, Guidance):
                plain = replace(event, image=b"")
            elif isinstance(event, Progress):
                plain = replace(event, preview=b"")
            values = {name: value for name, value in asdict(plain).items() if not isinstance(value, bytes)}
            return {"seconds": entry.seconds, "happening": type(event).__name__, **values}
    return {"seconds": entry.seconds, "happening": type(happening).__name__, **asdict(happening)}
