"""A dataset in the layout of the released one, of small coarse pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

ACTIONS = ("open drawer", "turn on tap", "cut tomato")


def write_miniature(
    root: Path, name: str = "ego4d", val: int = 4, train: int = 0, size: tuple[int, int] = (100, 64)
) -> None:
    """Writes a dataset of random pictures whose targets differ from their inputs in a square.

    Args:
        root: Of the dataset.
        name: Such as ego4d, whose labels are narrations.
        val: Records of the split that is judged.
        train: Records of the other.
        size: Width and height of the frames.
    """
    rng = np.random.default_rng(len(name))
    frames = root / "EgoGen" / {"ego4d": "ego4d.fho"}.get(name, name)
    metadata = {}
    for split, count in (("val", val), ("train", train)):
        index: dict[str, dict[str, dict[str, str]]] = {}
        for number in range(count):
            clip, action = f"{split}{number // 2}", f"action_{number % 2}"
            label = ACTIONS[number % len(ACTIONS)]
            before = Image.fromarray(rng.integers(0, 256, (6, 9, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
            after = before.copy()
            after.paste((250, 40, 30), (20, 20, 50, 50))
            record = {
                "image_0": f"{clip}/{action}/frame_0.jpg", "image_1": f"{clip}/{action}/frame_9.jpg",
                "action": f"#C C {label}" if name == "ego4d" else label,
                "llava_forecast_finetune": f"the right hand opens {label.split()[-1]}",
            }  # fmt: skip
            folders = [(split, "image_0", before), (split, "image_1", after)]
            if split == "val":
                folders.append(("val_gt_for_metric", "image_1", after))
            for folder, key, picture in folders:
                path = frames / folder / record[key]
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path, quality=95)
            index.setdefault(clip, {})[action] = record
            about = {"width": size[0], "height": size[1], "actions": {}}
            times = {"input_time": 1.0, "target_time": 1.5 + 0.25 * number}
            metadata.setdefault(clip, about)["actions"][action] = times
        (root / f"{name}_{split}.json").write_text(json.dumps(index))
    (root / f"{name}_metadata.json").write_text(json.dumps(metadata))
