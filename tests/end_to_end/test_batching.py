"""Queries that share the U-Net's calls, each at a step of its own, are painted as they are alone."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lego_core.branches import branch_weights
from lego_core.images import frame_to_pixels, frame_to_vision_pixels
from lego_core.noise import gaussian_noise
from lego_export.verify import psnr
from lego_proto.v1 import guidance_pb2 as pb
from lego_server.engines import load_engine
from lego_server.engines.base import Condition, Engine
from lego_server.sampling.guidance import denoised, guide, input_scale
from lego_server.sampling.samplers import start_sampling
from lego_server.sampling.schedule import SigmaSchedule
from lego_training.toy_kitchen.language import question
from lego_training.toy_kitchen.pair import make_pair
from PIL import Image

from tests.server.harness import running

STEPS, SCALE = 5, 1.5
MODEL = Path(__file__).parents[2] / "models" / "lego-nano"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_engine(MODEL, "cpu", threads=2)


@pytest.fixture(scope="module")
def conditions(engine: Engine) -> list[Condition]:
    lego, found = engine.manifest.lego, []
    for seed, words in enumerate(("The right hand opens the drawer.", "The left hand turns on the tap.", "A cup.")):
        frame = Image.fromarray(make_pair(3_000_000 + seed, "val").input_frame)
        features = engine.encode_frames(
            [frame_to_pixels(frame, lego.resolution)], [frame_to_vision_pixels(frame, lego.vision)]
        )[0]
        prompted = engine.prefill(features, engine.texts.prompt("How do I do this?"))
        read = engine.extend([prompted.cache], [engine.texts.description_ids(words)])[0]
        found.append(engine.condition(features, engine.texts.clip_ids(words), read.hidden_states))
    return found


def paint(engine: Engine, queries: Sequence[tuple[int, Condition]]) -> dict[int, np.ndarray]:
    """Paints queries that join one after the other: at each call every one is a step behind the one before."""
    manifest = engine.manifest
    schedule = SigmaSchedule(manifest.schedule)
    side = manifest.lego.resolution // manifest.latent.factor
    weights = branch_weights(2 * SCALE, SCALE)  # unequal scales: all three branches
    waiting = list(queries)
    active, latents = [], {}
    while waiting or active:
        if waiting:
            seed, condition = waiting.pop(0)

            def noise(step: int, seed: int = seed) -> np.ndarray:
                return gaussian_noise(seed, step, (manifest.latent.channels, side, side))

            sampling = start_sampling("euler_ancestral", schedule.sigmas(STEPS), noise)
            active.append([seed, condition, sampling, next(sampling)])
        predictions = engine.denoise(
            [latent * np.float32(input_scale(sigma)) for *_, (latent, sigma) in active],
            [schedule.timestep(sigma) for *_, (_, sigma) in active],
            [condition for _, condition, *_ in active],
            tuple(weights),
        )
        for query, prediction in zip(list(active), predictions, strict=True):
            latent, sigma = query[3]
            clean = denoised(latent, sigma, guide(prediction, weights), manifest.schedule.prediction_type)
            try:
                query[3] = query[2].send(clean)
            except StopIteration as end:
                latents[query[0]] = end.value
                active.remove(query)
    return {seed: engine.decode_latents([latent])[0] for seed, latent in latents.items()}


def test_queries_at_unlike_steps_share_a_call_and_change_nothing(engine: Engine, conditions: list[Condition]) -> None:
    queries = list(enumerate(conditions))
    together = paint(engine, queries)
    alone = {query[0]: paint(engine, [query])[query[0]] for query in queries}

    for seed, picture in together.items():
        assert psnr(alone[seed], picture) > 60
    assert psnr(alone[0], alone[1]) < 30, "the queries' pictures differ"


async def test_wearers_in_two_lanes_get_the_pictures_they_would_get_alone() -> None:
    engine = load_engine(MODEL, "cpu", threads=2, lanes=2)
    pairs = [make_pair(3_000_000 + seed, "val") for seed in range(4)]
    half = pb.GuidanceInterval(low=0.5, high=1)
    cheaper: list[dict[str, Any]] = [{}, {"cache_interval": 2}, {"guidance_interval": half}, {"cache_interval": 2}]
    requests = []
    for seed, pair in enumerate(pairs):
        buffer = io.BytesIO()
        Image.fromarray(pair.input_frame).save(buffer, "PNG")
        options = pb.GuidanceOptions(seed=seed, steps=2, **cheaper[seed])
        requests.append(pb.GenerateRequest(image=buffer.getvalue(), text=question(pair.action), options=options))
    async with running(engine, lanes=2, max_active=4) as server:
        alone = [await server.stub.Generate(request) for request in requests]
        together = await asyncio.gather(*(server.stub.Generate(request) for request in requests))

    assert [result.image for result in together] == [result.image for result in alone]
    assert [result.description for result in together] == [result.description for result in alone]
    assert len({result.image for result in alone}) == 4
