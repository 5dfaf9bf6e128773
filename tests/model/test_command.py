"""`python -m lego_model`: one guidance frame from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lego_core.command import run_command
from lego_core.errors import LegoError
from lego_core.images import encode_jpeg
from lego_model.__main__ import app, default_dtype, telling_of_memory
from lego_model.pipeline import LegoPipeline
from PIL import Image
from transformers.utils import logging


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
    logging.enable_progress_bar()  # as in a new process
    code = run(tiny_directory, photo, query, "--out", tmp_path / "out" / "g.png", "--steps", 2, "--seed", 5)

    assert code == 0
    with Image.open(photo) as frame:
        expected = pipe(frame, query, steps=2, seed=5)
    with Image.open(tmp_path / "out" / "g.png") as painted:
        assert painted.tobytes() == expected.image.tobytes()
    said = capsys.readouterr()
    assert said.out.strip() == expected.description.strip()
    assert "Loading weights" not in said.err, "no bars of other libraries"


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
        *(
            (("open the drawer", "--device", name), f"the device is '{name}'; choose cpu")
            for name in ("gpu", "meta", "mps")
        ),
        (("open the drawer", "--device", "cuda:77"), "not the device 'cuda:77'; choose --device cpu"),
    ],
)
def test_what_was_mistyped_is_told_in_one_line(
    tiny_directory: Path, photo: Path, arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_directory, photo, *arguments) == 2

    assert told in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("", ), "names no action"),
        (("open the drawer", "--steps", "0"), "steps is 0"),
        (("open the drawer", "--text-scale", "nan"), "text_scale is nan"),
        (("open the drawer", "--image-scale", "99"), "image_scale is 99"),
        (("open the drawer", "--guidance-interval", "0.6", "0.2"), "guidance_interval is 0.6 to 0.2"),
        (("open the drawer", "--cache-interval", "0"), "cache_interval is 0"),
        (("open the drawer", "--seed", "-1"), "seed is -1"),
        (("open the drawer", "--description", " "), "the description is empty"),
        (("open the drawer", "--out", "folder.png"), "folder.png is a folder"),
        (("open the drawer", "--out", "lego.json/g.png"), "g.png cannot be written"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_before_any_weight_is_read(
    tiny_directory: Path, photo: Path, tmp_path: Path, arguments: tuple[str, ...], told: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    # Reading on would end in another error: there are no weights.
    (tmp_path / "lego.json").write_bytes((tiny_directory / "lego.json").read_bytes())
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)

    assert run(tmp_path, photo, *arguments) == 2

    assert told in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("device", "fidelity", "dtype"),
    [
        ("cuda", "default", "fp16"),
        ("cuda", "original", "fp32"),
        ("cpu", "default", "fp32"),
        ("cpu", "original", "fp32"),
    ],
)
def test_the_originals_weights_are_in_single_precision_on_any_device(device: str, fidelity: str, dtype: str) -> None:
    assert default_dtype(device, fidelity) == dtype  # type: ignore[arg-type]


def test_a_memory_that_is_too_small_is_told_with_the_cure() -> None:
    with pytest.raises(LegoError, match=r"main memory is too small .*--dtype fp16"), telling_of_memory("cpu"):
        torch.empty(1 << 60)
    with pytest.raises(LegoError, match=r"memory of cuda:0 is too small .*--device cpu"), telling_of_memory("cuda:0"):
        raise torch.OutOfMemoryError
    with pytest.raises(RuntimeError, match="another"), telling_of_memory("cpu"):
        raise RuntimeError("another")


def test_a_photo_that_is_not_there_is_told_in_words(
    tiny_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_directory, tmp_path / "none.jpg", "open the drawer") == 2

    assert "none.jpg is no file; give a JPEG, PNG or WebP picture" in capsys.readouterr().err


def test_a_file_that_is_no_picture_is_named(
    tiny_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photo.jpg").write_text("not a picture")

    assert run(tiny_directory, tmp_path / "photo.jpg", "open the drawer") == 2

    assert f"{tmp_path / 'photo.jpg'}: the 13 bytes are not a JPEG, PNG or WebP picture" in capsys.readouterr().err
