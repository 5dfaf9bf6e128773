"""`python -m lego_model`: one guidance frame from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from lego_core.command import run_command
from lego_core.images import encode_jpeg
from lego_model.__main__ import app
from lego_model.pipeline import LegoPipeline
from PIL import Image


@pytest.fixture
def photo(tmp_path: Path, frames: list[Image.Image]) -> Path:
    frames[0].save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def run(*arguments: object) -> int:
    return run_command(app, "python -m lego_model", [str(each) for each in arguments])


def test_it_paints_what_the_pipeline_paints(
    tiny_directory: Path, pipe: LegoPipeline, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = "How do I open the drawer?"
    code = run(tiny_directory, photo, query, "--out", tmp_path / "out" / "g.png", "--steps", 2, "--seed", 5)

    assert code == 0
    with Image.open(photo) as frame:
        expected = pipe(frame, query, steps=2, seed=5)
    with Image.open(tmp_path / "out" / "g.png") as painted:
        assert painted.tobytes() == expected.image.tobytes()
    assert capsys.readouterr().out.strip() == expected.description.strip()


def test_the_original_fidelity_writes_the_originals_file(
    tiny_directory: Path, pipe: LegoPipeline, photo: Path, tmp_path: Path
) -> None:
    words = "The hand pulls the drawer open."
    options = ("--steps", 1, "--description", words, "--fidelity", "original")
    assert run(tiny_directory, photo, "open the drawer", "--out", tmp_path / "g.jpg", *options) == 0

    with Image.open(photo) as frame:
        expected = pipe(frame, "open the drawer", steps=1, description=words, fidelity="original")
    assert (tmp_path / "g.jpg").read_bytes() == encode_jpeg(expected.image, fidelity="original")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("open the drawer", "--out", "g.gif"), "the ending of --out is '.gif'; choose one of .jpg, .jpeg, .png"),
        (("open the drawer", "--dtype", "fp8"), "the dtype is 'fp8'; choose one of fp32, fp16, bf16"),
        (("open the drawer", "--sampler", "heun"), "the sampler is 'heun'"),
        (("open the drawer", "--device", "gpu"), "'gpu' is no device of torch; choose cpu or cuda"),
        (("open the drawer", "--steps", "0"), "steps is 0"),
        (("",), "names no action"),
    ],
)
def test_what_was_mistyped_is_told_in_one_line(
    tiny_directory: Path, photo: Path, arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_directory, photo, *arguments) == 2

    assert told in capsys.readouterr().err.splitlines()[-1]


def test_a_file_that_is_no_picture_is_named(
    tiny_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photo.jpg").write_text("not a picture")

    assert run(tiny_directory, tmp_path / "photo.jpg", "open the drawer") == 2

    assert f"{tmp_path / 'photo.jpg'}: the 13 bytes are not a JPEG, PNG or WebP picture" in capsys.readouterr().err
