"""Captions and badges."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from lego_client.fonts import font_for
from lego_client.overlay.labels import State, Status, annotate, put_list
from lego_core.errors import LegoError
from numpy.typing import NDArray

SENTENCE = "The left hand grips the handle of the brown drawer on the left and pulls it open towards the body."
DEJAVU = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"  # a font file that is surely here


def backgrounds() -> dict[str, NDArray[np.uint8]]:
    rows, columns = np.indices((480, 640))
    checks = np.where((rows // 4 + columns // 4) % 2, 255, 0)
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3))
    pictures = {
        "white": np.full((480, 640, 3), 255), "black": np.zeros((480, 640, 3)), "noise": noise,
        "checks": np.repeat(checks[..., None], 3, axis=2), "yellow": np.full((480, 640, 3), (255, 240, 0)),
    }  # fmt: skip
    return {name: picture.astype(np.uint8) for name, picture in pictures.items()}


def luminance(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Relative luminance as the Web Content Accessibility Guidelines define it."""
    value = pixels / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("background", backgrounds().values(), ids=backgrounds())
def test_words_stand_out_on_any_background(background: NDArray[np.uint8]) -> None:
    annotated = annotate(background, SENTENCE, Status(State.LISTENING))
    for place in (annotated[430:478, 40:600], annotated[14:34, 14:100]):
        light = luminance(place)
        letters, ground = np.percentile(light, 99), np.percentile(light, 75)
        assert (letters + 0.05) / (ground + 0.05) >= 4.5  # what the guidelines ask of text


def test_the_picture_is_not_changed_and_keeps_its_size() -> None:
    picture = np.full((480, 640, 3), 100, np.uint8)
    annotated = annotate(picture, SENTENCE, Status(State.ANSWER, age_seconds=3))
    assert (picture == 100).all()
    assert annotated.shape == picture.shape
    assert (annotated[100:300] == 100).all()  # words keep to the edges
    assert (annotate(picture) == picture).all()


def test_a_long_description_is_cut_short_and_leaves_the_view_free() -> None:
    picture = np.full((480, 640, 3), 100, np.uint8)
    for text in (SENTENCE * 100, "x" * 100_000, "\n\t " * 1000 + "word " * 1000):
        changed = (annotate(picture, text) != picture).any(axis=(1, 2))
        assert changed[-1] and not changed[:280].any()


def test_an_empty_description_draws_nothing() -> None:
    picture = np.full((480, 640, 3), 100, np.uint8)
    assert (annotate(picture, " \n") == picture).all()
    assert (annotate(picture, " " * 1000 + "a word") != picture).any()


def test_a_caption_that_grows_word_by_word_stays_at_the_foot() -> None:
    picture = np.full((480, 640, 3), 100, np.uint8)
    heights = []
    for words in range(1, len(SENTENCE.split()) + 1):
        changed = (annotate(picture, " ".join(SENTENCE.split()[:words])) != picture).any(axis=(1, 2))
        assert changed[-1]
        heights.append(int(changed.sum()))
    assert heights == sorted(heights) and heights[-1] > heights[0]


@pytest.mark.parametrize("size", [(16, 16), (17, 300), (300, 17), (1080, 1920)])
def test_every_size_of_picture_is_borne(size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), 100, np.uint8)
    assert annotate(picture, SENTENCE, Status(State.THINKING, 3, 20)).shape == picture.shape


def test_no_picture_is_an_error() -> None:
    with pytest.raises(LegoError, match="the picture is 1x1 pixels"):
        annotate(np.zeros((1, 1, 3), np.uint8), SENTENCE)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (Status(State.LISTENING), "listening"),
        (Status(State.THINKING), "thinking"),
        (Status(State.THINKING, 7, 20), "thinking 7/20"),
        (Status(State.ANSWER, age_seconds=0.4), "answer, 0 s ago"),
        (Status(State.ANSWER, age_seconds=59.9), "answer, 59 s ago"),
        (Status(State.ANSWER, age_seconds=125), "answer, 2 min ago"),
        (Status(State.OFFLINE, age_seconds=7300), "offline, 2 h ago"),
        (Status(State.LOST), "lost tracking"),
    ],
)
def test_a_badge_says_what_goes_on(status: Status, text: str) -> None:
    assert status.text == text


def test_badges_of_different_states_look_different() -> None:
    picture = np.full((480, 640, 3), 100, np.uint8)
    drawn = {annotate(picture, status=Status(state)).tobytes() for state in State}
    assert len(drawn) == len(State)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 5, "steps": 4}, "step 5 of 4"),
        ({"step": -1, "steps": 4}, "step -1 of 4"),
        ({"age_seconds": -1.0}, "the age is -1 s; it must be 0 or more"),
        ({"age_seconds": float("nan")}, "the age is nan s"),
        ({"age_seconds": float("inf")}, "the age is inf s"),
        ({"steps": -1}, "step 0 of -1"),
    ],
)
def test_an_impossible_status_is_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(LegoError, match=message):
        Status(State.THINKING, **arguments)  # type: ignore[arg-type]


def test_a_font_of_the_users_draws_letters_that_the_built_in_one_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEGO_FONT", str(DEJAVU))
    for text in ("Öffne die Schublade", "Откройте левый ящик", "Ανοίξτε το συρτάρι"):
        font, drawn = font_for(text, 20)
        assert drawn == text
        missing = font.getmask("\uffff")
        for letter in set(text) - {" "}:
            assert bytes(font.getmask(letter)) != bytes(missing)
    picture = np.full((480, 640, 3), 100, np.uint8)
    assert (annotate(picture, "Откройте ящик") != annotate(picture, "Закройте дверь")).any()


def test_plain_english_is_drawn_alike_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEGO_FONT", str(DEJAVU))
    font, drawn = font_for(SENTENCE, 20)
    assert drawn == SENTENCE
    assert font.getname() == ("Aileron", "Regular")  # type: ignore[union-attr]


def test_a_font_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEGO_FONT", str(tmp_path / "none.ttf"))
    with pytest.raises(LegoError, match=r"LEGO_FONT is '.*none\.ttf', which cannot be read as a font"):
        font_for("Привет", 20)


def test_letters_no_font_has_lose_their_accents_or_show_as_missing() -> None:
    _, drawn = font_for("\U000f0000 é", 20)  # of a private area: in no font
    assert drawn == "\U000f0000 e"


def test_a_list_is_written_within_the_width_of_a_portrait_view() -> None:
    picture = put_list(np.zeros((720, 405, 3), np.uint8), [("Enter", "type a question; Enter again asks it")] * 3)
    written = np.flatnonzero((picture.max(axis=2) > 128).any(axis=0))
    assert written.size and written[0] >= 8 and written[-1] < 405 - 8
