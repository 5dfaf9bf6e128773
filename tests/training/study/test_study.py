"""A study from its pictures to its figures, the page's requests over real HTTP."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lego_core.errors import LegoError
from lego_training.dataset import read_records
from lego_training.evaluation.reproduce.people import read_people
from lego_training.study.build import PAGE_FILES
from lego_training.study.design import Study, public, read_key
from lego_training.study.report import find, krippendorff_alpha
from lego_training.study.serve import open_server
from lego_training.study.votes import Vote, Votes

from tests.training.study.running import METHODS, run


@pytest.fixture
def descriptions(made: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "aligned"
    files = []
    for method in ("tuned", "untuned"):
        sentences = {
            f"{record.clip_id}/{record.action_id}": f"{method}: {record.description}"
            for record in read_records(made / "data", "toykitchen", "val")
        }
        path = tmp_path / f"{method}.json"
        path.write_text(json.dumps(sentences))
        files += ["--method", f"{method}={path}"]
    run("descriptions", folder, "--data", made / "data", "--dataset", "toykitchen", "--items", 4, *files)
    return folder


def vote(rater: str, item: str, choice: str, seconds: float = 4.0) -> Vote:
    return Vote(rater, item, choice, seconds, "2026-01-01T00:00:00+00:00")


def test_raters_see_nothing_that_tells_the_methods_apart(images: Path) -> None:
    study, key = Study.load(images), read_key(images)
    assert len(study.items) == 3 and len(key) == 9
    for item in study.items:
        assert {key[choice] for choice in item.choices} == set(METHODS)
        assert list(item.choices) == sorted(item.choices)  # by names drawn at random
        assert all((public(images) / path).is_file() for path in (item.frame, *item.choices))
    assert all((public(images) / file).is_file() for file in PAGE_FILES)
    for path in public(images).rglob("*"):
        told = path.name + (path.read_text() if path.suffix in (".json", ".js", ".html") else "")
        assert not any(method in told for method in METHODS)
    orders = {tuple(key[choice] for choice in item.choices) for item in study.items}
    assert len(orders) > 1


def test_win_rates_agreement_and_completeness_are_counted(images: Path) -> None:
    study, key = Study.load(images), read_key(images)
    by_method = [{key[choice]: choice for choice in item.choices} for item in study.items]
    said = [("a", 0, "LEGO"), ("b", 0, "LEGO"), ("a", 1, "LEGO"), ("b", 1, "SDEdit"), ("a", 2, "ProxEdit")]
    votes = [vote(rater, study.items[item].id, by_method[item][method]) for rater, item, method in said]
    findings = find(study, key, votes)
    assert {rate.method: rate.share for rate in findings.rates} == {"LEGO": 0.6, "SDEdit": 0.2, "ProxEdit": 0.2}
    assert findings.rates[0].method == "LEGO" and findings.rates[0].votes == 5
    assert (findings.raters, findings.votes, findings.complete) == (2, 5, pytest.approx(2 / 3))
    # Four values that can be paired, LEGO three times and SDEdit once: 2 of the 4 agree, chance gives 3 * 2 / (4 * 3).
    assert findings.agreement == pytest.approx(1 - (1 - 2 / 4) / (1 - 6 / 12))
    for rate in findings.rates:
        assert 0 <= rate.low <= rate.share <= rate.high <= 1
    assert find(study, key, votes) == findings  # the same seed, the same intervals


def test_yes_and_no_are_counted_for_each_method(descriptions: Path) -> None:
    study, key = Study.load(descriptions), read_key(descriptions)
    assert len(study.items) == 8 and sorted(key.values()) == ["tuned"] * 4 + ["untuned"] * 4
    votes = [vote("ann", item.id, "yes" if key[item.id] == "tuned" else "no", 0.4) for item in study.items]
    findings = find(study, key, votes)
    assert {rate.method: (rate.share, rate.low, rate.high) for rate in findings.rates} == {
        "tuned": (1, 1, 1), "untuned": (0, 0, 0)
    }  # fmt: skip
    assert np.isnan(findings.agreement) and findings.hasty == ("ann",)


def test_krippendorffs_alpha_is_that_of_the_textbook() -> None:
    # The example of the English Wikipedia's article: three coders, fifteen units, some not coded; nominal alpha 0.691.
    coders = ("*****341211 33*3".replace(" ", ""), "1*213343*******", "**21344*211 33*4".replace(" ", ""))
    units = [[int(coder[unit]) for coder in coders if coder[unit] != "*"] for unit in range(15)]
    assert krippendorff_alpha(units) == pytest.approx(0.691, abs=0.0005)
    assert krippendorff_alpha([[1, 1], [2, 2, 2]]) == 1
    assert np.isnan(krippendorff_alpha([[1], [2]]))


class Page:
    """What the page asks of its server."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, path: str, body: object = None, kind: str = "application/json") -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": kind} if data is not None else {})
        answer = connection.getresponse()
        result = answer.status, answer.read()
        connection.close()
        return result


@pytest.fixture
def page(images: Path) -> Iterator[Page]:
    with open_server(images, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield Page(server.server_address[1])
        server.shutdown()
        thread.join()


def test_votes_are_on_disk_when_the_page_is_thanked_and_survive_a_restart(images: Path, page: Page) -> None:
    study = Study.load(images)
    first = {"rater": "ann", "item": study.items[0].id, "choice": study.items[0].choices[1], "seconds": 3.25}
    assert page.ask("POST", "/votes", first)[0] == 200
    assert [each.choice for each in Votes(images, study)] == [first["choice"]]
    changed = {**first, "choice": study.items[0].choices[0]}
    assert page.ask("POST", "/votes", changed)[0] == 200
    assert [(each.rater, each.choice, each.seconds) for each in Votes(images, study)] == [
        ("ann", changed["choice"], 3.25)
    ]
    left = json.loads(page.ask("GET", "/left?rater=ann")[1])["items"]
    assert set(left) == {item.id for item in study.items[1:]}
    assert page.ask("POST", "/votes", {**first, "rater": "bob"})[0] == 200
    everybody = json.loads(page.ask("GET", "/left?rater=carl")[1])["items"]  # two raters are enough for the first
    assert set(everybody) == {item.id for item in study.items[1:]}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "told"),
    [
        ("GET", "/../key.json", None, 404, "no such page"),
        ("GET", "/%2e%2e/key.json", None, 404, "no such page"),
        ("GET", "/left?rater=a%20b", None, 400, "3 to 40 letters"),
        ("POST", "/votes", b"no json", 400, "Expecting value"),
        ("POST", "/votes", [], 400, "a vote is an object"),
        ("POST", "/votes", {"rater": "<b>", "item": "x"}, 400, "rater is"),
        ("POST", "/votes", {"rater": "ann", "item": "x"}, 400, "none of that id"),
        ("POST", "/votes", b" " * 5000, 413, "at most 4096 bytes"),
        ("POST", "/elsewhere", {}, 404, "sent to /votes"),
    ],
)
def test_what_is_no_vote_is_refused_in_words(
    images: Path, page: Page, method: str, path: str, body: Any, status: int, told: str
) -> None:
    found, answer = page.ask(method, path, body)
    assert found == status and told in json.loads(answer)["error"]
    assert list(Votes(images, Study.load(images))) == []


def test_another_sites_form_cannot_vote(images: Path, page: Page) -> None:
    item = Study.load(images).items[0]
    body = {"rater": "ann", "item": item.id, "choice": item.choices[0], "seconds": 1}
    assert page.ask("POST", "/votes", body, kind="text/plain")[0] == 415
    assert list(Votes(images, Study.load(images))) == []


def test_the_page_and_its_pictures_are_served(page: Page, images: Path) -> None:
    status, html = page.ask("GET", "/")
    assert status == 200 and b"study.js" in html
    frame = Study.load(images).items[0].frame
    assert page.ask("GET", f"/{frame}") == (200, (public(images) / frame).read_bytes())


def test_saved_files_are_added_whole_or_not_at_all(images: Path, tmp_path: Path) -> None:
    study = Study.load(images)
    votes = [{"rater": "dora", "item": item.id, "choice": item.choices[0], "seconds": 2} for item in study.items]
    path = tmp_path / "votes-dora.json"
    path.write_text(json.dumps({"study": study.name, "votes": votes}))
    assert "3 of 3 votes are new" in run("add", images, path)
    assert "0 of 3 votes are new" in run("add", images, path)
    path.write_text(json.dumps({"study": study.name, "votes": [{**votes[0], "rater": "eve"}, {"rater": "eve"}]}))
    with pytest.raises(LegoError, match="nothing of it was taken in"):
        run("add", images, path)
    path.write_text(json.dumps({"study": "another", "votes": []}))
    with pytest.raises(LegoError, match="votes of 'another'"):
        run("add", images, path)
    assert {each.rater for each in Votes(images, study)} == {"dora"}


def test_a_line_cut_by_a_crash_is_dropped_and_a_damaged_one_named(images: Path) -> None:
    study = Study.load(images)
    Votes(images, study).add([vote("ann", study.items[0].id, study.items[0].choices[0])])
    path = images / "votes.jsonl"
    whole = path.read_text()
    path.write_text(whole + whole[: len(whole) // 2])
    assert len(Votes(images, study)) == 1
    assert path.read_text() == whole
    path.write_text("nonsense\n" + whole)
    with pytest.raises(LegoError, match=r"votes.jsonl, line 1"):
        Votes(images, study)


def test_the_report_has_figures_a_page_and_a_plot(images: Path) -> None:
    with pytest.raises(LegoError, match="nobody has voted yet"):
        run("report", images)
    study = Study.load(images)
    for rater in ("ann", "bob"):
        Votes(images, study).add([vote(rater, item.id, item.choices[0]) for item in study.items])
    told = run("report", images, "--resamples", 200)
    assert "LEGO" in told and "Krippendorff" in told
    figures = json.loads((images / "report.json").read_text())
    assert figures["votes"] == 6 and sum(rate["share"] for rate in figures["rates"]) == pytest.approx(1)
    assert (images / "report.md").is_file() and (images / "report.png").stat().st_size > 1000
    run("report", images, "--leave-out", "bob", "--out", images / "one.json")
    assert json.loads((images / "one.json").read_text())["votes"] == 3
    with pytest.raises(LegoError, match="no vote of eve"):
        run("report", images, "--leave-out", "eve")
    with pytest.raises(LegoError, match="all 6 votes are left out"):
        run("report", images, "--leave-out", "ann", "--leave-out", "bob")
    key = (images / "key.json").read_bytes()
    with pytest.raises(LegoError, match=r"key\.json belongs to the study; choose another file"):
        run("report", images, "--out", images / "key.json")
    assert (images / "key.json").read_bytes() == key


def test_a_report_without_intervals_is_json_as_well(images: Path) -> None:
    study = Study.load(images)
    Votes(images, study).add([vote("ann", study.items[0].id, study.items[0].choices[0])])

    told = run("report", images, "--resamples", 0)

    def no_number(name: str) -> None:
        raise AssertionError(name)

    figures = json.loads((images / "report.json").read_text(), parse_constant=no_number)
    assert {rate["low"] for rate in figures["rates"]} == {None} and figures["krippendorff_alpha"] is None
    assert "nan" not in told and "nan" not in (images / "report.md").read_text()
    assert read_people(images / "report.json").rates["lego"].votes == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--method", "LEGO={made}/LEGO"], "at least two"),
        (["--method", "LEGO"], "NAME=PATH"),
        (["--method", "LEGO={made}/LEGO", "--method", "LEGO={made}/LEGO"], "twice"),
        (["--method", "LEGO={made}/LEGO", "--method", "b={made}/SDEdit", "--items", "9"], "only 4 can be made"),
        (["--method", "LEGO={made}/LEGO", "--method", "b={made}/LEGO"], "pictures or sentences of its own"),
        (["--method", "LEGO={made}/LEGO", "--method", "b={made}/none"], "no folder"),
        (["--method", "LEGO={made}/LEGO", "--method", "b={made}/SDEdit", "--split", "test"], "train or val"),
    ],
)
def test_what_cannot_be_built_is_said_and_leaves_nothing(
    made: Path, tmp_path: Path, arguments: list[str], told: str
) -> None:
    arguments = [argument.format(made=made) for argument in arguments]
    with pytest.raises(LegoError, match=told):
        run("images", tmp_path / "study", "--data", made / "data", "--dataset", "toykitchen", *arguments)
    assert not (tmp_path / "study").exists()


def test_what_keeps_items_from_being_made_is_named(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "SDEdit", tmp_path / "some")
    victim = next((tmp_path / "some").rglob("*.jpg"))
    victim.unlink()
    methods = ("--method", f"LEGO={made / 'LEGO'}", "--method", f"SDEdit={tmp_path / 'some'}", "--items", 4)
    with pytest.raises(LegoError, match=rf"only 3 can be made \({victim}: the generated picture is missing\)"):
        run("images", tmp_path / "study", "--data", made / "data", "--dataset", "toykitchen", *methods)


def test_descriptions_as_features_leave_them_are_taken(made: Path, tmp_path: Path) -> None:
    path, nested = tmp_path / "toykitchen_val_descriptions.json", {}
    for record in read_records(made / "data", "toykitchen", "val"):
        said = {"original action": record.action, "action": record.action, "description": f"Of {record.clip_id}."}
        nested[record.clip_id] = {record.action_id: said}
    path.write_text(json.dumps(nested))
    where = ("--data", made / "data", "--dataset", "toykitchen", "--items", 4)

    run("descriptions", tmp_path / "study", *where, "--method", f"tuned={path}")

    shown = sorted(item.description for item in Study.load(tmp_path / "study").items)
    assert shown == sorted(f"Of {clip}." for clip in nested)


def test_what_is_left_out_of_a_study_is_named_though_there_is_enough_of_others(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "SDEdit", tmp_path / "some")
    victim = next((tmp_path / "some").rglob("*.jpg"))
    victim.unlink()
    methods = ("--method", f"LEGO={made / 'LEGO'}", "--method", f"SDEdit={tmp_path / 'some'}", "--items", 3)
    where = ("--data", made / "data", "--dataset", "toykitchen")

    told = run("images", tmp_path / "a", *where, *methods)
    assert f"left out: {victim}: the generated picture is missing; all of it is in {tmp_path / 'a'}" in told
    assert (tmp_path / "a" / "left_out.txt").read_text() == f"{victim}: the generated picture is missing\n"

    names = [f"{each.clip_id}/{each.action_id}" for each in read_records(made / "data", "toykitchen", "val")]
    path = tmp_path / "tuned.json"
    path.write_text(json.dumps({"elsewhere/action": "A hand.", **dict.fromkeys(names, "A hand.")}))
    told = run("descriptions", tmp_path / "b", *where, "--items", 4, "--method", f"tuned={path}")
    assert f"left out: {path}: elsewhere/action is no record of toykitchen_val; all of it" in told


@pytest.mark.parametrize(
    ("sentences", "told"),
    [
        ({"elsewhere/action": "A hand."}, r"\(.*tuned.json has no sentence of val_0000000/.*, and 4 more\)"),
        ({"val_0000000/x": 3}, "val_0000000/x is 3; it must map clip/action to a sentence"),
        ({"val_0000000": {"x": {}}}, "val_0000000/x is None; it must map clip/action to a sentence"),
        ({"val_0000000": {"x": 3}}, "val_0000000 is {'x': 3}; it must map clip/action to a sentence"),
        ({"val_0000000": {}}, "val_0000000 is {}; it must map clip/action to a sentence"),
        (["A hand."], "holds a list and no object; it must map clip/action to a sentence"),
    ],
)
def test_sentences_that_do_not_fit_are_named(made: Path, tmp_path: Path, sentences: object, told: str) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(json.dumps(sentences))
    with pytest.raises(LegoError, match=told):
        run(
            "descriptions", tmp_path / "study", "--data", made / "data", "--dataset", "toykitchen", "--items", 1,
            "--method", f"tuned={path}",
        )  # fmt: skip


def test_an_earlier_study_is_never_overwritten(images: Path, made: Path) -> None:
    methods = [part for method in METHODS for part in ("--method", f"{method}={made / method}")]
    with pytest.raises(LegoError, match="there already"):
        run("images", images, "--data", made / "data", "--dataset", "toykitchen", "--items", 3, *methods)
