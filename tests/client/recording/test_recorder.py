"""What a session leaves in its recording."""

from __future__ import annotations

from pathlib import Path

from lego_client.recording.recording import Recording


async def test_x(recorded: Path) -> None:
    r = Recording(recorded)
    print(r.started, r.whole, r.faults, r.seconds)
    for e in r.entries:
        print(e)
    for q in r.questions():
        print(r.answer(q).guidance.description, len(r.answer(q).previews))
