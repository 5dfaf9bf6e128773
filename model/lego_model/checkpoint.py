"""A LEGO checkpoint directory, all parts in Hugging Face layout, safetensors only.

It holds lego.json, unet/, vae/, text_encoder/, tokenizer/, scheduler/, conditioner/ and vllm/.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from huggingface_hub import save_torch_state_dict
from lego_core.config import LegoConfig
from lego_core.errors import LegoError
from lego_core.manifest import PREDICTION_TYPES
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from transformers import CLIPTextModel, LlavaForConditionalGeneration, PreTrainedModel

from lego_model.conditioner import Conditioner
from lego_model.student import STUDENT, load_student
from lego_model.widen import widen

Part = TypeVar("Part")

# Beside the files of a part that was saved whole: their names.
_FILES = "files.json"
PARTS = ("unet", "vae", "text_encoder", "conditioner", "vllm")


@dataclass
class LegoCheckpoint:
    """Every part of one LEGO model.

    Attributes:
        config: `lego.json`.
        unet: 8 input channels: the noisy latent and the input frame's latent.
        vae: The frame autoencoder.
        text_encoder: CLIP, for the description.
        conditioner: σ, μ, π.
        vllm: Writes the description and gives the embeddings.
        scheduler: The diffusion process; its class is only the default sampler.
        tokenizer: CLIP's.
        vllm_tokenizer: The VLLM's.
        student: The distilled student of the U-Net, if the model has one.
    """

    config: LegoConfig
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    conditioner: Conditioner
    vllm: LlavaForConditionalGeneration
    scheduler: EulerAncestralDiscreteScheduler
    tokenizer: Tokenizer
    vllm_tokenizer: Tokenizer
    student: UNet2DConditionModel | None = None

    @classmethod
    def load(
        cls,
        directory: str | Path,
        dtype: torch.dtype = torch.float32,
        without: Collection[str] = (),
        vllm_as_stored: bool = False,
    ) -> Self:
        """Reads a checkpoint directory onto the CPU, in evaluation mode.

        Args:
            directory: The checkpoint.
            dtype: Of the weights in memory.
            without: "vllm" leaves that, by far the largest part, without weights on the meta device; "student" leaves
                the student out, which may be of an older U-Net.
            vllm_as_stored: Leaves the VLLM's weights in the files, and computes with them in float32 (`widen`). For
                models that memory does not hold; slower.

        Raises:
            LegoError: Not a checkpoint directory, or a part is missing or damaged; the message names it.
        """
        directory = Path(directory)
        config = LegoConfig.load(directory)
        unet = load_part(UNet2DConditionModel, directory / "unet", dtype)
        vae = load_part(AutoencoderKL, directory / "vae", dtype)
        text_encoder = load_part(CLIPTextModel, directory / "text_encoder", dtype)
        conditioner = load_part(Conditioner, directory / "conditioner", dtype)
        if "vllm" in without:
            vllm = _outline(LlavaForConditionalGeneration, directory / "vllm", dtype)
        elif vllm_as_stored:
            vllm = load_part(LlavaForConditionalGeneration, directory / "vllm", _stored_dtype(directory / "vllm"))
            widen(vllm)
        else:
            vllm = load_part(LlavaForConditionalGeneration, directory / "vllm", dtype)
        scheduler = load_scheduler(directory / "scheduler")
        tokenizer = load_tokenizer(directory / "tokenizer")
        vllm_tokenizer = load_tokenizer(directory / "vllm")
        has_student = config.student is not None and "student" not in without
        student = load_student(unet, directory / STUDENT) if has_student else None
        checkpoint = cls(
            config, unet, vae, text_encoder, conditioner, vllm, scheduler, tokenizer, vllm_tokenizer, student
        )
        checkpoint.check()
        return checkpoint

    def save(self, directory: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Writes the whole checkpoint directory with weights in `dtype`. The modules themselves are not changed."""
        directory = Path(directory)
        for name in PARTS:
            save_part(getattr(self, name), directory / name, dtype)
        self.scheduler.save_pretrained(directory / "scheduler")
        (directory / "tokenizer").mkdir(exist_ok=True)
        self.tokenizer.save(str(directory / "tokenizer" / "tokenizer.json"))
        self.vllm_tokenizer.save(str(directory / "vllm" / "tokenizer.json"))
        # Last: a directory with a lego.json is a whole checkpoint.
        self.config.save(directory)

    def check(self) -> None:
        """Checks that the parts fit each other.

        Raises:
            LegoError: Widths or token counts disagree (the message names both sides), or the U-Net predicts something
                that no sampler knows.
        """
        width, vllm_width = self.unet.config.cross_attention_dim, self.vllm.config.text_config.hidden_size
        text_width = self.text_encoder.config.hidden_size
        if not width == self.conditioner.config.context_width == text_width:
            raise LegoError(
                f"context widths disagree: unet {width}, conditioner {self.conditioner.config.context_width}, "
                f"text_encoder {text_width}; the parts come from different models"
            )
        if self.unet.config.in_channels != 2 * self.vae.config.latent_channels:
            raise LegoError(
                f"the unet takes {self.unet.config.in_channels} channels; it must take the noisy latent's and the "
                f"frame's, {self.vae.config.latent_channels} each"
            )
        if vllm_width != self.conditioner.config.vllm_width:
            raise LegoError(
                f"the conditioner projects {self.conditioner.config.vllm_width}-wide VLLM states but the VLLM is "
                f"{vllm_width} wide; use the VLLM this model was trained with"
            )
        vision = self.vllm.config.vision_config
        tokens = (vision.image_size // vision.patch_size) ** 2
        if tokens != self.config.image_tokens or vision.image_size != self.config.vision.size:
            raise LegoError(
                f"lego.json says {self.config.image_tokens} image tokens of a {self.config.vision.size}-pixel picture; "
                f"the vision tower makes {tokens} of {vision.image_size} pixels"
            )
        if self.text_encoder.config.max_position_embeddings < self.config.text_tokens:
            raise LegoError(
                f"lego.json says {self.config.text_tokens} text tokens; the text encoder holds at most "
                f"{self.text_encoder.config.max_position_embeddings}"
            )
        prediction = self.scheduler.config.prediction_type
        if prediction not in PREDICTION_TYPES:
            raise LegoError(
                f"the scheduler's prediction_type is {prediction!r}; choose one of {', '.join(PREDICTION_TYPES)}"
            )

    @property
    def special_text_tokens(self) -> tuple[int, int, int]:
        """(beginning, end, padding) ids of CLIP's tokenizer, padding with the end token as Stable Diffusion does."""
        config = self.text_encoder.config
        return config.bos_token_id, config.eos_token_id, config.eos_token_id

    def to(self, device: torch.device | str) -> Self:
        """Moves every part to a device."""
        for name in PARTS:
            part = getattr(self, name)
            if part.device.type != "meta":
                part.to(device)
        if self.student is not None:
            self.student.to(device)
        return self


def load_part(part: type[Part], directory: Path, dtype: torch.dtype) -> Part:
    """Loads one diffusers or transformers model from safetensors only.

    Raises:
        LegoError: Missing, damaged, or without some of its weights.
    """
    if not directory.is_dir():
        raise LegoError(f"{directory.parent} lacks {directory.name}/; restore the checkpoint")
    _end_move(directory)
    arguments = {"dtype" if hasattr(part, "base_model_prefix") else "torch_dtype": dtype}
    try:
        model, found = part.from_pretrained(  # type: ignore[attr-defined]
            directory, use_safetensors=True, local_files_only=True, output_loading_info=True, **arguments
        )
    except Exception as error:  # each library raises many types on damaged files
        raise LegoError(f"{directory} cannot be loaded ({error}); restore the checkpoint") from error
    if found["missing_keys"]:
        # The libraries would go on with random weights in their place.
        raise LegoError(f"{directory} lacks the weights {min(found['missing_keys'])}; restore the checkpoint")
    return model.eval()


def _stored_dtype(directory: Path) -> torch.dtype:
    """The dtype of a part's weights; float32 if they have several."""
    found = set()
    for file in directory.glob("*.safetensors"):
        try:
            with safe_open(file, "pt") as weights:
                found |= {weights.get_slice(key).get_dtype() for key in weights.keys()}  # noqa: SIM118  # no mapping
        except SafetensorError as error:
            raise LegoError(f"{file} cannot be read ({error}); restore the checkpoint") from error
    return {("F16",): torch.float16, ("BF16",): torch.bfloat16}.get(tuple(found), torch.float32)


def _outline(
    part: type[LlavaForConditionalGeneration], directory: Path, dtype: torch.dtype
) -> LlavaForConditionalGeneration:
    """A model as its config says, on the meta device."""
    try:
        with torch.device("meta"):
            return part(part.config_class.from_pretrained(directory, local_files_only=True)).to(dtype).eval()
    except Exception as error:  # transformers raises many types on damaged configs
        raise LegoError(f"{directory}/config.json cannot be read ({error}); restore the checkpoint") from error


def save_part(model: torch.nn.Module, directory: Path, dtype: torch.dtype) -> None:
    """Saves one model with its weights in `dtype`, leaving the model as it is.

    All files are written beside `directory` first. From the moment they are whole they are the checkpoint's: should the
    move into `directory` be interrupted, `load_part` ends it. So an interruption never costs the weights before, nor
    mixes them with these, and engines that share files by hard link keep theirs.

    Raises:
        LegoError: The files cannot be written; the weights before them are kept.
    """
    directory.mkdir(parents=True, exist_ok=True)
    folder = directory.with_name(f".saving-{directory.name}")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        _write_part(model, folder, dtype)
        (folder / _FILES).write_text(json.dumps(sorted(file.name for file in folder.iterdir())))
        _end_move(directory)
        folder.rename(directory.with_name(f".saved-{directory.name}"))
    except (OSError, SafetensorError) as error:
        raise LegoError(f"{directory} cannot be written ({error}); the weights there are as they were") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _end_move(directory)


def _write_part(model: Any, folder: Path, dtype: torch.dtype) -> None:
    # One tensor after the other: a copy of the whole model may be more than memory holds. Tied weights stay tied.
    cast: dict[tuple[int, torch.Size], torch.Tensor] = {}
    weights = {}
    for name, value in model.state_dict().items():
        key = value.data_ptr(), value.shape
        if key not in cast:
            cast[key] = value.detach().to("cpu", dtype if value.is_floating_point() else value.dtype)
        weights[name] = cast[key]
    if isinstance(model, PreTrainedModel):
        model.save_pretrained(folder, state_dict=weights)
    else:
        model.save_config(folder)
        save_torch_state_dict(
            weights, folder, filename_pattern="diffusion_pytorch_model{suffix}.safetensors", max_shard_size="10GB"
        )
    config = folder / "config.json"
    values = json.loads(config.read_text())
    # diffusers notes where a model was loaded from: a path of this machine, of no use to anyone else.
    values.pop("_name_or_path", None)
    if "dtype" in values:  # of the model as it is in memory
        values["dtype"] = str(dtype).removeprefix("torch.")
    if "_class_name" in values:  # a model that is sharded has a class of its own
        values["_class_name"] = values["_class_name"].removeprefix("FSDP")
    config.write_text(json.dumps(values, indent=2) + "\n")


def _end_move(directory: Path) -> None:
    """Moves files that were saved whole into `directory`, if there are any left to move."""
    saved = directory.with_name(f".saved-{directory.name}")
    if not (saved / _FILES).is_file():
        return
    written = json.loads((saved / _FILES).read_text())
    for name in written:
        if (saved / name).exists():
            (saved / name).replace(directory / name)
    # Shards of a save in more pieces would pass for weights.
    for file in directory.glob("*.safetensors*"):
        if file.name not in written:
            file.unlink()
    shutil.rmtree(saved)


def fingerprint(directory: Path, parts: Sequence[str] | None = None) -> str:
    """Returns a sha256 over a checkpoint's files: names, sizes and contents.

    Args:
        directory: The checkpoint.
        parts: Only these subdirectories; None takes the whole checkpoint.
    """
    digest = hashlib.sha256()
    for path in checkpoint_files(directory):
        if parts is not None and path.relative_to(directory).parts[0] not in parts:
            continue
        digest.update(f"{path.relative_to(directory)}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def checkpoint_files(directory: Path) -> list[Path]:
    """The files that make up a checkpoint, in a fixed order; anything else in the directory is not part of it."""
    folders = [directory / name for name in (*PARTS, STUDENT, "tokenizer", "scheduler")]
    files = [
        file for folder in folders for file in sorted(folder.rglob("*")) if file.suffix in (".json", ".safetensors")
    ]
    return [directory / "lego.json", *files]


def load_tokenizer(directory: Path) -> Tokenizer:
    """Loads a part's tokenizer; lengths are the caller's, so padding and truncation are off.

    Raises:
        LegoError: Missing or damaged.
    """
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise LegoError(f"{directory} has no tokenizer.json; restore the checkpoint")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise LegoError(f"{path} is not a tokenizer ({error}); restore the checkpoint") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def load_scheduler(directory: Path) -> EulerAncestralDiscreteScheduler:
    """Loads the diffusion process.

    Raises:
        LegoError: Missing or damaged.
    """
    if not (directory / "scheduler_config.json").is_file():
        raise LegoError(f"{directory} has no scheduler_config.json; restore the checkpoint")
    try:
        return EulerAncestralDiscreteScheduler.from_pretrained(directory, local_files_only=True)
    except Exception as error:
        raise LegoError(f"{directory} cannot be loaded ({error}); restore the checkpoint") from error
