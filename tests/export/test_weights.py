"""Weights are stored once, in the checkpoint's own files, and read from there exactly."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from lego_core.errors import LegoError
from lego_core.manifest import CACHE_GRAPH, GRAPHS, STUDENT_GRAPHS
from lego_export.build import build_engines
from lego_export.parity import open_session
from lego_export.student_graph import read_adapter, student_graph
from lego_export.weights import (
    Precision,
    WeightIndex,
    read_header,
    reference_name,
    share_weights,
    stage_weights,
    stored_precision,
    weight_files,
)
from safetensors.numpy import load_file, save_file

ALL_GRAPHS = (*GRAPHS, CACHE_GRAPH, *STUDENT_GRAPHS)


def test_no_weight_of_any_size_stays_inside_a_graph(built) -> None:
    for graph in ALL_GRAPHS:
        model = onnx.load(str(built.engines / f"{graph}.onnx"), load_external_data=False)
        inside = [t for t in model.graph.initializer if t.data_location != onnx.TensorProto.EXTERNAL]
        assert sum(t.ByteSize() for t in inside) < 12_000, graph


def test_references_are_half_precision_and_equal_the_checkpoints_tensors(built) -> None:
    model = onnx.load(str(built.engines / "unet.onnx"), load_external_data=False)
    stored = load_file(built.checkpoint / "unet/diffusion_pytorch_model.safetensors")
    references = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    assert len(references) > 30
    for tensor in references:
        onnx.external_data_helper.load_external_data_for_tensor(tensor, str(built.engines))
        values = onnx.numpy_helper.to_array(tensor)
        assert values.dtype == np.float16
        np.testing.assert_array_equal(values, stored[tensor.name.removeprefix("unet/")])


def test_engine_directory_holds_the_weight_files_under_their_own_paths(built) -> None:
    assert weight_files(built.engines) == weight_files(built.checkpoint)
    for file in weight_files(built.checkpoint):
        assert (built.engines / file).read_bytes() == (built.checkpoint / file).read_bytes()


def test_linked_weights_take_no_room(built, tmp_path: Path) -> None:
    stage_weights(built.checkpoint, tmp_path / "engines", None, link=True)
    for file in weight_files(built.checkpoint):
        assert (tmp_path / "engines" / file).samefile(built.checkpoint / file)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_weights_are_stored_in_the_precision_asked_for(built, tmp_path: Path, precision: str) -> None:
    stage_weights(built.checkpoint, tmp_path, precision, link=False)
    assert stored_precision(tmp_path) == precision
    (tmp_path / "plain").touch()
    plain = (tmp_path / "plain").stat().st_mode
    assert all((tmp_path / file).stat().st_mode == plain for file in weight_files(tmp_path)), "a server may not read it"


def test_bfloat16_weights_are_found_too(tmp_path: Path) -> None:
    """A bfloat16 is the upper half of a float32."""
    values = np.arange(128, dtype=np.float32)
    half = (values.view(np.uint32) >> 16).astype(np.uint16)
    (tmp_path / "unet").mkdir()
    header = b'{"weight":{"dtype":"BF16","shape":[128],"data_offsets":[0,256]}}'
    content = len(header).to_bytes(8, "little") + header + half.tobytes()
    (tmp_path / "unet/model.safetensors").write_bytes(content)
    stored = WeightIndex(tmp_path).find(values, ("unet",))
    assert stored is not None and (stored.dtype, stored.offset) == ("BF16", 8 + len(header))


def test_a_tensor_that_differs_in_one_bit_is_not_shared(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 128, dtype=np.float32)
    (tmp_path / "unet").mkdir()
    save_file({"weight": values}, tmp_path / "unet/model.safetensors")
    values[5] = np.nextafter(values[5], 2, dtype=np.float32)
    assert WeightIndex(tmp_path).find(values, ("unet",)) is None


def test_a_transposed_weight_is_shared_and_transposed_back(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((24, 16)).astype(np.float16)
    (tmp_path / "unet").mkdir()
    save_file({"weight": weight}, tmp_path / "unet/model.safetensors")
    inside = np.ascontiguousarray(weight.astype(np.float32).T)
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
            "g",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 16])],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 24])],
            [onnx.numpy_helper.from_array(inside, "w")],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 23)],
    )
    shared = ir.from_proto(model)
    share_weights(shared, WeightIndex(tmp_path), ("unet",))
    (tmp_path / "g.onnx").write_bytes(ir.to_proto(shared).SerializeToString())
    x = np.ones((2, 16), np.float32)
    found = open_session(tmp_path / "g.onnx", threads=1).run(None, {"x": x})[0]
    np.testing.assert_allclose(found, x @ inside, rtol=1e-5)


def test_offsets_point_at_the_tensors_of_the_file(built) -> None:
    file = Path("conditioner/diffusion_pytorch_model.safetensors")
    content = (built.checkpoint / file).read_bytes()
    tensors = load_file(built.checkpoint / file)
    header = read_header(built.checkpoint, file)
    assert {entry.key for entry in header} == set(tensors)
    for entry in header:
        assert content[entry.offset : entry.offset + entry.length] == tensors[entry.key].tobytes()


def test_float32_engines_of_a_half_precision_checkpoint_give_the_same_numbers(built, samples, tmp_path: Path) -> None:
    graph = build_first_graph(built.checkpoint, tmp_path, "fp32")
    assert stored_precision(graph.parent) == "fp32"
    feeds = samples.feeds("text_encoder", 2)[0]
    results = [
        open_session(path, threads=1).run(None, feeds)[0] for path in (built.engines / "text_encoder.onnx", graph)
    ]
    np.testing.assert_array_equal(*results)


def test_half_precision_engines_of_a_float32_checkpoint_share_every_weight(built, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(built.checkpoint, checkpoint)
    for file in weight_files(checkpoint):
        tensors = load_file(checkpoint / file)
        # no longer representable in half precision
        wide = {
            key: value.astype(np.float32) * np.float32(1.0001) for key, value in tensors.items() if value.dtype == "f2"
        }
        save_file(wide, checkpoint / file, metadata={"format": "pt"})
    graph = build_first_graph(checkpoint, tmp_path, "fp16")
    assert stored_precision(graph.parent) == "fp16"
    assert graph.stat().st_size == (built.engines / "text_encoder.onnx").stat().st_size


def build_first_graph(checkpoint: Path, folder: Path, precision: Precision) -> Path:
    """Builds engines as far as the text encoder and returns its file, beside the weights it refers to."""
    engines, kept = folder / "engines", folder / "kept"

    def stop_at_the_second(graph: str) -> None:
        if graph == GRAPHS[1]:
            shutil.copytree(next(engines.glob(".building-*")), kept)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engines(checkpoint, engines, weights=precision, announce=stop_at_the_second)
    return kept / "text_encoder.onnx"


def test_a_student_that_changes_what_the_unet_does_not_have_is_refused(built, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(built.engines, tmp_path / "engines"))
    adapter = copy / "student" / "pytorch_lora_weights.safetensors"
    save_file({**load_file(adapter), "conv_up.lora_A.weight": np.zeros((1, 1), np.float16)}, adapter)

    with pytest.raises(LegoError, match=r"changes conv_up\.lora_A\.weight, which the U-Net does not have"):
        read_adapter(copy)


def test_the_students_graphs_together_have_all_of_its_changes(built) -> None:
    adapter = read_adapter(built.engines)
    changed = set()
    for name in ("keys_values", "unet"):
        model = ir.load(built.engines / f"{name}.onnx")
        before = ir.to_proto(model).SerializeToString(deterministic=True)
        outputs = [value.name for value in model.graph.outputs if value.name != "deep_features"]
        student = student_graph(model, adapter, outputs).graph
        assert [value.name for value in student.outputs] == outputs
        found = set(student.initializers)
        assert ir.to_proto(model).SerializeToString(deterministic=True) == before  # the U-Net's own is left as it was
        changed |= found
    factors = {reference_name(factor) for change in adapter.values() for factor in (change.down, change.up)}
    assert factors <= changed
