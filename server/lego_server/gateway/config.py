"""How wearers with a browser are served."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lego_server.gateway.origins import check_origin
from lego_server.settings import Section, setting


@dataclass(frozen=True)
class WebSettings(Section):
    """`[web]`: the gateway for browsers, a page and a WebSocket; certificates and tokens are those of `[security]`."""

    port: int | None = setting(
        None, "Port of the page and its WebSocket; 0 takes any free one, unset serves none.", 0, 65535,
        option="--web-port",
    )  # fmt: skip
    host: str = setting("127.0.0.1", "Address it listens on; the default is this machine only.", option="--web-host")
    page: Path | None = setting(
        None, "Folder with the page's files, read at the start; unset serves the page that comes with lego-client.",
        option="--web-page",
    )  # fmt: skip
    allowed_origins: tuple[str, ...] = setting(
        (), "A further origin, such as https://guide.example, whose pages may open a session; the page served here may "
        "always.", option="--web-origin",
    )  # fmt: skip
    max_connections_per_address: int = setting(
        64, "Connections open at once from one address, where addresses are counted; a page takes several.", 1, 100_000,
        option="--web-max-connections-per-address",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        for origin in self.allowed_origins:
            check_origin(origin)
