"""An engine that fails, runs out of memory or never returns takes nobody along who had no part in it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from lego_core.branches import Branch
from lego_proto.v1 import guidance_pb2 as pb
from lego_server.engines.base import Array, Condition, FrameFeatures
from numpy.typing import NDArray

from tests.server.fake_engine import WORDS, FakeEngine
from tests.server.faults.scene import READY, open_session, part, scene, serving
from tests.server.harness import GuideClient, RunningServer, eventually

Code = pb.QueryError.Code
_UNLUCKY = "pot pot pot"


class _UnluckyEngine(FakeEngine):
    """Raises whenever a batch holds a query with the unlucky description.

    Attributes:
        error: What it raises.
        sizes: Of the batches it has raised at.
    """

    def __init__(self, error: type[Exception]) -> None:
        super().__init__(delay=0.003)
        self.error = error
        self.sizes: list[int] = []
        self._unlucky: set[int] = set()

    def condition(self, frame: FrameFeatures, clip_ids: NDArray[np.int64], text_states: Array) -> Condition:
        made = super().condition(frame, clip_ids, text_states)
        unlucky = np.count_nonzero(clip_ids == WORDS.index("pot")) == 3
        (self._unlucky.add if unlucky else self._unlucky.discard)(id(made))
        return made

    def denoise(
        self, latents: Sequence[Array], timesteps: Sequence[float], conditions: Sequence[Condition],
        branches: tuple[Branch, ...],
    ) -> list[Array]:  # fmt: skip
        if any(id(each) in self._unlucky for each in conditions):
            self.sizes.append(len(conditions))
            raise self.error("of one query's making")
        return super().denoise(latents, timesteps, conditions, branches)


@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
async def test_one_querys_failure_in_a_batch_is_its_own(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest keeps all that is logged, and with a traceback what the engine held when it failed.
    monkeypatch.setattr(logging.getLogger("lego_server.loop"), "disabled", True)
    engine = _UnluckyEngine(error)
    async with scene(engine, bystanders=4, max_batch=4, lanes=1, max_active=8) as it:
        client, _ = await open_session(it.server.stub)
        await client.frame()
        for query_id in range(1, 21):
            await client.query(query_id, description=_UNLUCKY)
            failed = await client.error()
            assert (failed.query_id, failed.code) == (query_id, Code.CODE_INTERNAL)
        await it.several_answers(4)
        await part(client)
    assert max(engine.sizes) > 1, "it failed beside others"


async def _ask_in_time(client: GuideClient, query_id: int, deadline_ms: int) -> None:
    options = pb.GuidanceOptions(seed=7)
    query = pb.Query(query_id=query_id, text="open the drawer", options=options, deadline_ms=deadline_ms)
    await client.call.write(pb.GuideRequest(query=query))


async def _open_with_frame(server: RunningServer) -> GuideClient:
    client, _ = await open_session(server.stub)
    await client.frame()
    return client


async def test_a_call_that_never_returns_costs_others_their_deadline_and_no_memory() -> None:
    engine = FakeEngine()
    async with scene(engine, bystanders=0, engine_call_seconds=0.2) as it:
        clients = [await _open_with_frame(it.server) for _ in range(6)]
        engine.gate.clear()
        await _ask_in_time(clients[0], 1, 300)
        await eventually(lambda: engine.calls["denoise"] > 3)
        for client in clients[1:]:
            await _ask_in_time(client, 1, 200)
        for client in clients:
            assert (await client.error()).code == Code.CODE_DEADLINE_EXCEEDED
        assert await serving(it.server) == {"live"}, "health says what holds"
        # Who gives up while the engine hangs leaves nothing behind that waits for it.
        for query_id in range(2, 30):
            await _ask_in_time(clients[1], query_id, 10)
            assert (await clients[1].error()).code == Code.CODE_DEADLINE_EXCEEDED
        assert it.server.server.live_queries == 1, "the hanging call's own"
        engine.gate.set()
        await eventually(lambda: it.server.server.live_queries == 0)
        assert await serving(it.server) == READY
        for client in clients:
            await client.query(100)
            assert (await client.result()).query_id == 100
            await part(client)


async def test_one_lanes_hanging_call_leaves_the_other_lane_to_others() -> None:
    engine = FakeEngine()
    async with scene(engine, bystanders=0, lanes=2, engine_call_seconds=0.2) as it:
        client, other = await _open_with_frame(it.server), await _open_with_frame(it.server)
        await other.query(1)
        alone = await other.result()
        painting = engine.calls["denoise"]
        engine.gate.clear()
        await _ask_in_time(client, 1, 300)
        await eventually(lambda: engine.calls["denoise"] > painting)
        hanging, engine.gate = engine.gate, threading.Event()  # the next calls have a gate of their own
        engine.gate.set()
        await other.query(2)
        beside = await other.result()
        assert (await client.error()).code == Code.CODE_DEADLINE_EXCEEDED
        assert await serving(it.server) == {"live"}
        hanging.set()
        for each in (client, other):
            await part(each)
    assert beside.image == alone.image
