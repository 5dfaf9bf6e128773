"""The journal keeps what was answered, through whatever ends a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from lego_core.errors import LegoError
from lego_training.curate.endpoint import Reply
from lego_training.curate.journal import Journal, request_key

FIRST, SECOND = Reply("One.", "stop", 10, 2), Reply("Zwei – 2.", "length")


def filled(path: Path) -> Path:
    with Journal(path) as journal:
        journal.add("a", "clip/a", FIRST)
        journal.add("b", "clip/b", SECOND)
    return path


def test_what_is_added_is_there_again_in_another_run(tmp_path: Path) -> None:
    with Journal(filled(tmp_path / "deep" / "j.jsonl")) as journal:
        assert (journal.get("a"), journal.get("b"), journal.get("c")) == (FIRST, SECOND, None)


@pytest.mark.parametrize("kept", [1, 25, -1])
def test_a_last_line_that_was_cut_short_is_asked_again_and_leaves_no_trace(tmp_path: Path, kept: int) -> None:
    path = filled(tmp_path / "j.jsonl")
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:kept])

    with Journal(path) as journal:
        assert (journal.get("a"), journal.get("b")) == (FIRST, None)
        journal.add("b", "clip/b", SECOND)

    assert path.read_bytes() == first + second


@pytest.mark.parametrize("line", [b"{", b"3", b"{}", b'{"key": "k", "record": "r", "other": 1}', b"\xff"])
def test_a_damaged_line_in_its_midst_is_named_and_nothing_is_lost(tmp_path: Path, line: bytes) -> None:
    path = filled(tmp_path / "j.jsonl")
    content = line + b"\n" + path.read_bytes()
    path.write_bytes(content)

    with pytest.raises(LegoError, match=r"j\.jsonl: line 1 is damaged .*; remove that line"):
        Journal(path)
    assert path.read_bytes() == content


def test_two_runs_cannot_share_it(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path), pytest.raises(LegoError, match=r"j\.jsonl is in use: the same curation is running already"):
        Journal(path)
    Journal(path).__exit__(None, None, None)


def test_a_request_is_known_by_its_record_and_everything_that_is_sent() -> None:
    keys = {
        request_key(record, {"model": model, "messages": [{"content": said}], "seed": seed})
        for record in ("a/b", "a/c") for model in ("m", "n") for said in ("x", "y") for seed in (0, 1)
    }  # fmt: skip

    assert len(keys) == 16
    assert request_key("a", {"x": 1, "y": 2}) == request_key("a", {"y": 2, "x": 1})
