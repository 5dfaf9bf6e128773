"""Real recordings, made by real sessions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client.recording.sessions import record_session
from tests.client.scripted_server import ScriptedServer


@pytest.fixture
async def recorded(server: ScriptedServer, tmp_path: Path) -> Path:
    """A recording of two frames and two questions about them."""
    path = tmp_path / "session.mcap"
    await record_session(server, path)
    return path
