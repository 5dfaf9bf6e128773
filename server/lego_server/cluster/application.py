"""The replicas of one model as a Ray Serve application: started, found again, and deleted. All of it blocks."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from lego_core.errors import LegoError
from lego_core.manifest import Manifest
from ray import serve
from ray.exceptions import RayError
from ray.serve.api import RunTarget
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus

from lego_server.backend import Deployed
from lego_server.cluster.instance import start_serve
from lego_server.cluster.remote import RemoteGuide
from lego_server.cluster.replica import Replica
from lego_server.config import ClusterSettings, ServerConfig
from lego_server.engines.base import Engine
from lego_server.telemetry import Telemetry
from lego_server.texts import Texts

_PERIOD = 0.1  # seconds between looks at whether replicas have started
_MORE_SHUTDOWN_SECONDS = 5.0  # for what a query has left to do once its deadline has ended it
_START_ATTEMPTS = 2  # of a replica, before the application is given up
_OF_RAY = (RayError, RayServeException, TimeoutError)
_QUIET = {"log_level": "WARNING", "enable_access_log": False}


class Application(Deployed):
    """The replicas of one version of a model.

    Attributes:
        name: Ray Serve's name of it: the cluster's, the model's version, a digest of what the replicas are given, and
            a random part, so that a version can be served again while an earlier application of it is leaving.
        manifest: The model's.
        texts: The model's tokenizers.
    """

    def __init__(self, load: Callable[[Path], Engine], directory: Path, config: ServerConfig) -> None:
        """Describes an application; nothing runs yet.

        Args:
            load: Loads an engine directory; called in each replica.
            directory: The engine directory, at the same place on every machine.
            config: How many replicas there are, and how queries share one.

        Raises:
            LegoError: It is no engine directory.
        """
        self.manifest = Manifest.load(directory)
        self.texts = Texts.load(directory, self.manifest)
        self._settings = config.cluster
        self._query_seconds = config.limits.query_seconds
        self._given = load, directory, self.manifest.model_version, _config_of_replicas(config)
        shared = replace(config.cluster, keep_replicas=False, retries=0, start_seconds=1.0)
        digest = hashlib.blake2b(repr((version("lego-ar"), *self._given[1:], shared)).encode(), digest_size=4)
        self._prefix = f"{config.cluster.name}:{self.manifest.model_version}:{digest.hexdigest()}:"
        self.name = self._prefix + secrets.token_hex(4)
        self._handle: DeploymentHandle | None = None

    @property
    def handle(self) -> DeploymentHandle:
        """Asks a replica; there once the application has started."""
        assert self._handle is not None
        return self._handle

    def adopt(self, names: Iterable[str]) -> bool:
        """Takes over an application that an earlier server has left, if one of these is as this would be."""
        found = next((name for name in names if name.startswith(self._prefix)), None)
        if found is None or serve.status().applications[found].status != ApplicationStatus.RUNNING:
            return False
        self.name = found
        self._handle = serve.get_app_handle(found)
        return True

    def start(self) -> None:
        """Starts the replicas.

        Raises:
            LegoError: They fail, or need longer than `start_seconds`; those that run are stopped.
        """
        deployment = serve.deployment(**_options(self._settings, self._query_seconds))(Replica)
        target = RunTarget(deployment.bind(*self._given), self.name, route_prefix=None, logging_config=_QUIET)
        try:
            start_serve()  # again, in case that another has stopped it
            serve.run_many([target], wait_for_applications_running=False)
            self._wait()
            self._handle = serve.get_app_handle(self.name)
        except BaseException as error:  # a signal to stop included
            with contextlib.suppress(*_OF_RAY):
                self.delete()
            if isinstance(error, _OF_RAY):
                raise LegoError(f"Ray does not start replicas ({error}): ray status says how it is") from error
            raise

    def backend(self, config: ServerConfig, telemetry: Telemetry) -> RemoteGuide:
        """See `Deployed.backend`."""
        return RemoteGuide(self, config, telemetry)

    def delete(self) -> None:
        """Has the replicas stopped, once what they have begun is over; does not wait for it."""
        delete(self.name)

    def _wait(self) -> None:
        """Waits until as many replicas run as there must be at any time.

        Raises:
            LegoError: They fail, or need longer.
        """
        limit = self._settings.start_seconds
        until = time.monotonic() + limit
        while (status := serve.status().applications[self.name]).status != ApplicationStatus.RUNNING:
            failed = status.status == ApplicationStatus.DEPLOY_FAILED
            if failed or time.monotonic() > until:
                told = "do not start" if failed else f"have not started within {limit:g} s"
                reasons = "\n".join([status.message, *(each.message for each in status.deployments.values())])
                raise LegoError(f"the replicas of {self.manifest.model_version} {told}: {_last_words(reasons)}")
            time.sleep(_PERIOD)


def applications_of(name: str) -> list[str]:
    """Returns the applications that servers of a name have in the cluster, but for those that are being deleted."""
    return [
        each for each, its in serve.status().applications.items()
        if each.partition(":")[0] == name and its.status != ApplicationStatus.DELETING
    ]  # fmt: skip


def delete(name: str) -> None:
    """Has an application's replicas stopped, once what they have begun is over; does not wait for it."""
    serve.delete(name, _blocking=False)


def _config_of_replicas(config: ServerConfig) -> ServerConfig:
    """Returns what a replica need know; how many queries it gets is for Ray Serve to say."""
    engine = replace(config.engine, directory=None, models=(), max_waiting=config.cluster.max_ongoing)
    return ServerConfig(engine=engine, limits=config.limits, logging=config.logging)


def _options(settings: ClusterSettings, query_seconds: float) -> dict[str, object]:
    return {
        "name": "replica",
        "ray_actor_options": {"num_cpus": settings.replica_cpus, "num_gpus": settings.replica_gpus},
        "autoscaling_config": AutoscalingConfig(
            min_replicas=settings.min_replicas,
            max_replicas=settings.max_replicas,
            target_ongoing_requests=settings.target_ongoing,
            upscale_delay_s=settings.scale_up_seconds,
            downscale_delay_s=settings.scale_down_seconds,
            look_back_period_s=max(settings.scale_up_seconds, 2.0),
            metrics_interval_s=1.0,
        ),
        "max_ongoing_requests": settings.max_ongoing,
        "max_queued_requests": settings.max_queued,
        "graceful_shutdown_timeout_s": query_seconds + _MORE_SHUTDOWN_SECONDS,
        "graceful_shutdown_wait_loop_s": 0.2,
        "health_check_period_s": 2.0,
        "max_constructor_retry_count": _START_ATTEMPTS,
        "request_router_config": RequestRouterConfig(request_router_class="lego_server.cluster.routing.FrameRouter"),
    }


def _last_words(message: str) -> str:
    """Returns the last line of a traceback, or of whatever Ray says."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "Ray does not say why; ray status tells what it waits for"
