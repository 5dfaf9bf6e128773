"""What is looked at, one function each. A new check is a function here or elsewhere, and one line in `CHECKS`."""

from __future__ import annotations

import functools
import os
import platform
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from lego_core.errors import LegoError
from lego_core.manifest import Manifest
from lego_core.secrecy import is_loopback

from lego_server.cluster.requirement import require_head, require_ray
from lego_server.config import ServerConfig
from lego_server.doctor.machine import available_memory, open_files_limit
from lego_server.models import named_directories
from lego_server.ports import listen_fault

_PACKAGES = (
    "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "grpcio", "protobuf", "numpy", "websockets",
)  # fmt: skip
_SPARE_FILES = 64  # libraries, weights, logs
# Beside the weights: the interpreter, the runtime and one query. lego-nano's server takes 300 MB with 23 MB of weights.
_BASE_BYTES = 250 * 2**20
# onnxruntime on a CPU keeps weights as float32 and once more in the order its kernels like.
_COPIES = 2
_CLOCK_SLACK = 60.0  # seconds by which a file server's clock may be ahead


@dataclass(frozen=True)
class Finding:
    """What a check has found.

    Attributes:
        name: What was looked at.
        status: "problem" if the server will not run, or not as configured; "warning" if it may disappoint.
        told: The fact.
        cure: What to do; empty where nothing need be done.
    """

    name: str
    status: Literal["ok", "warning", "problem"]
    told: str
    cure: str = ""


Check = Callable[[ServerConfig], Iterable[Finding]]


def check_software(config: ServerConfig) -> Iterator[Finding]:
    """Python and the packages that matter."""
    yield Finding("python", "ok", platform.python_version())
    yield Finding("packages", "ok", ", ".join(f"{name} {each}" for name in _PACKAGES if (each := _version(name))))


def check_device(config: ServerConfig) -> Iterator[Finding]:
    """Whether the device is there; the runtime would silently take another."""
    from lego_server.engines.devices import require_device  # onnxruntime takes a second to import

    yield _told("device", lambda: require_device(config.engine.device), f"{config.engine.device} is there")


def check_engines(config: ServerConfig) -> Iterator[Finding]:
    """Whether every engine directory is whole, each file's checksum included, and fits the device."""
    if config.engine.directory is None:
        yield Finding("engines", "problem", "no engine directory is named", "name it: lego-server doctor DIR")
        return
    try:
        directories = named_directories(config.engine)
    except (LegoError, OSError) as error:
        yield Finding("engines", "problem", *_fact_and_cure(str(error)))
        return
    for directory in directories.values():
        yield from _check_directory(directory, config)


def check_memory(config: ServerConfig) -> Iterator[Finding]:
    """Whether the models fit; estimated from the size of its weights (`--run` measures)."""
    available = available_memory()
    if available is None:
        return
    on_cpu = config.engine.device in ("cpu", "openvino", "openvino-bf16")
    try:
        manifests = {path: Manifest.load(path) for path in named_directories(config.engine).values()}
        widened = sum(
            _total_bytes(path, each) * (2 if on_cpu and each.precision.startswith(("fp16", "bf16")) else 1)
            for path, each in manifests.items()
        )
    except (LegoError, OSError):  # told already
        return
    needed = _BASE_BYTES + widened * (_COPIES if on_cpu else 1)
    where = "memory" if on_cpu else "host memory while loading; the device's own is not looked at"
    told = f"{_size(needed)} of {where} needed by estimate, {_size(available)} free"
    if available < widened:
        yield Finding("memory", "problem", told, "use a machine with more, or engines of a lower precision")
    elif available < needed:
        yield Finding("memory", "warning", told, "lego-server doctor --run measures it; close other programs")
    else:
        yield Finding("memory", "ok", told)


def check_ports(config: ServerConfig) -> Iterator[Finding]:
    """Whether the addresses can be listened on."""
    yield _port("port", config.server.host, config.server.port, "--port")
    if config.metrics.port is not None:
        yield _port("metrics port", config.metrics.host, config.metrics.port, "--metrics-port")
    if config.web.port is not None:
        yield _port("web port", config.web.host, config.web.port, "--web-port")


def check_page(config: ServerConfig) -> Iterator[Finding]:
    """Whether the web page can be served."""
    from lego_server.gateway.page import Page, own_page

    if config.web.port is not None:
        folder = config.web.page
        yield _told("web page", lambda: Page(folder or own_page()), f"{folder or 'the one that comes along'} is whole")


def check_open_files(config: ServerConfig) -> Iterator[Finding]:
    """Whether as many sessions as are allowed can be open: each may be a connection of its own."""
    limit, needed = open_files_limit(), config.sessions.max_sessions + _SPARE_FILES
    told = f"{'no limit' if limit is None else limit}, {needed} needed for {config.sessions.max_sessions} sessions"
    if limit is not None and limit < needed:
        yield Finding("open files", "problem", told, f"ulimit -n {needed} before the start, or lower --max-sessions")
    else:
        yield Finding("open files", "ok", told)


def check_security(config: ServerConfig) -> Iterator[Finding]:
    """Whether certificates and tokens are good, and enough for the address."""
    from lego_server.security.exposure import refuse_exposure
    from lego_server.security.tls import WARN_BEFORE, load_certificates  # cryptography takes a moment to import
    from lego_server.security.tokens import read_tokens

    settings, now = config.security, datetime.now(UTC)
    for name, host in zip(("exposure", "web exposure"), config.hosts, strict=False):  # the second where it is served
        protected = "this machine only" if is_loopback(host) else f"{host} is protected"
        yield _told(name, functools.partial(refuse_exposure, settings, host), protected)
    cert, key, tokens = settings.tls_cert, settings.tls_key, settings.token_file
    if cert is not None and key is not None:
        try:
            expires = load_certificates(cert, key, settings.client_ca, now).expires
        except LegoError as error:
            yield Finding("certificate", "problem", *_fact_and_cure(str(error)))
        else:
            told = f"{cert} is good until {expires:%Y-%m-%d %H:%M} UTC"
            soon = expires - now < WARN_BEFORE
            yield Finding("certificate", "warning" if soon else "ok", told, "renew it" if soon else "")
    if tokens is not None:
        yield _told("tokens", lambda: read_tokens(tokens), f"{tokens} can be read")


def check_clock(config: ServerConfig) -> Iterator[Finding]:
    """Whether the clock can be right: certificates, tokens and logs go by it."""
    now = time.time()
    written = [Path(__file__)]
    if config.engine.directory is not None:
        written.append(Path(config.engine.directory) / "manifest.json")
    newest = max(path.stat().st_mtime for path in written if path.exists())
    told = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if newest > now + _CLOCK_SLACK:
        yield Finding("clock", "problem", f"{told}, which is before files here were written", "set it; use NTP")
    else:
        yield Finding("clock", "ok", told)


def check_cluster(config: ServerConfig) -> Iterator[Finding]:
    """Whether `lego-server cluster` can run: Ray is there, its cluster can be reached, and replicas have room."""
    settings = config.cluster
    try:
        yield Finding("ray", "ok", f"ray {require_ray()}")
    except LegoError as error:
        yield Finding("ray", "problem", *_fact_and_cure(str(error)))
    address = settings.ray_address
    if address is not None:
        yield _told("ray cluster", lambda: require_head(address), f"{address} answers")
        return
    models = 1 + len(config.engine.models)
    needed, there = models * settings.min_replicas * settings.replica_cpus, os.cpu_count() or 1
    told = f"{needed:g} CPUs needed for {models * settings.min_replicas} of them; this machine has {there}"
    if needed > there:
        yield Finding("replicas", "problem", told, "lower --min-replicas or --replica-cpus, or join a --ray-address")
    else:
        yield Finding("replicas", "ok", told)


CHECKS: tuple[Check, ...] = (
    check_software, check_device, check_engines, check_memory, check_ports, check_page, check_security,
    check_open_files, check_clock,
)  # fmt: skip


def _check_directory(directory: Path, config: ServerConfig) -> Iterator[Finding]:
    from lego_server.engines.graph_engine import check_precision  # with onnxruntime, as above

    try:
        manifest = Manifest.load(directory)
        began = time.monotonic()
        manifest.check_content(directory)
    except (LegoError, OSError) as error:
        yield Finding("engines", "problem", *_fact_and_cure(str(error)))
        return
    files = len(manifest.graphs) + len(manifest.files)
    yield Finding(
        "engines", "ok",
        f"{manifest.model_version}: {files} files, {_size(_total_bytes(directory, manifest))}, all as their checksums "
        f"say (read in {time.monotonic() - began:.1f} s)",
    )  # fmt: skip
    yield _told(
        "precision", lambda: check_precision(directory, manifest, config.engine.device),
        f"{manifest.precision}, fit for {config.engine.device}",
    )  # fmt: skip
    if manifest.lego.guidance.steps > config.limits.max_steps:
        yield Finding(
            "limits", "problem",
            f"max_steps is {config.limits.max_steps}, the model's default is {manifest.lego.guidance.steps} steps",
            "raise --max-steps",
        )  # fmt: skip


def _told(name: str, check: Callable[[], Any], good: str) -> Finding:
    try:
        check()
    except LegoError as error:
        return Finding(name, "problem", *_fact_and_cure(str(error)))
    return Finding(name, "ok", good)


def _fact_and_cure(message: str) -> tuple[str, str]:
    """Our errors say the fact, then after a colon the cure."""
    fact, _, cure = message.rpartition(": ")
    return (fact, cure) if fact else (message, "")


def _port(name: str, host: str, port: int, option: str) -> Finding:
    try:
        [(family, kind, *_, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does: a port just left is free
            probe.bind(address)
            probe.listen()
    except (OSError, UnicodeError) as error:
        told = f"cannot listen on {host}:{port} ({listen_fault(error)})"
        return Finding(name, "problem", told, f"choose another {option}, or another address")
    return Finding(name, "ok", f"{host}:{port or 'any'} is free")


def _total_bytes(directory: Path, manifest: Manifest) -> int:
    names = {*(graph.file for graph in manifest.graphs.values()), *manifest.files}
    return sum((directory / name).stat().st_size for name in names)


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
