from __future__ import annotations

import pytest
from lego_server.texts import Texts, next_piece

from tests.server.fake_engine import make_manifest, make_tokenizer

texts = Texts(make_manifest(), make_tokenizer(), make_tokenizer())


def test_a_description_for_clip_is_framed_and_padded() -> None:
    assert texts.clip_ids("left hand").tolist() == [1, 4, 6, 2, 2, 2, 2, 2, 2, 2, 2, 2]


def test_a_long_description_for_clip_keeps_its_end_token() -> None:
    assert texts.clip_ids("left " * 30).tolist() == [1] + [4] * 10 + [2]


def test_special_tokens_are_not_part_of_a_description() -> None:
    assert texts.description([3, 4, 2]) == "the left"


@pytest.mark.parametrize(
    ("text", "sent", "piece"),
    [("the left", 3, " left"), ("the", 3, ""), ("caf\ufffd", 0, "caf"), ("café", 3, "é")],
)
def test_pieces_concatenate_and_never_end_inside_a_character(text: str, sent: int, piece: str) -> None:
    assert next_piece(text, sent) == piece
