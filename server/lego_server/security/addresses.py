"""What is remembered of the addresses that call, so that none of them can take or try too much."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

ADDRESSES_REMEMBERED = 4096  # about 1 MB


@dataclass
class _Failures:
    count: int
    last: float


class AddressBook:
    """Counts open calls and failed attempts by address. Belongs to one event loop.

    Memory is bounded: open calls are remembered only while they are open, and failures of the 4096 addresses that
    failed last.
    """

    def __init__(
        self,
        max_calls: int,
        max_failures: int,
        lockout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        remembered: int = ADDRESSES_REMEMBERED,
    ) -> None:
        self._max_calls = max_calls
        self._max_failures = max_failures
        self._lockout_seconds = lockout_seconds
        self._clock = clock
        self._remembered = remembered
        self._calls: Counter[str] = Counter()
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def __len__(self) -> int:
        """Addresses of which something is remembered."""
        return len(self._calls.keys() | self._failures.keys())

    def lockout(self, address: str) -> float:
        """Returns for how many more seconds an address is locked out; 0 if it is not."""
        failures = self._failures.get(address)
        if failures is None:
            return 0.0
        left = failures.last + self._lockout_seconds - self._clock()
        if left <= 0:
            del self._failures[address]
            return 0.0
        return left if failures.count >= self._max_failures else 0.0

    def failed(self, address: str) -> bool:
        """Notes an attempt without a good token; returns whether the address is locked out now."""
        self.lockout(address)  # forgets failures of long ago
        failures = self._failures.pop(address, _Failures(0, -math.inf))
        self._failures[address] = failures
        failures.count += 1
        failures.last = self._clock()
        while len(self._failures) > self._remembered:
            self._failures.popitem(last=False)
        return failures.count >= self._max_failures

    def succeeded(self, address: str) -> None:
        """Forgets an address's failed attempts."""
        self._failures.pop(address, None)

    def enter(self, address: str) -> bool:
        """Counts a call in; False if the address has too many open already, and then `leave` is not called."""
        if self._calls[address] >= self._max_calls:
            return False
        self._calls[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Counts a call out."""
        self._calls[address] -= 1
        if self._calls[address] <= 0:
            del self._calls[address]


def address_of(peer: str) -> str:
    """Returns whom a gRPC peer, such as `ipv4:10.0.0.7:51234`, counts as."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return kind  # a Unix socket: all its users are one
    return network_of(unquote(rest).rpartition(":")[0].strip("[]"))


def network_of(host: str) -> str:
    """Returns whom an IP address counts as.

    An IPv4 address counts as itself, also where it is mapped into IPv6. Of an IPv6 address the first 64 bits count: who
    has one has them all.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        if not address.is_loopback:
            return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
