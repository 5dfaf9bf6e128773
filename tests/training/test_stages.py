"""Each stage on a dataset of six pairs with a tiny model: it learns, and it learns the right thing."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from lego_core.config import LegoConfig
from lego_core.errors import LegoError
from lego_core.images import frame_to_pixels, frame_to_vision_pixels
from lego_core.prompts import build_prompt, encode_description, encode_prompt
from lego_model.checkpoint import LegoCheckpoint, fingerprint
from lego_model.describe import embed_image, states_of
from lego_model.pipeline import LegoPipeline
from lego_training.dataset import read_frame, read_records
from lego_training.loop import LoopConfig
from lego_training.stages.diffusion import DiffusionConfig, change, drop_conditions, tune_diffusion
from lego_training.stages.embed import Embeddings, embed, load_embeddings
from lego_training.stages.vae import edge_loss, train_vae
from lego_training.stages.vllm import (
    Example,
    TuningConfig,
    answer_loss,
    encode_example,
    pretrain_vllm,
    tune_vllm,
)
from lego_training.toy_kitchen.language import mirror_text
from PIL import Image, ImageOps
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaMLP

from tests.training.conftest import PAIRS, Workshop

LATENT = (4, 8, 8)
NETWORKS_MAKE = ("frame_latents", "target_means", "target_stds", "image_embeddings", "text_states", "text_ids")


def settings(**values: Any) -> LoopConfig:
    defaults: dict[str, Any] = {"steps": 40, "batch_size": 4, "learning_rate": 3e-3, "threads": 1, "precision": "fp32"}
    defaults["sample_minutes"] = 0
    return LoopConfig(**{**defaults, **values})


def learnt(run: Path, stage: str) -> float:
    """How the loss of the last steps compares with that of the first."""
    losses = [float(row["loss"]) for row in csv.DictReader((run / f"{stage}.csv").read_text().splitlines())]
    return float(np.mean(losses[-8:]) / np.mean(losses[:4]))


# --- autoencoder


def test_the_autoencoder_learns_and_its_latents_have_unit_deviation(
    checkpoint: Path, workshop: Workshop, tmp_path: Path
) -> None:
    others = fingerprint(checkpoint, parts=("unet", "vllm", "text_encoder", "conditioner"))

    train_vae(checkpoint, workshop.records, settings(), tmp_path, resolution=64)

    assert learnt(tmp_path, "vae") < 0.8
    assert fingerprint(checkpoint, parts=("unet", "vllm", "text_encoder", "conditioner")) == others
    vae = LegoCheckpoint.load(checkpoint).vae
    paths = [path for record in workshop.records for path in (record.input_path, record.target_path)]
    pixels = torch.from_numpy(np.stack([frame_to_pixels(read_frame(path), 64) for path in paths]))
    with torch.inference_mode():
        latents = vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor
    assert float(latents.std()) == pytest.approx(1, abs=0.02)


def test_edges_count_beside_values() -> None:
    flat, edge = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1

    assert edge_loss(flat + 0.5, flat) == 0
    assert edge_loss(edge, flat) == pytest.approx(1 / 7)
    assert edge_loss(edge.transpose(-1, -2), flat) == pytest.approx(1 / 7)


# --- VLLM


@pytest.fixture(scope="module")
def tiny(workshop: Workshop) -> LegoCheckpoint:
    return LegoCheckpoint.load(workshop.checkpoint)


def test_captions_are_learnt_with_the_tower(checkpoint: Path, workshop: Workshop, tmp_path: Path) -> None:
    before = tower_weights(checkpoint)

    pretrain_vllm(checkpoint, workshop.records, settings(), tmp_path)

    assert learnt(tmp_path, "pretrain_vllm") < 0.8
    assert not torch.equal(tower_weights(checkpoint), before)


def test_descriptions_are_learnt_with_the_tower_frozen(checkpoint: Path, workshop: Workshop, tmp_path: Path) -> None:
    before = tower_weights(checkpoint)

    tune_vllm(checkpoint, workshop.records, settings(), TuningConfig(), tmp_path)

    assert learnt(tmp_path, "tune_vllm") < 0.8
    assert torch.equal(tower_weights(checkpoint), before)
    LegoCheckpoint.load(checkpoint)  # still whole, its tokenizer with it


def test_tuning_can_train_the_tower_too(checkpoint: Path, workshop: Workshop, tmp_path: Path) -> None:
    before = tower_weights(checkpoint)

    tune_vllm(checkpoint, workshop.records, settings(steps=2), TuningConfig(train_vision_tower=True), tmp_path)

    assert not torch.equal(tower_weights(checkpoint), before)


def tower_weights(checkpoint: Path) -> Tensor:
    return LegoCheckpoint.load(checkpoint).vllm.model.vision_tower.state_dict()["embeddings.patch_embedding.weight"]


def test_stages_ask_for_the_words_they_need(workshop: Workshop, plain_data: Path, tmp_path: Path) -> None:
    records = read_records(plain_data, "plain", "train")
    with pytest.raises(LegoError, match="no scene captions in its metadata; pretrain on the toy kitchen"):
        pretrain_vllm(workshop.checkpoint, records, settings(), tmp_path)

    unworded = [type(record)(**{**vars(record), "description": ""}) for record in records]
    with pytest.raises(LegoError, match="no description; curate the dataset first"):
        tune_vllm(workshop.checkpoint, unworded, settings(), TuningConfig(), tmp_path)
    with pytest.raises(LegoError, match="no description; curate the dataset first"):
        embed(workshop.checkpoint, unworded, tmp_path)


def test_an_example_is_the_prompt_the_model_is_asked_with(tiny: LegoCheckpoint) -> None:
    example = encode_example(tiny.config, tiny.vllm_tokenizer, tiny.vllm, "How do I open drawer?", "The left hand.")
    bos, eos = tiny.vllm.config.text_config.bos_token_id, tiny.vllm.config.text_config.eos_token_id

    asked = encode_prompt(tiny.vllm_tokenizer, build_prompt(tiny.config, "how do I open the drawer?"), bos)
    assert (example.before, example.after) == asked
    assert example.answer[-1] == eos and eos not in example.answer[:-1]
    assert tiny.vllm_tokenizer.decode(example.answer[:-1]).strip() == "The left hand."


@torch.inference_mode()
def hand_computed_loss(tiny: LegoCheckpoint, pixels: Tensor, examples: list[Example]) -> Tensor:
    """One example at a time, one answer token at a time."""
    embed, total, count = tiny.vllm.get_input_embeddings(), torch.zeros(()), 0
    for picture, example in zip(pixels, examples, strict=True):
        before, after, answer = (torch.tensor(ids) for ids in (example.before, example.after, example.answer))
        prompt = torch.cat([embed(before), embed_image(tiny, picture[None])[0], embed(after)])
        for index, token in enumerate(example.answer):
            read = torch.cat([prompt, embed(answer[:index])])[None]
            logits = tiny.vllm.lm_head(tiny.vllm.model.language_model(inputs_embeds=read).last_hidden_state[0, -1])
            total, count = total + F.cross_entropy(logits[None], torch.tensor([token])), count + 1
    return total / count


def test_the_loss_is_of_the_answer_tokens_and_their_end_alone(tiny: LegoCheckpoint) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, 3, 32, 32, generator=generator)
    examples = [Example([1, 20, 21], [22, 23], [30, 31, 32, 2]), Example([1], [24, 25, 26, 27, 28], [33, 2])]

    loss = answer_loss(tiny.vllm, pixels, examples)

    torch.testing.assert_close(loss.detach(), hand_computed_loss(tiny, pixels, examples), rtol=1e-4, atol=1e-5)


def test_the_prompt_is_read_but_not_learnt(tiny: LegoCheckpoint) -> None:
    """With no gradient but at the answer, the output layer's row of a prompt token falls as any wrong answer's does."""
    pixels = torch.zeros(1, 3, 32, 32)
    tiny.vllm.zero_grad()
    answer_loss(tiny.vllm, pixels, [Example([1, 40], [41], [50, 2])]).backward()
    state_gradient = tiny.vllm.lm_head.weight.grad
    assert state_gradient is not None
    with torch.inference_mode():
        states = tiny.vllm.model.language_model(
            inputs_embeds=torch.cat(
                [
                    tiny.vllm.get_input_embeddings()(torch.tensor([1, 40])),
                    embed_image(tiny, pixels)[0],
                    tiny.vllm.get_input_embeddings()(torch.tensor([41, 50])),
                ]
            )[None]
        ).last_hidden_state[0, -2:]
        wrong = tiny.vllm.lm_head(states).softmax(-1)[:, 41]
    # d loss / d row = mean over answer positions of probability x state, were the token never a label.
    torch.testing.assert_close(state_gradient[41], (wrong[:, None] * states).mean(0), rtol=1e-3, atol=1e-5)
    tiny.vllm.zero_grad()


# --- embeddings


@pytest.fixture(scope="module")
def embeddings(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Embeddings, Path]:
    output = tmp_path_factory.mktemp("embeddings")
    return embed(workshop.checkpoint, workshop.records, output), output


@torch.inference_mode()
def test_embeddings_are_of_every_pair_and_its_mirror_image(
    embeddings: tuple[Embeddings, Path], workshop: Workshop, tiny: LegoCheckpoint
) -> None:
    data, _ = embeddings
    assert len(data) == 2 * PAIRS
    assert data.frame_latents.shape == (12, *LATENT) and data.frame_latents.dtype == np.float16
    record = workshop.records[3]
    source, target = read_frame(record.input_path), read_frame(record.target_path)
    plain = (source, target, record.action, record.description)
    flipped = (
        ImageOps.mirror(source), ImageOps.mirror(target), mirror_text(record.action), mirror_text(record.description),
    )  # fmt: skip
    for row, (before, after, action, description) in ((6, plain), (7, flipped)):
        latents = tiny.vae.encode(
            torch.from_numpy(np.stack([frame_to_pixels(each, 64) for each in (before, after)]))
        ).latent_dist
        image = embed_image(tiny, torch.from_numpy(frame_to_vision_pixels(before, tiny.config.vision))[None])[0]
        states = states_of(tiny, image, action, description).text_states
        expected = {
            "frame_latents": latents.mode()[0], "target_means": latents.mean[1], "target_stds": latents.std[1],
            "image_embeddings": image, "text_states": states,
        }  # fmt: skip
        for name, value in expected.items():
            stored = getattr(data, name)[row].astype(np.float32)
            # The autoencoder runs in bfloat16; what the VLLM says is kept to float16's precision.
            error = 0.03 if name in ("frame_latents", "target_means", "target_stds") else 2e-3
            np.testing.assert_allclose(stored[: len(value)], value.numpy(), rtol=error, atol=error, err_msg=name)
        assert not data.text_states[row][len(states) :].any()
        ids = encode_description(tiny.tokenizer, description, 12, tiny.special_text_tokens)
        assert data.text_ids[row].tolist() == ids
        ids = encode_description(tiny.tokenizer, action, 12, tiny.special_text_tokens)
        assert data.label_ids[row].tolist() == ids
    assert data.names[6:8] == [f"{record.clip_id}/{record.action_id}", f"{record.clip_id}/{record.action_id} mirrored"]


def test_mirror_images_can_keep_features_and_words_as_in_the_original(
    embeddings: tuple[Embeddings, Path], workshop: Workshop, tmp_path: Path
) -> None:
    mirrored, _ = embeddings

    data = embed(workshop.checkpoint, workshop.records, tmp_path, flip="frames")

    for name in ("image_embeddings", "text_states", "text_ids", "label_ids"):
        pairs, mirrors = getattr(data, name)[::2], getattr(data, name)[1::2]
        np.testing.assert_array_equal(pairs, mirrors, err_msg=name)
    for name in ("frame_latents", "target_means"):
        np.testing.assert_allclose(getattr(data, name), getattr(mirrored, name), rtol=1e-2, atol=1e-3)
    with pytest.raises(LegoError, match="embeddings of another checkpoint or dataset"):
        embed(workshop.checkpoint, workshop.records, tmp_path, flip="everything")


def test_embedding_goes_on_where_it_stopped(
    embeddings: tuple[Embeddings, Path], workshop: Workshop, tmp_path: Path
) -> None:
    data, output = embeddings
    key, _ = (output / "done.txt").read_text().splitlines()
    for name in NETWORKS_MAKE:
        array = np.array(getattr(data, name))
        array[4:] = 0  # not yet done
        array[0] = 7  # done, and not to be done again
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "done.txt").write_text(f"{key}\n4\n")

    resumed = embed(workshop.checkpoint, workshop.records, tmp_path)

    np.testing.assert_array_equal(resumed.label_ids, data.label_ids)
    for name in NETWORKS_MAKE:
        assert (getattr(resumed, name)[0] == 7).all()
        np.testing.assert_allclose(getattr(resumed, name)[1:], getattr(data, name)[1:], rtol=1e-2, atol=1e-3)
    assert (tmp_path / "done.txt").read_text() == f"{key}\n12\n"


def test_finished_embeddings_are_only_read(embeddings: tuple[Embeddings, Path], workshop: Workshop) -> None:
    data, output = embeddings
    before = (output / "text_states.npy").stat().st_mtime_ns

    again = embed(workshop.checkpoint, workshop.records, output)

    assert (output / "text_states.npy").stat().st_mtime_ns == before
    np.testing.assert_array_equal(again.text_states, data.text_states)


def test_embeddings_of_other_pairs_are_refused(embeddings: tuple[Embeddings, Path], workshop: Workshop) -> None:
    _, output = embeddings
    reordered = workshop.records[::-1]

    with pytest.raises(LegoError, match="embeddings of another checkpoint or dataset; remove it or choose another"):
        embed(workshop.checkpoint, reordered, output)


def test_embeddings_of_another_checkpoint_are_refused(
    embeddings: tuple[Embeddings, Path], workshop: Workshop, checkpoint: Path
) -> None:
    _, output = embeddings
    checkpoint_with_other_words = checkpoint / "vllm" / "config.json"
    checkpoint_with_other_words.write_text(checkpoint_with_other_words.read_text() + "\n")

    with pytest.raises(LegoError, match="embeddings of another checkpoint or dataset"):
        embed(checkpoint, workshop.records, output)


# --- diffusion tuning


def test_each_condition_is_dropped_alone_and_with_the_other_equally_often() -> None:
    """The table of lego-reference A5."""
    count, probability = 1000, 0.05
    chance = (torch.arange(count) + 0.5) / count
    context, frame = torch.ones(count, 3, 2), torch.ones(count, 4, 2, 2)
    null = torch.full((1, 3, 2), -1.0)

    kept_context, kept_frame = drop_conditions(context, frame, null, chance, probability)

    text_dropped = (kept_context == -1).all(dim=(1, 2))
    frame_dropped = (kept_frame == 0).all(dim=(1, 2, 3))
    assert (text_dropped | (kept_context == 1).all(dim=(1, 2))).all(), "all tokens of a sample or none"
    table = [(bool(text_dropped[i]), bool(frame_dropped[i])) for i in range(count)]
    assert table == [(True, False)] * 50 + [(True, True)] * 50 + [(False, True)] * 50 + [(False, False)] * 850


def test_nothing_is_dropped_at_probability_zero() -> None:
    context, frame = torch.randn(9, 3, 2), torch.randn(9, 4, 2, 2)

    kept_context, kept_frame = drop_conditions(context, frame, torch.zeros(1, 3, 2), torch.rand(9), 0.0)

    assert torch.equal(kept_context, context) and torch.equal(kept_frame, frame)


def test_change_is_where_the_frames_differ() -> None:
    frame, target = torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8)
    target[..., :4] = 0.5
    moved = change(frame, target, scale=1.0)

    assert moved.shape == (1, 1, 8, 8)
    assert moved[0, 0, 4, 1] == pytest.approx(0.5) and moved[0, 0, 4, 6] == 0
    assert change(frame, target * 100, scale=1.0).max() == 1


@pytest.mark.parametrize("change_weight", [0.0, 4.0])
def test_the_unet_learns_and_with_it_what_the_configuration_names(
    embeddings: tuple[Embeddings, Path], checkpoint: Path, tmp_path: Path, change_weight: float
) -> None:
    data, _ = embeddings
    before = {part: fingerprint(checkpoint, (part,)) for part in ("unet", "conditioner", "text_encoder", "vae", "vllm")}
    diffusion = DiffusionConfig(train_conditioner=True, train_text_encoder=False, change_weight=change_weight)

    tune_diffusion(checkpoint, data, settings(steps=50, batch_size=8), diffusion, tmp_path)

    assert learnt(tmp_path, "tune_diffusion") < 0.9
    changed = {part for part, value in before.items() if fingerprint(checkpoint, (part,)) != value}
    assert changed == {"unet", "conditioner"}


def test_the_released_codes_frozen_conditioner_can_be_had(
    embeddings: tuple[Embeddings, Path], checkpoint: Path, tmp_path: Path
) -> None:
    data, _ = embeddings
    before = fingerprint(checkpoint, ("conditioner",))

    diffusion = DiffusionConfig(train_conditioner=False, train_text_encoder=True)
    tune_diffusion(checkpoint, data, settings(steps=2), diffusion, tmp_path)

    assert fingerprint(checkpoint, ("conditioner",)) == before


def test_activations_computed_again_change_no_loss(
    embeddings: tuple[Embeddings, Path], checkpoint: Path, workshop: Workshop, tmp_path: Path
) -> None:
    data, _ = embeddings
    curves: list[list[str]] = []
    calls: list[int] = []
    for again in (False, True):
        run = tmp_path / str(again)
        config = settings(steps=2, learning_rate=0, gradient_checkpointing=again)
        with pytest.MonkeyPatch.context() as patch:
            count = [0]
            forward = LlamaMLP.forward

            def counted(*arguments: Any, _count: list[int] = count, _forward: Any = forward, **named: Any) -> Any:
                _count[0] += 1
                return _forward(*arguments, **named)

            patch.setattr(LlamaMLP, "forward", counted)
            tune_vllm(checkpoint, workshop.records, config, TuningConfig(), run)
        tune_diffusion(checkpoint, data, config, DiffusionConfig(), run)
        calls.append(count[0])
        rows = [
            csv.DictReader((run / f"{name}.csv").read_text().splitlines()) for name in ("tune_vllm", "tune_diffusion")
        ]
        curves.append([f"{row['loss']} {row['gradient_norm']}" for stage in rows for row in stage])

    assert curves[0] == curves[1]
    assert calls[1] == 2 * calls[0]


@pytest.mark.parametrize("start", ["xavier", "torch"])
def test_a_frozen_conditioner_can_start_anew_and_stays_as_it_started(
    embeddings: tuple[Embeddings, Path], checkpoint: Path, tmp_path: Path, start: Any
) -> None:
    data, _ = embeddings
    before = LegoCheckpoint.load(checkpoint).conditioner
    diffusion = DiffusionConfig(train_conditioner=False, conditioner_start=start)

    tune_diffusion(checkpoint, data, settings(steps=1), diffusion, tmp_path)
    started = LegoCheckpoint.load(checkpoint).conditioner
    tune_diffusion(checkpoint, data, settings(steps=2), diffusion, tmp_path)

    after = LegoCheckpoint.load(checkpoint).conditioner.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in started.state_dict().items())
    assert not torch.equal(started.image_projection.weight, before.image_projection.weight)


def test_sample_pictures_show_input_target_and_what_is_painted(
    embeddings: tuple[Embeddings, Path], checkpoint: Path, workshop: Workshop, tmp_path: Path
) -> None:
    data, _ = embeddings

    tune_diffusion(checkpoint, data, settings(steps=1, sample_minutes=30), DiffusionConfig(), tmp_path)

    picture = np.asarray(Image.open(tmp_path / "samples" / "tune_diffusion_0000001.png")).astype(float)
    assert picture.shape == (4 * 64, 3 * 64, 3)
    vae = LegoCheckpoint.load(checkpoint).vae
    with torch.inference_mode():
        for row, index in ((0, 0), (3, PAIRS - 1)):
            for column, latents in ((0, data.frame_latents), (1, data.target_means)):
                decoded = vae.decode(torch.from_numpy(latents[2 * index : 2 * index + 1].astype(np.float32))).sample[0]
                expected = ((decoded.permute(1, 2, 0) + 1) * 127.5).clamp(0, 255).numpy()
                shown = picture[64 * row : 64 * (row + 1), 64 * column : 64 * (column + 1)]
                assert np.abs(shown - expected).max() <= 1


@pytest.mark.parametrize(
    ("conditioning", "tokens"),
    [("label", 12), ("description", 12), ("description_image", 16), ("description_text", 24), ("joint", 28)],
)
def test_the_context_has_the_blocks_of_its_conditioning_in_training_and_in_use(
    embeddings: tuple[Embeddings, Path], checkpoint: Path, workshop: Workshop, tmp_path: Path, conditioning: Any,
    tokens: int,
) -> None:  # fmt: skip
    data, _ = embeddings
    seen: list[int] = []
    forward = UNet2DConditionModel.forward

    def watched(unet: Any, sample: Tensor, timestep: Tensor, context: Tensor, *rest: Any, **more: Any) -> Any:
        seen.append(context.shape[1])
        return forward(unet, sample, timestep, context, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UNet2DConditionModel, "forward", watched)
        tune_diffusion(checkpoint, data, settings(steps=2), DiffusionConfig(conditioning=conditioning), tmp_path)
        assert set(seen) == {tokens}
        pipe = LegoPipeline.from_pretrained(checkpoint)
        guidance = pipe(read_frame(workshop.records[0].input_path), "how do I open the left drawer?", steps=1)

    assert pipe.config.conditioning == conditioning and set(seen) == {tokens}
    if conditioning == "label":
        assert guidance.description == "open left drawer"


def test_the_label_and_not_the_description_conditions_where_asked_for(
    embeddings: tuple[Embeddings, Path], checkpoint: Path, tmp_path: Path
) -> None:
    data, _ = embeddings
    losses = {}
    for conditioning, change_of in (("label", "text_ids"), ("label", "label_ids"), ("description", "text_ids")):
        for words in (getattr(data, change_of), np.zeros_like(getattr(data, change_of))):
            run = tmp_path / f"{conditioning}{len(losses)}"
            diffusion = DiffusionConfig(conditioning=conditioning, condition_dropout=0)  # type: ignore[arg-type]
            tune_diffusion(
                checkpoint, replace(data, **{change_of: words}), settings(steps=1, learning_rate=0), diffusion, run
            )
            (row,) = csv.DictReader((run / "tune_diffusion.csv").read_text().splitlines())
            losses[conditioning, change_of, bool(words.any())] = row["loss"]

    assert losses["label", "text_ids", True] == losses["label", "text_ids", False]
    assert losses["label", "label_ids", True] != losses["label", "label_ids", False]
    assert losses["description", "text_ids", True] != losses["description", "text_ids", False]


def test_without_flips_no_mirror_image_is_read(
    embeddings: tuple[Embeddings, Path], checkpoint: Path, tmp_path: Path
) -> None:
    data, _ = embeddings
    spoilt = np.array(data.frame_latents)
    spoilt[1::2] = np.nan

    tune_diffusion(
        checkpoint, replace(data, frame_latents=spoilt), settings(steps=4), DiffusionConfig(flip="never"), tmp_path
    )
    with pytest.raises(LegoError, match=r"from the samples [^/]+/[^/ ]+ mirrored"):
        tune_diffusion(
            checkpoint, replace(data, frame_latents=spoilt), settings(steps=4), DiffusionConfig(), tmp_path / "flipped"
        )


def test_loaded_embeddings_are_mapped_and_not_read(embeddings: tuple[Embeddings, Path]) -> None:
    assert isinstance(load_embeddings(embeddings[1]).text_states, np.memmap)


def test_lego_json_is_no_stages_business(checkpoint: Path, workshop: Workshop, tmp_path: Path) -> None:
    before = LegoConfig.load(checkpoint)

    train_vae(checkpoint, workshop.records[:1], settings(steps=1), tmp_path, resolution=64)

    assert LegoConfig.load(checkpoint) == before
