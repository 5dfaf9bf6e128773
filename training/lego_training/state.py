"""The state a run resumes from: weights, optimizer and moving average in one file, however they are sharded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from lego_core.errors import LegoError
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from lego_training.zero3 import Part, divided, is_divided, whole, whole_weight


class TrainingState:
    """Reads and writes the state file; tensors and numbers only, so it loads with `weights_only`.

    Only the main process writes. Sharded tensors are put together for it and divided again on reading, so a run may go
    on with another number of processes.

    Args:
        path: The file.
        modules: Whose weights it has.
    """

    def __init__(self, path: Path, modules: Mapping[str, nn.Module]) -> None:
        self._path, self._modules = path, modules
        self._values: dict[str, Any] = {}

    def load_weights(self) -> int:
        """Puts the saved weights into the modules, before these are sharded.

        Returns:
            The step to go on with; 0 when there is nothing to resume.

        Raises:
            LegoError: The file is damaged or of another model.
        """
        if not self._path.is_file():
            return 0
        try:
            self._values = torch.load(self._path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types on damaged files, with advice that would be unsafe
            raise LegoError(f"{self._path} is damaged; remove it to start anew") from error
        with self._naming_another_run():
            nn.ModuleDict(dict(self._modules)).load_state_dict(self._values["modules"])
            return int(self._values["step"])

    def load_optimizer(
        self,
        optimizer: torch.optim.Optimizer,
        trained: Sequence[nn.Parameter],
        average: EMAModel | None,
    ) -> None:
        """Goes on with the saved optimizer and moving average, sharded as the parameters are now.

        Raises:
            LegoError: The file is of another run.
        """
        if not self._values:
            return
        with self._naming_another_run():
            saved = self._values["optimizer"]
            for index, values in saved["state"].items():  # a parameter that never had a gradient has no state
                saved["state"][index] = {key: _like(value, trained[index]) for key, value in values.items()}
            optimizer.load_state_dict(saved)
            if average is not None:
                if self._values["average"] is None:
                    raise LegoError("it was saved without an average; set ema_decay to 0 to go on with it")
                average.load_state_dict(self._values["average"])
                average.shadow_params = [
                    _like(value.to(parameter.device), parameter)
                    for value, parameter in zip(average.shadow_params, trained, strict=True)
                ]
        self._values = {}

    def save(
        self,
        accelerator: Accelerator,
        step: int,
        optimizer: torch.optim.Optimizer,
        trained: Sequence[nn.Parameter],
        average: EMAModel | None,
    ) -> None:
        """Writes the state; the one before it is there until this one is whole.

        Raises:
            LegoError: It cannot be written; the state before it is kept.
        """
        averaged = average.state_dict() if average is not None else None
        if averaged is not None:
            averaged["shadow_params"] = [
                _whole(value, parameter) for value, parameter in zip(averaged["shadow_params"], trained, strict=True)
            ]
        stepped = optimizer.state_dict()
        stepped["state"] = {
            index: {key: _whole(value, trained[index]) for key, value in values.items()}
            for index, values in stepped["state"].items()
        }
        weights = nn.ModuleDict(dict(self._modules)).state_dict(keep_vars=True)
        values = {
            "step": step,
            "modules": {name: _whole(value) for name, value in weights.items()},
            "optimizer": stepped,
            "average": averaged,
        }
        if not accelerator.is_main_process:
            return
        partial = self._path.with_suffix(".partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(values, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._path)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            raise LegoError(
                f"{self._path} cannot be written ({error}); what was saved before is kept: make room and run the same "
                "command again"
            ) from error

    @contextmanager
    def _naming_another_run(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, LookupError, TypeError) as error:
            first = " ".join(str(error).split("\n")[:2]).replace("\t", "")  # torch lists every tensor
            raise LegoError(f"{self._path} is of another run ({first}); remove it to start anew") from error


@contextmanager
def whole_weights(accelerator: Accelerator, modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Puts sharded weights together, on the main process and on the CPU, for as long as they are to be saved."""
    sharded: list[tuple[nn.Module, str, nn.Parameter]] = []
    for module in modules.values():
        for owner in module.modules():
            for name, parameter in list(owner._parameters.items()):
                if isinstance(parameter, DTensor) or (parameter is not None and is_divided(parameter)):
                    full = _whole(parameter)  # every process takes part
                    sharded.append((owner, name, parameter))
                    if accelerator.is_main_process:
                        owner._parameters[name] = nn.Parameter(full, requires_grad=False)
    try:
        yield
    finally:
        for owner, name, parameter in sharded:
            owner._parameters[name] = parameter


def _like(value: Any, parameter: nn.Parameter) -> Any:
    """A saved tensor, sharded and laid out in memory as its parameter is, which fused optimizers take for granted."""
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    if isinstance(parameter, Part):
        return divided(value, parameter)
    if value.shape != parameter.shape:
        return value
    if isinstance(parameter, DTensor):
        return distribute_tensor(value.to(parameter.device).contiguous(), parameter.device_mesh, parameter.placements)
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _whole(value: Any, parameter: nn.Parameter | None = None) -> Any:
    """A weight, or what is kept of a parameter, put together on the CPU if it is sharded."""
    if isinstance(value, DTensor):
        return value.full_tensor().detach().cpu()
    if isinstance(parameter, Part) and value.shape == parameter.shape:
        return whole(value, parameter.weight).cpu()
    if isinstance(value, nn.Parameter):
        return whole_weight(value).cpu() if is_divided(value) else value.detach()
    return value
