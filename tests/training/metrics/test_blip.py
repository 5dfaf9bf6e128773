"""BLIP's captions, in evaluation and in training mode, and the networks that compare them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lego_training.evaluation.metrics.bench import Bench
from lego_training.evaluation.metrics.blip import BlipCaption, Captioner, load_salesforce, write_captions
from lego_training.evaluation.metrics.clip import ClipNetwork
from lego_training.evaluation.metrics.egovlp import EgoVlpNetwork
from lego_training.evaluation.metrics.samples import Sample
from lego_training.evaluation.metrics.scores import MeanScore
from PIL import Image
from torchvision import transforms
from transformers import BlipForConditionalGeneration

from tests.training.metrics.weights import WORDS, new_blip, write_bert_tokenizer

CPU = torch.device("cpu")


def captioner(weights: Path, size: str = "base") -> Captioner:
    folder = weights / f"blip-image-captioning-{size}"
    return Captioner.load(folder, folder, size, CPU)  # type: ignore[arg-type]


def transformers_own(samples: list[Sample], model: BlipForConditionalGeneration) -> list[list[str]]:
    """The words of each picture's caption as transformers writes it, in one batch."""
    prepare = transforms.Compose([
        transforms.Resize((32, 32), transforms.InterpolationMode.BICUBIC), transforms.ToTensor(),
        transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ])  # fmt: skip
    pixels = torch.stack([prepare(Image.open(sample.generated).convert("RGB")) for sample in samples])
    prompt = torch.tensor([[101, 1000, 1001, 1002, 102]] * len(samples))  # [CLS] a picture of [SEP]
    captions = model.generate(pixels, prompt, num_beams=3, max_length=20, min_length=5).tolist()
    assert all(tokens[:4] == [30522, 1000, 1001, 1002] for tokens in captions)
    return [[WORDS[token - 1000] for token in tokens[4:] if token >= 1000] for tokens in captions]


@pytest.mark.parametrize("size", ["base", "large"])
def test_captions_are_transformers_own_without_the_prompt(
    size: str, samples: list[Sample], bench: Bench, weights: Path
) -> None:
    model = BlipForConditionalGeneration.from_pretrained(weights / f"blip-image-captioning-{size}").eval()
    expected = [" ".join(words) for sample in samples for words in transformers_own([sample], model)]

    assert write_captions([each.generated for each in samples], size, "corrected", bench) == expected  # type: ignore[arg-type]
    assert any(expected)


def test_published_captions_are_transformers_own_in_training_mode(
    samples: list[Sample], bench: Bench, weights: Path
) -> None:
    model = BlipForConditionalGeneration.from_pretrained(weights / "blip-image-captioning-base").train()
    for module in model.text_decoder.modules():
        if type(module).__name__ == "Dropout":
            module.p = 0.1
    torch.manual_seed(42)
    expected = ["".join(f" {word}" for word in words) for words in transformers_own(samples, model)]

    assert write_captions([each.generated for each in samples], "base", "published", bench) == expected


def test_a_branch_is_left_out_of_some_samples_and_scaled_up_for_the_others() -> None:
    from lego_training.evaluation.metrics import blip

    torch.manual_seed(0)
    branch = torch.ones(4000, 3, 2)
    kept = blip._dropping(0.25)(torch.nn.Identity(), (), branch)

    assert torch.equal(kept, kept[:, :1, :1].expand_as(kept)), "a sample's branch goes as a whole"
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert float((kept[:, 0, 0] == 0).float().mean()) == pytest.approx(0.25, abs=0.03)


def test_published_captions_come_from_training_mode_and_keep_their_space(samples: list[Sample], weights: Path) -> None:
    writer, paths = captioner(weights), [each.generated for each in samples]

    evaluated = writer.write(paths, None)
    trained = [writer.write(paths, seed) for seed in range(4)]

    assert all(caption.startswith(" ") for caption in trained[0] if caption)
    assert len({tuple(each) for each in trained}) > 1 and writer.write(paths, 0) == trained[0]
    assert writer.write(paths, None) == evaluated and not writer.model.training


def test_dropout_is_that_of_the_originals_bert(weights: Path) -> None:
    rates = {
        module.p for module in captioner(weights).model.text_decoder.modules() if type(module).__name__ == "Dropout"
    }

    assert rates == {0.1}
    assert (captioner(weights, "base").drop_path, captioner(weights, "large").drop_path) == (0, 0.1)


def test_only_the_large_vision_transformer_leaves_layers_out(samples: list[Sample], weights: Path) -> None:
    from lego_training.evaluation.metrics import blip

    pixels = torch.rand(64, 3, 32, 32)
    for size, changes in (("base", False), ("large", True)):
        writer = captioner(weights, size)
        with torch.inference_mode():
            still = writer.model.vision_model(pixels).last_hidden_state
            torch.manual_seed(0)
            with blip._training_mode(writer.model, writer.drop_path):
                moved = writer.model.vision_model(pixels).last_hidden_state
            again = writer.model.vision_model(pixels).last_hidden_state
        differs = (still - moved).abs().amax(dim=(1, 2)) > 1e-6
        assert bool(differs.any()) == changes
        assert torch.equal(still, again)


def salesforce_file(path: Path, model: BlipForConditionalGeneration) -> None:
    """Writes a BLIP under the names of Salesforce's own file."""
    state = {}
    for name, value in model.state_dict().items():
        for ours, theirs in (
            ("vision_model.embeddings.class_embedding", "visual_encoder.cls_token"),
            ("vision_model.embeddings.position_embedding", "visual_encoder.pos_embed"),
            ("vision_model.embeddings.patch_embedding", "visual_encoder.patch_embed.proj"),
            ("vision_model.post_layernorm", "visual_encoder.norm"),
            ("vision_model.encoder.layers", "visual_encoder.blocks"),
            ("self_attn.projection", "attn.proj"), ("self_attn.qkv", "attn.qkv"), ("layer_norm", "norm"),
        ):  # fmt: skip
            name = name.replace(ours, theirs)
        state[name] = value
    torch.save({"model": state}, path)


def test_salesforces_own_file_gives_the_same_network(samples: list[Sample], tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = new_blip()
    salesforce_file(tmp_path / "model_base_caption_capfilt_large.pth", model)
    names = set(torch.load(tmp_path / "model_base_caption_capfilt_large.pth")["model"])
    assert {"visual_encoder.blocks.0.attn.qkv.weight", "visual_encoder.blocks.1.norm2.bias",
            "text_decoder.bert.encoder.layer.0.crossattention.self.key.weight"} <= names  # fmt: skip
    write_bert_tokenizer(tmp_path / "bert-base-uncased")

    loaded = load_salesforce(tmp_path / "model_base_caption_capfilt_large.pth")

    pixels, ids = torch.rand(1, 3, 32, 32), torch.tensor([[30522, 1000, 1001]])
    with torch.inference_mode():
        expected, found = (each(pixel_values=pixels, input_ids=ids).logits for each in (model, loaded))
    torch.testing.assert_close(found, expected)
    from lego_training.evaluation.metrics.cache import FeatureCache
    from lego_training.evaluation.metrics.weights import WeightPlaces

    with FeatureCache(tmp_path / "features") as cache:
        bench = Bench(cache, WeightPlaces(tmp_path))
        captions = write_captions([samples[0].generated], "base", "corrected", bench)
    assert captions[0]


@pytest.mark.parametrize("size", ["base", "large"])
def test_captions_are_compared_by_egovlp_as_published_and_by_clip_corrected(
    size: str, samples: list[Sample], bench: Bench
) -> None:
    paths, words = [each.generated for each in samples], [each.description for each in samples]
    for mode, encoder in (("published", EgoVlpNetwork(bench)), ("corrected", ClipNetwork(bench))):
        captions = encoder.texts(write_captions(paths, size, mode, bench))  # type: ignore[arg-type]
        meant = encoder.texts(words)
        expected = (captions * meant).sum(1) / np.linalg.norm(captions, axis=1) / np.linalg.norm(meant, axis=1)

        score, _ = BlipCaption(size).score(samples, mode, bench)  # type: ignore[arg-type]

        assert isinstance(score, MeanScore)
        assert score.values == pytest.approx(expected, abs=1e-5)


def test_published_captions_belong_to_their_batch_of_thirty(bench: Bench, samples: list[Sample]) -> None:
    paths = [samples[number % 3].generated for number in range(33)]

    whole = write_captions(paths, "base", "published", bench)

    # The second batch is the same pictures with other dropout; a cached caption is found again in its own place only.
    assert len(whole) == 33 and write_captions(paths, "base", "published", bench) == whole
    assert whole[30:] == captions_of_second_batch(bench, paths)


def captions_of_second_batch(bench: Bench, paths: list[Path]) -> list[str]:
    folder = bench.weights.find("blip-base")
    return Captioner.load(folder, folder, "base", CPU).write(paths[30:], 43)
