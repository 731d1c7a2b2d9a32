"""Who may talk to the server."""

from __future__ import annotations

import hmac
import ipaddress
import math
import socket
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.websockets import WebSocket

from flowrun.runtime.clock import monotonic_s
from flowrun.runtime.errors import UsageError
from flowrun.runtime.server.bodies import Json
from flowrun.runtime.server.page_files import PAGE_FILES
from flowrun.runtime.server.site import Site
from flowrun.runtime.wording import described

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard", "check_token", "is_loopback"]

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",  # other sites' pages embed no pictures
    "Referrer-Policy": "no-referrer",  # the address may hold the token
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_LONGEST_TOKEN = 1024
_FREE_S = 9
"""Each wrong token counts for a second; an address has to wait while its own are more than this."""
_ADDRESSES = 1024
"""Addresses whose wrong tokens are counted; the one that was wrong longest ago is forgotten first."""


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def check_token(token: str) -> None:
    """`UsageError` if clients could not send this token, in a header or an address; it does not show
    the token."""
    if not token:
        raise UsageError("the token is empty: leave it out to have one made, or give one")
    for place, character in enumerate(token, 1):
        if not "!" <= character <= "~":
            kind = "a blank" if character.isspace() else "not a visible ASCII character"
            raise UsageError(
                f"the token's character {place} is {kind}, which not every client can send: "
                "use letters, digits and signs such as - and _"
            )
    if len(token) > _LONGEST_TOKEN:
        raise UsageError(f"the token has {len(token):,} characters; at most {_LONGEST_TOKEN:,}")


class _Guesses:
    """Wrong tokens by client address: after some, one try a second, or a short token could be found
    by trying."""

    def __init__(self) -> None:
        self._full_until: dict[str, float] = {}

    def wait_s(self, address: str) -> float:
        """Seconds until the next try of `address` may be; 0: it may be now."""
        return max(0.0, self._full_until.get(address, 0.0) - monotonic_s() - _FREE_S)

    def count(self, address: str) -> None:
        """It was wrong."""
        now = monotonic_s()
        full_until = max(now, self._full_until.pop(address, 0.0)) + 1
        self._full_until[address] = full_until
        while len(self._full_until) > _ADDRESSES:
            del self._full_until[next(iter(self._full_until))]


class Guard:
    """Lets a request pass to `app`, or refuses it.

    token: every request must carry it (`Authorization: Bearer TOKEN` or `?token=TOKEN`), if any,
        but one for a file of the page.
    host: the address that the server is bound to. On a loopback address the `Host` header must
        name this machine too, or else any web page could reach the run through a DNS name of its
        own that it lets point here.

    site: how it is reached from elsewhere; pages of its origins may read and change everything.

    A request that changes something must not come from another site's page (`Origin`): browsers
    send such requests without asking.

    An address that has sent wrong tokens has to wait, also with the right one.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, host: str, site: Site) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._host = host.lower()
        self._site = site
        self._own_names = _own_names()
        self._guesses = _Guesses()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            refusal = self._refusal(scope)
            if refusal is None:
                await self._app(scope, receive, send)
            else:
                await WebSocket(scope, receive, send).send_denial_response(refusal)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if Headers(scope=scope).get("origin") in self._site.cors:
                    headers["Cross-Origin-Resource-Policy"] = "cross-origin"
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        reply: ASGIApp = self._refusal(scope) or self._app
        await reply(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Json | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if is_loopback(self._host) and not self._names_this_machine(host):
            return Json(
                {
                    "error": f"host {described(host)} is not a name of this machine: open the server as "
                    "http://127.0.0.1 or http://localhost, or give it another address and a token"
                },
                status_code=403,
            )
        origin = headers.get("origin")
        # What a WebSocket gives, its page may read: browsers ask nobody.
        is_read = scope["type"] == "http" and scope["method"] in {"GET", "HEAD", "OPTIONS"}
        if not is_read and origin is not None and not self._is_friend(origin, host):
            what = "watch" if scope["type"] == "websocket" else "change"
            return Json(
                {
                    "error": f"a page of {described(origin)} may not {what} the run of "
                    f"{described(host)}"
                },
                status_code=403,
            )
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if self._token is None or path.startswith(PAGE_FILES):
            return None
        given = _given_token(scope, headers)
        address = _network(scope)
        if given is not None and (wait_s := self._guesses.wait_s(address)):
            return Json(
                {"error": f"too many wrong tokens from this address; wait {wait_s:.0f} s"},
                status_code=429,
                headers={"Retry-After": str(math.ceil(wait_s))},
            )
        if given is None or not hmac.compare_digest(given, self._token):
            if given is not None:
                self._guesses.count(address)
            return Json(
                {
                    "error": "a token is needed: the header 'Authorization: Bearer TOKEN' or "
                    "'?token=TOKEN'; the run printed it when it started"
                },
                status_code=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
        return None

    def _is_friend(self, origin: str, host: str) -> bool:
        return _netloc(origin) == host.lower() or origin in self._site.cors

    def _names_this_machine(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return (
            name in (self._host, *self._own_names)
            or is_loopback(name)
            or host.lower() in self._site.hosts
        )


def _own_names() -> frozenset[str]:
    """By what clients on this machine call it: none is a name that somebody else can let point here. The
    unspecified addresses are what a client of a server at all addresses is configured with."""
    name = socket.gethostname().lower()
    return frozenset({name, f"{name}.local", "0.0.0.0", "::"})  # noqa: S104


def _given_token(scope: Scope, headers: Headers) -> bytes | None:
    """The token that a request carries, if any."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        query = parse_qs(scope["query_string"].decode("latin-1"))
        given = query.get("token", [""])[0]
    return given.strip().encode() or None


def _network(scope: Scope) -> str:
    """Where a request comes from: an IPv4 address, or an IPv6 network, whose addresses are one
    client's; "" if it came by a socket of the file system."""
    if scope["client"] is None:
        return ""
    host: str = scope["client"][0]
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.version == 4:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
