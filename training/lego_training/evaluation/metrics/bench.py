"""Runs networks over pictures and texts: in batches, on the device there is, once for all runs that share a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from lego_core.errors import LegoError
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from lego_training.evaluation.metrics.cache import FeatureCache
from lego_training.evaluation.metrics.samples import Sample, in_batches, read_picture
from lego_training.evaluation.metrics.weights import WeightPlaces

Network = TypeVar("Network", bound=nn.Module)
# What a network is shown together: a picture's file, several such as input and output, or a text.
Item = tuple[Path | str, ...]
# Of each item, its pictures (3, H, W) in [0, 1] and on the device, a row of features: (B, D).
Compute = Callable[[list[tuple[Any, ...]]], Tensor]


@dataclass
class Bench:
    """What metrics are computed with.

    Attributes:
        cache: Of features.
        weights: Where networks come from.
        device: Where they run.
        batch_size: Items at a time; features do not depend on it but for rounding.
        text: What pictures are compared with where a metric compares with words: "description" or "action".
        dataset: Name of the dataset, which decides between EgoVLP's weights.
    """

    cache: FeatureCache
    weights: WeightPlaces
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch_size: int = 16
    text: Literal["description", "action"] = "description"
    dataset: str = "ego4d"
    _networks: dict[str, Any] = field(default_factory=dict, repr=False)

    def network(self, name: str, load: Callable[[], Network]) -> Network:
        """Returns a network on the device, loaded if it is none of the two used last: modes and metrics share some."""
        found = self._networks.pop(name, None)
        if found is None:
            while len(self._networks) > 1:
                self._networks.pop(next(iter(self._networks)))
            found = load().to(self.device)
        self._networks[name] = found
        return cast(Network, found)

    def words(self, sample: Sample) -> str:
        """Returns the words of a sample that its picture is compared with.

        Raises:
            LegoError: It has none.
        """
        words = sample.description if self.text == "description" else sample.action
        if not words.strip():
            raise LegoError(f"{sample.name} has no {self.text}; curate the dataset first, or give --text action")
        return words

    def features(self, kind: str, items: Sequence[Item], load: Callable[[], Compute]) -> NDArray[np.float32]:
        """Returns a row of features of each item, (n, D).

        Args:
            kind: What the features are: metric, preprocessing and the weights' checksum.
            items: Files of pictures, and texts.
            load: Makes the computation; called only if some item's features are not cached.
        """
        keys = [self.cache.key(kind, *item) for item in items]
        found = self.cache.arrays(keys)
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in found}
        if missing:
            compute = load()
            with progress(kind.split()[0], len(missing)) as advance:
                for some in self._batches(list(missing.items())):
                    with torch.inference_mode():
                        rows = compute([self._on_device(item) for _, item in some]).float().cpu().numpy()
                    fresh = {key: row for (key, _), row in zip(some, rows, strict=True)}
                    self.cache.put(fresh)
                    found |= fresh
                    advance(len(some))
        return np.stack([found[key] for key in keys])

    def _on_device(self, item: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(each if isinstance(each, str) else each.to(self.device) for each in item)

    def _batches(self, items: list[tuple[bytes, Item]]) -> Iterator[list[tuple[bytes, tuple[Any, ...]]]]:
        """Yields batches with their pictures, the next being decoded while one is computed."""

        def read(item: Item) -> tuple[Any, ...]:
            return tuple(each if isinstance(each, str) else read_picture(each) for each in item)

        with ThreadPoolExecutor(4) as pool:
            ahead: list[list[tuple[bytes, Future[tuple[Any, ...]]]]] = []
            for some in in_batches(items, self.batch_size):
                ahead.append([(key, pool.submit(read, item)) for key, item in some])
                if len(ahead) > 1:
                    yield [(key, pictures.result()) for key, pictures in ahead.pop(0)]
            for rest in ahead:
                yield [(key, pictures.result()) for key, pictures in rest]


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar on stderr; gives what advances it."""
    columns, console = (
        (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()),
        Console(stderr=True),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.update(task, advance=count)


def find_device(name: str) -> torch.device:
    """Returns the device of a name; of "auto" the GPU, if there is one.

    Raises:
        LegoError: torch knows no such device, or does not find it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise LegoError(f"the device {name!r} cannot be used ({str(error).splitlines()[0]}); try cpu") from error
    return device


def stack_resized(pictures: Sequence[Tensor], size: tuple[int, int], mode: str, antialias: bool) -> Tensor:
    """Returns pictures (3, H, W) of any sizes as one batch (B, 3, *size), each resized alone."""
    return torch.cat(
        [
            torch.nn.functional.interpolate(each[None], size, mode=mode, align_corners=False, antialias=antialias)
            for each in pictures
        ]
    )
