"""What the toy kitchen's renderer says of a method's pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lego_core.files import file_sha256
from PIL import Image

from lego_training.dataset import Record, read_frame
from lego_training.evaluation.failures import FailureGallery
from lego_training.evaluation.metrics.bench import progress
from lego_training.evaluation.metrics.samples import Sample
from lego_training.evaluation.metrics.scores import MeanScore, mcnemar
from lego_training.evaluation.report import intervals, summary
from lego_training.evaluation.toy import SceneResult, judge
from lego_training.files import append_line, read_lines
from lego_training.toy_kitchen.pair import make_pair

_JOURNAL = "truth.jsonl"


@dataclass(frozen=True)
class Lead:
    """By how much more often one method did the action than another, in the same scenes.

    Attributes:
        value: The difference in action success, in -1 to 1.
        low: Lower end of its 95 % interval, by bootstrap over scenes.
        high: Upper end.
        scenes: How many there are.
        first_only: In how many of them only the first did it.
        second_only: Only the second.
    """

    value: float
    low: float
    high: float
    scenes: int
    first_only: int
    second_only: int

    @property
    def p(self) -> float:
        """How likely a difference as large would be of methods that are alike."""
        return mcnemar(self.first_only, self.second_only)


@dataclass(frozen=True)
class Truth:
    """A method's figures.

    Attributes:
        figures: As `lego-train evaluate toy` has them; those of descriptions are None for methods without any.
        failures: Folder of pictures of what went wrong.
        successes: Whether the action was done, by the scene's seed.
        intervals: 95 % intervals of the figures, see `lego_training.evaluation.report.intervals`; empty without
            resamples.
    """

    figures: Mapping[str, Any]
    failures: Path
    successes: Mapping[int, bool]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def lead(self, other: Truth, resamples: int, seed: int) -> Lead | None:
        """Returns by how much more often the action was done than by another method in the same scenes.

        Scenes differ more than methods do, so the interval is of the scenes' differences.

        Returns:
            None if there are no two scenes in common, or no resamples.
        """
        both = [scene for scene in self.successes if scene in other.successes]
        if len(both) < 2 or not resamples:
            return None
        leads = np.array([float(self.successes[each]) - other.successes[each] for each in both])
        score = MeanScore(("",) * len(both), leads)
        low, high = score.interval(resamples, seed)
        return Lead(score.value(), low, high, len(both), int((leads > 0).sum()), int((leads < 0).sum()))


def judge_pictures(
    samples: Sequence[Sample], records: Sequence[Record], descriptions: Mapping[str, str], folder: Path, resamples: int,
    seed: int,
) -> Truth | None:  # fmt: skip
    """Judges pictures of toy-kitchen records; goes on where an interrupted call stopped.

    Args:
        samples: The pictures.
        records: Their records, whose metadata has the scenes' seeds.
        descriptions: That pictures were painted from, by clip/action.
        folder: Of the method; gets a journal and failures/.
        resamples: Of the bootstrap; 0 computes no intervals.
        seed: Of the bootstrap.

    Returns:
        None if no record has a seed.
    """
    seeds = {f"{each.clip_id}/{each.action_id}": each.facts.get("seed") for each in records}
    splits = {f"{each.clip_id}/{each.action_id}": each.input_path.parts[-4] for each in records}
    journal = folder / _JOURNAL
    known = {}
    if journal.is_file():
        known = {entry["picture"]: entry["result"] for entry in read_lines(journal)}
    gallery = FailureGallery(folder / "failures")
    results = []
    with progress("asking the renderer", len(samples)) as advance:
        for sample in samples:
            scene, said = seeds.get(sample.name), descriptions.get(sample.name, "")
            if isinstance(scene, int):
                key = f"{sample.name} {file_sha256(sample.generated)} {said}"
                if key in known:
                    results.append(SceneResult(**known[key]))
                else:
                    pair = make_pair(scene, "val" if splits[sample.name] == "val" else "train")
                    size = pair.input_frame.shape[1::-1]
                    picture = read_frame(sample.generated)
                    if picture.size != size:
                        picture = picture.resize(size, Image.Resampling.BICUBIC)
                    output = np.asarray(picture)
                    results.append(judge(pair, output, said))
                    gallery.add(pair, output, results[-1])
                    append_line(journal, {"picture": key, "result": asdict(results[-1])})
            advance(1)
    if not results:
        return None
    gallery.write_index()
    figures: dict[str, Any] = summary(results)
    spans = intervals(results, resamples, seed) if resamples else {}
    if not any(result.description for result in results):
        for slot in ("description_slots", "hand", "verb", "object", "side"):
            figures[slot] = None
            spans.pop(slot, None)
    successes = {result.seed: result.success for result in results}
    return Truth(figures, gallery.folder, successes, spans)
