"""σ, μ and π against the original code's values, and what "no condition" means."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lego_model.conditioner import Conditioner, null_context, pad_text_states
from numpy.typing import NDArray

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
VLLM_WIDTH, WIDTH, TEXT_TOKENS, IMAGE_TOKENS = 96, 64, 5, 9

# The original's names and ours.
ORIGINAL_NAMES = {
    "projection_img.": "image_projection.",
    "projection_txt.": "text_projection.",
    "self_attn_mix.": "text_mixer.",
}


def golden_tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    spec = importlib.util.spec_from_file_location("golden_formula", GOLDEN / "formula.py")
    assert spec and spec.loader
    formula = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(formula)
    return torch.from_numpy(formula.tensor(name, shape))


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[np.float32]]:
    if not GOLDEN.is_dir():
        pytest.skip("the golden values of the original code are not here")
    with np.load(GOLDEN / "original_small.npz") as values:
        return {name: values[name] for name in ("conditioner.image_out", "conditioner.text_out")}


@pytest.fixture(scope="module")
def original(golden: object) -> Conditioner:
    """Our conditioner with the original's weights."""
    shapes = json.loads((GOLDEN / "original_keys.json").read_text())["small"]["keys"]
    weights = {}
    for key, shape in shapes.items():
        for theirs, ours in ORIGINAL_NAMES.items():
            if key.startswith(theirs):
                weights[key.replace(theirs, ours)] = golden_tensor(key, tuple(shape))
    conditioner = Conditioner(VLLM_WIDTH, WIDTH, mixer_heads=8, mixer_feed_forward=2048)
    conditioner.load_state_dict(weights)  # strict: every weight has a counterpart, and none is left over
    return conditioner.eval()


@torch.inference_mode()
def test_it_is_the_originals_function(original: Conditioner, golden: dict[str, NDArray[np.float32]]) -> None:
    image = golden_tensor("input.conditioner.image", (1, IMAGE_TOKENS, VLLM_WIDTH))
    states = golden_tensor("input.conditioner.text", (1, 3, VLLM_WIDTH))
    clip = torch.randn(1, TEXT_TOKENS, WIDTH)

    context = original(clip, image, pad_text_states(states[0], TEXT_TOKENS)[None])

    first, second, third = context[0].split([TEXT_TOKENS, IMAGE_TOKENS, TEXT_TOKENS])
    assert torch.equal(first, clip[0])
    for ours, name in ((second, "conditioner.image_out"), (third, "conditioner.text_out")):
        expected = golden[name][0]
        assert np.abs(ours.numpy() - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.fixture(scope="module")
def small() -> Conditioner:
    torch.manual_seed(0)
    return Conditioner(8, 16, mixer_heads=2, mixer_feed_forward=32).eval()


@torch.inference_mode()
def test_padding_rows_take_part(small: Conditioner) -> None:
    """Zero rows become μ's bias and are attended to: a shorter padding is another context."""
    with torch.random.fork_rng():
        torch.nn.init.normal_(small.text_projection.bias)
        states, image = torch.randn(2, 8), torch.randn(1, 3, 8)

    def first_row(length: int) -> torch.Tensor:
        return small(torch.zeros(1, length, 16), image, pad_text_states(states, length)[None])[0, length + 3]

    assert not torch.allclose(first_row(4), first_row(8), atol=1e-3)


@torch.inference_mode()
def test_no_condition_is_clips_empty_sentence_and_zeros_after_the_projections(small: Conditioner) -> None:
    empty = torch.randn(2, 4, 16)

    null = null_context(empty, projected_tokens=3 + 4)

    assert null.shape == small(empty, torch.zeros(2, 3, 8), torch.zeros(2, 4, 8)).shape == (2, 4 + 3 + 4, 16)
    assert torch.equal(null[:, :4], empty)
    assert not null[:, 4:].any()


def test_text_states_are_padded_with_zero_rows_or_cut() -> None:
    states = torch.randn(3, 8)

    assert torch.equal(pad_text_states(states, 3), states)
    assert torch.equal(pad_text_states(states, 2), states[:2])
    padded = pad_text_states(states, 5)
    assert torch.equal(padded[:3], states) and padded.shape == (5, 8) and not padded[3:].any()


def test_text_states_keep_their_type() -> None:
    assert pad_text_states(torch.zeros(1, 8, dtype=torch.float16), 4).dtype == torch.float16


def test_torchs_start_is_that_of_the_released_code() -> None:
    """Both layers of π the same, biases of attention zero, nothing but attention's input with Xavier's bounds."""
    conditioner = Conditioner(8, 16, 2, 32)
    conditioner.start_anew("torch")
    torch.manual_seed(0)
    reference = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True), 2, enable_nested_tensor=False
    ).state_dict()

    ours = conditioner.text_mixer.state_dict()
    assert ours.keys() == reference.keys()
    for name, value in ours.items():
        assert torch.equal(value, ours[name.replace("layers.1.", "layers.0.")])
        assert bool(value.any()) == bool(reference[name].any()), name
        # Uniform between the same bounds.
        assert float(value.abs().max()) == pytest.approx(float(reference[name].abs().max()), rel=0.25), name
    assert conditioner.image_projection.bias.any() and conditioner.image_projection.weight.abs().max() <= 8**-0.5


def test_the_mixers_layers_start_from_different_weights() -> None:
    first, second = Conditioner(8, 16, 2, 32).text_mixer.layers

    assert not torch.equal(first.linear1.weight, second.linear1.weight)
