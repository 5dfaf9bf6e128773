"""What a reader finds in somebody else's model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from lego_core.errors import LegoError

from lego_export.original.parts import Part, on_meta
from lego_export.original.tensors import Tensors

Family = Literal["LEGO", "InstructPix2Pix", "Stable Diffusion"]


@dataclass(frozen=True)
class Source:
    """A model that was read, all but its VLLM.

    Attributes:
        family: What it is.
        parts: "unet", "vae", "text_encoder"; "conditioner" if it has one; "unet_raw" if it is to be kept.
        prediction_type: What its U-Net predicts.
        provenance: What `lego.json` says of it.
        tokenizer: Folder of CLIP's tokenizer, if it comes with one.
    """

    family: Family
    parts: dict[str, Part]
    prediction_type: str = "epsilon"
    provenance: dict[str, Any] = field(default_factory=dict)
    tokenizer: Path | None = None


def unet_for_frames(config: Mapping[str, Any], tensors: Tensors, place: Path) -> Part:
    """Returns a U-Net that also reads the input frame's latent.

    One that reads the noisy latent alone gets as many more channels, of weight zero: at first it paints as before
    (lego-reference A2).

    Args:
        config: Of the U-Net as it is.
        tensors: Its weights by diffusers' names.
        place: Named in messages.

    Raises:
        LegoError: It reads something else, as inpainting models do.
    """
    channels, latent = config["in_channels"], config["out_channels"]
    if channels == 2 * latent:
        return Part(on_meta(UNet2DConditionModel.from_config, config), tensors)
    if channels != latent:
        raise LegoError(
            f"{place} holds a U-Net of {channels} input channels, made for inpainting or depth; LEGO starts from one "
            f"of {latent} (Stable Diffusion 1.5) or {2 * latent} (InstructPix2Pix)"
        )
    # diffusers would take what it notes here to have been a default for a default again.
    config = {key: value for key, value in config.items() if key != "_use_default_values"}
    first = tensors["conv_in.weight"]
    shape = (first.shape[0], 2 * latent, *first.shape[2:])
    widened = first.mapped(shape, lambda weight: torch.cat([weight, torch.zeros_like(weight)], dim=1))
    model = on_meta(UNet2DConditionModel.from_config, {**config, "in_channels": 2 * latent})
    return Part(model, {**tensors, "conv_in.weight": widened})
