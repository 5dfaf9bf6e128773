"""What every component's tests may use."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def fixtures() -> Path:
    path = Path(__file__).parents[1].parent / "shared" / "fixtures"
    if not path.is_dir():
        pytest.skip("the shared fixtures (real photographs and clips) are not beside this checkout")
    return path
