"""How a server is set up: where it listens and what it allows."""

from __future__ import annotations

from dataclasses import dataclass

from lego_core.errors import LegoError


@dataclass(frozen=True)
class ServerConfig:
    """Every limit of a server; each has a default that suits one machine.

    Attributes:
        host: Address to listen on. The default answers this machine only; others need `lego_server.security`.
        port: TCP port; 0 takes any free one.
        max_image_bytes: Largest encoded frame.
        max_image_pixels: Largest decoded frame; Pillow itself opens none above 178 million.
        max_message_bytes: Largest gRPC message; a larger one ends its call, so it leaves room above `max_image_bytes`.
        max_query_characters: Longest query.
        max_description_characters: Longest description a client may give.
        max_steps: Most denoising steps of one query.
        max_active: Queries that share the engine in turns; each holds its caches in the engine's memory.
        max_waiting: Queries that may wait behind those; one more is refused.
        max_batch: Queries whose engine calls may run as one. 1 keeps every picture bit-identical whatever runs
            beside it, and is fastest on a CPU.
        max_sessions: Open `Guide` streams.
        shutdown_seconds: Time for queries in flight to finish after a request to stop.
        keepalive_seconds: How often an idle connection is checked, so that a vanished client frees its work.
    """

    host: str = "127.0.0.1"
    port: int = 50051
    max_image_bytes: int = 8 * 2**20
    max_image_pixels: int = 50_000_000
    max_message_bytes: int = 16 * 2**20
    max_query_characters: int = 500
    max_description_characters: int = 1000
    max_steps: int = 1000
    max_active: int = 4
    max_waiting: int = 16
    max_batch: int = 1
    max_sessions: int = 64
    shutdown_seconds: float = 10.0
    keepalive_seconds: float = 20.0

    def __post_init__(self) -> None:
        if not self.host:
            raise LegoError("host is empty; give an address such as 127.0.0.1")
        for name, low, high in (
            ("port", 0, 65535), ("max_image_bytes", 1024, 2**30), ("max_image_pixels", 64, 178_000_000),
            ("max_message_bytes", 4096, 2**31 - 1), ("max_query_characters", 1, 100_000),
            ("max_description_characters", 1, 100_000), ("max_steps", 1, 1000), ("max_active", 1, 256),
            ("max_waiting", 0, 100_000), ("max_batch", 1, 256), ("max_sessions", 1, 100_000),
            ("shutdown_seconds", 0, 600), ("keepalive_seconds", 1, 3600),
        ):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:
                raise LegoError(f"{name} is {value}; it must lie between {low} and {high}")
        if self.max_message_bytes <= self.max_image_bytes:
            raise LegoError(
                f"max_message_bytes is {self.max_message_bytes}; it must be above the {self.max_image_bytes} of "
                "max_image_bytes"
            )
