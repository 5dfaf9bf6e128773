"""What could have been done instead: the same scene with the other hand at work, or with another thing acted on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lego_training.toy_kitchen.canvas import Picture
from lego_training.toy_kitchen.hands import SIGN, Hand
from lego_training.toy_kitchen.language import ACTIONS, VEGETABLES, Action
from lego_training.toy_kitchen.pair import FRAME_SIZE
from lego_training.toy_kitchen.render import render
from lego_training.toy_kitchen.scene import Scene, Thing
from lego_training.toy_kitchen.staging import Situation, finished, touch

WRONG_HAND, WRONG_OBJECT = "wrong hand", "wrong object"


@dataclass(frozen=True)
class Alternative:
    """One wrong outcome of an action.

    Attributes:
        kind: "wrong hand" or "wrong object".
        picture: Noise-free, (256, 256, 3) uint8.
    """

    kind: str
    picture: Picture


def alternatives(situation: Situation) -> list[Alternative]:
    """Renders the target frame with the other hand, and for everything else in view that the verb fits.

    Such as, for "open left drawer", the other closed drawers, cupboards and bottles.
    """
    hands = _other_hand(situation.hands_after)
    found = [Alternative(WRONG_HAND, render(situation.after, hands, FRAME_SIZE).picture)]
    for scene, acting in _other_things(situation):
        picture = render(scene, (situation.hands_after[0], acting), FRAME_SIZE).picture
        found.append(Alternative(WRONG_OBJECT, picture))
    return found


def _other_hand(hands: tuple[Hand, Hand]) -> tuple[Hand, Hand]:
    """The two hands with their parts exchanged, each on its own side of the body."""
    resting, acting = hands
    return (
        replace(resting, side=acting.side, rest=_mirrored(resting.rest)),
        replace(acting, side=resting.side, rest=_mirrored(acting.rest)),
    )


def _mirrored(rest: tuple[float, float]) -> tuple[float, float]:
    return 1 - rest[0], rest[1]


def _other_things(situation: Situation) -> Iterator[tuple[Scene, Hand]]:
    """Yields scenes in which another thing is acted on, with the acting hand at it."""
    things, acting = situation.before.things, situation.hands_after[1]
    for index, thing in enumerate(things):
        if index == situation.target or thing.column < 0:
            continue
        near = [i for i, each in enumerate(things) if each.column == thing.column]
        by_kind = {things[i].kind: things[i] for i in near}
        for action in ACTIONS:
            if action.verb != situation.action.verb or not _could(action, thing, by_kind):
                continue
            after = list(things)
            for kind, changed in finished(action, by_kind, thing.kind).items():
                after[next(i for i in near if things[i].kind == kind)] = changed
            pose, point = touch(action, {after[i].kind: after[i] for i in near}, SIGN[acting.side])
            hand = replace(acting, pose=pose, target=point, elbow=0.27)
            yield replace(situation.before, things=tuple(after)), hand


def _could(action: Action, thing: Thing, near: dict[str, Thing]) -> bool:
    """Whether an action could be done with a thing as it is."""
    if thing.kind not in (VEGETABLES if action.acted == "vegetable" else (action.acted,)) or thing.held:
        return False
    match action.verb:
        case "open":
            return thing.amount == 0
        case "close":
            return thing.amount > 0
        case "turn on":
            return thing.state != "on"
        case "turn off":
            return thing.state == "on"
        case "pour":
            return "cup" in near
        case "cut":
            return "knife" in near and thing.amount == 0
        case "put down":  # what is not in the hand
            return False
        case _:
            return True
