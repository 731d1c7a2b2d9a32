"""The open connections of a server: bounded in number, in time, and in the memory of their replies.

uvicorn bounds the size of a request's head, and closes connections that idle. What is here bounds how
many there are, how long a client may take for its part, and what waits for clients that do not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from typing import TYPE_CHECKING, Any, Literal

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from flowrun.runtime.server.errors import ReplyBroken

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send
    from uvicorn.server import ServerState

__all__ = ["LIMITS_S", "Connections", "most_connections"]

_MOST = 512

_Part = Literal["request", "body", "reply"]
"""What a connection may wait for: the client's part."""

LIMITS_S: dict[_Part, float] = {"request": 10.0, "body": 10.0, "reply": 20.0}
"""Seconds that a client has for it: to send the whole head of a request, however slowly it
comes; to send the rest of the body; to make room for more of a reply."""

_PIECE = 64 << 10
_UNSENT = 64 << 20
"""Bytes of replies that may wait for clients to read, in all."""

_WAITING = 128 << 10
"""Bytes that the system takes of a connection beyond what is on its way: the system's own limit is
megabytes, which are seconds of a video that a slow viewer would see late, or nobody."""

_RETRY_S = 0.1

_FULL = b"""\
HTTP/1.1 503 Service Unavailable\r
Connection: close\r
Retry-After: 1\r
Content-Type: application/json\r
\r
{"error":"all connections are being answered"}"""


def most_connections() -> int:
    """How many connections a server in this process may have: at most half of the descriptors that
    the system allows it, the rest being for the log, cameras and models."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else max(8, min(_MOST, soft // 2))


class Connections:
    """Accepts the connections of one server. All methods are for the loop's thread.

    Whom a connection waits for decides what becomes of it. One that waits for its client is closed
    when the client's time is up, or sooner, if it has waited longest and its place is needed. One
    whose request is being answered is left alone.

    most: how many there may be.
    """

    def __init__(self, listener: socket.socket, server: uvicorn.Server, *, most: int) -> None:
        self.most = most
        self._listener = listener
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._arriving: dict[_Connection, asyncio.Task[Any]] = {}
        self._waiting: dict[_Connection, None] = {}  # the one that has waited longest first
        self._unsent = 0

    def accept(self) -> None:
        """Take connections from now on. One at a time: asyncio's own server accepts whatever has queued
        up, and may use up the descriptors before a limit is looked at."""
        self._loop.add_reader(self._listener, self._take)

    def close(self) -> None:
        """Take no more."""
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _take(self) -> None:
        full = len(self._server.server_state.connections) + len(self._arriving) >= self.most
        if full and self._cut_longest():
            return  # it is gone when the loop calls this again
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):  # it has left
            return
        except OSError:  # no descriptor is free
            self._cut_longest()
            self._loop.remove_reader(self._listener)
            self._loop.call_later(_RETRY_S, self._retry)
            return
        if full:
            with client, contextlib.suppress(OSError):
                client.send(_FULL)
            return
        client.setblocking(False)
        if client.family != socket.AF_UNIX:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _WAITING)
        connection = _Connection(self, self._server.config, self._server.server_state)
        self._arriving[connection] = self._loop.create_task(
            self._loop.connect_accepted_socket(lambda: connection, client)
        )

    def _retry(self) -> None:
        if self._listener.fileno() >= 0:
            self.accept()

    def _cut_longest(self) -> bool:
        """Close the connection that has waited longest for its client. False: none waits."""
        for connection in self._waiting:
            connection.cut()
            return True
        return False

    # -- what a connection says of itself -------------------------------------------------------

    def arrived(self, connection: _Connection) -> None:
        """It is among the server's own from now on."""
        del self._arriving[connection]

    def note(self, connection: _Connection) -> None:
        """Whom it waits for has changed."""
        self._waiting.pop(connection, None)
        if connection.waits_for is not None:
            self._waiting[connection] = None

    def hold(self, connection: _Connection, size: int) -> None:
        """`size` bytes of a reply wait for its client. If that is too much in all, the connections
        are closed that have waited longest."""
        self._unsent += size - connection.unsent
        connection.unsent = size
        if self._unsent > _UNSENT:
            for other in [other for other in self._waiting if other.unsent]:
                if other is not connection:
                    other.cut()
                if self._unsent <= _UNSENT:
                    return


class _Connection(H11Protocol):
    """A connection of uvicorn's that knows whom it waits for.

    waits_for: the client's part that has not come yet; None while a request is being answered, and
        at the end.
    unsent: how many bytes of its reply wait in memory.
    """

    def __init__(
        self, connections: Connections, config: uvicorn.Config, state: ServerState
    ) -> None:
        super().__init__(config, state, {})
        self.waits_for: _Part | None = None
        self.unsent = 0
        self._all = connections
        self._timer: asyncio.TimerHandle | None = None
        self._asked: object = None
        self._app, self.app = self.app, self._answer
        self._lost = False

    def cut(self) -> None:
        """Close it now, with whatever it had to send."""
        self.transport.abort()
        self._end()

    # -- what happens to it ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._all.arrived(self)
        self._look()

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except h11.LocalProtocolError:  # uvicorn answers what is no HTTP, also after a reply
            self.cut()
        self._look()

    def send_400_response(self, msg: str) -> None:
        asked = self.cycle
        if asked is not None and not asked.response_complete:  # its body is what is no HTTP
            if asked.response_started:
                self.cut()
                return
            asked.disconnected = True  # so that the app does not answer too
            asked.message_event.set()
        super().send_400_response(msg)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._end()  # its WebSocket takes over
        super().handle_websocket_upgrade(event)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._end()

    def _look(self) -> None:
        """Note whom it waits for; give the client its time if that has changed."""
        if self._lost:
            return
        waits_for: _Part | None = None
        asked = self.cycle  # another request, another time
        if asked is None or asked.response_complete:
            waits_for = "request"
        elif asked.more_body:
            waits_for = "body"
        elif self.flow.write_paused:
            waits_for = "reply"
        if (waits_for, asked) != (self.waits_for, self._asked):
            self._wait(waits_for, asked)

    def _wait(self, waits_for: _Part | None, asked: object) -> None:
        self.waits_for, self._asked = waits_for, asked
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if waits_for is not None:
            self._timer = self.loop.call_later(LIMITS_S[waits_for], self.cut)
        self._all.note(self)

    def _end(self) -> None:
        self._wait(None, None)
        self._all.hold(self, 0)
        self._lost = True

    # -- what it sends --------------------------------------------------------------------------

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app answer, and send what it gives in pieces, each when the client has made room:
        a transport copies what it is given, so a large reply to a client that does not read would
        be in memory once more for each of them. A reply whose client has left ends where it is."""

        async def send_piece(message: Message) -> None:
            if self.transport.is_closing():
                # uvicorn hears of it when the loop has its turn, and a reply whose pieces are all there
                # leaves it none; asyncio logs what is written meanwhile.
                self._is_left()
                if message["type"] == "http.response.body":
                    raise _ClientLeft
            await send(message)

        async def send_in_pieces(message: Message) -> None:
            body = message.get("body", b"")
            if len(body) <= _PIECE:
                await send_piece(message)
                return
            self._all.hold(self, len(body))
            view = memoryview(body)
            for start in range(0, len(body), _PIECE):
                end = start + _PIECE
                more = end < len(body) or message.get("more_body", False)
                await send_piece({**message, "body": view[start:end], "more_body": more})
            self._all.hold(self, 0)

        try:
            await self._app(scope, receive, send_in_pieces)
        except _ClientLeft:
            self._all.hold(self, 0)
        except ReplyBroken:
            self._is_left()
            self.cut()

    def _is_left(self) -> None:
        """Nobody gets the rest of the reply: uvicorn is not to take that for an error of the app."""
        if (asked := self.cycle) is not None:
            asked.disconnected = True


class _ClientLeft(OSError):  # noqa: N818  # it has happened to the reply
    """Nobody reads the rest of a reply. ASGI has `send` raise an `OSError` then."""
