"""From a checkpoint directory to an engine directory."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir
from lego_core.config import LegoConfig
from lego_core.errors import LegoError
from lego_core.files import existing_folder, file_sha256, folder_aside, is_aside
from lego_core.manifest import (
    CACHE_GRAPH,
    GRAPHS,
    STUDENT_GRAPHS,
    DecoderSpec,
    GraphPrecision,
    GraphSpec,
    LatentSpec,
    Manifest,
    NoiseSchedule,
    TensorSpec,
)
from lego_model.checkpoint import LegoCheckpoint, fingerprint
from lego_server.engines.onnx_graph import require_providers
from lego_server.sampling.schedule import SigmaSchedule
from safetensors import SafetensorError

from lego_export.checking import spelled_out
from lego_export.colours import measure_colour_map
from lego_export.graphs import GraphDefinition, define_graphs, head_dim, latent_factor
from lego_export.islands import choose_islands
from lego_export.onnx_graph import OPSET, convert
from lego_export.parity import Parity, check_graph, open_session
from lego_export.precision import DTYPES
from lego_export.quantise import INT8_NUMBERS, keep_used_weights, quantise
from lego_export.samples import Samples, synthetic_frame
from lego_export.student_graph import read_adapter, student_graph
from lego_export.weights import (
    Precision,
    WeightIndex,
    read_header,
    round_weights,
    share_weights,
    stage_weights,
    staged_bytes,
    stored_precision,
    weight_files,
)

# The engine directory's copies of the tokenizers: where the server looks for them.
TOKENIZERS = {"text_tokenizer.json": "tokenizer/tokenizer.json", "vllm_tokenizer.json": "vllm/tokenizer.json"}
_TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime", "diffusers", "transformers")
_ASIDE = "building"  # what the folder is for in which engines are made
_CHECKED_BATCH = 3  # never traced: a size baked into a graph shows at once

Compute = Literal["fp32", "fp16", "bf16", "int8"]
# Least agreement of guidance frames with torch's, peak signal to noise in decibels. 40 dB is below what an eye can see
# of a still picture; 35 dB leaves the picture the same to who looks for what it shows.
LEAST_PSNR: dict[Compute, float] = {"fp32": 50.0, "fp16": 35.0, "bf16": 35.0, "int8": 35.0}

Announce = Callable[[str], None]


def build_engines(
    checkpoint: Path,
    output: Path,
    *,
    weights: Precision | None = None,
    precision: Compute = "fp32",
    link: bool = False,
    device: str = "cpu",
    announce: Announce = lambda graph: None,
) -> Manifest:
    """Exports every graph, checks each against torch, and puts the whole into an engine directory.

    Everything is made in a temporary folder inside the engine directory first, so an error or an interruption leaves
    older engines as they were.

    Args:
        checkpoint: Directory in the layout of `lego_model.checkpoint`.
        output: The engine directory. If it is the checkpoint itself, the graphs refer to the checkpoint's own weights
            and nothing is stored twice; otherwise the weight files are copied along.
        weights: Stored precision; None keeps the checkpoint's, or stores fp16 if that is the precision.
        precision: What the graphs compute in. fp16 and bf16 are for GPUs, with islands in float32 chosen by
            measurement (`lego_export.islands`); int8 is for CPUs (`lego_export.quantise`).
        link: Hard-link the weight files, where the file system can, instead of copying them.
        device: Where onnxruntime runs the graphs to check them, "cpu" or "cuda".
        announce: Called with each graph's name before its export.

    Returns:
        The manifest that was written.

    Raises:
        LegoError: The checkpoint is damaged, its context lacks a block, `output` is something else or cannot be
            written, the disk is full, or a graph differs from torch.
    """
    checkpoint, output = Path(checkpoint), Path(output)
    require_providers(device)
    if precision == "fp16":
        weights = weights or "fp16"
    in_place = output.is_dir() and output.samefile(checkpoint)
    _check_request(checkpoint, output, weights, precision, link, in_place)
    # Weights that are to be converted have to be in memory.
    modules = LegoCheckpoint.load(checkpoint, vllm_as_stored=weights in (None, stored_precision(checkpoint, "vllm")))
    _check_schedule(modules)
    if weights is not None and stored_precision(checkpoint) != weights:
        round_weights(modules, weights)
    is_new = not output.exists()
    try:
        output.mkdir(parents=True, exist_ok=True)
        with folder_aside(output, _ASIDE) as directory:
            # An in-place build has the weights beside its graphs only while it checks them.
            stage_weights(checkpoint, directory, weights, link or in_place)
            for name, source in TOKENIZERS.items():
                shutil.copyfile(checkpoint / source, directory / name)
            graphs, parity, precisions = _export_graphs(modules, directory, precision, device, announce)
            manifest = _describe(checkpoint, modules, directory, graphs, parity, precision, precisions)
            manifest.save(directory)
            _move_into_place(directory, output, manifest, in_place)
    except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
        raise LegoError(
            f"the engines in {output} cannot be made ({error}): make room there, or choose another place; what was "
            "there is as it was"
        ) from error
    finally:
        if is_new and output.is_dir() and not any(output.iterdir()):
            output.rmdir()
    return manifest


def _check_request(
    checkpoint: Path, output: Path, weights: Precision | None, precision: Compute, link: bool, in_place: bool
) -> None:
    """Refuses what cannot be built, before the checkpoint is read: that may take minutes."""
    config = LegoConfig.load(checkpoint)
    if config.conditioning != "joint":
        raise LegoError(
            f"{checkpoint} is conditioned on {config.conditioning!r}, and servers run the whole method only: "
            "train it with diffusion.conditioning=joint, or use it with lego_model.pipeline.LegoPipeline"
        )
    stored = stored_precision(checkpoint)
    if in_place and weights is not None and stored != weights:
        raise LegoError(
            f"{output} is the checkpoint itself, stored as {stored}: choose another directory for {weights} weights"
        )
    if precision == "int8":
        headers = (read_header(checkpoint, file) for file in weight_files(checkpoint, ("vllm",)))
        numbers = sum(math.prod(each.shape) for header in headers for each in header)
        if numbers > INT8_NUMBERS:
            raise LegoError(
                f"{checkpoint / 'vllm'} holds {numbers / 1e6:,.0f} million numbers; int8 is for small models, up to "
                f"{INT8_NUMBERS / 1e6:,.0f} million: choose --precision fp16 or bf16"
            )
    if in_place and precision == "int8":
        raise LegoError(f"{output} is the checkpoint itself, which has no int8 weights: choose another directory")
    if not in_place:
        _check_output(output)
    place = existing_folder(output)
    if not os.access(place, os.W_OK):
        raise LegoError(f"{place} cannot be written to: choose another place for the engines")
    needed = staged_bytes(checkpoint, weights, linked=link or in_place)
    if needed > (free := shutil.disk_usage(place).free):
        raise LegoError(
            f"the engines take about {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free in {place}: make room, "
            "choose another place, or share the checkpoint's weights with --link"
        )


def _move_into_place(made: Path, output: Path, manifest: Manifest, in_place: bool) -> None:
    """Moves what was made to where it belongs, and removes what only the engines before had."""
    before = _own_files(output) if (output / "manifest.json").is_file() else set()
    moved = [] if in_place else weight_files(made)
    moved += [Path(graph.file) for graph in manifest.graphs.values()] + [Path(name) for name in TOKENIZERS]
    # The manifest last: with its checksums it is valid only when everything else is there.
    for file in (*moved, Path("manifest.json")):
        (output / file).parent.mkdir(exist_ok=True)
        os.replace(made / file, output / file)
    for file in before - set(moved):
        if not (in_place and file.suffix == ".safetensors"):  # the checkpoint's own
            (output / file).unlink()
            if not any((output / file).parent.iterdir()):
                (output / file).parent.rmdir()


def _own_files(output: Path) -> set[Path]:
    """Returns what engines that are there consist of, as far as it is certain that a build wrote it."""
    graphs = {Path(f"{name}.onnx") for name in (*GRAPHS, CACHE_GRAPH, *STUDENT_GRAPHS)}
    return {file for file in (*graphs, *weight_files(output)) if (output / file).is_file()}


def _export_graphs(
    modules: LegoCheckpoint, directory: Path, precision: Compute, device: str, announce: Announce
) -> tuple[dict[str, GraphSpec], dict[str, dict[str, float]], dict[str, GraphPrecision]]:
    """Writes and checks every graph; returns what the manifest says of them, their parity and their precision."""
    definitions = define_graphs(modules)
    index = WeightIndex(directory)
    samples = Samples(modules, definitions, [synthetic_frame(seed) for seed in range(2)])
    specs, parity, precisions = {}, {}, {}
    models: dict[str, ir.Model] = {}
    adapter = read_adapter(directory) if modules.student is not None else {}
    for name, definition in definitions.items():
        announce(name)
        if name in STUDENT_GRAPHS:
            outputs = [spec.name for spec in definition.outputs]
            models[name] = student_graph(models[name.removesuffix("_student")], adapter, outputs)
        else:
            models[name] = convert(definition)
            share_weights(models[name], index, definition.parts)
        path = directory / f"{name}.onnx"
        model = models[name]
        if precision == "fp16":
            definition = _half_between_graphs(definition)
        if precision in DTYPES:
            feeds = samples.feeds(name, _CHECKED_BATCH)
            model, precisions[name] = choose_islands(model, precision, definition, feeds, directory)
        elif precision == "int8":
            feeds = samples.feeds(name, _CHECKED_BATCH)
            model, precisions[name] = quantise(name, model, definition, feeds, directory)
        content = ir.to_proto(model).SerializeToString(deterministic=True)
        path.write_bytes(content)
        specs[name] = GraphSpec(path.name, hashlib.sha256(content).hexdigest(), definition.inputs, definition.outputs)
        parity[name] = _check(name, path, definition, samples, precisions.get(name, GraphPrecision()), device).rounded()
    if precision == "int8":
        keep_used_weights(directory, [spec.file for spec in specs.values()])
        specs = {name: replace(spec, sha256=file_sha256(directory / spec.file)) for name, spec in specs.items()}
    return specs, parity, precisions


def _half_between_graphs(definition: GraphDefinition) -> GraphDefinition:
    """Returns a graph that takes and gives in float16 what graphs hand to graphs: caches, keys and values."""
    kept = ("past_", "present_", "key.", "value.")

    def half(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(replace(spec, dtype="float16") if spec.name.startswith(kept) else spec for spec in specs)

    return replace(definition, inputs=half(definition.inputs), outputs=half(definition.outputs))


def _describe(
    checkpoint: Path, modules: LegoCheckpoint, directory: Path,
    graphs: dict[str, GraphSpec], parity: dict[str, dict[str, float]], precision: Compute,
    precisions: dict[str, GraphPrecision],
) -> Manifest:  # fmt: skip
    language, vae = modules.vllm.config.text_config, modules.vae.config
    beginning, end, padding = modules.special_text_tokens
    return Manifest(
        lego=modules.config,
        schedule=_schedule(modules),
        decoder=DecoderSpec(
            layers=language.num_hidden_layers,
            key_value_heads=language.num_key_value_heads,
            head_dim=head_dim(modules),
            hidden_size=language.hidden_size,
            bos_token_id=language.bos_token_id,
            eos_token_id=language.eos_token_id,
        ),
        latent=LatentSpec(vae.latent_channels, latent_factor(modules), vae.scaling_factor, measure_colour_map(modules)),
        context_width=modules.conditioner.config.context_width,
        text_pad_token_id=padding,
        text_bos_token_id=beginning,
        text_eos_token_id=end,
        precision=f"{stored_precision(directory)} weights, {precision} "
        + ("products" if precision == "int8" else "activations"),
        opset=OPSET,
        checkpoint_fingerprint=fingerprint(checkpoint),
        graphs=graphs,
        tool_versions={tool: version(tool) for tool in _TOOLS},
        files={
            file.as_posix(): file_sha256(directory / file)
            for file in (*weight_files(directory), *map(Path, TOKENIZERS))
        },
        parity=parity,
        precisions=precisions,
        least_psnr=LEAST_PSNR[precision],
    )


def _check(
    name: str, path: Path, definition: GraphDefinition, samples: Samples, precision: GraphPrecision, device: str
) -> Parity:
    graph = spelled_out(path) if precision.compute in DTYPES and device == "cpu" else path
    # One thread adds up in one order: the manifest's figures are the same at every build.
    session = open_session(graph, threads=1, weights=path.parent, device=device)
    parity = check_graph(session, definition, samples.feeds(name, _CHECKED_BATCH))
    if parity.relative > precision.tolerance:
        raise LegoError(
            f"graph {name} differs from torch by {parity.relative:.1e} of its largest value, more than "
            f"{precision.tolerance:g}; build with other versions of torch and onnxruntime ({version('torch')} and "
            f"{version('onnxruntime')} here)"
        )
    return parity


def _check_schedule(modules: LegoCheckpoint) -> None:
    """Refuses a noise schedule that the manifest cannot say: the server would sample with other sigmas."""
    served = SigmaSchedule(_schedule(modules)).sigmas(modules.scheduler.config.num_train_timesteps)[-2::-1]
    alpha_bar = modules.scheduler.alphas_cumprod.double().numpy()
    if not np.allclose(served, np.sqrt((1 - alpha_bar) / alpha_bar), rtol=1e-2):
        kind = modules.scheduler.config.beta_schedule
        raise LegoError(
            f"the scheduler's noise schedule (beta_schedule {kind!r}) is not the one the server samples with: betas "
            "linear in their square root (scaled_linear), not rescaled"
        )


def _schedule(modules: LegoCheckpoint) -> NoiseSchedule:
    config = modules.scheduler.config
    return NoiseSchedule(config.num_train_timesteps, config.beta_start, config.beta_end, config.prediction_type)


def _check_output(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise LegoError(f"{output} is a file; give a directory for the engines")
    if not output.exists() or all(is_aside(file, _ASIDE) for file in output.iterdir()):
        return
    if (output / "lego.json").exists():
        raise LegoError(f"{output} is another checkpoint, whose weights would be overwritten; choose another directory")
    if not (output / "manifest.json").exists():
        raise LegoError(f"{output} holds files that are no engines; choose a new or an empty directory")
