"""Which pages may open a session. Browsers let any page try; they only say truthfully which page it is.

A page of another origin could use a session of this machine's, or the token that a browser keeps (cross-site WebSocket
hijacking). A page whose name has been made to mean this server's address (DNS rebinding) even looks like one served
here, but it asks for its own name: without TLS, where no certificate tells, only names known to be this server's are
answered.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence

from lego_core.errors import LegoError

_HOST = r"(?P<name>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_-][A-Za-z0-9._-]*)(:[0-9]{1,5})?"
_ORIGIN = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>{_HOST})", re.IGNORECASE)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def check_origin(text: str) -> str:
    """Returns an origin as browsers write it: lower case, without a port that goes without saying.

    Raises:
        LegoError: It is none.
    """
    found = _ORIGIN.fullmatch(text)
    if found is None:
        raise LegoError(
            f"{text!r} is no origin; write SCHEME://HOST or SCHEME://HOST:PORT, such as https://guide.example"
        )
    scheme = found["scheme"].lower()
    return f"{scheme}://{found['host'].lower().removesuffix(_DEFAULT_PORTS.get(scheme, ''))}"


class Origins:
    """Judges what a browser says of the page it shows."""

    def __init__(self, allowed: Iterable[str], encrypted: bool) -> None:
        """Takes origins as `check_origin` does, and whether the server speaks TLS."""
        self._allowed = {check_origin(origin) for origin in allowed}
        self._names = {origin.partition("://")[2] for origin in self._allowed}
        self._scheme = "https" if encrypted else "http"

    def refuse_host(self, hosts: Sequence[str]) -> str:
        """Returns what is wrong with the `Host` headers of a request; empty for nothing."""
        found = re.fullmatch(_HOST, hosts[0]) if len(hosts) == 1 else None
        if found is None:
            return "the request must name one host"
        if self._scheme == "https" or _always_ours(found["name"]) or self._own(hosts[0]) in self._names:
            return ""
        return (
            f"this server is not known as {hosts[0]}; reach it by its address, serve it with TLS, or start it with "
            f"--web-origin http://{hosts[0]}"
        )

    def refuse_origin(self, origins: Sequence[str], host: str) -> str:
        """Returns what is wrong with the `Origin` headers of a request to a host; empty for nothing.

        Browsers always send one with a WebSocket. Whoever sends none is no browser, and no page's tool.
        """
        if not origins:
            return ""
        try:
            origin = check_origin(origins[0]) if len(origins) == 1 else ""
        except LegoError:  # "null", too: a page without an origin, such as a file
            origin = ""
        if origin and (origin in self._allowed or origin == f"{self._scheme}://{self._own(host)}"):
            return ""
        return (
            "this page is not one of the server's; if it should be, start the server with --web-origin and its origin"
        )

    def _own(self, host: str) -> str:
        return host.lower().removesuffix(_DEFAULT_PORTS[self._scheme])


def _always_ours(name: str) -> bool:
    """Whether nobody else can make a name lead here: an address stands for itself."""
    if name.lower() == "localhost":
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
