"""Requests for a pipeline, passed on to its own server as they are; replies as they come."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import httpx

from flowrun.runtime.server.errors import ApiError, ReplyBroken

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import Message, Receive, Scope, Send

__all__ = ["pass_on"]

_TIMES = {"connect": 5.0, "write": 20.0, "read": None, "pool": None}
"""How many seconds each may take; a reply may be a stream that is silent."""

_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""httpx would load the certificates of all authorities for each transport, which takes 0.1 s."""

_OF_CONNECTION = {
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
    b"transfer-encoding", b"upgrade",
}  # fmt: skip
_OURS_IN_REQUEST = _OF_CONNECTION | {b"host", b"origin"}
"""The guard of this server has looked at host and origin. The other server is the machine's own."""
_OURS_IN_REPLY = _OF_CONNECTION | {b"date", b"server"}


class _Gone(Exception):  # noqa: N818  # the client is
    """The client has left before its whole request had come."""


async def pass_on(
    path: str, to: Path, *, scope: Scope, receive: Receive, send: Send, name: str
) -> None:
    """Have the server at a Unix socket answer a request.

    path: what is asked of it, percent-encoded.
    to: the socket.
    name: whose server it is, for errors.

    `ApiError` if it does not answer; `ReplyBroken` if it ends before its reply does.
    """
    has_come = asyncio.Event()

    async def wait_until_gone() -> None:
        await has_come.wait()
        while (await receive())["type"] != "http.disconnect":
            pass

    asking = asyncio.ensure_future(
        _ask(path, to, scope, receive, send, has_come=has_come, name=name)
    )
    leaving = asyncio.ensure_future(wait_until_gone())
    try:
        await asyncio.wait({asking, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            asking.result()
    finally:
        for task in (asking, leaving):
            task.cancel()
        await asyncio.gather(asking, leaving, return_exceptions=True)


async def _ask(
    path: str,
    to: Path,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    has_come: asyncio.Event,
    name: str,
) -> None:
    headers = [(key, value) for key, value in scope["headers"] if key not in _OURS_IN_REQUEST]
    headers.append((b"host", b"localhost"))
    has_body = any(key in (b"content-length", b"transfer-encoding") for key, _ in scope["headers"])
    if not has_body:
        has_come.set()
    query = scope["query_string"]
    request = httpx.Request(
        scope["method"],
        httpx.URL(
            "http://localhost", raw_path=path.encode("ascii") + (b"?" + query if query else b"")
        ),
        headers=headers,
        content=_body(receive, has_come) if has_body else None,
        extensions={"timeout": _TIMES},
    )
    # A connection for each request: one that idles might be closed just when it is used again.
    async with httpx.AsyncHTTPTransport(uds=str(to), verify=_NO_TLS) as transport:
        try:
            reply = await transport.handle_async_request(request)
        except _Gone:
            return
        except httpx.TransportError:
            raise ApiError(503, f"pipeline {name!r} does not answer; it may be starting") from None
        try:
            await _send_reply(reply, send)
        except httpx.TransportError:
            raise ReplyBroken(f"pipeline {name!r} has ended in the middle of a reply") from None
        finally:
            with contextlib.suppress(httpx.TransportError):
                await reply.aclose()


async def _body(receive: Receive, has_come: asyncio.Event) -> AsyncIterator[bytes]:
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        yield message.get("body", b"")
        if not message.get("more_body", False):
            has_come.set()
            return


async def _send_reply(reply: httpx.Response, send: Send) -> None:
    headers = [
        (key.lower(), value)
        for key, value in reply.headers.raw
        if key.lower() not in _OURS_IN_REPLY
    ]
    await send({"type": "http.response.start", "status": reply.status_code, "headers": headers})
    async for piece in reply.aiter_raw():
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
