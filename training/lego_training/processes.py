"""Which of several processes this one is, and on what device."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from accelerate import PartialState


def this_process() -> PartialState:
    """Returns accelerate's view of this process.

    Processes that torchrun starts on a machine without a GPU find each other as well, which accelerate itself does only
    when it is told beforehand that the CPU is meant.
    """
    on_cpu = "LOCAL_RANK" in os.environ and not torch.accelerator.is_available()
    # The others wait while the main process embeds or paints: hours, and not the 10 to 30 minutes that torch allows.
    return PartialState(cpu=on_cpu, **({"timeout": timedelta(days=7)} if "LOCAL_RANK" in os.environ else {}))


def part() -> None:
    """Ends the connection to other processes, if there are any; without it some would wait for ever at their end."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
