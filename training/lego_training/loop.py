"""The training loop every stage shares: one function, readable top to bottom.

It shows a progress bar, writes losses to a CSV file, a picture and TensorBoard, saves often, and resumes exactly: the
data of a step depends on the step's number alone, so an interrupted run and an uninterrupted one see the same batches,
and one process sees what several do together.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, gather_object
from diffusers.training_utils import EMAModel
from lego_core.config import number_in_range, whole_number_in_range
from lego_core.errors import LegoError
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lego_training.batch import Batch, split_step
from lego_training.curves import plot_losses
from lego_training.journal import Figures, open_journal
from lego_training.processes import this_process
from lego_training.state import TrainingState, whole_weights
from lego_training.zero3 import Zero3

# The loss of a batch. Either its mean over the samples, or a sum and the weight that the whole step's sum is to be
# divided by: a mean over tokens, say, is not the mean of the batches' means.
Loss = Tensor | tuple[Tensor, Tensor]


@dataclass(frozen=True)
class LoopConfig:
    """How a stage is optimised.

    Attributes:
        steps: Optimizer steps in all.
        batch_size: Samples per step, of all processes and micro-batches together.
        learning_rate: Peak of AdamW.
        accumulate: Micro-batches per step, one after the other; more need less memory and change nothing else.
        gradient_checkpointing: Computes activations again in the backward pass: slower, in far less memory.
        warmup: Share of the steps in which the rate rises, 0 to 1.
        warmup_shape: "linear", or "log" as DeepSpeed's WarmupLR (lego-reference C8).
        schedule: After that "cosine" falls to 2 % of the peak at the end; "constant" stays.
        weight_decay: Of AdamW.
        ema_decay: Upper bound of the average's decay; 0 keeps no average.
        ema_every: The average moves once a "step", or once a "micro_batch" as in the original (lego-reference A7).
        max_gradient_norm: Gradients are scaled down to this norm; 0 never scales.
        precision: "bf16" computes under autocast, "fp32" without; "auto" is bf16 where the hardware has it.
        save_minutes: Minutes between saved states.
        sample_minutes: Minutes between sample pictures of a stage that paints; one more at the end. 0 paints none.
        threads: CPU threads; 0 leaves torch's choice.
        seed: Of data order, noise and dropout.
    """

    steps: int
    batch_size: int
    learning_rate: float
    accumulate: int = 1
    gradient_checkpointing: bool = False
    warmup: float = 0.03
    warmup_shape: str = "linear"
    schedule: str = "cosine"
    weight_decay: float = 0.01
    ema_decay: float = 0.0
    ema_every: str = "step"
    max_gradient_norm: float = 1.0
    precision: str = "auto"
    save_minutes: float = 5.0
    sample_minutes: float = 30.0
    threads: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("steps", 1, 10**8), ("batch_size", 1, 10**5), ("accumulate", 1, 10**4), ("threads", 0, 1024),
            ("seed", 0, 2**31 - 1),
        ):  # fmt: skip
            whole_number_in_range(name, getattr(self, name), least, most)
        for name, low, high in (
            ("learning_rate", 0, 1), ("warmup", 0, 1), ("weight_decay", 0, 10), ("ema_decay", 0, 0.99999),
            ("max_gradient_norm", 0, 1e6), ("save_minutes", 0, 1e6), ("sample_minutes", 0, 1e6),
        ):  # fmt: skip
            number_in_range(name, getattr(self, name), low, high)
        if not isinstance(self.gradient_checkpointing, bool):
            raise LegoError(f"gradient_checkpointing is {self.gradient_checkpointing!r}; it must be true or false")
        for name, known in (
            ("schedule", ("cosine", "constant")), ("warmup_shape", ("linear", "log")),
            ("ema_every", ("step", "micro_batch")), ("precision", ("auto", "bf16", "fp32")),
        ):  # fmt: skip
            if getattr(self, name) not in known:
                raise LegoError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}")

    def rate(self, step: int) -> float:
        """The learning rate of a step, as a share of the peak."""
        rising = max(1.0, self.warmup * self.steps)
        if step < rising:
            if self.warmup_shape == "log" and rising > 1:
                return min(1.0, math.log(step + 1) / math.log(math.ceil(rising)))
            return min(1.0, (step + 1) / rising)
        if self.schedule == "constant":
            return 1.0
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1.0, self.steps - rising)))


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies in bfloat16 itself; one that emulates it is many times slower than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def computes_in_bf16(config: LoopConfig, device: torch.device) -> bool:
    """Whether a stage computes under autocast to bfloat16."""
    return config.precision == "bf16" or (config.precision == "auto" and has_bf16(device))


def train(
    name: str,
    modules: Mapping[str, nn.Module],
    loss_of: Callable[[Batch], Loss],
    config: LoopConfig,
    run: Path,
    save_result: Callable[[], None],
    name_of: Callable[[Batch], list[str]] | None = None,
    paint: Callable[[], NDArray[np.uint8]] | None = None,
    kept: Mapping[str, nn.Module] | None = None,
) -> None:
    """Trains what requires a gradient in `modules` until `config.steps`, resuming where `run` left off.

    Started by `accelerate launch` or torchrun, several processes share each step's samples. Only the main one writes.

    Args:
        name: Of the stage, for the progress bar and the files.
        modules: What is trained and saved, by name.
        loss_of: Returns the loss of a batch: its mean over the samples, or (sum, weight), see `Loss`. It takes data and
            random numbers from the batch alone, so that a sample's loss does not depend on what it is computed with.
        config: How.
        run: Directory for the state, the losses and their picture.
        save_result: Called with the averaged weights in place, whenever the state is saved and at the end.
        name_of: Names the samples of a batch, for errors.
        paint: Returns sample pictures as one, (H, W, 3), with the averaged weights in place.
        kept: What the state file has the weights of, if not all modules: those that the stage cannot load again.

    Raises:
        LegoError: The loss or the gradient is no number, or the saved state is damaged or of another model.
        KeyboardInterrupt: After SIGINT or SIGTERM, once the state is saved.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    # A part of a network may be unused, such as the last layer of a vision tower that is tapped before it.
    data_parallel = DistributedDataParallelKwargs(find_unused_parameters=True)
    this_process()
    accelerator = Accelerator(kwargs_handlers=[data_parallel])
    device, processes = accelerator.device, accelerator.num_processes
    deepspeed = accelerator.distributed_type == DistributedType.DEEPSPEED
    divides = accelerator.is_fsdp2 or deepspeed
    state = TrainingState(run / f"{name}.pt", kept or modules)
    first = state.load_weights()
    if config.gradient_checkpointing:
        for module in modules.values():
            _checkpoint_activations(module)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=computes_in_bf16(config, device))
    # Whatever wraps a network calls it through its forward, so the loss is computed inside one.
    work = _Work(modules, loss_of, autocast)
    if divides:  # weights in their usual layout only
        work.to(memory_format=torch.contiguous_format)

    def adamw(parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, config.learning_rate, weight_decay=config.weight_decay, fused=True)

    zero3 = Zero3(accelerator, work) if deepspeed else None
    trained: Sequence[nn.Parameter]
    if zero3 is not None:
        model, trained = zero3.engine, zero3.parts
        optimizer = adamw(trained)
    else:
        model, optimizer = accelerator.prepare(work, adamw(_trained(work)))
        trained = _trained(model)
    average = EMAModel(trained, decay=config.ema_decay) if config.ema_decay else None
    state.load_optimizer(optimizer, trained, average)
    stop = _StopSignal()

    def with_average(act: Callable[[], None]) -> None:
        if average is not None:
            average.store(trained)
            average.copy_to(trained)
        work.eval()
        try:
            act()
        finally:
            work.train()
            if average is not None:
                average.restore(trained)

    def save_weights() -> None:
        with whole_weights(accelerator, modules):
            if accelerator.is_main_process:
                save_result()
                plot_losses(run)
        accelerator.wait_for_everyone()

    def save(step: int) -> None:
        state.save(accelerator, step, optimizer, trained, average)
        with_average(save_weights)

    work.train()
    saved_at = painted_at = ended_at = time.monotonic()
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
    )  # fmt: skip
    main = accelerator.is_main_process
    with Progress(*columns, disable=not main) as progress, open_journal(run, name, first, main) as journal, stop:

        def keep_picture(step: int) -> None:
            if paint is not None and not divides:  # else networks are whole within the loss only
                with torch.no_grad(), autocast:
                    picture = paint()
                journal.add_picture(step, picture)

        task = progress.add_task(name, total=config.steps, completed=first, loss=float("nan"))
        for step in range(first, config.steps):
            torch.manual_seed((config.seed << 32) + step)
            rate = config.learning_rate * config.rate(step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            batches = split_step(
                step, config.batch_size, config.seed, accelerator.process_index, processes, config.accumulate
            )
            total, weight = 0.0, 0.0
            faulty: list[Batch] = []
            for batch in batches:
                last = batch is batches[-1]
                together: AbstractContextManager[Any] = nullcontext() if last else accelerator.no_sync(model)
                with together:
                    summed, counted = model(batch)
                    if zero3 is not None:
                        zero3.backward(summed)
                    else:
                        accelerator.backward(summed)
                if not math.isfinite(float(summed.detach())):
                    faulty.append(batch)
                total, weight = total + float(summed.detach()), weight + float(counted)
                if average is not None and config.ema_every == "micro_batch" and not last:
                    average.step(trained)
            due = time.monotonic() - saved_at > 60 * config.save_minutes
            paints = 0 < 60 * config.sample_minutes < time.monotonic() - painted_at
            # One exchange a step: all processes learn the loss, and agree when to save and to stop.
            exchanged = torch.tensor(
                [total, weight, stop.requested, due and main, paints and main], dtype=torch.float64, device=device
            )
            total, weight, *flags = accelerator.reduce(exchanged, "sum").tolist()
            stops, saves, paints = (flag > 0 for flag in flags)
            loss = total / weight
            if not math.isfinite(loss):
                raise LegoError(_no_number(name, step, loss, faulty, loss_of, autocast, name_of, processes, config))
            if zero3 is not None:
                zero3.hand_over_gradients()
            # The gradients are of the sum, and the processes' are averaged: now they become those of the mean.
            for parameter in trained:
                if parameter.grad is not None:
                    parameter.grad.mul_(processes / weight)
            total_norm = torch.nn.utils.get_total_norm([each.grad for each in trained if each.grad is not None])
            if zero3 is not None:
                total_norm = zero3.total_norm(total_norm)
            torch.nn.utils.clip_grads_with_norm_(trained, config.max_gradient_norm or math.inf, total_norm)
            norm = _whole(total_norm)
            if not math.isfinite(norm):
                raise LegoError(f"{name}: the gradient of step {step} is {norm}; {_cure(config)}")
            optimizer.step()
            if zero3 is not None:
                zero3.end_step()
            else:
                optimizer.zero_grad(set_to_none=True)
            if average is not None:
                average.step(trained)
            now = time.monotonic()
            journal.add(Figures(step, loss, rate, norm, config.batch_size / (now - ended_at)))
            progress.update(task, completed=step + 1, loss=journal.smooth)
            if saves or stops:
                save(step + 1)
                saved_at = time.monotonic()
            if stops:
                raise KeyboardInterrupt(f"{name} stopped at step {step + 1}; run the same command again to go on")
            if paints:
                with_average(lambda: keep_picture(step + 1))  # noqa: B023  # called at once
                painted_at = time.monotonic()
            ended_at = time.monotonic()
        # A state that is further than `steps` keeps its count.
        save(max(first, config.steps))
        if config.sample_minutes and first < config.steps:
            with_average(lambda: keep_picture(config.steps))
    work.eval()
    if average is not None:
        average.copy_to(trained)


class _Work(nn.Module):
    """The modules in training, with the loss as their forward."""

    def __init__(
        self, modules: Mapping[str, nn.Module], loss_of: Callable[[Batch], Loss], autocast: torch.autocast
    ) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self._loss_of, self._autocast = loss_of, autocast
        # The layers that FSDP divides the weights by, as the networks name them.
        kinds = {type(each).__name__ for each in self.modules()}
        named = {kind for module in modules.values() for kind in getattr(module, "_no_split_modules", None) or ()}
        self._no_split_modules = sorted(kinds & named)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the loss as a sum, and the weight it is to be divided by."""
        with self._autocast:  # in here, as DeepSpeed switches one outside off
            loss = self._loss_of(batch)
        return loss if isinstance(loss, tuple) else (loss * len(batch), torch.tensor(float(len(batch))))


def _checkpoint_activations(module: nn.Module) -> None:
    """Switches gradient checkpointing on in a network of diffusers or transformers that has it; the small have not."""
    if getattr(module, "supports_gradient_checkpointing", False):
        module.activation_checkpointing_enable()  # type: ignore[operator]
    elif getattr(module, "_supports_gradient_checkpointing", False):
        module.enable_gradient_checkpointing()  # type: ignore[operator]


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [each for each in module.parameters() if each.requires_grad]


def _whole(value: Tensor) -> float:
    return float(value.full_tensor() if isinstance(value, DTensor) else value)


def _cure(config: LoopConfig) -> str:
    rate = config.learning_rate
    return f"lower learning_rate ({rate}) and run the same command again to go on from the last saved state"


def _no_number(
    name: str,
    step: int,
    loss: float,
    faulty: list[Batch],
    loss_of: Callable[[Batch], Loss],
    autocast: AbstractContextManager[Any],
    name_of: Callable[[Batch], list[str]] | None,
    processes: int,
    config: LoopConfig,
) -> str:
    """What to say of a loss that is no number: which samples it comes from, if it is not all of them."""
    guilty, others = [], 0
    if processes == 1:
        # A sample's loss does not depend on its company, so each can be tried alone.
        with torch.no_grad(), autocast:
            for batch in (one for each in faulty for one in each.one_by_one()):
                found = loss_of(batch)
                value = float(found[0] if isinstance(found, tuple) else found)
                if math.isfinite(value):
                    others += 1
                else:
                    guilty.append(batch)
    else:
        guilty = gather_object(faulty)
    names = [each for batch in guilty for each in (name_of(batch) if name_of else [f"number {batch.positions[0]}"])]
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    cure = f"look at these samples, or {_cure(config)}" if others else _cure(config)
    return f"{name}: the loss of step {step} is {loss}, from the samples {shown}; {cure}"


class _StopSignal:
    """Turns the first SIGINT or SIGTERM into a request; the step under way is finished and saved.

    A second signal does what it always did: a step may take longer than a person wants to wait.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, *_: object) -> None:
        self.requested = True
        self.__exit__()
