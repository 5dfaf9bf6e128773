"""`lego-train` as a person runs it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lego_core.config import LegoConfig
from lego_model.checkpoint import LegoCheckpoint, fingerprint
from lego_training.cli import main

from tests.training.conftest import PAIRS, TINY, Workshop

LOOP = "{steps: 2, batch_size: 2, learning_rate: 1.0e-3, threads: 1, precision: fp32, sample_minutes: 0}"
CONFIG = f"""
dataset: plain
architecture: {TINY}
seed: 0
vae: {LOOP}
pretrain_vllm: {LOOP}
tune_vllm: {LOOP}
tune_diffusion: {LOOP}
distil: {LOOP}
tuning: {{}}
diffusion: {{train_text_encoder: true}}
distillation: {{steps: 2, teacher_steps: 2, samples: 4, rank: 2}}
"""


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Runs the command in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["lego-train", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG)
    return path


def test_help_answers_without_loading_torch() -> None:
    program = (
        "import sys; sys.argv = ['lego-train', '--help']\n"
        "from lego_training.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'diffusers', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert done.stdout.rstrip().endswith("[]"), done.stderr
    for command in (
        "create",
        "all",
        "vae",
        "pretrain-vllm",
        "tune-vllm",
        "embed",
        "tune-diffusion",
        "distil",
        "ablate",
        "baselines",
        "reproduce",
        "features",
        "prepare",
        "curate",
        "check-data",
        "evaluate",
        "toy-kitchen",
    ):
        assert command in done.stdout


def test_every_stage_in_order_makes_a_checkpoint_that_says_how_it_was_made(
    monkeypatch: pytest.MonkeyPatch, config: Path, workshop: Workshop, tmp_path: Path
) -> None:
    config.write_text(CONFIG.replace("dataset: plain", "dataset: toykitchen"))
    checkpoint, runs = tmp_path / "checkpoint", tmp_path / "runs"
    common = ("--data", workshop.data, "--checkpoint", checkpoint)
    assert run(monkeypatch, "create", config, *common) == 0
    for stage in ("vae", "pretrain-vllm", "embed", "tune-diffusion", "distil"):
        assert run(monkeypatch, stage, config, *common, "--run", runs, "tune_diffusion.steps=3") == 0

    stages = LegoConfig.load(checkpoint).provenance["stages"]
    assert list(stages) == ["vae", "pretrain-vllm", "embed", "tune-diffusion", "distil"]
    assert stages["tune-diffusion"]["command"] == "lego-train tune-diffusion run.yaml tune_diffusion.steps=3"
    assert stages["tune-diffusion"]["config"]["steps"] == 3 and stages["tune-diffusion"]["samples"] == PAIRS
    assert stages["distil"]["distillation"]["rank"] == 2
    assert LegoCheckpoint.load(checkpoint).student is not None
    assert sorted(path.name for path in runs.glob("*.csv")) == ["pretrain_vllm.csv", "tune_diffusion.csv", "vae.csv"]
    assert (runs / "distil" / "distil.csv").is_file()


def test_a_run_without_a_student_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, config: Path, workshop: Workshop, checkpoint: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config.write_text(CONFIG.replace(f"distil: {LOOP}\n", "").replace("dataset: plain", "dataset: toykitchen"))
    places = ("--data", workshop.data, "--checkpoint", checkpoint, "--run", tmp_path / "runs")

    assert run(monkeypatch, "distil", config, *places) == 2
    assert "has no settings for distil; add the key distil" in capsys.readouterr().err


def test_a_model_is_judged_with_its_student(
    monkeypatch: pytest.MonkeyPatch, config: Path, workshop: Workshop, checkpoint: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    judge = ("evaluate", "toy", "--checkpoint", checkpoint, "--scenes", "1", "--json", tmp_path / "figures.json")
    assert run(monkeypatch, *judge, "--sampler", "distilled") == 2
    assert "has no distilled student" in capsys.readouterr().err
    config.write_text(CONFIG.replace("dataset: plain", "dataset: toykitchen"))
    places = ("--data", workshop.data, "--checkpoint", checkpoint, "--run", tmp_path / "runs")
    assert run(monkeypatch, "distil", config, *places) == 0

    assert run(monkeypatch, *judge, "--sampler", "distilled") == 0

    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["sampler"], figures["steps"], figures["unet_evaluations_per_frame"]) == ("distilled", 2, 2)
    compare = ("evaluate", "student", "--checkpoint", checkpoint, "--scenes", "2", "--json", tmp_path / "student.json")
    assert run(monkeypatch, *compare, "--teacher-steps", "3", "--teacher-steps", "1") == 0
    compared = json.loads((tmp_path / "student.json").read_text())
    assert list(compared["ways"]) == ["guided, 3 steps", "guided, 1 steps", "student, 2 steps"]
    assert [way["unet_evaluations"] for way in compared["ways"].values()] == [6, 2, 2]
    nearness = [way["teacher_psnr_db"] for way in compared["ways"].values()]
    assert nearness[0] is None and all(5 < value < 100 for value in nearness[1:])
    assert (tmp_path / "student.png").is_file()
    assert run(monkeypatch, *judge, "--steps", "3") == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    # Both scales are alike, so the branch without the description weighs nothing and is not asked.
    assert figures["unet_evaluations_per_frame"] == 2 * figures["steps"] == 6


def test_features_are_written_in_shards_and_trained_on(
    monkeypatch: pytest.MonkeyPatch, config: Path, plain_data: Path, checkpoint: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    data = ("--data", plain_data, "--checkpoint", checkpoint)
    writing = ("features", *data, "--dataset", "plain", "--out", tmp_path / "features", "--max-tokens", "4")

    assert run(monkeypatch, *writing, "--shard", "1/2") == 0
    assert f"wrote the features of 3 records below {tmp_path / 'features'}; 3 of" in capsys.readouterr().out
    unet = (
        "tune-diffusion",
        config,
        *data,
        "--run",
        tmp_path / "runs",
        "--features",
        tmp_path / "features",
        "tune_diffusion.steps=2",
    )
    assert run(monkeypatch, *unet) == 2
    assert "3 of 6 records lack their features" in capsys.readouterr().err
    assert run(monkeypatch, *writing, "--shard", "2/2") == 0
    assert "the split is complete" in capsys.readouterr().out
    assert run(monkeypatch, *unet) == 0


def test_the_vllm_is_tuned_on_a_curation_file(
    monkeypatch: pytest.MonkeyPatch,
    config: Path,
    workshop: Workshop,
    plain_data: Path,
    checkpoint: Path,
    tmp_path: Path,
) -> None:
    curation = workshop.data / "curation_from_gpt" / "toykitchen_for_tuning_forecasting.json"
    arguments = ("--data", plain_data, "--checkpoint", checkpoint, "--run", tmp_path / "runs")
    before = fingerprint(checkpoint, ("vllm",))

    assert run(monkeypatch, "tune-vllm", config, *arguments, "--curation", curation) == 0

    made = LegoConfig.load(checkpoint).provenance["stages"]["tune-vllm"]
    assert made["command"] == f"lego-train tune-vllm run.yaml --curation {curation.name}"
    assert made["samples"] == PAIRS and fingerprint(checkpoint, ("vllm",)) != before


def test_a_sound_dataset_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch, workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "check-data", workshop.data, "--json", tmp_path / "report.json") == 0

    # The training pairs, one of val, and the training pairs' conversations.
    assert capsys.readouterr().out == f"toykitchen: {2 * PAIRS + 1} records, 0 faults\n"
    assert json.loads((tmp_path / "report.json").read_text())["findings"] == []


def test_what_is_wrong_with_a_dataset_is_said_and_counted(
    monkeypatch: pytest.MonkeyPatch, plain_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # It has no metadata.
    assert run(monkeypatch, "check-data", plain_data, "--dataset", "plain", "--smallest-side", "300") == 1

    said = capsys.readouterr().out.splitlines()
    assert f"{plain_data}/plain_metadata.json: is missing: it gives each clip's height and width" in said
    assert said[-1] == f"plain: {PAIRS} records, {2 * PAIRS + 1} faults"
    assert [line.split(maxsplit=1) for line in said[-3:-1]] == [[str(2 * PAIRS), "small frame"], ["1", "metadata"]]


def test_all_refuses_what_a_later_stage_would_lack_and_keeps_what_is_done(
    monkeypatch: pytest.MonkeyPatch, config: Path, plain_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, runs = tmp_path / "checkpoint", tmp_path / "runs"
    arguments = ("--data", plain_data, "--checkpoint", checkpoint, "--run", runs)

    assert run(monkeypatch, "all", config, *arguments) == 2

    assert "no scene captions in its metadata" in capsys.readouterr().err
    assert list(LegoConfig.load(checkpoint).provenance["stages"]) == ["vae"]
    assert run(monkeypatch, "tune-vllm", config, *arguments) == 0


def test_all_goes_on_behind_the_stages_that_are_done_and_keeps_their_record(
    monkeypatch: pytest.MonkeyPatch, config: Path, workshop: Workshop, checkpoint: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config.write_text(CONFIG.replace("dataset: plain", "dataset: toykitchen"))
    arguments = ("--data", workshop.data, "--checkpoint", checkpoint, "--run", tmp_path / "runs")
    for stage in ("vae", "pretrain-vllm", "embed", "tune-diffusion"):
        assert run(monkeypatch, stage, config, *arguments) == 0
    # As if tuning had ended: another 300 scenes would have to be described for it.
    lego = LegoConfig.load(checkpoint)
    stages = lego.provenance["stages"]
    stages["tune-vllm"] = {**stages["pretrain-vllm"], "tuning": {"train_vision_tower": False}}
    stages["vae"]["git_commit"] = "the one that made it"
    replace(lego, provenance={"stages": stages}).save(checkpoint)
    (tmp_path / "runs" / "tune_vllm.pt").write_bytes(b"")
    vllm = fingerprint(checkpoint, ("vllm",))
    capsys.readouterr()

    assert run(monkeypatch, "all", config, *arguments, "tune_diffusion.steps=4") == 0

    said = capsys.readouterr().out
    assert all(f"{stage} is done" in said for stage in ("vae", "pretrain-vllm", "tune-vllm", "embed"))
    assert LegoConfig.load(checkpoint).student is not None
    # Going on with the teacher drops its student, and another is made once the old one's folder is gone.
    assert run(monkeypatch, "tune-diffusion", config, *arguments, "tune_diffusion.steps=6") == 0
    assert run(monkeypatch, "all", config, *arguments, "tune_diffusion.steps=6") == 2
    assert "of another teacher" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "runs" / "distil")
    assert run(monkeypatch, "all", config, *arguments, "tune_diffusion.steps=6") == 0
    assert LegoConfig.load(checkpoint).student is not None
    assert "tune-diffusion is done" not in said and fingerprint(checkpoint, ("vllm",)) == vllm
    assert run(monkeypatch, "vae", config, *arguments) == 0
    stages = LegoConfig.load(checkpoint).provenance["stages"]
    assert (
        stages["tune-diffusion"]["config"]["steps"] == 6
        and stages["tune-diffusion"]["diffusion"]["train_text_encoder"] is True
    )
    assert stages["vae"]["git_commit"] == "the one that made it"


def test_a_place_that_cannot_be_written_is_one_line(
    monkeypatch: pytest.MonkeyPatch, workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")

    arguments = ("--checkpoint", workshop.checkpoint, "--json", tmp_path / "file" / "figures.json")
    assert run(monkeypatch, "evaluate", "toy", *arguments) == 2

    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and errors[0].startswith("error: ") and "file" in errors[0]


def test_stages_of_different_precision_run_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, config: Path, workshop: Workshop, checkpoint: Path, tmp_path: Path
) -> None:
    config.write_text(CONFIG.replace("dataset: plain", "dataset: toykitchen"))
    arguments = ("--data", workshop.data, "--checkpoint", checkpoint, "--run", tmp_path / "runs")

    assert run(monkeypatch, "vae", config, *arguments, "vae.precision=fp32") == 0
    assert run(monkeypatch, "pretrain-vllm", config, *arguments, "pretrain_vllm.precision=bf16") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vae", "none.yaml", "--data", "d", "--checkpoint", "c", "--run", "r"], "none.yaml cannot be read"),
        (
            ["features", "--data", "d", "--checkpoint", "c", "--out", "o", "--dataset", "x", "--shard", "3/2"],
            "the shard is",
        ),
        (
            ["features", "--data", "d", "--checkpoint", "c", "--out", "o", "--dataset", "x", "--split", "test"],
            "split is",
        ),
        (["check-data", "d"], "d holds no dataset: there is no NAME_train.json"),
        (
            [
                "tune-vllm",
                "{config}",
                "--data",
                "{data}",
                "--checkpoint",
                "{checkpoint}",
                "--run",
                "r",
                "--curation",
                "c",
            ],
            "c is no file; give a curation file",
        ),
        (["vae", "{config}", "--data", "d", "--checkpoint", "c", "--run", "r"], "d holds no dataset 'plain'"),
        (
            ["vae", "{config}", "--data", "{data}", "--checkpoint", "c", "--run", "r"],
            "c is not a LEGO checkpoint directory",
        ),
        (
            ["vae", "{config}", "--data", "{data}", "--checkpoint", "c", "--run", "r", "vae.steps=0"],
            "vae: steps is 0; it must lie between 1",
        ),
        (
            ["create", "{config}", "--data", "{data}", "--checkpoint", "{checkpoint}"],
            "already holds a checkpoint; remove it or choose another directory",
        ),
        (
            ["create", "{config}", "--data", "{data}", "--checkpoint", "c", "architecture=giant.yaml"],
            "giant.yaml is no architecture: neither a checkpoint directory, nor a YAML file, nor one of",
        ),
        (["evaluate", "toy", "--checkpoint", "c"], "c is not a LEGO checkpoint directory"),
    ],
)
def test_what_a_person_can_put_right_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, config: Path, plain_data: Path,
    workshop: Workshop, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    places = {"config": config, "data": plain_data, "checkpoint": workshop.checkpoint}

    assert run(monkeypatch, *(argument.format(**places) for argument in arguments)) == 2

    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and errors[0].startswith("error: ") and message in errors[0]


def test_an_evaluation_writes_its_figures(
    monkeypatch: pytest.MonkeyPatch, workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "deep" / "figures.json"
    arguments = ("--checkpoint", workshop.checkpoint, "--scenes", "2", "--steps", "2", "--json", file)

    assert run(monkeypatch, "evaluate", "toy", *arguments, "--untuned", workshop.checkpoint) == 0

    figures = json.loads(file.read_text())
    assert figures["model_version"] == f"tiny-{fingerprint(workshop.checkpoint)[:12]}"
    assert figures["scenes"] == 2 and figures["unet_evaluations_per_frame"] == 4
    assert figures["description_slots_untuned"] == 0.0
    assert figures["description_slots_untuned_source"] == "measured now on 2 scenes"
    assert file.with_suffix(".png").is_file() and not file.with_suffix(".partial.jsonl").exists()
    assert "action success" in capsys.readouterr().out


def test_ctrl_c_saves_says_so_and_the_same_command_goes_on(
    config: Path, plain_data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    command = [
        sys.executable, "-m", "lego_training", "vae", str(config), "--data", str(plain_data),
        "--checkpoint", str(checkpoint), "--run", str(runs), "vae.steps=1000000",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        log = runs / "vae.csv"
        deadline = time.monotonic() + 100
        while not (log.is_file() and len(log.read_text().splitlines()) > 2):
            assert process.poll() is None and time.monotonic() < deadline, "training never began"
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()

    assert process.returncode == 130
    assert "stopped: vae stopped at step" in errors and "run the same command again to go on" in errors
    assert "Traceback" not in errors
    steps = torch.load(runs / "vae.pt", weights_only=True)["step"]
    assert steps == len(log.read_text().splitlines()) - 1
