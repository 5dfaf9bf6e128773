"""The VLLM's words and states."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from lego_core.errors import LegoError
from lego_core.prompts import build_prompt
from lego_model.checkpoint import LegoCheckpoint
from lego_model.describe import describe, embed_image, prompt_embeddings, states_of
from lego_model.pipeline import LegoPipeline
from PIL import Image

QUERY = "How do I open the drawer?"
LIMIT = 6


def asked(checkpoint: LegoCheckpoint, image: torch.Tensor) -> torch.Tensor:
    return prompt_embeddings(checkpoint, image, build_prompt(checkpoint.config, QUERY))


def generated_ids(checkpoint: LegoCheckpoint, image: torch.Tensor) -> list[int]:
    """transformers' own greedy decoding of the same prompt."""
    output = checkpoint.vllm.generate(
        inputs_embeds=asked(checkpoint, image), max_new_tokens=LIMIT, do_sample=False,
        eos_token_id=checkpoint.vllm.config.text_config.eos_token_id, pad_token_id=0,
    )  # fmt: skip
    return output[0].tolist()


@pytest.fixture(scope="module")
def image(pipe: LegoPipeline, frames: list[Image.Image]) -> torch.Tensor:
    return pipe.embed(frames[0])


@pytest.fixture(scope="module")
def ending(tiny: LegoCheckpoint, image: torch.Tensor) -> LegoCheckpoint:
    """The tiny model, taught to end: the first token it would not say before becomes its end token."""
    ids = generated_ids(tiny, image)
    end = next(token for index, token in enumerate(ids) if index and token not in ids[:index])
    checkpoint = replace(tiny, vllm=copy.deepcopy(tiny.vllm))
    checkpoint.vllm.config.text_config.eos_token_id = end
    return checkpoint


@pytest.mark.parametrize("model", ["tiny", "ending"])
def test_it_writes_what_transformers_generate_writes(
    model: str, image: torch.Tensor, request: pytest.FixtureRequest
) -> None:
    checkpoint: LegoCheckpoint = request.getfixturevalue(model)
    ids = generated_ids(checkpoint, image)
    end = checkpoint.vllm.config.text_config.eos_token_id

    words = describe(checkpoint, image, QUERY)

    expected = ids[: ids.index(end)] if end in ids else ids
    assert words.text == checkpoint.vllm_tokenizer.decode(expected, skip_special_tokens=True).strip()
    assert torch.equal(words.image_embeddings, image)


@pytest.mark.parametrize("model", ["tiny", "ending"])
@torch.inference_mode()
def test_there_is_one_state_per_token_and_each_predicts_the_next(
    model: str, image: torch.Tensor, request: pytest.FixtureRequest
) -> None:
    checkpoint: LegoCheckpoint = request.getfixturevalue(model)
    ids = generated_ids(checkpoint, image)

    states = describe(checkpoint, image, QUERY).text_states

    # The end token is one of them (lego-reference C7); a description cut at the limit has none.
    assert states.shape == (len(ids), 32)
    assert checkpoint.vllm.lm_head(states).argmax(-1).tolist() == ids


def test_the_ending_model_ends_before_the_limit(ending: LegoCheckpoint, image: torch.Tensor) -> None:
    ids = generated_ids(ending, image)

    assert len(ids) < LIMIT and ids[-1] == ending.vllm.config.text_config.eos_token_id


def test_states_depend_on_image_and_query(tiny: LegoCheckpoint, image: torch.Tensor) -> None:
    first = describe(tiny, image, QUERY).text_states[0]

    assert not torch.allclose(first, describe(tiny, image, "How do I turn the tap?").text_states[0], atol=1e-4)
    assert not torch.allclose(first, describe(tiny, image + 1, QUERY).text_states[0], atol=1e-4)


def test_reading_a_description_gives_the_states_of_writing_it(tiny: LegoCheckpoint, image: torch.Tensor) -> None:
    """Where the text encodes back to the tokens written: a random model is steered to a sentence that does."""
    sentence = "The left hand"
    ids = tiny.vllm_tokenizer.encode(sentence, add_special_tokens=False).ids
    embed = tiny.vllm.get_input_embeddings()
    written = []
    with torch.inference_mode():
        inputs = asked(tiny, image)
        for token in [*ids, None]:
            written.append(tiny.vllm.model.language_model(inputs_embeds=inputs).last_hidden_state[0, -1])
            if token is not None:
                inputs = torch.cat([inputs, embed(torch.tensor([[token]]))], dim=1)

    read = states_of(tiny, image, QUERY, sentence)

    assert read.text == sentence
    torch.testing.assert_close(read.text_states, torch.stack(written), rtol=1e-4, atol=1e-5)


def test_reading_its_own_description_repeats_its_states(tiny: LegoCheckpoint, image: torch.Tensor) -> None:
    words = describe(tiny, image, QUERY)
    again = tiny.vllm_tokenizer.encode(words.text, add_special_tokens=False).ids
    shared = next((i for i, (a, b) in enumerate(zip(generated_ids(tiny, image), again, strict=False)) if a != b), 5)

    read = states_of(tiny, image, QUERY, words.text)

    # Up to the first token that text does not preserve, a random model's words being what they are.
    torch.testing.assert_close(read.text_states[: shared + 1], words.text_states[: shared + 1], rtol=1e-4, atol=1e-5)


def test_a_long_description_is_read_no_further_than_it_would_be_written(
    tiny: LegoCheckpoint, image: torch.Tensor
) -> None:
    assert states_of(tiny, image, QUERY, "the drawer " * 30).text_states.shape == (LIMIT, 32)


def test_an_empty_description_has_the_state_that_ends_it(tiny: LegoCheckpoint, image: torch.Tensor) -> None:
    assert states_of(tiny, image, QUERY, "").text_states.shape == (1, 32)


def test_the_image_stands_between_the_sides_of_the_prompt(tiny: LegoCheckpoint, image: torch.Tensor) -> None:
    at_end = replace(tiny, config=replace(tiny.config, prompt_template="{query}<image>"))

    first, last = asked(tiny, image)[0], asked(at_end, image)[0]

    begin = tiny.vllm.get_input_embeddings().weight[tiny.vllm.config.text_config.bos_token_id]
    assert torch.equal(first[0], begin) and torch.equal(last[0], begin)
    assert torch.equal(first[1:5], image) and torch.equal(last[-4:], image)


def test_a_query_without_an_action_is_refused(tiny: LegoCheckpoint, image: torch.Tensor) -> None:
    with pytest.raises(LegoError, match="names no action"):
        describe(tiny, image, "How do I?")


def test_pictures_are_embedded_alone_as_in_a_batch(tiny: LegoCheckpoint) -> None:
    pixels = torch.randn(3, 3, 32, 32)

    together = embed_image(tiny, pixels)

    assert together.shape == (3, 4, 32)
    torch.testing.assert_close(together[1:2], embed_image(tiny, pixels[1:2]), rtol=1e-4, atol=1e-5)
