"""Trains the VLLM: scene captions first (small models only), then visual instruction tuning on actions (paper 3.2).

The loss is on the answer's tokens and its end only, as in the original (lego-reference C8).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from lego_core.config import LegoConfig, whole_number_in_range
from lego_core.errors import LegoError
from lego_core.images import normalise_vision, vision_square
from lego_core.prompts import encode_prompt
from lego_model.checkpoint import load_part, load_tokenizer, save_part
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from lego_training.adapters import AdaptedVllm
from lego_training.batch import Batch
from lego_training.curation import Conversation
from lego_training.dataset import Record, Squares
from lego_training.loop import LoopConfig, computes_in_bf16, train
from lego_training.processes import this_process
from lego_training.queries import CAPTION_QUERY, QUERY_TEMPLATES, label_variant, scene_caption
from lego_training.toy_kitchen.language import mirror_text

# From a sample's index, whether it is mirrored, and a random generator: the query and the answer.
TextOf = Callable[[int, bool, np.random.Generator], tuple[str, str]]


@dataclass(frozen=True)
class TuningConfig:
    """What visual instruction tuning trains.

    Attributes:
        train_vision_tower: For a model whose vision tower has no pretrained weights of a large corpus; the paper keeps
            CLIP's tower as it is.
        mode: "full" trains projector and language model (the paper), "lora" adapters of the language model and the
            projector, "qlora" the same above a language model held in four bits, on an NVIDIA GPU.
        rank: Of the adapters.
        alpha: The adapters count alpha / rank.
        max_length: Tokens of prompt, image and answer together; a longer answer loses its end (lego-reference C8).
    """

    train_vision_tower: bool = False
    mode: Literal["full", "lora", "qlora"] = "full"
    rank: int = 64
    alpha: int = 128
    max_length: int = 2048

    def __post_init__(self) -> None:
        if self.mode not in ("full", "lora", "qlora"):
            raise LegoError(f"mode is {self.mode!r}; choose full, lora or qlora")
        whole_number_in_range("rank", self.rank, 1, 4096)
        whole_number_in_range("alpha", self.alpha, 1, 10**5)
        whole_number_in_range("max_length", self.max_length, 16, 10**6)
        if not isinstance(self.train_vision_tower, bool):
            raise LegoError(f"train_vision_tower is {self.train_vision_tower!r}; it must be true or false")
        if self.train_vision_tower and self.mode != "full":
            raise LegoError(
                f"train_vision_tower is true, but mode is {self.mode!r}, which trains adapters; choose full"
            )


@dataclass(frozen=True)
class Example:
    """One conversation of one turn, as token ids.

    Attributes:
        before: Prompt ids before the image tokens.
        after: Prompt ids after them.
        answer: Answer ids, the end token last.
    """

    before: list[int]
    after: list[int]
    answer: list[int]


def pretrain_vllm(checkpoint: Path, records: list[Record], config: LoopConfig, run: Path) -> None:
    """Teaches tower, projector and language model to name what is in a frame and where.

    A model of LLaVA's size starts from pretrained weights instead; this stage gives a small one the same footing. A new
    run starts from random weights whatever the checkpoint's are, so a tuned VLLM can be had as it was before tuning.

    Raises:
        LegoError: The dataset's metadata has no captions.
    """
    if not all("facts" in record.facts for record in records):
        raise LegoError("this dataset has no scene captions in its metadata; pretrain on the toy kitchen")

    def text_of(index: int, mirrored: bool, rng: np.random.Generator) -> tuple[str, str]:
        return CAPTION_QUERY, scene_caption(records[index].facts, mirrored)

    _train(
        checkpoint, [record.input_path for record in records], config, run, "pretrain_vllm", text_of,
        TuningConfig(train_vision_tower=True), anew=True,
    )  # fmt: skip


def tune_vllm(checkpoint: Path, records: list[Record], config: LoopConfig, tuning: TuningConfig, run: Path) -> None:
    """Visual instruction tuning: frame and question in, enriched action description out.

    Raises:
        LegoError: A record has no description.
    """
    if not all(record.description for record in records):
        raise LegoError("some records have no description; curate the dataset first")

    def text_of(index: int, mirrored: bool, rng: np.random.Generator) -> tuple[str, str]:
        record = records[index]
        template = QUERY_TEMPLATES[rng.integers(len(QUERY_TEMPLATES))]
        query = template.replace("{action}", label_variant(record.action, rng))
        return (mirror_text(query), mirror_text(record.description)) if mirrored else (query, record.description)

    paths = [record.input_path for record in records]
    _train(checkpoint, paths, config, run, "tune_vllm", text_of, tuning)


def tune_vllm_on_conversations(
    checkpoint: Path, conversations: list[Conversation], config: LoopConfig, tuning: TuningConfig, run: Path
) -> None:
    """Visual instruction tuning on curated conversations, each asked in its own words (lego-reference C3, D4)."""

    def text_of(index: int, mirrored: bool, rng: np.random.Generator) -> tuple[str, str]:
        words = conversations[index].question, conversations[index].answer
        return (mirror_text(words[0]), mirror_text(words[1])) if mirrored else words

    paths = [conversation.image_path for conversation in conversations]
    _train(checkpoint, paths, config, run, "tune_vllm", text_of, tuning)


def _train(
    checkpoint: Path,
    paths: list[Path],
    config: LoopConfig,
    run: Path,
    name: str,
    text_of: TextOf,
    tuning: TuningConfig,
    anew: bool = False,
) -> None:
    lego = LegoConfig.load(checkpoint)
    tokenizer = load_tokenizer(checkpoint / "vllm")
    kept: Mapping[str, nn.Module] | None = None
    if tuning.mode == "full":
        vllm = load_part(LlavaForConditionalGeneration, checkpoint / "vllm", torch.float32)
        if anew:
            torch.manual_seed(config.seed)
            vllm = LlavaForConditionalGeneration(vllm.config)
        vllm.model.vision_tower.requires_grad_(tuning.train_vision_tower)

        def save_result() -> None:
            save_part(vllm, checkpoint / "vllm", torch.float16)
    else:
        # Weights that are not trained need no more precision than they are computed with.
        dtype = torch.bfloat16 if computes_in_bf16(config, this_process().device) else torch.float32
        adapted = AdaptedVllm(
            checkpoint / "vllm", run, tuning.rank, tuning.alpha, four_bit=tuning.mode == "qlora", dtype=dtype
        )
        vllm, kept, save_result = adapted.vllm, adapted.trained, adapted.save
    frames = Squares(paths, lego.vision.size, lambda frame: vision_square(frame, lego.vision))

    def loss_of(batch: Batch) -> tuple[Tensor, Tensor]:
        examples, pictures = [], []
        for index, rng in zip(batch.indices(len(paths)), batch.generators, strict=True):
            # A mirrored kitchen is a kitchen, if the words are mirrored too.
            mirrored = bool(rng.random() < 0.5)
            query, answer = text_of(index, mirrored, rng)
            frame = frames[index][:, ::-1] if mirrored else frames[index]
            examples.append(encode_example(lego, tokenizer, vllm, query, answer, tuning.max_length))
            pictures.append(frame)
        pixels = torch.from_numpy(normalise_vision(np.stack(pictures), lego.vision)).to(vllm.device)
        answer_tokens = sum(len(example.answer) for example in examples)
        return answer_loss(vllm, pixels, examples) * answer_tokens, torch.tensor(float(answer_tokens))

    def name_of(batch: Batch) -> list[str]:
        return [str(paths[index]) for index in batch.indices(len(paths))]

    train(name, {"vllm": vllm}, loss_of, config, run, save_result, name_of, kept=kept)


def encode_example(
    lego: LegoConfig,
    tokenizer: Tokenizer,
    vllm: LlavaForConditionalGeneration,
    query: str,
    answer: str,
    max_length: int = 2048,
) -> Example:
    """Encodes one turn with the model's prompt template.

    Raises:
        LegoError: The prompt alone has `max_length` tokens.
    """
    text = vllm.config.text_config
    before, after = encode_prompt(tokenizer, lego.prompt_template.replace("{query}", query), text.bos_token_id)
    room = max_length - len(before) - lego.image_tokens - len(after)
    if room < 1:
        raise LegoError(f"the prompt of {query!r} leaves no room for an answer in max_length = {max_length}; raise it")
    return Example(before, after, [*tokenizer.encode(answer, add_special_tokens=False).ids, text.eos_token_id][:room])


def answer_loss(vllm: LlavaForConditionalGeneration, pixels: Tensor, examples: Sequence[Example]) -> Tensor:
    """Cross-entropy of the answer tokens, each counted once.

    Args:
        vllm: The model.
        pixels: (B, 3, V, V).
        examples: B of them.
    """
    image = torch.stack(list(vllm.model.get_image_features(pixel_values=pixels).pooler_output))
    embed = vllm.get_input_embeddings()
    rows, labels = [], []
    for embeddings, example in zip(image, examples, strict=True):
        ids = torch.tensor([*example.before, *example.after, *example.answer], device=pixels.device)
        words = embed(ids)
        split = len(example.before)
        rows.append(torch.cat([words[:split], embeddings.to(words.dtype), words[split:]]))
        prompt = torch.full((split + len(embeddings) + len(example.after),), -100, device=pixels.device)
        labels.append(torch.cat([prompt, ids[split + len(example.after) :]]))
    # Padding on the right needs no mask: causal attention never looks at it, and it carries no label.
    inputs = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    targets = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
    hidden = vllm.model.language_model(inputs_embeds=inputs).last_hidden_state
    counted = targets[:, 1:] != -100
    return F.cross_entropy(vllm.lm_head(hidden[:, :-1][counted]).float(), targets[:, 1:][counted])
