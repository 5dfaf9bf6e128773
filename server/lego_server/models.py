"""The models a server answers with, by name. One can take another's place while sessions go on."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from lego_core.errors import LegoError, quoted
from lego_core.manifest import Manifest

from lego_server.backend import Backend
from lego_server.config import EngineSettings, ServerConfig
from lego_server.failures import Reason, RequestError
from lego_server.logs import log_event
from lego_server.speech.desk import SpeechDesk
from lego_server.telemetry import Telemetry

_PERIOD = 0.1  # seconds between looks at whether a replaced model is done
_log = logging.getLogger(__name__)


class Models:
    """Guides by name; the first is the one that is meant where none is named."""

    def __init__(
        self, guides: dict[str, Backend[Any]], config: ServerConfig, telemetry: Telemetry,
        speech: SpeechDesk | None = None,
    ) -> None:  # fmt: skip
        """Takes at least one guide, which share the limits, and what writes down speech, if anything does."""
        self.config = config
        self.speech = speech
        self.telemetry = telemetry
        self._guides = dict(guides)
        self._leaving: set[asyncio.Task[None]] = set()
        telemetry.metrics.watch_queue(
            lambda: sum(guide.waiting for guide in self.guides),
            lambda: sum(guide.active for guide in self.guides),
        )
        telemetry.metrics.watch_engine(lambda: any(guide.hung is not None for guide in self.guides))

    @property
    def names(self) -> tuple[str, ...]:
        """What clients may ask for, the default first."""
        return tuple(self._guides)

    @property
    def guides(self) -> tuple[Backend[Any], ...]:
        """The guides, in the same order."""
        return tuple(self._guides.values())

    @property
    def default(self) -> Backend[Any]:
        """The guide that is meant where none is named."""
        return self.guides[0]

    def find(self, name: str) -> Backend[Any]:
        """Returns a guide by its name here or by its full version; an empty name means the default.

        Raises:
            RequestError: INVALID, with the names there are.
        """
        if not name:
            return self.default
        if name in self._guides:
            return self._guides[name]
        for guide in self.guides:
            if guide.manifest.model_version == name:
                return guide
        raise RequestError(Reason.INVALID, f"model is {quoted(name)}; this server has {', '.join(self.names)}")

    def replace(self, name: str, guide: Backend[Any]) -> None:
        """Puts a warm guide in the place of another, which answers what it has begun and is closed then."""
        before = self._guides[name]
        self._guides[name] = guide
        log_event(
            _log, logging.WARNING, "model_replaced", name=name, before=before.manifest.model_version,
            now=guide.manifest.model_version,
        )  # fmt: skip
        task = asyncio.create_task(self._close_when_done(before))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Drops all work."""
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        for guide in self.guides:
            await guide.close()

    async def _close_when_done(self, guide: Backend[Any]) -> None:
        until = asyncio.get_running_loop().time() + self.config.limits.query_seconds
        try:
            # Queries that had found it before may still be decoding their frame; they come within a moment.
            await asyncio.sleep(_PERIOD)
            while not guide.idle and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110 (threads change it)
                await asyncio.sleep(_PERIOD)
        finally:
            await guide.close(replaced=True)


def named_directories(settings: EngineSettings) -> dict[str, Path]:
    """Returns the engine directories that settings name, by the names of their models, the default first.

    Raises:
        LegoError: None is named, a name is taken twice or missing, or the default is no engine directory.
    """
    if settings.directory is None:
        raise LegoError("no engine directory is named: give --engines DIR, or [engine] directory in the config file")
    directory = Path(settings.directory)
    directories = {Manifest.load(directory).lego.name: directory}
    for text in settings.models:
        name, _, path = text.partition("=")
        if not name or not path:
            raise LegoError(f"model is {text!r}; it must be NAME=DIRECTORY, such as kitchen=engines/kitchen")
        if name in directories:
            raise LegoError(f"two models are called {name}: give each its own name in --model NAME=DIRECTORY")
        directories[name] = Path(path)
    return directories
