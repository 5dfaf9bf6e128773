"""Fetching released weights, from a stand-in hub over real HTTP."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub.constants import DOWNLOAD_CHUNK_SIZE
from lego_core.errors import LegoError
from lego_export.pull import RemoteFile, fetch, list_files, next_commands, releases

from tests.export.hub import COMMIT, Hub, serve

LEGO, CLIP = "bolinlai/LEGO-Ego4D", "openai/clip-vit-large-patch14"
CHECKPOINT, FOLDER = "ego4d_diffusion_with_vllm_feature.ckpt", "llava-llama-2-13b-chat-forecasting-finetune"
BIG = random.Random(0).randbytes(300_000)
SHARD = random.Random(1).randbytes(5_000)


@pytest.fixture
def hub() -> Iterator[Hub]:
    content = {
        LEGO: {
            CHECKPOINT: BIG,
            "scaleup_training_ego4d_eval.ckpt": b"x" * 2000,
            "README.md": b"# LEGO",
            f"{FOLDER}/config.json": b"{}",
            f"{FOLDER}/pytorch_model-00001-of-00001.bin": SHARD,
        },
        CLIP: {
            "config.json": b'{"a": 1}', "tokenizer.json": b"{}", "merges.txt": b"a b", "model.safetensors": SHARD,
            "tf_model.h5": BIG,
        },
    }  # fmt: skip
    with serve(Hub(content)) as served:
        yield served


def pull(hub: Hub, directory: Path, name: str = "ego4d") -> None:
    fetch(list_files(name, hub.endpoint), directory, hub.endpoint)


def test_the_files_of_a_release_and_of_what_goes_with_it_are_fetched_and_no_others(hub: Hub, tmp_path: Path) -> None:
    pull(hub, tmp_path)

    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {
        f"LEGO-Ego4D/{CHECKPOINT}", f"LEGO-Ego4D/{FOLDER}/config.json",
        f"LEGO-Ego4D/{FOLDER}/pytorch_model-00001-of-00001.bin", "clip-vit-large-patch14/config.json",
        "clip-vit-large-patch14/tokenizer.json", "clip-vit-large-patch14/merges.txt",
        "clip-vit-large-patch14/model.safetensors",
    }  # fmt: skip
    assert (tmp_path / "LEGO-Ego4D" / CHECKPOINT).read_bytes() == BIG
    assert any(f"/resolve/{COMMIT}/" in path for _, path, _ in hub.requests), "all files are of one commit"


def test_what_is_there_is_checked_and_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    pull(hub, tmp_path)
    (tmp_path / "LEGO-Ego4D" / CHECKPOINT).write_bytes(BIG[:-1] + b"?")
    hub.requests.clear()

    pull(hub, tmp_path)

    assert [path for path, _ in hub.contents()] == [f"/cdn/{LEGO}/{CHECKPOINT}"]
    assert (tmp_path / "LEGO-Ego4D" / CHECKPOINT).read_bytes() == BIG


def test_a_damaged_file_stands_until_its_replacement_is_whole(hub: Hub, tmp_path: Path) -> None:
    pull(hub, tmp_path)
    place = tmp_path / "LEGO-Ego4D" / CHECKPOINT
    place.write_bytes(BIG[:-1] + b"?")
    hub.status = 503

    with pytest.raises(LegoError, match="status 503"):
        pull(hub, tmp_path)

    assert place.read_bytes() == BIG[:-1] + b"?"


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        (1000, f"more than the stated 1000 bytes of {LEGO}/{CHECKPOINT} came"),
        (400_000, rf"only 300000 of the 400000 bytes of {LEGO}/{CHECKPOINT} came; run the same command again"),
    ],
)
def test_a_file_of_another_size_than_stated_is_told_and_never_grows_beyond(
    hub: Hub, tmp_path: Path, stated: int, told: str
) -> None:
    hub.declared[CHECKPOINT] = stated

    with pytest.raises(LegoError, match=told):
        pull(hub, tmp_path)

    assert all(path.stat().st_size <= stated for path in (tmp_path / "LEGO-Ego4D").glob(f".{CHECKPOINT}*"))


@pytest.fixture
def huge(hub: Hub) -> bytes:
    """A checkpoint of several of the client's chunks, so that it can be fetched in part."""
    hub.repositories[LEGO][CHECKPOINT] = random.Random(2).randbytes(2 * DOWNLOAD_CHUNK_SIZE + 1000)
    return hub.repositories[LEGO][CHECKPOINT]


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub: Hub, huge: bytes, tmp_path: Path) -> None:
    hub.breaks[CHECKPOINT] = [DOWNLOAD_CHUNK_SIZE + 500]

    pull(hub, tmp_path)

    ranges = [headers.get("range") for path, headers in hub.contents() if path.endswith(CHECKPOINT)]
    assert ranges == [None, f"bytes={DOWNLOAD_CHUNK_SIZE}-"]
    assert (tmp_path / "LEGO-Ego4D" / CHECKPOINT).read_bytes() == huge


def test_a_pull_that_was_stopped_is_taken_up_by_the_next(hub: Hub, huge: bytes, tmp_path: Path) -> None:
    def stop(file: RemoteFile, done: int) -> None:
        if file.path == CHECKPOINT:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(list_files("ego4d", hub.endpoint), tmp_path, hub.endpoint, stop)
    assert not (tmp_path / "LEGO-Ego4D" / CHECKPOINT).exists()
    hub.requests.clear()

    pull(hub, tmp_path)

    ranges = [headers.get("range") for path, headers in hub.contents() if path.endswith(CHECKPOINT)]
    assert ranges == [f"bytes={DOWNLOAD_CHUNK_SIZE}-"]
    assert (tmp_path / "LEGO-Ego4D" / CHECKPOINT).read_bytes() == huge and not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("path", [CHECKPOINT, f"{FOLDER}/config.json"])
def test_a_wrong_checksum_is_said_and_the_file_removed(hub: Hub, tmp_path: Path, path: str) -> None:
    hub.damaged.add(path)

    with pytest.raises(LegoError, match=rf"{path} has the checksum \w+ and should have .* run the same command again"):
        pull(hub, tmp_path)

    assert not (tmp_path / "LEGO-Ego4D" / path).exists() and not list(tmp_path.rglob("*.partial"))


def test_a_repository_that_is_not_there_is_named(hub: Hub) -> None:
    del hub.repositories[LEGO]

    with pytest.raises(LegoError, match=rf"shows no repository {LEGO}; if it is a private one, log in with"):
        list_files("ego4d", hub.endpoint)


def test_a_file_that_is_not_there_is_named_with_those_that_are(hub: Hub) -> None:
    del hub.repositories[LEGO][CHECKPOINT]

    with pytest.raises(LegoError, match=rf"{LEGO} holds no {CHECKPOINT}; it holds README.md, .*scaleup_training"):
        list_files("ego4d", hub.endpoint)


def test_a_gated_repository_says_how_to_get_in(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    hub.gated.add(LEGO)

    with pytest.raises(LegoError, match=rf"{LEGO} is gated: accept its terms at {hub.endpoint}/{LEGO}, then log in"):
        pull(hub, tmp_path)

    monkeypatch.setenv("HF_TOKEN", hub.token)
    pull(hub, tmp_path)
    to_cdn = [headers for _, path, headers in hub.requests if path.startswith("/cdn/")]
    assert to_cdn and not any("authorization" in headers for headers in to_cdn), "the token is the hub's alone"


def test_a_private_repository_is_seen_with_a_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.private.add(LEGO)
    monkeypatch.setenv("HF_TOKEN", hub.token)

    assert len(list_files("ego4d", hub.endpoint)) == 7


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.declared[CHECKPOINT] = 10**18

    with pytest.raises(LegoError, match=r"GB free and 1000000000\.00 GB are to be fetched; make room, or choose"):
        pull(hub, tmp_path)

    assert not hub.contents() and not list(tmp_path.iterdir())


def test_a_hub_that_is_out_of_order_is_said(hub: Hub, tmp_path: Path) -> None:
    hub.status = 503

    with pytest.raises(LegoError, match=rf"refuses {LEGO} with status 503; run the same command again later to go on"):
        pull(hub, tmp_path)


def test_no_network_is_said(hub: Hub) -> None:
    with pytest.raises(LegoError, match=r"http://127.0.0.1:1 cannot be reached .*check the network"):
        list_files("ego4d", "http://127.0.0.1:1")


def test_a_file_name_that_leads_out_of_the_folder_is_refused(hub: Hub) -> None:
    hub.repositories[LEGO][f"{FOLDER}/../../../evil.json"] = b"{}"

    with pytest.raises(LegoError, match="outside its folder; do not use it"):
        list_files("ego4d", hub.endpoint)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(LegoError, match=r"no release 'ego5d'; choose one of ego4d, epic-kitchens, .*, clip"):
        list_files("ego5d")


@pytest.mark.parametrize("name", releases())
def test_what_is_converted_of_a_release_is_what_was_pulled(name: str) -> None:
    release, known = releases()[name], releases()
    pulled = [
        *release.files,
        *(repo for each in (*release.along, *release.before_convert) for repo in known[each].files),
    ]

    for path in release.convert.values():
        assert path.split("/")[0] in {repository.split("/")[1] for repository in pulled}
    assert next_commands(name, Path("w"))[-1].startswith("lego-export convert ")


def test_the_next_command_is_given_in_full() -> None:
    assert next_commands("ego4d", Path("my weights")) == [
        f"lego-export convert 'my weights/LEGO-Ego4D/{CHECKPOINT}' 'my weights/checkpoints/ego4d' "
        f"--vllm 'my weights/LEGO-Ego4D/{FOLDER}' --clip 'my weights/clip-vit-large-patch14'"
    ]
    assert next_commands("sd-1.5", Path("w"))[0] == "lego-export pull llava w"
    assert next_commands("clip", Path("w")) == [
        "lego-export convert SOURCE CHECKPOINT --vllm VLLM --clip w/clip-vit-large-patch14"
    ]


def command(hub: Hub, *arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lego_export", "pull", *arguments], input=answer, capture_output=True, text=True,
        timeout=120, env={**os.environ, "HF_ENDPOINT": hub.endpoint, "COLUMNS": "160"},
    )  # fmt: skip


def test_the_command_says_how_much_and_asks(hub: Hub, tmp_path: Path) -> None:
    done = command(hub, "ego4d", str(tmp_path / "w"), answer="n\n")

    assert done.returncode == 2 and done.stderr.strip().endswith("error: nothing is fetched")
    assert CHECKPOINT in done.stdout and "0.3 MB" in done.stdout and "GB are free there" in done.stdout
    assert f"for the checkpoint {tmp_path / 'w' / 'checkpoints' / 'ego4d'}; " in done.stdout
    assert not (tmp_path / "w").exists() and not hub.contents()


def test_the_command_says_what_is_damaged_and_asks_before_it_is_fetched_anew(hub: Hub, tmp_path: Path) -> None:
    pull(hub, tmp_path)
    place = tmp_path / "LEGO-Ego4D" / CHECKPOINT
    place.write_bytes(b"?" * len(BIG))
    hub.requests.clear()

    done = command(hub, "ego4d", str(tmp_path), "--no-convert", answer="n\n")

    assert done.returncode == 2 and not hub.contents()
    assert f"{place} is damaged or of another version: it is fetched anew" in done.stdout
    assert "Fetch them?" in done.stdout and place.read_bytes() == b"?" * len(BIG)


def test_where_nobody_can_answer_the_option_that_does_is_named(hub: Hub, tmp_path: Path) -> None:
    done = command(hub, "ego4d", str(tmp_path / "w"))

    assert done.returncode == 2 and "nobody is there to answer, so nothing is fetched; --yes answers" in done.stderr


def test_a_disk_that_holds_the_files_and_not_the_checkpoint_too_is_said_first(hub: Hub, tmp_path: Path) -> None:
    hub.declared[CHECKPOINT] = int(0.7 * shutil.disk_usage(tmp_path).free)

    done = command(hub, "ego4d", str(tmp_path / "w"), "--yes")

    assert done.returncode == 2 and not hub.contents()
    assert "fetching and converting may take" in done.stderr and "--no-convert" in done.stderr


def test_the_command_only_fetches_if_told_and_says_what_comes_next(hub: Hub, tmp_path: Path) -> None:
    done = command(hub, "ego4d", str(tmp_path / "w"), "--no-convert", "--yes")

    assert done.returncode == 0, done.stderr
    assert "all 7 files are there and their checksums are right" in done.stdout
    assert next_commands("ego4d", tmp_path / "w")[0] in done.stdout
    assert (tmp_path / "w" / "LEGO-Ego4D" / CHECKPOINT).read_bytes() == BIG
