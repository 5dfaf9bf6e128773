"""Weight files of other programs, read lazily: names, shapes and types at once, each tensor's numbers when asked for.

Nothing in a file is ever executed: PyTorch files go through torch's restricted unpickler, which knows tensors and plain
containers only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lego_core.errors import LegoError
from safetensors import SafetensorError, safe_open
from torch import Tensor

_SAFETENSORS_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is still in its file.

    Attributes:
        shape: Its dimensions.
        dtype: Its type.
        load: Reads it.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], Tensor]

    @classmethod
    def of(cls, tensor: Tensor) -> LazyTensor:
        """Wraps a tensor that is in memory, or mapped from a file."""
        return cls(tuple(tensor.shape), tensor.dtype, lambda: tensor)

    def mapped(self, shape: tuple[int, ...], function: Callable[[Tensor], Tensor]) -> LazyTensor:
        """Returns what `function` will make of it, of another shape."""
        return LazyTensor(shape, self.dtype, lambda: function(self.load()))

    def reshaped(self, shape: tuple[int, ...]) -> LazyTensor:
        """Returns the same numbers in another shape."""
        return self.mapped(shape, lambda values: values.reshape(shape))


Tensors = dict[str, LazyTensor]


class _Ignored:
    """Stands for what Lightning stores beside the weights; nothing of it is read or run."""

    def __init__(self, *values: object) -> None:
        pass


# Lightning's checkpoints of the Stable Diffusion releases name its callback and NumPy scalars. Each is read as an inert
# stand-in, so that the weights beside them can be had without these libraries, or any code of theirs.
_STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Ignored, name)
    for name in (
        "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
        "numpy.core.multiarray.scalar",
        "numpy.dtype",
    )
]


def read_file(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Reads a .ckpt, .bin or .safetensors file, whatever its name.

    Returns:
        Its tensors, those under `state_dict` if it has one; and what else lies at its top level.

    Raises:
        LegoError: It is damaged, no weight file, or holds code.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise LegoError(f"{path} cannot be read ({error.strerror}); name a weight file") from error
    if start[:4] == b"PK\x03\x04":
        return _read_torch(path)
    if start[8:] == b"{":
        return _read_safetensors(path), {}
    if start[:1] == b"\x80":
        raise LegoError(
            f"{path} is a plain pickle, as torch before 1.6 wrote them; get the model as .safetensors, or load and "
            "save it once with a newer torch, if you trust it"
        )
    raise LegoError(f"{path} is no weight file: neither a PyTorch file (.ckpt, .bin) nor .safetensors")


def read_folder(directory: Path, stem: str) -> Tensors:
    """Reads one model's weights, in one file or in shards.

    Args:
        directory: Where they are.
        stem: The library's file name, such as "model" or "pytorch_model"; .safetensors is preferred to .bin.

    Raises:
        LegoError: There are none, a shard is missing, or a file is damaged.
    """
    for suffix in ("safetensors", "bin"):
        index = directory / f"{stem}.{suffix}.index.json"
        if index.is_file():
            return _read_shards(index)
        file = directory / f"{stem}.{suffix}"
        if file.is_file():
            return read_file(file)[0]
    raise LegoError(f"{directory} has no {stem}.safetensors or {stem}.bin; restore the folder")


def _read_shards(index: Path) -> Tensors:
    try:
        weight_map = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LegoError(f"{index} is no list of shards ({error!r}); restore the file") from error
    tensors: Tensors = {}
    for name in sorted(set(map(str, weight_map.values()))):
        if Path(name).name != name:
            raise LegoError(f"{index} names the shard {name!r}; shards lie beside their list: restore the file")
        if not (index.parent / name).is_file():
            raise LegoError(f"{index.parent} lacks the shard {name}; download it too")
        tensors |= read_file(index.parent / name)[0]
    absent = set(weight_map) - set(tensors)
    if absent:
        raise LegoError(f"the shards of {index} lack {listed(absent)}; restore the folder")
    return tensors


def _read_torch(path: Path) -> tuple[Tensors, dict[str, Any]]:
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except UnpicklingError as error:
        if "Unsupported operand" in str(error):
            raise LegoError(f"{path} is damaged; download it again") from error
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({named[1]})" if named else ""
        raise LegoError(
            f"{path} asks for code to be run on reading{what}: refused, and nothing of it was executed; get the model "
            "as .safetensors from its authors"
        ) from error
    except (RuntimeError, ValueError, EOFError, OSError, KeyError) as error:  # torch has no error type of its own
        raise LegoError(f"{path} is truncated or damaged; download it again") from error
    if not isinstance(content, dict):
        raise LegoError(f"{path} holds a {type(content).__name__} and no weights by name; give a checkpoint")
    state = content.get("state_dict", content)
    rest = {key: value for key, value in content.items() if key != "state_dict"} if state is not content else {}
    tensors = {}
    for key, value in state.items() if isinstance(state, dict) else ():
        if isinstance(key, str) and isinstance(value, Tensor) and value.layout == torch.strided:
            if value.is_meta:
                raise LegoError(f"{path}: {key} was saved without its numbers; get the file anew from its authors")
            if value.dtype not in _SAFETENSORS_DTYPES.values():
                raise LegoError(f"{path}: {key} is stored as {value.dtype}; give the model unquantised")
            tensors[key] = LazyTensor.of(value.detach())
    if not tensors:
        raise LegoError(f"{path} holds no weights by name; give a checkpoint")
    return tensors, rest


def _read_safetensors(path: Path) -> Tensors:
    try:
        file = safe_open(path, "pt")
        tensors = {}
        for key in file.keys():  # noqa: SIM118 - not a dict
            view = file.get_slice(key)
            dtype = _SAFETENSORS_DTYPES.get(view.get_dtype())
            if dtype is None:
                raise LegoError(f"{path}: {key} is stored as {view.get_dtype()}; give the model unquantised")
            tensors[key] = LazyTensor(tuple(view.get_shape()), dtype, partial(file.get_tensor, key))
    except (SafetensorError, OSError) as error:
        raise LegoError(f"{path} is truncated or damaged ({error}); download it again") from error
    return tensors


def match(found: Tensors, expected: dict[str, tuple[int, ...]], place: Path | str) -> None:
    """Compares names and shapes.

    Raises:
        LegoError: They differ; the message groups every difference.
    """
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    misshaped = [
        f"{key} {found[key].shape} instead of {shape}"
        for key, shape in expected.items() if key in found and found[key].shape != shape
    ]  # fmt: skip
    faults = [
        f"{text} {len(keys)} ({listed(keys)})"
        for text, keys in (("missing:", missing), ("unexpected:", unexpected), ("misshaped:", misshaped)) if keys
    ]  # fmt: skip
    if faults:
        raise LegoError(f"{place} does not hold the tensors of such a model; {'; '.join(faults)}; restore the file")


def listed(keys: list[str] | set[str], most: int = 12) -> str:
    """Returns names as text, a long list cut with a count."""
    names = sorted(keys)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
