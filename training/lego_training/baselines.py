"""Trains what LEGO is compared with, all on the same pairs (paper, tables 1 to 4).

InstructPix2Pix and the other rows of table 3 are LEGO's own network with other conditions. SDEdit and ProxEdit edit
with a text-to-image model of the target frames. LEGO itself can be trained beside them, on the same budget.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from lego_core.config import Conditioning, LegoConfig
from lego_core.errors import LegoError
from lego_model.checkpoint import PARTS, LegoCheckpoint, fingerprint, save_part
from lego_model.create import Parts, build_parts, read_shape
from lego_model.skeleton import find_architecture

from lego_training.config import RunConfig
from lego_training.dataset import Record, digest
from lego_training.features import FeatureStore
from lego_training.files import check_settings, write_json
from lego_training.processes import this_process
from lego_training.stages.diffusion import tune_diffusion
from lego_training.stages.embed import Embeddings, embed
from lego_training.stages.text_to_image import tune_text_to_image
from lego_training.text_to_image import CONFIG, from_checkpoint

# What networks begin with: random weights, those of a checkpoint, or those of a checkpoint that has forgotten to read:
# what it paints it still knows, and all that reads words and embeddings is new.
Start = Literal["new", "checkpoint", "unread"]
_NEW = ("unet", "conditioner", "text_encoder")
_READS = ".attn2."  # the U-Net's cross-attention, as diffusers names it


@dataclass(frozen=True)
class Baseline:
    """One model to train.

    Attributes:
        conditioning: What its U-Net reads beside the frame; None for the text-to-image model.
        tuned: Whether its VLLM is the tuned one.
    """

    conditioning: Conditioning | None
    tuned: bool = True


BASELINES = {
    "instruct_pix2pix": Baseline("label"),
    "text_to_image": Baseline(None),
    "description": Baseline("description"),
    "description_image": Baseline("description_image"),
    "description_text": Baseline("description_text"),
    "lego_untuned": Baseline("joint", tuned=False),
    "lego": Baseline("joint"),
}


def train_baselines(
    base: Path,
    untuned: Path | None,
    records: list[Record],
    run_config: RunConfig,
    output: Path,
    names: Sequence[str],
    features: FeatureStore | None = None,
) -> list[str]:
    """Trains baselines into output/<name>/checkpoint; those that are done there are kept.

    Args:
        base: A checkpoint with the tuned VLLM. Its U-Net is where training begins, unless new ones are asked for.
        untuned: One with the VLLM before tuning; lego_untuned is left out without it.
        records: Training pairs with descriptions.
        run_config: How they are trained: as LEGO itself is, and the text-to-image model as `tune_text_to_image` says.
        output: Where everything is kept.
        names: Of `BASELINES`.
        features: Stored ones of the tuned VLLM.

    Returns:
        The names of those that are there now.

    Raises:
        LegoError: `output` holds baselines of other settings or other starts, or a setting is missing.
    """
    unknown = sorted(set(names) - set(BASELINES))
    if unknown:
        raise LegoError(f"there is no baseline {unknown[0]!r}; choose of {', '.join(BASELINES)}")
    if "text_to_image" in names and run_config.tune_text_to_image is None:
        raise LegoError("the configuration has no settings for text_to_image; add the key tune_text_to_image")
    trained = [name for name in BASELINES if name in names and (BASELINES[name].tuned or untuned is not None)]
    _check_settings(base, untuned, records, run_config, output, trained, features is not None)

    @cache
    def embedded(tuned: bool) -> Embeddings:
        flip = run_config.diffusion.flip
        if tuned:
            return embed(base, records, output / "embeddings-tuned", features, flip)
        assert untuned is not None
        same = fingerprint(untuned, ("vae",)) == fingerprint(base, ("vae",))
        return embed(untuned, records, output / "embeddings-untuned", None, flip, embedded(True) if same else None)

    for name in trained:
        if not (output / name / "done.json").is_file():
            source = base if BASELINES[name].tuned else untuned
            assert source is not None
            _train(name, source, run_config, output, embedded)
            if this_process().is_main_process:
                write_json(output / name / "done.json", {"base": str(source)})
    return trained


def _check_settings(
    base: Path, untuned: Path | None, records: list[Record], run_config: RunConfig, output: Path,
    trained: Sequence[str], features: bool,
) -> None:  # fmt: skip
    """Refuses a folder whose models, done or begun, are of other settings than these.

    What all share is in the folder's settings.json. What only one depends on is in that one's own: calls for others
    need not give it.
    """
    shared = {
        **_origin(base, run_config.baselines), "start": run_config.baselines, "architecture": run_config.architecture,
        "seed": run_config.seed, "pairs": len(records), "dataset": digest(records), "features": features,
        "loop": asdict(run_config.tune_diffusion), "diffusion": asdict(run_config.diffusion),
    }  # fmt: skip
    check_settings(output / "settings.json", shared, "baselines")
    for name in trained:
        own: dict[str, Any] = {}
        if not BASELINES[name].tuned:
            assert untuned is not None
            if run_config.baselines != "new" and fingerprint(untuned, ("unet",)) != fingerprint(base, ("unet",)):
                raise LegoError(
                    f"the U-Nets of {base} and {untuned} differ, so that the baselines would not begin alike; give the "
                    "same model before and after VLLM tuning, or baselines=new"
                )
            own = _origin(untuned, run_config.baselines)
        elif BASELINES[name].conditioning is None:
            assert run_config.tune_text_to_image is not None
            own = {"loop": asdict(run_config.tune_text_to_image), "labels": asdict(run_config.text_to_image)}
        if own:
            check_settings(output / name / "settings.json", own, f"the baseline {name}")


def _origin(checkpoint: Path, start: Start) -> dict[str, str]:
    """Returns digests of what is taken of a checkpoint: the parts that stay, and what training begins with."""
    begun = {"new": (), "checkpoint": _NEW, "unread": ("unet",)}[start]
    found = {"frozen_parts": fingerprint(checkpoint, ("vae", "vllm", "tokenizer"))[:16]}
    return found | ({"start_weights": fingerprint(checkpoint, begun)[:16]} if begun else {})


def _train(
    name: str, base: Path, run_config: RunConfig, output: Path, embedded: Callable[[bool], Embeddings]
) -> None:  # fmt: skip
    """Trains one baseline; `embedded` gives the pairs of the tuned or of the untuned VLLM."""
    folder, baseline, process = output / name, BASELINES[name], this_process()
    mark = CONFIG if baseline.conditioning is None else "lego.json"
    with process.main_process_first():
        if not (folder / "checkpoint" / mark).is_file():
            begin = begin_text_to_image if baseline.conditioning is None else begin_checkpoint
            begin(base, folder / "checkpoint", run_config.baselines, run_config.architecture, run_config.seed)
        data = embedded(baseline.tuned)
    if baseline.conditioning is None:
        assert run_config.tune_text_to_image is not None
        tune_text_to_image(
            folder / "checkpoint", data, run_config.tune_text_to_image, run_config.text_to_image, folder / "run"
        )
    else:
        diffusion = replace(run_config.diffusion, conditioning=baseline.conditioning)
        tune_diffusion(folder / "checkpoint", data, run_config.tune_diffusion, diffusion, folder / "run")


def new_diffusion_model(base: Path, architecture: str, seed: int) -> LegoCheckpoint:
    """Returns a checkpoint with the autoencoder and the VLLM of `base`, and all that diffusion tuning trains new."""
    checkpoint = LegoCheckpoint.load(base)
    parts = _new_parts(checkpoint, architecture, seed)
    config = replace(checkpoint.config, student=None, provenance={"base": checkpoint.config.name, "seed": seed})
    new = replace(
        checkpoint, config=config, unet=parts.unet, conditioner=parts.conditioner, text_encoder=parts.text_encoder,
        student=None,
    )  # fmt: skip
    new.check()
    return new


def _new_parts(base: LegoCheckpoint, architecture: str, seed: int) -> Parts:
    shape = read_shape(find_architecture(Path(architecture)))
    torch.manual_seed(seed)
    return build_parts(shape, base.tokenizer.get_vocab_size())


def begin_checkpoint(base: Path, directory: Path, start: Start, architecture: str, seed: int) -> None:
    """Makes the checkpoint that a baseline is trained in; what is not trained is shared with `base` by hard links.

    Args:
        base: A checkpoint.
        directory: Where it goes.
        start: What its networks begin with, a `Start`.
        architecture: Of new networks.
        seed: Of new weights.

    Raises:
        LegoError: The U-Net of `base` is of another architecture, and was to be kept.
    """
    config = LegoConfig.load(base)
    shared = [part for part in (*PARTS, "tokenizer", "scheduler") if start == "checkpoint" or part not in _NEW]
    for part in shared:
        shutil.copytree(base / part, directory / part, copy_function=_link, dirs_exist_ok=True)
    if start != "checkpoint":
        new = _begin(LegoCheckpoint.load(base, without=("vllm", "student")), start, architecture, seed)
        for part in _NEW:
            save_part(getattr(new, part), directory / part, torch.float16)
    provenance = {"base": config.name, "start": start, "seed": seed}
    replace(config, student=None, provenance=provenance).save(directory)  # last: it makes the checkpoint whole
    LegoCheckpoint.load(directory, without=("vllm",))


def begin_text_to_image(base: Path, directory: Path, start: Start, architecture: str, seed: int) -> None:
    """Makes the text-to-image model that is trained; see `begin_checkpoint`."""
    checkpoint = LegoCheckpoint.load(base, without=("vllm", "student"))
    if start == "checkpoint":
        model = from_checkpoint(checkpoint)
    else:
        new = _begin(checkpoint, start, architecture, seed)
        checkpoint.text_encoder = new.text_encoder
        model = from_checkpoint(checkpoint, new.unet)
    model.save(directory)


def _begin(base: LegoCheckpoint, start: Start, architecture: str, seed: int) -> Parts:
    """Returns new networks; of an "unread" start the U-Net's weights are the base's, but for its cross-attention."""
    new = _new_parts(base, architecture, seed)
    if start == "unread":
        weights, old = new.unet.state_dict(), base.unet.state_dict()
        if {name: each.shape for name, each in weights.items()} != {name: each.shape for name, each in old.items()}:
            raise LegoError(f"{base.config.name} is not of the architecture {architecture}; name its own")
        new.unet.load_state_dict({name: weights[name] if _READS in name else old[name] for name in old})
    return new


def _link(source: str, target: str) -> None:
    """Links a file, or copies it where links cannot be. Weights are never written in place, so `base` keeps its own."""
    if os.path.exists(target):
        os.unlink(target)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
