"""Where weights come from, how files of them are read, and the cache of features."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
from lego_core.errors import LegoError
from lego_training.evaluation.metrics.bench import Bench
from lego_training.evaluation.metrics.cache import FeatureCache
from lego_training.evaluation.metrics.clip import ClipNetwork
from lego_training.evaluation.metrics.egovlp import EgoVlpNetwork
from lego_training.evaluation.metrics.samples import Sample
from lego_training.evaluation.metrics.tensors import read_tensors
from lego_training.evaluation.metrics.weights import WEIGHTS, Absent, WeightPlaces, parse_named

from tests.training.metrics.weights import Harmful


@pytest.fixture(autouse=True)
def no_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_found_at_any_depth_of_a_folder(name: str, weights: Path) -> None:
    found = WeightPlaces(weights).find(name)

    assert found.exists() and weights in found.parents
    if name == "distilbert":
        assert (found / "tokenizer.json").is_file() and found.parent.name == "snapshots"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("inception", "put pt_inception.* of https://github.com/mseitzer.* or give --download"),
        ("vgg", "put vgg16-.* of https://download.pytorch.org/models/vgg16-397923af.pth"),
        ("clip", "put clip-vit-large-patch14 of openai/clip-vit-large-patch14 .* or give --download"),
        ("egovlp-epickitchen", "put epic_mir_plus.pth .*huggingface.co/bolinlai/LEGO-Metrics"),
    ],
)
def test_absent_weights_say_what_to_get_and_where(name: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(Absent, match=f"the weights {name} are absent: {hint}"):
        WeightPlaces().find(name)


def test_what_torch_downloaded_before_is_found(tmp_path: Path) -> None:
    file = tmp_path / "torch" / "hub" / "checkpoints" / "vgg16-397923af.pth"
    file.parent.mkdir(parents=True)
    file.touch()

    assert WeightPlaces().find("vgg") == file


def test_single_weights_can_be_named(weights: Path, tmp_path: Path) -> None:
    named = parse_named([f"clip={weights / 'clip-vit-large-patch14'}", "blip-base=someone/blip"])
    places = WeightPlaces(tmp_path, named)

    assert places.find("clip") == weights / "clip-vit-large-patch14"
    with pytest.raises(Absent, match="of someone/blip"):
        places.find("blip-base")
    for wrong in ("clip", "clip="):
        with pytest.raises(LegoError, match="is not of the form name=path"):
            parse_named([wrong])
    with pytest.raises(LegoError, match="no metric has weights called 'bert2'; choose of inception, alex"):
        WeightPlaces(named={"bert2": "x"})
    with pytest.raises(LegoError, match="is no folder"):
        WeightPlaces(tmp_path / "nowhere")


def test_a_checkpoint_with_objects_is_read_without_running_anything(weights: Path, tmp_path: Path) -> None:
    file = weights / "egovlp" / "pretrained" / "egovlp.pth"
    assert b"ConfigParser" in file.read_bytes()
    harm, proof = tmp_path / "harm.pth", tmp_path / "harmed"
    harmful = Harmful(shutil.copyfile, str(file), str(proof))
    torch.save({"state_dict": {"weight": torch.ones(2)}, "other": harmful}, harm)

    assert "module.video_model.cls_token" in read_tensors(file, ignore_objects=True)
    assert read_tensors(harm, ignore_objects=True)["weight"].tolist() == [1, 1]
    for each in (file, harm):
        with pytest.raises(LegoError, match="it holds more than tensors"):
            read_tensors(each)
    torch.save({"state_dict": {"weight": torch.ones(2)}, "other": Harmful(Path.touch, proof)}, harm)
    with pytest.raises(LegoError, match="it holds more than tensors"):  # calls what a call gave
        read_tensors(harm, ignore_objects=True)
    assert not proof.exists()


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 half an archive"])
@pytest.mark.parametrize("name", ["file.pth", "file.safetensors"])
def test_damaged_weights_are_named(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(LegoError, match=rf"{name} cannot be read as weights .*; fetch it again"):
        read_tensors(tmp_path / name, ignore_objects=True)


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"epoch": 3}}, tmp_path / "file.pth")

    with pytest.raises(LegoError, match="holds no tensors"):
        read_tensors(tmp_path / "file.pth")


def test_features_are_computed_once_for_equal_pictures_and_weights(
    samples: list[Sample], bench: Bench, tmp_path: Path
) -> None:
    copy = tmp_path / "under another name.png"
    copy.write_bytes(samples[0].target.read_bytes())
    first = ClipNetwork(bench).images([samples[0].target], "corrected")

    def refuse() -> None:
        raise AssertionError("computed again")

    digest = bench.weights.digest(bench.weights.find("clip"))
    again = bench.features(f"clip image corrected {digest}", [(copy,)], refuse)  # type: ignore[arg-type]

    assert np.array_equal(first, again)
    with pytest.raises(AssertionError, match="computed again"):
        bench.features(f"clip image published {digest}", [(copy,)], refuse)  # type: ignore[arg-type]


def test_an_interrupted_computation_keeps_the_batches_before(samples: list[Sample], bench: Bench) -> None:
    seen: list[int] = []

    def compute(pictures: list[tuple[torch.Tensor, ...]]) -> torch.Tensor:
        seen.append(len(pictures))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return torch.stack([each.mean()[None] for (each,) in pictures])

    items = [(each.target,) for each in samples]
    with pytest.raises(KeyboardInterrupt):
        bench.features("mean", items, lambda: compute)

    rows = bench.features("mean", items, lambda: compute)

    assert seen == [2, 1, 1] and len(rows) == 3 and len(np.unique(rows)) == 3


def test_features_do_not_depend_on_the_batch_size(
    samples: list[Sample], bench: Bench, weights: Path, tmp_path: Path
) -> None:
    with FeatureCache(tmp_path / "other") as cache:
        alone = Bench(cache, WeightPlaces(weights), batch_size=1)
        for kind in ("images", "stills"):
            rows = [
                ClipNetwork(each).images([s.target for s in samples], "published") if kind == "images"
                else EgoVlpNetwork(each).stills([(s.target,) for s in samples], "published")
                for each in (bench, alone)
            ]  # fmt: skip
            np.testing.assert_allclose(*rows, rtol=1e-4, atol=1e-5)


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "features.sqlite").write_bytes(b"this is no database, and long enough to be taken for one" * 40)

    with pytest.raises(LegoError, match=r"features\.sqlite cannot be used .*; remove it to compute the features anew"):
        FeatureCache(tmp_path)


def test_two_processes_may_share_a_cache(tmp_path: Path) -> None:
    with FeatureCache(tmp_path) as first, FeatureCache(tmp_path) as second:
        first.put({b"a": "one"})
        second.put({b"b": "two", b"a": "one"})

        assert first.texts([b"a", b"b", b"c"]) == {b"a": "one", b"b": "two"}
    with sqlite3.connect(tmp_path / "features.sqlite") as base:
        assert base.execute("SELECT COUNT(*) FROM features").fetchone() == (2,)
