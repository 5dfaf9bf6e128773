"""`lego-server cluster`: the gRPC server of `lego-server serve`, with replicas for engines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from lego_server.cluster.application import Application, applications_of, delete
from lego_server.cluster.instance import connected
from lego_server.config import ServerConfig
from lego_server.engines.base import Engine
from lego_server.models import named_directories
from lego_server.security.protection import Security
from lego_server.server import serve
from lego_server.speech.desk import SpeechDesk


def serve_cluster(
    load: Callable[[Path], Engine], config: ServerConfig, announce: Callable[[str], None], security: Security,
    speech: SpeechDesk | None = None,
) -> None:  # fmt: skip
    """Serves until SIGINT or SIGTERM; SIGHUP has replicas started of what is new in the engine directories.

    Args:
        load: Loads an engine directory; called in each replica.
        config: Where to listen, the limits, and the cluster.
        announce: Told the line `listening on HOST:PORT` when the server is warm, and warnings.
        security: What protects the server.
        speech: Writes down speech, in this process; None for nothing that does.
    """
    directories = named_directories(config.engine)
    with connected(config.cluster):
        # Started before there is an event loop, so that a signal to stop is heard at once.
        applications = {path: Application(load, path, config) for path in directories.values()}
        left = applications_of(config.cluster.name)
        adopted = {path for path, each in applications.items() if each.adopt(left)}
        for name in set(left) - {applications[path].name for path in adopted}:
            delete(name)  # before others start: they may need its machines
        for path, each in applications.items():
            if path not in adopted:
                each.start()

        def started(directory: Path) -> Application:
            if directory in applications:
                return applications.pop(directory)
            application = Application(load, directory, config)
            application.start()
            return application

        asyncio.run(serve(started, directories, config, announce, security, speech))
