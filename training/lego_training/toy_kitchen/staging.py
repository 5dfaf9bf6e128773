"""Stages an action: the scene and hands 0.25 s before it starts, and at its decisive moment."""

from dataclasses import dataclass, replace

import numpy as np

from lego_training.toy_kitchen import parts
from lego_training.toy_kitchen.geometry import Camera, Point
from lego_training.toy_kitchen.hands import SIGN, Hand, PoseName, Side
from lego_training.toy_kitchen.language import SIDES, Action, Slots, describe
from lego_training.toy_kitchen.scene import COLUMN_X, Composition, Scene, Thing, draw_look, furnish

_Touch = tuple[PoseName, Point]


@dataclass(frozen=True)
class Situation:
    """An action in a kitchen.

    Attributes:
        action: What is done.
        label: EPIC-style action label.
        description: Reference description.
        slots: What the description says.
        target: Index of the acted thing in both scenes' things.
        before: Scene of the input frame.
        after: Scene of the target frame.
        hands_before: Hands of the input frame, the acting one last.
        hands_after: Hands of the target frame, the acting one last.
    """

    action: Action
    label: str
    description: str
    slots: Slots
    target: int
    before: Scene
    after: Scene
    hands_before: tuple[Hand, Hand]
    hands_after: tuple[Hand, Hand]

    def seen_from(self, camera: Camera) -> "Situation":
        """The same situation from another head pose."""
        return replace(self, before=replace(self.before, camera=camera), after=replace(self.after, camera=camera))


def stage(
    rng: np.random.Generator, action: Action, composition: Composition, column: int, noun: str, camera: Camera
) -> Situation:
    """Draws looks, states and hands for an action on the `noun` in a column of the composition."""
    side = SIDES[column]
    hand: Side = "left" if column == 0 or (column == 1 and rng.random() < 0.5) else "right"
    sign = SIGN[hand]
    facings = [int(rng.choice((-1, 1))) for _ in range(3)]
    # At the picture's edges levers and handles point inwards, so that the hand on them stays in view.
    inwards = column != 1 and noun in ("tap", "kettle")
    facings[column] = -sign if inwards else sign
    look = draw_look(rng)
    things = list(furnish(rng, composition, look, (facings[0], facings[1], facings[2])))
    target = next(i for i, thing in enumerate(things) if thing.kind == noun and thing.column == column)
    several = sum(thing.kind == noun for thing in things) > 1

    for index, thing in enumerate(things):
        if index != target:
            things[index] = _at_rest(rng, thing, action, noun, column)
    things[target] = _begin(action, things[target], sign)
    near = [i for i, thing in enumerate(things) if thing.column == column]
    after = list(things)
    for kind, changed in finished(action, {things[i].kind: things[i] for i in near}, noun).items():
        after[next(i for i in near if things[i].kind == kind)] = changed

    pose, point = touch(action, {things[i].kind: things[i] for i in near}, sign)
    holding = things[target].held
    if not holding:
        # On its way the hand heads for the thing as a whole, so that it is not taken to go for a neighbour.
        point = (0.4 * point[0] + 0.6 * things[target].position[0], point[1], point[2])
    reach = 1.0 if holding else float(rng.uniform(0.5, 0.66))
    rest_x = 0.5 + sign * float(rng.uniform(0.30, 0.40))
    acting = Hand(hand, pose if holding else "open", point, reach, (rest_x, 1.02), -0.13 if inwards else 0.27)
    pose, point = touch(action, {after[i].kind: after[i] for i in near}, sign)
    acted = replace(acting, pose=pose, target=point, reach=1.0)
    other: Side = "right" if hand == "left" else "left"
    depth = 1.4 if rng.random() < 0.3 else float(rng.uniform(0.95, 1.04))
    resting = Hand(other, "open", None, 0.0, (0.5 - sign * float(rng.uniform(0.34, 0.43)), depth))

    named = rng.random() < (0.6 if several else 0.15)
    thing = things[target]
    label_noun = noun if action.acted == "vegetable" else action.noun
    cup = next((thing.colour for thing in (things[i] for i in near) if thing.kind == "cup"), "")
    return Situation(
        action=action,
        label=action.label(side if named else None, label_noun),
        description=describe(action, hand, side, thing.colour, label_noun, cup),
        slots=Slots(hand, action.verb, label_noun, side),
        target=target,
        before=Scene(camera, look, tuple(things)),
        after=Scene(camera, look, tuple(after)),
        hands_before=(resting, acting),
        hands_after=(resting, acted),
    )


def _at_rest(rng: np.random.Generator, thing: Thing, action: Action, noun: str, column: int) -> Thing:
    """A thing that is not acted on, in some state it may be found in."""
    chance = rng.random()
    alike = thing.kind == noun
    if thing.kind == "drawer" and chance < (0.5 if alike and action.verb == "close" else 0.0 if alike else 0.08):
        return replace(thing, amount=1.0, state="open")
    # An open door swings in front of its neighbour, so only the far one may be open.
    if (
        thing.kind == "cupboard"
        and alike
        and action.verb == "close"
        and abs(thing.column - column) == 2
        and chance < 0.5
    ):
        return replace(thing, amount=1.0, state="open")
    bare = thing.kind == "tap" or (thing.kind == "stove" and thing.state == "off")
    if bare and chance < (0.5 if alike and action.verb == "turn off" else 0.0 if alike else 0.15):
        return replace(thing, state="on")
    return thing


def _begin(action: Action, thing: Thing, sign: int) -> Thing:
    """The acted thing in the input frame."""
    match action.name:
        case "close drawer" | "close cupboard":
            return replace(thing, amount=1.0, state="open")
        case "turn off tap" | "turn off stove":
            return replace(thing, state="on")
        case "put down cup":
            return _lifted(thing)
        case "pick up cup":
            return replace(thing, position=(thing.position[0], 0.0, 0.22))
        case _:
            return thing


def finished(action: Action, near: dict[str, Thing], noun: str) -> dict[str, Thing]:
    """The things of the column that the action has changed at its decisive moment, by kind."""
    thing = near[noun]
    x, _, z = thing.position
    match action.name:
        case "open drawer" | "open cupboard":
            return {noun: replace(thing, amount=1.0, state="open")}
        case "close drawer" | "close cupboard":
            return {noun: replace(thing, amount=0.0, state="closed")}
        case "turn on tap" | "turn on stove":
            return {noun: replace(thing, state="on")}
        case "turn off tap" | "turn off stove":
            return {noun: replace(thing, state="off")}
        case "pick up cup":
            return {noun: _lifted(thing)}
        case "put down cup":
            return {noun: replace(thing, position=(COLUMN_X[thing.column], 0.0, 0.20), state="")}
        case "pour kettle":
            cup = near["cup"]
            return {noun: parts.kettle_over(thing, cup), "cup": replace(cup, amount=1.0)}
        case "cut vegetable":
            grip = (x + thing.facing * 0.085, 0.14, z - 0.13)
            return {
                noun: replace(thing, amount=1.0, state="cut"),
                "knife": replace(near["knife"], position=grip, held=True),
            }
        case "wipe counter":
            return {noun: replace(thing, position=(x, 0.0, z + 0.23), amount=1.0)}
        case "stir pan":
            return {noun: replace(thing, amount=1.0)}
        case "open bottle":
            return {noun: replace(thing, amount=1.0, state="open")}
        case name:
            raise ValueError(f"no staging for the action {name!r}; add it to finished")


def _lifted(cup: Thing) -> Thing:
    x = COLUMN_X[cup.column]
    return replace(cup, position=(x * 0.80, 0.14, 0.11), state="in the hand", held=True)


def touch(action: Action, near: dict[str, Thing], sign: int) -> _Touch:
    """How and where the acting hand takes hold, given the column's things as they are."""
    match action.name:
        case "open drawer":
            return "grip", parts.drawer_handle(near["drawer"])
        case "close drawer":
            return "flat", parts.drawer_face(near["drawer"])
        case "open cupboard":
            return "grip", parts.door_handle(near["cupboard"])
        case "close cupboard":
            return "flat", parts.door_point(near["cupboard"], 0.22, -0.16, 0.02)
        case "turn on tap" | "turn off tap":
            return "grip", parts.tap_lever(near["tap"])
        case "turn on stove" | "turn off stove":
            return "pinch", parts.stove_knob(near["stove"])
        case "pick up cup" | "put down cup":
            return "wrap", parts.cup_side(near["cup"], sign)
        case "pour kettle":
            return "fist", parts.kettle_handle(near["kettle"])
        case "cut vegetable":
            return "fist", parts.knife_grip(near["knife"])
        case "wipe counter":
            x, y, z = near["cloth"].position
            return "flat", (x, y + 0.02, z - 0.01)
        case "stir pan":
            return "fist", parts.spoon(near["pan"])[1]
        case "open bottle":
            return "pinch", parts.bottle_cap(near["bottle"])
        case name:
            raise ValueError(f"no staging for the action {name!r}; add it to touch")
