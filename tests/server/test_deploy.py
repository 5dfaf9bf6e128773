"""What `deploy/` says of the server is what the server has."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from lego_server.config import ServerConfig
from lego_server.config_file import load_config
from lego_server.settings import settings_of

from tests.server.fake_engine import FakeEngine
from tests.server.harness import running

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVE_OPTIONS = {each.option for kind in ServerConfig.sections().values() for each in settings_of(kind)}


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def manifest(kind: str, name: str, folder: str = "kubernetes") -> Any:
    found = [
        each for path in sorted((DEPLOY / folder).glob("*.yaml")) for each in documents(path)
        if each["kind"] == kind and each["metadata"]["name"] == name
    ]  # fmt: skip
    assert len(found) == 1
    return found[0]


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    """The settings of Kubernetes, read as the server reads them: an unknown key or a bad value is an error."""
    path = tmp_path / "server.toml"
    path.write_text(manifest("ConfigMap", "lego-server")["data"]["server.toml"])
    assert tomllib.loads(path.read_text())
    return load_config(path)


def test_every_yaml_file_can_be_read() -> None:
    paths = [path for path in DEPLOY.rglob("*.yaml") if "helm" not in path.parts]
    assert len(paths) >= 10
    for path in paths:
        assert all(documents(path)), path


def test_kubernetes_names_the_ports_files_and_times_of_its_configuration(config: ServerConfig) -> None:
    pod = manifest("StatefulSet", "lego-server")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert ports == {"grpc": config.server.port, "web": config.web.port, "metrics": config.metrics.port}
    assert pod["terminationGracePeriodSeconds"] > config.server.shutdown_seconds
    assert config.engine.directory in mounts
    for file in (config.security.tls_cert, config.security.tls_key, config.security.token_file):
        assert file is not None and str(file.parent) in mounts
    assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in container["volumeMounts"]}


def test_kuberay_names_the_ports_files_times_and_machines_of_its_configuration(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(manifest("ConfigMap", "lego-cluster", "kuberay")["data"]["cluster.toml"])
    config = load_config(path)
    pod = manifest("Deployment", "lego-cluster", "kuberay")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert ports == {"grpc": config.server.port, "metrics": config.metrics.port}
    assert pod["terminationGracePeriodSeconds"] > config.server.shutdown_seconds
    for file in (config.security.tls_cert, config.security.tls_key, config.security.token_file):
        assert file is not None and str(file.parent) in mounts
    ray = manifest("RayCluster", "lego-ray", "kuberay")["spec"]
    [workers] = ray["workerGroupSpecs"]
    [worker] = workers["template"]["spec"]["containers"]
    assert f"ray=={ray['rayVersion']}" in (DEPLOY.parent / "constraints.txt").read_text().splitlines()
    for each in (container, worker):  # the server reads the manifest, the replicas all of it, at one place
        assert config.engine.directory in [mount["mountPath"] for mount in each["volumeMounts"]]
    assert workers["template"]["spec"]["terminationGracePeriodSeconds"] > config.limits.query_seconds
    assert (workers["minReplicas"], workers["maxReplicas"]) == (
        config.cluster.min_replicas, config.cluster.max_replicas,
    )  # fmt: skip
    assert float(worker["resources"]["requests"]["nvidia.com/gpu"]) == config.cluster.replica_gpus
    assert float(worker["resources"]["requests"]["cpu"]) >= config.cluster.replica_cpus
    assert config.cluster.ray_address == "auto" and "ray start --address=lego-ray-head-svc:" in container["args"][0]


@pytest.mark.parametrize("folder", ["kubernetes", "kuberay"])
def test_what_kustomization_lists_is_there(folder: str) -> None:
    [kustomization] = documents(DEPLOY / folder / "kustomization.yaml")
    others = {path.name for path in (DEPLOY / folder).glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == others


def test_compose_starts_the_server_with_options_it_has() -> None:
    [compose] = documents(DEPLOY / "compose.yaml")
    server = compose["services"]["server"]
    options = [word for word in server["command"] if word.startswith("--")]
    assert options and set(options) <= SERVE_OPTIONS
    assert all(port.startswith("127.0.0.1:") for each in compose["services"].values() for port in each["ports"])
    dockerfile = (DEPLOY.parent / server["build"]["dockerfile"]).read_text()
    assert f"EXPOSE {ServerConfig().server.port}" in dockerfile


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda", "Dockerfile.cluster"])
def test_images_have_the_extras_and_run_the_commands_that_exist(name: str) -> None:
    text = (DEPLOY / "docker" / name).read_text()
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    [extras] = re.findall(r'"\.\[(.*?)\]"', text)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert "USER 10001" in text and "HEALTHCHECK" in text
    kept = {line.lstrip("!").rstrip("/") for line in (DEPLOY.parent / ".dockerignore").read_text().splitlines()}
    packages = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    assert {Path(package).parts[0] for package in packages["packages"]} <= kept


async def test_health_is_asked_as_probes_ask_it() -> None:
    async with running(FakeEngine(), warm=False) as server:
        address = f"127.0.0.1:{server.server.port}"
        cold = await _health(address, "--service", "ready")
        await server.server.warm_up()
        warm = await _health(address, "--service", "ready")
        unknown = await _health(address, "--service", "readyness")
    gone = await _health(address)

    assert (cold.returncode, cold.stdout) == (1, "NOT_SERVING\n")
    assert (warm.returncode, warm.stdout) == (0, "SERVING\n")
    assert unknown.returncode != 0 and "knows no service 'readyness'" in unknown.stderr
    assert gone.returncode != 0 and "no health from" in gone.stderr and "Traceback" not in gone.stderr


async def _health(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lego_server", "health", *arguments]
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
