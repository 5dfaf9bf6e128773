"""One command from the hub to a checkpoint: small models of the released layouts, served over real HTTP."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lego_export.cli import main
from lego_export.original.names import UNET, ema_key
from lego_export.pull import checkpoint_bytes, list_files
from lego_model.checkpoint import LegoCheckpoint
from torch import Tensor

from tests.export.hub import Hub, serve
from tests.export.released import lego_state, write_clip, write_llava

LEGO, CLIP = "bolinlai/LEGO-Ego4D", "openai/clip-vit-large-patch14"
LLAVA, SD = "liuhaotian/llava-llama-2-13b-chat-lightning-preview", "bolinlai/SD1.5-pretrained"
CHECKPOINT, FOLDER = "ego4d_diffusion_with_vllm_feature.ckpt", "llava-llama-2-13b-chat-forecasting-finetune"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return lego_state()


@pytest.fixture(scope="module")
def content(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("released")
    (folder / "clip").mkdir()
    torch.save({"state_dict": state}, folder / CHECKPOINT)
    vllm, clip = read(write_llava(folder / "llava")), read(write_clip(folder / "clip"))
    lego = {CHECKPOINT: (folder / CHECKPOINT).read_bytes(), **{f"{FOLDER}/{name}": each for name, each in vllm.items()}}
    shutil.rmtree(folder)
    return {LEGO: lego, CLIP: clip}


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(content: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    with serve(Hub({repository: dict(files) for repository, files in content.items()})) as served:
        yield served


def pull(hub: Hub, *arguments: str | Path, answer: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lego_export", "pull", *map(str, arguments)], input=answer, capture_output=True,
        text=True, timeout=200, env={**os.environ, "HF_ENDPOINT": hub.endpoint, "COLUMNS": "160"},
    )  # fmt: skip


def test_a_release_is_fetched_and_becomes_a_checkpoint(hub: Hub, state: dict[str, Tensor], tmp_path: Path) -> None:
    done = pull(hub, "ego4d", tmp_path, answer="y\n")

    assert done.returncode == 0, done.stderr
    checkpoint = tmp_path / "checkpoints" / "ego4d"
    assert "GB to fetch into" in done.stdout and f"GB for the checkpoint {checkpoint}; " in done.stdout
    assert f"{checkpoint}: converted from LEGO" in done.stdout
    assert f"lego-export build {checkpoint} engines/ego4d" in done.stdout
    weight = LegoCheckpoint.load(checkpoint).unet.conv_in.weight
    assert weight.equal(state[ema_key(f"{UNET}input_blocks.0.0.weight")])


def test_what_is_fetched_is_kept_when_it_cannot_be_converted(hub: Hub, tmp_path: Path) -> None:
    shard = f"{FOLDER}/pytorch_model-00002-of-00002.bin"
    whole = hub.repositories[LEGO].pop(shard)

    failed = pull(hub, "ego4d", tmp_path / "w", "--checkpoint", tmp_path / "ego4d", "--yes")

    assert failed.returncode == 2 and "lacks the shard pytorch_model-00002-of-00002.bin" in failed.stderr
    assert sorted(os.listdir(tmp_path)) == ["w"] and (tmp_path / "w" / "LEGO-Ego4D" / CHECKPOINT).is_file()
    hub.repositories[LEGO][shard] = whole
    hub.requests.clear()
    done = pull(hub, "ego4d", tmp_path / "w", "--checkpoint", tmp_path / "ego4d", "--keep-raw", "--yes")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ego4d" / "unet_raw").is_dir(), "as --keep-raw asks"
    assert [path for path, _ in hub.contents()] == [f"/cdn/{LEGO}/{shard}"]
    assert (tmp_path / "ego4d" / "lego.json").is_file()


def test_what_converting_needs_beside_a_release_is_fetched_along(hub: Hub) -> None:
    hub.repositories |= {
        SD: {"v1-5-pruned-emaonly.ckpt": b"sd"},
        LLAVA: {"config.json": b"{}", "tokenizer.model": b"t", "pytorch_model-1.bin": b"w", "LICENSE": b"l"},
    }

    alone = {file.repository for file in list_files("sd-1.5", hub.endpoint)}
    to_convert = {file.repository for file in list_files("sd-1.5", hub.endpoint, to_convert=True)}

    assert (alone, to_convert) == ({SD, CLIP}, {SD, CLIP, LLAVA})


def test_a_vllm_that_may_be_in_bfloat16_counts_twice_until_fp16_is_asked_for(hub: Hub) -> None:
    files = list_files("ego4d", hub.endpoint)
    vllm = sum(file.size for file in files if file.path.endswith(".bin"))
    others = sum(file.size for file in files if file.path.endswith((".ckpt", ".safetensors")))

    most = {weights: checkpoint_bytes("ego4d", files, weights) for weights in (None, "fp16", "fp32")}

    assert most == {None: others + 2 * vllm, "fp16": others + vllm, "fp32": 2 * (others + vllm)}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ("ego4d", "w", "--checkpoint", "taken"),
            "taken is there already; give another place with --checkpoint, or --no-convert to check",
        ),
        (("ego4d", "w", "--no-convert", "--weights", "fp16"), "--no-convert makes no checkpoint; leave out"),
        (("llava", "w", "--checkpoint", "c"), "llava is a part of a model, not a whole one; leave out"),
        (("sd-1.5", "w", "--keep-raw"), "sd-1.5 has one U-Net only; leave out --keep-raw"),
    ],
)
def test_what_cannot_be_is_said_before_the_hub_is_asked(
    arguments: tuple[str, ...], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["lego-export", "pull", *arguments])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 2 and text in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["taken"]
