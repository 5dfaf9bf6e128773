"""Fetches released weights from the Hugging Face hub: asks first, resumes, and checks every file's checksum.

The hub's own client opens the connections and finds the token; what is fetched is kept here, because that client drops
a half-fetched file at the end of its process, and 8 GB are not fetched again gladly.
"""

from __future__ import annotations

import functools
import hashlib
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers, disable_progress_bars, httpx
from lego_core.errors import LegoError
from lego_core.files import existing_folder
from yaml import safe_load

_BLOCK = 1 << 20
_WEIGHT_FILES = (".ckpt", ".bin", ".safetensors")

# Called with the file at hand and how many of its bytes are fetched, or checked.
Watch = Callable[["RemoteFile", int], None]


@dataclass(frozen=True)
class Release:
    """One row of releases.yaml.

    Attributes:
        about: One line for people.
        files: Repository to the patterns of the files wanted of it.
        along: Names of releases that are fetched too.
        convert: What `lego-export convert` takes of it: source, vllm, clip, relative to the directory of all.
        before_convert: Names of releases that converting needs too.
        keeps_raw: Whether its file holds the raw U-Net beside the averaged one.
    """

    about: str
    files: dict[str, list[str]]
    along: list[str] = field(default_factory=list)
    convert: dict[str, str] = field(default_factory=dict)
    before_convert: list[str] = field(default_factory=list)
    keeps_raw: bool = False

    @property
    def is_model(self) -> bool:
        """Whether a checkpoint can be made of it; else it is a part of one."""
        return "source" in self.convert


@dataclass(frozen=True)
class RemoteFile:
    """One file of the hub.

    Attributes:
        repository: Such as "bolinlai/LEGO-Ego4D".
        path: Within the repository.
        commit: Of the repository; all files of it are of one commit.
        size: In bytes.
        digest: What its content must hash to: the sha256 of a large file, else the sha1 of a git blob.
        is_large: Whether the hub keeps it outside git.
    """

    repository: str
    path: str
    commit: str
    size: int
    digest: str
    is_large: bool

    def place(self, directory: Path) -> Path:
        """Where it belongs."""
        return directory / self.repository.rpartition("/")[2] / self.path

    def partial(self, directory: Path) -> Path:
        """Where its beginning is kept until it is whole and checked; another version's is never taken up."""
        place = self.place(directory)
        return place.with_name(f".{place.name}.{self.digest[:12]}.partial")

    def missing(self, directory: Path) -> int:
        """Bytes still to fetch, if what stands in its place, if anything, is not the file."""
        partial = self.partial(directory)
        return max(0, self.size - partial.stat().st_size) if partial.is_file() else self.size


def releases() -> dict[str, Release]:
    """Returns what can be pulled, by name."""
    table = safe_load(Path(__file__).with_name("releases.yaml").read_text(encoding="utf-8"))
    return {
        name: Release(
            row["about"],
            row["files"],
            row.get("with", []),
            row.get("convert", {}),
            row.get("before convert", []),
            row.get("keeps raw", False),
        )
        for name, row in table.items()
    }


def find_release(name: str) -> Release:
    """Returns a release.

    Raises:
        LegoError: There is none of this name.
    """
    known = releases()
    if name not in known:
        raise LegoError(f"there is no release {name!r}; choose one of {', '.join(known)}")
    return known[name]


def list_files(name: str, endpoint: str | None = None, *, to_convert: bool = False) -> list[RemoteFile]:
    """Asks the hub for a release's files.

    Args:
        name: Of a release.
        endpoint: Of the hub; None takes HF_ENDPOINT or the public one.
        to_convert: Lists those of the releases that converting needs too.

    Raises:
        LegoError: No such release, the hub cannot be reached or refuses, or it lacks a file.
    """
    release, known = find_release(name), releases()
    others = [*release.along, *(release.before_convert if to_convert else [])]
    wanted = {**release.files, **{repo: files for each in others for repo, files in known[each].files.items()}}
    return [
        file for repository, patterns in wanted.items() for file in _list_repository(repository, patterns, endpoint)
    ]


def find_lacking(
    files: list[RemoteFile], directory: Path, watch: Watch = lambda file, done: None
) -> list[RemoteFile]:  # fmt: skip
    """Returns the files that are not there, or are damaged: everything that is there is read and its checksum compared.

    Args:
        files: As `list_files` returns them.
        directory: Each repository is a folder in it.
        watch: Told about progress.
    """
    lacking = []
    for file in files:
        place = file.place(directory)
        if not place.is_file() or _digest(place, file, functools.partial(watch, file)) != file.digest:
            lacking.append(file)
    return lacking


def missing_bytes(lacking: list[RemoteFile], directory: Path) -> int:
    """Returns how many bytes are still to fetch of the files that `find_lacking` names."""
    return sum(file.missing(directory) for file in lacking)


def free_bytes(directory: Path) -> int:
    """Returns the free space, in bytes, of the disk that `directory` is or will be on."""
    return shutil.disk_usage(existing_folder(directory)).free


def check_room(to_fetch: int, directory: Path, to_make: int, checkpoint: Path, weights: str | None) -> None:
    """Checks that the disks hold what is to be fetched and what is to be made of it.

    Args:
        to_fetch: Bytes that go into `directory`.
        directory: Where the files go.
        to_make: Bytes that go into `checkpoint` then.
        checkpoint: The checkpoint directory to make.
        weights: As for `checkpoint_bytes`.

    Raises:
        LegoError: They do not.
    """
    on_one_disk = existing_folder(directory).stat().st_dev == existing_folder(checkpoint).stat().st_dev
    needed = {directory: to_fetch + to_make} if on_one_disk else {directory: to_fetch, checkpoint: to_make}
    for place, size in needed.items():
        if size > (free := free_bytes(place)):
            smaller = "" if weights == "fp16" else "make the checkpoint smaller with --weights fp16, "
            raise LegoError(
                f"{place} has {free / 1e9:.2f} GB free, and fetching and converting may take {size / 1e9:.2f} GB "
                f"there; make room, {smaller}put the checkpoint on another disk with --checkpoint, or only fetch with "
                "--no-convert"
            )


def fetch(
    files: list[RemoteFile], directory: Path, endpoint: str | None = None, watch: Watch = lambda file, done: None
) -> None:
    """Fetches what is not there yet and checks everything that is.

    A file appears under its own name once it is whole and its checksum is right; what an interrupted call has fetched
    is taken up by the next.

    Args:
        files: As `list_files` returns them.
        directory: Each repository becomes a folder in it.
        endpoint: Of the hub.
        watch: Told about progress.

    Raises:
        LegoError: Not enough disk, no network, no access, or a wrong checksum (the file is removed then).
    """
    lacking = find_lacking(files, directory, watch)
    needed, free = missing_bytes(lacking, directory), free_bytes(directory)
    if needed > free:
        raise LegoError(
            f"{directory} has {free / 1e9:.2f} GB free and {needed / 1e9:.2f} GB are to be fetched; make room, or "
            "choose another directory"
        )
    disable_progress_bars()  # the hub client's own; the caller has one
    for file in lacking:
        place, partial = file.place(directory), file.partial(directory)
        tell = functools.partial(watch, file)
        place.parent.mkdir(parents=True, exist_ok=True)
        _download(file, partial, endpoint, tell)
        if (found := _digest(partial, file, tell)) != file.digest:
            partial.unlink()
            raise LegoError(
                f"{file.repository}/{file.path} has the checksum {found[:12]} and should have {file.digest[:12]}: it "
                "was damaged on the way and is removed; run the same command again"
            )
        partial.replace(place)


def checkpoint_beside(name: str, directory: Path) -> Path:
    """Returns where the checkpoint of a release goes unless somebody says otherwise."""
    return directory / "checkpoints" / name


def checkpoint_bytes(name: str, files: list[RemoteFile], weights: str | None) -> int:
    """Returns the most bytes that the checkpoint of a release takes, going by the sizes of the files it is made of.

    A file's size does not tell its precision. A VLLM in bfloat16 becomes fp32, so it counts twice unless fp16 is asked
    for; if fp32 is asked for, everything does. What the checkpoint leaves out, such as a second U-Net, counts too.

    Args:
        name: Of a release.
        files: As `list_files` returns them.
        weights: "fp16", "fp32", or None for the files' own.
    """
    parts = find_release(name).convert
    doubled = {"fp16": (), "fp32": tuple(parts), None: ("vllm",)}[weights]
    total = 0
    for part, place in parts.items():
        of_part = (file for file in files if file.place(Path()).is_relative_to(place))
        size = sum(file.size for file in of_part if PurePosixPath(file.path).suffix in _WEIGHT_FILES)
        total += size * (2 if part in doubled else 1)
    return total


def next_commands(name: str, directory: Path) -> list[str]:
    """Returns the commands that make a checkpoint of a pulled release; capitals stand for what it does not have."""
    release = releases()[name]
    convert = release.convert
    source, checkpoint = "SOURCE", "CHECKPOINT"
    if release.is_model:
        source, checkpoint = str(directory / convert["source"]), str(checkpoint_beside(name, directory))
    command = ["lego-export", "convert", source, checkpoint]
    for option in ("vllm", "clip"):
        command += [f"--{option}", str(directory / convert[option]) if option in convert else option.upper()]
    pulls = [["lego-export", "pull", other, str(directory)] for other in release.before_convert]
    return [shlex.join(each) for each in (*pulls, command)]


def _list_repository(repository: str, patterns: list[str], endpoint: str | None) -> Iterator[RemoteFile]:
    with _speaking_plainly(repository, endpoint):
        info = HfApi(endpoint=endpoint).model_info(repository, files_metadata=True)
    siblings: list[Any] = sorted(info.siblings or [], key=lambda sibling: sibling.rfilename)
    for pattern in patterns:
        if not any(fnmatchcase(sibling.rfilename, pattern) for sibling in siblings):
            held = ", ".join(sibling.rfilename for sibling in siblings) or "nothing"
            raise LegoError(f"{repository} holds no {pattern}; it holds {held}")
    for sibling in siblings:
        if not any(fnmatchcase(sibling.rfilename, pattern) for pattern in patterns):
            continue
        path = PurePosixPath(sibling.rfilename)
        if path.is_absolute() or ".." in path.parts:
            raise LegoError(f"{repository} names a file {sibling.rfilename!r} outside its folder; do not use it")
        large = sibling.lfs is not None
        digest = sibling.lfs.sha256 if large else sibling.blob_id
        if info.sha is None or sibling.size is None or digest is None:
            raise LegoError(f"the hub gives no size or checksum of {repository}/{path}; try again later")
        yield RemoteFile(repository, str(path), info.sha, sibling.size, digest, large)


def _download(file: RemoteFile, partial: Path, endpoint: str | None, tell: Callable[[int], None]) -> None:
    """Appends what is missing to the partial file; the hub's client reconnects a few times by itself."""
    url = hf_hub_url(file.repository, file.path, revision=file.commit, endpoint=endpoint)
    with partial.open("r+b" if partial.is_file() else "w+b") as raw, _speaking_plainly(file.repository, endpoint):
        raw.seek(0, 2)
        if raw.tell() > file.size:
            raw.truncate(0)
            raw.seek(0)
        watched = _Watched(raw, file, tell)
        try:
            http_get(url, watched, resume_size=raw.tell(), headers=build_hf_headers(), expected_size=file.size)  # type: ignore[arg-type]
        except HfHubHTTPError:  # is an OSError too
            raise
        except OSError as error:
            if error.errno is not None:  # the disk's
                raise
            raise LegoError(
                f"only {raw.tell()} of the {file.size} bytes of {file.repository}/{file.path} came; run the same "
                "command again to go on"
            ) from error


class _Watched:
    """A file that tells how far it is written, and ends where the hub said that it would."""

    def __init__(self, file: BinaryIO, remote: RemoteFile, tell: Callable[[int], None]) -> None:
        self._file, self._remote, self._tell = file, remote, tell

    def write(self, data: bytes) -> int:
        if self._file.tell() + len(data) > self._remote.size:  # it could fill the disk
            raise LegoError(
                f"more than the stated {self._remote.size} bytes of {self._remote.repository}/{self._remote.path} "
                "came, so it is not the file that the hub lists; run the same command again later"
            )
        written = self._file.write(data)
        self._tell(self._file.tell())
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _digest(path: Path, file: RemoteFile, tell: Callable[[int], None]) -> str:
    """Hashes a file as the hub does."""
    if file.is_large:
        digest = hashlib.sha256()
    else:  # git's own, and no secret
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as content:
        while block := content.read(_BLOCK):
            digest.update(block)
            tell(content.tell())
    return digest.hexdigest()


@contextmanager
def _speaking_plainly(repository: str, endpoint: str | None) -> Iterator[None]:
    """Turns what the hub's client raises into one sentence that says what to do."""
    hub = endpoint or constants.ENDPOINT
    login = "log in with `hf auth login`, or set HF_TOKEN"
    try:
        yield
    except GatedRepoError as error:
        raise LegoError(
            f"{repository} is gated: accept its terms at {hub}/{repository}, then {login}, and run the command again"
        ) from error
    except RepositoryNotFoundError as error:
        raise LegoError(f"{hub} shows no repository {repository}; if it is a private one, {login}") from error
    except RemoteEntryNotFoundError as error:
        raise LegoError(f"{repository} no longer holds a file it listed; run the command again") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        cure = login if status in (401, 403) else "run the same command again later to go on"
        raise LegoError(f"{hub} refuses {repository} with status {status}; {cure}") from error
    except (httpx.TransportError, OfflineModeIsEnabled) as error:
        raise LegoError(
            f"{hub} cannot be reached or broke off ({error}); check the network and run the same command again to go on"
        ) from error
