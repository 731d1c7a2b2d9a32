"""The server: an app on a port, in a thread next to the run."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import secrets
import socket
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import structlog
import uvicorn

from flowrun.runtime.errors import UsageError
from flowrun.runtime.server.app import create_app
from flowrun.runtime.server.connections import Connections, most_connections
from flowrun.runtime.server.guard import check_token, is_loopback
from flowrun.runtime.wording import described

if TYPE_CHECKING:
    from flowrun.runtime.server.watchable import Watchable

__all__ = ["Server"]

_GRACE_S = 0.5
"""How long clients that do not read have to take the end of their streams, before they are cut."""


class Server:
    """The HTTP API of a run, until `stop`. It handles no signals.

    url: the page, for a browser on this machine, with the token if there is one.
    token: what clients must send, or None.
    """

    def __init__(
        self, run: Watchable, listener: socket.socket, host: str, token: str | None
    ) -> None:
        port = listener.getsockname()[1]
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        shown = f"[{shown}]" if ":" in shown else shown
        self.token = token
        self.port: int = port
        self.url = f"http://{shown}:{port}/" + (
            "" if token is None else f"?token={quote(token, safe='')}"
        )
        most = most_connections()
        self._app = create_app(run, token=token, host=host, connections=most)
        self._listener = listener
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                self._app,
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=1,  # for what `_cut` has not ended
            )
        )
        self._most = most
        self._connections: Connections | None = None
        self._thread = threading.Thread(target=self._serve, name="flowrun-server", daemon=True)

    @classmethod
    def start(
        cls, run: Watchable, host: str = "127.0.0.1", port: int = 3000, token: str | None = None
    ) -> Server:
        """A server that answers. Raises `UsageError` if it cannot listen at the address.

        port: 0 picks a free one, see `url`.
        token: generated if there is none and `host` is not a loopback address.
        """
        if token is not None:
            check_token(token)
        listener = _listen(host, port)
        bound = listener.getsockname()[0]  # a name may mean another machine's address here
        if token is None and not (is_loopback(host) and is_loopback(bound)):
            token = secrets.token_urlsafe(24)
        server = cls(run, listener, host, token)
        server._thread.start()
        server._ready.wait()
        return server

    def stop(self) -> None:
        """End all streams, answer what waits, and end the thread; within 2 s. May be repeated."""
        if self._loop is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it has just ended by itself
                self._loop.call_soon_threadsafe(self._end)
        self._thread.join(2.0)

    def _serve(self) -> None:
        with _uvicorn_log():
            try:
                asyncio.run(self._run())
            except Exception:  # noqa: BLE001  # the run goes on without its server
                structlog.get_logger("flowrun.server").exception("the HTTP server has failed")
            finally:
                self._listener.close()
                self._ready.set()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_log_error)
        self._connections = Connections(self._listener, self._uvicorn, most=self._most)
        self._connections.accept()
        # Connections queue at the listening socket from here on: clients may come at once.
        self._loop.call_soon(self._ready.set)
        await self._uvicorn.serve(sockets=[])

    def _end(self) -> None:
        assert self._connections is not None
        self._connections.close()
        self._app.state.close()
        self._uvicorn.should_exit = True
        assert self._loop is not None
        self._loop.call_later(_GRACE_S, self._cut)

    def _cut(self) -> None:
        # uvicorn would cancel the tasks of these connections, and log each as an error.
        for connection in list(self._uvicorn.server_state.connections):
            if (transport := connection.transport) is not None:
                transport.abort()


def _log_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An error in one of the loop's callbacks: asyncio would print it on the operator's terminal."""
    structlog.get_logger("flowrun.server").error(
        str(context["message"]), exc_info=context.get("exception")
    )


class _uvicorn_log(logging.Handler):  # noqa: N801  # used as a context
    """Passes uvicorn's errors to structlog, and drops the rest of its log, while it lasts."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._logger = logging.getLogger("uvicorn")

    def __enter__(self) -> None:
        self._logger.addHandler(self)
        self._logger.propagate = False

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        if not self._logger.handlers:
            self._logger.propagate = True

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger("flowrun.server").error(record.getMessage(), exc_info=record.exc_info)


def _listen(host: str, port: int) -> socket.socket:
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
        listener.listen(512)
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
