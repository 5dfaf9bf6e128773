"""The model card's figures are those that were measured on the model that ships."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from lego_model.checkpoint import fingerprint

from tests.end_to_end.processes import REPOSITORY

CARD, FIGURES = REPOSITORY / "docs" / "lego-nano.md", REPOSITORY / "docs" / "lego-nano.json"
STUDENT_FIGURES = REPOSITORY / "docs" / "lego-nano-student.json"
SHIPPED = REPOSITORY / "models" / "lego-nano"

ROW = {
    "scenes": 2, "description_slots": 0.5, "hand": 1.0, "side": 0.5, "action_success": 0.5, "outside_psnr_db": 25.04,
    "inside_target_psnr_db": 18.0,
}  # fmt: skip
MEASURED = ROW | {
    "per_action": {"open drawer": ROW}, "description_slots_untuned": 0.25,
    "description_slots_untuned_source": "measured now on 2 scenes", "unet_evaluations_per_frame": 30,
    "sampler": "euler", "steps": 10,
}  # fmt: skip
STAGE = {"config": {"steps": 7, "batch_size": 3}, "samples": 12, "git_commit": "a" * 40, "finished": "2026-01-01"}


def write_checkpoint(directory: Path, **more: object) -> str:
    """Writes as much of a checkpoint as the card shows; returns its model version."""
    lego = {"format_version": 1, "name": "nano", "provenance": {"stages": {"unet": STAGE}}, **more}
    (directory / "lego.json").write_text(json.dumps(lego))
    return f"nano-{fingerprint(directory)[:12]}"


def write_card(
    card: Path, figures: Path, checkpoint: Path, student: Path = STUDENT_FIGURES
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "tools" / "model_card.py")]
    options = ["--card", str(card), "--figures", str(figures), "--checkpoint", str(checkpoint)]
    return subprocess.run([*command, *options, "--student", str(student)], capture_output=True, text=True, timeout=60)


def test_figures_and_stages_are_written_into_the_card_and_again_without_change(tmp_path: Path) -> None:
    card, figures = tmp_path / "card.md", tmp_path / "figures.json"
    card.write_text(CARD.read_text())
    figures.write_text(json.dumps(MEASURED | {"model_version": write_checkpoint(tmp_path)}))

    assert write_card(card, figures, tmp_path).returncode == 0
    written = card.read_text()
    assert "| open drawer | 2 | 0.50 | 1.00 | 0.50 | 0.50 | 25.0 | 18.0 |" in written
    assert "| unet | 7 | 3 | 12 | aaaaaaaaaa | 2026-01-01 |" in written
    assert write_card(card, figures, tmp_path).returncode == 0
    assert card.read_text() == written


def test_a_students_figures_stand_beside_its_teachers(tmp_path: Path) -> None:
    student = {"timesteps": [999, 749, 499, 249], "text_scale": 1.5, "image_scale": 1.5}
    version = write_checkpoint(tmp_path, student=student)
    card, figures, theirs = (tmp_path / name for name in ("card.md", "figures.json", "student.json"))
    card.write_text(CARD.read_text())
    figures.write_text(json.dumps(MEASURED | {"model_version": version}))
    few = {"sampler": "distilled", "steps": 4, "unet_evaluations_per_frame": 4, "action_success": 0.25}
    theirs.write_text(json.dumps(MEASURED | few | {"model_version": version}))

    assert write_card(card, figures, tmp_path, theirs).returncode == 0

    assert "| guided: euler, 10 steps | 2 | 30 | 0.500 | 25.0 | 18.0 |" in card.read_text()
    assert "| student: distilled, 4 steps | 2 | 4 | 0.250 | 25.0 | 18.0 |" in card.read_text()
    assert "takes 300 evaluations: 75 times the student's" in card.read_text()
    result = write_card(card, figures, tmp_path, tmp_path / "none.json")
    assert result.returncode == 2 and "there is no" in result.stderr


def test_figures_of_other_weights_are_refused(tmp_path: Path) -> None:
    version, figures = write_checkpoint(tmp_path), tmp_path / "figures.json"
    figures.write_text(json.dumps(MEASURED | {"model_version": "nano-000000000000"}))

    result = write_card(CARD, figures, tmp_path)

    assert result.returncode == 2
    assert f"is of nano-000000000000, but {tmp_path} holds {version}; evaluate it again" in result.stderr


def test_missing_figures_are_one_line(tmp_path: Path) -> None:
    result = write_card(CARD, tmp_path / "none.json", tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: there is no ") and len(result.stderr.splitlines()) == 1


def test_figures_of_another_kind_are_one_line(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "figures.json").write_text('{"seconds": 1}')
    result = write_card(CARD, tmp_path / "figures.json", tmp_path)
    assert result.returncode == 2
    assert "figures.json" in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.skipif(not (FIGURES.is_file() and SHIPPED.is_dir()), reason="no model and figures are in the repository")
def test_the_card_in_the_repository_shows_the_figures_beside_it(tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    card.write_text(CARD.read_text())
    assert write_card(card, FIGURES, SHIPPED).returncode == 0
    assert card.read_text() == CARD.read_text()
