"""From a dataset and folders of generated pictures to a study's folder."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from lego_core.errors import LegoError
from lego_core.files import folder_aside
from PIL import Image

from lego_training.dataset import read_frame
from lego_training.study.design import NO, QUESTIONS, YES, Item, Kind, Study, public

PAGE_FILES = ("index.html", "study.js", "style.css")
_LONGEST_SIDE = 512  # pixels of a picture on the page; all methods' alike, so that size tells nothing
_QUALITY = 92


@dataclass(frozen=True)
class Example:
    """What an item is made of.

    Attributes:
        frame: The input frame.
        target: The frame of the action.
        label: The action.
        made: Each method's picture ("images") or sentence ("descriptions").
    """

    frame: Path
    target: Path
    label: str
    made: Mapping[str, Path | str]


def choose(examples: Sequence[Example], count: int, seed: int, missing: str = "") -> list[Example]:
    """Returns so many examples, drawn at random.

    Args:
        examples: To draw from.
        count: How many.
        seed: Of the draw.
        missing: What other examples lack, for the error.

    Raises:
        LegoError: There are not so many.
    """
    if len(examples) < count:
        told = f" ({missing})" if missing else ""
        raise LegoError(f"{count} items are wanted and only {len(examples)} can be made{told}; lower --items")
    return random.Random(seed).sample(list(examples), count)


def build(
    folder: Path, name: str, kind: Kind, examples: Sequence[Example], raters: int, seed: int, question: str = ""
) -> Study:
    """Writes a study's folder, whole or not at all.

    Args:
        folder: Is not there yet.
        name: Names the study.
        kind: What is asked.
        examples: An item each; for "descriptions" an item for each method of each.
        raters: How many are wanted for each item.
        seed: Of the names of pictures.
        question: Instead of the usual one.

    Raises:
        LegoError: The folder is there already, or a picture cannot be read.
    """
    if folder.exists():
        raise LegoError(f"{folder} is there already; name a new folder, votes in the old one would be lost")
    chance = random.Random(seed)
    key: dict[str, str] = {}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder_aside(folder.parent, "study") as aside:
        pictures = public(aside) / "pictures"
        pictures.mkdir(parents=True)

        def put(source: Path) -> str:
            place = f"pictures/{chance.getrandbits(64):016x}.jpg"
            _shrunk(source).save(public(aside) / place, quality=_QUALITY)
            return place

        items: list[Item] = []
        for example in examples:
            frame = put(example.frame)
            if kind == "images":
                choices = {put(Path(picture)): method for method, picture in example.made.items()}
                key |= choices
                items.append(Item(_id(chance), frame, tuple(sorted(choices)), label=example.label))
            else:
                target = put(example.target)
                for method, sentence in example.made.items():
                    items.append(Item(_id(chance), frame, (YES, NO), target=target, description=str(sentence)))
                    key[items[-1].id] = method
        study = Study(name, kind, question or QUESTIONS[kind], raters, tuple(sorted(items, key=lambda item: item.id)))
        (public(aside) / "study.json").write_text(study.to_json(), encoding="utf-8")
        # For a page that is opened as a file, which may not fetch its neighbours.
        (public(aside) / "study.data.js").write_text(f"window.STUDY = {study.to_json()}", encoding="utf-8")
        (aside / "key.json").write_text(json.dumps(key, indent=1) + "\n", encoding="utf-8")
        for file in PAGE_FILES:
            source = resources.files("lego_training.study") / "page" / file
            (public(aside) / file).write_bytes(source.read_bytes())
        shutil.copytree(aside, folder)
    return study


def _id(chance: random.Random) -> str:
    return f"{chance.getrandbits(40):010x}"


def _shrunk(path: Path) -> Image.Image:
    image = read_frame(path)
    scale = min(1.0, _LONGEST_SIDE / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
