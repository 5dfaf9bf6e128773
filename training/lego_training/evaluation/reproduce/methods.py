"""Where each method of a comparison gets its pictures from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lego_core.config import LegoConfig
from lego_core.errors import LegoError
from lego_model.checkpoint import fingerprint

from lego_training.evaluation.methods.edits import ProxEdit, SdEdit
from lego_training.evaluation.methods.lego import LegoMethod
from lego_training.evaluation.methods.method import Method, NoEdit, Target
from lego_training.evaluation.methods.settings import MethodSettings
from lego_training.evaluation.metrics.weights import Absent, weights_digest
from lego_training.evaluation.reproduce.comparisons import METHODS
from lego_training.features import FeatureStore
from lego_training.text_to_image import TextToImageConfig


@dataclass(frozen=True)
class Sources:
    """What a person has given.

    Attributes:
        checkpoints: Directories of models by name, such as "lego" or "text_to_image".
        baselines: A folder that lego-train baselines has written, where models that are not given are looked for.
        pictures: Folders of pictures that were made elsewhere, by method.
        features: Stored features of LEGO's VLLM.
        settings: How methods paint.
        device: Where they run.
    """

    checkpoints: dict[str, Path] = field(default_factory=dict)
    baselines: Path | None = None
    pictures: dict[str, Path] = field(default_factory=dict)
    features: FeatureStore | None = None
    settings: MethodSettings = field(default_factory=MethodSettings)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        models = {kind.model for kind in METHODS.values() if kind.model}
        for given, known, what in (
            (self.checkpoints, models, "model"), (self.pictures, set(METHODS), "method"),
        ):  # fmt: skip
            for name, path in given.items():
                if name not in known:
                    raise LegoError(f"there is no {what} {name!r}; choose of {', '.join(sorted(known))}")
                if not path.is_dir():
                    raise LegoError(f"{path}, given for {name}, is no folder")
        if self.baselines is not None and not self.baselines.is_dir():
            raise LegoError(f"{self.baselines} is no folder; give the one that lego-train baselines has written")

    def precision(self) -> torch.autocast:
        """What methods paint within."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    def loader(self, name: str) -> tuple[Callable[[], Method], dict[str, Any]]:
        """Returns what makes a method, and the settings that tell its pictures from others'.

        Raises:
            Absent: Its model was not given.
        """
        kind, settings, device = METHODS[name], self.settings, self.device
        if name in ("no_edit", "target"):
            return NoEdit if name == "no_edit" else Target, {"method": name}
        directory = self._directory(name)
        if kind.conditioning is not None:
            LegoConfig.load(directory)  # there is a checkpoint
            told: dict[str, Any] = {
                "method": name,
                "model": fingerprint(directory)[:16],
                "precision": settings.precision,
            }
            # Stored features are of the tuned VLLM; the label is no description of any.
            features = None if name in ("instruct_pix2pix", "lego_untuned") else self.features
            conditioning = kind.conditioning
            return (
                lambda: LegoMethod(directory, conditioning, settings.lego, device, features),
                {**told, **asdict(settings.lego), "features": features is not None},
            )
        fidelity = settings.lego.fidelity
        TextToImageConfig.load(directory)
        told = {"method": name, "model": weights_digest(directory), "precision": settings.precision}
        if name == "sdedit":
            told |= {**asdict(settings.sdedit), "fidelity": fidelity}
            return lambda: SdEdit(directory, settings.sdedit, device, fidelity), told
        told |= {**asdict(settings.proxedit), "fidelity": fidelity}
        return lambda: ProxEdit(directory, settings.proxedit, device, fidelity), told

    def _directory(self, name: str) -> Path:
        model = METHODS[name].model
        if model in self.checkpoints:
            return self.checkpoints[model]
        if self.baselines is not None and (self.baselines / model / "done.json").is_file():
            return self.baselines / model / "checkpoint"
        raise Absent(
            f"there are neither pictures nor a model of it: give --checkpoint {model}=DIR, --pictures {name}=DIR, or "
            "the folder of lego-train baselines as --baselines"
        )


def parse_places(pairs: Iterable[str], example: str) -> dict[str, Path]:
    """Reads "name=DIR" pairs.

    Raises:
        LegoError: One is no pair, or a name comes twice.
    """
    places: dict[str, Path] = {}
    for pair in pairs:
        name, equals, place = pair.partition("=")
        if not equals or not place:
            raise LegoError(f"{pair!r} is not of the form name=folder, such as {example}")
        if name in places:
            raise LegoError(f"{name} is given twice, as {places[name]} and {place}; choose one")
        places[name] = Path(place)
    return places
