"""A listening socket that turns away, before a byte is read, those who hold too many connections already."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

from lego_server.security.addresses import network_of

# What is on its way to a client who reads slowly; the less, the newer is what comes next, and the sooner a pong.
_SEND_BUFFER_BYTES = 64 * 2**10


class Listener(socket.socket):
    """Accepts a bounded number of connections, in all and from one address."""

    def __init__(self, host: str, port: int, most: int, most_per_address: int) -> None:
        """Listens.

        Args:
            host: An address, or a name for one.
            port: TCP port; 0 takes any free one.
            most: Connections open at once, TLS handshakes included.
            most_per_address: The same for one address.

        Raises:
            OSError: It cannot be listened on.
        """
        [(family, *_, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        every = family == socket.AF_INET6 and host == "::" and socket.has_dualstack_ipv6()
        opened = socket.create_server((str(address[0]), int(address[1])), family=family, dualstack_ipv6=every)
        super().__init__(opened.family, opened.type, opened.proto, fileno=opened.detach())
        self._most = most
        self._most_per_address = most_per_address
        self._open: set[_Counted] = set()
        self._from: Counter[str] = Counter()

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._open)

    def drop_all(self) -> None:
        """Cuts every connection; whoever serves it finds it broken."""
        for accepted in self._open:
            with contextlib.suppress(OSError):  # its other end has just done the same
                accepted.shutdown(socket.SHUT_RDWR)

    def accept(self) -> tuple[socket.socket, Any]:
        """Accepts a connection.

        Raises:
            ConnectionAbortedError: It was turned away.
            BlockingIOError: There is none.
        """
        accepted, peer = super().accept()
        address = network_of(str(peer[0]))
        if self.connections >= self._most or self._from[address] >= self._most_per_address:
            accepted.close()
            raise ConnectionAbortedError
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        counted = _Counted(accepted, lambda: self._left(counted, address))
        self._open.add(counted)
        self._from[address] += 1
        return counted, peer

    def _left(self, counted: _Counted, address: str) -> None:
        self._open.discard(counted)
        self._from[address] -= 1
        if not self._from[address]:
            del self._from[address]


class _Counted(socket.socket):
    """A connection that says when it is closed."""

    def __init__(self, accepted: socket.socket, left: Callable[[], None]) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        self._left: Callable[[], None] | None = left

    def close(self) -> None:
        """Closes it; the first time counts."""
        super().close()
        left, self._left = self._left, None
        if left is not None:
            left()
