"""One-file checkpoints in CompVis' layout: the released LEGO models, InstructPix2Pix, Stable Diffusion 1.x."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from lego_core.config import number_in_range
from lego_core.errors import LegoError
from lego_model.conditioner import Conditioner
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from lego_export.original import names, sizes
from lego_export.original.parts import Part, on_meta, shapes
from lego_export.original.schedule import buffers, check_buffers
from lego_export.original.source import Family, Source, unet_for_frames
from lego_export.original.tensors import LazyTensor, Tensors, match

_EMA_UNET = f"{names.EMA}diffusion_model"


def read_compvis(path: Path, tensors: Tensors, rest: dict[str, Any], *, raw: bool, keep_raw: bool) -> Source:
    """Reads a file's tensors as parts.

    Args:
        path: Of the file, for messages and provenance.
        tensors: All of it.
        rest: What lies beside the weights.
        raw: Takes the U-Net as it was last trained, not its moving average.
        keep_raw: Takes both.

    Raises:
        LegoError: Tensors are missing, unexpected or of the wrong shape.
    """
    is_lego = any(key.startswith(("projection_img.", "projection_txt.", "self_attn_mix.")) for key in tensors)
    has_ema = (is_lego and not raw) or any(key.startswith(_EMA_UNET) for key in tensors)
    if keep_raw and not has_ema:
        raise LegoError(f"{path} has one U-Net only; leave out --keep-raw")
    models = _models(path, tensors, is_lego)
    ours = names.original_keys(models)
    _check(path, tensors, _expected(models, ours), is_lego, has_ema)
    check_buffers(tensors, str(path))

    by_part: dict[str, Tensors] = {part: {} for part in models}
    known = {part: shapes(model) for part, model in models.items()}
    raw_unet: Tensors = {}
    for original, (part, key) in ours.items():
        averaged = part == "unet" and has_ema and not raw
        by_part[part][key] = _shaped(tensors[names.ema_key(original) if averaged else original], known[part][key])
        if part == "unet":
            raw_unet[key] = tensors[original]
    config = dict(models["unet"].config)
    parts = {part: Part(models[part], by_part[part]) for part in models if part != "unet"}
    parts["unet"] = unet_for_frames(config, by_part["unet"], path)
    if keep_raw:
        parts["unet_raw"] = unet_for_frames(config, raw_unet, path)

    provenance: dict[str, Any] = {"file": path.name, "unet": "moving average (EMA)" if has_ema and not raw else "raw"}
    if "global_step" in rest:
        provenance["global_step"] = _count(path, "global_step", rest["global_step"])
    if has_ema:
        provenance["ema_decay"] = _decay(path, tensors[names.EMA_DECAY].load().item())
        provenance["num_updates"] = _count(path, names.EMA_UPDATES, tensors[names.EMA_UPDATES].load())
    if is_lego:
        provenance["conditioner"] = _conditioner_origin(by_part["conditioner"])
    family: Family = "Stable Diffusion"
    if is_lego:
        family = "LEGO"
    elif config["in_channels"] == 2 * config["out_channels"]:
        family = "InstructPix2Pix"
    return Source(family, parts, provenance=provenance)


def _models(path: Path, tensors: Tensors, is_lego: bool) -> dict[str, Any]:
    def text_encoder() -> Any:
        return CLIPTextModel(CLIPTextConfig(**sizes.text_encoder_config(tensors, str(path))))

    kinds: dict[str, Callable[[], Any]] = {
        "unet": lambda: UNet2DConditionModel(**sizes.unet_config(tensors, str(path))),
        "vae": lambda: AutoencoderKL(**sizes.vae_config(tensors, str(path))),
        "text_encoder": text_encoder,
    }
    if is_lego:
        kinds["conditioner"] = lambda: Conditioner(**sizes.conditioner_config(tensors, str(path)))
    models = {}
    for part, build in kinds.items():
        try:
            models[part] = on_meta(build)
        except LegoError:
            raise
        except Exception as error:  # the libraries raise many types on sizes that they cannot build
            why = str(error) or type(error).__name__
            raise LegoError(
                f"{path}: no {part} can be built of the sizes of its tensors ({why}); restore the file"
            ) from error
    return models


def _count(path: Path, name: str, value: Any) -> int:
    """Returns a whole number that a file says, as a number or as a tensor of one."""
    number = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    # The original keeps its updates in 32 bits.
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**31:
        raise LegoError(f"{path}: {name} is {value!s:.80}; it must be a whole number of 32 bits: restore the file")
    return number


def _decay(path: Path, value: float) -> float:
    number_in_range(f"{path}: {names.EMA_DECAY}", value, 0, 1)
    return float(value)


def _expected(models: dict[str, Any], ours: dict[str, names.Ours]) -> dict[str, tuple[int, ...]]:
    known = {part: shapes(model) for part, model in models.items()}
    return {original: names.original_shape(each, known[each[0]][each[1]]) for original, each in ours.items()}


def _check(
    path: Path, tensors: Tensors, expected: dict[str, tuple[int, ...]], is_lego: bool, has_ema: bool
) -> None:  # fmt: skip
    """Compares the whole file with what such a model has."""
    # Newer CLIP models make them on the fly; a released file has them, another may not.
    also = {names.POSITION_IDS: tensors[names.POSITION_IDS].shape} if names.POSITION_IDS in tensors else {}
    for name, values in buffers().items():
        if is_lego or name in tensors:
            also[name] = tuple(values.shape)
    if has_ema:
        also |= {names.ema_key(key): shape for key, shape in expected.items() if key.startswith(names.UNET)}
        also |= {names.EMA_DECAY: (), names.EMA_UPDATES: ()}
    match(tensors, expected | also, path)


def _shaped(tensor: LazyTensor, shape: tuple[int, ...]) -> LazyTensor:
    return tensor if tensor.shape == shape else tensor.reshaped(shape)


def _conditioner_origin(tensors: Tensors) -> str:
    """Tells trained σ, μ and π from random ones that no optimiser ever touched (lego-reference A3)."""
    mixer = {key.removeprefix("text_mixer.layers."): each.load() for key, each in tensors.items() if "mixer" in key}
    first = {key[2:]: values for key, values in mixer.items() if key.startswith("0.")}
    copies = all(values.equal(first[key[2:]]) for key, values in mixer.items())
    zeros = [values for key, values in first.items() if re.match(r"self_attn\..*bias|norm\d\.bias", key)]
    ones = [values for key, values in first.items() if re.match(r"norm\d\.weight", key)]
    if copies and not any(values.any() for values in zeros) and all((values == 1).all() for values in ones):
        return "as stored: at its random initialisation, so the original training did not reach it"
    return "as stored: trained"
