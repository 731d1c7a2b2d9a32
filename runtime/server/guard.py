"""Who may talk to the server."""

from __future__ import annotations

import hmac
import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard", "is_loopback"]

_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the address may hold the token
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class Guard:
    """Lets a request pass to `app`, or refuses it.

    token: every request must carry it (`Authorization: Bearer TOKEN` or `?token=TOKEN`), if any.
    host: the address that the server is bound to. On a loopback address the `Host` header must
        name this machine too, or else any web page could reach the run through a DNS name of its
        own that it lets point here.

    A request that changes something must not come from another site's page (`Origin`): browsers
    send such requests without asking.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, host: str) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._host = host.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        reply: ASGIApp = self._refusal(scope) or self._app
        await reply(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if is_loopback(self._host) and not self._names_this_machine(host):
            return JSONResponse(
                {
                    "error": f"host {host!r} is not a name of this machine: open the server as "
                    "http://127.0.0.1 or http://localhost, or give it another address and a token"
                },
                status_code=403,
            )
        origin = headers.get("origin")
        if (
            scope["method"] not in {"GET", "HEAD", "OPTIONS"}
            and origin is not None
            and _netloc(origin) != host.lower()
        ):
            return JSONResponse(
                {"error": f"a page of {origin!r} may not change the run of {host!r}"},
                status_code=403,
            )
        if self._token is not None and not self._has_token(scope, headers):
            return JSONResponse(
                {
                    "error": "a token is needed: the header 'Authorization: Bearer TOKEN' or "
                    "'?token=TOKEN'; the run printed it when it started"
                },
                status_code=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
        return None

    def _names_this_machine(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name == self._host or is_loopback(name)

    def _has_token(self, scope: Scope, headers: Headers) -> bool:
        assert self._token is not None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            query = parse_qs(scope["query_string"].decode("latin-1"))
            given = query.get("token", [""])[0]
        return hmac.compare_digest(given.strip().encode(), self._token)


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
