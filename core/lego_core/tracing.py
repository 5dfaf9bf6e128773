"""Where spans go, for the server and the client alike; needs the extra `telemetry`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lego_core.errors import LegoError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_EXPORT_SECONDS = 3.0  # retries included: a collector that is down must not hold up who wants to stop


def otlp_provider(service: str, endpoint: str, ratio: float = 1.0) -> TracerProvider:
    """Returns a provider whose spans are sent by OTLP over gRPC, in batches, from a thread of its own.

    Args:
        service: The name spans are filed under.
        endpoint: Such as http://localhost:4317; https for TLS.
        ratio: Share of traces to record, 0 to 1, where no caller has decided.

    Raises:
        LegoError: OpenTelemetry is not installed, or the endpoint is no address.
    """
    if not endpoint.startswith(("http://", "https://")):
        raise LegoError(f"the trace endpoint is {endpoint!r}; it must be an address such as http://localhost:4317")
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
    except ImportError as error:
        raise LegoError(
            f"traces need OpenTelemetry ({error}): pip install 'lego-ar[telemetry]', or leave the endpoint unset"
        ) from error
    provider = TracerProvider(sampler=ParentBasedTraceIdRatio(ratio), resource=Resource.create({SERVICE_NAME: service}))
    exporter = OTLPSpanExporter(endpoint, insecure=endpoint.startswith("http://"), timeout=_EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
