"""Options that several commands of `lego-client` share, in groups, and what is made of them.

A group is a dataclass whose fields are options. A command decorated with `takes_groups` names a group as the type of a
parameter, and gets its options; the parameter's default may set other defaults than the group's own.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from lego_core.config import FIDELITIES, PRESETS, SAMPLERS, GuidanceDefaults
from lego_core.errors import LegoError

from lego_client.backoff import Backoff
from lego_client.connection import Connection
from lego_client.events import PREVIEWS, GuidanceOptions
from lego_client.observer import SessionObserver
from lego_client.sending import Sending
from lego_client.session import GuidanceClient, check_patience, check_query
from lego_client.sources.framing import Framing
from lego_client.token_sources import find_token
from lego_client.tracing import traces_from_environment

CONNECT_SECONDS = 10.0
_ORIGINAL_STEPS = GuidanceDefaults().at("original").steps
_SECURITY, _PICTURE, _VIEW = "Security", "Picture", "View"

ServerOption = Annotated[str, typer.Option("--server", envvar="LEGO_SERVER", help="HOST:PORT of lego-server.")]
ModelOption = Annotated[str, typer.Option(help="Which of the server's models is asked; default: its first.")]
ReconnectOption = Annotated[
    float, typer.Option(help="Seconds to try to come back after the connection was lost; 0 gives up at once.")
]
WaitOption = Annotated[float, typer.Option(help="Seconds to wait for a server that is not there yet.")]
TimeoutOption = Annotated[float, typer.Option(help="Seconds one answer may take; then it is cancelled.")]
RetriesOption = Annotated[int, typer.Option(help="How often to ask again when the server is full for a while.")]


def _option(*names: str, panel: str | None = None, **more: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, **more)


def takes_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command every option of the groups that its parameters are."""
    given = inspect.signature(command, eval_str=True).parameters.values()
    groups = {each.name: each for each in given if is_dataclass(each.annotation)}

    @functools.wraps(command)
    def with_groups(**arguments: Any) -> None:
        for name, parameter in groups.items():
            values = {each.name: arguments.pop(each.name) for each in fields(parameter.annotation)}
            arguments[name] = parameter.annotation(**values)
        command(**arguments)

    def options() -> Iterator[inspect.Parameter]:
        for each in given:
            if each.name not in groups:
                yield each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
                continue
            defaults = each.annotation() if each.default is inspect.Parameter.empty else each.default
            hints = get_type_hints(each.annotation, include_extras=True)
            for field in fields(each.annotation):
                yield inspect.Parameter(
                    field.name, inspect.Parameter.KEYWORD_ONLY, default=getattr(defaults, field.name),
                    annotation=hints[field.name],
                )  # fmt: skip

    parameters = list(options())
    with_groups.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_groups.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_groups


@dataclass(frozen=True)
class SecurityOptions:
    """What protects the way to a server."""

    tls: Annotated[
        bool, _option("--tls", panel=_SECURITY, envvar="LEGO_TLS", help="Encrypt; implied by --ca and --cert.")
    ] = False
    ca: Annotated[
        Path | None,
        _option(panel=_SECURITY, envvar="LEGO_CA", help="PEM authority of the server; default: public ones."),
    ] = None
    cert: Annotated[Path | None, _option(panel=_SECURITY, help="PEM certificate of your own.")] = None
    key: Annotated[Path | None, _option(panel=_SECURITY, help="PEM private key of that certificate.")] = None
    token_file: Annotated[Path | None, _option(panel=_SECURITY, help="File with your token; default: LEGO_TOKEN.")] = (
        None
    )
    keyring: Annotated[
        bool, _option("--keyring", panel=_SECURITY, help="Take your token from the system's keyring.")
    ] = False

    def connection(self, server: str) -> Connection:
        """Returns TLS and token for a server.

        Raises:
            LegoError: There is no token where one should be.
        """
        tls = self.tls or self.ca is not None or self.cert is not None
        return Connection(tls, self.ca, self.cert, self.key, find_token(server, self.token_file, self.keyring))

    def client(
        self, server: str, model: str = "", *, timeout: float = CONNECT_SECONDS, reconnect: float, wait: float = 0.0,
        sending: Sending | None = None, observer: SessionObserver | None = None,
    ) -> GuidanceClient:  # fmt: skip
        """Returns a session that is not yet connected.

        Args:
            server: HOST:PORT.
            model: Which of its models is asked.
            timeout: Seconds one answer may take; connecting may take no longer.
            reconnect: Seconds to try to come back.
            wait: Seconds to wait for a server that is not there yet.
            sending: How much of what is seen is sent.
            observer: Told of everything.

        Raises:
            LegoError: A value makes no sense, or a certificate or token cannot be used.
        """
        return GuidanceClient(
            server, min(timeout, CONNECT_SECONDS), self.connection(server), traces_from_environment(), model=model,
            backoff=Backoff(reconnect), wait_seconds=wait, sending=sending, observer=observer,
        )  # fmt: skip


@dataclass(frozen=True)
class PictureOptions:
    """How the picture is made."""

    preset: Annotated[
        str | None, _option(panel=_PICTURE, help=f"How much time it may take, one of {', '.join(PRESETS)}.")
    ] = None
    seed: Annotated[
        int | None, _option(panel=_PICTURE, help="The same seed, frame and query give the same picture.")
    ] = None
    steps: Annotated[int | None, _option(panel=_PICTURE, help="Denoising steps.")] = None
    text_scale: Annotated[
        float | None, _option(panel=_PICTURE, help="Guidance scale of query and description, 1 to 30.")
    ] = None
    image_scale: Annotated[
        float | None, _option(panel=_PICTURE, help="Guidance scale of the input frame, 1 to 10.")
    ] = None
    guidance_interval: Annotated[
        tuple[float, float] | None,
        _option(
            panel=_PICTURE, metavar="LOW HIGH",
            help="Guide only the steps between two fractions of them: 0 0.6 is the first 60 %.",
        ),
    ] = None  # fmt: skip
    cache_interval: Annotated[
        int | None,
        _option(panel=_PICTURE, help="Evaluate the U-Net's deep layers at every so many steps only, 1 to 100."),
    ] = None
    sampler: Annotated[str | None, _option(panel=_PICTURE, help=f"One of {', '.join(SAMPLERS)}.")] = None
    previews: Annotated[
        int, _option(panel=_PICTURE, help="How many previews of the picture to receive on the way.")
    ] = 0
    preview: Annotated[
        str | None,
        _option(panel=_PICTURE, help=f"What previews are, one of {', '.join(PREVIEWS)}: fast is small and free."),
    ] = None
    quality: Annotated[int | None, _option(panel=_PICTURE, help="JPEG quality of the guidance frame, 1 to 100.")] = None
    fidelity: Annotated[
        str | None,
        _option(
            panel=_PICTURE,
            help=f"One of {', '.join(FIDELITIES)}: original does as the code of the LEGO paper does.",
        ),
    ] = None

    def guidance(self, description: str | None = None) -> GuidanceOptions:
        """Returns what is asked of the server; the previews are spread once it is known (`with_previews`).

        Raises:
            LegoError: A value is out of its range.
        """
        if not 0 <= self.previews <= 100:
            raise LegoError(f"previews is {self.previews}; it must be from 0 to 100")
        return GuidanceOptions(
            seed=self.seed, steps=self.steps, text_scale=self.text_scale, image_scale=self.image_scale,
            sampler=self.sampler, description=description, jpeg_quality=self.quality, fidelity=self.fidelity,
            preview=self.preview, preset=self.preset, guidance_interval=self.guidance_interval,
            cache_interval=self.cache_interval,
        )  # fmt: skip


@dataclass(frozen=True)
class ViewOptions:
    """How the camera is worn, and how much of what it sees is sent."""

    rotate: Annotated[
        int, _option(panel=_VIEW, help="Degrees clockwise that turn the picture upright: 90, 180, 270.")
    ] = 0
    mirror: Annotated[
        bool, _option("--mirror", panel=_VIEW, help="The camera delivers mirrored pictures: put them right.")
    ] = False
    data_saver: Annotated[
        bool, _option("--data-saver", panel=_VIEW, help="Send only frames that are asked about, and small.")
    ] = False

    @property
    def framing(self) -> Framing:
        """How pictures are turned; raises `LegoError` for what cannot be."""
        return Framing(self.rotate, self.mirror)


@dataclass(frozen=True)
class Patience:
    """How long an answer may take, and how often it may be asked for."""

    timeout: TimeoutOption = 120.0
    deadline: Annotated[
        float | None, typer.Option(help="Seconds after which an answer is worth nothing; default: the server's limit.")
    ] = None
    retries: RetriesOption = 3

    def __post_init__(self) -> None:
        if not 0 < self.timeout < math.inf:
            raise LegoError(f"the timeout is {self.timeout:g} s; it must be above 0")
        check_patience(self.deadline, self.retries)


def check_queries(queries: Sequence[str]) -> None:
    """Checks what a user asks.

    Raises:
        LegoError: A query is empty or no text.
    """
    for query in queries:
        check_query(query)


def with_previews(options: GuidanceOptions, previews: int, client: GuidanceClient) -> GuidanceOptions:
    """Spreads so many previews evenly over the steps before the last, which brings the picture itself."""
    if previews == 0:
        return options
    default = _ORIGINAL_STEPS if options.fidelity == "original" else client.info.defaults.steps
    if options.preset in client.info.presets:
        default = client.info.presets[options.preset].steps
    steps = options.steps or default or _ORIGINAL_STEPS  # a server may state none
    return replace(options, preview_every=math.ceil(steps / (previews + 1)))
