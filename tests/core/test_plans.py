"""Reading lists of TensorRT plans, and refusing those that are not for this machine, these graphs or these weights."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from lego_core.errors import LegoError
from lego_core.files import file_sha256, write_whole
from lego_core.manifest import GRAPHS, GraphSpec, Manifest, TensorSpec
from lego_core.plans import Machine, Plan, Plans, Profile, Range, find_plans

from tests.server.fake_engine import make_manifest

MACHINE = Machine("NVIDIA H100 80GB HBM3", "9.0", "11.4.0.106", "13.0")
PROFILE = Profile("queries", {"batch": Range(1, 1, 4)})


@pytest.fixture
def manifest() -> Manifest:
    base = make_manifest()
    graphs = {name: GraphSpec(f"{name}.onnx", f"sha-{name}", (), ()) for name in GRAPHS}
    return replace(base, lego=replace(base.lego, student=None), graphs=graphs)


@pytest.fixture
def folder(tmp_path: Path, manifest: Manifest) -> Path:
    """An engine directory's folder of plans: any bytes will do, only TensorRT could read real ones."""
    folder = tmp_path / "plans" / MACHINE.folder
    folder.mkdir(parents=True)
    plans = {}
    for name in GRAPHS:
        path = folder / f"{name}.plan"
        path.write_bytes(name.encode())
        plans[name] = Plan(path.name, file_sha256(path), f"sha-{name}", (PROFILE,), "none", {"float16": 3}, 1e-3, 2.5)
    Plans(MACHINE, manifest.checkpoint_fingerprint, plans).save(folder)
    return folder


def test_a_list_of_plans_survives_a_round_trip(folder: Path, tmp_path: Path, manifest: Manifest) -> None:
    found_folder, plans = find_plans(tmp_path, MACHINE, manifest)

    assert found_folder == folder and folder.name == "sm90-trt11.4"
    assert plans.plans["unet"].profiles == (PROFILE,)
    plans.save(tmp_path)
    assert Plans.load(tmp_path) == plans


@pytest.mark.parametrize(
    ("machine", "told"),
    [
        (replace(MACHINE, gpu="NVIDIA H200"), "for GPU NVIDIA H100 80GB HBM3, here is NVIDIA H200"),
        (replace(MACHINE, tensorrt="11.4.1.8"), r"for TensorRT 11\.4\.0\.106, here is 11\.4\.1\.8"),
        (
            replace(MACHINE, compute_capability="8.9"),
            r"no TensorRT plans for this machine, sm89-trt11\.4 \(only for sm90",
        ),
        (replace(MACHINE, tensorrt="10.13.0.35"), r"no TensorRT plans for this machine, sm90-trt10\.13"),
    ],
)
def test_plans_of_another_machine_are_refused(
    folder: Path, tmp_path: Path, manifest: Manifest, machine: Machine, told: str
) -> None:
    with pytest.raises(LegoError, match=f"{told}.*build plans here with lego-export plans"):
        find_plans(tmp_path, machine, manifest)


def test_another_driver_is_no_reason_to_refuse(folder: Path, tmp_path: Path, manifest: Manifest) -> None:
    assert find_plans(tmp_path, replace(MACHINE, driver="13.2"), manifest)[0] == folder


def test_plans_of_other_weights_are_refused_though_the_graphs_are_equal(
    folder: Path, tmp_path: Path, manifest: Manifest
) -> None:
    with pytest.raises(LegoError, match=r"hold the weights of checkpoint 0123456789ab, .* ffff: .*lego-export refit"):
        find_plans(tmp_path, MACHINE, replace(manifest, checkpoint_fingerprint="ffff"))


def test_a_plan_of_another_graph_is_refused(folder: Path, tmp_path: Path, manifest: Manifest) -> None:
    graphs = {**manifest.graphs, "unet": replace(manifest.graphs["unet"], sha256="another")}
    with pytest.raises(LegoError, match=r"unet\.plan was built from another graph unet"):
        find_plans(tmp_path, MACHINE, replace(manifest, graphs=graphs))


def test_an_altered_or_missing_plan_is_refused(folder: Path, tmp_path: Path, manifest: Manifest) -> None:
    (folder / "decoder.plan").write_bytes(b"other")
    with pytest.raises(LegoError, match=r"decoder\.plan is not the file that plans\.json describes"):
        find_plans(tmp_path, MACHINE, manifest)
    (folder / "decoder.plan").unlink()
    with pytest.raises(LegoError, match=r"lacks decoder\.plan"):
        find_plans(tmp_path, MACHINE, manifest)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda values: values.update(format_version=2), "format_version is 2"),
        (lambda values: values.pop("machine"), "machine"),
        (lambda values: values["plans"]["unet"].update(file="../unet.plan"), "must be a name without a folder"),
        (lambda values: values["plans"]["unet"].update(refit="some"), "refit is 'some'"),
        (lambda values: values["plans"]["unet"]["profiles"][0]["sizes"]["batch"].update(max=0), "out of order"),
        (lambda values: values["plans"].update(unet=3), "not a mapping|must be|mapping"),
    ],
)  # fmt: skip
def test_a_damaged_list_is_refused_with_the_cure(folder: Path, edit: object, told: str) -> None:
    path = folder / "plans.json"
    values = json.loads(path.read_text())
    assert callable(edit)
    edit(values)
    path.write_text(json.dumps(values))

    with pytest.raises(LegoError, match=f"is not a valid list of plans.*({told}).*lego-export plans"):
        Plans.load(folder)


@pytest.mark.parametrize("sizes", [(2, 1, 3), (1, 4, 3), (-1, 0, 0), (1, 1, 2**31)])
def test_a_bad_range_is_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(LegoError, match=r"out of order|must"):
        Range(*sizes)


def test_a_dimension_without_a_range_is_named() -> None:
    spec = TensorSpec("sample", "float32", ("batch", 8, "height"))

    assert PROFILE.shapes("unet", TensorSpec("timestep", "float32", ("batch",))) == ((1,), (1,), (4,))
    with pytest.raises(LegoError, match="graph unet has input sample with a dynamic dimension 'height'"):
        PROFILE.shapes("unet", spec)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "unet.plan"
    write_whole(path, b"old")
    # A limit on the size of files stands for a full disk.
    program = (
        "import resource, sys; from pathlib import Path; from lego_core.files import write_whole\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_whole(Path(sys.argv[1]), bytes(5000))"
    )
    result = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=60)

    assert "File too large" in result.stderr
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
