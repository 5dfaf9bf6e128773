"""The arrows between the components point one way (ARCHITECTURE.md), and torch stays where it belongs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.processes import REPOSITORY

# Each component, and the components it may import.
ALLOWED = {
    "core": set(),
    "proto": set(),
    "client": {"core", "proto"},
    "server": {"core", "proto"},
    "model": {"core"},
    "training": {"core", "model"},
    "export": {"core", "model", "server"},  # it measures the very engine that the server runs
}


def imported(path: Path) -> set[str]:
    """Returns the top-level names a module imports, lazily or not."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("component", ALLOWED)
def test_a_component_imports_only_those_it_may(component: str) -> None:
    own = f"lego_{component}"
    modules = sorted((REPOSITORY / component / own).rglob("*.py"))
    assert modules
    allowed = {own, *(f"lego_{name}" for name in ALLOWED[component])}
    for path in modules:
        foreign = {name for name in imported(path) if name.startswith("lego_")} - allowed
        assert not foreign, f"{path.relative_to(REPOSITORY)} imports {foreign}"


@pytest.mark.parametrize(
    "module", ["lego_client.cli", "lego_server.cli", "lego_server.server", "lego_training.cli", "lego_export.cli"]
)
def test_a_command_starts_without_torch(module: str) -> None:
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_the_toy_kitchen_renders_without_torch(tmp_path: Path) -> None:
    # A torch that cannot be imported stands for one that is not installed.
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from lego_training.cli import app\n"
        f"app(['toy-kitchen', 'tour', {str(tmp_path / 'tour.mp4')!r}, '--seconds', '2', '--fps', '1', '--size', '64'])"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True)
    assert (tmp_path / "tour.mp4").stat().st_size > 0
