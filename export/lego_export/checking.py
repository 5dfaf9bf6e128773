"""Half-precision engines on a machine without a GPU: a directory in which every rounding is spelled out."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
from lego_core.errors import LegoError
from lego_core.files import folder_aside
from lego_core.manifest import Manifest

from lego_export.precision import DTYPES, spell_out


@contextmanager
def checkable(engines: Path, manifest: Manifest) -> Iterator[Path]:
    """Gives a directory whose graphs show on a CPU what a GPU does: the engines themselves if none is lowered.

    Otherwise a temporary one inside it, with hard links to the weights, in which lowered graphs are replaced by
    `lego_export.precision.spell_out` of them. Its manifest says that they compute in float32, as they do.

    Raises:
        LegoError: The directory cannot be written to.
    """
    lowered = [name for name in manifest.graph_names if manifest.precision_of(name).compute in DTYPES]
    if not lowered:
        yield engines
        return
    if not os.access(engines, os.W_OK):
        raise LegoError(f"{engines} cannot be written to: verify a copy of it")
    with folder_aside(engines, "checking") as directory:
        for file in (*manifest.files, *(graph.file for graph in manifest.graphs.values())):
            target = directory / file
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(engines / file, target)
        graphs = dict(manifest.graphs)
        for graph in lowered:
            path = directory / graphs[graph].file
            content = spelled_out(path)
            path.unlink()  # a hard link: writing to it would write to the engines
            path.write_bytes(content)
            graphs[graph] = replace(graphs[graph], sha256=hashlib.sha256(content).hexdigest())
        precisions = {name: each for name, each in manifest.precisions.items() if name not in lowered}
        replace(manifest, graphs=graphs, precisions=precisions).save(directory)
        yield directory


def spelled_out(path: Path) -> bytes:
    """Returns a graph's file with every rounding spelled out; its weights stay where they are."""
    return bytes(ir.to_proto(spell_out(ir.load(path))).SerializeToString(deterministic=True))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
