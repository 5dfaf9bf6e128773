"""`lego-server`: serve an engine directory, say what is in it, and what the settings are."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from lego_core.command import run_command
from lego_core.manifest import Manifest
from rich.console import Console
from rich.table import Table

from lego_server.bench.command import bench
from lego_server.cli_settings import takes_settings
from lego_server.config import ServerConfig
from lego_server.config_file import write_config
from lego_server.doctor.command import doctor
from lego_server.logs import log_event, setup_logging
from lego_server.security.commands import token_app

app = typer.Typer(
    help="Serves egocentric action guidance over gRPC.", no_args_is_help=True, pretty_exceptions_enable=False,
    add_completion=False,
)  # fmt: skip
app.add_typer(token_app, name="token")
_log = logging.getLogger(__name__)
Engines = Annotated[Path, typer.Option("--engines", help="Engine directory, as lego-export build writes it.")]


Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log one line per query: --log-level info.")]


def serve(config: ServerConfig, verbose: Verbose = False) -> None:
    """Serve guidance until stopped with Ctrl-C or SIGTERM."""
    # Until the server hears signals itself, which takes seconds: there is nothing to reload yet, and nothing to finish.
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    config = _with_logging(config, verbose)
    # Imported here, so that --help and a mistyped option answer at once.
    from lego_server.engines import Engine, load_engine
    from lego_server.models import named_directories
    from lego_server.security.protection import Security
    from lego_server.server import serve as run_server
    from lego_server.speech.desk import open_desk

    announce, settings = _announcer(config), config.engine
    security = Security(config.security, config.hosts)  # before the engine, which may take minutes to load
    speech = open_desk(config.speech)

    def load(directory: Path) -> Engine:
        engine = load_engine(directory, settings.device, settings.threads, settings.max_batch, settings.lanes)
        _note(engine.manifest, announce)
        return engine

    asyncio.run(run_server(load, named_directories(settings), config, announce, security, speech))


app.command()(takes_settings(serve, without=frozenset({"cluster"})))


@app.command()
@takes_settings
def cluster(config: ServerConfig, verbose: Verbose = False) -> None:
    """Serve guidance with engines in replicas, on one machine or many, until stopped with Ctrl-C or SIGTERM."""
    config = _with_logging(config, verbose)
    from lego_server.cluster.requirement import require_ray
    from lego_server.engines import load_engine
    from lego_server.models import named_directories
    from lego_server.security.protection import Security
    from lego_server.speech.desk import open_desk

    require_ray()
    announce = _announcer(config)
    security = Security(config.security, config.hosts)
    speech = open_desk(config.speech)
    for directory in named_directories(config.engine).values():
        _note(Manifest.load(directory), announce)
    from lego_server.cluster.serving import serve_cluster

    settings = config.engine
    load = functools.partial(
        load_engine, device=settings.device, threads=settings.threads, max_batch=settings.max_batch,
        lanes=settings.lanes,
    )  # fmt: skip
    serve_cluster(load, config, announce, security, speech)


app.command()(doctor)
app.command()(bench)


@app.command("config")
@takes_settings
def print_config(config: ServerConfig) -> None:
    """Print the effective configuration as a config file: defaults, then --config, then options."""
    print(write_config(config), end="")


@app.command()
def health(
    server: Annotated[str, typer.Argument(help="HOST:PORT of a running server.")] = "localhost:50051",
    service: Annotated[str, typer.Option(help="What to ask about: live, ready or model.")] = "ready",
    ca: Annotated[Path | None, typer.Option(help="PEM authority of the server, which then must speak TLS.")] = None,
    name: Annotated[str | None, typer.Option(help="Name in its certificate, where that is not the host's.")] = None,
    cert: Annotated[Path | None, typer.Option(help="PEM certificate to show, for a server with --client-ca.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM private key of it.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds it may take.")] = 5.0,
) -> None:
    """Print a running server's health; exits with 0 if SERVING, 1 if not, 2 if there is no answer."""
    from lego_server.probe import ask_health

    status = ask_health(server, service, timeout, ca, name, cert, key)
    print(status)
    raise typer.Exit(0 if status == "SERVING" else 1)


@app.command()
def info(engines: Engines) -> None:
    """Say what an engine directory holds."""
    manifest = Manifest.load(engines)
    lego = manifest.lego
    table = Table("", "", show_header=False, box=None)
    for name, value in (
        ("model", manifest.model_version),
        ("notice", lego.notice or "none"),
        ("licence", lego.licence),
        ("precision", f"{manifest.precision}, opset {manifest.opset}"),
        ("resolution", f"{lego.resolution} x {lego.resolution} pixels"),
        ("sampling", f"{lego.guidance.sampler}, {lego.guidance.steps} steps, text scale {lego.guidance.text_scale:g}, "
                     f"image scale {lego.guidance.image_scale:g}"),
        ("student", "none" if lego.student is None else f"sampler distilled, {len(lego.student.timesteps)} steps"),
        ("graphs", ", ".join(manifest.graphs)),
        ("built with", ", ".join(f"{tool} {version}" for tool, version in manifest.tool_versions.items()) or "unknown"),
    ):  # fmt: skip
        table.add_row(name, value)
    Console().print(table)


def _with_logging(config: ServerConfig, verbose: bool) -> ServerConfig:
    if verbose or config.security.log_content:
        config = config.with_values({"logging": {"level": "info"}})
    setup_logging(config.logging.format, config.logging.level)
    return config


def _note(manifest: Manifest, announce: Callable[[str], None]) -> None:
    if manifest.lego.notice:
        announce(f"note: {manifest.lego.notice}")


def _announcer(config: ServerConfig) -> Callable[[str], None]:
    return _announce_as_event if config.logging.format == "json" else _announce


def _announce(line: str) -> None:
    stream = sys.stdout if line.startswith("listening") else sys.stderr
    with contextlib.suppress(OSError, ValueError):  # closed or full, which is no reason not to serve
        print(line, file=stream, flush=True)


def _announce_as_event(line: str) -> None:
    if line.startswith("listening"):  # who waits for it waits for these words
        print(line, flush=True)
    _log.setLevel(logging.INFO)  # told whatever level was asked for, as where text is written
    warning = line.startswith("warning: ")
    level = logging.WARNING if warning else logging.INFO
    log_event(_log, level, "announcement", text=line.removeprefix("warning: "))


def main() -> None:
    """The console command."""
    sys.exit(run_command(app, "lego-server"))
