"""The HTTP API of many runs: what starts and stops them, and all that their own servers answer."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the endpoints.

import asyncio
import os
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, FastAPI, Query, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from flowrun.runtime.errors import FlowrunError
from flowrun.runtime.graph.masking import masked_graph
from flowrun.runtime.graph.read import load_graph
from flowrun.runtime.serve.bodies import Listed
from flowrun.runtime.serve.pipeline import RESTARTS, Pipeline, PipelineError, Restart, State
from flowrun.runtime.serve.pipelines import Pipelines
from flowrun.runtime.serve.proxy import pass_on
from flowrun.runtime.serve.proxy_websocket import pass_on_websocket
from flowrun.runtime.server.app import new_app
from flowrun.runtime.server.bodies import Json, MessageReply, refusals
from flowrun.runtime.server.channels import Places
from flowrun.runtime.server.errors import ApiError
from flowrun.runtime.server.requests import (
    BODY_LIMIT,
    described_body,
    json_body,
    json_object,
    raw_body,
)
from flowrun.runtime.server.status import jsonable
from flowrun.runtime.wording import described

__all__ = ["create_app"]

_START_S = 20.0
"""Seconds that a start waits for a run to answer, or to say why it does not."""
_PREFIX = "/pipelines/"


def create_app(pipelines: Pipelines, *, token: str | None, host: str, connections: int) -> FastAPI:
    """The app of a server of `pipelines`; see `flowrun.runtime.server.app.create_app`."""
    app = new_app(
        title="flowrun serve",
        description="The graphs of a folder as pipelines. Each has a server of its own, which answers "
        "below /pipelines/NAME/; what it answers below /api/v0/ is also here while no other runs.",
        token=token,
        host=host,
    )
    app.state.close = lambda: None
    app.include_router(_Commands(pipelines).router(), tags=["pipelines"])
    # Each request that is passed on takes a second descriptor.
    places = Places(connections * 3 // 4, "requests wait for pipelines")
    app.router.default = _Others(pipelines, places, app.router.default)
    return app


class _Commands:
    """The endpoints that start and stop."""

    def __init__(self, pipelines: Pipelines) -> None:
        self._pipelines = pipelines

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/api/v0/pipeline", default_response_class=Json)
        router.add_api_route(
            "/list", self.list_, responses={200: {"model": list[Listed]}, **refusals({})}
        )
        router.add_api_route(
            "/config",
            self.config,
            responses={
                200: {"model": dict[str, Any]},
                **refusals({404: "No such pipeline.", 422: "The graph has mistakes."}),
            },
        )
        errors = {
            413: f"The body is larger than {BODY_LIMIT} bytes.",
            422: "A key or a value is wrong; the error names it.",
        }
        name = {"type": "string"}
        for verb, endpoint, refused, keys in (
            (
                "start",
                self.start,
                "It runs, or there is no such graph, or it has failed.",
                _START_KEYS,
            ),
            ("stop", self.stop, "It does not run.", {}),
            ("restart", self.restart, "There is no such graph, or it has failed.", _START_KEYS),
        ):
            schema = {
                "type": "object",
                "properties": {"pipeline_id": name, "name": name, **keys},
                "additionalProperties": False,
                "anyOf": [{"required": ["pipeline_id"]}, {"required": ["name"]}],
                "example": {"pipeline_id": "inference"},
            }
            router.add_api_route(
                f"/{verb}",
                endpoint,
                methods=["POST"],
                responses={
                    200: {"model": MessageReply},
                    **refusals({400: f"The body is not JSON. {refused}", **errors}),
                },
                openapi_extra=described_body(schema),
            )
        return router

    async def list_(self) -> Json:
        """Every graph of the folder: `"Running"`, `"Stopped"` or `{"Error": text}`.

        An error stays until the pipeline is started again or stopped. `next_start_s` is in how many
        seconds it is started by itself.
        """
        found = await asyncio.to_thread(self._pipelines.all)
        return Json([_listed(pipeline.name, pipeline.state()) for pipeline in found])

    async def config(
        self, pipeline_id: Annotated[str, Query(description="The pipeline's id.")]
    ) -> Json:
        """The graph of a pipeline as its file is now, with secrets masked."""
        try:
            pipeline = self._pipelines.find(pipeline_id)
        except PipelineError as error:
            raise ApiError(404, str(error)) from None
        try:
            graph = await asyncio.to_thread(_graph, pipeline)
        except FlowrunError as error:
            raise ApiError(422, str(error)) from None
        return Json(jsonable(graph))

    async def start(self, request: Request) -> Json:
        """Start a graph of the folder: `{"pipeline_id": ...}` or `{"name": ...}`.

        Returns when its server answers, within 20 s; a graph with mistakes is refused with all of
        them. `"restart": "on-failure"` or `"always"` starts it again after it has ended, after 1 s, 2 s,
        4 s, ... 30 s.
        """
        body = await _command(request, ("restart",))
        pipeline = self._find(body)
        await _do(pipeline.start, _restart(body))
        await _do(pipeline.wait_until_serving, _START_S)
        return Json({"message": f"Pipeline {pipeline.name} started"})

    async def stop(self, request: Request) -> Json:
        """End the run of a pipeline: `{"pipeline_id": ...}` or `{"name": ...}`.

        Returns within 5 s, even if a task is stuck: its process is ended then.
        """
        pipeline = self._find(await _command(request, ()), refusal="Pipeline not found")
        await _do(pipeline.stop)
        return Json({"message": f"Pipeline {pipeline.name} stopped"})

    async def restart(self, request: Request) -> Json:
        """Stop a pipeline if it runs, and start it; the body is that of start."""
        body = await _command(request, ("restart",))
        pipeline = self._find(body)
        state = pipeline.state()
        if state.phase != "stopped":
            await _do(pipeline.stop)
        await _do(pipeline.start, _restart(body, state.restart))
        await _do(pipeline.wait_until_serving, _START_S)
        return Json({"message": f"Pipeline {pipeline.name} restarted"})

    def _find(self, body: dict[str, Any], *, refusal: str | None = None) -> Pipeline:
        names = [body[key] for key in ("pipeline_id", "name") if key in body]
        if not names:
            raise ApiError(422, "pipeline_id is missing: the name of a graph of the folder")
        name = names[0]
        if not isinstance(name, str):
            raise ApiError(422, f"pipeline_id: must be a text; got {described(name)}")
        if any(other != name for other in names):
            raise ApiError(422, "pipeline_id and name are two names; give one")
        try:
            return self._pipelines.find(name)
        except PipelineError as error:
            raise ApiError(400, refusal or str(error)) from None


_START_KEYS = {"restart": {"type": "string", "enum": list(RESTARTS)}}


async def _command(request: Request, more: tuple[str, ...]) -> dict[str, Any]:
    body = await json_body(request)
    keys = ("pipeline_id", "name", *more)
    if unknown := [key for key in body if key not in keys]:
        raise ApiError(422, f"unknown key {described(unknown[0])}; keys: {', '.join(keys)}")
    return body


def _restart(body: dict[str, Any], default: Restart = "never") -> Restart:
    given = body.get("restart", default)
    for known in RESTARTS:
        if given == known:
            return known
    raise ApiError(422, f"restart: must be one of {', '.join(RESTARTS)}; got {described(given)}")


async def _do(command: Callable[..., None], *args: Any) -> None:
    try:
        await asyncio.to_thread(command, *args)
    except PipelineError as error:
        raise ApiError(400, str(error)) from None


def _graph(pipeline: Pipeline) -> dict[str, Any]:
    return masked_graph(load_graph(pipeline.path, env=os.environ))


def _listed(name: str, state: State) -> dict[str, Any]:
    if state.phase in ("running", "stopping"):
        status: Any = "Running"
    else:
        status = "Stopped" if state.error is None else {"Error": state.error}
    return {
        "id": name,
        "status": status,
        "pid": state.pid,
        "restart": state.restart,
        "restarts": state.restarts,
        "next_start_s": state.next_start_s,
    }


class _Others:
    """What no path of this server's own is for: the servers of the pipelines answer it.

    `/pipelines/NAME/...` is for that of a pipeline. `/api/v0/...` is for that of the one that runs, or
    of the one that `?pipeline_id=` names; `/api/v0/pipeline/...`, such as pause, for that of its body.
    """

    def __init__(self, pipelines: Pipelines, places: Places, otherwise: ASGIApp) -> None:
        self._pipelines = pipelines
        self._places = places
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if not path.startswith((_PREFIX, "/api/v0/")) and path != "/metrics":
            await self._otherwise(scope, receive, send)
        elif scope["type"] == "http":
            await self._pass_on(scope, receive, send)
        else:
            try:
                await self._pass_on(scope, receive, send)
            except ApiError as error:
                refusal = Json(error.content, status_code=error.status)
                await WebSocket(scope, receive, send).send_denial_response(refusal)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        raw = scope["raw_path"].decode("latin-1")
        if path.startswith(_PREFIX):
            name, slash, _ = path.removeprefix(_PREFIX).partition("/")
            if not slash:
                raise ApiError(404, f"no such path {described(path)}; add a / to it")
            pipeline, below = self._named(name), "/" + raw.removeprefix(_PREFIX).partition("/")[2]
        elif path.startswith("/api/v0/pipeline/") and scope.get("method") == "POST":
            body = await raw_body(Request(scope, receive))
            pipeline, below = self._meant(scope, json_object(body)), raw
            receive = _with_body(body, receive)
        else:
            pipeline, below = self._meant(scope, {}), raw
        passes = pass_on if scope["type"] == "http" else pass_on_websocket
        with self._places.taken():
            await passes(
                below, pipeline.socket, scope=scope, receive=receive, send=send, name=pipeline.name
            )

    def _meant(self, scope: Scope, body: dict[str, Any]) -> Pipeline:
        """The pipeline that a request without the name of one in its path is for."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        given = [*query.get("pipeline_id", []), body.get("pipeline_id"), body.get("name")]
        # Where success is {"Success": ...}, clients look for {"Error": ...}.
        wrapped = scope["path"].startswith(("/api/v0/inference/", "/api/v0/streaming/"))
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

    def _named(self, name: str, *, wrapped: bool = False) -> Pipeline:
        try:
            pipeline = self._pipelines.find(name)
        except PipelineError as error:
            raise ApiError(404, str(error), wrapped=wrapped) from None
        if not pipeline.is_running:
            why = pipeline.state().error
            raise ApiError(
                503,
                f"pipeline {name!r} does not run" + ("" if why is None else f": {why}"),
                wrapped=wrapped,
            )
        return pipeline


def _with_body(body: bytes, receive: Receive) -> Receive:
    """Gives a body that has been read once more."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def again() -> Message:
        for message in messages:
            return message
        return await receive()

    return again
