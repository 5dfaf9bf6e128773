"""One Ray on this machine for all tests of this folder; each has replicas of its own in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.cluster import engines
from tests.server.cluster.engines import EngineDirectory


@pytest.fixture(scope="package")
def ray_address() -> Iterator[str]:
    import ray
    from lego_server.cluster.instance import connected
    from lego_server.config import ClusterSettings

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_metrics_report_interval_ms", "1000")
        # Replicas cannot import this package: what they need of it travels with the function that uses it.
        ray.cloudpickle.register_pickle_by_value(engines)
        with connected(ClusterSettings()):
            yield ray.get_runtime_context().gcs_address


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, ray_address: str) -> Iterator[EngineDirectory]:
    """For tests that keep their replicas for the next test of the same file."""
    from lego_server.cluster.application import applications_of, delete

    yield EngineDirectory(tmp_path_factory.mktemp("shared") / "engines")
    for name in applications_of("lego"):
        delete(name)


@pytest.fixture
def directory(tmp_path: Path) -> EngineDirectory:
    return EngineDirectory(tmp_path / "engines")
