"""The page as a browser gets it: its files, and what they may load and run."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the endpoints.

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from flowrun.runtime.server.errors import ApiError
from flowrun.runtime.wording import described

__all__ = ["PAGE_FILES", "PageFiles"]

PAGE_FILES = "/page/"
"""The path below which they are. They are the same for every run, so they need no token: a module
that a browser loads for another one carries none."""

_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; worker-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'"
)
"""Files, pictures and data of this server, whatever an answer might talk the page into."""


class PageFiles:
    """The files of `page/`, each at its path below `PAGE_FILES`, and its `index.html`."""

    def __init__(self) -> None:
        folder = files("flowrun.runtime.server") / "page"
        self._folder = folder
        self._files = dict(_walk(folder))

    def index(self, name: str = "index.html") -> Response:
        """The page itself, or another. All its addresses are relative, so that it works below any
        path."""
        page = (self._folder / name).read_text(encoding="utf-8")
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})

    def router(self) -> APIRouter:
        router = APIRouter()
        router.add_api_route(PAGE_FILES + "{name:path}", self.file, include_in_schema=False)
        return router

    async def file(self, request: Request, name: str) -> Response:
        """One file; 304 if the browser has it already."""
        if name not in self._files:
            raise ApiError(404, f"the page has no file {described(name)}")
        content = self._files[name].read_bytes()
        headers = {
            "Cache-Control": "no-cache",  # it may be kept, and is asked for again
            "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        }
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        kind = _TYPES[name[name.rindex(".") :]]
        return Response(content, media_type=kind, headers=headers)


def _walk(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(tuple(_TYPES)):
            yield prefix + entry.name, entry
