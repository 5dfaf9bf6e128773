"""Scenes that went wrong, as pictures, sorted by what is wrong with them."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from lego_core.images import encode_jpeg
from numpy.typing import NDArray
from PIL import Image

from lego_training.files import append_line, read_lines, write_whole
from lego_training.toy_kitchen.pair import KitchenPair

if TYPE_CHECKING:
    from lego_training.evaluation.toy import SceneResult

# Of a picture, then of a description.
KINDS = ("nothing", "wrong hand", "wrong object", "said hand", "said verb", "said object", "said side")
_TITLES = {
    "nothing": "Nothing was done: the picture is nearest to the input frame",
    "wrong hand": "Done with the other hand",
    "wrong object": "Done with another thing",
    **{f"said {slot}": f"The description names another {slot}, or none" for slot in ("hand", "verb", "object", "side")},
}
_STYLE = """
body { font: 15px/1.45 sans-serif; max-width: 1250px; margin: 2em auto; padding: 0 1em; color: #222 }
.sheet { display: flex; flex-wrap: wrap; gap: 12px }
figure { margin: 0; width: 400px } figure img { width: 100% } figcaption { font-size: 12px; overflow-wrap: anywhere }
"""


class FailureGallery:
    """A folder of failures: <kind>/<seed>.jpg, each the input, the target and the output, and index.html.

    Args:
        folder: Made if absent; what is there is kept.
        most: Of each kind; more are only counted.
    """

    def __init__(self, folder: Path, most: int = 24) -> None:
        self.folder, self._most = folder, most

    def add(self, pair: KitchenPair, output: NDArray[np.uint8], result: SceneResult) -> None:
        """Puts a scene into every kind that it belongs to, if any."""
        for kind in kinds_of(result):
            folder = self.folder / kind.replace(" ", "_")
            path = folder / f"{pair.seed}.jpg"
            if path.exists() or len(list(folder.glob("*.jpg"))) >= self._most:
                continue
            row = np.hstack([pair.input_frame, pair.target_frame, output])
            append_line(
                folder / "captions.jsonl", {"seed": pair.seed, "action": pair.action, "said": result.description}
            )
            write_whole(path, encode_jpeg(Image.fromarray(row)))

    def write_index(self) -> None:
        """Writes a page of what is there."""
        parts = [
            "<!doctype html><meta charset=utf-8><title>Failures</title>", f"<style>{_STYLE}</style>",
            "<h1>Failures</h1><p>Input frame, target, output. A scene may be in several groups.</p>",
        ]  # fmt: skip
        for kind in KINDS:
            folder = self.folder / kind.replace(" ", "_")
            captions = {}
            if (folder / "captions.jsonl").is_file():
                captions = {entry["seed"]: entry for entry in read_lines(folder / "captions.jsonl")}
            pictures = sorted(folder.glob("*.jpg"), key=lambda path: int(path.stem))
            if not pictures:
                continue
            parts.append(f"<h2>{escape(_TITLES[kind])}</h2><div class=sheet>")
            for path in pictures:
                about = captions.get(int(path.stem), {"action": "", "said": ""})
                words = f"<b>{escape(about['action'])}</b> {escape(about['said'])} ({path.stem})"
                source = f"{folder.name}/{path.name}"
                parts.append(f"<figure><img src='{source}' alt=''><figcaption>{words}</figcaption></figure>")
            parts.append("</div>")
        write_whole(self.folder / "index.html", "\n".join(parts).encode())


def kinds_of(result: SceneResult) -> list[str]:
    """Returns what is wrong with a scene's picture, and with each slot of its description if it has one."""
    kinds = [] if result.outcome == "right" else [result.outcome]
    if result.description:
        kinds += [f"said {slot}" for slot in ("hand", "verb", "object", "side") if not getattr(result, slot)]
    return kinds
