"""An answer as files: pictures to look at, and a record to repeat it from. Earlier answers are never overwritten."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from lego_core.errors import LegoError

from lego_client.answer import Answer
from lego_client.events import ServerInfo
from lego_client.pictures import open_jpeg, side_by_side

_ANSWER_FILES = ("guidance.jpg", "frame.jpg", "side_by_side.png", "record.json")


def check_output(out: Path) -> None:
    """Creates the folder for answers, before any work is done for them.

    Raises:
        LegoError: It cannot be made, or a file is in its place.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LegoError(f"{out} cannot be used for answers ({error.strerror}); choose another folder") from error


def answer_directory(out: Path, *, one_of_many: bool = False) -> Path:
    """Returns a folder that holds no answer yet: `out` itself, or a numbered one inside it.

    Args:
        out: An existing folder.
        one_of_many: Number even the first answer, where several belong together.

    Raises:
        LegoError: No folder can be made inside `out`.
    """
    if not one_of_many and not any((out / name).exists() for name in _ANSWER_FILES):
        return out
    for number in count(1 if one_of_many else 2):
        directory = out / f"{number:03d}"
        if not directory.exists():
            try:
                directory.mkdir()
            except FileExistsError:  # another answer was quicker
                continue
            except OSError as error:
                raise LegoError(f"{directory} cannot be made ({error.strerror}); choose another folder") from error
            return directory
    raise AssertionError("count() does not end")


def save_answer(directory: Path, answer: Answer, server: ServerInfo, created: datetime | None = None) -> list[Path]:
    """Writes guidance.jpg, frame.jpg, previews, side_by_side.png and record.json.

    Args:
        directory: An existing folder, from `answer_directory`.
        answer: What to save; the JPEGs are written byte for byte as received and sent.
        server: What answered.
        created: When it did; None for now.

    Returns:
        The files written, the guidance frame first.

    Raises:
        LegoError: The folder cannot be written.
        ServerError: The server sent a guidance frame that is no picture.
    """
    pictures = {"guidance.jpg": answer.guidance.image, "frame.jpg": answer.frame.encoded.jpeg}
    pictures |= {f"preview_{step:03d}.jpg": preview for step, preview in answer.previews}
    guidance = open_jpeg(answer.guidance.image)
    view = open_jpeg(answer.frame.encoded.jpeg)
    page = side_by_side(view, guidance, answer.query, answer.guidance.description, timing_line(answer))
    try:
        for name, data in pictures.items():
            (directory / name).write_bytes(data)
        page.save(directory / "side_by_side.png")
        text = json.dumps(record(answer, server, created), indent=2, ensure_ascii=False)
        (directory / "record.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise LegoError(f"{directory} cannot be written ({error.strerror}); choose another folder") from error
    return [directory / name for name in (*pictures, "side_by_side.png", "record.json")]


def timing_line(answer: Answer) -> str:
    """Returns what the wearer waited for, in one line."""
    guidance = answer.guidance
    words = answer.first_words_seconds
    return " · ".join(
        [
            *([f"first words after {words:.2f} s"] if words is not None else []),
            f"picture after {answer.seconds:.2f} s",
            f"{guidance.steps} steps",
            f"seed {guidance.seed}",
            guidance.model_version,
        ]
    )


def record(answer: Answer, server: ServerInfo, created: datetime | None = None) -> dict[str, object]:
    """Returns everything that says how an answer came about, as plain JSON values."""
    guidance = answer.guidance
    return {
        "query": answer.query,
        "description": guidance.description,
        "created": (created or datetime.now(UTC)).isoformat(timespec="seconds"),
        "source": answer.source,
        "query_id": guidance.query_id,
        "frame_id": guidance.frame_id,
        "frame": {
            "width": answer.frame.encoded.width,
            "height": answer.frame.encoded.height,
            "bytes": len(answer.frame.encoded.jpeg),
        },
        "guidance": {"width": guidance.width, "height": guidance.height, "bytes": len(guidance.image)},
        "sampling": {
            "seed": guidance.seed,
            "steps": guidance.steps,
            "text_scale": round(guidance.text_scale, 6),
            "image_scale": round(guidance.image_scale, 6),
            "sampler": guidance.sampler,
            "fidelity": guidance.fidelity,
            "guidance_interval": list(guidance.guidance_interval),
            "cache_interval": guidance.cache_interval,
        },
        "asked_options": {name: value for name, value in asdict(answer.options).items() if value is not None},
        "server": {
            "model_name": server.model_name,
            "model_version": guidance.model_version,
            "engine": server.engine,
            "notice": server.notice,
        },
        "server_timings_ms": {name: round(value, 2) for name, value in asdict(guidance.timings).items()},
        "client_timings_s": {
            "first_words": None if answer.first_words_seconds is None else round(answer.first_words_seconds, 3),
            "guidance": round(answer.seconds, 3),
        },
    }


def free_path(path: Path) -> Path:
    """Returns the path, or the first numbered variant of it that does not exist yet."""
    if not path.exists():
        return path
    return next(candidate for number in count(2) if not (candidate := path.with_stem(f"{path.stem}-{number}")).exists())
