"""EgoVLP's video transformer against masked full attention, and what it is shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lego_core.errors import LegoError
from lego_training.evaluation.metrics.bench import Bench
from lego_training.evaluation.metrics.egovlp import EgoVlp, EgoVlpNetwork
from lego_training.evaluation.metrics.frozen_in_time import FrozenInTime
from lego_training.evaluation.metrics.metric import Mode
from lego_training.evaluation.metrics.samples import Sample
from lego_training.evaluation.metrics.scores import MeanScore
from PIL import Image
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear
from torchvision import transforms
from transformers import DistilBertModel

from tests.training.metrics.conftest import SIZE
from tests.training.metrics.weights import distilbert_config, egovlp_tensors

PATCHES, SIDE = 4, 32  # of the miniature: 2 x 2 patches of 16 pixels


def video_embedding(tensors: dict[str, Tensor], video: Tensor) -> Tensor:
    """The published network by its definition: every attention is over all tokens, and a mask says which count.

    Args:
        tensors: A checkpoint's.
        video: One, (F, 3, S, S).
    """
    t = {name.removeprefix("video_model."): value for name, value in tensors.items()}
    frames, width = len(video), t["cls_token"].shape[-1]
    tokens, owners = [t["cls_token"][0, 0] + t["pos_embed"][0, 0]], [(-1, -1)]
    for frame in range(frames):
        for patch in range(PATCHES):
            y, x = divmod(patch, 2)
            square = video[frame, :, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16]
            token = linear(square.flatten(), t["patch_embed.proj.weight"].flatten(1), t["patch_embed.proj.bias"])
            tokens.append(token + t["pos_embed"][0, 1 + patch] + t["temporal_embed"][0, frame])
            owners.append((frame, patch))
    state = torch.stack(tokens)

    def attention(name: str, values: Tensor, same: int) -> Tensor:
        query, key, value = linear(values, t[f"{name}.qkv.weight"], t[f"{name}.qkv.bias"]).chunk(3, dim=-1)
        allowed = torch.tensor([[a[0] < 0 or b[0] < 0 or a[same] == b[same] for b in owners] for a in owners])
        scores = (query @ key.T / width**0.5).masked_fill(~allowed, -torch.inf)  # one head
        return linear(scores.softmax(-1) @ value, t[f"{name}.proj.weight"], t[f"{name}.proj.bias"])

    def norm(name: str, values: Tensor) -> Tensor:
        return layer_norm(values, (width,), t[f"{name}.weight"], t[f"{name}.bias"], 1e-6)

    for block in range(2):
        b = f"blocks.{block}"
        in_time = state + attention(f"{b}.timeattn", norm(f"{b}.norm3", state), same=1)
        state = state + attention(f"{b}.attn", norm(f"{b}.norm1", in_time), same=0)
        hidden = gelu(linear(norm(f"{b}.norm2", state), t[f"{b}.mlp.fc1.weight"], t[f"{b}.mlp.fc1.bias"]))
        state = state + linear(hidden, t[f"{b}.mlp.fc2.weight"], t[f"{b}.mlp.fc2.bias"])
    return linear(norm("norm", state)[0], t["vid_proj.0.weight"], t["vid_proj.0.bias"])


@pytest.fixture(scope="module")
def checkpoint(weights: Path) -> Path:
    return weights / "egovlp" / "pretrained" / "egovlp.pth"


@pytest.mark.parametrize("frames", [4, 16])
def test_the_video_transformer_is_attention_among_the_tokens_of_a_place_or_of_a_frame(
    frames: int, checkpoint: Path
) -> None:
    videos = torch.rand(2, frames, 3, SIDE, SIDE) * 2 - 1
    with torch.inference_mode():
        found = FrozenInTime.load(checkpoint, frames).videos(videos)
        expected = torch.stack([video_embedding(egovlp_tensors(16), video) for video in videos])

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found[0], found[1])


def test_texts_are_distilberts_first_state_through_relu_and_projection(checkpoint: Path, bench: Bench) -> None:
    tensors = egovlp_tensors(16)
    bert = DistilBertModel(distilbert_config()).eval()
    names = bert.state_dict()
    bert.load_state_dict({name: tensors[f"text_model.{name}"] for name in names})
    ids = torch.tensor([[101, 1003, 1005, 1006, 102]])  # [CLS] the right hand [SEP]
    with torch.inference_mode():
        state = bert(input_ids=ids).last_hidden_state[0, 0].clamp(min=0)
        expected = linear(state, tensors["txt_proj.1.weight"], tensors["txt_proj.1.bias"])

    # The longer text in the batch makes the shorter one padded.
    found = EgoVlpNetwork(bench).texts(["The right hand", "the left hand opens the red drawer"])

    np.testing.assert_allclose(found[0], expected, atol=1e-5)


NORMALISE = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def prepared(path: Path, mode: Mode, resized_to: tuple[int, int] | None = None) -> Tensor:
    """A picture as the network is shown it; `resized_to` is its height and width beforehand."""
    values = transforms.functional.to_tensor(Image.open(path).convert("RGB"))
    if resized_to is not None:
        values = transforms.functional.resize(values, list(resized_to), antialias=False)
    if mode == "published":
        steps = [transforms.Resize(SIDE, antialias=False), transforms.CenterCrop(SIDE)]
    else:
        steps = [transforms.Resize(37), transforms.CenterCrop(37), transforms.Resize(SIDE)]
    return NORMALISE(transforms.Compose(steps)(values))


def similarity(tensors: dict[str, Tensor], first: list[Tensor], second: list[Tensor]) -> float:
    a, b = (video_embedding(tensors, torch.stack(each)) for each in (first, second))
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


@pytest.mark.parametrize("mode", ["published", "corrected"])
@pytest.mark.parametrize(("dataset", "frames"), [("ego4d", 4), ("epickitchen", 16)])
def test_a_still_is_shown_as_a_video_of_the_datasets_length(
    dataset: str, frames: int, mode: Mode, samples: list[Sample], bench: Bench
) -> None:
    bench.dataset = dataset
    tensors = egovlp_tensors(16)
    expected = [
        similarity(tensors, [prepared(each.target, mode)] * frames, [prepared(each.generated, mode)] * frames)
        for each in samples
    ]

    score, _ = EgoVlp(plus=False).score(samples, mode, bench)

    assert isinstance(score, MeanScore)
    assert score.values == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("mode", ["published", "corrected"])
@pytest.mark.parametrize(("dataset", "half"), [("ego4d", 2), ("epickitchen", 8)])
def test_plus_shows_the_input_frame_in_the_first_half(
    dataset: str, half: int, mode: Mode, samples: list[Sample], bench: Bench
) -> None:
    bench.dataset = dataset
    tensors, size = egovlp_tensors(16), SIZE[::-1]
    expected = []
    for each in samples:
        before = [prepared(each.input, mode)] * half
        generated = prepared(each.generated, mode, size if mode == "published" else None)
        expected.append(similarity(tensors, before + [prepared(each.target, mode)] * half, before + [generated] * half))

    score, faults = EgoVlp(plus=True).score(samples, mode, bench)

    assert isinstance(score, MeanScore) and faults == []
    assert score.values == pytest.approx(expected, abs=1e-4)


def test_published_plus_takes_the_first_file_by_name_and_reports_where_that_is_the_target(
    samples: list[Sample], bench: Bench, tmp_path: Path
) -> None:
    folder = tmp_path / "val" / "clip" / "a"
    folder.mkdir(parents=True)
    late, early = folder / "z.png", folder / "frame_1.png"
    Image.open(samples[0].input).save(late)
    Image.open(samples[0].target).save(early)
    turned = replace(samples[0], input=late, target=early)

    score, faults = EgoVlp(plus=True).score([turned, *samples[1:]], "published", bench)
    corrected, none = EgoVlp(plus=True).score([turned, *samples[1:]], "corrected", bench)

    assert len(score.names) == 2 and [fault.file for fault in faults] == [str(early)]
    assert len(corrected.names) == 3 and none == []


def test_a_checkpoint_for_fewer_frames_or_of_something_else_is_refused(checkpoint: Path, weights: Path) -> None:
    with pytest.raises(LegoError, match="is for 16 frames; 17 are needed"):
        FrozenInTime.load(checkpoint, 17)
    with pytest.raises(LegoError, match="it is no checkpoint of EgoVLP"):
        FrozenInTime.load(weights / "alexnet-owt-7be5be79.pth", 4)
