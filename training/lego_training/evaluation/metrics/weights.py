"""Where the weights of the metrics' networks come from: a folder, the hub's cache, or, if asked for, the hub."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lego_core.errors import LegoError
from lego_core.files import file_sha256


class Absent(LegoError):
    """Weights that a metric needs are not there; the message says which, and where to get them."""


@dataclass(frozen=True)
class WeightSet:
    """Weights of one network.

    Attributes:
        files: Names, or patterns, of a file or folder that holds them.
        hub: Repository on the Hugging Face hub, if they are there as such.
        address: Of the file, if it is elsewhere.
        hint: What to fetch, for who has to do so by hand.
    """

    files: tuple[str, ...]
    hub: str = ""
    address: str = ""
    hint: str = ""


_LEGO_BUNDLE = "of the paper's metric weights, huggingface.co/bolinlai/LEGO-Metrics"
WEIGHTS: Mapping[str, WeightSet] = {
    "inception": WeightSet(
        ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth", "inception.safetensors"),
        address="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
    ),
    "alex": WeightSet(("alexnet-*.pth",), address="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"),
    "vgg": WeightSet(("vgg16-*.pth",), address="https://download.pytorch.org/models/vgg16-397923af.pth"),
    "squeeze": WeightSet(
        ("squeezenet1_1-*.pth",), address="https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth"
    ),
    "clip": WeightSet(("clip-vit-large-patch14",), hub="openai/clip-vit-large-patch14"),
    "egovlp-ego4d": WeightSet(("egovlp.pth",), hint=f"egovlp.pth {_LEGO_BUNDLE}"),
    "egovlp-epickitchen": WeightSet(("epic_mir_plus.pth",), hint=f"epic_mir_plus.pth {_LEGO_BUNDLE}"),
    "distilbert": WeightSet(("distilbert-base-uncased",), hub="distilbert/distilbert-base-uncased"),
    "blip-base": WeightSet(
        ("model_base_caption_capfilt_large.pth", "blip-image-captioning-base"),
        hub="Salesforce/blip-image-captioning-base",
    ),
    "blip-large": WeightSet(
        ("model_large_caption.pth", "blip-image-captioning-large"), hub="Salesforce/blip-image-captioning-large"
    ),
    "bert": WeightSet(("bert-base-uncased",), hub="google-bert/bert-base-uncased"),
}  # fmt: skip

_HUB_FILES = ("*.json", "*.txt", "*.safetensors", "pytorch_model*.bin")
_WEIGHT_FILES = (".safetensors", ".bin", ".pth", ".pt")


@dataclass
class WeightPlaces:
    """Where to look.

    Attributes:
        folder: Searched at any depth; may be the paper's bundle as it is unpacked.
        named: A file or folder, or a repository's name on the hub, for single weight sets; these come first.
        download: Whether what is not on this machine is fetched; else only what earlier downloads left is found.
    """

    folder: Path | None = None
    named: Mapping[str, str] = field(default_factory=dict)
    download: bool = False
    _digests: dict[Path, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.folder is not None and not self.folder.is_dir():
            raise LegoError(f"{self.folder} is no folder; give the one with the metrics' weights")
        unknown = sorted(set(self.named) - set(WEIGHTS))
        if unknown:
            raise LegoError(f"no metric has weights called {unknown[0]!r}; choose of {', '.join(WEIGHTS)}")

    def find(self, name: str) -> Path:
        """Returns the file or folder of one of `WEIGHTS`.

        Raises:
            Absent: It is nowhere.
        """
        wanted = WEIGHTS[name]
        named = self.named.get(name, "")
        if named and Path(named).exists():
            return _snapshot(Path(named))
        if not named and self.folder is not None:
            for pattern in wanted.files:
                found = min(self.folder.rglob(pattern), key=lambda path: (len(path.parts), path), default=None)
                if found is not None:
                    return _snapshot(found)
        if named or wanted.hub:
            return self._of_hub(name, named or wanted.hub)
        if wanted.address:
            return self._of_address(name, wanted.address)
        raise Absent(f"the weights {name} are absent: put {wanted.hint} into the folder of --weights")

    def digest(self, path: Path) -> str:
        """Returns a short checksum of weights: what features were made with."""
        if path not in self._digests:
            files = [path] if path.is_file() else sorted(
                each for each in path.rglob("*") if each.suffix in (*_WEIGHT_FILES, ".json", ".txt")
            )  # fmt: skip
            named = (f"{each.name} {file_sha256(each)}" for each in files)
            self._digests[path] = hashlib.sha256("\n".join(named).encode()).hexdigest()[:16]
        return self._digests[path]

    def _of_hub(self, name: str, repository: str) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        try:
            found = snapshot_download(
                repository, allow_patterns=list(_HUB_FILES), local_files_only=not self.download, max_workers=4
            )
        except LocalEntryNotFoundError as error:
            raise self._absent(name, repository) from error
        except HFValidationError as error:
            raise Absent(f"the weights {name} are absent: {repository!r} is neither a path nor a repository") from error
        except Exception as error:  # the hub's client raises many types for networks that fail
            raise Absent(f"the weights {name} could not be fetched from {repository} ({error})") from error
        folder = Path(found)
        if not (folder / "config.json").is_file():  # an earlier download of a few of its files
            raise self._absent(name, repository)
        return folder

    def _of_address(self, name: str, address: str) -> Path:
        path = Path(torch.hub.get_dir()) / "checkpoints" / address.rsplit("/", 1)[-1]
        if path.is_file():
            return path
        if not self.download:
            raise self._absent(name, address)
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = path.stem.rsplit("-", 1)[-1]
        try:
            torch.hub.download_url_to_file(address, str(path), hash_prefix=prefix, progress=False)
        except (OSError, RuntimeError) as error:
            raise Absent(f"the weights {name} could not be fetched from {address} ({error})") from error
        return path

    def _absent(self, name: str, source: str) -> Absent:
        files = " or ".join(WEIGHTS[name].files)
        return Absent(
            f"the weights {name} are absent: put {files} of {source} into the folder of --weights, or give --download"
        )


def parse_named(pairs: Iterable[str]) -> dict[str, str]:
    """Reads "clip=PATH" pairs.

    Raises:
        LegoError: One is no pair.
    """
    named = {}
    for pair in pairs:
        name, equals, place = pair.partition("=")
        if not equals or not place:
            raise LegoError(f"{pair!r} is not of the form name=path, such as clip=weights/clip-vit-large-patch14")
        named[name] = place
    return named


def _snapshot(path: Path) -> Path:
    """Goes into a folder that is a cache of the hub's client, as in the paper's bundle."""
    inside = sorted(path.glob("models--*/snapshots/*/*.json")) if path.is_dir() else []
    return inside[0].parent if inside and not (path / "config.json").is_file() else path
