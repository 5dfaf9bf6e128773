"""Weights are stored once: graphs point into the checkpoint's own safetensors files.

ONNX keeps large tensors outside the graph as (file, offset, length) of raw little-endian bytes. A safetensors file is
exactly that: eight bytes of header length, a JSON header, raw tensors. So an engine directory needs no second copy of
the weights, and one built inside its checkpoint directory adds only small graph files.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import torch
from lego_core.errors import LegoError
from lego_model.checkpoint import PARTS, LegoCheckpoint
from lego_model.student import STUDENT
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

Precision = Literal["fp16", "fp32"]
_TORCH_DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
_NAMES = {"F16": "fp16", "BF16": "bf16", "F32": "fp32", "U8": "int8"}
_IR_DTYPES = {
    "F16": ir.DataType.FLOAT16,
    "BF16": ir.DataType.BFLOAT16,
    "F32": ir.DataType.FLOAT,
    "U8": ir.DataType.UINT8,
}
_FLOATS = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT)
QUANTISED = "int8"  # the engine directory's folder of weights that no checkpoint has

# Below this a reference with its Cast takes about as much room in the graph as the numbers themselves.
_SMALLEST_SHARED_BYTES = 256


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor's bytes lie.

    Attributes:
        key: Its name in the safetensors file.
        file: Path of that file relative to the engine directory.
        offset: Of the first byte, from the beginning of the file.
        length: In bytes.
        dtype: In safetensors' words: "F16", "BF16", "F32" or "U8".
        shape: Its dimensions.
    """

    key: str
    file: Path
    offset: int
    length: int
    dtype: str
    shape: tuple[int, ...]


def weight_files(checkpoint: Path, parts: Sequence[str] = (*PARTS, STUDENT, QUANTISED)) -> list[Path]:
    """Returns the safetensors files of some parts, relative to the checkpoint or engines, in a fixed order."""
    paths = [path for part in parts for path in sorted((checkpoint / part).glob("*.safetensors"))]
    return [path.relative_to(checkpoint) for path in paths]


def read_header(directory: Path, file: Path) -> list[StoredTensor]:
    """Returns the tensors of a safetensors file that are weights: floating-point, or eight bits wide.

    Raises:
        LegoError: Not a safetensors file.
    """
    try:
        with (directory / file).open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(length))
    except ValueError as error:
        raise LegoError(f"{directory / file} is not a safetensors file ({error}); restore the checkpoint") from error
    header.pop("__metadata__", None)
    return [
        StoredTensor(
            key, file, 8 + length + entry["data_offsets"][0], entry["data_offsets"][1] - entry["data_offsets"][0],
            entry["dtype"], tuple(entry["shape"]),
        )
        for key, entry in header.items() if entry["dtype"] in _IR_DTYPES
    ]  # fmt: skip


def stored_precision(directory: Path, *parts: str) -> str:
    """Returns how a checkpoint or engine directory stores its weights: "fp16", or several such as "fp16+int8".

    The scales that go with int8 weights are not counted.

    Args:
        directory: The directory.
        parts: Only these of its parts; all, if there are none.
    """
    files = weight_files(directory, parts) if parts else weight_files(directory)
    dtypes = {
        "U8" if file.parts[0] == QUANTISED else tensor.dtype
        for file in files
        for tensor in read_header(directory, file)
    }
    return "+".join(sorted(_NAMES[dtype] for dtype in dtypes))


def staged_bytes(checkpoint: Path, precision: Precision | None, linked: bool) -> int:
    """Returns how many bytes `stage_weights` writes: none for a file that is linked.

    Args:
        checkpoint: Where the weights are.
        precision: As `stage_weights` takes it.
        linked: Whether unchanged files are hard links; where the file system has none, they are copied after all.
    """
    total = 0
    for file in weight_files(checkpoint):
        tensors = read_header(checkpoint, file)
        if precision is not None and _changes(tensors, precision):
            total += sum(math.prod(each.shape) for each in tensors) * _TORCH_DTYPES[precision].itemsize
        elif not linked:
            total += (checkpoint / file).stat().st_size
    return total


def stage_weights(checkpoint: Path, directory: Path, precision: Precision | None, link: bool) -> None:
    """Puts the checkpoint's weight files into a directory under the same relative paths.

    Args:
        checkpoint: Where they are.
        directory: Where they shall be.
        precision: How they shall be stored; None keeps every file as it is.
        link: Hard-link unchanged files, where the file system can, instead of copying them.
    """
    for file in weight_files(checkpoint):
        target = directory / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if precision is not None and _changes(read_header(checkpoint, file), precision):
            tensors = {
                key: tensor.to(_TORCH_DTYPES[precision]) if tensor.is_floating_point() else tensor
                for key, tensor in load_file(checkpoint / file).items()
            }
            save_weights(tensors, target)
        elif not (link and _linked(checkpoint / file, target)):
            shutil.copyfile(checkpoint / file, target)


def save_weights(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Writes a safetensors file that whoever may look into its folder may read: a server runs as another user."""
    save_file(tensors, path)
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors gives it to nobody but its owner


@torch.no_grad()
def round_weights(checkpoint: LegoCheckpoint, precision: Precision) -> None:
    """Rounds the modules' weights to what will be stored, so that every one of them is found again in the files."""
    for part in PARTS:
        module: torch.nn.Module = getattr(checkpoint, part)
        for value in module.state_dict().values():
            # One that has this precision already may be mapped from its file: writing would take it into memory.
            if value.is_floating_point() and value.dtype != _TORCH_DTYPES[precision]:
                value.copy_(value.to(_TORCH_DTYPES[precision]))


class WeightIndex:
    """Finds stored tensors by their content: shape and every bit after widening to float32.

    Names would need a table per library version (transformers renames LLaVA's keys on loading); equal bits cannot be
    wrong. Only the parts a graph was made of are searched, so that one graph's zeros do not come from another's file.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._parts: dict[str, dict[str, StoredTensor]] = {}

    def find(self, values: NDArray[np.float32], parts: Sequence[str]) -> StoredTensor | None:
        """Returns the stored tensor equal to `values`, or None."""
        digest = _digest(values)
        for part in parts:
            if part not in self._parts:
                self._parts[part] = dict(self._read(part))
            if digest in self._parts[part]:
                return self._parts[part][digest]
        return None

    def _read(self, part: str) -> Iterator[tuple[str, StoredTensor]]:
        for file in weight_files(self._directory, (part,)):
            data = np.memmap(self._directory / file, np.uint8, "r")
            for tensor in read_header(self._directory, file):
                raw = data[tensor.offset : tensor.offset + tensor.length]
                yield _digest(_widen(raw, tensor.dtype).reshape(tensor.shape)), tensor


def share_weights(model: ir.Model, index: WeightIndex, parts: Sequence[str]) -> None:
    """Makes every initializer that is stored in a weight file a reference to it.

    Half-precision weights of a network that computes in float32 are widened by a Cast in the graph, and the exporter's
    transposed weights of linear layers are transposed there. onnxruntime folds both away at load, so inference costs
    the same as with plain weights.

    Args:
        model: Changed in place.
        index: Of the engine directory's weight files.
        parts: Checkpoint folders the graph was made of.
    """
    graph = model.graph
    references: dict[str, ir.Value] = {}
    widened: list[ir.Node] = []
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype not in _FLOATS or tensor.nbytes < _SMALLEST_SHARED_BYTES:
            continue
        values = tensor.numpy().astype(np.float32, copy=False)
        stored, transposed = index.find(values, parts), False
        if stored is None and values.ndim == 2:
            stored, transposed = index.find(values.T, parts), True
        if stored is None:
            continue
        result = shared = references.setdefault(reference_name(stored), reference(stored))
        if _IR_DTYPES[stored.dtype] != tensor.dtype:
            widened.append(ir.node("Cast", [result], {"to": ir.DataType.FLOAT.value}, name=f"widen.{name}"))
            result = widened[-1].outputs[0]
        if transposed:
            widened.append(ir.node("Transpose", [result], {"perm": [1, 0]}, name=f"transpose.{name}"))
            result = widened[-1].outputs[0]
        del graph.initializers[name]
        value.replace_all_uses_with(result)
        if result is not shared:
            result.name = name
    for shared in references.values():
        graph.register_initializer(shared)
    graph.insert_before(graph[0], widened)


def _changes(tensors: Sequence[StoredTensor], precision: Precision) -> bool:
    return any(_NAMES[tensor.dtype] != precision for tensor in tensors)


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        return False
    return True


def reference_name(stored: StoredTensor) -> str:
    """Returns what a graph calls a stored tensor."""
    return f"{stored.file.parent.as_posix()}/{stored.key}"  # "unet/conv_in.weight": like no name of the exporter's


def reference(stored: StoredTensor) -> ir.Value:
    """Returns a new reference to a stored tensor, to be registered with a graph."""
    name, dtype, shape = reference_name(stored), _IR_DTYPES[stored.dtype], ir.Shape(stored.shape)
    tensor = ir.ExternalTensor(stored.file.as_posix(), stored.offset, stored.length, dtype, shape=shape, name=name)
    return ir.Value(name=name, shape=shape, type=ir.TensorType(dtype), const_value=tensor)


def _widen(raw: NDArray[np.uint8], dtype: str) -> NDArray[np.float32]:
    if dtype == "F16":
        return raw.view("<f2").astype(np.float32)
    if dtype == "BF16":  # the upper half of a float32
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return raw.view("<f4")


def _digest(values: NDArray[np.float32]) -> str:
    digest = hashlib.sha256(repr(values.shape).encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
