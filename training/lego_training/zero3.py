"""DeepSpeed's ZeRO-3 for the training loop: weights, gradients and optimizer state divided between processes.

DeepSpeed's own way, one backward pass that also clips and steps, would take out of the loop what makes a run's losses
those of one process. So its engine gathers a layer's weights when they are needed and adds up gradients, its optimizer
updates the weights, and the loop does what lies between. What it does that with are the parts: of each trained weight
the share that this process holds, flat, in the memory where DeepSpeed keeps it.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from accelerate import Accelerator
from lego_core.errors import LegoError
from torch import Tensor, nn


class Part(nn.Parameter):
    """This process's part of a weight, (ceil(elements / processes),); its gradient is the weight's, divided alike.

    Every process's part is of the same size, so the last ones may end in padding.
    """

    weight: Any

    def __new__(cls, weight: nn.Parameter) -> Part:
        """Makes the part of a weight that DeepSpeed has divided."""
        from deepspeed.utils import safe_get_local_fp32_param, safe_get_local_grad

        part = super().__new__(cls, safe_get_local_fp32_param(weight).detach())
        part.weight = weight
        part.grad = safe_get_local_grad(weight)
        return part


def is_divided(weight: Tensor) -> bool:
    """Whether DeepSpeed holds a weight in parts."""
    return hasattr(weight, "ds_tensor")


def whole_weight(weight: Any) -> Tensor:
    """Puts a divided weight together; every process takes part."""
    return whole(weight.ds_tensor, weight)


def whole(values: Tensor, weight: Any) -> Tensor:
    """Puts together what is divided as a weight is, such as its average; every process takes part.

    Args:
        values: Those of this process, as long as its part.
        weight: The weight.

    Returns:
        The values of all, in the shape of the weight.
    """
    parts = values.new_empty(torch.distributed.get_world_size() * values.numel())
    torch.distributed.all_gather_into_tensor(parts, values.detach().contiguous())
    return parts[: weight.ds_numel].view(weight.ds_shape)


def divided(values: Tensor, part: Part) -> Tensor:
    """Returns what a process keeps of values, given in the shape of a weight: those of its part."""
    start = torch.distributed.get_rank() * part.numel()
    mine = values.reshape(-1)[start : start + part.numel()].to(part.device)
    return torch.nn.functional.pad(mine, (0, part.numel() - mine.numel()))


class Zero3Optimizer:
    """DeepSpeed's optimizer, as an optimizer of torch whose parameters are the parts.

    Args:
        engine: DeepSpeed's, which has the optimizer.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.parts = [Part(weight) for weight in engine.module.parameters() if weight.requires_grad]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The settings, such as the learning rate; what is set there counts."""
        return self._engine.optimizer.param_groups

    def total_norm(self, mine: Tensor) -> Tensor:
        """The norm of the whole gradient, given that of this process's parts."""
        squares = mine.square()
        torch.distributed.all_reduce(squares)
        return squares.sqrt()

    def step(self) -> None:
        """Updates the weights with the gradients that the parts have now."""
        self._engine.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients; DeepSpeed would go on with the old one of a weight that a step does not use."""
        for part in self.parts:
            if part.grad is not None:
                part.grad.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as torch has it, of each weight's part."""
        from deepspeed.utils import safe_get_local_optimizer_state

        state: dict[int, dict[str, Any]] = {}
        # DeepSpeed joins many parts to one tensor, and these have one `step`.
        for joined in list(self._torch.state.values())[:1]:
            for index, part in enumerate(self.parts):
                state[index] = {
                    key: value.clone() if value.dim() == 0 else safe_get_local_optimizer_state(part.weight, key)
                    for key, value in joined.items()
                }
        groups = [{**group, "params": list(range(len(self.parts)))} for group in self.param_groups]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Goes on with a state of the parts.

        Raises:
            ValueError: It is of other weights.
        """
        from deepspeed.utils import safe_set_local_optimizer_state

        (group,), (before,) = self.param_groups, saved["param_groups"]
        if len(before["params"]) != len(self.parts):
            raise ValueError(f"it has the optimizer state of {len(before['params'])} weights, not {len(self.parts)}")
        group.update({key: value for key, value in before.items() if key != "params"})
        if not saved["state"]:
            return
        step = max(float(values["step"]) for values in saved["state"].values())
        for joined in self._engine.optimizer.fp32_partitioned_groups_flat:
            self._torch.state[joined] = {
                "step": torch.tensor(step, device=joined.device),
                "exp_avg": torch.zeros_like(joined),
                "exp_avg_sq": torch.zeros_like(joined),
            }
        for index, values in saved["state"].items():
            for key in ("exp_avg", "exp_avg_sq"):
                safe_set_local_optimizer_state(self.parts[index].weight, values[key], key)

    @property
    def _torch(self) -> torch.optim.Optimizer:
        return self._engine.optimizer.optimizer


def divide(
    accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[nn.Module, Zero3Optimizer]:
    """Divides a model between the processes.

    Returns:
        DeepSpeed's engine, to be called in place of the model, and the optimizer.

    Raises:
        LegoError: The configuration asks for what the loop cannot train with.
    """
    config = accelerator.deepspeed_plugin.deepspeed_config
    _check(config, model)
    import deepspeed
    from transformers.integrations import unset_hf_deepspeed_config

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # accelerate has told transformers that models are loaded in parts now; the stages load whole ones.
    unset_hf_deepspeed_config()
    if accelerator.device.type == "cpu":
        # Else DeepSpeed compiles a sum in shared memory of its own, for which there may be no compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # accelerate wants to know the batch, which is the loop's affair, and would clip gradients by itself.
    config["train_micro_batch_size_per_gpu"], config["gradient_clipping"] = 1, 0.0
    engine, _ = accelerator.prepare(model, optimizer)
    return engine, Zero3Optimizer(engine)


def backward(engine: Any, loss: Tensor, last: bool) -> None:
    """Adds the gradients of a micro-batch to those of the step's others, their mean over the processes.

    Args:
        engine: DeepSpeed's.
        loss: A scalar.
        last: Whether this is the step's last.
    """
    engine.set_gradient_accumulation_boundary(last)
    engine.backward(loss)


def _check(config: dict[str, Any], model: nn.Module) -> None:
    zero = config["zero_optimization"]
    if zero["stage"] != 3:
        raise LegoError(f"zero_stage is {zero['stage']}; of DeepSpeed's stages only 3 is supported")
    for key in ("offload_optimizer", "offload_param"):
        where = (zero.get(key) or {}).get("device") or "none"
        if where != "none":
            raise LegoError(f"{key}_device is {where!r}; set it to none: nothing can be kept off the GPU")
    for key in ("fp16", "bf16"):
        if (config.get(key) or {}).get("enabled"):
            raise LegoError(f'DeepSpeed\'s {key} is on; set mixed_precision to "no", and the stage\'s precision instead')
    if not all(each.is_floating_point() for each in model.parameters()):
        raise LegoError("ZeRO-3 cannot divide weights of four bits; choose lora or full for tuning.mode")
