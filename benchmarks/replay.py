"""What a query costs beside its engine calls: a real server whose engine gives at once what another gave before.

    python -m benchmarks.replay models/lego-nano

serves like `lego-server serve` until it is told to stop; `measure_rest` starts it and loads it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from lego_core.branches import Branch
from lego_server.bench.load import measure
from lego_server.bench.questions import Questions
from lego_server.bench.report import latencies
from lego_server.bench.sample import Load
from lego_server.config import ServerConfig
from lego_server.engines import load_engine
from lego_server.engines.base import Array, Condition, DecoderCache, DecoderStep, Engine, FrameFeatures
from lego_server.server import GuidanceServer
from lego_server.texts import PromptTokens
from numpy.typing import NDArray

from benchmarks.call_times import example_results

_PLACES = 64  # so that no query is refused


class ReplayEngine:
    """See `lego_server.engines.base.Engine`; every query is given what one query was given before."""

    def __init__(self, engine: Engine) -> None:
        """Has an engine answer one query."""
        self.name, self.manifest, self.texts = "replay", engine.manifest, engine.texts
        results = example_results(engine)
        self._features, self._condition = results["EncodeFrame"][0], results["BuildCondition"][0]
        self._prediction, self._pixels = results["Denoise"][0], results["DecodeLatent"][0]
        self._steps: list[DecoderStep] = [*results["Prefill"], *results["Extend"]]

    def encode_frames(self, pixels: Sequence[Array], vision_pixels: Sequence[Array]) -> list[FrameFeatures]:
        """See `Engine.encode_frames`."""
        return [self._features] * len(pixels)

    def prefill(self, frame: FrameFeatures, prompt: PromptTokens) -> DecoderStep:
        """See `Engine.prefill`."""
        return self._step(0)

    def extend(self, caches: Sequence[DecoderCache], token_ids: Sequence[Sequence[int]]) -> list[DecoderStep]:
        """See `Engine.extend`."""
        return [self._step(cast(int, cache) + 1) for cache in caches]

    def condition(self, frame: FrameFeatures, clip_ids: NDArray[np.int64], text_states: Array) -> Condition:
        """See `Engine.condition`."""
        return self._condition

    def denoise(
        self, latents: Sequence[Array], timesteps: Sequence[float], conditions: Sequence[Condition],
        branches: tuple[Branch, ...],
    ) -> list[Array]:  # fmt: skip
        """See `Engine.denoise`."""
        return [self._prediction[: len(branches)]] * len(latents)

    def decode_latents(self, latents: Sequence[Array]) -> list[Array]:
        """See `Engine.decode_latents`."""
        return [self._pixels] * len(latents)

    def _step(self, number: int) -> DecoderStep:
        step = self._steps[number]
        return DecoderStep(step.token_id, step.hidden_states, DecoderCache(number))


def measure_rest(model: Path, seconds: float) -> dict[str, float]:
    """Returns what a query takes beside engine calls, in seconds.

    Args:
        model: Engine directory.
        seconds: How long is measured, once with one wearer and once with four.

    Returns:
        "latency" of one wearer's query, the median; "server" and "client", processor time of a query in each of the
        two processes.
    """
    return asyncio.run(_measure_rest(model, seconds))


async def _measure_rest(model: Path, seconds: float) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.replay", str(model)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    assert process.stdout is not None
    try:
        address = (await asyncio.to_thread(process.stdout.readline)).split()[-1]
        questions, stop = Questions(distinct=True, folder=None, seed=0), asyncio.Event()
        alone = await measure(address, Load(wearers=1, seconds=seconds / 2), questions, stop)
        server, client = _processor_seconds(process.pid), time.process_time()
        many = await measure(address, Load(wearers=4, seconds=seconds / 2, warm_up=0), questions, stop)
        server, client = _processor_seconds(process.pid) - server, time.process_time() - client
    finally:
        process.terminate()
        process.wait()
    return {
        "latency": float(np.median(latencies(alone.samples, "result"))),
        "server": server / len(many.samples), "client": client / len(many.samples),
    }  # fmt: skip


def _processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _serve(model: Path) -> None:
    config = ServerConfig().with_values({"server": {"port": 0}, "engine": {"max_active": _PLACES}})
    engine: Any = ReplayEngine(load_engine(model))
    server = GuidanceServer({engine.manifest.lego.name: engine}, config)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await server.start()
    await server.warm_up()
    print(f"listening on {server.address}", flush=True)
    await stopping.wait()
    await server.stop()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
