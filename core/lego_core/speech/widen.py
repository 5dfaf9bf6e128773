"""Makes a model in onnxruntime's own format (.ort) as fast as one in ONNX.

An .ort file is run as it is. One whose weights are stored in eight bits widens all of them again for every token. The
same graph read as ONNX is optimised first, and widens them once: Moonshine base then takes a quarter of the time.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime as ort
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
# What is needed of onnx.proto to reach the graphs within graphs; protobuf passes all other fields on untouched.
_MESSAGES: dict[str, list[tuple[str, int, str | None, bool]]] = {
    "Model": [("graph", 7, "Graph", False)],
    "Graph": [("node", 1, "Node", True), ("name", 2, None, False)],
    "Node": [("attribute", 5, "Attribute", True)],
    "Attribute": [("g", 6, "Graph", False)],
}


def widened(path: Path) -> bytes:
    """Returns an .ort model as ONNX, which onnxruntime then reads and optimises.

    Args:
        path: The .ort file, below 2 GB.
    """
    with tempfile.TemporaryDirectory(prefix="lego-speech-") as folder:
        written = Path(folder) / "model.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        options.optimized_model_filepath = str(written)
        options.add_session_config_entry("session.save_model_format", "ONNX")
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        model = _model_class().FromString(written.read_bytes())
    _name(model.graph, "graph")
    data: bytes = model.SerializeToString()
    return data


def _name(graph: Any, name: str) -> None:
    """An .ort file has no names of the graphs within graphs, and ONNX wants one of each."""
    graph.name = graph.name or name
    for number, node in enumerate(graph.node):
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _name(attribute.g, f"{name}.{number}")


@cache
def _model_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="lego/onnx_names.proto", package="lego.onnx_names", syntax="proto2")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for field, number, of, repeated in fields:
            described.field.add(
                name=field, number=number, label=_FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL,
                type=_FIELD.TYPE_MESSAGE if of else _FIELD.TYPE_STRING,
                type_name=f".lego.onnx_names.{of}" if of else None,
            )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("lego.onnx_names.Model"))
