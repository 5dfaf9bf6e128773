"""A replica's figures, beside Ray's own at the node's Prometheus port."""

from __future__ import annotations

from ray.serve.metrics import Counter, Histogram

from lego_server.metrics import SECONDS, Metrics


class ReplicaMetrics(Metrics):
    """Tells Ray of the engine's calls; how queries go is counted by the server."""

    def __init__(self) -> None:
        super().__init__()
        self._ray_calls = Histogram(
            "lego_engine_call_seconds", description="Time of engine calls.", boundaries=list(SECONDS),
            tag_keys=("call",),
        )  # fmt: skip
        self._ray_failures = Counter(
            "lego_engine_call_failures", description="Engine calls that raised an error.", tag_keys=("call",)
        )
        self._ray_steps = Counter("lego_denoising_steps", description="Denoising steps done, over all queries.")

    def engine_called(self, call: str, queries: int, rows: int, seconds: float) -> None:
        """See `Metrics.engine_called`."""
        super().engine_called(call, queries, rows, seconds)
        self._ray_calls.observe(seconds, tags={"call": call})
        if call == "denoise":
            self._ray_steps.inc(queries)

    def engine_call_failed(self, call: str) -> None:
        """See `Metrics.engine_call_failed`."""
        super().engine_call_failed(call)
        self._ray_failures.inc(tags={"call": call})
