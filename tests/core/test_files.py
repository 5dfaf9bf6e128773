"""Whether a result can be written is known before the job that makes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lego_core.errors import LegoError
from lego_core.files import check_output, folder_aside


def test_the_folder_of_a_result_is_made_and_the_file_is_not(tmp_path: Path) -> None:
    check_output(tmp_path / "a" / "b" / "result.json")

    assert (tmp_path / "a" / "b").is_dir() and not list((tmp_path / "a" / "b").iterdir())


def test_a_result_that_is_there_may_be_written_again(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")

    check_output(tmp_path / "result.json")

    assert (tmp_path / "result.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("folder", "folder is a folder; give the name of a file"),
        ("file/result.json", "result.json cannot be written .*choose another place"),
        ("x" * 300 + "/result.json", "cannot be written .File name too long.; choose another place"),
    ],
)
def test_where_nothing_can_be_written_is_told(tmp_path: Path, place: str, told: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()

    with pytest.raises(LegoError, match=told):
        check_output(tmp_path / place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    with pytest.raises(LegoError, match="no permission"):
        check_output(tmp_path / "result.json")


def test_a_folder_aside_is_gone_afterwards_and_so_is_what_killed_processes_have_left(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    left, running, other = (
        tmp_path / name for name in (f".making-{int(ended.stdout)}-x", f".making-{os.getpid()}-x", ".making-pies")
    )
    for folder in (left, running, other):
        folder.mkdir()
    with folder_aside(tmp_path, "making") as folder:
        assert folder.parent == tmp_path and folder.is_dir()

    assert set(tmp_path.iterdir()) == {running, other}
