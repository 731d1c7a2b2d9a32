"""Requests that the servers of the pipelines answer, by their paths."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from flowrun.runtime.serve.pipeline import Pipeline, PipelineError
from flowrun.runtime.serve.proxy import pass_on
from flowrun.runtime.serve.proxy_websocket import pass_on_websocket
from flowrun.runtime.server.bodies import Json
from flowrun.runtime.server.errors import ApiError
from flowrun.runtime.server.requests import json_object, raw_body
from flowrun.runtime.wording import described

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from flowrun.runtime.serve.pipelines import Pipelines
    from flowrun.runtime.server.channels import Places
    from flowrun.runtime.server.page_files import PageFiles

__all__ = ["Others", "SharedPage"]

_PREFIX = "/pipelines/"
_PAGE = r"/(?:pipelines/[^/]+|recorded)(/page/.*)"
_OURS = re.compile(r"/api/v0/(?:pipeline/(?:list|start|stop|restart)|runs(?!/current(?:/|$)).*)")
"""What this server answers below the path of a pipeline, too: also while that does not run."""


class SharedPage:
    """Lets the page, which looks for its files below its own path, find them wherever it is."""

    def __init__(self, app: ASGIApp, *, root_path: str) -> None:
        self._app = app
        self._file = re.compile(f"(?:{re.escape(root_path)})?{_PAGE}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (found := self._file.fullmatch(scope["path"])):
            scope = {**scope, "path": found[1], "raw_path": found[1].encode()}
        await self._app(scope, receive, send)


class Others:
    """What no path of this server's own is for: the servers of the pipelines answer it.

    `/pipelines/NAME/...` is for that of a pipeline. `/api/v0/...` is for that of the one that runs, or
    of the one that `?pipeline_id=` names; `/api/v0/pipeline/...`, such as pause, for that of its body.
    """

    def __init__(
        self, pipelines: Pipelines, ours: ASGIApp, page: PageFiles, places: Places
    ) -> None:
        self._pipelines = pipelines
        self._ours = ours
        self._page = page
        self._places = places

    def reply(self, request: Request) -> Response:
        """The reply to a request of this server that the server of a pipeline gives."""
        return _Reply(self, request)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
            return
        try:
            await self._answer(scope, receive, send)
        except ApiError as error:
            refusal = Json(error.content, status_code=error.status)
            await WebSocket(scope, receive, send).send_denial_response(refusal)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _path(scope)
        raw = scope["raw_path"].decode("latin-1").removeprefix(quote(scope.get("root_path", "")))
        if path.startswith(_PREFIX):
            name, slash, below = path.removeprefix(_PREFIX).partition("/")
            if not slash and scope["type"] == "http":
                query = scope["query_string"].decode("latin-1")
                here = (
                    quote(name) + "/" + (f"?{query}" if query else "")
                )  # relative, behind any proxy
                await Response(status_code=307, headers={"Location": here})(scope, receive, send)
                return
            raw = "/" + raw.removeprefix(_PREFIX).partition("/")[2]
            if _OURS.fullmatch("/" + below):
                ours = {**scope, "path": "/" + below, "raw_path": raw.encode("latin-1")}
                await self._ours(ours, receive, send)
                return
            if not below and "text/html" in _header(scope, b"accept"):
                self._find(name)
                await self._page.index()(scope, receive, send)
                return
            pipeline = self._named(name)
        elif path.startswith("/api/v0/pipeline/") and scope.get("method") == "POST":
            body = await raw_body(Request(scope, receive))
            pipeline = self._meant(scope, json_object(body))
            receive = _with_body(body, receive)
        elif path.startswith("/api/v0/") or path == "/metrics":
            pipeline = self._meant(scope, {})
        else:
            raise ApiError(404, f"no such path {described(path)}; GET / lists all")
        passes = pass_on if scope["type"] == "http" else pass_on_websocket
        with self._places.taken():
            await passes(
                raw, pipeline.socket, scope=scope, receive=receive, send=send, name=pipeline.name
            )

    def _meant(self, scope: Scope, body: dict[str, Any]) -> Pipeline:
        """The pipeline that a request without the name of one in its path is for."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        given = [*query.get("pipeline_id", []), body.get("pipeline_id"), body.get("name")]
        # Where success is {"Success": ...}, clients look for {"Error": ...}.
        wrapped = _path(scope).startswith(("/api/v0/inference/", "/api/v0/streaming/"))
        wrapped = wrapped and scope.get("method") != "POST"
        if names := [name for name in given if isinstance(name, str)]:
            return self._named(names[0], wrapped=wrapped)
        running = self._pipelines.running()
        if len(running) > 1:
            names = [pipeline.name for pipeline in running]
            raise ApiError(
                409,
                f"several pipelines run: {', '.join(names)}; say which with ?pipeline_id=",
                wrapped=wrapped,
            )
        if not running:
            raise ApiError(
                503, "no pipeline runs; POST /api/v0/pipeline/start starts one", wrapped=wrapped
            )
        return running[0]

    def _find(self, name: str, *, wrapped: bool = False) -> Pipeline:
        try:
            return self._pipelines.find(name)
        except PipelineError as error:
            raise ApiError(404, str(error), wrapped=wrapped) from None

    def _named(self, name: str, *, wrapped: bool = False) -> Pipeline:
        pipeline = self._find(name, wrapped=wrapped)
        if not pipeline.is_running:
            why = pipeline.state().error
            raise ApiError(
                503,
                f"pipeline {name!r} does not run" + ("" if why is None else f": {why}"),
                wrapped=wrapped,
            )
        return pipeline


def _path(scope: Scope) -> str:
    """What is asked for, below the path at which a proxy has this server."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _with_body(body: bytes, receive: Receive) -> Receive:
    """Gives a body that has been read once more."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def again() -> Message:
        for message in messages:
            return message
        return await receive()

    return again


def _header(scope: Scope, name: bytes) -> str:
    found: dict[bytes, bytes] = dict(scope["headers"])
    return found.get(name, b"").decode("latin-1")


class _Reply(Response):
    """A reply that comes from the server of a pipeline."""

    def __init__(self, others: Others, request: Request) -> None:
        super().__init__()
        self._others = others
        self._request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._others(scope, receive, send)
