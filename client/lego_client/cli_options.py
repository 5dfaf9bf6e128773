"""Options that several commands of `lego-client` share, and what is made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from lego_core.config import FIDELITIES, PRESETS, SAMPLERS, GuidanceDefaults
from lego_core.errors import LegoError

from lego_client.connection import Connection
from lego_client.events import PREVIEWS, GuidanceOptions
from lego_client.session import GuidanceClient, check_patience
from lego_client.token_sources import find_token

CONNECT_SECONDS = 10.0
_ORIGINAL_STEPS = GuidanceDefaults().at("original").steps

ServerOption = Annotated[str, typer.Option("--server", envvar="LEGO_SERVER", help="HOST:PORT of lego-server.")]
SeedOption = Annotated[int | None, typer.Option(help="The same seed, frame and query give the same picture.")]
PresetOption = Annotated[
    str | None, typer.Option(help=f"How much time the picture may take, one of {', '.join(PRESETS)}.")
]
StepsOption = Annotated[int | None, typer.Option(help="Denoising steps.")]
TextScaleOption = Annotated[float | None, typer.Option(help="Guidance scale of query and description, 1 to 30.")]
ImageScaleOption = Annotated[float | None, typer.Option(help="Guidance scale of the input frame, 1 to 10.")]
GuidanceIntervalOption = Annotated[
    tuple[float, float] | None,
    typer.Option(
        metavar="LOW HIGH", help="Guide only the steps between two fractions of them: 0 0.6 is the first 60 %."
    ),
]
CacheIntervalOption = Annotated[
    int | None, typer.Option(help="Evaluate the U-Net's deep layers at every so many steps only, 1 to 100.")
]
SamplerOption = Annotated[str | None, typer.Option(help=f"One of {', '.join(SAMPLERS)}.")]
PreviewsOption = Annotated[int, typer.Option(help="How many previews of the picture to receive on the way.")]
QualityOption = Annotated[int | None, typer.Option(help="JPEG quality of the guidance frame, 1 to 100.")]
FidelityOption = Annotated[
    str | None, typer.Option(help=f"One of {', '.join(FIDELITIES)}: original does as the code of the LEGO paper does.")
]
_PANEL = "Security"
TlsOption = Annotated[
    bool, typer.Option("--tls", envvar="LEGO_TLS", help="Encrypt; implied by --ca and --cert.", rich_help_panel=_PANEL)
]
CaOption = Annotated[
    Path | None,
    typer.Option(envvar="LEGO_CA", help="PEM authority of the server; default: public ones.", rich_help_panel=_PANEL),
]
CertOption = Annotated[Path | None, typer.Option(help="PEM certificate of your own.", rich_help_panel=_PANEL)]
KeyOption = Annotated[Path | None, typer.Option(help="PEM private key of that certificate.", rich_help_panel=_PANEL)]
TokenFileOption = Annotated[
    Path | None, typer.Option(help="File with your token; default: LEGO_TOKEN.", rich_help_panel=_PANEL)
]
KeyringOption = Annotated[
    bool, typer.Option("--keyring", help="Take your token from the system's keyring.", rich_help_panel=_PANEL)
]
TimeoutOption = Annotated[float, typer.Option(help="Seconds one answer may take; then it is cancelled.")]
DeadlineOption = Annotated[
    float | None, typer.Option(help="Seconds after which an answer is worth nothing; default: the server's limit.")
]
RetriesOption = Annotated[int, typer.Option(help="How often to ask again when the server is full for a while.")]
ReconnectOption = Annotated[
    float, typer.Option(help="Seconds to try to come back after the connection was lost; 0 gives up at once.")
]
WaitOption = Annotated[float, typer.Option(help="Seconds to wait for a server that is not there yet.")]
ModelOption = Annotated[str, typer.Option(help="Which of the server's models is asked; default: its first.")]
VIEW_PANEL = "View"
RotateOption = Annotated[
    int,
    typer.Option(help="Degrees clockwise that turn the picture upright: 90, 180, 270.", rich_help_panel=VIEW_PANEL),
]
MirrorOption = Annotated[
    bool,
    typer.Option("--mirror", help="The camera delivers mirrored pictures: put them right.", rich_help_panel=VIEW_PANEL),
]
SaverOption = Annotated[
    bool,
    typer.Option("--data-saver", help="Send only frames that are asked about, and small.", rich_help_panel=VIEW_PANEL),
]
PreviewOption = Annotated[
    str | None, typer.Option(help=f"What previews are, one of {', '.join(PREVIEWS)}: fast is small and free.")
]


@dataclass(frozen=True)
class Patience:
    """How long an answer may take, and how often it may be asked for."""

    time_limit: float
    deadline_seconds: float | None
    retries: int

    def __post_init__(self) -> None:
        if not 0 < self.time_limit < math.inf:
            raise LegoError(f"the timeout is {self.time_limit:g} s; it must be above 0")
        check_patience(self.deadline_seconds, self.retries)


def connection_of(
    server: str, tls: bool, ca: Path | None, cert: Path | None, key: Path | None, token_file: Path | None, keyring: bool
) -> Connection:
    """Returns TLS and token as the options say.

    Raises:
        LegoError: There is no token where one should be.
    """
    tls = tls or ca is not None or cert is not None
    return Connection(tls, ca, cert, key, find_token(server, token_file, keyring))


def check_requests(queries: Sequence[str], previews: int) -> None:
    """Checks what a user asks for.

    Raises:
        LegoError: A query is empty, or the previews are not from 0 to 100.
    """
    if any(not query.strip() for query in queries):
        raise LegoError("the query is empty; ask for example 'how do I open the drawer?'")
    if not 0 <= previews <= 100:
        raise LegoError(f"previews is {previews}; it must be from 0 to 100")


def with_previews(options: GuidanceOptions, previews: int, client: GuidanceClient) -> GuidanceOptions:
    """Spreads so many previews evenly over the steps before the last, which brings the picture itself."""
    if previews == 0:
        return options
    default = _ORIGINAL_STEPS if options.fidelity == "original" else client.info.defaults.steps
    if options.preset in client.info.presets:
        default = client.info.presets[options.preset].steps
    steps = options.steps or default or _ORIGINAL_STEPS  # a server may state none
    return replace(options, preview_every=math.ceil(steps / (previews + 1)))
