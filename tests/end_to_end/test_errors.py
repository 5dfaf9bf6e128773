"""What goes wrong is told in one line that says what to do, with an exit code a script can act on."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.processes import SERVER, Server, asking, client

QUERY = "How do I open the drawer?"


def told(result: subprocess.CompletedProcess[str]) -> str:
    """Returns the one line on stderr; there must be no other."""
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SERVER, "serve", *arguments], capture_output=True, text=True, timeout=120)


def test_a_directory_without_engines(tmp_path: Path) -> None:
    result = serve("--engines", str(tmp_path))
    assert result.returncode == 2
    assert "not an engine directory" in told(result) and str(tmp_path) in told(result)


def test_a_checkpoint_whose_engines_are_not_built(model: Path, tmp_path: Path) -> None:
    (tmp_path / "lego.json").write_bytes((model / "lego.json").read_bytes())
    result = serve("--engines", str(tmp_path))
    assert result.returncode == 2
    assert "lego-export build" in told(result)


def test_a_port_that_is_taken(server: Server, model: Path) -> None:
    port = server.address.rpartition(":")[2]
    result = serve("--engines", str(model), "--port", port)
    assert result.returncode == 2
    line = result.stderr.splitlines()[-1]
    assert line.startswith("error: ") and port in line and "--port" in line


def test_no_server(kitchen: Path, tmp_path: Path) -> None:
    with socket.socket() as unused:  # bound but not listening: nobody answers there
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        result = client("ask", "--server", address, "--source", str(kitchen), "--out", str(tmp_path), QUERY)
    assert result.returncode == 1
    assert address in told(result)


def test_an_empty_query(server: Server, kitchen: Path, tmp_path: Path) -> None:
    result = client(*asking(server, kitchen, tmp_path, "  "))
    assert result.returncode == 2
    assert "empty" in told(result)


def test_a_picture_that_is_none(server: Server, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 this is no picture")
    result = client(*asking(server, broken, tmp_path / "out", QUERY))
    assert result.returncode == 2
    assert str(broken) in told(result)


def test_a_camera_that_is_not_there(server: Server, tmp_path: Path) -> None:
    result = client("ask", "--server", server.address, "--source", "97", "--out", str(tmp_path), QUERY)
    assert result.returncode == 2
    assert "camera 97" in told(result)


@pytest.mark.parametrize(
    ("option", "value", "name"),
    [
        ("--steps", "0", "steps"),
        ("--steps", "many", "--steps"),
        ("--text-scale", "99", "text-scale"),
        ("--image-scale", "0.5", "image-scale"),
        ("--sampler", "magic", "magic"),
        ("--quality", "101", "quality"),
        ("--seed", "-1", "seed"),
        ("--previews", "-1", "previews"),
        ("--no-such-option", "1", "--no-such-option"),
    ],
)
def test_a_malformed_option(server: Server, kitchen: Path, tmp_path: Path, option: str, value: str, name: str) -> None:
    result = client(*asking(server, kitchen, tmp_path, QUERY, option, value))
    assert result.returncode == 2
    assert name in told(result)


def test_the_server_answers_after_every_error(server: Server, kitchen: Path, tmp_path: Path) -> None:
    assert client(*asking(server, kitchen, tmp_path / "bad", QUERY, "--steps", "5000")).returncode == 2
    assert client(*asking(server, kitchen, tmp_path / "good", QUERY)).returncode == 0
