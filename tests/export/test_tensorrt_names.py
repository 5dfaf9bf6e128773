"""The stub that mypy checks the TensorRT code against, compared with the TensorRT that is installed.

Needs TensorRT's Python bindings, not a GPU.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import ModuleType

import pytest
from lego_core.errors import LegoError

SINCE = {"SerializationFlag.INCLUDE_REFIT": (10, 14)}  # the code asks whether it is there
STUB = Path(__file__).parents[2] / "typings/tensorrt/__init__.pyi"


@pytest.fixture(scope="module")
def tensorrt() -> ModuleType:
    from lego_server.engines.tensorrt_library import require_tensorrt

    try:
        require_tensorrt()
    except LegoError as error:
        pytest.skip(str(error))
    import tensorrt

    return tensorrt


def stub_classes() -> list[tuple[str, ast.ClassDef]]:
    top = [node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]
    nested = [
        (f"{outer.name}.{node.name}", node) for outer in top for node in outer.body if isinstance(node, ast.ClassDef)
    ]
    return [(node.name, node) for node in top] + nested


def documented_parameters(function: object) -> list[list[str]]:
    """Returns the parameter names of every overload that pybind11 wrote into a docstring."""
    lines = re.findall(r"^(?:\d+\. )?\w+\((self\b.*)\) -> ", str(function.__doc__), re.MULTILINE)
    # A comma within brackets does not separate parameters; names stand before a colon.
    return [re.findall(r"(?:^|, )(\w+): ", re.sub(r"\[[^\[\]]*(?:\[[^\[\]]*\])*\]", "", line)) for line in lines]


def test_every_class_and_member_of_the_stub_exists(tensorrt: ModuleType) -> None:
    missing = []
    for name, node in stub_classes():
        found: object = tensorrt
        for part in name.split("."):
            found = getattr(found, part, None)
        members = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
        members += [
            item.target.id
            for item in node.body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        ]
        # The buffer protocol of a C type has no method before Python 3.12.
        missing += [f"{name}.{member}" for member in members if member != "__buffer__" and not hasattr(found, member)]

    version = tuple(map(int, tensorrt.__version__.split(".")[:2]))
    assert [name for name in missing if version >= SINCE.get(name, version)] == []


def test_every_method_of_the_stub_takes_the_documented_parameters(tensorrt: ModuleType) -> None:
    wrong, compared = [], 0
    for name, node in stub_classes():
        found: object = tensorrt
        for part in name.split("."):
            found = getattr(found, part)
        for item in node.body:
            if not isinstance(item, ast.FunctionDef) or item.decorator_list or item.name in ("__buffer__", "__len__"):
                continue
            overloads = documented_parameters(getattr(found, item.name))
            names = [argument.arg for argument in item.args.args]
            required = names[: len(names) - len(item.args.defaults)]
            compared += 1
            if not any(
                overload[: len(names)] == names or overload[: len(required)] == required for overload in overloads
            ):
                wrong.append(f"{name}.{item.name}: {names}, documented {overloads}")

    assert compared > 50
    assert not wrong
