"""What a study asks, and the folder it lives in.

STUDY/public/study.json       what raters see; nothing in it tells which method made a picture
STUDY/public/pictures/        under names that tell nothing
STUDY/public/index.html, ...  the page
STUDY/key.json                which method made which picture
STUDY/votes.jsonl             what raters said, a line each
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lego_core.errors import LegoError

Kind = Literal["images", "descriptions"]

YES, NO = "yes", "no"
QUESTIONS: dict[Kind, str] = {
    "images": "Which picture shows this action best, in the place of the first picture?",
    "descriptions": "Does the sentence say what happens from the first picture to the second?",
}
_FORMAT = 1
_STUDY_CURE = "give the folder that a study was built in, or build it again"


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        id: Names it.
        frame: The input frame, a path below `public`.
        choices: What can be chosen: paths of pictures, or "yes" and "no".
        label: The action, for "images".
        target: The frame of the action, for "descriptions".
        description: The sentence, for "descriptions".
    """

    id: str
    frame: str
    choices: tuple[str, ...]
    label: str = ""
    target: str = ""
    description: str = ""


@dataclass(frozen=True)
class Study:
    """A study as raters see it.

    Attributes:
        name: Names it, and its votes.
        kind: What is asked.
        question: In words.
        raters: How many are wanted for each item.
        items: In no order: each rater sees them in another.
    """

    name: str
    kind: Kind
    question: str
    raters: int
    items: tuple[Item, ...]

    @classmethod
    def load(cls, folder: Path) -> Study:
        """Reads a study.

        Raises:
            LegoError: There is none, or it is damaged.
        """
        path = public(folder) / "study.json"
        values = read_json(path, _STUDY_CURE)
        try:
            if values.pop("format") != _FORMAT:
                raise ValueError("it was made by another version")
            items = tuple(Item(**{**each, "choices": tuple(each["choices"])}) for each in values.pop("items"))
            return cls(items=items, **values)
        except (KeyError, TypeError, ValueError) as error:
            raise LegoError(f"{path} cannot be used ({error}); build the study again") from error

    def to_json(self) -> str:
        """Returns the text of study.json."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"


def public(folder: Path) -> Path:
    """Returns the folder that raters may see."""
    return folder / "public"


def read_key(folder: Path) -> dict[str, str]:
    """Returns the method of every picture; of descriptions, of every item.

    Raises:
        LegoError: It is missing or damaged.
    """
    values = read_json(folder / "key.json", _STUDY_CURE)
    return {str(name): str(method) for name, method in values.items()}


def read_json(path: Path, cure: str) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Args:
        path: The file.
        cure: What to do if it is not what it should be.

    Raises:
        LegoError: It is missing or holds no object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LegoError(f"{path} cannot be read ({error.strerror}); {cure}") from error
    except ValueError as error:
        raise LegoError(f"{path} is no JSON ({error}); {cure}") from error
    if not isinstance(values, dict):
        raise LegoError(f"{path} holds a {type(values).__name__} and no object; {cure}")
    return values
