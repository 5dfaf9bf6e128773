"""Trains the VLLM and the U-Net for a few steps, alone or as one of several processes: what test_processes compares."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from lego_training.dataset import read_records
from lego_training.loop import LoopConfig
from lego_training.processes import part, this_process
from lego_training.stages.diffusion import DiffusionConfig, tune_diffusion
from lego_training.stages.embed import embed
from lego_training.stages.vllm import TuningConfig, tune_vllm
from transformers.integrations import unset_hf_deepspeed_config

STEPS = 4
STAGES = ("tune_vllm", "tune_diffusion")


def train_stages(
    checkpoint: Path, data: Path, run: Path, accumulate: int, stages: tuple[str, ...] = STAGES, steps: int = STEPS
) -> None:
    """Writes a CSV file of each stage into `run`; fewer `steps` are the first of STEPS."""
    records = read_records(data, "toykitchen", "train")
    config = LoopConfig(
        steps=steps, batch_size=6, learning_rate=3e-3, accumulate=accumulate, ema_decay=0.9, precision="fp32",
        threads=1, sample_minutes=0, schedule="constant", warmup=0.0,
    )  # fmt: skip
    with this_process().main_process_first():
        embeddings = embed(checkpoint, records, run / "embeddings")
    if "tune_vllm" in stages:
        tune_vllm(checkpoint, records, config, TuningConfig(), run)
    if "tune_diffusion" in stages:
        # Weighted, so that the processes' means are not the whole's.
        diffusion = DiffusionConfig(change_weight=10, train_text_encoder=True)
        tune_diffusion(checkpoint, embeddings, config, diffusion, run)


def shard_weights() -> None:
    """Switches FSDP2 on as configs/accelerate/fsdp.yaml does; accelerate itself takes that from GPUs only."""
    this_process().distributed_type = DistributedType.FSDP
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    state = Accelerator().state
    state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False,
        reshard_after_forward=True,
    )  # fmt: skip


def divide_small_weights() -> None:
    """Has DeepSpeed divide all but the smallest weights; it leaves those of less than 100,000 elements whole."""
    this_process()
    zero = Accelerator().deepspeed_plugin.deepspeed_config["zero_optimization"]
    zero["stage3_param_persistence_threshold"] = 40
    # As the training loop does: models are to be loaded whole.
    unset_hf_deepspeed_config()


if __name__ == "__main__":
    places, kind = [Path(each) for each in sys.argv[1:4]], sys.argv[4]
    if kind == "zero3":
        divide_small_weights()
        train_stages(*places, accumulate=2, steps=STEPS // 2)
    elif kind == "zero3_resumed":
        divide_small_weights()
        checkpoints, data, runs = places
        for run in sorted(runs.iterdir()):
            train_stages(checkpoints / run.name, data, run, accumulate=1, stages=("tune_diffusion",))
    elif kind == "sharded":
        shard_weights()
        train_stages(*places, accumulate=1, stages=("tune_diffusion",))
    else:
        train_stages(*places, accumulate=2)
    Path(places[2], f"process_{this_process().process_index}_of_{this_process().num_processes}").touch()
    part()
