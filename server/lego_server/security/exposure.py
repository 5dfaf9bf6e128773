"""Whether a server may listen where it is asked to."""

from __future__ import annotations

from lego_core.errors import LegoError
from lego_core.secrecy import is_loopback

from lego_server.security.config import SecurityConfig


def exposure(config: SecurityConfig, host: str) -> str:
    """Says what protection lacks on an address that other machines can reach; empty if nothing does."""
    if is_loopback(host):
        return ""
    lacking = []
    if config.tls_cert is None:
        lacking.append("encryption")
    if not config.knows_callers:
        lacking.append("a check of who calls")
    return " and without ".join(lacking)


def refuse_exposure(config: SecurityConfig, host: str) -> None:
    """Refuses an address that other machines can reach unless the server is protected, or told to do without.

    Raises:
        LegoError: What is lacking, why it matters, and the cures.
    """
    lacking = exposure(config, host)
    if lacking and not config.allow_insecure:
        raise LegoError(
            f"{host} can be reached from other machines, and without {lacking} anybody there could see what wearers "
            "see or use this server: give --tls-cert, --tls-key and --token-file (docs/security.md has the steps), or "
            "leave out --host and --web-host to listen on this machine only; --allow-insecure goes without, for "
            "networks where everybody is trusted"
        )
