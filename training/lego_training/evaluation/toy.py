"""Truth metrics on unseen toy-kitchen scenes: the renderer knows what should have happened."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from lego_core.config import Sampler
from lego_core.errors import LegoError
from lego_core.images import pixels_to_frame
from lego_model.checkpoint import LegoCheckpoint, fingerprint
from lego_model.describe import describe
from lego_model.pipeline import LegoPipeline
from numpy.typing import NDArray
from PIL import Image
from rich.progress import Progress

from lego_training.evaluation.failures import FailureGallery
from lego_training.toy_kitchen.alternatives import WRONG_OBJECT, alternatives
from lego_training.toy_kitchen.language import Slots, parse_slots, question
from lego_training.toy_kitchen.pair import KitchenPair, changed_region, make_pair, make_situation
from lego_training.toy_kitchen.render import sense

# Far from the seeds datasets are written with; compositions of the val split never occur in training.
FIRST_SEED = 1_000_000
_BATCH = 8


@dataclass(frozen=True)
class SceneResult:
    """One scene's outcome.

    Attributes:
        seed: Of the scene, in the val split.
        action: Its label.
        description: What the VLLM wrote.
        hand: Whether the description names the right hand, and so the three below.
        verb: See above.
        object: See above.
        side: See above.
        success: Inside the region that truly changes, the output is closer to the target than to the input.
        inside_target_mse: Mean squared error to the target there, of values in [0, 1].
        inside_input_mse: To the input there.
        outside_psnr_db: PSNR to the input outside the region, in decibels.
        outcome: What the output is nearest to: "right" is the target, "nothing" the input, "wrong hand" the target with
            the other hand, "wrong object" one in which the same is done with another thing.
        other_objects: Whether the scene has another thing that the action could be done with.
    """

    seed: int
    action: str
    description: str
    hand: bool
    verb: bool
    object: bool
    side: bool
    success: bool
    inside_target_mse: float
    inside_input_mse: float
    outside_psnr_db: float
    outcome: str
    other_objects: bool

    @property
    def slots(self) -> bool:
        """Whether all four slots are right."""
        return self.hand and self.verb and self.object and self.side


def evaluate_scenes(
    checkpoint: Path, scenes: int, journal: Path, steps: int | None = None, sampler: Sampler | None = None,
    failures: FailureGallery | None = None,
) -> list[SceneResult]:  # fmt: skip
    """Describes and paints `scenes` unseen scenes; goes on where an interrupted call stopped.

    Args:
        checkpoint: Directory.
        scenes: How many.
        journal: One JSON line a scene; removed by the caller once the report is written.
        steps: Denoising steps; None takes the model's default, as for the next.
        sampler: One of `lego_core.config.SAMPLERS`.
        failures: Gets the scenes that went wrong.

    Raises:
        LegoError: The journal is of another checkpoint or other settings.
    """
    key = f"{fingerprint(checkpoint)[:16]} steps={steps} sampler={sampler}"
    results = _read_journal(journal, key)
    pipe = LegoPipeline.from_pretrained(checkpoint)
    # Written anew: an interruption may have cut its last line short.
    with Progress() as progress, journal.open("w") as log:
        task = progress.add_task("evaluating", total=scenes, completed=min(len(results), scenes))
        log.writelines(json.dumps(line) + "\n" for line in (key, *map(asdict, results)))
        while len(results) < scenes:
            first = FIRST_SEED + len(results)
            pairs = [make_pair(first + i, "val") for i in range(min(_BATCH, scenes - len(results)))]
            for pair, output, description in zip(pairs, *answer(pipe, pairs, steps, sampler), strict=True):
                results.append(judge(pair, output, description))
                if failures is not None:
                    failures.add(pair, output, results[-1])
                log.write(json.dumps(asdict(results[-1])) + "\n")
            log.flush()
            progress.update(task, completed=len(results))
    return results[:scenes]


def answer(
    pipe: LegoPipeline, pairs: list[KitchenPair], steps: int | None = None, sampler: Sampler | None = None
) -> tuple[list[NDArray[np.uint8]], list[str]]:
    """Asks each pair's question of its input frame.

    Returns:
        The guidance frames at the input frames' size, (256, 256, 3), and the descriptions.
    """
    frames = [Image.fromarray(pair.input_frame) for pair in pairs]
    words = [pipe.describe(frame, question(pair.action)) for frame, pair in zip(frames, pairs, strict=True)]
    seeds = [pair.seed for pair in pairs]
    pixels = pipe.paint(pipe.encode_frames(frames), pipe.context(words), seeds, steps=steps, sampler=sampler)
    outputs = [
        np.asarray(pixels_to_frame(each, *frame.size).resize(frame.size, Image.Resampling.BICUBIC))
        for each, frame in zip(pixels.float().cpu().numpy(), frames, strict=True)
    ]
    return outputs, [each.text for each in words]


def judge(pair: KitchenPair, output: NDArray[np.uint8], description: str) -> SceneResult:
    """Compares one output (H, W, 3) and its description with the truth."""
    said = parse_slots(description)
    values, before, after = (image.astype(np.float64) / 255 for image in (output, pair.input_frame, pair.target_frame))
    inside = pair.changed
    to_target = float(np.square(values - after)[inside].mean())
    to_input = float(np.square(values - before)[inside].mean())
    outside = float(np.square(values - before)[~inside].mean())
    outcome, other_objects = _outcome(pair, values)
    return SceneResult(
        seed=pair.seed,
        action=pair.action,
        description=description,
        **{name: getattr(said, name) == getattr(pair.slots, name) for name in Slots.__dataclass_fields__},
        success=to_target < to_input,
        inside_target_mse=to_target,
        inside_input_mse=to_input,
        outside_psnr_db=float(-10 * np.log10(max(outside, 1e-10))),
        outcome=outcome,
        other_objects=other_objects,
    )


def _outcome(pair: KitchenPair, values: NDArray[np.float64]) -> tuple[str, bool]:
    """Returns what an output (H, W, 3) in [0, 1] is nearest to, wherever any of the outcomes differ.

    Nearest by mean squared error; all of them have the camera's blur and noise.
    """
    situation, before = make_situation(pair.seed, pair.split)
    wrong = alternatives(situation)
    region = pair.changed.copy()
    for each in wrong:
        region |= changed_region(before.picture, each.picture)
    rng = np.random.default_rng([pair.seed, pair.split == "val", 2])
    outcomes = [("nothing", pair.input_frame), ("right", pair.target_frame)]
    outcomes += [(each.kind, sense(each.picture, situation.before.look, rng)) for each in wrong]
    errors = [float(np.square(values - picture / 255.0)[region].mean()) for _, picture in outcomes]
    return outcomes[int(np.argmin(errors))][0], any(each.kind == WRONG_OBJECT for each in wrong)


def description_slots(checkpoint: LegoCheckpoint, pairs: Iterable[KitchenPair]) -> float:
    """Returns the share of pairs whose description has every slot right; paints nothing."""
    pipe, right = LegoPipeline(checkpoint), []
    for pair in pairs:
        words = describe(checkpoint, pipe.embed(Image.fromarray(pair.input_frame)), question(pair.action))
        right.append(parse_slots(words.text) == pair.slots)
    return float(np.mean(right))


def _read_journal(journal: Path, key: str) -> list[SceneResult]:
    if not journal.is_file() or not journal.stat().st_size:
        return []
    # What follows the last line break was cut short; its scene is judged again.
    lines = journal.read_text().split("\n")[:-1]
    try:
        if not lines or json.loads(lines[0]) != key:
            raise LegoError(f"{journal} is of another checkpoint or other settings; remove it to start anew")
        return [SceneResult(**json.loads(line)) for line in lines[1:]]
    except (json.JSONDecodeError, TypeError) as error:
        raise LegoError(f"{journal} is damaged ({error}); remove it to start anew") from error
