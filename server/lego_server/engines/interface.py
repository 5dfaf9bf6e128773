"""The interface every graph of an engine directory must have, worked out from the manifest.

A graph of other shapes would give garbage or crash in the middle of a query, so it is refused at load.
"""

from __future__ import annotations

from collections.abc import Mapping

from lego_core.errors import LegoError
from lego_core.manifest import CACHE_GRAPH, Manifest

Shape = tuple[int | None, ...]
Tensors = Mapping[str, Shape]


def expected_interface(manifest: Manifest) -> dict[str, tuple[Tensors, Tensors]]:
    """Returns each graph's inputs and outputs: name to shape, None where a dimension is dynamic."""
    lego, decoder, channels = manifest.lego, manifest.decoder, manifest.latent.channels
    resolution, side = lego.resolution, lego.resolution // manifest.latent.factor
    text, image = lego.text_tokens, lego.image_tokens
    hidden, context = decoder.hidden_size, manifest.context_width
    latent: Shape = (None, channels, side, side)
    pixels: Shape = (None, 3, resolution, resolution)
    clip_states: Shape = (None, text, context)
    embeddings: Shape = (None, image, hidden)
    full_context: Shape = (None, 2 * text + image, context)
    cache: Shape = (None, decoder.key_value_heads, None, decoder.head_dim)
    keys_values, features = _keys_values(manifest), _deep_features(manifest, side)
    noisy: Tensors = {"sample": (None, 2 * channels, side, side), "timestep": (None,)}
    past = {f"past_{kind}.{layer}": cache for layer in range(decoder.layers) for kind in ("key", "value")}
    present = {f"present_{kind}.{layer}": cache for layer in range(decoder.layers) for kind in ("key", "value")}
    interface: dict[str, tuple[Tensors, Tensors]] = {
        "text_encoder": ({"input_ids": (None, text)}, {"text_hidden_states": clip_states}),
        "frame_encoder": (
            {"pixels": pixels, "vision_pixels": (None, 3, lego.vision.size, lego.vision.size)},
            {"image_latent": latent, "image_embeddings": embeddings},
        ),
        "token_embedding": ({"input_ids": (None, None)}, {"inputs_embeds": (None, None, hidden)}),
        "decoder": (
            {
                "inputs_embeds": (None, None, hidden), "attention_mask": (None, 1, None, None),
                "position_ids": (None, None), **past,
            },
            {"logits": (None, None, None), "hidden_states": (None, None, hidden), **present},
        ),
        "conditioner": (
            {"text_hidden_states": clip_states, "image_embeddings": embeddings, "text_states": (None, text, hidden)},
            {"context": full_context},
        ),
        "keys_values": ({"context": full_context}, keys_values),
        "unet": ({**noisy, **keys_values}, {"prediction": latent, **features}),
        "unet_student": ({**noisy, **keys_values}, {"prediction": latent}),
        CACHE_GRAPH: ({**noisy, **features, **_shallow_keys_values(manifest, keys_values)}, {"prediction": latent}),
        "vae_decoder": ({"latent": latent}, {"pixels": pixels}),
    }  # fmt: skip
    interface["keys_values_student"] = interface["keys_values"]
    return {name: interface[name] for name in manifest.graph_names}


def _keys_values(manifest: Manifest) -> Tensors:
    """What the U-Net's cross-attention layers read. How many layers and heads there are, its graph alone says."""
    length = 2 * manifest.lego.text_tokens + manifest.lego.image_tokens
    sizes = [(spec.shape[1], spec.shape[-1]) for spec in manifest.graphs["keys_values"].outputs if len(spec.shape) == 4]
    names = [f"{tensor}.{layer}" for layer in range(len(sizes) // 2) for tensor in ("key", "value")]
    return {
        name: (None, heads, length, width)
        for name, (heads, width) in zip(names, sizes, strict=False)
        if isinstance(heads, int) and isinstance(width, int)
    }


def _deep_features(manifest: Manifest, side: int) -> Tensors:
    """What the U-Net gives to its shallow part, if it has one. How many channels there are, that graph alone says."""
    graph = manifest.graphs.get(CACHE_GRAPH)
    if graph is None:
        return {}
    shape = next((spec.shape for spec in graph.inputs if spec.name == "deep_features"), ())
    channels = shape[1] if len(shape) == 4 and isinstance(shape[1], int) else None
    return {"deep_features": (None, channels, side, side)}


def _shallow_keys_values(manifest: Manifest, keys_values: Tensors) -> Tensors:
    """Those of the U-Net's keys and values that its shallow part reads, as its graph says."""
    graph = manifest.graphs.get(CACHE_GRAPH)
    names = [] if graph is None else [spec.name for spec in graph.inputs]
    return {name: keys_values[name] for name in names if name in keys_values}


def check_tensors(graph: str, direction: str, found: Mapping[str, tuple[object, ...]], expected: Tensors) -> None:
    """Compares one side of a graph with what is expected; a fixed dimension must be equal or dynamic.

    Raises:
        LegoError: A tensor is missing, unknown or of another shape.
    """
    if set(found) != set(expected):
        wrong = sorted(set(found) ^ set(expected))[0]
        state = "lacks" if wrong in expected else "has an unknown"
        raise LegoError(f"graph {graph} {state} {direction} {wrong}: rebuild it with lego-export build")
    for name, shape in found.items():
        agrees = len(shape) == len(expected[name]) and all(
            not isinstance(dimension, int) or wanted is None or dimension == wanted
            for dimension, wanted in zip(shape, expected[name], strict=False)
        )
        if not agrees:
            wanted = ", ".join("any" if dimension is None else str(dimension) for dimension in expected[name])
            raise LegoError(
                f"graph {graph} has {direction} {name} of shape {list(shape)}, the manifest implies [{wanted}]: "
                "rebuild it with lego-export build"
            )
