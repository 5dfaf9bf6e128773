"""The training loop every stage shares: one function, readable top to bottom.

It shows a progress bar, writes losses to a CSV file and a picture, saves often, and resumes exactly: the data of a step
depends on the step's number alone, so an interrupted run and an uninterrupted one see the same batches.
"""

from __future__ import annotations

import csv
import math
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from accelerate import PartialState
from diffusers.training_utils import EMAModel
from lego_core.config import number_in_range, whole_number_in_range
from lego_core.errors import LegoError
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from lego_training.curves import plot_losses


@dataclass(frozen=True)
class LoopConfig:
    """How a stage is optimised.

    Attributes:
        steps: Optimizer steps in all.
        batch_size: Samples per step.
        learning_rate: Peak of AdamW.
        warmup: Share of the steps the rate rises linearly, 0 to 1.
        schedule: "cosine" falls to 2 % of the peak at the end; "constant" stays.
        weight_decay: Of AdamW.
        ema_decay: Upper bound of the average's decay; 0 keeps no average.
        max_gradient_norm: Gradients are scaled down to this norm; 0 never scales.
        precision: "bf16" computes under autocast, "fp32" without; "auto" is bf16 where the hardware has it.
        save_minutes: Minutes between saved states.
        threads: CPU threads; 0 leaves torch's choice.
        seed: Of data order, noise and dropout.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup: float = 0.03
    schedule: str = "cosine"
    weight_decay: float = 0.01
    ema_decay: float = 0.0
    max_gradient_norm: float = 1.0
    precision: str = "auto"
    save_minutes: float = 5.0
    threads: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("steps", 1, 10**8), ("batch_size", 1, 10**5), ("threads", 0, 1024), ("seed", 0, 2**31 - 1),
        ):  # fmt: skip
            whole_number_in_range(name, getattr(self, name), least, most)
        for name, low, high in (
            ("learning_rate", 0, 1), ("warmup", 0, 1), ("weight_decay", 0, 10), ("ema_decay", 0, 0.99999),
            ("max_gradient_norm", 0, 1e6), ("save_minutes", 0, 1e6),
        ):  # fmt: skip
            number_in_range(name, getattr(self, name), low, high)
        for name, known in (("schedule", ("cosine", "constant")), ("precision", ("auto", "bf16", "fp32"))):
            if getattr(self, name) not in known:
                raise LegoError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}")

    def rate(self, step: int) -> float:
        """The learning rate of a step, as a share of the peak."""
        rising = max(1.0, self.warmup * self.steps)
        if step < rising:
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


def batch_indices(step: int, batch_size: int, count: int, seed: int) -> NDArray[np.int64]:
    """Returns the sample indices of a step: every epoch is its own permutation, batches run on across epochs."""
    first = step * batch_size
    wanted = np.arange(first, first + batch_size)
    indices = np.empty(batch_size, np.int64)
    for epoch in np.unique(wanted // count):
        order = np.random.default_rng((seed, int(epoch))).permutation(count)
        mine = wanted // count == epoch
        indices[mine] = order[wanted[mine] % count]
    return indices


def train(
    name: str,
    modules: Mapping[str, nn.Module],
    loss_of_step: Callable[[int], Tensor],
    config: LoopConfig,
    run: Path,
    save_result: Callable[[], None],
) -> None:
    """Trains what requires a gradient in `modules` until `config.steps`, resuming where `run` left off.

    Args:
        name: Of the stage, for the progress bar and the files.
        modules: What is trained and saved, by name.
        loss_of_step: Returns the loss of a step; it takes that step's data itself.
        config: How.
        run: Directory for the state, the losses and their picture.
        save_result: Called with the averaged weights in place, whenever the state is saved and at the end.

    Raises:
        LegoError: The loss is no number, or the saved state is damaged or of another model.
        KeyboardInterrupt: After SIGINT or SIGTERM, once the state is saved.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    device = PartialState().device
    bundle = nn.ModuleDict(dict(modules)).to(device)
    trained = [parameter for parameter in bundle.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, config.learning_rate, weight_decay=config.weight_decay, fused=True)
    average = EMAModel(trained, decay=config.ema_decay) if config.ema_decay else None
    state = _State(run / f"{name}.pt", bundle, optimizer, average)
    first = state.load()
    stop = _StopSignal()
    bf16 = config.precision == "bf16" or (config.precision == "auto" and has_bf16(device))

    def save(step: int) -> None:
        state.save(step)
        if average is not None:
            average.store(trained)
            average.copy_to(trained)
        bundle.eval()
        save_result()
        bundle.train()
        if average is not None:
            average.restore(trained)
        plot_losses(run)

    bundle.train()
    saved_at = time.monotonic()
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
    )  # fmt: skip
    with Progress(*columns) as progress, _LossLog(run / f"{name}.csv", first) as log, stop:
        task = progress.add_task(name, total=config.steps, completed=first, loss=float("nan"))
        for step in range(first, config.steps):
            torch.manual_seed((config.seed << 32) + step)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * config.rate(step)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = loss_of_step(step)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise LegoError(
                    f"{name}: the loss of step {step} is {value}; lower learning_rate ({config.learning_rate}) and run "
                    "the same command again to go on from the last saved state"
                )
            loss.backward()
            if config.max_gradient_norm:
                torch.nn.utils.clip_grad_norm_(trained, config.max_gradient_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if average is not None:
                average.step(trained)
            log.add(step, value)
            progress.update(task, completed=step + 1, loss=log.smooth)
            if stop.requested or time.monotonic() - saved_at > 60 * config.save_minutes:
                save(step + 1)
                saved_at = time.monotonic()
            if stop.requested:
                raise KeyboardInterrupt(f"{name} stopped at step {step + 1}; run the same command again to go on")
    # A state that is further than `steps` keeps its count.
    save(max(first, config.steps))
    bundle.eval()
    if average is not None:
        average.copy_to(trained)


class _State:
    """The file a run resumes from; tensors and numbers only, so it loads with `weights_only`."""

    def __init__(
        self, path: Path, bundle: nn.Module, optimizer: torch.optim.Optimizer, average: EMAModel | None
    ) -> None:
        self._path, self._bundle, self._optimizer, self._average = path, bundle, optimizer, average

    def load(self) -> int:
        """Returns the step to go on with; 0 when there is nothing to resume."""
        if not self._path.is_file():
            return 0
        try:
            values = torch.load(self._path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types on damaged files, with advice that would be unsafe
            raise LegoError(f"{self._path} is damaged; remove it to start anew") from error
        try:
            self._bundle.load_state_dict(values["modules"])
            self._optimizer.load_state_dict(values["optimizer"])
            if self._average is not None:
                if values["average"] is None:
                    raise LegoError("it was saved without an average; set ema_decay to 0 to go on with it")
                self._average.load_state_dict(values["average"])
                self._average.to(next(self._bundle.parameters()).device)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise LegoError(f"{self._path} is of another run ({error}); remove it to start anew") from error
        return int(values["step"])

    def save(self, step: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        values = {
            "step": step,
            "modules": self._bundle.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": self._average.state_dict() if self._average is not None else None,
        }
        # An interrupted write must not cost the state before it.
        partial = self._path.with_suffix(".partial")
        torch.save(values, partial)
        partial.replace(self._path)


class _LossLog:
    """`<stage>.csv` with one line a step; lines of steps done twice after a resume are dropped."""

    def __init__(self, path: Path, first: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = list(csv.reader(path.read_text().splitlines()))[1 : first + 1] if path.is_file() else []
        self._file = path.open("w", newline="", buffering=1)
        self._writer = csv.writer(self._file)
        self._writer.writerows([("step", "loss"), *kept])
        self.smooth = float(kept[-1][1]) if kept else float("nan")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, step: int, loss: float) -> None:
        self._writer.writerow((step, f"{loss:.6g}"))
        self.smooth = loss if math.isnan(self.smooth) else 0.98 * self.smooth + 0.02 * loss


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
