"""Trains the VLLM and the U-Net for a few steps, alone or as one of several processes: what test_processes compares."""

from __future__ import annotations

import sys
from pathlib import Path

from accelerate import PartialState
from lego_training.dataset import read_records
from lego_training.loop import LoopConfig
from lego_training.stages.diffusion import DiffusionConfig, tune_diffusion
from lego_training.stages.embed import embed
from lego_training.stages.vllm import TuningConfig, tune_vllm

STEPS = 3


def train_both(checkpoint: Path, data: Path, run: Path, accumulate: int) -> None:
    """Writes tune_vllm.csv and tune_diffusion.csv into `run`."""
    records = read_records(data, "toykitchen", "train")
    config = LoopConfig(
        steps=STEPS, batch_size=6, learning_rate=3e-3, accumulate=accumulate, ema_decay=0.9, precision="fp32",
        threads=1,
    )  # fmt: skip
    with PartialState().main_process_first():
        embeddings = embed(checkpoint, records, run / "embeddings")
    tune_vllm(checkpoint, records, config, TuningConfig(), run)
    # Weighted, so that the processes' means are not the whole's.
    tune_diffusion(checkpoint, embeddings, config, DiffusionConfig(change_weight=10, train_text_encoder=True), run)


if __name__ == "__main__":
    train_both(*map(Path, sys.argv[1:4]), accumulate=int(sys.argv[4]))
