"""Every graph computes what its torch module computes, at batch sizes it was never traced with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from diffusers import UNet2DConditionModel
from lego_core.manifest import CACHE_GRAPH, GRAPHS, STUDENT_GRAPHS, TensorSpec
from lego_export.graphs import GraphDefinition, caching_graphs, denoiser_graphs
from lego_export.onnx_graph import convert
from lego_export.parity import check_graph, compare, open_session, run_module
from lego_export.samples import Samples
from lego_model.checkpoint import LegoCheckpoint
from lego_model.describe import embed_image
from lego_server.engines.interface import expected_interface

ALL_GRAPHS = (*GRAPHS, CACHE_GRAPH, *STUDENT_GRAPHS)


@pytest.mark.parametrize("batch", [1, 3, 5])
@pytest.mark.parametrize("graph", ALL_GRAPHS)
def test_graph_equals_torch(built, definitions, samples, graph: str, batch: int) -> None:
    session = open_session(built.engines / f"{graph}.onnx", threads=1)
    parity = check_graph(session, definitions[graph], samples.feeds(graph, batch))
    assert parity.relative < 2e-4


@pytest.mark.parametrize("graph", ALL_GRAPHS)
def test_graph_file_has_the_names_and_dimensions_of_the_manifest(built, graph: str) -> None:
    model = onnx.load(str(built.engines / f"{graph}.onnx"), load_external_data=False)

    def specs(values) -> list[TensorSpec]:
        return [
            TensorSpec(
                value.name,
                np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)).name,
                tuple(size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim),
            )
            for value in values
        ]

    assert specs(model.graph.input) == list(built.manifest.graphs[graph].inputs)
    assert specs(model.graph.output) == list(built.manifest.graphs[graph].outputs)


@pytest.mark.parametrize("graph", ALL_GRAPHS)
def test_graph_has_the_tensors_the_server_expects(built, graph: str) -> None:
    inputs, outputs = expected_interface(built.manifest)[graph]
    assert [spec.name for spec in built.manifest.graphs[graph].inputs] == list(inputs)
    assert [spec.name for spec in built.manifest.graphs[graph].outputs] == list(outputs)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_shallow_graph_of_a_network_with_attention_everywhere_gives_what_the_whole_gives(
    tmp_path: Path, layers: int
) -> None:
    """As in Stable Diffusion: the shallow part reads keys and values too, those of its own layers."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=8, out_channels=4, block_out_channels=(16, 32), layers_per_block=layers,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4,
    ).eval()  # fmt: skip
    plain, cached = denoiser_graphs(unet, 8, 6, ("unet",)), caching_graphs(unet, 8, 6, ("unet",))
    sessions = {}
    for name, definition in (*plain.items(), *((f"cached {name}", each) for name, each in cached.items())):
        torch.onnx.ONNXProgram(convert(definition), None).save(tmp_path / f"{name}.onnx")
        sessions[name] = open_session(tmp_path / f"{name}.onnx", threads=1)
    generator = np.random.default_rng(1)
    context = generator.standard_normal((3, 6, 16), np.float32)
    keys_values = dict(zip(
        (spec.name for spec in plain["keys_values"].outputs), sessions["keys_values"].run(None, {"context": context}),
        strict=True,
    ))  # fmt: skip
    noisy = {"sample": generator.standard_normal((3, 8, 8, 8), np.float32), "timestep": np.float32([900, 500, 3])}
    expected = sessions["unet"].run(None, {**noisy, **keys_values})[0]
    whole, features = sessions["cached unet"].run(None, {**noisy, **keys_values})
    taken = [spec.name for spec in cached[CACHE_GRAPH].inputs[3:]]
    again = sessions[f"cached {CACHE_GRAPH}"].run(
        None, {**noisy, "deep_features": features, **{name: keys_values[name] for name in taken}}
    )[0]  # fmt: skip

    assert 0 < len(taken) < len(keys_values)
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    np.testing.assert_allclose(again, expected, atol=1e-5)


def test_frame_encoder_gives_the_pipelines_image_embeddings(
    definitions: dict[str, GraphDefinition], samples: Samples, modules: LegoCheckpoint
) -> None:
    feeds = samples.feeds("frame_encoder", 2)[0]
    _, embeddings = run_module(definitions["frame_encoder"], feeds)
    expected = embed_image(modules, torch.from_numpy(feeds["vision_pixels"]))
    np.testing.assert_allclose(embeddings, expected.numpy(), atol=1e-6)


def test_decoder_reading_a_prompt_in_two_parts_gives_the_states_of_one_reading(
    built, definitions: dict[str, GraphDefinition], samples: Samples
) -> None:
    session = open_session(built.engines / "decoder.onnx", threads=1)
    whole = samples.feeds("decoder", 1)[0]
    states, *present = _outputs(session, whole)
    cut = 4
    first = {
        **whole,
        "inputs_embeds": whole["inputs_embeds"][:, :cut],
        "attention_mask": whole["attention_mask"][:, :, :cut, :cut],
        "position_ids": whole["position_ids"][:, :cut],
    }
    _, *cache = _outputs(session, first)
    names = [spec.name for spec in definitions["decoder"].inputs[3:]]
    rest = {
        "inputs_embeds": whole["inputs_embeds"][:, cut:],
        "attention_mask": whole["attention_mask"][:, :, cut:],
        "position_ids": whole["position_ids"][:, cut:],
        **dict(zip(names, cache, strict=True)),
    }
    continued, *grown = _outputs(session, rest)
    np.testing.assert_allclose(continued, states[:, cut:], atol=1e-5)
    for tensor, expected in zip(grown, present, strict=True):
        np.testing.assert_allclose(tensor, expected, atol=1e-5)


def test_decoder_row_with_padding_before_its_cache_gives_the_states_it_gives_alone(built, samples: Samples) -> None:
    session = open_session(built.engines / "decoder.onnx", threads=1)
    together = samples.feeds("decoder", 3)[1]
    states = _outputs(session, together)[0]
    dropped = (together["attention_mask"][:, 0, 0] < 0).sum(axis=1)
    assert len(set(dropped)) > 1  # prompts of unlike lengths
    for row, padding in enumerate(dropped):
        alone = {
            name: value[row : row + 1, :, padding:] if name.startswith("past") else value[row : row + 1]
            for name, value in together.items()
        }
        alone["attention_mask"] = alone["attention_mask"][..., padding:]
        np.testing.assert_allclose(_outputs(session, alone)[0], states[row : row + 1], atol=1e-5)


def test_a_value_that_is_no_number_counts_as_an_infinite_error() -> None:
    broken = np.array([1.0, np.nan, 1.0])
    assert compare(np.ones(3), broken).relative == float("inf")
    assert compare(broken, np.ones(3)).relative == float("inf")
    assert compare(broken, broken).relative == float("inf")


def test_another_shape_counts_as_an_infinite_error() -> None:
    assert compare(np.ones(3), np.ones((1, 3))).relative == float("inf")


def _outputs(session, feeds) -> list[np.ndarray]:
    """The hidden states, then the grown cache."""
    return session.run(None, feeds)[1:]
