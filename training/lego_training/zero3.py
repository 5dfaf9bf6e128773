"""DeepSpeed's ZeRO-3 for the training loop: weights, gradients and optimizer state divided between processes.

DeepSpeed's own step scales, clips and updates at once, by its own rules, and a run's losses would not be those of one
process. Here its engine divides the weights, gathers a layer's when they are needed, and adds up the gradients; the
loop does the rest as ever, with parts in place of weights: of each trained weight the share that this process holds, in
the memory where DeepSpeed keeps it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from lego_core.errors import LegoError
from torch import Tensor, nn

# Of DeepSpeed's settings those that hold weights in another way than in as many parts as there are processes.
_OTHER_DIVISIONS = {
    "zero_hpz_partition_size": 1, "mics_shard_size": -1, "zero_quantized_weights": False,
    "zero_quantized_nontrainable_weights": False, "zero_quantized_gradients": False,
}  # fmt: skip


class Part(nn.Parameter):
    """This process's share of a weight, flat: (ceil(elements / processes),).

    The shares are of one size, so the last may end in padding.

    Attributes:
        weight: Which DeepSpeed has divided.
    """

    weight: Any

    def __new__(cls, weight: Any) -> Part:
        """Makes the part of a divided weight that this process has."""
        part = super().__new__(cls, weight.ds_tensor.detach())
        part.weight = weight
        return part


def is_divided(weight: Tensor) -> bool:
    """Whether DeepSpeed holds a weight in parts."""
    return hasattr(weight, "ds_tensor")


def whole_weight(weight: Any) -> Tensor:
    """Puts a divided weight together; every process takes part."""
    return whole(weight.ds_tensor, weight)


def whole(values: Tensor, weight: Any) -> Tensor:
    """Puts together what is divided as a weight is; every process takes part.

    Args:
        values: Those of this process: its part of the weight, or what an optimizer or average keeps of that.
        weight: The weight.

    Returns:
        The values of all, in the shape of the weight.
    """
    parts = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, values.detach())
    return torch.cat(parts)[: weight.ds_numel].view(weight.ds_shape)


def divided(values: Tensor, part: Part) -> Tensor:
    """Returns what this process keeps of `values`, in the shape of a weight: as much as its part."""
    start = torch.distributed.get_rank() * part.numel()
    mine = values.reshape(-1)[start : start + part.numel()].to(part.device)
    return torch.nn.functional.pad(mine, (0, part.numel() - mine.numel()))


class Zero3:
    """A model that DeepSpeed has divided between the processes.

    Args:
        accelerator: Set up for DeepSpeed.
        model: Whole on every process; it is divided in place.

    Attributes:
        engine: To be called in place of the model.
        parts: This process's parts of what requires a gradient, for an optimizer.

    Raises:
        LegoError: The configuration asks for what the loop cannot train with.
    """

    def __init__(self, accelerator: Accelerator, model: nn.Module) -> None:
        config = accelerator.deepspeed_plugin.deepspeed_config
        _check(config, model)
        import deepspeed
        from transformers.integrations import unset_hf_deepspeed_config

        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        # It calls some of torch's functions by the names they had.
        warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)
        # accelerate has told transformers to load models in parts from now on; the stages load whole ones.
        unset_hf_deepspeed_config()
        if accelerator.device.type == "cpu":
            # Else DeepSpeed compiles a sum in shared memory of its own, for which there may be no compiler.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        # accelerate wants to know the batch, which is the loop's affair.
        config["train_micro_batch_size_per_gpu"] = 1
        weights = [each for each in model.parameters() if each.requires_grad]
        # DeepSpeed divides gradients for an optimizer only. This one never steps, and so has no state.
        self.engine, _ = accelerator.prepare(model, torch.optim.AdamW(weights))
        self.parts: Sequence[Part] = [Part(weight) for weight in weights]
        self._used: set[int] = set()
        for index, weight in enumerate(weights):
            weight.register_post_accumulate_grad_hook(lambda _, index=index: self._used.add(index))

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a micro-batch's loss, a scalar, to the step's: their mean over the processes."""
        self.engine.backward(loss)

    def hand_over_gradients(self) -> None:
        """Gives the parts their gradients: none where no loss of the step depended on the weight."""
        from deepspeed.utils import safe_get_local_grad

        for index, part in enumerate(self.parts):
            part.grad = safe_get_local_grad(part.weight) if index in self._used else None

    def total_norm(self, mine: Tensor) -> Tensor:
        """The norm of the whole gradient, given that of this process's parts."""
        squares = mine.square()
        torch.distributed.all_reduce(squares)
        return squares.sqrt()

    def end_step(self) -> None:
        """Forgets the gradients, and the copies that were made of whole weights before they changed."""
        for part in self.parts:
            if part.grad is not None:
                # DeepSpeed would add to it in a step whose first micro-batch does not use the weight.
                part.grad.zero_()
                part.grad = None
        self._used.clear()
        self.engine.optimizer.zero_grad()
        self.engine.optimizer.empty_partition_cache()


def _check(config: dict[str, Any], model: nn.Module) -> None:
    zero = config["zero_optimization"]
    if zero["stage"] != 3:
        raise LegoError(f"zero_stage is {zero['stage']}; of DeepSpeed's stages choose 3")
    for key in ("offload_optimizer", "offload_param"):
        where = (zero.get(key) or {}).get("device") or "none"
        if where != "none":
            raise LegoError(f"{key}_device is {where!r}; set it to none, as nothing can be kept off the GPUs")
    for key, usual in _OTHER_DIVISIONS.items():
        if zero.get(key, usual) != usual:
            raise LegoError(f"{key} is {zero[key]!r}; leave it out, as weights are divided between all processes only")
    for key in ("fp16", "bf16", "torch_autocast"):
        if (config.get(key) or {}).get("enabled") is True:
            raise LegoError(f"DeepSpeed's {key} is on; leave it out and set mixed_precision to no: `precision` decides")
    if not all(each.is_floating_point() for each in model.parameters()):
        raise LegoError("tuning.mode is qlora, whose weights of four bits ZeRO-3 cannot divide; choose lora or full")
