"""From what a wearer says to token ids."""

from __future__ import annotations

import pytest
from lego_core.config import LegoConfig
from lego_core.errors import LegoError
from lego_core.prompts import (
    LEGO_QUERY,
    LLAVA_LLAMA_2,
    VICUNA_V1,
    action_from_query,
    action_prompt,
    build_prompt,
    encode_description,
    encode_prompt,
)
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers


@pytest.mark.parametrize(
    ("query", "action"),
    [
        ("How do I open the left drawer?", "open left drawer"),
        ("how do i open the drawer on the left", "open drawer on left"),
        ("  How   do I\nopen\tthis drawer ?!", "open drawer"),
        ("How does the person properly cut the carrot?", "cut carrot"),
        ("How should one stir a pan?", "stir pan"),
        ("How to turn on the stove", "turn on stove"),
        ("Can you show me how to pour the kettle?", "pour kettle"),
        ("Could you please tell us how to wipe my counter?", "wipe counter"),
        ("Show me how to cut an onion.", "cut onion"),
        ("Please explain how to open the bottle", "open bottle"),
        ("Hey, um, how would you close that cupboard?", "close cupboard"),
        ("What's the right way to hold the knife?", "hold knife"),
        ("What’s the best way to hold the knife?", "hold knife"),
        ("I want to turn off the tap.", "turn off tap"),
        ("I'd like to turn off the tap.", "turn off tap"),
        ("I’d like to turn off the tap.", "turn off tap"),
        ("Open the drawer", "open drawer"),
        ("open left drawer", "open left drawer"),
        ("hide some sweets", "hide sweets"),
    ],
)
def test_the_action_is_what_the_question_is_about(query: str, action: str) -> None:
    assert action_from_query(query) == action


@pytest.mark.parametrize(
    "query", ["", "   ", "?!", "how do I?", "How do I", "please", "show me how to", "the", "How do I the?", "Explain."]
)
def test_a_query_without_an_action_is_refused_with_an_example(query: str) -> None:
    with pytest.raises(LegoError, match="names no action; ask for example 'how do I open the drawer"):
        action_from_query(query)


def test_the_prompt_is_the_models_own_template_around_the_action() -> None:
    config = LegoConfig(name="x", query_template="How do I {action}?", prompt_template="USER: <image>\n{query} A:")

    assert build_prompt(config, "Show me how to open the tap") == "USER: <image>\nHow do I open tap? A:"


@pytest.mark.parametrize("query", ["open <image> drawer", "open <im<image>age> drawer", "open </s> drawer"])
def test_a_query_cannot_smuggle_markers_into_the_prompt(query: str) -> None:
    prompt = build_prompt(LegoConfig(name="x"), query)

    assert prompt.count("<image>") == 1 and prompt.count("<") == 1


@pytest.mark.parametrize("query", ["open {query}", "open {action}", r"open \1"])
def test_placeholders_in_a_query_are_only_words(query: str) -> None:
    assert query in build_prompt(LegoConfig(name="x"), query)


@pytest.fixture(scope="module")
def merging_tokenizer() -> Tokenizer:
    """Byte-level BPE that has learnt to merge a line break with the text before it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(["user:\nopen"] * 20, trainer)
    return tokenizer


def test_no_token_spans_the_image(merging_tokenizer: Tokenizer) -> None:
    assert len(merging_tokenizer.encode("user:\nopen").ids) == 1, "the tokenizer would merge across the image"

    before, after = encode_prompt(merging_tokenizer, "user:<image>\nopen", bos_token_id=7)

    assert before[0] == 7
    assert merging_tokenizer.decode(before[1:]) == "user:"
    assert merging_tokenizer.decode(after) == "\nopen"


@pytest.mark.parametrize(("prompt", "sides"), [("<image>x", (1, 1)), ("x<image>", (2, 0)), ("<image>", (1, 0))])
def test_a_prompt_may_begin_or_end_with_the_image(
    merging_tokenizer: Tokenizer, prompt: str, sides: tuple[int, int]
) -> None:
    before, after = encode_prompt(merging_tokenizer, prompt, bos_token_id=7)

    assert (len(before), len(after)) == sides


def test_the_originals_fidelity_keeps_articles() -> None:
    assert action_from_query("How do I pick up the knife?", "original") == "pick up the knife"
    assert action_from_query("pick up the knife", "original") == "pick up the knife"
    with pytest.raises(LegoError, match="names no action"):
        action_from_query("How do I the?", "original")


LLAMA_2_PROMPT = (
    "[INST] <<SYS>>\nYou are a helpful language and vision assistant. You are able to understand the visual content "
    "that the user provides, and assist the user with a variety of tasks using natural language.\n<</SYS>>\n\n<image>\n"
    "How does the person properly pick up the knife that is displayed in the video frame? [/INST]"
)


def test_the_llama_2_prompt_is_the_released_models_own() -> None:
    config = LegoConfig(name="x", query_template=LEGO_QUERY, prompt_template=LLAVA_LLAMA_2)

    assert action_prompt(config, "pick up the knife") == LLAMA_2_PROMPT


@pytest.fixture(scope="module")
def llama_tokenizer() -> Tokenizer:
    """A small one of LLaMA's kind: a space before every text it is given, bytes for the unknown, BOS in front."""
    specials = [AddedToken(token, special=True) for token in ("<unk>", "<s>", "</s>")]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=[*specials, *alphabet], show_progress=False)
    tokenizer.train_from_iterator([LLAMA_2_PROMPT.replace("\n", " ")] * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def test_the_llama_2_prompt_is_encoded_as_llava_does(llama_tokenizer: Tokenizer) -> None:
    before, after = encode_prompt(llama_tokenizer, LLAMA_2_PROMPT, bos_token_id=1)

    # LLaVA encodes each side of the image with the tokenizer's own BOS and drops it from all but the first.
    sides = [llama_tokenizer.encode(side).ids for side in LLAMA_2_PROMPT.split("<image>")]
    assert before == sides[0] and after == sides[1][1:]
    assert (before + after).count(1) == 1 and before[0] == 1
    newline = llama_tokenizer.token_to_id("<0x0A>")
    assert before[-2:] == [newline, newline]
    assert after[:2] == [llama_tokenizer.token_to_id("▁"), newline], "each side begins with a space of the tokenizer's"


VICUNA_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: <image>\nHow does the person properly pick up the knife that is "
    "displayed in the video frame? ASSISTANT:"
)


def test_the_vicuna_prompt_is_the_one_of_llava_1_5() -> None:
    config = LegoConfig(name="x", query_template=LEGO_QUERY, prompt_template=VICUNA_V1)

    assert action_prompt(config, "pick up the knife") == VICUNA_PROMPT


def test_the_vicuna_prompt_is_encoded_as_llava_does(llama_tokenizer: Tokenizer) -> None:
    before, after = encode_prompt(llama_tokenizer, VICUNA_PROMPT, bos_token_id=1)

    sides = [llama_tokenizer.encode(side).ids for side in VICUNA_PROMPT.split("<image>")]
    assert before == sides[0] and after == sides[1][1:]
    space, newline = (llama_tokenizer.token_to_id(token) for token in ("▁", "<0x0A>"))
    assert before[-1] == space, "the space between USER: and the image is read"
    assert after[:2] == [space, newline]


SPECIAL = (1, 2, 0)


def test_a_description_is_framed_and_padded(merging_tokenizer: Tokenizer) -> None:
    ids = encode_description(merging_tokenizer, "ab", 6, SPECIAL)

    assert ids[0] == 1 and merging_tokenizer.decode(ids[1:3]) == "ab" and ids[3:] == [2, 0, 0]


def test_the_empty_description_is_beginning_and_end(merging_tokenizer: Tokenizer) -> None:
    assert encode_description(merging_tokenizer, "", 4, SPECIAL) == [1, 2, 0, 0]


@pytest.mark.parametrize("length", [2, 3, 8])
def test_a_long_description_loses_its_tail_but_never_the_end_token(merging_tokenizer: Tokenizer, length: int) -> None:
    ids = encode_description(merging_tokenizer, "abcdefghijklmnop", length, SPECIAL)

    assert len(ids) == length and ids[0] == 1 and ids[-1] == 2
    assert merging_tokenizer.decode(ids[1:-1]) == "abcdefghijklmnop"[: length - 2]
