"""Runs the frozen parts over a dataset once, so that diffusion tuning reads arrays instead of running four networks.

For every pair, and for its mirror image: the input frame's latent, the target's posterior, the VLLM's image embeddings
and text states, and the token ids of description and label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lego_core.errors import LegoError
from lego_core.images import frame_to_pixels, frame_to_vision_pixels
from lego_core.prompts import encode_description
from lego_model.checkpoint import LegoCheckpoint, fingerprint
from lego_model.conditioner import pad_text_states
from lego_model.describe import embed_image, states_of
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.progress import track
from torch import Tensor

from lego_training.dataset import Record, digest, read_frame
from lego_training.features import FeatureRows, FeatureStore
from lego_training.files import read_json, read_progress, write_json, write_progress
from lego_training.loop import has_bf16
from lego_training.processes import this_process
from lego_training.toy_kitchen.language import mirror_text

_BATCH = 16
FLIPS = ("everything", "frames", "never")
# What is mirrored with a pair's frames: the VLLM's features and the words "left" and "right" too, or, as in the
# original, the frames alone (trap 10 of lego-reference I). "never" trains on no mirror images.
Flip = Literal["everything", "frames", "never"]


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
        label_ids: (2n, N) int32, the label as CLIP reads it.
        names: (2n,), the records' clip and action ids.
    """

    frame_latents: NDArray[np.float16]
    target_means: NDArray[np.float16]
    target_stds: NDArray[np.float16]
    image_embeddings: NDArray[np.float16] | FeatureRows
    text_states: NDArray[np.float16] | FeatureRows
    text_ids: NDArray[np.int32]
    label_ids: NDArray[np.int32]
    names: list[str]

    def __len__(self) -> int:
        return len(self.text_ids)


_FEATURES = ("image_embeddings", "text_states")
_LATENTS = ("frame_latents", "target_means", "target_stds")
_OTHERS = (*_LATENTS, "text_ids", "label_ids")


@torch.inference_mode()
def embed(
    checkpoint_directory: Path,
    records: list[Record],
    output: Path,
    features: FeatureStore | None = None,
    flip: Flip = "everything",
    encoded: Embeddings | None = None,
) -> Embeddings:
    """Embeds every pair and its mirror image; goes on where an interrupted call stopped.

    The descriptions are the dataset's own, read through the VLLM (teacher forcing). With stored features the VLLM is
    not run, and the mirror images keep the features and the words of their pairs, as with `flip` "frames".

    Args:
        checkpoint_directory: Whose parts.
        records: The pairs.
        output: Where the arrays go.
        features: Stored ones of the VLLM.
        flip: See `FLIPS`.
        encoded: The same pairs, embedded by a checkpoint with the same autoencoder: their latents are taken.

    Raises:
        LegoError: A record has no description or lacks its features, or `output` holds embeddings of another checkpoint
            or dataset.
    """
    if not all(record.description for record in records):
        raise LegoError("some records have no description; curate the dataset first")
    if features is not None:
        features.check(records)
    device = this_process().device
    checkpoint = LegoCheckpoint.load(checkpoint_directory, without=("student", *(("vllm",) if features else ())))
    if features is None and device.type == "cuda":
        checkpoint.vllm.half()  # as features are made; a CPU emulates half precision slowly
    checkpoint.to(device)
    checkpoint.vae.to(memory_format=torch.channels_last)
    lego, count = checkpoint.config, 2 * len(records)
    side = lego.resolution // 2 ** (len(checkpoint.vae.config.block_out_channels) - 1)
    latent = (checkpoint.vae.config.latent_channels, side, side)
    width = checkpoint.conditioner.config.vllm_width
    shapes: dict[str, tuple[int, ...]] = {
        "frame_latents": latent, "target_means": latent, "target_stds": latent, "text_ids": (lego.text_tokens,),
    }  # fmt: skip
    if features is None:
        shapes |= {"image_embeddings": (lego.image_tokens, width), "text_states": (lego.text_tokens, width)}
    mirrors_all = features is None and flip != "frames"
    key = _key(checkpoint_directory, records, features, mirrors_all)
    done = _resume(output, key)
    arrays = {}
    for name, shape in shapes.items():
        path, dtype = output / f"{name}.npy", np.int32 if name == "text_ids" else np.float16
        arrays[name] = (
            np.lib.format.open_memmap(path, "r+") if done
            else np.lib.format.open_memmap(path, "w+", dtype, (count, *shape))
        )  # fmt: skip
    for first in track(range(done // 2, len(records), _BATCH), "embedding"):
        batch = records[first : first + _BATCH]
        pictures, texts = [], []
        for record in batch:
            source, target = read_frame(record.input_path), read_frame(record.target_path)
            pictures += [(source, target), (ImageOps.mirror(source), ImageOps.mirror(target))]
            words = (record.action, record.description)
            texts += [words, (mirror_text(words[0]), mirror_text(words[1])) if mirrors_all else words]
        rows = slice(2 * first, 2 * first + len(texts))
        latents = (
            _encode(checkpoint, pictures) if encoded is None else [getattr(encoded, each)[rows] for each in _LATENTS]
        )
        for name, values in zip(_LATENTS, latents, strict=True):
            arrays[name][rows] = values
        special = checkpoint.special_text_tokens
        arrays["text_ids"][rows] = [
            encode_description(checkpoint.tokenizer, description, lego.text_tokens, special) for _, description in texts
        ]
        if features is None:
            seen = [source for source, _ in (pictures if mirrors_all else pictures[::2])]
            vision = np.stack([frame_to_vision_pixels(source, lego.vision) for source in seen])
            images = embed_image(checkpoint, torch.from_numpy(vision).to(device, checkpoint.vllm.dtype))
            states = [
                pad_text_states(states_of(checkpoint, image, action, description).text_states, lego.text_tokens).cpu()
                for image, (action, description) in zip(images, texts if mirrors_all else texts[::2], strict=True)
            ]
            times = 1 if mirrors_all else 2
            arrays["image_embeddings"][rows] = images.repeat_interleave(times, dim=0).cpu()
            arrays["text_states"][rows] = torch.stack(states).repeat_interleave(times, dim=0)
        write_progress(output / "done.txt", key, rows.stop)
    for array in arrays.values():
        array.flush()
    _write_names_and_labels(output, checkpoint, records, mirrors_all)
    if features is None:
        return load_embeddings(output)
    return Embeddings(
        **_mapped(output, _OTHERS),
        image_embeddings=features.image_rows(records, lego.image_tokens, width),
        text_states=features.text_rows(records, lego.text_tokens, width),
    )


def _encode(checkpoint: LegoCheckpoint, pairs: Sequence[tuple[Image.Image, Image.Image]]) -> list[Tensor]:
    """Returns what `_LATENTS` names, (B, 4, r, r) each, of input and target frames."""
    device = this_process().device
    sources, targets = (
        torch.from_numpy(np.stack([frame_to_pixels(each, checkpoint.config.resolution) for each in column])).to(
            device, memory_format=torch.channels_last
        )
        for column in zip(*pairs, strict=True)
    )
    # The encoder at full resolution is nearly all of the time; the error of bf16 is far below the noise the latents are
    # trained under.
    with torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device)):
        frame, target = (checkpoint.vae.encode(each).latent_dist for each in (sources, targets))
    return [each.float().cpu() for each in (frame.mode(), target.mean, target.std)]


def load_embeddings(output: Path) -> Embeddings:
    """Maps finished embeddings into memory."""
    return Embeddings(**_mapped(output, _OTHERS + _FEATURES))


def _mapped(output: Path, names: Sequence[str]) -> dict[str, Any]:
    arrays = {name: np.load(output / f"{name}.npy", mmap_mode="r") for name in names}
    return {**arrays, "names": read_json(output / "names.json")}


def _write_names_and_labels(
    output: Path, checkpoint: LegoCheckpoint, records: Sequence[Record], mirrors_all: bool
) -> None:
    """What takes no network and little time; embeddings made before this was kept get it now."""
    if (output / "names.json").is_file():
        return
    names, labels = [], []
    for record in records:
        name = f"{record.clip_id}/{record.action_id}"
        names += [name, f"{name} mirrored"]
        labels += [record.action, mirror_text(record.action) if mirrors_all else record.action]
    length, special = checkpoint.config.text_tokens, checkpoint.special_text_tokens
    ids = [encode_description(checkpoint.tokenizer, label, length, special) for label in labels]
    np.save(output / "label_ids.npy", np.array(ids, np.int32))
    write_json(output / "names.json", names)  # last: it says that both are there


def _resume(output: Path, key: str) -> int:
    output.mkdir(parents=True, exist_ok=True)
    marker = output / "done.txt"
    if not marker.is_file():
        (output / "names.json").unlink(missing_ok=True)
        return 0
    saved, done = read_progress(marker)
    if saved != key:
        raise LegoError(
            f"{output} holds embeddings of another checkpoint or dataset; remove it or choose another --run"
        )
    return done


def _key(checkpoint: Path, records: list[Record], features: FeatureStore | None, mirrors_all: bool) -> str:
    """Of all that embeddings depend on; the U-Net may change without making them stale. Stored features stay out."""
    frozen = fingerprint(checkpoint, parts=("vae", "tokenizer") if features else ("vae", "vllm", "tokenizer"))
    kind = " features" if features else "" if mirrors_all else " frames"
    return f"{frozen[:16]} {len(records)} {digest(records)}{kind}"
