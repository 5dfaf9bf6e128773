"""What an answer leaves on disk."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lego_client.answer import Answer, Moment
from lego_client.encoding import encode_frame
from lego_client.errors import ServerError
from lego_client.events import DescriptionPiece, Guidance, GuidanceOptions, Progress, ServerInfo, Timings
from lego_client.output import answer_directory, check_output, free_path, save_answer
from lego_client.pictures import font, side_by_side, wrap
from lego_client.session import SentFrame
from lego_core.errors import LegoError
from PIL import Image

from tests.client.scenes import scene
from tests.client.scripted_server import jpeg

DESCRIPTION = "The left hand grips the handle of the white drawer on the left and pulls it open towards the body."
SERVER = ServerInfo(model_name="scripted", engine="script", notice="A toy.")


@pytest.fixture
def answer() -> Answer:
    picture = jpeg(Image.fromarray(scene(60, width=256, height=144)))
    guidance = Guidance(
        query_id=3, frame_id=7, description=DESCRIPTION, image=picture, width=256, height=144, seed=11, steps=8,
        text_scale=7.5, image_scale=1.5, sampler="euler", fidelity="original", model_version="scripted-1",
        timings=Timings(total_ms=900.0),
    )  # fmt: skip
    moments = (
        Moment(0.2, DescriptionPiece(3, DESCRIPTION, True)),
        Moment(0.6, Progress(3, 4, 8, picture)),
        Moment(1.0, guidance),
    )
    frame = SentFrame(7, encode_frame(scene()))
    return Answer("how do I open the drawer?", "clip.mp4 at 1 s", frame, GuidanceOptions(seed=11), guidance, moments)


def test_the_pictures_are_written_byte_for_byte(tmp_path: Path, answer: Answer) -> None:
    paths = save_answer(tmp_path, answer, SERVER)
    assert (tmp_path / "guidance.jpg").read_bytes() == answer.guidance.image
    assert (tmp_path / "frame.jpg").read_bytes() == answer.frame.encoded.jpeg
    assert (tmp_path / "preview_004.jpg").read_bytes() == answer.guidance.image
    assert sorted(paths) == sorted(tmp_path.iterdir())


def test_the_record_says_how_the_answer_came_about(tmp_path: Path, answer: Answer) -> None:
    save_answer(tmp_path, answer, SERVER)
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["query"] == "how do I open the drawer?"
    assert record["description"] == DESCRIPTION
    assert record["source"] == "clip.mp4 at 1 s"
    assert (record["query_id"], record["frame_id"]) == (3, 7)
    assert record["frame"] == {"width": 320, "height": 180, "bytes": len(answer.frame.encoded.jpeg)}
    assert record["sampling"] == {
        "seed": 11, "steps": 8, "text_scale": 7.5, "image_scale": 1.5, "sampler": "euler", "fidelity": "original",
        "guidance_interval": [0.0, 1.0], "cache_interval": 1,
    }  # fmt: skip
    assert record["asked_options"] == {"seed": 11}
    assert record["server"]["model_version"] == "scripted-1"
    assert record["server_timings_ms"]["total_ms"] == 900.0
    assert record["client_timings_s"] == {"first_words": 0.2, "guidance": 1.0}


def test_both_pictures_stand_side_by_side_at_equal_height(tmp_path: Path, answer: Answer) -> None:
    save_answer(tmp_path, answer, SERVER)
    with Image.open(tmp_path / "side_by_side.png") as page:
        height, panel = 320, round(320 * 16 / 9)
        assert page.width == 2 * panel + 3 * 16
        assert page.height > height + 3 * 16 + 60  # the words under them
        view = page.crop((16, 16, 16 + panel, 16 + height)).resize((320, 180))
        guidance = page.crop((32 + panel, 16, 32 + 2 * panel, 16 + height)).resize((320, 180))
    assert abs(np.asarray(view)[170, 300, 0] - 128.0) < 12
    assert abs(np.asarray(guidance)[170, 300, 0] - 60.0) < 12


def test_a_portrait_view_keeps_its_aspect_ratio() -> None:
    view = Image.new("RGB", (90, 160))
    page = side_by_side(view, view, "q", "d", "n")
    assert page.width == 2 * 180 + 3 * 16


def test_long_words_and_long_texts_are_wrapped_to_the_width() -> None:
    text = DESCRIPTION + " " + "x" * 200
    lines = wrap(text, font(20), 300)
    assert all(font(20).getlength(line) <= 300 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_an_earlier_answer_is_never_overwritten(tmp_path: Path, answer: Answer) -> None:
    directories = []
    for seed in range(3):
        directories.append(answer_directory(tmp_path))
        other = replace(answer, guidance=replace(answer.guidance, seed=seed))
        save_answer(directories[-1], other, SERVER)
    assert directories == [tmp_path, tmp_path / "002", tmp_path / "003"]
    seeds = [json.loads((directory / "record.json").read_text())["sampling"]["seed"] for directory in directories]
    assert seeds == [0, 1, 2]


def test_answers_that_belong_together_are_numbered_from_one(tmp_path: Path) -> None:
    assert [answer_directory(tmp_path, one_of_many=True).name for _ in range(3)] == ["001", "002", "003"]


def test_a_free_name_is_found_for_a_film(tmp_path: Path) -> None:
    assert free_path(tmp_path / "demo.mp4").name == "demo.mp4"
    (tmp_path / "demo.mp4").touch()
    assert free_path(tmp_path / "demo.mp4").name == "demo-2.mp4"


def test_a_folder_that_another_answer_takes_meanwhile_is_left_to_it(tmp_path: Path) -> None:
    (tmp_path / "001").symlink_to("nowhere")  # not there when it is looked for, there when it is to be made
    assert answer_directory(tmp_path, one_of_many=True).name == "002"


def test_a_file_in_the_way_of_the_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(LegoError, match="cannot be used for answers"):
        check_output(tmp_path / "out")


def test_a_guidance_frame_that_is_no_picture_is_reported(tmp_path: Path, answer: Answer) -> None:
    broken = replace(answer, guidance=replace(answer.guidance, image=b"nonsense"))
    with pytest.raises(ServerError, match="the server sent a picture that is none"):
        save_answer(tmp_path, broken, SERVER)
    assert not list(tmp_path.iterdir())


def test_a_guidance_frame_that_is_an_image_bomb_is_refused(tmp_path: Path, answer: Answer) -> None:
    bomb = io.BytesIO()
    Image.new("1", (8000, 8000)).save(bomb, "PNG")  # 64 million pixels in some 10 kB
    with pytest.raises(ServerError, match="the limit is 50000000 pixels"):
        save_answer(tmp_path, replace(answer, guidance=replace(answer.guidance, image=bomb.getvalue())), SERVER)


def test_a_folder_for_answers_that_is_gone_is_reported(tmp_path: Path) -> None:
    with pytest.raises(LegoError, match=r"001 cannot be made \(No such file or directory\); choose another folder"):
        answer_directory(tmp_path / "gone", one_of_many=True)
