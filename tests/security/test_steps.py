"""The steps of docs/security.md, run as they stand there."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lego_client.connection import Connection
from lego_client.session import GuidanceClient
from lego_client.token_sources import find_token
from lego_server.security.config import SecurityConfig

from tests.security.serving import serving

REPOSITORY = Path(__file__).parents[2]


def run_shell(script: str, directory: Path) -> None:
    command = directory / "lego-server"  # this checkout's, whatever is installed
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lego_server "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{directory}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", script], cwd=directory, env=environment, check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl command")
async def test_the_documented_steps_make_a_server_that_its_wearers_reach(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", (REPOSITORY / "docs" / "security.md").read_text(), re.DOTALL)
    assert len(blocks) == 4
    await asyncio.to_thread(run_shell, "\n".join(["set -e", *blocks]), tmp_path)

    config = SecurityConfig(
        tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "ca.pem", tmp_path / "tokens.json"
    )
    async with serving(config) as server:
        target = f"localhost:{server.port}"
        token = find_token(target, tmp_path / "anna.token", use_keyring=False, environment={})
        connection = Connection(True, tmp_path / "ca.pem", tmp_path / "anna.pem", tmp_path / "anna.key", token)
        async with GuidanceClient(target, 5, connection) as client:
            assert client.info.model_name == "fake"
