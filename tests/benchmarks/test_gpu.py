"""The benchmark of calls on a GPU: on the CPU with a small model, and on a GPU where there is one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch


def run(*options: str) -> str:
    command = [sys.executable, "-m", "benchmarks.gpu", *options]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_calls_are_timed_and_compared_with_float32_and_what_is_not_installed_is_left_out(tmp_path: Path) -> None:
    json_file = tmp_path / "gpu.json"
    told = run(
        "--device", "cpu", "--size", "nano", "--kinds", "BuildCondition,Extend", "--dtypes", "fp32,bf16", "--batches",
        "1,2", "--runners", "eager,onnxruntime,tensorrt", "--json", str(json_file),
    )  # fmt: skip
    rows = json.loads(json_file.read_text())["rows"]
    measured = {(row["kind"], row["runner"], row["dtype"], row["batch"]): row for row in rows if row["seconds"]}
    assert ("Extend", "onnxruntime", "fp32", 2) in measured
    assert ("BuildCondition", "eager", "fp32", 2) not in measured  # the server makes it for one at a time
    assert measured["Extend", "onnxruntime", "fp32", 1]["error"] < 1e-4
    assert 1e-4 < measured["BuildCondition", "eager", "bf16", 1]["error"] < 0.1
    assert (tmp_path / "gpu.png").is_file()
    if not torch.cuda.is_available():
        assert "all, tensorrt: skipped: device tensorrt needs onnxruntime's TensorrtExecutionProvider" in told


def test_what_finds_no_time_left_is_left_out(tmp_path: Path) -> None:
    told = run(
        "--device", "cpu", "--size", "nano", "--kinds", "Extend", "--dtypes", "fp32", "--batches", "1", "--runners",
        "eager", "--budget", "1e-3", "--json", str(tmp_path / "gpu.json"),
    )  # fmt: skip
    assert "Extend, eager, fp32, batch 1: skipped: 0 s are left of --budget, too few for this" in told


def test_a_run_that_is_killed_keeps_what_it_has(tmp_path: Path) -> None:
    json_file = tmp_path / "gpu.json"
    command = [
        sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--size", "nano", "--dtypes", "fp32", "--batches",
        "1,2", "--runners", "eager", "--json", str(json_file),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not json_file.is_file():
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    assert process.returncode < 0, "it had ended before"
    rows = json.loads(json_file.read_text())["rows"]
    assert rows[0]["kind"] == "Denoise" and rows[0]["seconds"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU here")
def test_on_a_gpu_a_denoising_step_is_compiled_and_agrees_with_float32(tmp_path: Path) -> None:
    json_file = tmp_path / "gpu.json"
    run("--size", "nano", "--kinds", "Denoise", "--dtypes", "bf16,fp16", "--batches", "1", "--runners",
        "eager,channels-last,compiled", "--json", str(json_file))  # fmt: skip
    rows = json.loads(json_file.read_text())["rows"]
    assert all(row["seconds"] and row["error"] < 0.1 for row in rows), rows
    assert {row["runner"] for row in rows} == {"eager", "channels-last", "compiled"}
