"""The addresses at which partitions listen and connect: `tls/edge-1:7447`."""

from __future__ import annotations

import ipaddress
import re

from flowrun.runtime.wording import listed, nearest

__all__ = ["is_anywhere", "is_loopback", "protocol_of", "wrong_address"]

_ADDRESS = re.compile(
    r"(?P<protocol>[a-z-]+)/(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s/:\[\]]*)(?P<port>:[^\s:]*)?"
)
_PROTOCOLS = ("tcp", "tls", "quic")
_MOST_PORT = 65535


def wrong_address(text: str) -> str | None:
    """What is wrong with an address; None if nothing is."""
    match = _ADDRESS.fullmatch(text)
    if match is None or not match["host"]:
        return "expected PROTOCOL/HOST:PORT, such as tls/edge-1:7447"
    if match["protocol"] not in _PROTOCOLS:
        return f"unknown protocol {match['protocol']!r}; protocols: {listed(_PROTOCOLS)}" + nearest(
            match["protocol"], _PROTOCOLS
        )
    port = (match["port"] or "")[1:]
    if not port:
        return f"it lacks a port; write {text.rstrip(':')}:7447"
    if not port.isdecimal() or not 0 < int(port) <= _MOST_PORT:
        return f"port {port!r}: expected a number from 1 to {_MOST_PORT}"
    return None


def is_anywhere(address: str) -> bool:
    """Whether an address stands for all addresses of a machine, as tls/0.0.0.0:7447 does."""
    match = _ADDRESS.fullmatch(address)
    return match is not None and match["host"] in ("0.0.0.0", "[::]")  # noqa: S104


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach it."""
    match = _ADDRESS.fullmatch(address)
    host = match["host"] if match is not None else ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def protocol_of(address: str) -> str:
    """What comes before the slash."""
    return address.partition("/")[0]
