"""Reads weight files without ever running what is in them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from lego_core.errors import LegoError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals


class _Ignored:
    """Stands for every object in a file that is no tensor and no plain value; keeps nothing of what it is given."""

    def __new__(cls, *arguments: Any) -> _Ignored:
        return super().__new__(cls)

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read_tensors(path: Path, ignore_objects: bool = False) -> dict[str, Tensor]:
    """Returns the tensors of a .safetensors or PyTorch file, of its `state_dict` or `model` where it has one.

    PyTorch files go through torch's restricted unpickler, which makes tensors and plain containers only.

    Args:
        path: The file.
        ignore_objects: Also reads files that hold other objects, such as EgoVLP's `parse_config.ConfigParser`: in their
            place the same unpickler puts an object of ours that does nothing. No code that the file names is imported
            or called.

    Raises:
        LegoError: Missing, damaged, with objects that are not tensors, or without tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        names = get_unsafe_globals_in_checkpoint(str(path)) if ignore_objects else []
        with safe_globals([(_Ignored, name) for name in names]):
            content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:  # torch's own message would have the file executed
        raise LegoError(f"{path} cannot be read as weights (it holds more than tensors); fetch it again") from error
    except (OSError, ValueError, RuntimeError, EOFError, SafetensorError) as error:
        raise LegoError(f"{path} cannot be read as weights ({str(error).splitlines()[0]}); fetch it again") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)} if content else {}
    if not tensors:
        raise LegoError(f"{path} holds no tensors; it is not the file of weights")
    return tensors


def load_into(network: torch.nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Puts tensors into a network, which may be on the meta device; those that it does not have are left out.

    Raises:
        LegoError: One is missing or of another shape; the message names it.
    """
    own = network.state_dict()
    for name, value in own.items():
        if name not in tensors:
            raise LegoError(f"{path} lacks the weights {name}; it is of another network")
        if tensors[name].shape != value.shape:
            raise LegoError(f"{path}: {name} is {tuple(tensors[name].shape)}; this network's is {tuple(value.shape)}")
    network.load_state_dict({name: tensors[name].to(value.dtype) for name, value in own.items()}, assign=True)
