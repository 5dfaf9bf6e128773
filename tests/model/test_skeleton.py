"""Models without weights: of architecture files and of checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from lego_core.errors import LegoError
from lego_core.prompts import LEGO_QUERY, LLAVA_LLAMA_2, VICUNA_V1
from lego_model.checkpoint import PARTS, LegoCheckpoint
from lego_model.create import create
from lego_model.pipeline import LegoPipeline
from lego_model.skeleton import ARCHITECTURES, read_skeleton
from PIL import Image

from tests.model.conftest import SENTENCES, TINY

RELEASED = "lego-sd15-llava13b"


@pytest.mark.parametrize("name", [path.stem for path in sorted(ARCHITECTURES.glob("*.yaml"))])
def test_every_architecture_can_be_built(name: str) -> None:
    skeleton = read_skeleton(name)

    assert skeleton.config.name in (name, f"lego-{name}")
    for part in vars(skeleton.parts).values():
        assert all(parameter.is_meta for parameter in part.parameters())


def test_the_released_model_has_the_parts_of_the_original() -> None:
    parts = read_skeleton(RELEASED).parts

    def count(name: str) -> tuple[int, int]:
        parameters = list(getattr(parts, name).parameters())
        return len(parameters), sum(parameter.numel() for parameter in parameters)

    assert count("unet") == (686, 859_532_484)
    assert count("vae") == (248, 83_653_863)
    assert count("text_encoder") == (196, 123_060_480)
    assert count("conditioner")[0] == 28
    assert parts.unet.conv_in.weight.shape == (320, 8, 3, 3)
    assert parts.conditioner.image_projection.weight.shape == (768, 5120)
    assert parts.vae.config.scaling_factor == 0.18215


@pytest.mark.parametrize(("name", "template"), [(RELEASED, LLAVA_LLAMA_2), ("lego-sd15-llava7b", VICUNA_V1)])
def test_a_full_size_model_asks_in_the_words_its_vllm_was_tuned_with(name: str, template: str) -> None:
    config = read_skeleton(name).config

    assert (config.prompt_template, config.query_template) == (template, LEGO_QUERY)


def test_the_7b_model_sees_336_pixels_through_two_layers() -> None:
    skeleton = read_skeleton("lego-sd15-llava7b")
    vllm = skeleton.parts.vllm

    assert skeleton.config.image_tokens == 576
    assert vllm.config.vision_feature_layer == -2 and vllm.config.projector_hidden_act == "gelu"
    assert sum(parameter.numel() for parameter in vllm.model.multi_modal_projector.parameters()) == 20_979_712
    assert skeleton.parts.conditioner.config.vllm_width == 4096


def test_a_checkpoints_skeleton_has_the_shapes_of_its_weights(tiny_directory: Path) -> None:
    skeleton, checkpoint = read_skeleton(tiny_directory), LegoCheckpoint.load(tiny_directory)

    assert skeleton.config == checkpoint.config
    for name in PARTS:
        shapes = {key: value.shape for key, value in getattr(skeleton.parts, name).state_dict().items()}
        assert shapes == {key: value.shape for key, value in getattr(checkpoint, name).state_dict().items()}, name


def test_a_checkpoint_is_described_without_its_weights(tiny_directory: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_directory, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors")))

    assert read_skeleton(copy).config.name == "tiny"


def test_what_is_no_model_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(LegoError, match=r"giant is no architecture: .*lego-laptop\.yaml, .*nano\.yaml"):
        read_skeleton("giant")
    with pytest.raises(LegoError, match="is not a LEGO checkpoint directory"):
        read_skeleton(tmp_path)


def test_a_damaged_config_is_named(tiny_directory: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_directory, tmp_path / "copy"))
    (copy / "unet" / "config.json").write_text("{")

    with pytest.raises(LegoError, match=r"unet/config\.json says no unet .*restore the checkpoint"):
        read_skeleton(copy)


def test_a_model_with_the_released_models_manners_runs(tmp_path: Path) -> None:
    """Its own vocabulary and widths, a tower tapped before its last layer, a single-layer projector."""
    path, text = tmp_path / "shape.yaml", TINY.read_text()
    for before, after in (
        ("vllm:\n", "vllm:\n  feature_layer: -2\n  projector: linear\n"),
        ("layers: 1, heads: 2, patch_size: 16}", "layers: 2, heads: 2, patch_size: 16}"),
        ("layers: 2, heads: 2}", "layers: 2, heads: 2, feed_forward: 48, vocabulary: 400, positions: 64}"),
        ("text_encoder: {", "text_encoder: {vocabulary: 500, "),
        ("norm_num_groups: 4}\nunet", "norm_num_groups: 4, mid_block_add_attention: true, scaling_factor: 0.2}\nunet"),
    ):  # fmt: skip
        assert before in text
        text = text.replace(before, after)
    path.write_text(text)

    create(path, SENTENCES).save(tmp_path / "checkpoint")

    pipe = LegoPipeline.from_pretrained(tmp_path / "checkpoint")
    vllm, vae = pipe.checkpoint.vllm, pipe.checkpoint.vae
    assert vllm.config.text_config.vocab_size == 400 and vllm.config.text_config.intermediate_size == 48
    assert pipe.checkpoint.text_encoder.config.vocab_size == 500
    assert vllm.config.vision_feature_layer == -2 and vllm.config.projector_hidden_act == "linear"
    assert vae.config.scaling_factor == 0.2 and vae.config.mid_block_add_attention
    assert pipe(Image.new("RGB", (96, 64)), "open the drawer").image.size == (96, 64)


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        ("unet", "cross_attention_dim", 24, "context widths disagree: unet 24"),
        ("unet", "in_channels", 5, "the unet takes 5 channels"),
        ("conditioner", "vllm_width", 64, "the conditioner projects 64-wide VLLM states"),
        ("", "image_tokens", 9, "lego.json says 9 image tokens"),
        ("", "text_tokens", 70, "lego.json says 70 text tokens"),
    ],
)
def test_a_checkpoint_whose_parts_do_not_fit_is_not_described(
    tiny_directory: Path, tmp_path: Path, file: str, key: str, value: int, message: str
) -> None:
    copy = Path(shutil.copytree(tiny_directory, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors")))
    path = copy / file / "config.json" if file else copy / "lego.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))

    with pytest.raises(LegoError, match=message):
        read_skeleton(copy)


def test_a_file_of_weights_is_not_read_as_an_architecture(tmp_path: Path) -> None:
    (tmp_path / "lego.ckpt").write_text(TINY.read_text())

    with pytest.raises(LegoError, match=r"lego\.ckpt is no architecture file \(\.yaml\); .*convert"):
        read_skeleton(tmp_path / "lego.ckpt")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("attention_heads: 2", "attention_heads: 0"),  # ZeroDivisionError
        ("conditioner: {heads: 2", "conditioner: {heads: 3"),  # AssertionError
        ("layers: 1, heads: 2}\nvllm", "layers: x, heads: 2}\nvllm"),  # transformers' own type
        ("block_out_channels: [16, 32]", "block_out_channels: [-16, 32]"),  # RuntimeError
        ("block_out_channels: [8, 8, 8, 16]", "block_out_channels: []"),  # IndexError
        ("name: tiny", f"name: {'[' * 5000}"),  # RecursionError
    ],
)
def test_values_that_no_library_can_build_are_one_sentence(tmp_path: Path, before: str, after: str) -> None:
    path, text = tmp_path / "shape.yaml", TINY.read_text()
    assert before in text
    path.write_text(text.replace(before, after))

    with pytest.raises(LegoError, match=r"(?s)shape\.yaml is no architecture \(.+\); see"):
        read_skeleton(path)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("text_encoder: {", "text_encoder: {vocabluary: 3, ", "unknown key text_encoder.vocabluary; known keys are"),
        ("vllm:\n", "vllm:\n  projector: resampler\n", "vllm.projector is 'resampler'; choose one of mlp, linear"),
    ],
)
def test_keys_and_values_that_nothing_would_read_are_refused(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    path = tmp_path / "shape.yaml"
    path.write_text(TINY.read_text().replace(before, after))

    with pytest.raises(LegoError, match=message):
        read_skeleton(path)
