"""How a server is set up: every key there is, in sections, each with its default, its range and what it means.

A new section is a frozen dataclass of `setting`s here or in a module of its own, and one line in `ServerConfig`.
`docs/operations.md` says how files and options set them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from lego_core.errors import LegoError

from lego_server.gateway.config import WebSettings
from lego_server.security.config import SecurityConfig
from lego_server.settings import Section, setting
from lego_server.speech.config import SpeechSettings

DEVICES = ("cpu", "cuda", "tensorrt", "tensorrt-plans", "openvino", "openvino-bf16")
_SPARE_BYTES = 2**20  # of a message, beside the frame in it


@dataclass(frozen=True)
class Listening(Section):
    """`[server]`: where it listens, and how it stops."""

    host: str = setting("127.0.0.1", "Address to listen on; the default is this machine only.")
    port: int = setting(50051, "TCP port; 0 takes any free one.", 0, 65535)
    shutdown_seconds: float = setting(
        10.0, "Time for queries in flight to finish after a request to stop, in seconds.", 0, 600
    )
    keepalive_seconds: float = setting(
        20.0, "How often an idle connection is checked, so that a vanished client frees its work, in seconds.", 1, 3600
    )


@dataclass(frozen=True)
class EngineSettings(Section):
    """`[engine]`: what runs the model, and how queries share it."""

    directory: str | None = setting(None, "Engine directory, as lego-export build writes it.", option="--engines")
    models: tuple[str, ...] = setting(
        (), "A further model, as NAME=DIRECTORY; clients ask for it by name.", option="--model"
    )
    device: str = setting("cpu", "What runs the model.", choices=DEVICES)
    threads: int = setting(0, "CPU threads; 0 lets onnxruntime choose.", 0, 1024)
    max_active: int = setting(4, "Queries served in turns; each holds its caches in the engine's memory.", 1, 256)
    max_waiting: int = setting(16, "Queries that may wait behind them; one more is refused.", 0, 100_000)
    max_batch: int = setting(
        1, "Queries per engine call; 1 keeps every picture bit-identical whatever runs beside it, and is fastest on a "
        "CPU.", 1, 256,
    )  # fmt: skip
    lanes: int = setting(
        1, "Engine calls at the same time, each with its share of the threads; on a CPU, more finish more queries a "
        "minute, and make one query alone slower.", 1, 64,
    )  # fmt: skip
    engine_call_seconds: float = setting(
        60.0, "Longest one engine call may take before health says that the engine is stuck, in seconds.", 0.1, 86_400
    )


@dataclass(frozen=True)
class Limits(Section):
    """`[limits]`: what one query may ask for."""

    max_image_bytes: int = setting(8 * 2**20, "Largest frame, encoded, in bytes.", 1024, 2**30)
    max_image_pixels: int = setting(
        50_000_000, "Largest frame, decoded, in pixels; Pillow itself opens none above 178 million.", 64, 178_000_000
    )
    max_message_bytes: int | None = setting(
        None, "Largest gRPC message in bytes, above max_image_bytes: a larger one ends its call; unset: 16 MiB, or "
        "more where max_image_bytes needs it.", 4096, 2**31 - 1,
    )  # fmt: skip
    max_query_characters: int = setting(500, "Longest query, in characters.", 1, 100_000)
    max_description_characters: int = setting(1000, "Longest description a client may give, in characters.", 1, 100_000)
    max_steps: int = setting(1000, "Most denoising steps of one query.", 1, 1000)
    query_seconds: float = setting(
        300.0, "Longest a query may take, in seconds; a client may ask for less.", 0.1, 86_400
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.message_bytes <= self.max_image_bytes:
            raise LegoError(
                f"max_message_bytes is {self.max_message_bytes}; it must be above the {self.max_image_bytes} of "
                "max_image_bytes"
            )

    @property
    def message_bytes(self) -> int:
        """Largest gRPC message, in bytes."""
        return self.max_message_bytes or max(16 * 2**20, self.max_image_bytes + _SPARE_BYTES)


@dataclass(frozen=True)
class Sessions(Section):
    """`[sessions]`: wearers."""

    max_sessions: int = setting(64, "Sessions, those that wait to be resumed included.", 1, 100_000)
    resume_seconds: float = setting(
        30.0, "How long a session, and its query, outlive a broken stream, in seconds; 0 drops them at once.", 0, 3600
    )
    idle_seconds: float = setting(
        600.0, "Time without a message from the client after which a session ends, in seconds.", 1, 86_400
    )
    frame_credits: int = setting(3, "Frames of a session that may be on their way at once.", 1, 64)
    encode_ahead_seconds: float = setting(
        0.2, "Least time between frames of a session that are encoded before a query asks about them, in seconds; 0 "
        "encodes none ahead.", 0, 3600,
    )  # fmt: skip


@dataclass(frozen=True)
class Logging(Section):
    """`[logging]`: what is written to stderr."""

    format: str = setting("text", "One line of text or of JSON for each event.", choices=("text", "json"),
                          option="--log-format")  # fmt: skip
    level: str = setting("warning", "Least severity that is written; info has one line per query.",
                         choices=("debug", "info", "warning", "error"), option="--log-level")  # fmt: skip


@dataclass(frozen=True)
class MetricsSettings(Section):
    """`[metrics]`: figures for Prometheus."""

    port: int | None = setting(
        None, "Port of http://HOST:PORT/metrics; 0 takes any free one, unset serves none.", 0, 65535,
        option="--metrics-port",
    )  # fmt: skip
    host: str = setting("127.0.0.1", "Address it listens on; the default is this machine only.",
                        option="--metrics-host")  # fmt: skip


@dataclass(frozen=True)
class TracingSettings(Section):
    """`[tracing]`: OpenTelemetry."""

    endpoint: str | None = setting(
        None, "Where spans go by OTLP over gRPC, such as http://localhost:4317; unset records none.",
        option="--trace-endpoint",
    )  # fmt: skip
    ratio: float = setting(
        1.0, "Share of traces recorded, where the client has not decided.", 0, 1, option="--trace-ratio"
    )


@dataclass(frozen=True)
class ClusterSettings(Section):
    """`[cluster]`: replicas of `lego-server cluster`, each with an engine; `lego-server serve` has none."""

    ray_address: str | None = setting(
        None, "A running Ray cluster that this machine is a node of: auto, or HOST:PORT of its head; unset starts one "
        "on this machine only, and stops it.",
    )  # fmt: skip
    name: str = setting(
        "lego", "Names the replicas; no two servers of a cluster may share it.", option="--cluster-name"
    )
    min_replicas: int = setting(1, "Replicas of a model there are at any time.", 1, 10_000)
    max_replicas: int = setting(1, "Most replicas of a model.", 1, 10_000)
    replica_cpus: float = setting(1.0, "CPUs that Ray sets aside for a replica.", 0, 1024)
    replica_gpus: float = setting(0.0, "GPUs that Ray sets aside for a replica; half a GPU is 0.5.", 0, 64)
    target_ongoing: float = setting(
        2.0, "Queries for each replica; while there are more, replicas are added, while fewer, taken away.", 0.1, 1000
    )
    scale_up_seconds: float = setting(5.0, "How long there are more before replicas are added, in seconds.", 0, 86_400)
    scale_down_seconds: float = setting(
        300.0, "How long there are fewer before replicas are taken away, in seconds.", 0, 86_400
    )
    max_ongoing: int = setting(
        8, "Queries a replica holds at once, those that wait for its engine (max_active) included.", 1, 10_000
    )
    max_queued: int = setting(64, "Queries that may wait for a replica with room; one more is refused.", 1, 1_000_000)
    retries: int = setting(2, "How often a query whose replica is lost is given to another.", 0, 100)
    start_seconds: float = setting(600.0, "Longest the replicas of a model may take to start, in seconds.", 1, 86_400)
    keep_replicas: bool = setting(
        False, "Leave the replicas in a joined cluster when the server stops; the next of its name takes them over."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_replicas > self.max_replicas:
            raise LegoError(
                f"min_replicas is {self.min_replicas}, above the {self.max_replicas} of max_replicas: raise that"
            )
        if ":" in self.name:
            raise LegoError(f"name is {self.name!r}; it must be without a colon")
        if self.ray_address is not None and "://" in self.ray_address:
            raise LegoError(
                f"ray_address is {self.ray_address!r}; streams of answers need a node of the cluster on this machine: "
                "join it with ray start, then give auto or HOST:PORT"
            )
        if self.keep_replicas and self.ray_address is None:
            raise LegoError("keep_replicas needs a cluster that outlives the server: give ray_address")


@dataclass(frozen=True)
class ServerConfig:
    """Every setting of a server; each has a default that suits one machine. A field is a section of the file."""

    server: Listening = field(default_factory=Listening)
    engine: EngineSettings = field(default_factory=EngineSettings)
    limits: Limits = field(default_factory=Limits)
    sessions: Sessions = field(default_factory=Sessions)
    security: SecurityConfig = field(default_factory=SecurityConfig)
    logging: Logging = field(default_factory=Logging)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    tracing: TracingSettings = field(default_factory=TracingSettings)
    web: WebSettings = field(default_factory=WebSettings)
    speech: SpeechSettings = field(default_factory=SpeechSettings)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every address at which wearers are served."""
        return (self.server.host,) if self.web.port is None else (self.server.host, self.web.host)

    cluster: ClusterSettings = field(default_factory=ClusterSettings)

    @classmethod
    def sections(cls) -> dict[str, type[Section]]:
        """Returns every section by name."""
        return {each.name: each.default_factory for each in fields(cls)}  # type: ignore[misc]

    def with_values(self, values: dict[str, dict[str, Any]]) -> Self:
        """Returns this with other values, by section and key.

        Raises:
            LegoError: A value is of another type or outside its range.
        """
        sections = {name: replace(getattr(self, name), **keys) for name, keys in values.items()}
        return replace(self, **sections)
