"""The training loop: its data order, what it resumes, and how it stops."""

from __future__ import annotations

import csv
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lego_core.errors import LegoError
from lego_training.batch import Batch, batch_indices, split_step
from lego_training.loop import LoopConfig, train
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn


def config(**values: Any) -> LoopConfig:
    return LoopConfig(**{"steps": 8, "batch_size": 4, "learning_rate": 0.01, "threads": 1, "seed": 3} | values)


class Toy:
    """A small network with dropout, learning a fixed linear map; its data depends on the step alone."""

    def __init__(self, run: Path) -> None:
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.2), nn.Linear(16, 2))
        self.run = run
        self.steps: list[int] = []
        self.results: list[dict[str, Tensor]] = []
        self.trained_in_results: list[bool] = []

    def loss_of(self, batch: Batch) -> Tensor:
        self.steps.append(batch.step)
        inputs = batch.normal(4)
        return (self.module(inputs).float() - inputs[:, :2]).square().mean()

    def save_result(self) -> None:
        self.results.append({key: value.clone() for key, value in self.module.state_dict().items()})
        self.trained_in_results.append(self.module.training)

    def train(self, settings: LoopConfig) -> None:
        train("toy", {"toy": self.module}, self.loss_of, settings, self.run, self.save_result)


def losses(run: Path) -> list[tuple[int, float]]:
    rows = list(csv.DictReader((run / "toy.csv").read_text().splitlines()))
    return [(int(row["step"]), float(row["loss"])) for row in rows]


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(("batch", "count"), [(4, 12), (5, 12), (32, 6), (1, 3)])
def test_every_epoch_sees_every_sample_once(batch: int, count: int) -> None:
    epochs = 3
    steps = -(-epochs * count // batch)
    order = np.concatenate([batch_indices(step, batch, count, seed=1) for step in range(steps)])

    for epoch in range(epochs):
        assert sorted(order[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_epochs_and_seeds_have_their_own_order() -> None:
    first, second, other = batch_indices(0, 50, 50, 1), batch_indices(1, 50, 50, 1), batch_indices(0, 50, 50, 2)

    assert not np.array_equal(first, second) and not np.array_equal(first, other)


def test_a_steps_pieces_are_its_samples_and_their_random_numbers(tmp_path: Path) -> None:
    (whole,) = split_step(5, 7, seed=1, process=0, processes=1, pieces=1)
    pieces = [piece for process in range(2) for piece in split_step(5, 7, 1, process, processes=2, pieces=3)]

    assert len(pieces) == 6
    np.testing.assert_array_equal(np.concatenate([piece.indices(20) for piece in pieces]), whole.indices(20))
    assert torch.equal(torch.cat([piece.normal(2, 3) for piece in pieces]), whole.normal(2, 3))
    assert torch.equal(torch.cat([piece.uniform() for piece in pieces]), whole.uniform())
    assert torch.equal(torch.cat([piece.integers(1000) for piece in pieces]), whole.integers(1000))


def test_samples_and_steps_have_their_own_random_numbers() -> None:
    numbers = torch.stack([Batch(step, range(4), 4, seed).normal(3) for step, seed in ((0, 0), (1, 0), (0, 1))])

    assert len(set(numbers.flatten().tolist())) == numbers.numel()


def test_a_step_too_small_for_its_pieces_is_refused() -> None:
    with pytest.raises(LegoError, match="batch_size is 3, but 2 processes times accumulate = 2 need 4 samples"):
        split_step(0, 3, 0, 0, processes=2, pieces=2)


def test_a_steps_samples_depend_on_its_number_alone() -> None:
    np.testing.assert_array_equal(batch_indices(17, 4, 10, 0), batch_indices(17, 4, 10, 0))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_an_interrupted_run_ends_bit_for_bit_as_an_uninterrupted_one(
    tmp_path: Path, precision: str, ema_decay: float
) -> None:
    settings = config(precision=precision, ema_decay=ema_decay)
    whole = Toy(tmp_path / "whole")
    whole.train(settings)

    stopped = Toy(tmp_path / "stopped")
    loss_of = stopped.loss_of

    def interrupted(batch: Batch) -> Tensor:
        if batch.step == 4:
            signal.raise_signal(signal.SIGINT)
        return loss_of(batch)

    stopped.loss_of = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt, match="toy stopped at step 5; run the same command again to go on"):
        stopped.train(settings)
    resumed = Toy(tmp_path / "stopped")
    resumed.train(settings)

    assert stopped.steps == [0, 1, 2, 3, 4] and resumed.steps == [5, 6, 7]
    assert equal(resumed.results[-1], whole.results[-1])
    assert losses(resumed.run) == losses(whole.run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_finish_and_saves_state_and_result(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    toy = Toy(tmp_path)
    loss_of = toy.loss_of

    def signalled(batch: Batch) -> Tensor:
        signal.raise_signal(number)
        return loss_of(batch)

    toy.loss_of = signalled  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt, match="stopped at step 1"):
        toy.train(config())

    assert (tmp_path / "toy.pt").is_file() and len(toy.results) == 1
    assert len(losses(tmp_path)) == 1
    assert signal.getsignal(number) == before


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    toy = Toy(tmp_path)

    def stuck(batch: Batch) -> Tensor:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second signal must not wait for the step")

    toy.loss_of = stuck  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        toy.train(config())


def test_a_loss_that_is_no_number_stops_with_step_and_cure(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    loss_of = toy.loss_of
    toy.loss_of = lambda batch: loss_of(batch) * (float("nan") if batch.step == 2 else 1.0)  # type: ignore[method-assign]

    with pytest.raises(LegoError, match=r"toy: the loss of step 2 is nan, .* number 3; lower learning_rate \(0\.01\)"):
        toy.train(config())
    assert all(value.isfinite().all() for value in toy.module.state_dict().values())


def test_the_sample_that_spoils_a_loss_is_named_and_the_state_before_it_kept(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    loss_of = toy.loss_of

    def spoilt(batch: Batch) -> Tensor:
        bad = torch.tensor([float("nan") if index == 4 else 1.0 for index in batch.indices(12)])
        return loss_of(batch) * bad.mean()

    step = next(step for step in range(1, 9) if 4 in batch_indices(step, 4, 12, seed=3))
    assert 4 not in batch_indices(0, 4, 12, seed=3)
    with pytest.raises(LegoError, match=rf"step {step} is nan, from the samples clip 4; look at these samples, or"):
        train(
            "toy", {"toy": toy.module}, spoilt, config(save_minutes=0), tmp_path, toy.save_result,
            lambda batch: [f"clip {index}" for index in batch.indices(12)],
        )  # fmt: skip

    state = torch.load(tmp_path / "toy.pt", weights_only=True)
    assert state["step"] == step and all(value.isfinite().all() for value in state["modules"].values())


def test_a_gradient_that_is_no_number_stops_before_it_reaches_the_weights(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    loss_of = toy.loss_of

    def steep(batch: Batch) -> Tensor:
        # Its value is a number, its slope at zero is not.
        return loss_of(batch) + (toy.module[0].weight[0, 0] * 0).abs().sqrt()

    toy.loss_of = steep  # type: ignore[method-assign]
    with pytest.raises(LegoError, match="toy: the gradient of step 0 is nan; lower learning_rate"):
        toy.train(config())
    assert all(value.isfinite().all() for value in toy.module.state_dict().values())


def test_the_average_is_what_is_saved_and_not_what_goes_on(tmp_path: Path) -> None:
    plain, averaged = Toy(tmp_path / "plain"), Toy(tmp_path / "averaged")
    plain.train(config())
    averaged.train(config(ema_decay=0.9, save_minutes=0))

    # Saving after every step changed nothing in the path of the weights themselves.
    state = torch.load(averaged.run / "toy.pt", weights_only=True)["modules"]
    assert equal({key.removeprefix("toy."): value for key, value in state.items()}, plain.results[-1])
    assert len(averaged.results) == 8 + 1
    assert not equal(averaged.results[-1], plain.results[-1])
    # The module ends as its result.
    assert equal(averaged.module.state_dict(), averaged.results[-1])


def test_results_are_made_in_evaluation_mode(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.train(config(save_minutes=0))

    assert not any(toy.trained_in_results) and not toy.module.training


def test_frozen_weights_stay(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.module[0].requires_grad_(False)
    before = {key: value.clone() for key, value in toy.module.state_dict().items()}

    toy.train(config())

    after = toy.module.state_dict()
    assert torch.equal(after["0.weight"], before["0.weight"])
    assert not torch.equal(after["2.weight"], before["2.weight"])


def test_a_finished_run_only_writes_its_result_again(tmp_path: Path) -> None:
    Toy(tmp_path).train(config())
    again = Toy(tmp_path)
    again.train(config())

    assert again.steps == [] and len(again.results) == 1
    assert len(losses(tmp_path)) == 8


def test_fewer_steps_than_are_done_do_not_count_them_again(tmp_path: Path) -> None:
    Toy(tmp_path).train(config())
    Toy(tmp_path).train(config(steps=3))
    again = Toy(tmp_path)
    again.train(config(steps=9))

    assert again.steps == [8]


def test_a_run_killed_in_the_middle_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    Toy(tmp_path / "whole").train(config(steps=30))
    program = (
        "import sys; from pathlib import Path; from tests.training.test_loop import Toy, config\n"
        "import lego_training.loop as loop, time\n"
        "toy = Toy(Path(sys.argv[1])); loss_of = toy.loss_of\n"
        "toy.loss_of = lambda batch: (time.sleep(0.05), loss_of(batch))[1]\n"
        "toy.train(config(steps=30, save_minutes=0))\n"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    run = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", program, str(run)], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not (run / "toy.csv").is_file() or len((run / "toy.csv").read_text().splitlines()) < 6:
        assert process.poll() is None and time.monotonic() < deadline, "training never began"
        time.sleep(0.01)
    process.kill()
    process.wait()
    done = torch.load(run / "toy.pt", weights_only=True)["step"]
    assert 0 < done < 30

    resumed = Toy(run)
    resumed.train(config(steps=30))

    assert resumed.steps == list(range(done, 30))
    assert losses(run) == losses(tmp_path / "whole")


def test_a_run_goes_on_with_weights_in_another_layout(tmp_path: Path) -> None:
    """Weights divided between processes have the usual layout; those of a whole U-Net have the channels last."""

    def run(folder: Path, steps: int, layout: torch.memory_format) -> None:
        torch.manual_seed(0)
        module = nn.Conv2d(3, 5, 3).to(memory_format=layout)

        def loss_of(batch: Batch) -> Tensor:
            inputs = batch.normal(3, 6, 6)
            return (module(inputs)[:, :3] - inputs[:, :, 1:-1, 1:-1]).square().mean()

        settings = config(steps=steps, schedule="constant", warmup=0.0)
        train("toy", {"toy": module}, loss_of, settings, folder, lambda: None)

    run(tmp_path / "whole", 5, torch.channels_last)
    run(tmp_path / "moved", 2, torch.contiguous_format)
    run(tmp_path / "moved", 5, torch.channels_last)

    np.testing.assert_allclose(losses(tmp_path / "moved"), losses(tmp_path / "whole"), rtol=1e-5)


def test_a_state_that_cannot_be_written_costs_nothing_of_the_one_before(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.train(config(steps=2))
    before = (tmp_path / "toy.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As a full disk does, files may not grow any more.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(
            LegoError, match=r"toy\.pt cannot be written \(.*\); what was saved before is kept: make room"
        ):
            Toy(tmp_path).train(config(steps=3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert (tmp_path / "toy.pt").read_bytes() == before
    assert not (tmp_path / "toy.partial").exists()
    again = Toy(tmp_path)
    again.train(config(steps=3))
    assert again.steps == [2]


def test_an_average_may_move_with_every_micro_batch(tmp_path: Path) -> None:
    moved = {}
    for every in ("step", "micro_batch"):
        toy = Toy(tmp_path / every)
        toy.train(config(ema_decay=0.99, ema_every=every, accumulate=4, learning_rate=0.1))
        moved[every] = torch.load(toy.run / "toy.pt", weights_only=True)["average"]["optimization_step"]

    assert moved == {"step": 8, "micro_batch": 32}


def test_rate_gradient_norm_and_speed_go_to_the_csv_and_to_tensorboard(tmp_path: Path) -> None:
    Toy(tmp_path).train(config(steps=5, warmup=0.4))
    Toy(tmp_path).train(config(steps=7, warmup=0.4))

    rows = list(csv.DictReader((tmp_path / "toy.csv").read_text().splitlines()))
    assert [float(row["learning_rate"]) for row in rows[:2]] == [0.005, 0.01]
    assert all(float(row["gradient_norm"]) > 0 and float(row["samples_per_second"]) > 0 for row in rows)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "toy"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "learning_rate", "gradient_norm", "samples_per_second"}
    seen = events.Scalars("loss")
    assert [event.step for event in seen] == list(range(7))
    np.testing.assert_allclose([event.value for event in seen], [loss for _, loss in losses(tmp_path)], rtol=1e-4)


def test_pictures_are_painted_with_the_average_and_go_to_files_and_tensorboard(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    painted: list[tuple[dict[str, Tensor], bool]] = []

    def paint() -> np.ndarray:
        painted.append(({key: value.clone() for key, value in toy.module.state_dict().items()}, toy.module.training))
        return np.full((4, 6, 3), 7, np.uint8)

    settings = config(ema_decay=0.9, sample_minutes=1e-9)
    train("toy", {"toy": toy.module}, toy.loss_of, settings, tmp_path, toy.save_result, paint=paint)

    assert len(painted) == 8 + 1 and not any(training for _, training in painted)
    assert equal(painted[-1][0], toy.results[-1])
    names = [path.name for path in sorted((tmp_path / "samples").iterdir())]
    assert names == [f"toy_{step:07d}.png" for step in range(1, 9)]
    assert Image.open(tmp_path / "samples" / names[0]).size == (6, 4)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "toy"))
    events.Reload()
    assert events.Tags()["images"] == ["samples"]


def test_losses_become_a_picture(tmp_path: Path) -> None:
    Toy(tmp_path).train(config())

    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "toy.pt").write_bytes(b"not a state")

    with pytest.raises(LegoError, match=r"toy\.pt is damaged; remove it to start anew"):
        Toy(tmp_path).train(config())


def test_a_file_that_holds_something_else_is_named(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "toy.pt")

    with pytest.raises(LegoError, match=r"toy\.pt is of another run"):
        Toy(tmp_path).train(config())


def test_a_state_of_another_model_is_named(tmp_path: Path) -> None:
    Toy(tmp_path).train(config())
    other = Toy(tmp_path)
    other.module = nn.Sequential(nn.Linear(4, 2))

    with pytest.raises(LegoError, match=r"(?s)toy\.pt is of another run .*remove it to start anew"):
        other.train(config())


def test_a_state_without_an_average_says_how_to_go_on(tmp_path: Path) -> None:
    Toy(tmp_path).train(config())

    with pytest.raises(LegoError, match="saved without an average; set ema_decay to 0"):
        Toy(tmp_path).train(config(ema_decay=0.9))


def test_deepspeeds_warm_up_is_logarithmic_and_then_stays() -> None:
    settings = config(steps=492, warmup=0.03, warmup_shape="log", schedule="constant")

    rates = [settings.rate(step) for step in range(492)]

    expected = [np.log(step + 1) / np.log(15) for step in range(15)]
    np.testing.assert_allclose(rates[:15], expected)
    assert set(rates[15:]) == {1.0}


@pytest.mark.parametrize("steps", [1, 7, 50, 1000])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_rate_rises_to_its_peak_and_never_beyond(steps: int, schedule: str) -> None:
    rates = [config(steps=steps, schedule=schedule, warmup=0.03).rate(step) for step in range(steps)]

    peak = rates.index(max(rates))
    assert all(0 < rate <= 1 for rate in rates) and max(rates) == pytest.approx(1, abs=0.02)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    if schedule == "cosine" and steps == 1000:
        assert rates[-1] == pytest.approx(0.02, abs=1e-3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps is 0; it must lie between 1"),
        ({"steps": "many"}, "steps is 'many'; it must be a whole number"),
        ({"batch_size": 2.5}, "batch_size is 2.5; it must be a whole number"),
        ({"learning_rate": -0.1}, "learning_rate is -0.1; it must lie between 0 and 1"),
        ({"learning_rate": None}, "learning_rate is None; it must be a number"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"accumulate": 0}, "accumulate is 0; it must lie between 1"),
        ({"ema_every": "epoch"}, "ema_every is 'epoch'; choose one of step, micro_batch"),
        ({"warmup_shape": "cubic"}, "warmup_shape is 'cubic'; choose one of linear, log"),
        ({"gradient_checkpointing": 1}, "gradient_checkpointing is 1; it must be true or false"),
        ({"schedule": "linear"}, "schedule is 'linear'; choose one of cosine, constant"),
        ({"precision": "fp16"}, "precision is 'fp16'; choose one of auto, bf16, fp32"),
    ],
)
def test_a_value_out_of_range_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(LegoError, match=message):
        config(**values)
