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

FOLDER = "student"
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
        self.down = nn.Parameter(torch.randn(rank, columns) * columns**-0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Returns the changed weight."""
        return weight + (self.up @ self.down).view(weight.shape)


def add_student(unet: UNet2DConditionModel, rank: int) -> UNet2DConditionModel:
    """Returns a copy of the U-Net in which nothing but low-rank changes of its weights is trained."""
    student = copy.deepcopy(unet).requires_grad_(False)
    for module in _changed(student).values():
        parametrize.register_parametrization(module, "weight", LowRankChange(module.weight, rank))
    return student


def save_student(student: UNet2DConditionModel, directory: Path, dtype: torch.dtype) -> None:
    """Writes the changes that `add_student` added."""
    directory.mkdir(parents=True, exist_ok=True)
    state = {}
    for name, module in _changed(student).items():
        change: LowRankChange = module.parametrizations.weight[0]  # type: ignore[index, union-attr]
        original: Tensor = module.parametrizations.weight.original  # type: ignore[union-attr]
        window = (1, 1) if original.ndim == 4 else ()
        state[f"{name}.lora_A.weight"] = change.down.detach().view(len(change.down), *original.shape[1:])
        state[f"{name}.lora_B.weight"] = change.up.detach().view(*change.up.shape, *window)
    partial = directory / f"{_FILE}.partial"
    save_file({key: value.to("cpu", dtype).contiguous() for key, value in state.items()}, partial)
    partial.replace(directory / _FILE)


def load_student(unet: UNet2DConditionModel, directory: Path, merge: bool = True) -> UNet2DConditionModel:
    """Returns the student of this U-Net.

    Args:
        unet: What it was distilled from; not changed.
        directory: Of the adapter.
        merge: Adds the changes to the weights for good; else they stay factors beside them.

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
    wanted = {f"{name}.lora_{side}.weight" for name in layers for side in "AB"}
    if set(state) != wanted:
        odd = sorted(set(state) ^ wanted)[0]
        raise LegoError(f"{path} is of another U-Net ({odd} {'is missing' if odd in wanted else 'is unknown'})")
    for name, module in layers.items():
        change: LowRankChange = module.parametrizations.weight[0]  # type: ignore[index, union-attr]
        down, up = (state[f"{name}.lora_{side}.weight"].to(unet.dtype).flatten(1) for side in "AB")
        if down.shape[1] != change.down.shape[1] or up.shape[0] != change.up.shape[0] or up.shape[1] != down.shape[0]:
            raise LegoError(f"{path} is of another U-Net ({name} changes a weight of another shape)")
        change.down, change.up = nn.Parameter(down, False), nn.Parameter(up, False)
        if merge:
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return student.eval()


def _changed(unet: UNet2DConditionModel) -> dict[str, nn.Module]:
    """The layers that a student changes: every linear layer and convolution."""
    return {name: each for name, each in unet.named_modules() if isinstance(each, nn.Linear | nn.Conv2d)}
