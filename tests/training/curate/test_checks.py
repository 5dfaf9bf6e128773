"""Which answers are fit as descriptions, and what is said of those that are not."""

from __future__ import annotations

import ast
import csv
import random
from pathlib import Path

import pytest
from lego_training.curate.checks import Vocabulary, answer_faults, tidy
from lego_training.curate.prompt import load_prompt, prompt_path
from lego_training.curate.scenes import NamedBox, Scene, plain_name

WHERE = (0.1, 0.1, 0.5, 0.5)
NAMES = ("right hand", "knife", "carrot", "chopping board", "left drawer")
SCENE = Scene("clip/cut", "clip/cut/0.jpg", "cut carrot", tuple(NamedBox(name, WHERE) for name in NAMES))
THINGS = ["chopping board, cutting board, board", "cup", "tap, faucet", "knife", "drawer", "bowl", "sink", "pan", "can"]
GOOD = "The right hand presses the knife down through the carrot on the chopping board."


EPIC = Path(__file__).parents[4] / "shared/fixtures/annotations/epic/EPIC_100_validation_random300.csv"


def kinds(text: str, scene: Scene = SCENE) -> list[str]:
    faults = answer_faults(tidy(text), scene, Vocabulary(THINGS, NAMES), examples=["The left hand pours the milk."])
    return [fault.kind for fault in faults]


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f' "{GOOD}"\n',
        f"<think>A bowl. Two hands?</think>\n\n{GOOD}",
        "Held by its handle in the right hand, the knife slices the carrots lying on the cutting board.",  # a synonym
        "The right hand lifts the knife by its wooden handle to cut the carrot near the drawer on the right-hand side.",
        "The right hand cuts the carrot with the knife so that its slices can be moved from the board.",  # no tin can
        "The right hand taps the knife on the carrot and sinks its edge into it.",  # neither a tap nor a sink
    ],
)
def test_a_fit_description_has_no_fault(text: str) -> None:
    assert kinds(text) == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "empty"),
        ("<think>Hm.</think>", "empty"),
        (GOOD + " It falls apart.", "not one sentence"),
        (GOOD.replace(" on the", "\non the"), "not one sentence"),
        (GOOD.rstrip("."), "not one sentence"),
        ("Cuts the carrot.", "length"),
        (GOOD.rstrip(".") + " and then" * 40 + ".", "length"),
        ("The right hand moves the knife at [0.31, 0.20] through the carrot.", "repeats the prompt"),
        ("Description: " + GOOD, "repeats the prompt"),
        ("**The right hand** presses the knife down through the carrot.", "markup"),
        ("Sure, the right hand presses the knife down through the carrot.", "talks to the reader"),
        ("The image shows a knife that cuts through the carrot.", "talks to the reader"),
        ("La mano derecha corta la carrot on una tabla de cocina.", "not English"),
        ("右手 presses the knife down through the carrot.", "not English"),
        ("The right hand opens the drawer and pulls it out.", "another action"),
        ("The left hand holds the carrot and the right hand cuts it.", "absent hand"),
        ("Both hands hold the knife and cut through the carrot.", "absent hand"),
        ("The fingers of the left and right hands hold the carrot and cut it.", "absent hand"),
        ("The right hand cuts the carrot with the knife over the bowl.", "absent object"),
        ("The right hand cuts the carrot with the knife next to the bowls.", "absent object"),
        ("The right hand cuts the carrot with the knife beside the faucet.", "absent object"),
    ],
)
def test_each_fault_is_found_and_no_other(text: str, kind: str) -> None:
    assert kinds(text) == [kind]


def test_an_example_that_is_repeated_is_found() -> None:
    scene = Scene("a/b", "", "pour milk", (NamedBox("left hand", WHERE),))

    assert kinds("the left hand pours the milk.", scene) == ["repeats the prompt"]


def test_without_boxes_no_hand_may_be_named_by_its_side() -> None:
    scene = Scene("a/b", "", "cut carrot", ())

    assert kinds("The right hand cuts through the carrot.", scene) == ["absent hand"]
    assert kinds("The person cuts through the carrot with one hand.", scene) == []


def test_a_fault_names_what_is_absent() -> None:
    (fault,) = answer_faults("The right hand cuts the carrot over two bowls.", SCENE, Vocabulary(THINGS))

    assert str(fault) == "it names the bowls, which is not among what was given"


def test_names_of_the_datasets_boxes_are_known_things_whatever_side_they_stand_on() -> None:
    vocabulary = Vocabulary([], ["left paper roll", "right hand", "middle cup"])

    assert vocabulary.things_in("the right hand lifts two cups off the paper roll") == {
        "cup": "cups", "paper roll": "paper roll",
    }  # fmt: skip


@pytest.mark.parametrize("dataset", ["epickitchen", "ego4d"])
def test_every_example_of_our_prompts_names_only_what_it_is_given(dataset: str) -> None:
    prompt = load_prompt(prompt_path(dataset))
    names = {box.name for example in prompt.examples for box in example.scene.boxes}

    assert len(prompt.examples) == 12
    for example in prompt.examples:  # loading checks them too, but without the names of one another's boxes
        assert not list(answer_faults(example.description, example.scene, Vocabulary(prompt.things, names)))


def real_scenes() -> list[Scene]:
    """Actions of EPIC-KITCHENS with their annotated objects and a right hand in view."""
    with EPIC.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Scene(
            row["narration_id"], "", row["narration"].rstrip("."),
            tuple(NamedBox(plain_name(name), WHERE) for name in ("right hand", *ast.literal_eval(row["all_nouns"]))),
        )
        for row in rows
    ]  # fmt: skip


@pytest.mark.skipif(not EPIC.is_file(), reason="the shared fixtures (real annotations) are not beside this checkout")
def test_real_actions_are_told_from_such_with_a_foreign_object() -> None:
    scenes = real_scenes()
    names = sorted({box.name for scene in scenes for box in scene.boxes} - {"right hand"})
    vocabulary = Vocabulary(load_prompt(prompt_path("epickitchen")).things, names)
    rng = random.Random(0)
    found = foreign_scenes = 0
    for scene in scenes:
        text = f"Gripping it by the edge, the right hand starts to {scene.label} so that it can be moved to the side"
        assert not list(answer_faults(f"{text}.", scene, vocabulary)), scene.label
        foreign = rng.choice(names)
        if not vocabulary.things_in(foreign).keys() & vocabulary.things_in(f"{scene.boxes} {scene.label}").keys():
            foreign_scenes += 1
            found += any(answer_faults(f"{text} of the {foreign}.", scene, vocabulary))
    assert foreign_scenes > 250 and found / foreign_scenes > 0.9
