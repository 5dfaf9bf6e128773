"""The last check: a server that loads the model and answers one query of its own."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from lego_core.errors import LegoError

from lego_server.config import ServerConfig
from lego_server.doctor.checks import Finding
from lego_server.doctor.machine import peak_memory


def run_trial(config: ServerConfig) -> Finding:
    """Loads and answers, on a free port of this machine only; measures time and memory."""
    from lego_server.engines import load_engine
    from lego_server.server import GuidanceServer

    settings = config.engine
    assert settings.directory is not None

    async def answer() -> float:
        server = GuidanceServer(
            {engine.manifest.lego.name: engine}, config.with_values({"server": {"host": "127.0.0.1", "port": 0}})
        )
        await server.start()
        try:
            began = time.monotonic()
            await server.warm_up()
            return time.monotonic() - began
        finally:
            await server.stop()

    try:
        began = time.monotonic()
        engine = load_engine(
            Path(settings.directory), settings.device, settings.threads, settings.max_batch, settings.lanes
        )
        loaded = time.monotonic() - began
        answered = asyncio.run(answer())
    except LegoError as error:
        return Finding("run", "problem", str(error), "see above; lego-export verify tells which graph is wrong")
    peak = f"{peak_memory() / 1e6:.0f} MB"
    told = f"loaded in {loaded:.1f} s, first query of one step answered in {answered:.1f} s, {peak} at most"
    return Finding("run", "ok", told)
