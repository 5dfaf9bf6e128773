"""`lego-train curate` as a person runs it, against an endpoint over HTTP."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lego_training.check import check_data
from lego_training.cli import main
from lego_training.curation import read_curation
from lego_training.dataset import read_records, split_folder
from lego_training.queries import QUERY_TEMPLATES

from tests.training.curate.chat_server import Answer, Chat, fails, says, serve
from tests.training.curate.conftest import PAIRS

Run = Callable[..., int]


def label(body: dict[str, Any]) -> str:
    """The action that a request is about."""
    return re.findall(r"^Action: (.*)$", body["messages"][2]["content"], re.MULTILINE)[0]


def sentence(body: dict[str, Any]) -> str:
    """A fit description of the action that a request is about."""
    hand = re.findall(r"(left|right) hand \[", body["messages"][2]["content"])[0]
    return f"The {hand} hand moves carefully to {label(body)}, as shown."


def describe(body: dict[str, Any], number: int) -> Answer:
    return says(sentence(body))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "curated" / "toy.json"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, kitchen: Path, out: Path) -> Run:
    """Runs the command in this process; returns its exit code."""

    def run_it(
        chat: Chat, *options: object, data: Path = kitchen, dataset: str = "toykitchen", yes: bool = True
    ) -> int:
        arguments = command(chat, data, out, dataset, *options, *(["--yes"] if yes else []))
        monkeypatch.setattr(sys, "argv", ["lego-train", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    return run_it


def command(chat: Chat, data: Path, out: Path, dataset: str, *options: object) -> list[str]:
    required = ["--dataset", dataset, "--endpoint", chat.address, "--model", "m", "--out", str(out)]
    return ["curate", str(data), *required, *map(str, options)]


def report(out: Path) -> dict[str, Any]:
    return dict(json.loads(out.with_suffix(".report.json").read_text()))


def test_a_curation_file_of_the_toy_kitchen_is_what_tuning_reads(
    run: Run, kitchen: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(Chat(describe)) as chat:
        assert run(chat, "--price-in", "2", "--price-out", "10") == 0

    conversations = read_curation(out, split_folder(kitchen, "toykitchen", "train"))
    records = read_records(kitchen, "toykitchen", "train")
    assert len(conversations) == len(chat.requests) == PAIRS
    said = {label(body): sentence(body) for body in chat.bodies}
    for conversation, record in zip(conversations, records, strict=True):
        assert conversation.image_path == record.input_path
        assert conversation.answer == said[record.action]
        assert conversation.question in {template.replace("{action}", record.action) for template in QUERY_TEMPLATES}
    assert len({conversation.question.replace(" ", "")[:8] for conversation in conversations}) > 1
    figures = report(out)
    assert (figures["accepted"], figures["accepted_at_once"], figures["requests"]) == (PAIRS, PAIRS, PAIRS)
    assert (figures["prompt_tokens"], figures["completion_tokens"]) == (1000 * PAIRS, 20 * PAIRS)
    assert figures["usd"] == round(PAIRS * (1000 * 2 + 20 * 10) / 1e6, 4)
    assert sum(figures["words"].values()) == PAIRS
    assert f"wrote {PAIRS} descriptions to {out}" in capsys.readouterr().out


def test_what_is_sent_is_the_model_three_messages_and_the_prompts_settings(run: Run) -> None:
    with serve(Chat(describe)) as chat:
        assert run(chat, "--limit", 1, "--seed", 7, "--request", "temperature=0.2", "--request", "max_tokens=null") == 0

    (body,) = chat.bodies
    assert {key: value for key, value in body.items() if key != "messages"} == {
        "model": "m", "seed": 7, "temperature": 0.2,
    }  # fmt: skip
    assert [message["role"] for message in body["messages"]] == ["system", "user", "user"]
    assert body["messages"][1]["content"].count("Description: ") == 12


def test_the_same_command_again_asks_nothing_and_writes_the_same(run: Run, out: Path) -> None:
    with serve(Chat(describe)) as chat:
        assert run(chat) == 0
        first = {path.name: path.read_bytes() for path in out.parent.iterdir()}
        assert run(chat, yes=False) == 0, "and so it need not be confirmed"

    assert len(chat.requests) == PAIRS
    assert {path.name: path.read_bytes() for path in out.parent.iterdir()} == first


def test_a_higher_limit_asks_only_about_what_is_new_and_another_seed_asks_anew(run: Run) -> None:
    with serve(Chat(describe)) as chat:
        for options, requests in ((("--limit", 2), 2), (("--limit", 4), 4), (("--limit", 4, "--seed", 1), 8)):
            assert run(chat, *options) == 0
            assert len(chat.requests) == requests


def test_an_unfit_answer_is_asked_for_again_with_its_faults(run: Run, out: Path) -> None:
    def script(body: dict[str, Any], number: int) -> Answer:
        is_first = len(body["messages"]) == 3
        return says(sentence(body) + " Then the bowl falls over the edge.") if is_first else describe(body, number)

    with serve(Chat(script)) as chat:
        assert run(chat, "--limit", 1) == 0

    _, second = chat.bodies
    assert [message["role"] for message in second["messages"][3:]] == ["assistant", "user"]
    assert "it has 2 sentence ends" in second["messages"][4]["content"]
    assert "it names the bowl, which is not among what was given" in second["messages"][4]["content"]
    figures = report(out)
    assert (figures["accepted"], figures["accepted_at_once"], figures["requests"]) == (1, 0, 2)


def test_a_record_whose_answers_stay_unfit_is_listed_and_the_others_are_written(
    run: Run, kitchen: Path, out: Path
) -> None:
    odd = read_records(kitchen, "toykitchen", "train")[2]

    def script(body: dict[str, Any], number: int) -> Answer:
        return says("<b>I cannot say") if label(body) == odd.action else describe(body, number)

    with serve(Chat(script)) as chat:
        assert run(chat, "--attempts", 2) == 0

    assert len(json.loads(out.read_text())) == PAIRS - 1
    figures = report(out)
    assert figures["rejected_by_reason"]["not one sentence"] == 1
    (row,) = figures["not_accepted"]
    assert (row["record"], row["status"], row["text"]) == (
        f"{odd.clip_id}/{odd.action_id}", "rejected", "<b>I cannot say",
    )  # fmt: skip
    assert sum(label(body) == odd.action for body in chat.bodies) == 2
    page = out.with_suffix(".report.html").read_text()
    assert "&lt;b&gt;I cannot say" in page and "<b>" not in page and "http" not in page.replace(chat.address, "")


def test_an_answer_cut_off_at_the_limit_of_tokens_is_not_taken(run: Run, out: Path) -> None:
    with serve(Chat(lambda body, number: says(sentence(body), "length"))) as chat:
        assert run(chat, "--limit", 1, "--attempts", 2) == 2

    assert report(out)["rejected_by_reason"] == {"cut off": 1} and not out.exists()


def test_a_filters_refusal_is_neither_asked_again_now_nor_later(run: Run, out: Path) -> None:
    def script(body: dict[str, Any], number: int) -> Answer:
        return fails(400, "filtered", "content_filter") if number == 1 else describe(body, number)

    with serve(Chat(script)) as chat:
        assert run(chat, "--concurrency", 1) == 0
        assert run(chat) == 0

    assert len(chat.requests) == PAIRS
    assert report(out)["rejected_by_reason"] == {"content filter": 1}


def test_a_record_the_endpoint_fails_on_is_said_and_asked_again_the_next_time(
    run: Run, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def script(body: dict[str, Any], number: int) -> Answer:
        return fails(500, "broken") if number == 2 else describe(body, number)

    with serve(Chat(script)) as chat:
        assert run(chat, "--concurrency", 1, "--tries", 1) == 1
        assert report(out)["not_accepted"][0]["reason"] == "status 500 (broken), 1 times"
        assert "run the same command again to ask about the unanswered" in capsys.readouterr().err
        assert run(chat, "--concurrency", 1) == 0

    assert len(chat.requests) == PAIRS + 1
    assert report(out)["accepted"] == PAIRS


def test_an_endpoint_that_fails_one_record_after_another_stops_the_run_and_keeps_what_was_answered(
    run: Run, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(Chat(lambda body, number: fails(500) if 3 <= number <= 5 else describe(body, number))) as chat:
        assert run(chat, "--concurrency", 1, "--tries", 1) == 2
        errors = capsys.readouterr().err.strip().splitlines()
        assert re.search(r"^error: http.* failed 3 records one after another, the last with status 500", errors[-1])
        assert not out.exists() and len(chat.requests) == 5
        assert run(chat) == 0

    assert len(chat.requests) == 5 + (PAIRS - 2)


def test_so_many_requests_as_asked_for_are_under_way_at_a_time(run: Run) -> None:
    def script(body: dict[str, Any], number: int) -> Answer:
        return says(sentence(body), after=0.2)

    with serve(Chat(script)) as chat:
        assert run(chat, "--concurrency", 3) == 0

    assert chat.most_at_once == 3


def test_the_cost_is_said_before_the_first_request_and_can_be_declined(
    run: Run, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    with serve(Chat(describe)) as chat:
        assert run(chat, "--price-in", "1000", "--price-out", "1000", yes=False) == 130

    assert not chat.requests and not out.exists()
    said = re.search(r"(\d+) of 6 records to ask m at .* about: some (\d+) tokens .* and (\d+) .* about (.*) USD",
                     " ".join(capsys.readouterr().err.split()))  # fmt: skip
    assert said is not None
    requests, sent, received, money = map(float, said.groups())
    assert (requests, received) == (PAIRS, 60 * PAIRS)
    assert 1000 * PAIRS < sent < 3000 * PAIRS, "the prompt has some 1,600 tokens"
    assert money == pytest.approx((sent + received) / 1000, abs=0.01)


@pytest.mark.parametrize("where", ["env", "file"])
def test_the_key_reaches_the_endpoint_and_no_file(
    run: Run, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    key = "sk-very-secret"
    monkeypatch.setenv("MY_KEY", key)
    (tmp_path / "key").write_text(key + "\n")
    option = ("--api-key-env", "MY_KEY") if where == "env" else ("--api-key-file", tmp_path / "key")
    with serve(Chat(lambda body, number: fails(401, f"no {key}") if number == 3 else describe(body, number))) as chat:
        assert run(chat, *option, "--concurrency", 1) == 2
        assert run(chat, *option) == 0

    assert {headers["authorization"] for _, headers, _, _ in chat.requests} == {f"Bearer {key}"}
    written = "".join(path.read_text() for path in out.parent.iterdir())
    said = capsys.readouterr()
    assert key not in written + said.out + said.err


def test_no_key_is_sent_unless_one_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-service")
    with serve(Chat(describe)) as chat:
        assert run(chat, "--limit", 1) == 0

    assert "authorization" not in chat.requests[0][1]


def test_descriptions_are_put_into_records_that_have_none(
    run: Run, kitchen: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(kitchen, tmp_path / "data"))
    (data / "curation_from_gpt" / "toykitchen_for_tuning_forecasting.json").unlink()
    index = data / "toykitchen_train.json"
    before = json.loads(index.read_text())
    kept, *emptied = [action for actions in before.values() for action in actions.values()]
    for action in emptied:
        del action["llava_forecast_finetune"]
    index.write_text(json.dumps(before))
    with serve(Chat(describe)) as chat:
        assert run(chat, "--write-descriptions", data=data) == 0

    answers = {record["image"]: record["conversations"][1]["value"] for record in json.loads(out.read_text())}
    first, *others = read_records(data, "toykitchen", "train")
    assert first.description == kept["llava_forecast_finetune"]
    for record, action in zip(others, emptied, strict=True):
        assert record.description == answers[action["image_0"]]
    assert check_data(data).findings == []
    assert f"put {PAIRS - 1} of them into the dataset" in capsys.readouterr().out


def test_the_file_is_one_that_check_data_finds_sound_where_a_dataset_keeps_it(
    monkeypatch: pytest.MonkeyPatch, kitchen: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(kitchen, tmp_path / "data"))
    place = data / "curation_from_gpt" / "toykitchen_for_tuning_forecasting.json"
    place.unlink()
    with serve(Chat(describe)) as chat:
        monkeypatch.setattr(sys, "argv", ["lego-train", *command(chat, data, place, "toykitchen", "--yes")])
        with pytest.raises(SystemExit):
            main()

    found = check_data(data)
    assert (found.records, found.findings) == (2 * PAIRS + 1, [])


def test_a_file_that_this_command_did_not_make_is_kept(run: Run, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out.parent.mkdir()
    out.write_text("[]")
    with serve(Chat(describe)) as chat:
        assert run(chat) == 2

    assert out.read_text() == "[]" and not chat.requests
    assert "exists and was not made by this command; choose another name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--price-in", "1"], "give both --price-in and --price-out"),
        (["--api-key-env", "NO_SUCH_KEY"], "is not set: NO_SUCH_KEY"),
        (["--api-key-env", "sk-given-itself"], r"is not set: \(not a name of one; did you give the key\?\)"),
        (["--api-key-file", "none.txt"], "none.txt"),
        (["--api-key-env", "HOME", "--api-key-file", "x"], "not both"),
        (["--prompt", "none.yaml"], "the prompt none.yaml cannot be read"),
        (["--request", "model=other"], "the request's model is set by the command"),
        (["--dataset", "ego4d"], "holds no dataset 'ego4d'"),
        (["--endpoint", "host"], "is no base address"),
        (["--concurrency", "0"], "concurrency"),
    ],
)
def test_what_a_person_can_put_right_is_one_line_and_no_request(
    run: Run, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(Chat(describe)) as chat:
        assert run(chat, *options) == 2

    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and errors[0].startswith("error: ") and re.search(message, errors[0])
    assert "sk-given-itself" not in errors[0] and not chat.requests


def start(chat: Chat, kitchen: Path, out: Path, *options: object) -> subprocess.Popen[str]:
    """Runs the command in a process of its own."""
    arguments = command(chat, kitchen, out, "toykitchen", "--yes", *options)
    program = [sys.executable, "-m", "lego_training", *arguments]
    return subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def answered(out: Path) -> list[str]:
    """The records whose answers are in the journal."""
    path = out.with_suffix(".journal.jsonl")
    return [json.loads(line)["record"] for line in path.read_text().splitlines()] if path.is_file() else []


def test_after_kill_9_nothing_that_was_answered_is_asked_again(run: Run, kitchen: Path, out: Path) -> None:
    def script(body: dict[str, Any], number: int) -> Answer:
        return says(sentence(body), after=60 if number == 4 else 0)

    with serve(Chat(script)) as chat:
        process = start(chat, kitchen, out, "--concurrency", 1)
        wait_until(lambda: len(chat.requests) == 4)
        process.kill()
        process.wait(10)
        assert len(answered(out)) == 3
        assert run(chat, "--concurrency", 1) == 0

    assert [label(body) for body in chat.bodies[4:]] == [label(chat.bodies[3])] + [
        record.action for record in read_records(kitchen, "toykitchen", "train")[4:]
    ]
    assert report(out)["accepted"] == PAIRS == len(set(answered(out)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_lets_the_requests_under_way_finish_and_the_same_command_goes_on(
    run: Run, kitchen: Path, out: Path, number: signal.Signals
) -> None:
    def script(body: dict[str, Any], number: int) -> Answer:
        return says(sentence(body), after=0.7)

    with serve(Chat(script)) as chat:
        process = start(chat, kitchen, out, "--concurrency", 2)
        wait_until(lambda: len(chat.requests) == 2)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)

        assert process.returncode == 130, errors
        assert f"stopped: 2 of {PAIRS} records are done; run the same command again to go on" in errors
        assert "Traceback" not in errors and len(answered(out)) == 2 and not out.exists()
        assert run(chat) == 0

    assert len(chat.requests) == PAIRS


def test_a_second_ctrl_c_drops_the_requests_under_way(kitchen: Path, out: Path) -> None:
    with serve(Chat(lambda body, number: says(sentence(body), after=60))) as chat:
        process = start(chat, kitchen, out, "--concurrency", 2)
        wait_until(lambda: len(chat.requests) == 2)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "stopped: requests under way were dropped" in errors and "Traceback" not in errors
