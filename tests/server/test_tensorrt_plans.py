"""Serving TensorRT plans, and onnxruntime's TensorRT provider: what can be known without a GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from lego_core.errors import LegoError
from lego_core.manifest import GraphSpec, Manifest, TensorSpec
from lego_core.plans import Machine, Plan, Plans
from lego_server.engines import load_engine
from lego_server.engines.devices import DEVICES, check_batch
from lego_server.engines.profiles import Sizes, serving_profiles
from lego_server.engines.provider_options import provider_options
from lego_server.engines.tensorrt_library import require_tensorrt

from tests.server.fake_engine import make_manifest

GPU_PROVIDERS = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.fixture
def manifest() -> Manifest:
    """Of two graphs, with the names of dynamic dimensions that an export gives."""
    decoder = (
        TensorSpec("inputs_embeds", "float32", ("batch", "tokens", 16)),
        TensorSpec("attention_mask", "float32", ("batch", 1, "tokens", "total")),
        TensorSpec("past_key.0", "float32", ("batch", 1, "past", 16)),
    )
    unet = (TensorSpec("timestep", "float32", ("batch",)),)
    graphs = {name: GraphSpec(f"{name}.onnx", "", unet, ()) for name in make_manifest().graph_names}
    return replace(make_manifest(), graphs={**graphs, "decoder": GraphSpec("decoder.onnx", "", decoder, ())})


def test_the_tensorrt_provider_is_told_its_cache_and_one_range_a_profile(manifest: Manifest, tmp_path: Path) -> None:
    name, options = provider_options(GPU_PROVIDERS, "unet", manifest, tmp_path, max_batch=2)[0]
    assert name == "TensorrtExecutionProvider"
    assert [options[f"trt_profile_{bound}_shapes"] for bound in ("min", "opt", "max")] == [
        "timestep:1", "timestep:3", "timestep:6",
    ]  # fmt: skip
    assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "True"
    assert Path(options["trt_engine_cache_path"]).is_dir()
    assert Path(options["trt_engine_cache_path"]).is_relative_to(tmp_path)

    _, options = provider_options(GPU_PROVIDERS, "decoder", manifest, tmp_path, max_batch=1)[0]
    shapes = options["trt_profile_min_shapes"].split(",")
    assert shapes[:3] == ["inputs_embeds:1x1x16", "attention_mask:1x1x1x1", "past_key.0:1x1x0x16"]  # prefill
    assert shapes[3:] == ["inputs_embeds:1x1x16", "attention_mask:1x1x1x2", "past_key.0:1x1x1x16"]  # step


def test_engines_of_other_weights_are_kept_elsewhere(manifest: Manifest, tmp_path: Path) -> None:
    other = replace(manifest, checkpoint_fingerprint="f" * 64)
    one, two = (
        provider_options(GPU_PROVIDERS, "unet", each, tmp_path, max_batch=1)[0][1] for each in (manifest, other)
    )

    assert one["trt_engine_cache_path"] != two["trt_engine_cache_path"]


def test_without_a_place_for_a_cache_there_is_a_warning_and_no_cache(
    manifest: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "plans").write_text("a file where a folder should be")
    options = provider_options(GPU_PROVIDERS, "unet", manifest, tmp_path, max_batch=1)[0][1]

    assert "trt_engine_cache_path" not in options and "trt_profile_min_shapes" in options
    assert "TensorRT builds its engines at every start" in caplog.text


def test_other_providers_are_told_nothing(manifest: Manifest, tmp_path: Path) -> None:
    assert provider_options(GPU_PROVIDERS[1:], "unet", manifest, tmp_path, max_batch=1) == GPU_PROVIDERS[1:]
    assert not list(tmp_path.iterdir())


def test_plans_for_smaller_batches_than_the_server_forms_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    plans = {
        name: Plan(f"{name}.plan", "", "", serving_profiles(name, manifest, Sizes(batch=2)), "none", {}, None, 0.0)
        for name in manifest.graph_names
    }
    listed = Plans(Machine("GPU", "9.0", "11.4.0.106", "13.0"), "", plans)

    check_batch(tmp_path, listed, manifest, max_batch=2)
    with pytest.raises(LegoError, match=r"text_encoder\.plan takes batches up to 2, --max-batch 4 needs 4: lower it"):
        check_batch(tmp_path, listed, manifest, max_batch=4)


def test_plans_without_tensorrt_or_a_gpu_are_refused_with_the_cure(tmp_path: Path) -> None:
    assert "tensorrt-plans" in DEVICES
    try:
        require_tensorrt()
        from lego_server.engines.cuda import read_machine

        read_machine("11.4.0.106")
    except LegoError as error:
        told = str(error)
    else:
        pytest.skip("there are both here")
    with pytest.raises(LegoError) as refusal:
        load_engine(tmp_path, "tensorrt-plans")
    assert str(refusal.value) == told
    assert "pip install 'lego-ar[tensorrt]'" in told or "check nvidia-smi" in told


def test_without_a_gpu_cuda_says_so() -> None:
    pytest.importorskip("cuda.bindings.runtime")
    from lego_server.engines.cuda import CudaError, Stream, read_machine

    try:
        read_machine("11.4.0.106")
    except LegoError as error:
        assert "no NVIDIA GPU can be used here (" in str(error)
    else:
        pytest.skip("there is a GPU here")
    with pytest.raises(CudaError, match=r"cudaSetDevice failed: \w+"):
        Stream()


@pytest.mark.gpu
def test_memory_goes_to_the_gpu_and_back() -> None:
    pytest.importorskip("cuda.bindings.runtime")
    import numpy as np
    from lego_server.engines.cuda import DeviceBuffer, PinnedBuffer, Stream, read_machine

    try:
        read_machine("11.4.0.106")
    except LegoError as error:
        pytest.skip(str(error))
    stream = Stream()
    there, back, device = PinnedBuffer(), PinnedBuffer(), DeviceBuffer(stream)
    for size in (3, 1000, 0, 7):
        sent = there.view((size,), np.dtype(np.float32))
        sent[...] = np.arange(size)
        device.reserve(sent.nbytes)
        received = back.view((size,), np.dtype(np.float32))
        if size:
            stream.upload(device.address, there, sent.nbytes)
            stream.download(back, device.address, sent.nbytes)
        stream.wait()
        np.testing.assert_array_equal(received, sent)
