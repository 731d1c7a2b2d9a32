"""How a server is reached from elsewhere: below a path of a proxy, by pages of other sites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.middleware.cors import CORSMiddleware

from flowrun.runtime.errors import UsageError
from flowrun.runtime.wording import described

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Site"]

_READABLE = ("X-Timestamp-Nanos", "X-Cycle")


@dataclass(frozen=True, slots=True)
class Site:
    """Where a server is for others.

    cors: the origins of other sites whose pages may read and change everything, such as
        "https://example.org". They are also names by which a proxy may call the server.
    root_path: the path below which a proxy has the server, such as "/cameras"; "" for none. It does not
        matter whether the proxy takes it away from what it passes on.

    Raises `UsageError` for what is no origin or no path.
    """

    cors: tuple[str, ...] = ()
    root_path: str = ""

    def __post_init__(self) -> None:
        for origin in self.cors:
            if not _is_origin(origin):
                raise UsageError(
                    f"origin {described(origin)}: expected a scheme, a host and no path, such as "
                    "https://example.org or http://10.0.0.7:8080"
                )
        path = self.root_path
        if path and (not path.startswith("/") or path.endswith("/") or "//" in path):
            raise UsageError(
                f"path {described(path)}: expected one that begins with / and does not end with it, "
                "such as /cameras"
            )

    @property
    def hosts(self) -> frozenset[str]:
        """What the `Host` header may be, besides the server's own names."""
        return frozenset(urlsplit(origin).netloc.lower() for origin in self.cors)

    def open(self, app: FastAPI) -> None:
        """Let `app` answer there. To be called after it has got its guard."""
        if self.cors:
            # Before the guard: browsers ask whether they may send a token without sending it.
            app.add_middleware(
                CORSMiddleware,
                allow_origins=self.cors,
                allow_methods=["GET", "HEAD", "POST"],
                allow_headers=["Authorization", "Content-Type"],
                expose_headers=_READABLE,
            )
        if self.root_path:
            app.root_path = self.root_path
            app.add_middleware(_Below, root_path=self.root_path)


class _Below:
    """Gives each request the path that the server has outside, whatever the proxy has made of it."""

    def __init__(self, app: ASGIApp, *, root_path: str) -> None:
        self._app = app
        self._root = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path != self._root and not path.startswith(f"{self._root}/"):
            scope = {**scope, "path": self._root + path}
        await self._app(scope, receive, send)


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and "@" not in parts.netloc
        and text == f"{parts.scheme}://{parts.netloc}"
    )
