"""The engines on a CPU, with onnxruntime and with OpenVINO, on real, hand-written graphs."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime as ort
import pytest
from lego_core.branches import Branch
from lego_core.errors import LegoError
from lego_core.manifest import Manifest
from lego_server.engines import load_engine
from lego_server.engines.base import Condition, DecoderCache, DecoderStep, Engine, FrameFeatures
from lego_server.engines.graph_engine import GraphEngine
from lego_server.engines.onnx_graph import OnnxGraph
from lego_server.engines.openvino_graph import OpenVINOGraph
from lego_server.engines.prefixes import Prefixes
from lego_server.failures import RequestError
from lego_server.options import OptionWishes, resolve_options
from lego_server.texts import PromptTokens, Texts

pytest.importorskip("onnx")

import onnx

from tests.server.harness import picture, running
from tests.server.tiny_engine import write_tiny_engine

PROMPT = PromptTokens(before=(1, 4), after=(7, 9, 10))
ALL_BRANCHES: tuple[Branch, ...] = ("conditional", "image_only", "null")
GENERATOR = np.random.default_rng(0)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engines")
    write_tiny_engine(path)
    return path


@pytest.fixture(scope="module", params=["cpu", "openvino"])
def engine(directory: Path, request: pytest.FixtureRequest) -> Engine:
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return load_engine(directory, request.param, threads=1)


def random(*shape: int) -> np.ndarray:
    return GENERATOR.standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def frame(engine: Engine) -> FrameFeatures:
    return engine.encode_frames([random(3, 64, 64)], [random(3, 32, 32)])[0]


def test_reading_tokens_one_by_one_or_at_once_is_the_same(engine: Engine, frame: FrameFeatures) -> None:
    tokens = [5, 8, 3, 11]
    at_once = engine.extend([engine.prefill(frame, PROMPT).cache], [tokens])[0]
    step, states = engine.prefill(frame, PROMPT), []
    for token in tokens:
        step = engine.extend([step.cache], [[token]])[0]
        states.append(step.hidden_states)

    np.testing.assert_allclose(np.concatenate(states), at_once.hidden_states, atol=1e-5)
    assert step.token_id == at_once.token_id


def test_a_prompt_and_a_longer_prompt_agree_on_what_they_share(engine: Engine, frame: FrameFeatures) -> None:
    extended = engine.extend([engine.prefill(frame, PROMPT).cache], [[5]])[0]
    longer = engine.prefill(frame, PromptTokens(PROMPT.before, (*PROMPT.after, 5)))

    np.testing.assert_allclose(longer.hidden_states, extended.hidden_states, atol=1e-5)
    assert longer.hidden_states.shape == (1, 16)


def test_a_further_question_about_a_frame_is_answered_as_if_it_were_the_first(engine: Engine) -> None:
    pixels, vision = random(3, 64, 64), random(3, 32, 32)
    other = PromptTokens(PROMPT.before, (8, 3))
    asked, fresh = (engine.encode_frames([pixels], [vision])[0] for _ in range(2))
    first = engine.prefill(asked, PROMPT)
    written = engine.extend([first.cache], [[5]])[0]
    further, alone = engine.prefill(asked, other), engine.prefill(fresh, other)

    np.testing.assert_array_equal(further.hidden_states, alone.hidden_states)
    assert further.token_id == alone.token_id
    # What is kept of the frame was not changed by what was written after it.
    np.testing.assert_array_equal(engine.prefill(asked, PROMPT).hidden_states, first.hidden_states)
    again = engine.extend([engine.prefill(asked, PROMPT).cache], [[5]])[0]
    np.testing.assert_array_equal(again.hidden_states, written.hidden_states)


class _CountingEngine(GraphEngine):
    """Notes how many tokens each call of its decoder reads."""

    tokens: ClassVar[list[int]] = []

    def _decode(self, embeds: Any, cache: Any) -> DecoderStep:
        self.tokens.append(len(embeds))
        return super()._decode(embeds, cache)


def test_a_frame_is_read_once_for_all_questions_with_the_same_words_before_it(directory: Path) -> None:
    engine = _CountingEngine.load(directory, "cpu", threads=1)
    [frame] = engine.encode_frames([random(3, 64, 64)], [random(3, 32, 32)])
    for prompt in (PROMPT, PromptTokens(PROMPT.before, (8, 3)), PromptTokens((1,), (8, 3)), PromptTokens((1,), ())):
        engine.prefill(frame, prompt)
    image = engine.manifest.lego.image_tokens
    assert engine.tokens == [2 + image, 3, 2, 1 + image, 2]


def test_no_more_frames_are_kept_as_read_than_are_asked_about_lately_and_still_there() -> None:
    kept: Prefixes[str] = Prefixes(2)
    frames = [Condition(type("Frame", (), {})()) for _ in range(3)]
    for number, frame in enumerate(frames):
        kept.keep(frame, (1,), str(number))
        assert kept.find(frames[0], (1,)) == "0"  # asked about again and again
    assert (kept.find(frames[1], (1,)), kept.find(frames[2], (1,)), kept.find(frames[2], (2,))) == (None, "2", None)
    del frame, frames
    gc.collect()
    assert len(kept) == 0


def test_caches_of_unlike_lengths_are_extended_together_as_alone(engine: Engine, frame: FrameFeatures) -> None:
    def caches() -> list[DecoderCache]:
        long = engine.extend([engine.prefill(frame, PROMPT).cache], [[5, 6, 7]])[0]
        return [engine.prefill(frame, PROMPT).cache, long.cache]

    alone = [engine.extend([cache], [[token]])[0] for cache, token in zip(caches(), (3, 12), strict=True)]
    together = engine.extend(caches(), [[3], [12]])
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other.hidden_states, one.hidden_states, atol=1e-5)
        after_one = engine.extend([one.cache], [[4]])[0]
        after_other = engine.extend([other.cache], [[4]])[0]
        np.testing.assert_allclose(after_other.hidden_states, after_one.hidden_states, atol=1e-5)


def test_branches_see_what_guidance_says_they_see(engine: Engine, frame: FrameFeatures) -> None:
    condition = engine.condition(frame, engine.texts.clip_ids("left hand"), random(3, 16))
    latent = random(4, 8, 8)
    all_three = engine.denoise([latent], [500.0], [condition], ALL_BRANCHES)[0]
    one = engine.denoise([latent], [500.0], [condition], ("conditional",))[0]

    assert all_three.shape == (3, 4, 8, 8)
    np.testing.assert_allclose(all_three[0], one[0], atol=1e-6)
    np.testing.assert_allclose(all_three[2], np.tanh(latent * 0.5), atol=1e-6)  # the null branch has no image latent
    assert len({branch.tobytes() for branch in all_three}) == 3


def test_the_student_is_a_network_of_its_own_that_sees_text_and_image(engine: Engine, frame: FrameFeatures) -> None:
    condition = engine.condition(frame, engine.texts.clip_ids("left hand"), random(3, 16))
    other = engine.condition(frame, engine.texts.clip_ids("right hand"), random(3, 16))
    latent = random(4, 8, 8)
    student = engine.denoise([latent], [500.0], [condition], ("student",))[0]

    assert student.shape == (1, 4, 8, 8)
    assert not np.allclose(student[0], engine.denoise([latent], [500.0], [condition], ("conditional",))[0][0], atol=0.1)
    assert not np.allclose(student, engine.denoise([latent], [500.0], [other], ("student",))[0], atol=1e-4)
    with pytest.raises(LegoError, match="the student stands alone"):
        engine.denoise([latent], [500.0], [condition], ("conditional", "student"))


def test_the_shallow_part_with_an_evaluations_own_features_gives_its_predictions(
    engine: Engine, frame: FrameFeatures
) -> None:
    condition = engine.condition(frame, engine.texts.clip_ids("left hand"), random(3, 16))
    latent, later = random(4, 8, 8), random(4, 8, 8)
    plain = engine.denoise([latent], [500.0], [condition], ALL_BRANCHES)[0]
    whole, features = engine.denoise_keeping([latent], [500.0], [condition], ALL_BRANCHES)[0]
    again, moved = (
        engine.denoise_reusing([each], [500.0], [condition], ALL_BRANCHES, [features])[0] for each in (latent, later)
    )

    np.testing.assert_array_equal(whole, plain)
    np.testing.assert_allclose(again, plain, atol=1e-6)
    exact = engine.denoise([later], [500.0], [condition], ALL_BRANCHES)[0]
    np.testing.assert_allclose(moved, exact, atol=1e-6)  # the tiny network's deep part does not see the noisy latent
    with pytest.raises(LegoError, match="features are kept of the teacher only"):
        engine.denoise_keeping([latent], [500.0], [condition], ("student",))


def test_features_of_several_queries_are_kept_and_reused_as_of_each_alone(engine: Engine, frame: FrameFeatures) -> None:
    conditions = [engine.condition(frame, engine.texts.clip_ids(text), random(3, 16)) for text in ("left", "right")]
    latents, timesteps, branches = [random(4, 8, 8), random(4, 8, 8)], [999.0, 3.25], ("conditional", "null")
    together = engine.denoise_keeping(latents, timesteps, conditions, branches)
    kept = [features for _, features in together]
    reused = engine.denoise_reusing(latents[::-1], timesteps, conditions[::-1], branches, kept[::-1])

    for index in range(2):
        query = [latents[index]], [timesteps[index]], [conditions[index]], branches
        alone, features = engine.denoise_keeping(*query)[0]
        np.testing.assert_allclose(together[index][0], alone, atol=1e-6)
        turned = [latents[index]], [timesteps[1 - index]], [conditions[index]], branches
        np.testing.assert_allclose(reused[1 - index], engine.denoise_reusing(*turned, [features])[0], atol=1e-6)


def test_engines_of_before_the_cache_serve_without_it_and_say_how_to_get_it(directory: Path, tmp_path: Path) -> None:
    older = Path(shutil.copytree(directory, tmp_path / "older"))
    unet = onnx.load(older / "unet.onnx")
    del unet.graph.output[1]
    onnx.save(unet, older / "unet.onnx")
    (older / "unet_shallow.onnx").unlink()
    manifest = json.loads((older / "manifest.json").read_text())
    del manifest["graphs"]["unet_shallow"], manifest["graphs"]["unet"]["outputs"][1]
    manifest["graphs"]["unet"]["sha256"] = hashlib.sha256((older / "unet.onnx").read_bytes()).hexdigest()
    (older / "manifest.json").write_text(json.dumps(manifest))
    engine = load_engine(older, "cpu", threads=1)

    frame = engine.encode_frames([random(3, 64, 64)], [random(3, 32, 32)])[0]
    query = [random(4, 8, 8)], [500.0], [engine.condition(frame, np.arange(12), random(3, 16))], ALL_BRANCHES
    assert engine.denoise(*query)[0].shape == (3, 4, 8, 8)
    with pytest.raises(LegoError, match="have no graph unet_shallow: rebuild them with lego-export build"):
        engine.denoise_keeping(*query)
    with pytest.raises(RequestError, match=r"options\.cache_interval is 2, and .* or leave it unset"):
        resolve_options(OptionWishes(cache_interval=2), engine.manifest, 1000, 100)


def test_requests_are_denoised_together_as_alone_each_at_its_timestep(engine: Engine, frame: FrameFeatures) -> None:
    conditions = [engine.condition(frame, engine.texts.clip_ids(text), random(3, 16)) for text in ("left", "right")]
    latents, timesteps = [random(4, 8, 8), random(4, 8, 8)], [999.0, 3.25]
    together = engine.denoise(latents, timesteps, conditions, ALL_BRANCHES)

    for index in range(2):
        alone = engine.denoise([latents[index]], [timesteps[index]], [conditions[index]], ALL_BRANCHES)[0]
        np.testing.assert_allclose(together[index], alone, atol=1e-6)


def test_a_batch_of_other_queries_is_painted_with_their_own_words(engine: Engine, frame: FrameFeatures) -> None:
    first, second = (engine.condition(frame, np.arange(12) % words, random(3, 16)) for words in (5, 7))
    latent = random(4, 8, 8)

    def paint(*conditions: Condition, branches: tuple[Branch, ...] = ("conditional",)) -> np.ndarray:
        found = engine.denoise([latent] * len(conditions), [500.0] * len(conditions), conditions, branches)
        return np.concatenate(found)

    alone = paint(first)
    assert not np.allclose(alone, paint(second))
    np.testing.assert_allclose(paint(first, second)[:1], alone, atol=1e-6)
    np.testing.assert_allclose(paint(second, first)[1:], alone, atol=1e-6)
    assert not np.allclose(alone, paint(first, branches=("student",)))
    np.testing.assert_allclose(paint(first), alone, atol=1e-6)


def test_more_hidden_states_than_rows_are_cut_and_fewer_filled_with_zeros(engine: Engine, frame: FrameFeatures) -> None:
    clip_ids, rows = engine.texts.clip_ids("left"), random(20, 16)
    latent = random(4, 8, 8)

    def predict(text_states: np.ndarray) -> np.ndarray:
        return engine.denoise([latent], [500.0], [engine.condition(frame, clip_ids, text_states)], ("conditional",))[0]

    padded = np.concatenate([rows[:2], np.zeros((10, 16), np.float32)])
    np.testing.assert_array_equal(predict(rows), predict(rows[:12]))
    np.testing.assert_array_equal(predict(rows[:2]), predict(padded))


def test_latents_are_divided_by_the_scaling_factor(engine: Engine) -> None:
    latent = random(4, 8, 8)
    pixels = engine.decode_latents([latent])[0]

    assert pixels.shape == (3, 64, 64)
    np.testing.assert_allclose(pixels[:, ::8, ::8], np.tanh(latent[:3] / 0.2), atol=1e-5)


async def test_the_whole_server_answers_with_it(engine: Engine) -> None:
    from lego_proto.v1 import guidance_pb2 as pb

    async with running(engine) as server:
        request = pb.GenerateRequest(image=picture(), text="open the drawer", options=pb.GuidanceOptions(seed=1))
        first = await server.stub.Generate(request)
        request.options.description = first.description
        given = await server.stub.Generate(request)
        info = await server.stub.GetServerInfo(pb.GetServerInfoRequest())

    assert info.engine == engine.name
    assert first.steps == 3 and first.width == 114
    assert len(first.description.split()) == 10
    assert given.description == first.description


def edit_manifest(directory: Path, edit: Callable[[dict], None]) -> None:
    path = directory / "manifest.json"
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))


def test_an_altered_graph_file_is_refused(tmp_path: Path) -> None:
    write_tiny_engine(tmp_path)
    with (tmp_path / "unet.onnx").open("ab") as file:
        file.write(b"\0")

    with pytest.raises(LegoError, match=r"unet\.onnx is not the file its manifest describes"):
        load_engine(tmp_path)


def test_a_manifest_that_implies_other_shapes_is_refused(tmp_path: Path) -> None:
    write_tiny_engine(tmp_path)
    edit_manifest(tmp_path, lambda values: values["lego"].update(text_tokens=13))

    with pytest.raises(LegoError, match=r"graph text_encoder has input input_ids of shape .*, the manifest implies"):
        load_engine(tmp_path)


def test_a_graph_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    write_tiny_engine(tmp_path)
    edit_manifest(tmp_path, lambda values: values["decoder"].update(layers=2))

    with pytest.raises(LegoError, match=r"graph decoder lacks input past_key\.1: rebuild it with lego-export build"):
        load_engine(tmp_path)


def test_a_graph_other_than_its_description_is_refused(tmp_path: Path) -> None:
    manifest = write_tiny_engine(tmp_path)
    # The conditioner's file in the place of the U-Net's, with a hash to match.
    unet = dataclasses.replace(
        manifest.graphs["unet"], file="conditioner.onnx", sha256=manifest.graphs["conditioner"].sha256
    )
    dataclasses.replace(manifest, graphs={**manifest.graphs, "unet": unet}).save(tmp_path)

    with pytest.raises(LegoError, match="graph unet"):
        load_engine(tmp_path)


def test_a_missing_or_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    manifest = write_tiny_engine(tmp_path)
    (tmp_path / "vllm_tokenizer.json").write_text("{}")
    with pytest.raises(LegoError, match=r"vllm_tokenizer\.json is not the file its manifest describes"):
        load_engine(tmp_path)
    with pytest.raises(LegoError, match=r"vllm_tokenizer\.json is no tokenizer"):
        Texts.load(tmp_path, manifest)
    (tmp_path / "vllm_tokenizer.json").unlink()
    with pytest.raises(LegoError, match=r"lacks vllm_tokenizer\.json"):
        load_engine(tmp_path)


def test_a_missing_provider_is_an_error_never_a_silent_cpu(directory: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(LegoError, match=r"needs onnxruntime's CUDAExecutionProvider.*install onnxruntime-gpu"):
        load_engine(directory, "cuda")


def test_without_openvino_its_devices_are_refused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # as where it is not installed
    with pytest.raises(LegoError, match=r"needs the package openvino: pip install lego-ar\[server-openvino\]"):
        load_engine(directory, "openvino")


def test_bfloat16_is_used_where_the_processor_has_it_and_refused_elsewhere(
    directory: Path, frame: FrameFeatures, engine: Engine
) -> None:
    openvino = pytest.importorskip("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(LegoError, match="multiplies bfloat16"):
            load_engine(directory, "openvino-bf16")
        return
    graphs = [OpenVINOGraph(n, directory / f"{n}.onnx", "openvino-bf16", 1, 1) for n in ("unet", "decoder")]
    kinds = [graph._model.get_property("INFERENCE_PRECISION_HINT").get_type_name() for graph in graphs]
    assert kinds == ["bf16", "f32"]
    narrow = load_engine(directory, "openvino-bf16", threads=1, lanes=2)
    condition = engine.condition(frame, engine.texts.clip_ids("left hand"), random(3, 16))
    latent = random(4, 8, 8)
    exact = engine.denoise([latent], [500.0], [condition], ALL_BRANCHES)[0]
    close = narrow.denoise([latent], [500.0], [condition], ALL_BRANCHES)[0]
    np.testing.assert_allclose(close, exact, atol=0.05)
    assert narrow.name == "openvino-bf16"


def test_a_signal_does_no_harm_once_a_model_of_openvinos_is_gone(directory: Path) -> None:
    pytest.importorskip("openvino")
    program = """
import os, signal, sys, threading
from pathlib import Path
from lego_server.engines import load_engine
held = [load_engine(Path(sys.argv[1]), "openvino", threads=1)]
letting_go = threading.Thread(target=held.clear)  # as when another model has taken its place
letting_go.start(); letting_go.join()
signal.signal(signal.SIGTERM, lambda *_: print("told"))
os.kill(os.getpid(), signal.SIGTERM)
"""
    command = [sys.executable, "-X", "faulthandler", "-c", program, str(directory)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, "told\n"), result.stderr


def test_several_threads_may_call_one_engine(engine: Engine, frame: FrameFeatures) -> None:
    conditions = [engine.condition(frame, engine.texts.clip_ids("left hand"), random(3, 16)) for _ in range(8)]
    latents = [random(4, 8, 8) for _ in conditions]

    def paint(number: int) -> np.ndarray:
        return engine.denoise([latents[number]], [500.0], [conditions[number]], ALL_BRANCHES)[0]

    alone = [paint(number) for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            np.testing.assert_allclose(list(pool.map(paint, range(8))), alone, atol=1e-5)


@pytest.mark.parametrize(("device", "threads", "told"), [("tpu", 0, "device is 'tpu'"), ("cpu", -1, "threads is -1")])
def test_a_bad_device_or_thread_count_is_refused(directory: Path, device: str, threads: int, told: str) -> None:
    with pytest.raises(LegoError, match=told):
        load_engine(directory, device, threads)


def test_the_manifest_survives_a_round_trip(directory: Path) -> None:
    assert Manifest.load(directory).graphs["unet"].inputs[0].name == "sample"


def test_want_of_memory_is_not_taken_for_a_broken_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("[ONNXRuntimeError] : 6 : mmap failed: Cannot allocate memory")

    monkeypatch.setattr(ort, "InferenceSession", fail)
    with pytest.raises(LegoError, match=r"not enough memory to load unet.onnx: .* a machine with more"):
        OnnxGraph("unet", tmp_path / "unet.onnx", "cpu", 1, ["CPUExecutionProvider"])
