"""Released weights become a checkpoint, and whatever is not right with them is said before anything is written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from lego_core.errors import LegoError
from lego_core.prompts import LLAVA_LLAMA_2, VICUNA_V1
from lego_export.cli import main
from lego_export.original import parts as parts_module
from lego_export.original.compvis import read_compvis
from lego_export.original.convert import convert
from lego_export.original.llava import prompt_template, read_llava
from lego_export.original.names import UNET, ema_key
from lego_export.original.restore import to_original
from lego_export.original.tensors import LazyTensor, read_file
from lego_export.original.tokenizer import llama_tokenizer
from lego_model.checkpoint import LegoCheckpoint
from lego_model.pipeline import LegoPipeline
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlavaConfig, LlavaForConditionalGeneration

from tests.export.released import (
    GOLDEN,
    IMAGE_TOKENS,
    LLAMA,
    TEXT_TOKENS,
    VISION,
    diffusion_models,
    key_shapes,
    lego_state,
    stable_diffusion_state,
    write_clip,
    write_llama_tokenizer,
    write_llava,
)

CONV = "input_blocks.0.0.weight"


@dataclass(frozen=True)
class Released:
    """What a user downloads."""

    lego: Path
    vllm: Path
    clip: Path
    state: dict[str, Tensor]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    folder = tmp_path_factory.mktemp("released")
    (folder / "clip").mkdir()
    state = lego_state()
    torch.save({"state_dict": state, "global_step": 1080}, folder / "lego.ckpt")
    return Released(folder / "lego.ckpt", write_llava(folder / "llava"), write_clip(folder / "clip"), state)


@pytest.fixture(scope="module")
def converted(released: Released) -> Path:
    """The whole checkpoint, both U-Nets kept."""
    directory = released.lego.parent / "converted"
    convert(released.lego, directory, vllm=released.vllm, clip=released.clip, keep_raw=True)
    return directory


def refusal(source: Path, *, vllm: Path | None = None, clip: Path | None = None, **options: Any) -> str:
    """What the converter says of something it cannot take; nothing may be left behind."""
    target = source.parent / "refused"
    before = sorted(os.listdir(source.parent))
    with pytest.raises(LegoError) as refused:
        convert(source, target, vllm=vllm, clip=clip, **options)
    assert sorted(os.listdir(source.parent)) == before
    return str(refused.value)


def refused_state(folder: Path, state: dict[str, Tensor]) -> str:
    torch.save({"state_dict": state}, folder / "model.ckpt")
    return refusal(folder / "model.ckpt")


@pytest.mark.parametrize("size", ["small", "full"])
def test_names_and_shapes_are_the_originals(size: str) -> None:
    if not GOLDEN.is_dir():
        pytest.skip("the original's list of keys is not here")
    listed = json.loads((GOLDEN / "original_keys.json").read_text())[size]["keys"]
    sizes = {"width": 320, "context": 768, "vllm_width": 5120, "vae_width": 128} if size == "full" else {}
    keys = key_shapes(diffusion_models(**sizes))

    ours = {key: list(shape) for key, shape in keys.items() if not key.startswith("cond_stage_model.")}

    assert ours == listed
    assert len(ours) == 1650


def test_a_released_model_has_1859_tensors() -> None:
    from transformers import CLIPTextConfig

    # openai/clip-vit-large-patch14's text model has 12 layers; transformers' default configuration is smaller.
    text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    keys = key_shapes(diffusion_models(320, 768, 5120, 128, text=text))

    assert len(keys) + 12 + 1 == 1859  # the schedule's buffers and CLIP's position_ids
    assert sum(torch.Size(shape).numel() for key, shape in keys.items() if key.startswith(UNET)) == 859_532_484


def test_a_converted_model_loads_and_paints(converted: Path) -> None:
    guidance = LegoPipeline.from_pretrained(converted)(
        Image.new("RGB", (160, 120), (90, 60, 30)), "how do I open the drawer?", description="a b", steps=1
    )  # fmt: skip

    assert guidance.image.size == (341, 256)  # the frame's aspect ratio at the model's height


def test_converting_back_gives_the_very_file(released: Released, converted: Path, tmp_path: Path) -> None:
    to_original(converted, tmp_path / "back.ckpt")
    content = torch.load(tmp_path / "back.ckpt", weights_only=True)

    assert content["global_step"] == 1080
    assert set(content["state_dict"]) == set(released.state)
    for key, values in released.state.items():
        restored = content["state_dict"][key]
        assert restored.dtype == values.dtype and restored.equal(values), key


def test_the_averaged_unet_is_taken_unless_the_raw_one_is_asked_for(released: Released) -> None:
    tensors, rest = read_file(released.lego)
    for raw, key in ((False, ema_key(UNET + CONV)), (True, UNET + CONV)):
        source = read_compvis(released.lego, tensors, rest, raw=raw, keep_raw=False)
        assert source.parts["unet"].tensors["conv_in.weight"].load().equal(released.state[key])


def test_lego_json_says_how_the_model_asks_and_where_it_comes_from(converted: Path) -> None:
    config = LegoCheckpoint.load(converted).config

    assert config.prompt_template == LLAVA_LLAMA_2
    assert config.query_template == "How does the person properly {action} that is displayed in the video frame?"
    assert (config.text_tokens, config.image_tokens) == (TEXT_TOKENS, IMAGE_TOKENS)
    assert (config.vision.size, config.vision.fit) == (VISION.image_size, "centre_crop")
    guidance = config.guidance
    assert (guidance.sampler, guidance.steps) == ("euler_ancestral", 100)
    assert (guidance.text_scale, guidance.image_scale) == (7.5, 1.5)
    assert config.provenance["num_updates"] == 4321
    assert config.provenance["unet"] == "moving average (EMA)"
    assert config.provenance["conditioner"] == "as stored: trained"


def test_a_conditioner_that_was_never_trained_is_told(released: Released, tmp_path: Path) -> None:
    state = dict(released.state)
    encoder = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(64, 8, 2048, batch_first=True), 2)
    state |= {f"self_attn_mix.{key}": values for key, values in encoder.state_dict().items()}
    lazy = {key: LazyTensor.of(values) for key, values in state.items()}

    source = read_compvis(tmp_path / "x.ckpt", lazy, {}, raw=False, keep_raw=False)

    assert "random initialisation" in source.provenance["conditioner"]


def test_half_precision_halves_the_weights(released: Released, tmp_path: Path) -> None:
    convert(released.lego, tmp_path / "half", vllm=released.vllm, clip=released.clip, weights="fp16")

    with safe_open(tmp_path / "half" / "unet" / "diffusion_pytorch_model.safetensors", "pt") as file:
        stored = file.get_tensor("conv_in.weight")
    assert stored.equal(released.state[ema_key(UNET + CONV)].half())


def test_a_weight_too_large_for_half_precision_is_named(released: Released, tmp_path: Path) -> None:
    state = dict(released.state)
    state["projection_img.bias"] = torch.full((64,), 1e5)
    torch.save({"state_dict": state}, tmp_path / "lego.ckpt")

    message = refusal(tmp_path / "lego.ckpt", vllm=released.vllm, clip=released.clip, weights="fp16")

    assert "image_projection.bias reaches 100000" in message and "--weights fp32" in message


def test_large_parts_are_written_in_shards(
    released: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(parts_module, "SHARD_BYTES", 4_000_000)
    convert(released.lego, tmp_path / "sharded", vllm=released.vllm, clip=released.clip)

    assert len(list((tmp_path / "sharded" / "unet").glob("*.safetensors"))) > 1
    weight = LegoCheckpoint.load(tmp_path / "sharded").unet.conv_in.weight
    assert weight.equal(released.state[ema_key(UNET + CONV)])


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_stable_diffusion_starts_with_blank_channels_for_the_frame(
    released: Released, tmp_path: Path, suffix: str
) -> None:  # fmt: skip
    state = stable_diffusion_state(in_channels=4)
    # The name says nothing: content decides.
    path = tmp_path / "model.bin"
    if suffix == ".ckpt":
        torch.save({"state_dict": state}, path)
    else:
        save_file(state, path)

    config = convert(path, tmp_path / "out", vllm=released.vllm, clip=released.clip)

    checkpoint = LegoCheckpoint.load(tmp_path / "out")
    weight = checkpoint.unet.conv_in.weight
    assert weight[:, :4].equal(state[UNET + CONV]) and not weight[:, 4:].any()
    assert config.provenance["converted_from"] == "Stable Diffusion"
    assert "not trained" in config.provenance["conditioner"] and "starting point for training" in config.notice


def test_instruct_pix2pix_keeps_its_eight_channels(released: Released, tmp_path: Path) -> None:
    state = stable_diffusion_state(in_channels=8)
    torch.save({"state_dict": state}, tmp_path / "model.ckpt")
    tensors, rest = read_file(tmp_path / "model.ckpt")

    source = read_compvis(tmp_path / "model.ckpt", tensors, rest, raw=False, keep_raw=False)

    assert source.family == "InstructPix2Pix"
    assert source.parts["unet"].tensors["conv_in.weight"].load().equal(state[UNET + CONV])


def test_a_diffusers_pipeline_converts(released: Released, converted: Path, tmp_path: Path) -> None:
    pipeline = tmp_path / "pipeline"
    for part in ("unet", "vae", "text_encoder", "scheduler"):
        shutil.copytree(converted / part, pipeline / part)
    (pipeline / "tokenizer").mkdir()
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(released.clip / name, pipeline / "tokenizer" / name)
    (pipeline / "model_index.json").write_text('{"_class_name": "StableDiffusionInstructPix2PixPipeline"}')

    config = convert(pipeline, tmp_path / "out", vllm=released.vllm, clip=released.clip)

    assert config.provenance["converted_from"] == "InstructPix2Pix"
    assert config.licence == "MIT AND CreativeML-OpenRAIL-M"
    expected, checkpoint = LegoCheckpoint.load(converted), LegoCheckpoint.load(tmp_path / "out")
    for part in ("unet", "vae", "text_encoder"):
        weights = getattr(checkpoint, part).state_dict()
        assert all(values.equal(weights[key]) for key, values in getattr(expected, part).state_dict().items())


def test_an_older_autoencoders_names_are_understood(released: Released, converted: Path, tmp_path: Path) -> None:
    pipeline = tmp_path / "pipeline"
    for part in ("unet", "vae", "text_encoder", "scheduler", "tokenizer"):
        shutil.copytree(converted / part, pipeline / part)
    weights = pipeline / "vae" / "diffusion_pytorch_model.safetensors"
    names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    state = {}
    with safe_open(weights, "pt") as file:
        for key in file.keys():  # noqa: SIM118
            older = key
            for today, before in names.items():
                older = older.replace(today, before)
            state[older] = file.get_tensor(key).clone()
    save_file(state, weights)

    convert(pipeline, tmp_path / "out", vllm=released.vllm, clip=released.clip)

    key = "encoder.mid_block.attentions.0.to_q.weight"
    expected = LegoCheckpoint.load(converted).vae.state_dict()[key]
    assert LegoCheckpoint.load(tmp_path / "out").vae.state_dict()[key].equal(expected)


def test_the_authors_llava_projects_with_its_one_layer(released: Released, converted: Path) -> None:
    vllm = LegoCheckpoint.load(converted).vllm
    state = read_llava_state(released.vllm)
    features = torch.randn(1, IMAGE_TOKENS, VISION.hidden_size)

    projected = vllm.model.multi_modal_projector(features)

    weight, bias = state["model.mm_projector.weight"].float(), state["model.mm_projector.bias"].float()
    torch.testing.assert_close(projected, torch.nn.functional.linear(features, weight, bias), rtol=0, atol=0)
    assert vllm.config.text_config.rope_parameters["rope_theta"] == 5000
    assert vllm.config.text_config.rms_norm_eps == 1e-5


def read_llava_state(folder: Path) -> dict[str, Tensor]:
    return {key: each for file in folder.glob("*.bin") for key, each in torch.load(file, weights_only=True).items()}


def test_the_authors_llava_with_two_projector_layers_converts(released: Released, tmp_path: Path) -> None:
    part = read_llava(write_llava(tmp_path / "llava", projector_layers=2), released.clip)

    state = read_llava_state(tmp_path / "llava")
    second = part.tensors["model.multi_modal_projector.linear_2.weight"].load()
    assert second.equal(state["model.mm_projector.2.weight"])
    assert part.model.config.projector_hidden_act == "gelu"  # type: ignore[union-attr]


@pytest.mark.parametrize(("layers", "template"), [(1, LLAVA_LLAMA_2), (2, VICUNA_V1)])
def test_a_vllm_is_asked_in_the_words_it_was_tuned_with(
    released: Released, tmp_path: Path, layers: int, template: str
) -> None:  # fmt: skip
    vllm = write_llava(tmp_path / "llava", projector_layers=layers)

    config = convert(released.lego, tmp_path / "out", vllm=vllm, clip=released.clip)

    assert config.prompt_template == template
    again = LlavaConfig.from_pretrained(tmp_path / "out" / "vllm")
    assert prompt_template(again) == template, "a converted VLLM tells it too"


# How transformers has named the same weights: today's file, and the files of version 4.
LAYOUTS = {
    "today": {},
    "version 4": {
        "model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head.",
        "model.vision_tower.": "vision_tower.vision_model.", "model.multi_modal_projector.": "multi_modal_projector.",
    },
    "version 4.52": {"model.vision_tower.": "model.vision_tower.vision_model."},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_transformers_llava_converts_whatever_its_version(layout: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    config = LlavaConfig(vision_config=VISION, text_config=LLAMA, image_seq_length=IMAGE_TOKENS)
    model = LlavaForConditionalGeneration(config)
    config.save_pretrained(tmp_path)
    state = {}
    for key, values in model.state_dict().items():
        before = next((each for each in LAYOUTS[layout] if key.startswith(each)), "")
        state[LAYOUTS[layout].get(before, before) + key.removeprefix(before)] = values
    save_file(state, tmp_path / "model.safetensors")
    write_llama_tokenizer(tmp_path)

    part = read_llava(tmp_path, None)

    assert all(values.equal(part.tensors[key].load()) for key, values in model.state_dict().items())


def test_a_sentencepiece_model_becomes_a_tokenizer(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    sentences = ["How do I open the drawer?", "The right hand pulls the drawer open.", "The left hand turns the tap."]
    (tmp_path / "corpus").write_text("\n".join(sentences * 5))
    sentencepiece.SentencePieceTrainer.train(
        input=tmp_path / "corpus", model_prefix=tmp_path / "tokenizer", model_type="bpe", vocab_size=310,
        byte_fallback=True, minloglevel=2,
        # LLaMA's own settings: text is taken as it is.
        normalization_rule_name="identity", remove_extra_whitespaces=False,
    )  # fmt: skip

    reference = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    tokenizer = llama_tokenizer(tmp_path)

    for text in ("The right hand turns the drawer.", "\nHow do I open it? [/INST]", "é"):
        assert tokenizer.encode(text, add_special_tokens=False).ids == reference.encode(text)


def test_missing_unexpected_and_misshaped_tensors_are_listed_together(released: Released, tmp_path: Path) -> None:
    state = dict(released.state)
    del state[f"{UNET}output_blocks.3.1.norm.weight"], state["first_stage_model.decoder.norm_out.bias"]
    state["model.diffusion_model.extra"] = torch.zeros(1)
    state["projection_txt.bias"] = torch.zeros(7)

    message = refused_state(tmp_path, state)

    assert (
        "missing: 2 (first_stage_model.decoder.norm_out.bias, model.diffusion_model.output_blocks.3.1.norm.weight)"
        in (message)
    )
    assert "unexpected: 1 (model.diffusion_model.extra)" in message
    assert "misshaped: 1 (projection_txt.bias (7,) instead of (64,))" in message


def test_a_long_list_is_cut_with_a_count(released: Released, tmp_path: Path) -> None:
    state = {key: values for key, values in released.state.items() if not key.startswith("model_ema.")}
    message = refused_state(tmp_path, state)
    assert "missing: 688 (" in message and "and 676 more" in message


@pytest.mark.parametrize(
    "key", [f"{UNET}input_blocks.0.0.weight", "projection_img.weight", "self_attn_mix.layers.0.linear1.weight",
            "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"],
)  # fmt: skip
def test_a_missing_tensor_that_tells_a_size_is_named(released: Released, tmp_path: Path, key: str) -> None:
    message = refused_state(tmp_path, {name: each for name, each in released.state.items() if name != key})
    assert f"{key}" in message


def test_another_noise_schedule_is_refused(released: Released, tmp_path: Path) -> None:
    state = dict(released.state)
    state["betas"] = torch.linspace(1e-4, 2e-2, 1000)
    assert "another noise schedule" in refused_state(tmp_path, state)


def test_a_truncated_file_is_refused(released: Released, tmp_path: Path) -> None:
    content = released.lego.read_bytes()
    (tmp_path / "lego.ckpt").write_bytes(content[: len(content) // 2])
    assert "truncated or damaged" in refusal(tmp_path / "lego.ckpt")

    save_file({"weight": torch.zeros(100)}, tmp_path / "whole.safetensors")
    content = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-50])
    assert "truncated or damaged" in refusal(tmp_path / "model.safetensors")


def test_a_file_with_code_is_refused_and_nothing_of_it_runs(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'executed'}",)

    torch.save({"state_dict": {"weight": Malicious()}}, tmp_path / "model.ckpt")

    assert "asks for code to be run on reading" in refusal(tmp_path / "model.ckpt")
    assert not (tmp_path / "executed").exists()


def test_what_lightning_leaves_beside_the_weights_is_passed_over(tmp_path: Path) -> None:
    module = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning.callbacks.model_checkpoint"})
    import sys
    from types import ModuleType

    names = ["pytorch_lightning", "pytorch_lightning.callbacks", "pytorch_lightning.callbacks.model_checkpoint"]
    stand_ins = {name: ModuleType(name) for name in names}
    stand_ins[names[-1]].ModelCheckpoint = module  # type: ignore[attr-defined]
    sys.modules.update(stand_ins)
    try:
        torch.save({"state_dict": {"weight": torch.ones(2)}, "callbacks": {module: 1}}, tmp_path / "model.ckpt")
    finally:
        for name in names:
            del sys.modules[name]

    tensors, _ = read_file(tmp_path / "model.ckpt")

    assert tensors["weight"].load().equal(torch.ones(2))


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("lora_unet_down_blocks_0.lora_up.weight", "is a LoRA"),
        ("conditioner.embedders.0.transformer.weight", "Stable Diffusion XL"),
        ("cond_stage_model.model.transformer.weight", "Stable Diffusion 2"),
        ("model.mm_projector.weight", "--vllm"),
        ("down_blocks.0.resnets.0.conv1.weight", "whole pipeline"),
        ("weight", "no U-Net"),
    ],
)
def test_a_model_of_another_family_is_named(tmp_path: Path, key: str, text: str) -> None:
    assert text in refused_state(tmp_path, {key: torch.zeros(1)})


@pytest.mark.parametrize("value", [None, "many", torch.ones(3)])
def test_a_count_of_steps_that_is_none_is_named(released: Released, tmp_path: Path, value: Any) -> None:
    tensors, _ = read_file(released.lego)

    with pytest.raises(LegoError, match=r"x\.ckpt: global_step is .*must be a whole number"):
        read_compvis(tmp_path / "x.ckpt", tensors, {"global_step": value}, raw=False, keep_raw=False)


@pytest.mark.parametrize("key", ["model_ema.num_updates", "model_ema.decay"])
def test_an_average_that_says_no_number_is_named(released: Released, tmp_path: Path, key: str) -> None:
    tensors, rest = read_file(released.lego)
    tensors = {**tensors, key: LazyTensor.of(torch.tensor(float("nan")))}

    with pytest.raises(LegoError, match=f"{key} is"):
        read_compvis(tmp_path / "x.ckpt", tensors, rest, raw=False, keep_raw=False)


@pytest.mark.parametrize(
    ("key", "shape", "part"),
    [
        (f"{UNET}input_blocks.1.0.out_layers.3.weight", (33, 32, 3, 3), "unet"),
        ("first_stage_model.encoder.down.0.block.0.conv2.weight", (33, 32, 3, 3), "vae"),
        ("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", (300, 0), "text_encoder"),
        ("projection_img.weight", (60, 96), "conditioner"),
    ],
)
def test_sizes_that_no_library_can_build_are_named_with_their_part(
    released: Released, tmp_path: Path, key: str, shape: tuple[int, ...], part: str
) -> None:
    tensors, rest = read_file(released.lego)
    tensors = {**tensors, key: LazyTensor.of(torch.zeros(shape))}

    with pytest.raises(LegoError, match=rf"x\.ckpt: no {part} can be built of the sizes of its tensors \(.+\)"):
        read_compvis(tmp_path / "x.ckpt", tensors, rest, raw=False, keep_raw=False)


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (lambda: torch.zeros(2, device="meta"), "weight was saved without its numbers"),
        (lambda: torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8), "weight is stored as torch.qint8"),
        (lambda: torch.zeros(2, dtype=torch.complex64), "weight is stored as torch.complex64; give the model unquan"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # torch's, of its older kinds of tensors
def test_tensors_that_are_no_plain_numbers_are_refused(
    tmp_path: Path, tensor: Callable[[], Tensor], text: str
) -> None:  # fmt: skip
    assert text in refused_state(tmp_path, {"weight": tensor()})


def test_an_inpainting_model_is_refused(tmp_path: Path) -> None:
    assert "inpainting" in refused_state(tmp_path, stable_diffusion_state(in_channels=9))


def test_what_is_no_weight_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_text("<html>Not found</html>")
    assert "is no weight file" in refusal(tmp_path / "model.ckpt")
    assert "is not there" in refusal(tmp_path / "absent.ckpt")


def test_the_option_that_gives_what_is_missing_is_named(released: Released) -> None:
    assert "--vllm" in refusal(released.lego)
    assert "--clip" in refusal(released.lego, vllm=released.vllm)


def test_a_vllm_that_is_not_there_is_told(released: Released, tmp_path: Path) -> None:
    for vllm, text in (
        (tmp_path / "none", "none is not there; give the folder of a LLaVA model with --vllm"),
        (released.lego, "lego.ckpt is a file; give the folder of a LLaVA model with --vllm"),
        (tmp_path, "has no config.json; give the folder of a LLaVA model with --vllm"),
    ):
        assert text in refusal(released.lego, vllm=vllm, clip=released.clip)


@pytest.mark.parametrize(
    ("weights", "cure"), [(None, "make room, or store it with --weights fp16"), ("fp16", "make room")]
)
def test_a_full_disk_is_told_with_a_cure_that_is_left(
    released: Released, weights: Any, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]

    message = refusal(released.lego, vllm=released.vllm, clip=released.clip, weights=weights)

    assert message.endswith(f"has 0.0 GB free; {cure}")


def test_a_list_of_shards_nested_beyond_reason_is_named(released: Released, tmp_path: Path) -> None:
    shutil.copytree(released.vllm, tmp_path / "llava")
    for file, text in (("pytorch_model.bin.index.json", "is no list of shards"), ("config.json", "cannot be read")):
        (tmp_path / "llava" / file).write_text("[" * 100_000)
        with pytest.raises(LegoError, match=rf"{file} {text} "):
            read_llava(tmp_path / "llava", released.clip)
        shutil.copyfile(released.vllm / file, tmp_path / "llava" / file)


def test_a_missing_shard_is_named(released: Released, tmp_path: Path) -> None:
    shutil.copytree(released.vllm, tmp_path / "llava")
    (tmp_path / "llava" / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(LegoError, match=r"lacks the shard pytorch_model-00002-of-00002\.bin"):
        read_llava(tmp_path / "llava", released.clip)


def test_an_interrupted_conversion_leaves_nothing(released: Released, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(released.lego, tmp_path / "out", vllm=released.vllm, clip=released.clip, advance=interrupt)
    assert not os.listdir(tmp_path)


def test_nothing_that_exists_is_overwritten(released: Released, converted: Path, tmp_path: Path) -> None:
    with pytest.raises(LegoError, match="there already"):
        convert(released.lego, converted, vllm=released.vllm, clip=released.clip)
    (tmp_path / "lego.ckpt").touch()
    with pytest.raises(LegoError, match="there already"):
        to_original(converted, tmp_path / "lego.ckpt")


def test_the_command_converts_there_and_back(
    released: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    def run(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", ["lego-export", "convert", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    options = ("--vllm", released.vllm, "--clip", released.clip, "--raw")
    assert run(released.lego, tmp_path / "out", *options) == 0
    assert run(tmp_path / "out", tmp_path / "back.ckpt", "--to", "original") == 0
    assert run(released.lego, tmp_path / "other") == 2

    output = capsys.readouterr()
    assert "converted from LEGO" in output.out and "the same U-Net" in output.out
    assert output.err.strip().splitlines()[-1].startswith("error: ")
    state = torch.load(tmp_path / "back.ckpt", weights_only=True)["state_dict"]
    assert state[UNET + CONV].equal(released.state[UNET + CONV])
    assert state[ema_key(UNET + CONV)].equal(released.state[UNET + CONV])
