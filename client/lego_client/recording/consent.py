"""Nothing is recorded before whoever wears the camera has agreed to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lego_core.errors import LegoError

from lego_client.errors import ServerError
from lego_client.recording.options import RecordOptions

if TYPE_CHECKING:
    from lego_client.recording.recorder import Recorder

_AGREED = "recording-agreed"


def notice(path: Path) -> str:
    """Returns what is recorded, in words for the wearer."""
    return (
        f"{path} will keep what the camera sees, what you ask and every answer, with their times. "
        "It stays on this machine, where no other user can read it. Tell those who come into view."
    )


def agreed(path: Path, flag: bool) -> bool:
    """Says whether to record, and tells the wearer what is recorded.

    Args:
        path: The recording.
        flag: The wearer has agreed on the command line.

    Returns:
        True; False if the wearer was asked and declined. Who has agreed once is told from then on, and not asked.

    Raises:
        LegoError: Nobody can be asked.
    """
    remembered = _folder() / _AGREED
    if flag or remembered.exists():
        print(f"recording: {notice(path)}", file=sys.stderr)
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise LegoError(f"recording needs your consent: {notice(path)} Add --record-consent if you agree")
    print(notice(path), file=sys.stderr)
    print("Record? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        print("nothing is recorded", file=sys.stderr)
        return False
    try:
        remembered.parent.mkdir(parents=True, exist_ok=True)
        remembered.write_text(datetime.now(UTC).isoformat(timespec="seconds") + "\n", encoding="utf-8")
    except OSError:  # then the question is asked again next time
        pass
    return True


@contextmanager
def recording_to(options: RecordOptions, settings: Mapping[str, object]) -> Iterator[Recorder | None]:
    """Records while the block lasts, if there is a file to record to and the wearer agrees.

    Args:
        options: Where to, which must not exist; how large it may become; whether the wearer has agreed.
        settings: What was asked of the program; never a token.

    Raises:
        LegoError: The file cannot be made, a value is out of range, or nobody can be asked for consent.
    """
    path = options.record
    if path is None:
        yield None
        return
    from lego_client.recording.recorder import Recorder  # with libraries that other sessions do without

    recorder = Recorder(
        path, settings, limit_mb=options.record_limit, tell=lambda sentence: print(sentence, file=sys.stderr)
    )
    if not agreed(path, options.record_consent):
        yield None
        return
    with recorder:
        try:
            yield recorder
        except (LegoError, ServerError) as error:
            recorder.note(f"the session ended: {error}")
            raise
    print(recorder.failure or f"recorded {path}", file=sys.stderr)


def _folder() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "lego-ar"
