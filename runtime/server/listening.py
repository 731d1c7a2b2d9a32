"""Where a server listens: at an address and port, or at a socket of the file system."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from flowrun.runtime.errors import UsageError
from flowrun.runtime.wording import described

__all__ = ["listen", "listen_at"]

_QUEUE = 512


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Bound here, not by uvicorn, which ends the process if it cannot."""
    if not 0 <= port <= 65535:
        raise UsageError(f"port {port} is not a port: give 1 to 65535, or 0 for a free one")
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_QUEUE)
        listener.setblocking(False)
    except (OSError, ValueError) as error:  # ValueError: no host name at all
        if listener is not None:
            listener.close()
        number = error.errno if isinstance(error, OSError) else None
        if number == errno.EADDRINUSE:
            text = f"port {port} of {host!r} is taken; port 0 picks a free one"
        elif number in {errno.EACCES, errno.EPERM}:
            text = (
                f"port {port} of {host!r} is not allowed; give one above 1023, or 0 for a free one"
            )
        else:
            why = (error.strerror if isinstance(error, OSError) else None) or error
            text = f"host {described(host)} is no address of this machine: {why}"
        raise UsageError(text) from None
    return listener


def listen_at(path: Path) -> socket.socket:
    """A listening Unix socket, for this user alone. One that a server has left there, and that nobody
    listens at any more, is replaced."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        if _is_left(path):
            path.unlink()
        # Others could connect between `bind` and a `chmod` of the path.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        listener.listen(_QUEUE)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        why = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            why = "a server listens there" if path.is_socket() else "something else is there"
        raise UsageError(f"cannot listen at socket {path}: {why}") from None
    return listener


def _is_left(path: Path) -> bool:
    with contextlib.suppress(OSError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(path))
            except ConnectionRefusedError:
                return True
    return False
