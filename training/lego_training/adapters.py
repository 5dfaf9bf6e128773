"""LoRA adapters of a VLLM's language model: few weights are trained, and merged into the whole when it is saved.

Hu et al. 2022; QLoRA, which holds the weights below them in four bits, is Dettmers et al. 2023.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lego_core.errors import LegoError
from lego_model.checkpoint import load_part, save_part
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import nn
from transformers import BitsAndBytesConfig, LlavaForConditionalGeneration

from lego_training.processes import this_process

# The linear layers of LLaMA's blocks.
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class AdaptedVllm:
    """A VLLM whose language model learns through adapters; its projector learns as it is.

    Args:
        vllm_folder: Of the checkpoint. As the merged model replaces it, `run` keeps what it held before; a resumed run
            goes on from there.
        run: Directory of the run.
        rank: Of the adapters.
        alpha: They count alpha / rank.
        four_bit: Holds the language model's own weights in four bits.
        dtype: In which the weights that are not trained are held.

    Raises:
        LegoError: Four bits on another device than an NVIDIA GPU, or without bitsandbytes.
    """

    def __init__(self, vllm_folder: Path, run: Path, rank: int, alpha: int, four_bit: bool, dtype: torch.dtype) -> None:
        self._folder, self._run = vllm_folder, run
        self._base = run / "vllm_before_tuning"
        if four_bit:
            _check_four_bit()
        with this_process().main_process_first():
            if not self._base.is_dir() and this_process().is_main_process:
                _keep(vllm_folder, self._base)
        self.vllm = (
            _load_in_four_bits(self._base) if four_bit else load_part(LlavaForConditionalGeneration, self._base, dtype)
        )
        self.vllm.requires_grad_(False)
        # Without dropout, which would have to be drawn sample by sample.
        self._config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=TARGETS, lora_dropout=0.0)
        torch.manual_seed(rank)  # the same start in every process
        inject_adapter_in_model(self._config, self.vllm.model.language_model)
        self.vllm.model.multi_modal_projector.requires_grad_(True).float()
        for name, parameter in self.vllm.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.float()

    @property
    def trained(self) -> dict[str, nn.Module]:
        """What is trained, and all that a state needs to keep."""
        return {
            "adapters": nn.ModuleList(
                [each for layer in self._layers().values() for each in (layer.lora_A, layer.lora_B)]
            ),
            "projector": self.vllm.model.multi_modal_projector,
        }

    def save(self) -> None:
        """Writes the merged VLLM into the checkpoint, and the adapter by itself into the run, in the format of peft.

        Raises:
            LegoError: They cannot be written.
        """
        whole = load_part(
            LlavaForConditionalGeneration, self._base, torch.float32 if self._is_small() else torch.float16
        )
        with torch.no_grad():
            for name, layer in self._layers().items():
                weight = whole.get_submodule(name).weight
                weight += layer.get_delta_weight("default").to(weight.device, weight.dtype)
        whole.model.multi_modal_projector.load_state_dict(self.vllm.model.multi_modal_projector.state_dict())
        save_part(whole, self._folder, torch.float16)
        self._save_adapter()

    def _save_adapter(self) -> None:
        adapter = self._run / "tune_vllm_adapter"
        adapter.mkdir(parents=True, exist_ok=True)
        partial = adapter / "adapter_model.partial"
        weights = get_peft_model_state_dict(self.vllm.model.language_model)
        save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, partial)
        partial.replace(adapter / "adapter_model.safetensors")
        self._config.save_pretrained(str(adapter))

    def _layers(self) -> dict[str, Any]:
        return {name: each for name, each in self.vllm.named_modules() if isinstance(each, LoraLayer)}

    def _is_small(self) -> bool:
        # A model of billions of weights is merged in the type it is stored in, to fit in memory.
        return sum(each.numel() for each in self.vllm.parameters()) < 1e9


def _keep(folder: Path, copy: Path) -> None:
    """Copies a folder, by hard links where the file system has them: saving replaces files and never changes them."""
    partial = copy.with_name(f"{copy.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)

    shutil.copytree(folder, partial, copy_function=link)
    partial.rename(copy)


def _check_four_bit() -> None:
    device = this_process().device.type
    if device != "cuda":
        raise LegoError(
            f"tuning.mode is qlora, which needs an NVIDIA GPU; on this device, {device}, choose lora or full"
        )
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise LegoError(
            "tuning.mode is qlora, which needs bitsandbytes; install it with pip install bitsandbytes"
        ) from error


def _load_in_four_bits(folder: Path) -> LlavaForConditionalGeneration:
    quantised = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=["vision_tower", "multi_modal_projector", "lm_head"],
    )  # fmt: skip
    try:
        return LlavaForConditionalGeneration.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, dtype=torch.bfloat16, quantization_config=quantised,
            device_map={"": this_process().device},
        )  # fmt: skip
    except Exception as error:  # transformers raises many types on damaged files
        raise LegoError(f"{folder} cannot be loaded ({error}); restore the checkpoint") from error
