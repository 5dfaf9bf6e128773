"""`manifest.json`: what an engine directory holds and for which machine it was built.

Export writes it, the server reads it and refuses what does not fit, with a sentence that says what to rebuild.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lego_core.config import LegoConfig, number_in_range, whole_number_in_range
from lego_core.errors import LegoError
from lego_core.files import file_sha256, read_json

FORMAT_VERSION = 2
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
GRAPHS = (
    "text_encoder", "frame_encoder", "token_embedding", "decoder", "conditioner", "keys_values", "unet", "vae_decoder",
)  # fmt: skip
STUDENT_GRAPHS = ("keys_values_student", "unet_student")  # only of models that have a distilled student
# The U-Net without its deep layers, for feature caching. Engines built before it was known lack it, and run without.
CACHE_GRAPH = "unet_shallow"
PREDICTION_TYPES = ("epsilon", "v_prediction")
TENSOR_DTYPES = ("float32", "float16", "bfloat16", "int64", "int32")
PARITY = ("max_abs_error", "mean_abs_error", "max_abs_value")


def graph_names(lego: LegoConfig) -> tuple[str, ...]:
    """Returns the graphs that are built of a model."""
    return (*GRAPHS, CACHE_GRAPH) if lego.student is None else (*GRAPHS, CACHE_GRAPH, *STUDENT_GRAPHS)


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph. A dimension is a number, or the name of a dynamic one such as "batch"."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __post_init__(self) -> None:
        if self.dtype not in TENSOR_DTYPES:
            raise LegoError(f"tensor {self.name} is of dtype {self.dtype!r}; choose one of {', '.join(TENSOR_DTYPES)}")
        object.__setattr__(self, "shape", tuple(self.shape))


@dataclass(frozen=True)
class GraphSpec:
    """One ONNX file and its interface, in call order."""

    file: str
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class NoiseSchedule:
    """The diffusion process (lego-reference A4): betas linear in their square root.

    Attributes:
        train_timesteps: Steps of the training process (1000).
        beta_start: First beta.
        beta_end: Last beta.
        prediction_type: What the U-Net predicts, one of `PREDICTION_TYPES`.
    """

    train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    prediction_type: str = "epsilon"

    def __post_init__(self) -> None:
        if self.prediction_type not in PREDICTION_TYPES:
            raise LegoError(f"prediction_type is {self.prediction_type!r}; choose one of {', '.join(PREDICTION_TYPES)}")
        whole_number_in_range("train_timesteps", self.train_timesteps, 1, 100_000)
        for name in ("beta_start", "beta_end"):
            number_in_range(name, getattr(self, name), 1e-9, 0.999)


@dataclass(frozen=True)
class DecoderSpec:
    """The VLLM's language decoder.

    Attributes:
        layers: Transformer layers, each with its own cache.
        key_value_heads: Heads in the cache.
        head_dim: Width of one head.
        hidden_size: D, width of the hidden states.
        bos_token_id: Begins a prompt.
        eos_token_id: Ends a description.
    """

    layers: int
    key_value_heads: int
    head_dim: int
    hidden_size: int
    bos_token_id: int
    eos_token_id: int

    def __post_init__(self) -> None:
        for name, low in (
            ("layers", 1), ("key_value_heads", 1), ("head_dim", 1), ("hidden_size", 1), ("bos_token_id", 0),
            ("eos_token_id", 0),
        ):  # fmt: skip
            whole_number_in_range(name, getattr(self, name), low, 2**31 - 1)


@dataclass(frozen=True)
class LatentSpec:
    """The autoencoder's latent: (channels, resolution / factor, resolution / factor), times `scaling_factor`.

    Attributes:
        channels: Of the latent.
        factor: Pixels to a latent's, along each side.
        scaling_factor: Which the sampler's latent is multiplied with.
        colour_map: For each of red, green and blue, the weight of every channel and a constant: the picture's colours,
            as far as they depend linearly on the sampler's latent. Empty where it has not been measured.
    """

    channels: int
    factor: int
    scaling_factor: float
    colour_map: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        whole_number_in_range("channels", self.channels, 1, 1024)
        whole_number_in_range("factor", self.factor, 1, 64)
        number_in_range("scaling_factor", self.scaling_factor, 1e-6, 1e6)
        object.__setattr__(self, "colour_map", tuple(map(tuple, self.colour_map)))
        if self.colour_map and [len(row) for row in self.colour_map] != [self.channels + 1] * 3:
            raise LegoError(f"colour_map must hold 3 rows of {self.channels + 1} numbers")
        for row in self.colour_map:
            for value in row:
                number_in_range("colour_map", value, -1e6, 1e6)

    def colours(self, latent: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the colours (3, r, r), nominally in [-1, 1], of a sampler's latent (C, r, r) by the colour map."""
        weights = np.array(self.colour_map, np.float32)
        return np.einsum("kc,chw->khw", weights[:, :-1], latent) + weights[:, -1, None, None]


@dataclass(frozen=True)
class GraphPrecision:
    """What one graph computes in, and what that was found to cost against torch in float32.

    Errors are the largest over realistic inputs, as a share of the output's largest value. They are of a run with every
    rounding spelled out, not of a GPU.

    Attributes:
        compute: One of `PRECISIONS`: of matrix products and all else that is no island.
        tolerance: The error up to which a graph is good. In float32, sums taken in another order differ by about 1e-6;
            a wrong operator or a weight in the wrong place is beyond 1e-2.
        islands: Classes of nodes that compute in float32 nevertheless.
        nodes: How many nodes the float32 graph has.
        island_nodes: How many of them are islands.
        error: With the islands; None where it was not measured, or no output was finite.
        error_without_islands: With none but those without which numbers would overflow; None likewise.
        largest_activation: Largest absolute number between the nodes, None if it is not finite.
        largest_activation_at: Name of the value that holds it.
    """

    compute: str = "fp32"
    tolerance: float = 1e-3
    islands: tuple[str, ...] = ()
    nodes: int = 0
    island_nodes: int = 0
    error: float | None = None
    error_without_islands: float | None = None
    largest_activation: float | None = None
    largest_activation_at: str = ""

    def __post_init__(self) -> None:
        if self.compute not in PRECISIONS:
            raise LegoError(f"compute is {self.compute!r}; choose one of {', '.join(PRECISIONS)}")
        number_in_range("tolerance", self.tolerance, 1e-9, 1)
        object.__setattr__(self, "islands", tuple(self.islands))
        for name in ("nodes", "island_nodes"):
            whole_number_in_range(name, getattr(self, name), 0, 2**31 - 1)


@dataclass(frozen=True)
class Manifest:
    """Everything a server needs to know about an engine directory.

    Attributes:
        lego: The checkpoint's `lego.json`.
        schedule: The diffusion process.
        decoder: The VLLM decoder's shape.
        latent: The autoencoder's latent.
        context_width: C, width of the cross-attention context.
        text_pad_token_id: Pads the CLIP description to N tokens.
        text_bos_token_id: Begins the CLIP description.
        text_eos_token_id: Ends it.
        precision: Of weights and activations, such as "fp16 weights, fp32 activations".
        opset: ONNX operator set.
        checkpoint_fingerprint: sha256 over the checkpoint's files.
        graphs: One per name in `GRAPHS`, the student's, and `CACHE_GRAPH` where there is one.
        files: sha256 of every other file a server reads, weights and tokenizers, by path relative to the directory.
        tool_versions: Versions that built the graphs.
        parity: Per graph, the figures named in `PARITY` against torch.
        precisions: Of each graph that does not simply compute in float32.
        least_psnr: What `lego-export verify` asks of guidance frames, in decibels against the torch pipeline's.
    """

    lego: LegoConfig
    schedule: NoiseSchedule
    decoder: DecoderSpec
    latent: LatentSpec
    context_width: int
    text_pad_token_id: int
    text_bos_token_id: int
    text_eos_token_id: int
    precision: str
    opset: int
    checkpoint_fingerprint: str
    graphs: dict[str, GraphSpec]
    files: dict[str, str]
    tool_versions: dict[str, str] = field(default_factory=dict)
    parity: dict[str, dict[str, float]] = field(default_factory=dict)
    precisions: dict[str, GraphPrecision] = field(default_factory=dict)
    least_psnr: float = 50.0

    def __post_init__(self) -> None:
        whole_number_in_range("context_width", self.context_width, 1, 2**31 - 1)
        for name in ("text_pad_token_id", "text_bos_token_id", "text_eos_token_id"):
            whole_number_in_range(name, getattr(self, name), 0, 2**31 - 1)
        if not isinstance(self.checkpoint_fingerprint, str):
            raise LegoError(f"checkpoint_fingerprint is {self.checkpoint_fingerprint!r}; it must be text")
        number_in_range("least_psnr", self.least_psnr, 1, 200)
        for name in ("files", "tool_versions"):
            value = getattr(self, name)
            if not (isinstance(value, dict) and all(isinstance(each, str) for each in value.values())):
                raise LegoError(f"{name} is {value!r}; it must give a text for each name")
        for graph, figures in self.parity.items():
            if not (isinstance(figures, dict) and all(isinstance(figures.get(name), int | float) for name in PARITY)):
                raise LegoError(f"parity of {graph} is {figures!r}; it must give {', '.join(PARITY)}")

    @property
    def graph_names(self) -> tuple[str, ...]:
        """Every graph that this engine directory holds, or must."""
        return tuple(name for name in graph_names(self.lego) if name != CACHE_GRAPH or name in self.graphs)

    def precision_of(self, graph: str) -> GraphPrecision:
        """Returns what a graph computes in."""
        return self.precisions.get(graph, GraphPrecision())

    @property
    def model_version(self) -> str:
        """Name and fingerprint, short enough to show: identifies the weights."""
        return f"{self.lego.name}-{self.checkpoint_fingerprint[:12]}"

    def save(self, directory: Path) -> None:
        """Writes `manifest.json`."""
        values = {"format_version": FORMAT_VERSION, **asdict(self)}
        values["lego"] = self.lego.to_dict()
        (directory / "manifest.json").write_text(json.dumps(values, indent=2) + "\n")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Reads and checks `manifest.json`; every graph file must be present (`check_content` reads them).

        Raises:
            LegoError: Not an engine directory, another format version, a missing graph or file.
        """
        directory = Path(directory)
        path = directory / "manifest.json"
        if not path.is_file():
            if (directory / "lego.json").is_file():
                raise LegoError(f"{directory} is a checkpoint: build engines of it with lego-export build")
            raise LegoError(f"{directory} is not an engine directory: it has no manifest.json")
        try:
            values: dict[str, Any] = read_json(path)
            version = values.pop("format_version", None)
            if version != FORMAT_VERSION:
                raise LegoError(f"format_version is {version!r}, this software reads {FORMAT_VERSION}")
            graphs = {
                name: GraphSpec(
                    spec["file"], spec["sha256"],
                    tuple(TensorSpec(**t) for t in spec["inputs"]), tuple(TensorSpec(**t) for t in spec["outputs"]),
                )
                for name, spec in values.pop("graphs").items()
            }  # fmt: skip
            manifest = cls(
                lego=LegoConfig.from_dict(values.pop("lego")),
                schedule=NoiseSchedule(**values.pop("schedule")),
                decoder=DecoderSpec(**values.pop("decoder")),
                latent=LatentSpec(**values.pop("latent")),
                graphs=graphs,
                precisions={name: GraphPrecision(**each) for name, each in values.pop("precisions", {}).items()},
                **values,
            )
        except KeyError as error:
            raise LegoError(f"{path} lacks the key {error}: rebuild it with lego-export build") from error
        except (ValueError, TypeError, AttributeError) as error:  # ValueError: not JSON, not text, or a LegoError
            raise LegoError(f"{path} is not a valid manifest ({error}): rebuild it with lego-export build") from error
        for name in manifest.graph_names:
            if name not in graphs:
                raise LegoError(f"{path} lists no graph {name}: rebuild it with lego-export build")
            file = str(graphs[name].file)
            if Path(file).name != file or not (directory / file).is_file():
                raise LegoError(f"{directory} lacks the graph file {file}: rebuild it with lego-export build")
        return manifest

    def check_content(self, directory: Path) -> None:
        """Reads every file that belongs to the engines and compares it with its checksum.

        Raises:
            LegoError: A file is missing, altered or outside the directory.
        """
        for name, sha256 in {**{graph.file: graph.sha256 for graph in self.graphs.values()}, **self.files}.items():
            path = directory / name
            if not path.resolve().is_relative_to(directory.resolve()):
                raise LegoError(f"{directory / 'manifest.json'} names {name}, which lies outside: do not use it")
            if not path.is_file():
                raise LegoError(f"{directory} lacks {name}: restore it, or rebuild it with lego-export build")
            found = file_sha256(path)
            if found != sha256:
                raise LegoError(
                    f"{path} is not the file its manifest describes (sha256 {found[:12]}..., not {sha256[:12]}...): "
                    "restore it, or rebuild it with lego-export build"
                )
