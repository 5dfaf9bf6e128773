"""Realistic inputs for every graph: what it is fed when the server answers a query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from lego_core.images import frame_to_pixels, frame_to_vision_pixels
from lego_core.manifest import CACHE_GRAPH
from lego_core.noise import gaussian_noise
from lego_core.prompts import build_prompt, encode_description
from lego_model.checkpoint import LegoCheckpoint
from lego_model.conditioner import null_context
from lego_model.describe import Description, embed_image, prompt_embeddings, states_of
from lego_model.pipeline import LegoPipeline
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from lego_export.graphs import GraphDefinition, head_dim

Feeds = dict[str, NDArray[np.float32] | NDArray[np.int64]]

# Of different lengths, so that prompts, caches and padded descriptions are too.
QUERIES = (
    "How do I open the drawer?",
    "how do I cut the carrot with the knife on the board?",
    "Show me how to turn on the tap.",
)
DESCRIPTIONS = (
    "The person opens the drawer by pulling its handle with the right hand.",
    "The person cuts the carrot.",
    "The left hand turns the tap's lever upwards until water runs into the sink below it.",
)


def synthetic_frame(seed: int, width: int = 456, height: int = 256) -> Image.Image:
    """Returns a picture with soft light, flat objects and edges: enough to exercise the network where no photo is."""
    generator = np.random.default_rng(seed)
    corners = Image.fromarray(generator.integers(60, 200, (3, 4, 3), np.uint8), "RGB")
    image = corners.resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(8):
        x, y = int(generator.integers(width)), int(generator.integers(height))
        size = generator.integers(10, height // 2, 2)
        colour = tuple(int(value) for value in generator.integers(0, 256, 3))
        shape = draw.ellipse if generator.random() < 0.5 else draw.rectangle
        shape((x, y, x + int(size[0]), y + int(size[1])), fill=colour)
    return image.filter(ImageFilter.GaussianBlur(1))


class Samples:
    """Inputs for each graph, made with the torch modules from a few frames, queries and descriptions."""

    def __init__(
        self, checkpoint: LegoCheckpoint, definitions: dict[str, GraphDefinition], frames: Sequence[Image.Image]
    ) -> None:
        """Encodes the frames.

        Args:
            checkpoint: The torch modules.
            definitions: Of the same checkpoint.
            frames: One or more pictures.
        """
        self._checkpoint = checkpoint
        self._definitions = definitions
        self._pipeline = LegoPipeline(checkpoint)
        config = checkpoint.config
        self._pixels = np.stack([frame_to_pixels(frame, config.resolution) for frame in frames])
        self._vision_pixels = np.stack([frame_to_vision_pixels(frame, config.vision) for frame in frames])
        self._latents = self._pipeline.encode_frames(frames).numpy()
        self._embeddings = embed_image(checkpoint, torch.from_numpy(self._vision_pixels))

    def feeds(self, graph: str, batch: int) -> list[Feeds]:
        """Returns one or more inputs for a graph: the decoder's prefill, one token, and several tokens at once."""
        match graph:
            case "text_encoder":
                return [{"input_ids": self._text_ids(batch)}]
            case "frame_encoder":
                pixels, vision_pixels = self._rows(self._pixels, batch), self._rows(self._vision_pixels, batch)
                return [{"pixels": pixels, "vision_pixels": vision_pixels}]
            case "token_embedding":
                return [{"input_ids": self._token_ids(batch, 7)}]
            case "decoder":
                return list(self._decoder_feeds(batch))
            case "conditioner":
                return [self._conditioner_feeds(batch)]
            case "keys_values" | "keys_values_student":
                return [{"context": self._contexts(batch)}]
            case "unet" | "unet_student":
                return [self._unet_feeds(batch, graph.replace("unet", "keys_values"))]
            case "unet_shallow":
                return [self._shallow_feeds(batch)]
            case "vae_decoder":
                return [{"latent": self._rows(self._latents, batch)}]
        raise AssertionError(f"no samples for graph {graph}")

    def _rows(self, values: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
        return values[np.arange(batch) % len(values)]

    def _text_ids(self, batch: int) -> NDArray[np.int64]:
        special, length = self._checkpoint.special_text_tokens, self._checkpoint.config.text_tokens
        texts = [DESCRIPTIONS[row % len(DESCRIPTIONS)] for row in range(batch)]
        ids = [encode_description(self._checkpoint.tokenizer, text, length, special) for text in texts]
        return np.array(ids, np.int64)

    def _token_ids(self, batch: int, length: int) -> NDArray[np.int64]:
        vocabulary = self._checkpoint.vllm.config.text_config.vocab_size
        return np.random.default_rng(length).integers(0, vocabulary, (batch, length), np.int64)

    def _embed(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return self._checkpoint.vllm.get_input_embeddings()(torch.from_numpy(ids)).numpy()

    def _decoder_feeds(self, batch: int) -> Iterator[Feeds]:
        prompts = [self._prompt(row) for row in range(batch)]
        language = self._checkpoint.vllm.config.text_config
        empty = np.zeros((1, language.num_key_value_heads, 0, head_dim(self._checkpoint)), np.float32)
        nothing = [empty] * (2 * language.num_hidden_layers)
        shortest = min(prompt.shape[1] for prompt in prompts)
        yield self._decoder_call(np.concatenate([prompt[:, -shortest:] for prompt in prompts]), [nothing] * batch)
        # Each prompt is read alone; then caches of unlike lengths are extended together.
        decoder = self._definitions["decoder"].module
        caches = []
        for prompt in prompts:
            call = self._decoder_call(prompt, [nothing])
            with torch.inference_mode():
                outputs = decoder(*(torch.from_numpy(value) for value in call.values()))
            caches.append([tensor.numpy() for tensor in outputs[2:]])
        for tokens in (1, 3):
            yield self._decoder_call(self._embed(self._token_ids(batch, tokens)), caches)

    def _prompt(self, row: int) -> NDArray[np.float32]:
        embeddings, query = self._embeddings[row % len(self._embeddings)], QUERIES[row % len(QUERIES)]
        prompt = build_prompt(self._checkpoint.config, query)
        return prompt_embeddings(self._checkpoint, embeddings, prompt).detach().numpy()

    def _decoder_call(self, embeds: NDArray[np.float32], caches: Sequence[Sequence[NDArray[np.float32]]]) -> Feeds:
        """Returns the inputs for (B, T, D) embeddings after B caches, shorter ones padded in front and masked."""
        batch, tokens = embeds.shape[:2]
        lengths = [cache[0].shape[2] for cache in caches]
        longest = max(lengths)
        drop = np.finfo(np.float32).min
        mask = np.zeros((batch, 1, tokens, longest + tokens), np.float32)
        mask[..., longest:] = np.triu(np.full((tokens, tokens), drop, np.float32), k=1)
        for row, length in enumerate(lengths):
            mask[row, ..., : longest - length] = drop
        positions = np.array(lengths)[:, None] + np.arange(tokens)
        past = [
            np.concatenate([_pad_front(tensor, longest) for tensor in tensors]) for tensors in zip(*caches, strict=True)
        ]
        names = [spec.name for spec in self._definitions["decoder"].inputs]
        return dict(zip(names, (embeds, mask, positions.astype(np.int64), *past), strict=True))

    def _descriptions(self, batch: int) -> list[Description]:
        return [
            states_of(
                self._checkpoint, self._embeddings[row % len(self._embeddings)], QUERIES[row % len(QUERIES)],
                DESCRIPTIONS[row % len(DESCRIPTIONS)],
            )
            for row in range(batch)
        ]  # fmt: skip

    def _conditioner_feeds(self, batch: int) -> Feeds:
        length = self._checkpoint.config.text_tokens
        words = self._descriptions(batch)
        states = np.zeros((batch, length, words[0].text_states.shape[1]), np.float32)
        for row, each in enumerate(words):
            kept = each.text_states[:length].numpy()
            states[row, : len(kept)] = kept
        return {
            "text_hidden_states": self._pipeline.encode_text([each.text for each in words]).numpy(),
            "image_embeddings": np.stack([each.image_embeddings.numpy() for each in words]),
            "text_states": states,
        }

    def _contexts(self, batch: int) -> NDArray[np.float32]:
        """Contexts of descriptions, with the guidance branches taking turns: two of three are the null context."""
        contexts = self._pipeline.context(self._descriptions(batch)).numpy()
        null = null_context(self._pipeline.encode_text([""]), self._checkpoint.config.projected_tokens).numpy()[0]
        contexts[1::3] = contexts[2::3] = null
        return contexts

    def _unet_feeds(self, batch: int, keys_values: str) -> Feeds:
        """Noisy latents from the whole range of timesteps, with the guidance branches taking turns."""
        definition = self._definitions[keys_values]
        with torch.inference_mode():
            computed = definition.module(torch.from_numpy(self._contexts(batch)))
        images = self._rows(self._latents, batch).copy()
        images[2::3] = 0
        scheduler = self._checkpoint.scheduler
        timesteps = np.linspace(scheduler.config.num_train_timesteps - 1, 0, batch).round()
        signal = scheduler.alphas_cumprod.numpy()[timesteps.astype(int)][:, None, None, None].astype(np.float32)
        noise = np.stack([gaussian_noise(row, 0, images.shape[1:]) for row in range(batch)])
        clean = self._rows(self._latents, batch) * np.float32(self._checkpoint.vae.config.scaling_factor)
        noisy = np.sqrt(signal) * clean + np.sqrt(1 - signal) * noise
        return {
            "sample": np.concatenate([noisy, images], axis=1),
            "timestep": timesteps.astype(np.float32),
            **{spec.name: tensor.numpy() for spec, tensor in zip(definition.outputs, computed, strict=True)},
        }

    def _shallow_feeds(self, batch: int) -> Feeds:
        """What the whole U-Net is fed, and the deep features that it gives."""
        feeds, whole = self._unet_feeds(batch, "keys_values"), self._definitions["unet"]
        with torch.inference_mode():
            _, features = whole.module(*(torch.from_numpy(feeds[spec.name]) for spec in whole.inputs))
        feeds["deep_features"] = features.numpy()
        return {spec.name: feeds[spec.name] for spec in self._definitions[CACHE_GRAPH].inputs}


def _pad_front(cache: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Pads the tokens of a (1, H, P, d) cache to `length`."""
    return np.pad(cache, ((0, 0), (0, 0), (length - cache.shape[2], 0), (0, 0)))
