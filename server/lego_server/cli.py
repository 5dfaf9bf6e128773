"""`lego-server`: serve an engine directory, say what is in it, and what the settings are."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
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
from lego_server.logs import setup_logging
from lego_server.security.commands import token_app

app = typer.Typer(
    help="Serves egocentric action guidance over gRPC.", no_args_is_help=True, pretty_exceptions_enable=False,
    add_completion=False,
)  # fmt: skip
app.add_typer(token_app, name="token")
Engines = Annotated[Path, typer.Option("--engines", help="Engine directory, as lego-export build writes it.")]


@app.command()
@takes_settings
def serve(
    config: ServerConfig,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log one line per query: --log-level info.")] = False,
) -> None:
    """Serve guidance until stopped with Ctrl-C or SIGTERM."""
    # Until the server hears signals itself, which takes seconds: there is nothing to reload yet, and nothing to finish.
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if verbose or config.security.log_content:
        config = config.with_values({"logging": {"level": "info"}})
    setup_logging(config.logging.format, config.logging.level)
    # Imported here, so that --help and a mistyped option answer at once.
    from lego_server.engines import Engine, load_engine
    from lego_server.models import named_directories
    from lego_server.security.protection import Security
    from lego_server.server import serve as run_server

    settings = config.engine
    security = Security(config.security, config.hosts)  # before the engine, which may take minutes to load

    def load(directory: Path) -> Engine:
        engine = load_engine(directory, settings.device, settings.threads, settings.max_batch, settings.lanes)
        if engine.manifest.lego.notice:
            _announce(f"note: {engine.manifest.lego.notice}")
        return engine

    asyncio.run(run_server(load, named_directories(settings), config, _announce, security))


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
    timeout: Annotated[float, typer.Option(help="Seconds it may take.")] = 5.0,
) -> None:
    """Print a running server's health; exits with 1 unless it is SERVING."""
    from lego_server.probe import ask_health

    status = ask_health(server, service, timeout, ca, name)
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


def _announce(line: str) -> None:
    stream = sys.stdout if line.startswith("listening") else sys.stderr
    with contextlib.suppress(OSError, ValueError):  # closed or full, which is no reason not to serve
        print(line, file=stream, flush=True)


def main() -> None:
    """The console command."""
    sys.exit(run_command(app, "lego-server"))
