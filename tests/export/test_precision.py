"""Graphs compute in the precision that is asked for, where it is asked for, and say what that costs."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from lego_core.errors import LegoError
from lego_core.manifest import GraphPrecision, Manifest, TensorSpec
from lego_export.build import build_engines
from lego_export.cli import main
from lego_export.graphs import GraphDefinition
from lego_export.inspect import inspect_engines
from lego_export.islands import choose_islands, island_classes, measure_peaks
from lego_export.parity import open_session
from lego_export.precision import infer_types, lower, spell_out
from lego_export.samples import synthetic_frame
from lego_export.verify import verify_engines
from lego_export.weights import read_header, reference
from lego_model.checkpoint import fingerprint
from lego_server.engines import load_engine
from PIL import Image
from safetensors.numpy import save_file
from torch import Tensor, nn

HALF_MIN = float(np.finfo(np.float16).min)


class Graph:
    """Puts a small float32 graph together by hand."""

    def __init__(self, **inputs: list[int | str]) -> None:
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self.inputs = {
            name: ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
            for name, shape in inputs.items()
        }

    def constant(self, name: str, numbers: Any, dtype: type = np.float32) -> ir.Value:
        tensor = ir.tensor(np.array(numbers, dtype), name=name)
        self.initializers.append(
            ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        )
        return self.initializers[-1]

    def add(self, name: str, operator: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        self.nodes.append(ir.node(operator, inputs, attributes, name=name))
        self.nodes[-1].outputs[0].name = f"{name}.out"
        return self.nodes[-1].outputs[0]

    def model(self, result: ir.Value) -> ir.Model:
        result.name, result.type = "result", ir.TensorType(ir.DataType.FLOAT)
        graph = ir.Graph(
            list(self.inputs.values()), [result], nodes=self.nodes, initializers=self.initializers,
            opset_imports={"": 23}, name="hand-made",
        )  # fmt: skip
        return ir.Model(graph, ir_version=10)


def run(model: ir.Model, **feeds: np.ndarray) -> np.ndarray:
    return open_session(ir.to_proto(model).SerializeToString(), threads=1).run(None, feeds)[0]


def types(model: ir.Model) -> dict[str, str]:
    """Returns the type of each node's first output, by the node's name."""
    graph = ir.from_proto(infer_types(ir.to_proto(model))).graph
    return {str(node.name): str(node.outputs[0].dtype) for node in graph}


def chain() -> ir.Model:
    """x * 1000 -> + 1 -> * 0.001: too large for float16 in the middle, if x is 100."""
    graph = Graph(x=[3])
    value = graph.add("grow", "Mul", graph.inputs["x"], graph.constant("thousand", 1000.0))
    value = graph.add("shift", "Add", value, graph.constant("one", 1.0))
    return graph.model(graph.add("shrink", "Mul", value, graph.constant("thousandth", 0.001)))


def casts(model: ir.Model) -> list[tuple[str, int]]:
    return [
        (str(node.inputs[0].name), node.attributes["to"].as_int()) for node in model.graph if node.op_type == "Cast"
    ]


def test_everything_but_islands_computes_in_half_precision_and_casts_stand_at_the_borders() -> None:
    lowered = lower(chain(), "fp16", islands={"shift"})
    computed = types(lowered)
    assert (computed["grow"], computed["shift"], computed["shrink"]) == ("FLOAT16", "FLOAT", "FLOAT16")
    to_half, to_single = ir.DataType.FLOAT16.value, ir.DataType.FLOAT.value
    assert sorted(casts(lowered)) == sorted(
        [("x", to_half), ("grow.out", to_single), ("shift.out", to_half), ("result.inner", to_single)]
    )


def test_an_island_keeps_what_half_precision_would_round_away() -> None:
    graph = Graph(x=[1])
    one = graph.constant("one", 1.0)
    large = graph.add("raise", "Add", graph.inputs["x"], graph.constant("large", 4096.0))
    large = graph.add("again", "Add", large, one)
    model = graph.model(graph.add("lower", "Sub", large, graph.constant("same", 4096.0)))
    zero = np.zeros(1, np.float32)
    assert run(spell_out(lower(model, "fp16")), x=zero) == 0
    assert run(spell_out(lower(model, "fp16", islands={"raise", "again", "lower"})), x=zero) == 1


def test_a_value_is_cast_once_however_many_use_it() -> None:
    graph = Graph(x=[2])
    x = graph.inputs["x"]
    model = graph.model(graph.add("sum", "Add", graph.add("a", "Exp", x), graph.add("b", "Neg", x)))
    assert Counter(name for name, _ in casts(lower(model, "fp16")))["x"] == 1


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_stored_half_precision_weights_take_no_detour_over_float32(precision: Any) -> None:
    graph = Graph(x=["batch", 2])
    stored = graph.constant("stored", [[1.0, 2.0], [3.0, 4.0]], np.float16)
    weight = graph.add("turn", "Transpose", graph.add("widen", "Cast", stored, to=ir.DataType.FLOAT.value), perm=[1, 0])
    lowered = lower(graph.model(graph.add("product", "MatMul", graph.inputs["x"], weight)), precision)
    assert ("stored", ir.DataType.FLOAT.value) not in casts(lowered)
    assert ("stored" in dict(casts(lowered))) == (precision == "bf16")
    assert types(lowered)["turn"] == {"fp16": "FLOAT16", "bf16": "BFLOAT16"}[precision]


def test_roundings_that_onnxruntime_drops_are_spelled_out() -> None:
    x = np.array([1 / 3, 1, 100], np.float32)
    lowered = lower(chain(), "fp16")
    hidden, shown = run(lowered, x=x), run(spell_out(lowered), x=x)
    half = np.float16
    with np.errstate(over="ignore"):
        expected = (half(x) * half(1000) + half(1)) * half(0.001)
    assert np.array_equal(shown, expected.astype(np.float32))
    assert np.isinf(shown[2])
    assert np.isfinite(hidden[2]), "onnxruntime rounds where the graph says by now: measure without spell_out"


def test_spelled_out_bfloat16_is_bfloat16() -> None:
    x = np.array([1 / 3, 1, 100], np.float32)
    brain = ml_dtypes.bfloat16
    expected = (x.astype(brain) * brain(1000) + brain(1)) * brain(0.001)
    assert np.array_equal(run(spell_out(lower(chain(), "bf16")), x=x), expected.astype(np.float32))


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
def test_no_optimisation_removes_a_rounding_that_is_spelled_out(level: str) -> None:
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    content = ir.to_proto(spell_out(lower(chain(), "fp16"))).SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    assert np.isinf(session.run(None, {"x": np.array([1, 1, 100], np.float32)})[0][2])


def attention() -> ir.Model:
    graph = Graph(q=[1, 1, 2, 4], mask=[1, 1, 2, 2])
    q = graph.inputs["q"]
    return graph.model(graph.add("attention", "Attention", q, q, q, graph.inputs["mask"]))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_mask_of_the_lowest_float32_drops_and_stays_finite(precision: Any) -> None:
    q = np.random.default_rng(0).standard_normal((1, 1, 2, 4), np.float32)
    lowest = np.finfo(np.float32).min
    # The first row may look at the first token only; the second row is all masked, as padding is.
    mask = np.array([[[[0, lowest], [lowest, lowest]]]], np.float32)
    lowered = lower(attention(), precision)
    found = run(spell_out(lowered), q=q, mask=mask)
    assert np.isfinite(found).all()
    assert found[0, 0, 0] == pytest.approx(q[0, 0, 0], rel=1e-2)
    assert [node.attributes["softmax_precision"].as_int() for node in lowered.graph if node.op_type == "Attention"] == [
        ir.DataType.FLOAT.value
    ]


def test_a_mask_that_the_graph_makes_of_constants_stays_finite_too() -> None:
    graph = Graph(q=[1, 1, 2, 4], seen=[2, 2])
    q, zero = graph.inputs["q"], graph.constant("zero", 0.0)
    keep = graph.add("keep", "Greater", graph.inputs["seen"], zero)
    mask = graph.add("mask", "Where", keep, zero, graph.constant("drop", np.finfo(np.float32).min))
    lowered = lower(graph.model(graph.add("attention", "Attention", q, q, q, mask)), "fp16")
    numbers, seen = np.ones((1, 1, 2, 4), np.float32), np.zeros((2, 2), np.float32)
    assert np.array_equal(run(spell_out(lowered), q=numbers, seen=seen), numbers)
    constant = lowered.graph.initializers["drop.float16"].const_value
    assert constant is not None and HALF_MIN <= float(constant.numpy()) < HALF_MIN / 4


def test_another_constant_that_half_precision_cannot_hold_is_refused_by_name() -> None:
    graph = Graph(x=[1])
    model = graph.model(graph.add("grow", "Mul", graph.inputs["x"], graph.constant("million", 1e6)))
    with pytest.raises(LegoError, match=r"constant million holds 1e\+06, and fp16 ends at 65504: .* must be islands"):
        lower(model, "fp16")
    lower(model, "bf16")
    lower(model, "fp16", islands={"grow"})


def test_inputs_that_onnx_fixes_to_float32_or_integers_stay_as_they_are() -> None:
    graph = Graph(x=[1, 1, 2, 2])
    nothing = graph.constant("nothing", [])
    scales = graph.constant("scales", [1, 1, 2, 2])
    larger = graph.add("resize", "Resize", graph.inputs["x"], nothing, scales, mode="nearest")
    model = graph.model(graph.add("pick", "Gather", larger, graph.constant("places", [0, 3], np.int64), axis=3))
    lowered = lower(model, "fp16")
    computed = types(lowered)
    assert (computed["resize"], computed["pick"]) == ("FLOAT16", "FLOAT16")
    assert lowered.graph.initializers["scales"].dtype == ir.DataType.FLOAT
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    assert np.array_equal(run(spell_out(lowered), x=x), run(model, x=x))


def test_an_operator_that_onnx_does_not_define_in_half_precision_stays_in_float32() -> None:
    graph = Graph(x=[])
    steps = graph.add("steps", "Range", graph.constant("from", 0.0), graph.inputs["x"], graph.constant("by", 1.0))
    computed = types(lower(graph.model(graph.add("double", "Add", steps, steps)), "fp16"))
    assert (computed["steps"], computed["double"]) == ("FLOAT", "FLOAT16")


def test_inputs_and_outputs_have_the_types_that_are_asked_for() -> None:
    x, result = TensorSpec("x", "float16", (3,)), TensorSpec("result", "float16", (3,))
    for lowered, expected in (
        (lower(chain(), "fp16"), ir.DataType.FLOAT),
        (lower(chain(), "fp16", inputs=[x], outputs=[result]), ir.DataType.FLOAT16),
    ):
        assert [value.dtype for value in (*lowered.graph.inputs, *lowered.graph.outputs)] == [expected, expected]
        assert [value.name for value in (*lowered.graph.inputs, *lowered.graph.outputs)] == ["x", "result"]
    assert casts(lowered) == []


class Overflowing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * 1000 + 1) * 0.001


def test_a_number_beyond_float16_on_real_inputs_is_found_and_cured(tmp_path: Path) -> None:
    feeds = [{"x": np.array([1, -20, 100], np.float32)}]
    peaks = measure_peaks(chain(), feeds, tmp_path)
    assert peaks["grow.out"].value == 100_000 and peaks["result"].value == pytest.approx(100.001)
    spec = GraphDefinition(Overflowing(), (TensorSpec("x", "float32", (3,)),), (TensorSpec("y", "float32", (3,)),), ())
    lowered, found = choose_islands(chain(), "fp16", spec, feeds, tmp_path)
    assert found.islands == ("near overflow",) and found.compute == "fp16"
    assert found.largest_activation == 1e5 and found.largest_activation_at in ("grow.out", "shift.out")
    assert found.error is not None and found.error <= 1e-3
    assert types(lowered)["grow"] == "FLOAT"
    # bfloat16 has float32's range.
    assert choose_islands(chain(), "bf16", spec, feeds, tmp_path)[1].islands == ()


def test_a_weight_beyond_float16_is_found_in_its_file(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    save_file({"million": np.array([1e6], np.float32)}, tmp_path / "unet" / "model.safetensors")
    (stored,) = read_header(tmp_path, Path("unet/model.safetensors"))
    graph = Graph(x=[3])
    graph.initializers.append(reference(stored))
    model = graph.model(graph.add("grow", "Mul", graph.inputs["x"], graph.initializers[0]))

    class Module(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 1e6

    feeds = [{"x": np.array([1e-6, 2e-6, 3e-6], np.float32)}]  # what is given and what comes out is small
    spec = GraphDefinition(Module(), (TensorSpec("x", "float32", (3,)),), (TensorSpec("y", "float32", (3,)),), ())
    assert choose_islands(model, "fp16", spec, feeds, tmp_path)[1].islands == ("near overflow",)


def test_a_class_of_nodes_becomes_an_island_where_that_lowers_the_error(tmp_path: Path) -> None:
    graph = Graph(x=[64])
    x = graph.inputs["x"]
    inner = graph.add("inner", "Tanh", x)
    large = graph.add("large", "Sub", inner, graph.constant("half", 0.5))
    model = graph.model(graph.add("outer", "Tanh", large))

    class Module(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(torch.tanh(x) - 0.5)

    feeds = [{"x": np.linspace(0.549, 0.5495, 64, dtype=np.float32)}]  # tanh is about 0.5: the difference cancels
    spec = GraphDefinition(Module(), (TensorSpec("x", "float32", (64,)),), (TensorSpec("y", "float32", (64,)),), ())
    assert island_classes(model.graph)["activations"] == {"inner", "outer"}
    lowered, found = choose_islands(model, "fp16", spec, feeds, tmp_path)
    assert found.error is not None and found.error_without_islands is not None
    assert found.error_without_islands > found.tolerance
    assert found.islands and found.error < found.error_without_islands
    if found.compute == "fp16":
        assert found.error <= found.tolerance
    else:
        assert found.islands == ("everything",) and set(types(lowered).values()) == {"FLOAT"}


@pytest.fixture(scope="module")
def half(built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    engines = tmp_path_factory.mktemp("half") / "fp16"
    build_engines(built.checkpoint, engines, precision="fp16")
    return Path(engines)


@pytest.fixture(scope="module")
def int8(built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    engines = tmp_path_factory.mktemp("quantised") / "int8"
    build_engines(built.checkpoint, engines, precision="int8", link=True)
    return Path(engines)


@pytest.fixture(params=["half", "int8"])
def reduced(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(request.param))


def test_engines_of_every_precision_pass_their_own_tolerances(built, reduced: Path) -> None:
    manifest = Manifest.load(reduced)
    assert manifest.least_psnr == 35 and reduced.name in manifest.precision
    assert any(each.compute == reduced.name for each in manifest.precisions.values())
    before = sorted(reduced.rglob("*"))
    verification = verify_engines(reduced, built.checkpoint, [synthetic_frame(1)], batches=(1, 2), threads=1)
    assert verification.failures == []
    assert sorted(reduced.rglob("*")) == before


def test_half_precision_engines_are_refused_on_a_cpu(half: Path) -> None:
    with pytest.raises(LegoError, match=r"computes in fp16 \(.*\), which is for GPUs: choose another --device, or"):
        load_engine(half, threads=1)


def test_a_manifest_keeps_what_was_measured(reduced: Path) -> None:
    manifest = Manifest.load(reduced)
    assert all(isinstance(each, GraphPrecision) for each in manifest.precisions.values())
    manifest.save(reduced)
    assert Manifest.load(reduced) == manifest


def test_int8_engines_store_each_weight_once_and_leave_the_checkpoint_they_link_to(built, int8: Path) -> None:
    manifest = Manifest.load(int8)
    assert manifest.precision == "fp16+int8 weights, int8 products"
    assert manifest.precision_of("decoder").compute == "int8" and manifest.precision_of("unet").compute == "fp32"
    manifest.check_content(int8)
    assert {tensor.dtype for tensor in _tensors(int8 / "int8/decoder.safetensors")} == {"U8", "F32"}
    assert not any("language_model" in each.key and "q_proj" in each.key for each in _tensors(int8 / "vllm"))
    assert any("language_model" in each.key and "q_proj" in each.key for each in _tensors(built.checkpoint / "vllm"))
    assert fingerprint(built.checkpoint) == built.manifest.checkpoint_fingerprint


def test_int8_graphs_take_as_many_operations_and_fewer_bytes(built, int8: Path) -> None:
    wide, narrow = (
        {(each.graph, each.call): each for each in inspect_engines(engines, run=engines == int8, threads=1)}
        for engines in (built.engines, int8)
    )
    assert {call: each.flops for call, each in narrow.items()} == {call: each.flops for call, each in wide.items()}
    assert narrow["decoder", "step"].weight_bytes < wide["decoder", "step"].weight_bytes
    assert all(each.seconds is not None and each.seconds > 0 for each in narrow.values())


def test_int8_of_a_large_language_model_is_refused_at_once(built, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("lego_export.build.INT8_NUMBERS", 1000)
    with pytest.raises(LegoError, match=r"vllm holds .* million numbers; int8 is for small models.*fp16 or bf16"):
        build_engines(built.checkpoint, tmp_path / "engines", precision="int8")
    assert not (tmp_path / "engines").exists()


def test_int8_in_place_is_refused(built) -> None:
    with pytest.raises(LegoError, match="has no int8 weights: choose another directory"):
        build_engines(built.checkpoint, built.checkpoint, precision="int8")


def test_fp16_in_place_of_fp32_weights_is_refused(built, tmp_path: Path) -> None:
    wide = tmp_path / "wide"
    shutil.copytree(built.checkpoint, wide)
    for file in wide.rglob("*.safetensors"):
        _widen(file)
    with pytest.raises(LegoError, match="stored as fp32: choose another directory for fp16 weights"):
        build_engines(wide, wide, precision="fp16")


def test_verify_fails_by_the_tolerances_in_the_manifest(built, half: Path) -> None:
    manifest = Manifest.load(half)
    strict = {name: replace(each, tolerance=1e-7) for name, each in manifest.precisions.items()}
    replace(manifest, precisions=strict, least_psnr=150.0).save(half)
    try:
        failures = verify_engines(half, built.checkpoint, [synthetic_frame(1)], batches=(1,), threads=1).failures
    finally:
        manifest.save(half)
    assert any(failure.startswith("graph unet at batch 1 is off by") for failure in failures)
    assert any("less than 150 dB" in failure for failure in failures)
    assert not any("write" in failure for failure in failures)


def test_compare_paints_a_grid_of_engines_under_the_same_words(
    built, half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "grid.png"
    arguments = ["compare", built.engines, half, "--checkpoint", built.checkpoint, "--out", out, "--threads", 1]
    monkeypatch.setattr("sys.argv", ["lego-export", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert not exit_.value.code
    printed = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    figures = {name: [float(each.removesuffix(" dB")) for each in text.split(", ")]
               for name, text in printed.items() if name != str(out)}  # fmt: skip
    assert set(figures) == {"engines", half.name}
    assert min(figures["engines"]) > min(figures[half.name]) > 35
    with Image.open(out) as grid:
        assert grid.width > 4 * 160 and grid.height > 2 * 160  # frame, torch and two engines by two frames


def _tensors(path: Path) -> list[Any]:
    from lego_export.weights import read_header

    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    return [tensor for file in files for tensor in read_header(file.parent, Path(file.name))]


def _widen(file: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file({k: v.float() if v.is_floating_point() else v for k, v in load_file(file).items()}, file)
