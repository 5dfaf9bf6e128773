"""One query from frame to guidance picture, read from top to bottom.

`Assistant.answer` is a generator. It yields `Work` for the engine, and is sent the result; and it yields `Event`s for
the wearer. It never blocks and never touches the engine itself, so that the engine loop can serve many at once and
drop one between any two engine calls.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from lego_core.images import encode_jpeg, guidance_frame
from lego_core.manifest import Manifest
from lego_core.noise import gaussian_noise

from lego_server.engines.base import Array, Condition, DecoderStep, DeepFeatures, FrameFeatures
from lego_server.frames import Described, PreparedFrame
from lego_server.options import SamplingOptions
from lego_server.sampling.guidance import denoised, guide, input_scale
from lego_server.sampling.samplers import start_sampling
from lego_server.sampling.schedule import SigmaSchedule
from lego_server.texts import PromptTokens, Texts, next_piece
from lego_server.work import (
    BuildCondition,
    DecodeLatent,
    Denoise,
    DenoiseKeeping,
    DenoiseReusing,
    EncodeFrame,
    Extend,
    Prefill,
    Work,
)

PREVIEW_JPEG_QUALITY = 70
_PIECE_SECONDS = 0.02  # between two pieces: nobody reads sooner, and telling a token may take longer than writing it
_PROGRESS_SECONDS = 0.04  # between two steps that are told: a screen shows no more


@dataclass(frozen=True)
class DescriptionPiece:
    """The next characters of the description; pieces concatenate to the whole."""

    text: str
    done: bool


@dataclass(frozen=True)
class StepDone:
    """One denoising step is done; `preview` is a JPEG of the picture so far, or empty."""

    step: int
    steps: int
    preview: bytes = b""


@dataclass(frozen=True)
class Timings:
    """Wall-clock seconds of one query's stages, other queries' turns in between included.

    `queue` lasts until the run that gave the answer: of a query that was begun anew it includes what was given up.
    """

    queue: float
    encode: float
    describe: float
    condition: float
    denoise: float
    decode: float
    total: float


@dataclass(frozen=True)
class Answer:
    """The guidance frame, JPEG at the input frame's aspect ratio, and what made it."""

    model_version: str
    description: str
    image: bytes
    width: int
    height: int
    options: SamplingOptions
    timings: Timings


@dataclass(frozen=True)
class Failed:
    """The query ended in an error of the server's; no other event follows."""

    error: Exception


Event = DescriptionPiece | StepDone | Answer | Failed
Steps = Generator[Work | Event, Any, None]


@dataclass(frozen=True)
class Question:
    """A query ready to be answered.

    Attributes:
        frame: What the wearer sees.
        prompt: What they asked, as the VLLM reads it.
        options: How to sample.
        arrived: `time.perf_counter()` when the query came in.
        prepared: The same when its frame had been decoded.
    """

    frame: PreparedFrame
    prompt: PromptTokens
    options: SamplingOptions
    arrived: float
    prepared: float


class Assistant:
    """Answers questions with one model."""

    def __init__(self, manifest: Manifest, texts: Texts) -> None:
        self._manifest = manifest
        self._texts = texts
        self._schedule = SigmaSchedule(manifest.schedule)

    def answer(self, question: Question) -> Steps:
        """Yields engine work and events; the last event is the `Answer`."""
        frame, options = question.frame, question.options
        started = time.perf_counter()

        yield from self.encode(frame)
        encoded = time.perf_counter()

        asked = question.prompt, options.description
        if frame.described is not None and frame.described.asked == asked:
            description, condition = frame.described.description, frame.described.condition
            yield DescriptionPiece(description, done=True)
            described = conditioned = time.perf_counter()
        else:
            description, text_states = yield from self._words(frame, question)
            described = time.perf_counter()
            clip_ids = self._texts.clip_ids(description)
            condition = yield BuildCondition(frame.known_features, clip_ids, text_states)
            frame.described = Described(asked, description, condition)
            conditioned = time.perf_counter()

        latent = yield from self._denoise(condition, frame, options)
        clean = time.perf_counter()

        pixels: Array = yield DecodeLatent(latent)
        picture = guidance_frame(pixels, frame.width, frame.height, options.fidelity)
        image = encode_jpeg(picture, options.jpeg_quality, options.fidelity)
        decoded = time.perf_counter()

        timings = Timings(
            queue=started - question.prepared,
            encode=(question.prepared - question.arrived) + (encoded - started),
            describe=described - encoded,
            condition=conditioned - described,
            denoise=clean - conditioned,
            decode=decoded - clean,
            total=decoded - question.arrived,
        )
        version = self._manifest.model_version
        yield Answer(version, description, image, picture.width, picture.height, options, timings)

    def encode(self, frame: PreparedFrame) -> Steps:
        """Encodes a frame, unless that has been done."""
        if frame.features is None:
            frame.features = yield EncodeFrame(frame.pixels, frame.vision_pixels)

    def _words(self, frame: PreparedFrame, question: Question) -> Generator[Work | Event, Any, tuple[str, Array]]:
        """Returns the description, the model's own or a given one, and its hidden states."""
        given = question.options.description
        if given is None:
            return (yield from self._describe(frame.known_features, question.prompt))
        return given, (yield from self._read(frame.known_features, question.prompt, given))

    def _describe(
        self, features: FrameFeatures, prompt: PromptTokens
    ) -> Generator[Work | Event, Any, tuple[str, Array]]:
        """Lets the VLLM write; returns the description and its (T, D) hidden states, end token's included (C7)."""
        eos, limit = self._manifest.decoder.eos_token_id, self._manifest.lego.max_description_tokens
        step: DecoderStep = yield Prefill(features, prompt)
        states, ids, sent, due = [step.hidden_states], [], 0, 0.0
        while step.token_id != eos:
            ids.append(step.token_id)
            now = time.perf_counter()
            if now >= due and (piece := next_piece(self._texts.description(ids), sent)):
                yield DescriptionPiece(piece, done=False)
                sent, due = sent + len(piece), now + _PIECE_SECONDS
            if len(ids) == limit:
                break
            step = yield Extend(step.cache, (step.token_id,))
            states.append(step.hidden_states)
        description = self._texts.description(ids)
        yield DescriptionPiece(description[sent:], done=True)
        return description, np.concatenate(states)

    def _read(
        self, features: FrameFeatures, prompt: PromptTokens, description: str
    ) -> Generator[Work | Event, Any, Array]:
        """Has the VLLM read a given description; returns the (T, D) hidden states it would have written it with."""
        yield DescriptionPiece(description, done=True)
        prompted: DecoderStep = yield Prefill(features, prompt)
        ids = self._texts.description_ids(description)
        if not ids:
            return prompted.hidden_states
        read: DecoderStep = yield Extend(prompted.cache, tuple(ids))
        return np.concatenate([prompted.hidden_states, read.hidden_states])

    def _denoise(
        self, condition: Condition, frame: PreparedFrame, options: SamplingOptions
    ) -> Generator[Work | Event, Any, Array]:
        """Samples the guidance frame's latent (4, r, r)."""
        spec = self._manifest.latent
        side = self._manifest.lego.resolution // spec.factor
        if options.sampler == "distilled":
            assert self._manifest.lego.student is not None
            sigmas = self._schedule.sigmas_at(self._manifest.lego.student.timesteps)
        else:
            sigmas = self._schedule.sigmas(options.steps)
        sampling = start_sampling(
            options.sampler,
            sigmas,
            lambda step: gaussian_noise(options.seed, step, (spec.channels, side, side)),
        )
        timesteps = [self._schedule.timestep(float(sigma)) for sigma in sigmas[:-1]]
        latent, sigma = next(sampling)
        features: DeepFeatures | None = None
        due = 0.0
        for step, (evaluation, timestep) in enumerate(zip(options.evaluations(), timesteps, strict=True), start=1):
            weights = evaluation.weights
            asked = latent * np.float32(input_scale(sigma)), timestep, condition, tuple(weights)
            predictions: Array
            if evaluation.features == "reused":
                assert features is not None
                predictions = yield DenoiseReusing(*asked, features)
            else:
                features = None  # freed before the evaluation that needs the memory
                if evaluation.features == "kept":
                    predictions, features = yield DenoiseKeeping(*asked)
                else:
                    predictions = yield Denoise(*asked)
            clean = denoised(latent, sigma, guide(predictions, weights), self._manifest.schedule.prediction_type)
            preview = b""
            if options.preview_every and step % options.preview_every == 0 and step < options.steps:
                preview = yield from self._preview(clean, frame, options)
            now = time.perf_counter()
            if now >= due or preview or step == options.steps:
                yield StepDone(step, options.steps, preview)
                due = now + _PROGRESS_SECONDS
            try:
                latent, sigma = sampling.send(clean)
            except StopIteration as end:
                latent = end.value
        return latent

    def _preview(
        self, clean: Array, frame: PreparedFrame, options: SamplingOptions
    ) -> Generator[Work | Event, Any, bytes]:
        """Returns the picture so far, as JPEG."""
        if options.preview == "fast":
            pixels = self._manifest.latent.colours(clean)
        else:
            pixels = yield DecodeLatent(clean)
        picture = guidance_frame(pixels, frame.width, frame.height, options.fidelity)
        return encode_jpeg(picture, PREVIEW_JPEG_QUALITY, options.fidelity)
