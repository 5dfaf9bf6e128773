"""A wearer asks, the server answers: the promises that hold across both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.end_to_end.processes import Answer, Server, ask, asking, serving, start_client

DRAWER, CUPBOARD, TAP = "How do I open the drawer?", "How do I open the cupboard?", "How do I turn on the tap?"


def finished(process: subprocess.Popen[str], out: Path) -> Answer:
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return Answer(out)


def test_an_answer_is_a_picture_a_comparison_and_a_record(server: Server, kitchen: Path, tmp_path: Path) -> None:
    answer = ask(server, kitchen, tmp_path, DRAWER, "--seed", "3", "--previews", "1")

    with Image.open(tmp_path / "guidance.jpg") as guidance, Image.open(tmp_path / "side_by_side.png") as both:
        assert guidance.format == "JPEG" and guidance.size == (256, 256)
        assert both.width > 2 * 256 and both.height > 256
    assert (tmp_path / "preview_001.jpg").is_file()
    record = answer.record
    assert record["query"] == DRAWER and record["description"]
    assert record["guidance"]["width"] == record["guidance"]["height"] == 256
    assert (record["sampling"]["seed"], record["sampling"]["steps"]) == (3, 2)
    assert record["server_timings_ms"]["denoise_ms"] > 0


def test_the_picture_is_of_the_kitchen_that_was_shown(server: Server, kitchens: list[Path], tmp_path: Path) -> None:
    sent = [ask(server, path, tmp_path / path.stem, DRAWER).directory / "frame.jpg" for path in kitchens[:2]]

    for path, frame in zip(kitchens, sent, strict=False):
        difference = np.abs(np.asarray(Image.open(path), float) - np.asarray(Image.open(frame), float))
        assert difference.mean() < 4  # grey levels: what JPEG costs


def test_a_record_is_enough_to_make_the_same_picture_again(server: Server, kitchen: Path, tmp_path: Path) -> None:
    first = ask(server, kitchen, tmp_path / "first", TAP)  # its seed is drawn by the server
    used = first.record["sampling"]
    again = ask(
        server, kitchen, tmp_path / "again", TAP, "--seed", str(used["seed"]), "--steps", str(used["steps"]),
        "--sampler", used["sampler"], "--text-scale", str(used["text_scale"]),
        "--image-scale", str(used["image_scale"]),
    )  # fmt: skip

    assert again.guidance == first.guidance
    assert again.record["description"] == first.record["description"]


def test_real_photographs_keep_their_aspect_ratio(server: Server, photographs: list[Path], tmp_path: Path) -> None:
    for number, path in enumerate(photographs):
        answer = ask(server, path, tmp_path / str(number), DRAWER)
        with Image.open(path) as photograph, Image.open(answer.directory / "guidance.jpg") as guidance:
            assert guidance.width / guidance.height == pytest.approx(photograph.width / photograph.height, rel=0.005)


def test_an_upright_picture_stays_upright(server: Server, kitchen: Path, tmp_path: Path) -> None:
    upright = tmp_path / "upright.png"
    Image.open(kitchen).crop((64, 0, 192, 256)).save(upright)

    with Image.open(ask(server, upright, tmp_path / "out", DRAWER).directory / "guidance.jpg") as guidance:
        assert guidance.size == (256, 512)


def test_the_fidelity_original_stretches_each_picture_to_its_whole_range(
    server: Server, kitchen: Path, tmp_path: Path
) -> None:
    options = ("--seed", "3", "--steps", "2")
    original = ask(server, kitchen, tmp_path / "original", DRAWER, "--fidelity", "original", *options)
    ours = ask(server, kitchen, tmp_path / "ours", DRAWER, *options)

    assert original.record["sampling"]["fidelity"] == "original"
    assert original.record["sampling"]["sampler"] == "euler_ancestral"
    assert (original.record["sampling"]["text_scale"], original.record["sampling"]["image_scale"]) == (7.5, 1.5)
    assert ours.record["sampling"]["fidelity"] == "default"
    with Image.open(original.directory / "guidance.jpg") as picture:
        pixels = np.asarray(picture, int)
        assert pixels.min() < 8 and pixels.max() > 247  # but for what JPEG costs
        assert picture.layer[0][1:3] == (2, 2)  # 4:2:0


def test_clients_at_the_same_time_get_their_own_answers_as_if_alone(
    server: Server, kitchens: list[Path], tmp_path: Path
) -> None:
    queries = [DRAWER, CUPBOARD, TAP]
    options = ["--seed", "5", "--steps", "8"]
    alone = [
        ask(server, path, tmp_path / f"alone {path.stem}", query, *options)
        for path, query in zip(kitchens, queries, strict=True)
    ]

    processes = [
        start_client(*asking(server, path, tmp_path / f"beside {path.stem}", query, *options))
        for path, query in zip(kitchens, queries, strict=True)
    ]
    beside = [
        finished(process, tmp_path / f"beside {path.stem}") for process, path in zip(processes, kitchens, strict=True)
    ]

    assert [answer.record["query"] for answer in beside] == queries
    assert [answer.record["description"] for answer in beside] == [answer.record["description"] for answer in alone]
    assert [answer.guidance for answer in beside] == [answer.guidance for answer in alone]
    assert len({answer.guidance for answer in beside}) == 3


def test_a_killed_client_frees_its_work(model: Path, kitchen: Path, tmp_path: Path) -> None:
    # One query at a time, and the first would take a thousand steps: the second can be answered soon only if the
    # server has dropped the first.
    with serving(model, tmp_path / "log", "--max-active", "1") as server:
        # As on a terminal, so that the client shows its progress while it waits.
        victim = start_client(
            *asking(server, kitchen, tmp_path / "victim", DRAWER, "--steps", "1000"), FORCE_COLOR="1", TERM="xterm"
        )
        assert victim.stdout is not None
        while "denoising" not in victim.stdout.readline():
            assert victim.poll() is None, "the client ended before it was killed"
        victim.kill()
        victim.communicate()

        answer = ask(server, kitchen, tmp_path / "second", TAP)

        assert answer.record["server_timings_ms"]["queue_ms"] < 2000
        assert "steps=2 " in server.log.read_text()
    assert "steps=1000" not in server.log.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the libraries of a process in /proc")
def test_the_running_server_has_no_torch_in_it(server: Server, kitchen: Path, tmp_path: Path) -> None:
    ask(server, kitchen, tmp_path, DRAWER)

    libraries = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "onnxruntime" in libraries
    assert "torch" not in libraries
