"""Files and servers for the client's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import cv2
import pytest

from tests.client.scenes import scene, write_clip
from tests.client.scripted_server import ScriptedServer


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as running:
        yield running


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "drawer.png"
    cv2.imwrite(str(path), cv2.cvtColor(scene(), cv2.COLOR_RGB2BGR))
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4")
