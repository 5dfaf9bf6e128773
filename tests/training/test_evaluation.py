"""Truth metrics: what counts as success, and how an evaluation is written down."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from lego_core.errors import LegoError
from lego_model.checkpoint import LegoCheckpoint
from lego_model.pipeline import LegoPipeline
from lego_training.evaluation import report
from lego_training.evaluation.failures import FailureGallery
from lego_training.evaluation.toy import FIRST_SEED, SceneResult, answer, description_slots, evaluate_scenes, judge
from lego_training.toy_kitchen.alternatives import alternatives
from lego_training.toy_kitchen.language import place_phrase
from lego_training.toy_kitchen.pair import KitchenPair, make_pair, make_situation
from rich.console import Console

from tests.training.conftest import Workshop


@pytest.fixture(scope="module")
def pair() -> KitchenPair:
    return make_pair(FIRST_SEED, "val")


def test_the_target_with_its_description_is_full_success(pair: KitchenPair) -> None:
    result = judge(pair, pair.target_frame, pair.description)

    assert result.success and result.slots
    assert (result.hand, result.verb, result.object, result.side) == (True, True, True, True)
    assert result.inside_target_mse == 0 and result.inside_input_mse > 0


def test_the_input_frame_is_no_success_however_well_it_is_kept(pair: KitchenPair) -> None:
    result = judge(pair, pair.input_frame, pair.description)

    assert not result.success
    assert result.outside_psnr_db == pytest.approx(100)


def test_success_is_judged_inside_the_change_and_faithfulness_outside(pair: KitchenPair) -> None:
    inside = pair.changed[..., None]
    acted = np.where(inside, pair.target_frame, 0).astype(np.uint8)
    kept = np.where(inside, 0, pair.input_frame).astype(np.uint8)

    assert judge(pair, acted, "").success
    assert judge(pair, acted, "").outside_psnr_db < 20
    assert judge(pair, kept, "").outside_psnr_db == pytest.approx(100)


def test_halfway_between_input_and_target_is_decided_by_the_nearer(pair: KitchenPair) -> None:
    before, after = pair.input_frame.astype(float), pair.target_frame.astype(float)

    def mixed(share: float) -> np.ndarray:
        return (before + share * (after - before)).round().astype(np.uint8)

    assert judge(pair, mixed(0.6), "").success and not judge(pair, mixed(0.4), "").success


@pytest.mark.parametrize("slot", ["hand", "side"])
def test_one_wrong_word_costs_its_slot_and_the_whole(pair: KitchenPair, slot: str) -> None:
    truth = getattr(pair.slots, slot)
    other = "right" if truth == "left" else "left"
    said, meant = (place_phrase(truth), place_phrase(other)) if slot == "side" else (f"{truth} hand", f"{other} hand")
    wrong = pair.description.replace(said, meant)
    result = judge(pair, pair.target_frame, wrong)

    right = {name: getattr(result, name) for name in ("hand", "verb", "object", "side")}
    assert right == {**dict.fromkeys(right, True), slot: False} and not result.slots


def test_a_description_that_says_nothing_has_no_slot(pair: KitchenPair) -> None:
    result = judge(pair, pair.target_frame, "")

    assert not any((result.hand, result.verb, result.object, result.side))


@pytest.fixture(scope="module")
def drawer() -> tuple[KitchenPair, dict[str, list[np.ndarray]]]:
    """A scene with several drawers, and its wrong outcomes."""
    seed = FIRST_SEED + 5
    found: dict[str, list[np.ndarray]] = {}
    for each in alternatives(make_situation(seed, "val")[0]):
        found.setdefault(each.kind, []).append(each.picture)
    return make_pair(seed, "val"), found


def test_an_output_counts_as_what_it_is_nearest_to(drawer: tuple[KitchenPair, dict[str, list[np.ndarray]]]) -> None:
    pair, wrong = drawer

    assert pair.action == "open middle drawer" and len(wrong["wrong object"]) == 2
    assert judge(pair, pair.target_frame, "").outcome == "right"
    assert judge(pair, pair.input_frame, "").outcome == "nothing"
    assert judge(pair, wrong["wrong hand"][0], "").outcome == "wrong hand"
    for picture in wrong["wrong object"]:
        result = judge(pair, picture, "")
        assert result.outcome == "wrong object" and not result.success and result.other_objects


def test_a_scene_without_another_thing_to_act_on_says_so() -> None:
    pair = make_pair(FIRST_SEED, "val")  # wipe counter: there is one cloth

    result = judge(pair, pair.target_frame, "")

    assert result.outcome == "right" and not result.other_objects
    figures = report.summary([result])
    assert figures["wrong_object_rate"] is None and figures["scenes_with_another"] == 0


def test_failures_are_sorted_by_what_is_wrong(
    drawer: tuple[KitchenPair, dict[str, list[np.ndarray]]], pair: KitchenPair, tmp_path: Path
) -> None:
    gallery, (scene, wrong) = FailureGallery(tmp_path / "failures", most=1), drawer
    for each, output, said in (
        (scene, scene.target_frame, scene.description), (scene, wrong["wrong hand"][0], scene.description),
        (pair, pair.input_frame, "The left hand does something <else>."),
    ):  # fmt: skip
        gallery.add(each, output, judge(each, output, said))
    gallery.add(scene, scene.input_frame, judge(scene, scene.input_frame, ""))  # one more than there is room for
    gallery.write_index()

    found = {path.parent.name: path.stem for path in (tmp_path / "failures").rglob("*.jpg")}
    assert found["wrong_hand"] == str(scene.seed) and found["nothing"] == str(pair.seed)
    assert {"said_verb", "said_object"} <= set(found) and "wrong_object" not in found
    page = (tmp_path / "failures" / "index.html").read_text()
    assert "Done with the other hand" in page and "&lt;else&gt;" in page and f"nothing/{pair.seed}.jpg" in page


def result_of(action: str, right: bool, psnr: float = 30.0) -> SceneResult:
    outcome = "right" if right else "wrong object"
    return SceneResult(0, action, "", right, right, right, right, right, 0.01, 0.02, psnr, outcome, True)


@pytest.mark.parametrize(
    ("label", "name"),
    [("cut left carrot", "cut vegetable"), ("cut tomato", "cut vegetable"), ("turn on tap", "turn on tap"),
     ("open middle drawer", "open drawer")],
)  # fmt: skip
def test_an_actions_name_has_neither_side_nor_vegetable(label: str, name: str) -> None:
    assert report.action_name(label) == name


def test_a_summary_has_all_scenes_and_each_action() -> None:
    figures = report.summary(
        [
            result_of("cut left carrot", True), result_of("cut tomato", False), result_of("turn on tap", True, 40.0),
            replace(result_of("turn on tap", True), hand=False),
        ]
    )  # fmt: skip

    assert figures["scenes"] == 4
    assert figures["description_slots"] == 0.5 and figures["hand"] == 0.5 and figures["action_success"] == 0.75
    assert figures["outside_psnr_db"] == pytest.approx(32.5)
    assert figures["right_rate"] == 0.75 and figures["wrong_object_rate"] == 0.25 and figures["wrong_hand_rate"] == 0
    assert figures["inside_target_psnr_db"] == pytest.approx(20)
    assert set(figures["per_action"]) == {"cut vegetable", "turn on tap"}
    assert figures["per_action"]["cut vegetable"]["scenes"] == 2
    assert figures["per_action"]["turn on tap"]["action_success"] == 1.0


def test_shares_near_none_and_all_have_wilsons_intervals() -> None:
    results = [result_of("turn on tap", True, 30.0 + number) for number in range(20)]

    spans = report.intervals(results, resamples=50, seed=0)

    assert spans["action_success"] == pytest.approx((0.8389, 1.0), abs=1e-4)
    assert spans["wrong_hand_rate"] == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert spans["wrong_object_rate"] == spans["wrong_hand_rate"]
    low, high = spans["outside_psnr_db"]
    assert 30 < low < 39.5 < high < 49
    alone = report.intervals(results[:1], resamples=50, seed=0)
    assert "outside_psnr_db" not in alone and alone["action_success"] == pytest.approx((0.2065, 1.0), abs=1e-4)


def test_a_report_is_json_a_plot_and_a_table(tmp_path: Path) -> None:
    figures = report.summary([result_of("turn on tap", True)])

    report.write(figures, tmp_path / "deep" / "figures.json")
    console = Console(record=True, width=120, file=(tmp_path / "screen.txt").open("w"))
    console.print(report.table(figures))

    assert json.loads((tmp_path / "deep" / "figures.json").read_text()) == figures
    assert (tmp_path / "deep" / "figures.png").read_bytes().startswith(b"\x89PNG")
    shown = console.export_text()
    assert "turn on tap" in shown and "30.0 dB" in shown


@pytest.fixture(scope="module")
def evaluated(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[SceneResult], Path]:
    journal = tmp_path_factory.mktemp("evaluation") / "journal.jsonl"
    return evaluate_scenes(workshop.checkpoint, 3, journal, steps=1), journal


def test_scenes_are_unseen_and_in_order(evaluated: tuple[list[SceneResult], Path]) -> None:
    results, journal = evaluated

    assert [result.seed for result in results] == [FIRST_SEED, FIRST_SEED + 1, FIRST_SEED + 2]
    assert [json.loads(line) for line in journal.read_text().splitlines()[1:]] == [asdict(result) for result in results]


def test_an_interrupted_evaluation_goes_on_even_after_a_torn_line(
    evaluated: tuple[list[SceneResult], Path], workshop: Workshop, tmp_path: Path
) -> None:
    results, journal = evaluated
    lines = journal.read_text().splitlines(keepends=True)
    first = json.dumps({**json.loads(lines[1]), "description": "kept"}) + "\n"
    torn = tmp_path / "journal.jsonl"
    torn.write_text(lines[0] + first + lines[2][:40])

    again = evaluate_scenes(workshop.checkpoint, 3, torn, steps=1)

    assert again[0] == replace(results[0], description="kept")
    assert [result.action for result in again] == [result.action for result in results]
    assert again[1].outside_psnr_db == pytest.approx(results[1].outside_psnr_db, abs=0.1)
    assert len(torn.read_text().splitlines()) == 4


def test_a_journal_of_other_settings_is_refused(evaluated: tuple[list[SceneResult], Path], workshop: Workshop) -> None:
    with pytest.raises(LegoError, match="another checkpoint or other settings; remove it to start anew"):
        evaluate_scenes(workshop.checkpoint, 3, evaluated[1], steps=2)


@pytest.mark.parametrize("line", ["{", '{"seed": 1}'])
def test_a_damaged_journal_is_named(
    evaluated: tuple[list[SceneResult], Path], workshop: Workshop, tmp_path: Path, line: str
) -> None:
    journal = tmp_path / "journal.jsonl"
    journal.write_text(evaluated[1].read_text().splitlines()[0] + f"\n{line}\n")

    with pytest.raises(LegoError, match=r"journal\.jsonl is damaged .*remove it to start anew"):
        evaluate_scenes(workshop.checkpoint, 3, journal, steps=1)


def test_answers_have_the_input_frames_size_whatever_the_models_resolution(
    workshop: Workshop, pair: KitchenPair
) -> None:
    pipe = LegoPipeline.from_pretrained(workshop.checkpoint)

    (output,), (description,) = answer(pipe, [pair], steps=1)

    assert (output.shape, output.dtype) == (pair.input_frame.shape, np.uint8)
    assert isinstance(description, str)


def test_description_slots_need_every_slot(workshop: Workshop, pair: KitchenPair) -> None:
    checkpoint = LegoCheckpoint.load(workshop.checkpoint)

    assert description_slots(checkpoint, [pair]) == 0.0
