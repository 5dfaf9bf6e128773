"""An engine directory of graphs small enough to write by hand: the whole contract, one layer, weights by formula."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import onnx
import onnx.parser
from lego_core.manifest import CACHE_GRAPH, GraphSpec, Manifest, TensorSpec
from lego_server.engines.interface import expected_interface

from tests.server.fake_engine import HIDDEN, make_manifest, make_tokenizer

# One attention head whose queries, keys and values are the embeddings themselves: enough for the cache, the mask and
# the positions all to matter. HIDDEN, WORDS and the like are replaced by numbers.
_BODIES = {
    "text_encoder": """
        i = Cast<to=1>(input_ids)  a = Constant<value_ints=[2]>()  u = Unsqueeze(i, a)  w = Sin(RAMP)
        p = Mul(u, w)  text_hidden_states = Cos(p)""",
    "frame_encoder": """
        small = AveragePool<kernel_shape=[8,8], strides=[8,8]>(pixels)  axis = Constant<value_ints=[1]>()
        grey = ReduceMean<keepdims=1>(small, axis)  image_latent = Concat<axis=1>(small, grey)
        blocks = AveragePool<kernel_shape=[16,16], strides=[16,16]>(vision_pixels)
        mean = ReduceMean<keepdims=1>(blocks, axis)  shape = Constant<value_ints=[0,4,1]>()
        flat = Reshape(mean, shape)  scaled = Mul(flat, RAMP)  image_embeddings = Sin(scaled)""",
    "token_embedding": """
        i = Cast<to=1>(input_ids)  a = Constant<value_ints=[2]>()  u = Unsqueeze(i, a)  p = Mul(u, RAMP)
        inputs_embeds = Sin(p)""",
    "decoder": """
        one = Constant<value_ints=[1]>()  two = Constant<value_ints=[2]>()
        at = Cast<to=1>(position_ids)  at3 = Unsqueeze(at, two)  step = Constant<value_float=0.1>()
        shift = Mul(at3, step)  x = Add(inputs_embeds, shift)  x4 = Unsqueeze(x, one)
        present_key.0 = Concat<axis=2>(past_key.0, x4)  y4 = Neg(x4)
        present_value.0 = Concat<axis=2>(past_value.0, y4)
        kt = Transpose<perm=[0,1,3,2]>(present_key.0)  scores = MatMul(x4, kt)  masked = Add(scores, attention_mask)
        weights = Softmax<axis=-1>(masked)  seen4 = MatMul(weights, present_value.0)  seen = Squeeze(seen4, one)
        hidden_states = Tanh(seen)  logits = MatMul(hidden_states, HEAD)""",
    "conditioner": """
        i = Neg(image_embeddings)  t = Neg(text_states)  context = Concat<axis=1>(text_hidden_states, i, t)""",
    "keys_values": """
        one = Constant<value_ints=[1]>()  key.0 = Unsqueeze(context, one)  sines = Sin(context)
        value.0 = Unsqueeze(sines, one)""",
    "unet": """
        axes = Constant<value_ints=[1,2,3]>()  both = Add(key.0, value.0)  mean = ReduceMean<keepdims=0>(both, axes)
        a = Constant<value_ints=[1,2,3]>()  m4 = Unsqueeze(mean, a)  t4 = Unsqueeze(timestep, a)
        thousand = Constant<value_float=1000.0>()  s = Div(t4, thousand)
        parts = Constant<value_ints=[4,4]>()  axis1 = Constant<value_ints=[1]>()
        noisy, image = Split<axis=1>(sample, parts)  deep_features = Mul(image, m4)  sum = Add(noisy, deep_features)
        sharp = Mul(sum, s)  prediction = Tanh(sharp)""",
    "unet_shallow": """
        a = Constant<value_ints=[1,2,3]>()  t4 = Unsqueeze(timestep, a)
        thousand = Constant<value_float=1000.0>()  s = Div(t4, thousand)
        parts = Constant<value_ints=[4,4]>()  axis1 = Constant<value_ints=[1]>()
        noisy, image = Split<axis=1>(sample, parts)  sum = Add(noisy, deep_features)
        sharp = Mul(sum, s)  prediction = Tanh(sharp)""",
    "keys_values_student": """
        one = Constant<value_ints=[1]>()  key.0 = Unsqueeze(context, one)  cosines = Cos(context)
        value.0 = Unsqueeze(cosines, one)""",
    "unet_student": """
        axes = Constant<value_ints=[1,2,3]>()  both = Add(key.0, value.0)  mean = ReduceMean<keepdims=0>(both, axes)
        a = Constant<value_ints=[1,2,3]>()  m4 = Unsqueeze(mean, a)  t4 = Unsqueeze(timestep, a)
        parts = Constant<value_ints=[4,4]>()  axis1 = Constant<value_ints=[1]>()
        noisy, image = Split<axis=1>(sample, parts)  mixed = Mul(image, m4)  sum = Add(noisy, mixed)
        shift = Sin(t4)  moved = Add(sum, shift)  prediction = Tanh(moved)""",
    "vae_decoder": """
        start = Constant<value_ints=[0]>()  end = Constant<value_ints=[3]>()  axis = Constant<value_ints=[1]>()
        rgb = Slice(latent, start, end, axis)  scales = Constant<value_floats=[1.0,1.0,8.0,8.0]>()
        roi = Constant<value_floats=[0.0]>()  large = Resize<mode="nearest">(rgb, , scales)  pixels = Tanh(large)""",
}  # fmt: skip


def write_tiny_engine(directory: Path) -> Manifest:
    """Writes graphs, tokenizers and manifest; returns the manifest."""
    directory.mkdir(parents=True, exist_ok=True)
    manifest = make_manifest(steps=3)
    # What the interface cannot be worked out from: one cross-attention layer of one head, four channels of features.
    length = 2 * manifest.lego.text_tokens + manifest.lego.image_tokens
    layer = tuple(TensorSpec(name, "float32", ("batch", 1, length, HIDDEN)) for name in ("key.0", "value.0"))
    features = (TensorSpec("deep_features", "float32", ("batch", 4, 8, 8)),)
    manifest = replace(
        manifest, decoder=replace(manifest.decoder, head_dim=HIDDEN),
        graphs={"keys_values": GraphSpec("", "", (), layer), CACHE_GRAPH: GraphSpec("", "", features, ())},
    )  # fmt: skip
    interface = expected_interface(manifest)
    graphs = {}
    for name in manifest.graph_names:
        sides = [
            tuple(
                TensorSpec(
                    tensor,
                    "int64" if tensor.endswith("_ids") else "float32",
                    tuple(f"{tensor}_{axis}" if size is None else size for axis, size in enumerate(shape)),
                )
                for tensor, shape in side.items()
            )
            for side in interface[name]
        ]
        path = directory / f"{name}.onnx"
        onnx.save(_model(name, *sides), path)
        graphs[name] = GraphSpec(path.name, hashlib.sha256(path.read_bytes()).hexdigest(), *sides)
    files = {}
    for file in ("text_tokenizer.json", "vllm_tokenizer.json"):
        make_tokenizer().save(str(directory / file))
        files[file] = hashlib.sha256((directory / file).read_bytes()).hexdigest()
    manifest = replace(manifest, graphs=graphs, files=files)
    manifest.save(directory)
    return manifest


def _model(name: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> onnx.ModelProto:
    def declare(tensors: tuple[TensorSpec, ...]) -> list[onnx.ValueInfoProto]:
        types = {"int64": onnx.TensorProto.INT64, "float32": onnx.TensorProto.FLOAT}
        return [onnx.helper.make_tensor_value_info(t.name, types[t.dtype], list(t.shape)) for t in tensors]

    # The parser knows no dots in names.
    body = _BODIES[name].replace("key.0", "key_0").replace("value.0", "value_0")
    graph = onnx.parser.parse_graph(f"g () => () {{ {body} }}")
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [text.replace("key_0", "key.0").replace("value_0", "value.0") for text in names]
    graph.input.extend(declare(inputs))
    graph.output.extend(declare(outputs))
    words = 18
    ramp = [0.7 + 0.31 * column for column in range(HIDDEN)]
    # The first three words are special ones; they never win, so a description is as long as it may be.
    head = [((7 * row + 5 * column) % 11 - 5) / 5 * (column > 2) for row in range(HIDDEN) for column in range(words)]
    graph.initializer.append(onnx.helper.make_tensor("RAMP", onnx.TensorProto.FLOAT, [HIDDEN], ramp))
    graph.initializer.append(onnx.helper.make_tensor("HEAD", onnx.TensorProto.FLOAT, [HIDDEN, words], head))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return model
