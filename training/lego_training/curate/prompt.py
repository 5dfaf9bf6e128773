"""The prompt: a YAML file with the system's words, sampling settings, known things and worked examples."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lego_core.errors import LegoError

from lego_training.curate.checks import Vocabulary, answer_faults
from lego_training.curate.scenes import NamedBox, Scene, read_boxes

_KEYS = ("system", "request", "things", "examples")
# These are ours to set, and streaming would answer in another form.
_RESERVED = ("model", "messages", "stream", "n")


@dataclass(frozen=True)
class Example:
    """A scene and the description a person wrote of it."""

    scene: Scene
    description: str


@dataclass(frozen=True)
class Prompt:
    """How a chat LLM is asked (lego-reference E).

    Attributes:
        name: Of the file, without its ending.
        system: What is wanted, in words.
        request: Settings of the request, such as temperature and max_tokens.
        things: Lines of a `Vocabulary`.
        examples: Worked ones, shown in this order.
    """

    name: str
    system: str
    request: dict[str, Any]
    things: tuple[str, ...]
    examples: tuple[Example, ...]

    def messages(self, scene: Scene) -> list[dict[str, str]]:
        """Returns the three messages that ask for a scene's description: system, examples, the scene."""
        shown = "\n\n".join(
            f"{number}. {_shown(example.scene)}\nDescription: {example.description}"
            for number, example in enumerate(self.examples, start=1)
        )
        return [
            {"role": "system", "content": self.system},
            {"role": "user", "content": f"Worked examples:\n\n{shown}"},
            {"role": "user", "content": f"Now this one.\n\n{_shown(scene)}\nDescription:"},
        ]


def load_prompt(path: Path) -> Prompt:
    """Reads a prompt's YAML.

    Raises:
        LegoError: Unreadable, an unknown or missing key, or an example that its own rules would reject.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise LegoError(f"the prompt {path} cannot be read: {error}") from error
    if not isinstance(values, dict) or sorted(values) != sorted(_KEYS):
        found = ", ".join(map(str, values)) if isinstance(values, dict) else type(values).__name__
        raise LegoError(f"the prompt {path} must have the keys {', '.join(_KEYS)}; it has {found}")
    system, request, things, examples = (values[key] for key in _KEYS)
    if not isinstance(system, str) or not system.strip():
        raise LegoError(f"{path}: system is empty; say what is wanted")
    if not isinstance(things, list) or not all(isinstance(line, str) for line in things):
        raise LegoError(f"{path}: things must be a list of lines of text")
    if not isinstance(examples, list) or not examples:
        raise LegoError(f"{path}: examples is empty; give some, the paper has 12")
    vocabulary = Vocabulary(things)
    worked = [
        _example(value, f"{path}: example {number}", vocabulary) for number, value in enumerate(examples, start=1)
    ]
    return Prompt(path.stem, system.strip(), check_request(request, str(path)), tuple(things), tuple(worked))


def prompt_path(dataset: str) -> Path:
    """Where our own prompt for a dataset is: everyday scenes for Ego4D, kitchens for all else."""
    style = "everyday" if dataset.startswith("ego4d") else "kitchen"
    return Path(__file__).with_name("prompts") / f"{style}.yaml"


def check_request(request: Any, place: str) -> dict[str, Any]:
    """Returns settings of a request, those that are null left out.

    Raises:
        LegoError: Not a mapping of names to JSON values, or one of the settings is not free to be chosen.
    """
    if not isinstance(request, dict) or not all(isinstance(key, str) for key in request):
        raise LegoError(f"{place}: request is {request!r}; it must be a mapping such as {{temperature: 0.7}}")
    taken = [key for key in request if key in _RESERVED]
    if taken:
        raise LegoError(f"{place}: the request's {taken[0]} is set by the command and cannot be given")
    try:
        json.dumps(request, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise LegoError(f"{place}: request holds what JSON cannot ({error})") from error
    return {key: value for key, value in request.items() if value is not None}


def override_request(request: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Returns the settings with "key=value" pairs applied; their values are YAML, and null takes a setting away.

    Raises:
        LegoError: An override is not of that form.
    """
    changed = dict(request)
    for override in overrides:
        key, sign, value = override.partition("=")
        try:
            changed[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise LegoError(f"--request {override!r} has a value that is no YAML") from error
        if not sign or not key.strip():
            raise LegoError(f"--request {override!r} is not of the form key=value")
    return check_request(changed, "--request")


def _example(value: Any, place: str, vocabulary: Vocabulary) -> Example:
    if not isinstance(value, dict) or sorted(value) != ["boxes", "description", "label"]:
        raise LegoError(f"{place}: it must have label, boxes and description")
    label, description = value["label"], value["description"]
    if not isinstance(label, str) or not isinstance(description, str):
        raise LegoError(f"{place}: label and description must be text")
    try:
        boxes: tuple[NamedBox, ...] = tuple(read_boxes(value["boxes"]))
    except LegoError as error:
        raise LegoError(f"{place}: {error}") from error
    scene = Scene(place, "", " ".join(label.split()), boxes)
    description = " ".join(description.split())
    for fault in answer_faults(description, scene, vocabulary):
        raise LegoError(f"{place}: its description would be rejected: {fault}")
    return Example(scene, description)


def _shown(scene: Scene) -> str:
    """A scene in the form in which the model reads it."""
    boxes = "; ".join(f"{box.name} [{', '.join(f'{edge:.2f}' for edge in box.box)}]" for box in scene.boxes)
    return f"Action: {scene.label}\nObjects: {boxes or 'not known'}"
