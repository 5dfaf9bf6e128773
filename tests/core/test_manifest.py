"""`manifest.json` of an engine directory: what does not fit is refused with what to do about it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lego_core.config import LegoConfig
from lego_core.errors import LegoError
from lego_core.manifest import GRAPHS, DecoderSpec, GraphSpec, LatentSpec, Manifest, NoiseSchedule, TensorSpec


@pytest.fixture
def manifest() -> Manifest:
    graph = {
        name: GraphSpec(
            f"{name}.onnx", hashlib.sha256(b"graph").hexdigest(),
            (TensorSpec("input", "float32", ("batch", 3, 64)),), (TensorSpec("output", "float32", ("batch", 4)),),
        )
        for name in GRAPHS
    }  # fmt: skip
    return Manifest(
        lego=LegoConfig(name="test"), schedule=NoiseSchedule(prediction_type="v_prediction"),
        decoder=DecoderSpec(2, 4, 8, 32, 1, 2), latent=LatentSpec(4, 8, 0.18215), context_width=16,
        text_pad_token_id=2, text_bos_token_id=1, text_eos_token_id=2, precision="fp32", opset=23,
        checkpoint_fingerprint="abcdef0123456789", graphs=graph,
        files={"vllm_tokenizer.json": hashlib.sha256(b"words").hexdigest()}, tool_versions={"torch": "2"},
        parity={"unet": {"max_abs_error": 1e-6, "mean_abs_error": 1e-7, "max_abs_value": 1.0}},
    )  # fmt: skip


@pytest.fixture
def directory(manifest: Manifest, tmp_path: Path) -> Path:
    for name in GRAPHS:
        (tmp_path / f"{name}.onnx").write_bytes(b"graph")
    (tmp_path / "vllm_tokenizer.json").write_bytes(b"words")
    manifest.save(tmp_path)
    return tmp_path


def change(directory: Path, **values: Any) -> None:
    path = directory / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_decoder_without_layers_is_refused() -> None:
    with pytest.raises(LegoError, match="layers is 0; it must lie between 1 and"):
        DecoderSpec(0, 4, 8, 32, 1, 2)


def test_a_saved_manifest_comes_back_equal(directory: Path, manifest: Manifest) -> None:
    assert Manifest.load(directory) == manifest


def test_a_manifest_nested_too_deeply_is_refused(directory: Path) -> None:
    (directory / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(LegoError, match=r"is not a valid manifest \(it is nested too deeply\): rebuild it"):
        Manifest.load(directory)


def test_the_model_version_is_name_and_short_fingerprint(manifest: Manifest) -> None:
    assert manifest.model_version == "test-abcdef012345"


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LegoError, match=r"not an engine directory: it has no manifest\.json"):
        Manifest.load(tmp_path)


def test_a_checkpoint_is_recognised(tmp_path: Path) -> None:
    LegoConfig(name="test").save(tmp_path)

    with pytest.raises(LegoError, match="is a checkpoint: build engines of it with lego-export build"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format_version": 1}, "format_version is 1, this software reads 2"),
        ({"surprise": 1}, "surprise"),
        ({"decoder": {"layers": 2}}, "not a valid manifest"),
        ({"decoder": None}, "not a valid manifest"),
        ({"schedule": {"train_timesteps": 0}}, "train_timesteps is 0; it must lie between 1 and 100000"),
        ({"schedule": {"beta_end": float("nan")}}, "beta_end is nan"),
        ({"latent": {"channels": 4, "factor": 8, "scaling_factor": 0}}, "scaling_factor is 0"),
        ({"latent": {"channels": 4, "factor": 0, "scaling_factor": 1}}, "factor is 0"),
        ({"context_width": "16"}, "context_width is '16'; it must be a whole number"),
        ({"text_eos_token_id": [2, 3]}, r"text_eos_token_id is \[2, 3\]; it must be a whole number"),
        ({"checkpoint_fingerprint": None}, "checkpoint_fingerprint is None"),
        ({"lego": {"format_version": 1, "name": "x", "resolution": 1}}, "resolution is 1"),
        ({"schedule": {"prediction_type": "sample"}}, "prediction_type is 'sample'; choose one of epsilon"),
        ({"files": ["unet.onnx"]}, r"files is \['unet.onnx'\]; it must give a text for each name"),
        ({"tool_versions": {"torch": 2}}, "tool_versions is {'torch': 2}"),
        ({"parity": {"unet": 3}}, "parity of unet is 3; it must give max_abs_error"),
        ({"parity": [3]}, "not a valid manifest"),
        ({"graphs": {}}, "lists no graph text_encoder"),
        ({"graphs": {"unet": {"file": "unet.onnx"}}}, "lacks the key 'sha256'"),
    ],
)
def test_what_is_wrong_is_named_and_the_cure_is_to_rebuild(
    directory: Path, values: dict[str, Any], message: str
) -> None:
    change(directory, **values)

    with pytest.raises(LegoError, match=f"(?s){message}.*rebuild"):
        Manifest.load(directory)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b"null"])
def test_a_damaged_manifest_is_refused(directory: Path, content: bytes) -> None:
    (directory / "manifest.json").write_bytes(content)

    with pytest.raises(LegoError, match="rebuild it with lego-export build"):
        Manifest.load(directory)


def test_a_missing_graph_file_is_named(directory: Path) -> None:
    (directory / "unet.onnx").unlink()

    with pytest.raises(LegoError, match=r"lacks the graph file unet\.onnx: rebuild"):
        Manifest.load(directory)


@pytest.mark.parametrize("file", ["../unet.onnx", "/etc/hostname", ".."])
def test_graph_files_lie_in_the_directory_itself(directory: Path, file: str) -> None:
    graphs = json.loads((directory / "manifest.json").read_text())["graphs"]
    graphs["unet"]["file"] = file
    change(directory, graphs=graphs)

    with pytest.raises(LegoError, match="lacks the graph file"):
        Manifest.load(directory)


def test_untouched_files_pass(directory: Path, manifest: Manifest) -> None:
    manifest.check_content(directory)


@pytest.mark.parametrize("name", ["unet.onnx", "vllm_tokenizer.json"])
def test_an_altered_file_is_named(directory: Path, manifest: Manifest, name: str) -> None:
    (directory / name).write_bytes(b"other")

    with pytest.raises(LegoError, match=rf"{name} is not the file its manifest describes"):
        manifest.check_content(directory)


def test_a_missing_file_is_named(directory: Path, manifest: Manifest) -> None:
    (directory / "vllm_tokenizer.json").unlink()

    with pytest.raises(LegoError, match=r"lacks vllm_tokenizer\.json: restore it"):
        manifest.check_content(directory)


def test_a_manifest_cannot_have_files_outside_read(directory: Path, manifest: Manifest) -> None:
    with pytest.raises(LegoError, match="which lies outside: do not use it"):
        replace(manifest, files={"../secret": "0"}).check_content(directory)


def test_a_dtype_that_no_graph_has_is_refused() -> None:
    with pytest.raises(LegoError, match="tensor pixels is of dtype 'float31'; choose one of float32"):
        TensorSpec("pixels", "float31", (1,))
