"""Ray itself: an instance of this server's own, or a cluster that it joins and leaves."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from lego_core.errors import LegoError
from ray import serve
from ray.serve.schema import ApplicationStatus

from lego_server.cluster.requirement import require_head
from lego_server.config import ClusterSettings

_SERVE = "serve"  # the namespace of Ray Serve's own actors


@contextmanager
def connected(settings: ClusterSettings) -> Iterator[None]:
    """Connects to Ray, and lets go of it at the end; an instance of the server's own ends with all its processes.

    Raises:
        LegoError: There is no such cluster, or it lets nobody in.
    """
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.WARNING)
    own = settings.ray_address is None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody asked for figures to be sent home
    if settings.ray_address is not None:
        require_head(settings.ray_address)
    try:
        ray.init(
            address="local" if own else settings.ray_address, include_dashboard=False if own else None,
            log_to_driver=False, configure_logging=False,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        where = settings.ray_address or "a Ray of this machine's own"
        raise LegoError(f"cannot connect to {where} ({error}): start it, or name another with --ray-address") from error
    found = any(each["namespace"] == _SERVE for each in ray.util.list_named_actors(all_namespaces=True))
    try:
        start_serve()
        yield
    finally:
        # In a joined cluster Ray Serve is stopped by who started it, unless others use it by now; with a Ray of this
        # server's own, all ends.
        if not own and not found and _all_deleted():
            serve.shutdown()
        ray.shutdown()


def _all_deleted() -> bool:
    return all(each.status == ApplicationStatus.DELETING for each in serve.status().applications.values())


def start_serve() -> None:
    """Starts Ray Serve in the cluster, unless it is there: without its own ports, as wearers reach this server only."""
    serve.start(proxy_location="Disabled", logging_config={"log_level": "WARNING"})
