"""LEGO, and what is its network with other conditions or weights: InstructPix2Pix, the rows of tables 3, 4 and 7."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from lego_core.config import Conditioning, LegoConfig
from lego_core.errors import LegoError
from lego_core.prompts import action_prompt
from lego_model.checkpoint import LegoCheckpoint
from lego_model.describe import Description, most_likely, write
from lego_model.pipeline import LegoPipeline
from PIL import Image

from lego_training.dataset import Record
from lego_training.evaluation.methods.method import Ask, Painting, finish
from lego_training.evaluation.methods.settings import LegoSettings
from lego_training.features import FeatureStore, read_image_features, read_text_features


class LegoMethod:
    """A LEGO checkpoint.

    Args:
        directory: The checkpoint.
        conditioning: What its U-Net must have been trained to read.
        settings: How it samples.
        device: Where it runs.
        features: Stored features of its VLLM, whose descriptions are the records' own; default: it describes now.

    Raises:
        LegoError: It is no checkpoint, or of another conditioning.
    """

    def __init__(
        self,
        directory: Path,
        conditioning: Conditioning,
        settings: LegoSettings,
        device: torch.device,
        features: FeatureStore | None = None,
    ) -> None:
        config = LegoConfig.load(directory)
        if config.conditioning != conditioning:
            raise LegoError(
                f"{directory} is conditioned on {config.conditioning!r}; what is wanted here is {conditioning!r}"
            )
        self._features = features
        values = asdict(settings)
        self._fidelity = values.pop("fidelity")
        self._options = values
        config.sampling(self._fidelity, **values)  # refuses what this model cannot do
        describes = conditioning != "label" and features is None
        checkpoint = LegoCheckpoint.load(directory, without=() if describes else ("vllm",))
        if describes and device.type == "cuda":
            checkpoint.vllm.half()  # as features are made; a CPU emulates half precision slowly
        self._pipe = LegoPipeline(checkpoint.to(device))

    def paint(self, asks: Sequence[Ask]) -> list[Painting]:
        """See `Method`."""
        pipe, fidelity = self._pipe, self._fidelity
        frames = [ask.frame for ask in asks]
        words = [self._describe(ask.record, frame) for ask, frame in zip(asks, frames, strict=True)]
        with torch.inference_mode(), pipe.precision(fidelity):
            latents, context = pipe.encode_frames(frames), pipe.context(words)
        pixels = pipe.paint(latents, context, [ask.seed for ask in asks], fidelity=fidelity, **self._options)
        return [
            finish(each, frame, fidelity, said.text)
            for each, frame, said in zip(pixels, frames, words, strict=True)
        ]  # fmt: skip

    def _describe(self, record: Record, frame: Image.Image) -> Description:
        pipe = self._pipe
        config = pipe.config
        if config.conditioning == "label":
            return pipe.describe(frame, record.action, record.action)
        if self._features is None:
            # As in training: the label goes into the question as it is, articles and all.
            prompt = action_prompt(config, record.action)
            said = write(pipe.checkpoint, pipe.embed(frame), prompt, most_likely, config.max_description_tokens)
            return Description(said.text, said.image_embeddings.float(), said.text_states.float())
        if not record.description:
            raise LegoError(
                f"{record.clip_id}/{record.action_id} has no description; its stored features belong to one"
            )
        image_path, text_path = self._features.paths(record)
        width = pipe.checkpoint.conditioner.config.vllm_width
        image = read_image_features(image_path, config.image_tokens, width)
        states = read_text_features(text_path, config.text_tokens, width)
        on_device = (torch.from_numpy(each).to(pipe.device) for each in (image, states))
        return Description(record.description, *on_device)
