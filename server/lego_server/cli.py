"""`lego-server`: serve an engine directory, or say what is in it."""

from __future__ import annotations

import asyncio
import logging
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from lego_core.command import run_command
from lego_core.manifest import Manifest
from rich.console import Console
from rich.table import Table

from lego_server.config import ServerConfig
from lego_server.security import commands
from lego_server.security.config import SecurityConfig

app = typer.Typer(
    help="Serves egocentric action guidance over gRPC.", no_args_is_help=True, pretty_exceptions_enable=False,
    add_completion=False,
)  # fmt: skip
app.add_typer(commands.token_app, name="token")
_DEFAULTS = ServerConfig()


class Device(StrEnum):
    """What runs the graphs."""

    cpu = "cpu"
    cuda = "cuda"
    tensorrt = "tensorrt"
    tensorrt_plans = "tensorrt-plans"
    openvino = "openvino"


Engines = Annotated[Path, typer.Option("--engines", help="Engine directory, as lego-export build writes it.")]


@app.command()
def serve(
    engines: Engines,
    host: Annotated[str, typer.Option(help="Address to listen on; the default is this machine only.")] = _DEFAULTS.host,
    port: Annotated[int, typer.Option(help="TCP port; 0 takes any free one.")] = _DEFAULTS.port,
    device: Annotated[Device, typer.Option(help="What runs the model.")] = Device.cpu,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 lets onnxruntime choose.")] = 0,
    max_active: Annotated[int, typer.Option(help="Queries served in turns.")] = _DEFAULTS.max_active,
    max_waiting: Annotated[int, typer.Option(help="Queries that may wait behind them.")] = _DEFAULTS.max_waiting,
    max_batch: Annotated[int, typer.Option(help="Queries per engine call; 1 on a CPU.")] = _DEFAULTS.max_batch,
    max_steps: Annotated[int, typer.Option(help="Most denoising steps of one query.")] = _DEFAULTS.max_steps,
    max_image_bytes: Annotated[int, typer.Option(help="Largest frame, encoded.")] = _DEFAULTS.max_image_bytes,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log one line per query.")] = False,
    tls_cert: commands.TlsCert = None,
    tls_key: commands.TlsKey = None,
    client_ca: commands.ClientCa = None,
    token_file: commands.TokenFile = None,
    max_calls_per_address: commands.MaxCallsPerAddress = SecurityConfig.max_calls_per_address,
    max_failures_per_address: commands.MaxFailuresPerAddress = SecurityConfig.max_failures_per_address,
    allow_insecure: commands.AllowInsecure = False,
    log_content: commands.LogContent = False,
) -> None:
    """Serve guidance until stopped with Ctrl-C or SIGTERM."""
    logging.basicConfig(
        level=logging.INFO if verbose or log_content else logging.WARNING, stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )  # fmt: skip
    config = ServerConfig(
        host=host, port=port, max_active=max_active, max_waiting=max_waiting, max_batch=max_batch,
        max_steps=max_steps, max_image_bytes=max_image_bytes,
        max_message_bytes=max(_DEFAULTS.max_message_bytes, max_image_bytes + 2**20),
    )  # fmt: skip
    protection = SecurityConfig(
        tls_cert, tls_key, client_ca, token_file, allow_insecure, log_content, max_calls_per_address,
        max_failures_per_address,
    )  # fmt: skip
    # Imported here, so that --help and a mistyped option answer at once.
    from lego_server.engines import load_engine
    from lego_server.security.guard import Security
    from lego_server.server import serve as run_server

    security = Security(protection, host)  # before the engine, which may take minutes to load
    engine = load_engine(engines, device.value, threads, max_batch)
    if engine.manifest.lego.notice:
        print(f"note: {engine.manifest.lego.notice}", file=sys.stderr)
    asyncio.run(run_server(engine, config, _announce, security))


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
    print(line, file=stream, flush=True)


def main() -> None:
    """The console command."""
    sys.exit(run_command(app, "lego-server"))
