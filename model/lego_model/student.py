"""The distilled student: the U-Net plus a low-rank change of its weights that paints in a few steps without guidance.

A student is stored as a LoRA adapter in diffusers' layout (`unet.load_lora_adapter` reads it too), a tenth of the
U-Net's size or less. Which steps it was distilled for stands in `lego.json`.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from lego_core.errors import LegoError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

# The adapter's folder in a checkpoint directory.
STUDENT = "student"
_FILE = "pytorch_lora_weights.safetensors"


class LowRankChange(nn.Module):
    """W + B A of a linear or convolution weight; at first B is 0 and nothing changes (Hu et al. 2021).

    Args:
        weight: (out, in) or (out, in, height, width).
        rank: Rows of A; no more than the smaller side of the weight as a matrix.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        rank = min(rank, rows, columns)
        # In the shapes that LoRA files have: A is a layer from `in` to `rank`, B one from `rank` to `out`.
        self.down = nn.Parameter(torch.randn(rank, *weight.shape[1:]) * columns**-0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank, *(1 for _ in weight.shape[2:])))

    def forward(self, weight: Tensor) -> Tensor:
        """Returns the changed weight."""
        return weight + (self.up.flatten(1) @ self.down.flatten(1)).view(weight.shape)


def add_student(unet: UNet2DConditionModel, rank: int) -> UNet2DConditionModel:
    """Returns a U-Net that shares the weights of this one and adds low-rank changes to them.

    Whether the shared weights are trained too is the caller's to say: freeze `unet` to train the changes alone. They
    are added on every evaluation; under `torch.nn.utils.parametrize.cached` once for all.
    """
    shared = {id(each): each for each in (*unet.parameters(), *unet.buffers())}
    student = copy.deepcopy(unet, shared)
    for module in _changed(student).values():
        weight: Tensor = module.weight  # type: ignore[assignment]
        change = LowRankChange(weight, rank).to(weight.device, weight.dtype)
        parametrize.register_parametrization(module, "weight", change)
    return student


def save_student(student: UNet2DConditionModel, directory: Path, dtype: torch.dtype) -> None:
    """Writes the changes that `add_student` added."""
    directory.mkdir(parents=True, exist_ok=True)
    state = {}
    for name, module in _changed(student).items():
        for key, factor in zip(adapter_keys(name), _factors(module), strict=True):
            state[key] = factor.detach().to("cpu", dtype).contiguous()
    partial = directory / f"{_FILE}.partial"
    save_file(state, partial)
    partial.replace(directory / _FILE)


def load_student(unet: UNet2DConditionModel, directory: Path) -> UNet2DConditionModel:
    """Returns the student of this U-Net; it shares its weights.

    Raises:
        LegoError: The adapter is damaged or of another U-Net.
    """
    path = directory / _FILE
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise LegoError(f"{path} cannot be read ({error}); restore it, or distil again") from error
    student = add_student(unet, rank=1)
    layers = _changed(student)
    wanted = {key for name in layers for key in adapter_keys(name)}
    if set(state) != wanted:
        odd = min(set(state) ^ wanted)
        raise LegoError(f"{path} is of another U-Net ({odd} {'is missing' if odd in wanted else 'is unknown'})")
    for name, module in layers.items():
        change, (down, up) = _change(module), (state[key].to(unet.device, unet.dtype) for key in adapter_keys(name))
        fits = down.shape[1:] == change.down.shape[1:] and up.shape[:1] == change.up.shape[:1]
        if not fits or up.shape[1:] != (len(down), *change.up.shape[2:]):
            raise LegoError(f"{path} is of another U-Net ({name} has a weight of another shape)")
        change.down, change.up = nn.Parameter(down, False), nn.Parameter(up, False)
    return student.eval()


def _changed(unet: UNet2DConditionModel) -> dict[str, nn.Module]:
    """The layers that a student changes: every linear layer and convolution."""
    return {name: each for name, each in unet.named_modules() if isinstance(each, nn.Linear | nn.Conv2d)}


def adapter_keys(layer: str) -> tuple[str, str]:
    """Returns the names of A and B of a layer in the adapter's file."""
    return f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"


def _change(module: nn.Module) -> LowRankChange:
    change = module.parametrizations.weight[0]  # type: ignore[index, union-attr]
    assert isinstance(change, LowRankChange)
    return change


def _factors(module: nn.Module) -> tuple[Tensor, Tensor]:
    return _change(module).down, _change(module).up
