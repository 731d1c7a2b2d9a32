"""The server: an app on a port or a socket, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import structlog
import uvicorn

from flowrun.runtime.server.app import create_app
from flowrun.runtime.server.connections import Connections, most_connections
from flowrun.runtime.server.guard import check_token, is_loopback
from flowrun.runtime.server.listening import listen, listen_at
from flowrun.runtime.server.site import Site
from flowrun.runtime.server.websocket import WebSocketConnection

if TYPE_CHECKING:
    from fastapi import FastAPI

    from flowrun.runtime.server.watchable import Watchable

__all__ = ["Server", "token_for"]

_HERE = Site()
_HEARD = 4096
"""Bytes that a viewer may send in one message; nobody reads them."""
_GRACE_S = 0.5
"""How long clients that do not read have to take the end of their streams, before they are cut."""


class MakeApp(Protocol):
    """Makes an app for a server that is about to listen; as `create_app` does of a run."""

    def __call__(self, *, token: str | None, host: str, connections: int) -> FastAPI: ...


class Server:
    """An app at an address, until `stop`. It handles no signals.

    url: where it is, for a browser on this machine, with the token if there is one; `unix:PATH` for a
        socket of the file system.
    port: 0 there.
    token: what clients must send, or None.
    """

    def __init__(
        self, make_app: MakeApp, listener: socket.socket, *, host: str, token: str | None
    ) -> None:
        self.token = token
        self.url, self.port, self._path = _place(listener, host)
        if token is not None:
            self.url += f"?token={quote(token, safe='')}"
        most = most_connections()
        self._app = make_app(token=token, host=host, connections=most)
        self._listener = listener
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                self._app,
                loop="asyncio",
                http="h11",
                ws=WebSocketConnection,
                ws_max_size=_HEARD,
                ws_per_message_deflate=False,  # videos are compressed
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
        cls,
        run: Watchable,
        host: str = "127.0.0.1",
        port: int = 3000,
        token: str | None = None,
        *,
        site: Site = _HERE,
    ) -> Server:
        """A server of a run that answers. Raises `UsageError` if it cannot listen at the address.

        port: 0 picks a free one, see `url`.
        token: generated if there is none and `host` is not a loopback address.
        site: how it is reached from elsewhere.
        """
        return cls.start_app(partial(create_app, run, site=site), host=host, port=port, token=token)

    @classmethod
    def start_app(cls, make_app: MakeApp, *, host: str, port: int, token: str | None) -> Server:
        """The same of any app."""
        if token is not None:
            check_token(token)
        listener = listen(host, port)
        bound = listener.getsockname()[0]  # a name may mean another machine's address here
        server = cls(make_app, listener, host=host, token=token_for(token, host, bound))
        server._begin()
        return server

    @classmethod
    def start_at(
        cls, run: Watchable, path: Path, token: str | None = None, *, site: Site = _HERE
    ) -> Server:
        """A server of a run at the socket `path`, for this user's processes; otherwise as `start`."""
        if token is not None:
            check_token(token)
        make_app = partial(create_app, run, site=site)
        server = cls(make_app, listen_at(path), host="localhost", token=token)
        server._begin()
        return server

    def _begin(self) -> None:
        self._thread.start()
        self._ready.wait()

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
                if self._path is not None:
                    self._path.unlink(missing_ok=True)
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


def token_for(given: str | None, *hosts: str) -> str | None:
    """The token that clients of `hosts` must send: the given one, or one that is made if there is none
    and not every host is a loopback address. `UsageError` if clients could not send the given one.
    """
    if given is not None:
        check_token(given)
    elif not all(map(is_loopback, hosts)):
        return secrets.token_urlsafe(24)
    return given


def _place(listener: socket.socket, host: str) -> tuple[str, int, Path | None]:
    """Where a listener is: as an address, its port, its path."""
    if listener.family == socket.AF_UNIX:
        path = listener.getsockname()
        return f"unix:{path}", 0, Path(path)
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    shown = f"[{shown}]" if ":" in shown else shown
    port: int = listener.getsockname()[1]
    return f"http://{shown}:{port}/", port, None


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
