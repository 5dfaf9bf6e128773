"""Runs the frozen parts over a dataset once, so that diffusion tuning reads arrays instead of running four networks.

For every pair, and for its mirror image: the input frame's latent, the target's posterior, the VLLM's image embeddings
and text states, and the description's token ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lego_core.errors import LegoError
from lego_core.images import frame_to_pixels, frame_to_vision_pixels
from lego_core.prompts import encode_description
from numpy.typing import NDArray
from PIL import ImageOps
from rich.progress import track

from lego_model.checkpoint import LegoCheckpoint, fingerprint
from lego_model.conditioner import pad_text_states
from lego_model.describe import embed_image, states_of
from lego_training.dataset import Record, read_frame
from lego_training.toy_kitchen.language import mirror_text

_BATCH = 16


@dataclass(frozen=True)
class Embeddings:
    """Arrays over 2n samples: even indices are the pairs, odd ones their mirror images. float16 but for the ids.

    Attributes:
        frame_latents: (2n, 4, r, r), posterior mode of the input frame, not scaled.
        target_means: (2n, 4, r, r), posterior mean of the target frame.
        target_stds: (2n, 4, r, r), its standard deviation.
        image_embeddings: (2n, M, D).
        text_states: (2n, N, D), zero rows after the description.
        text_ids: (2n, N) int32, the description as CLIP reads it.
    """

    frame_latents: NDArray[np.float16]
    target_means: NDArray[np.float16]
    target_stds: NDArray[np.float16]
    image_embeddings: NDArray[np.float16]
    text_states: NDArray[np.float16]
    text_ids: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.text_ids)


_NAMES = tuple(Embeddings.__dataclass_fields__)


@torch.inference_mode()
def embed(checkpoint_directory: Path, records: list[Record], output: Path) -> Embeddings:
    """Embeds every pair and its mirror image; goes on where an interrupted call stopped.

    The descriptions are the dataset's own, read through the VLLM (teacher forcing).

    Raises:
        LegoError: `output` holds embeddings of another checkpoint or dataset.
    """
    checkpoint = LegoCheckpoint.load(checkpoint_directory)
    lego, count = checkpoint.config, 2 * len(records)
    side = lego.resolution // 2 ** (len(checkpoint.vae.config.block_out_channels) - 1)
    latent = (checkpoint.vae.config.latent_channels, side, side)
    width = checkpoint.conditioner.config.vllm_width
    shapes: dict[str, tuple[int, ...]] = {
        "frame_latents": latent, "target_means": latent, "target_stds": latent,
        "image_embeddings": (lego.image_tokens, width), "text_states": (lego.text_tokens, width),
        "text_ids": (lego.text_tokens,),
    }  # fmt: skip
    key = f"{_frozen_fingerprint(checkpoint_directory)} {count}"
    done = _resume(output, key)
    arrays = {}
    for name, shape in shapes.items():
        dtype = np.int32 if name == "text_ids" else np.float16
        mode = "r+" if done else "w+"
        arrays[name] = np.lib.format.open_memmap(output / f"{name}.npy", mode, dtype, (count, *shape) if mode == "w+" else None)
    for first in track(range(done // 2, len(records), _BATCH), "embedding"):
        batch = records[first : first + _BATCH]
        pictures, texts = [], []
        for record in batch:
            source, target = read_frame(record.input_path), read_frame(record.target_path)
            pictures += [(source, target), (ImageOps.mirror(source), ImageOps.mirror(target))]
            texts += [(record.action, record.description), (mirror_text(record.action), mirror_text(record.description))]
        rows = slice(2 * first, 2 * first + len(texts))
        pixels = [torch.from_numpy(np.stack([frame_to_pixels(each, lego.resolution) for each in column]))
                  for column in zip(*pictures, strict=True)]  # fmt: skip
        arrays["frame_latents"][rows] = checkpoint.vae.encode(pixels[0]).latent_dist.mode().numpy()
        posterior = checkpoint.vae.encode(pixels[1]).latent_dist
        arrays["target_means"][rows], arrays["target_stds"][rows] = posterior.mean.numpy(), posterior.std.numpy()
        vision = np.stack([frame_to_vision_pixels(source, lego.vision) for source, _ in pictures])
        images = embed_image(checkpoint, torch.from_numpy(vision))
        arrays["image_embeddings"][rows] = images.numpy()
        special = checkpoint.special_text_tokens
        for row, image, (action, description) in zip(range(rows.start, rows.stop), images, texts, strict=True):
            words = states_of(checkpoint, image, action, description)
            arrays["text_states"][row] = pad_text_states(words.text_states, lego.text_tokens).numpy()
            arrays["text_ids"][row] = encode_description(checkpoint.tokenizer, description, lego.text_tokens, special)
        (output / "done.txt").write_text(f"{key}\n{rows.stop}\n")
    for array in arrays.values():
        array.flush()
    return load_embeddings(output)


def load_embeddings(output: Path) -> Embeddings:
    """Maps finished embeddings into memory."""
    return Embeddings(**{name: np.load(output / f"{name}.npy", mmap_mode="r") for name in _NAMES})


def _resume(output: Path, key: str) -> int:
    output.mkdir(parents=True, exist_ok=True)
    marker = output / "done.txt"
    if not marker.is_file():
        return 0
    saved, done = marker.read_text().splitlines()
    if saved != key:
        raise LegoError(f"{output} holds embeddings of another checkpoint or dataset; remove it or choose another --run")
    return int(done)


def _frozen_fingerprint(checkpoint: Path) -> str:
    """Of the parts embeddings depend on; the U-Net may change without making them stale."""
    return fingerprint(checkpoint, parts=("vae", "vllm"))[:16]
