"""WebSockets of a pipeline, passed on to its own server; messages in both directions as they come."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from flowrun.runtime.server.errors import ApiError

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

__all__ = ["pass_on_websocket"]

_OPEN_S = 10.0
_QUEUED = 4
"""Messages that wait for a client that reads slowly; the other server makes fewer of them then."""
_NORMAL, _GOING_AWAY = 1000, 1001
_SENDABLE = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
"""Codes that one may close with; the others say that nobody has."""


async def pass_on_websocket(
    path: str, to: Path, *, scope: Scope, receive: Receive, send: Send, name: str
) -> None:
    """Have the server at a Unix socket talk to a client, until one of them ends it.

    path: what is asked of it, percent-encoded.
    to: the socket.
    name: whose server it is, for errors.

    `ApiError` if it does not answer.
    """
    client = WebSocket(scope, receive, send)
    query = scope["query_string"].decode("latin-1")
    given = client.headers.get("authorization")
    try:
        server = await unix_connect(
            str(to),
            f"ws://localhost{path}" + (f"?{query}" if query else ""),
            additional_headers=None if given is None else {"Authorization": given},
            subprotocols=[Subprotocol(one) for one in scope["subprotocols"]] or None,
            compression=None,
            open_timeout=_OPEN_S,
            ping_interval=None,  # the process is this machine's own: its end closes the socket
            max_size=None,
            max_queue=_QUEUED,
        )
    except InvalidStatus as refusal:
        reply = refusal.response
        kind = reply.headers.get("content-type")
        await client.send_denial_response(
            Response(bytes(reply.body or b""), reply.status_code, media_type=kind)
        )
        return
    except (OSError, TimeoutError, WebSocketException):
        raise ApiError(503, f"pipeline {name!r} does not answer; it may be starting") from None
    async with server:
        with contextlib.suppress(
            WebSocketDisconnect, OSError
        ):  # it may be gone whatever is said to it
            await client.receive()  # that it wants to connect
            await client.accept(server.subprotocol)
            await _until_one_ends(client, server)


async def _until_one_ends(client: WebSocket, server: ClientConnection) -> None:
    down = asyncio.ensure_future(_to_client(client, server))
    up = asyncio.ensure_future(_to_server(client, server))
    try:
        await asyncio.wait({down, up}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (down, up):
            task.cancel()
        ends = await asyncio.gather(down, up, return_exceptions=True)
    for error in ends:
        if isinstance(error, Exception):
            raise error


async def _to_client(client: WebSocket, server: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in server:
            if isinstance(message, str):
                await client.send_text(message)
            else:
                await client.send_bytes(message)
    code, reason = server.close_code, server.close_reason
    if code is None or code not in _SENDABLE:
        code, reason = _GOING_AWAY, "the pipeline has ended"
    await client.close(code, reason)


async def _to_server(client: WebSocket, server: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            message = await client.receive()
            if message["type"] == "websocket.disconnect":
                code = message["code"] if message.get("code") in _SENDABLE else _NORMAL
                await server.close(code, message.get("reason") or "")
                return
            text = message.get("text")
            await server.send(message["bytes"] if text is None else text)
