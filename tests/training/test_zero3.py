"""What of DeepSpeed's settings is refused; that the rest trains as one process does is in test_processes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lego_core.errors import LegoError
from lego_training.zero3 import Zero3
from torch import nn


@pytest.mark.parametrize(
    ("zero", "others", "message"),
    [
        ({"stage": 2}, {}, "zero_stage is 2; of DeepSpeed's stages choose 3"),
        ({"offload_optimizer": {"device": "cpu"}}, {}, "offload_optimizer_device is 'cpu'; set it to none"),
        ({"offload_param": {"device": "nvme"}}, {}, "offload_param_device is 'nvme'; set it to none"),
        ({"zero_hpz_partition_size": 8}, {}, "zero_hpz_partition_size is 8; leave it out"),
        ({"zero_quantized_gradients": True}, {}, "zero_quantized_gradients is True; leave it out"),
        ({}, {"bf16": {"enabled": True}}, "DeepSpeed's bf16 is on; leave it out and set mixed_precision to no"),
    ],
)
def test_a_setting_that_the_loop_cannot_train_with_is_named(
    zero: dict[str, Any], others: dict[str, Any], message: str
) -> None:
    config = {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "none"}} | zero} | others
    accelerator: Any = SimpleNamespace(deepspeed_plugin=SimpleNamespace(deepspeed_config=config))

    with pytest.raises(LegoError, match=message):
        Zero3(accelerator, nn.Linear(2, 2))


def test_weights_of_four_bits_are_refused() -> None:
    accelerator: Any = SimpleNamespace(
        deepspeed_plugin=SimpleNamespace(deepspeed_config={"zero_optimization": {"stage": 3}})
    )
    packed = nn.Linear(2, 2)
    packed.weight = nn.Parameter(torch.zeros(2, 1, dtype=torch.uint8), requires_grad=False)

    with pytest.raises(LegoError, match=r"tuning\.mode is qlora.*choose lora or full"):
        Zero3(accelerator, packed)
