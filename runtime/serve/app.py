"""The HTTP API of many runs: what starts and stops them, and all that their own servers answer."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the endpoints.

import asyncio
import os
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.routing import Route

from flowrun.runtime.errors import FlowrunError
from flowrun.runtime.graph.masking import masked_graph
from flowrun.runtime.graph.read import load_graph
from flowrun.runtime.recorded.runs import CURRENT, RecordedRuns
from flowrun.runtime.serve.bodies import Listed
from flowrun.runtime.serve.metrics import Metrics
from flowrun.runtime.serve.others import Others, SharedPage
from flowrun.runtime.serve.pipeline import RESTARTS, Pipeline, PipelineError, Restart, State
from flowrun.runtime.serve.pipelines import Pipelines
from flowrun.runtime.server.app import create_view_app, new_app, paths_of
from flowrun.runtime.server.bodies import Json, MessageReply, refusals
from flowrun.runtime.server.channels import Places
from flowrun.runtime.server.errors import ApiError
from flowrun.runtime.server.machine import machine_router
from flowrun.runtime.server.page_files import PageFiles
from flowrun.runtime.server.requests import (
    BODY_LIMIT,
    described_body,
    json_body,
)
from flowrun.runtime.server.routes import new_router
from flowrun.runtime.server.runs import Runs
from flowrun.runtime.server.site import Site
from flowrun.runtime.server.status import jsonable
from flowrun.runtime.wording import described

__all__ = ["create_app"]

_HERE = Site()
_START_S = 20.0
"""Seconds that a start waits for a run to answer, or to say why it does not."""


def create_app(
    pipelines: Pipelines, *, token: str | None, host: str, connections: int, site: Site = _HERE
) -> FastAPI:
    """The app of a server of `pipelines`; see `flowrun.runtime.server.app.create_app`."""
    app = new_app(
        title="flowrun serve",
        description="The graphs of a folder as pipelines. Each has a server of its own, which answers "
        "below /pipelines/NAME/; what it answers below /api/v0/ is also here while no other runs.",
        token=token,
        host=host,
        site=site,
    )
    recorded = RecordedRuns(folder=pipelines.place.log_dir.absolute())
    page = PageFiles()
    app.state.close = recorded.close
    # Each request that is passed on takes a second descriptor.
    places = Places(connections * 3 // 4, "requests wait for pipelines")
    others = Others(pipelines, app.router, page, places)
    app.include_router(_Commands(pipelines, others).router(), tags=["pipelines"])
    app.include_router(Metrics(pipelines).router(), tags=["pipelines"])
    app.include_router(machine_router(), tags=["the machine"])
    app.include_router(page.router())
    for path in ("", "/{below:path}"):  # the run that goes on: its own server has it
        app.router.routes.append(Route(f"/api/v0/runs/{CURRENT}{path}", others))
    app.include_router(Runs(recorded).router(), tags=["recorded runs"])
    app.mount("/recorded", create_view_app(recorded, token=token, host=host))

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return page.index("overview.html")
        return PlainTextResponse(_index(app, pipelines))

    app.router.default = others
    app.add_middleware(SharedPage, root_path=site.root_path)
    return app


def _index(app: FastAPI, pipelines: Pipelines) -> str:
    lines = [f"flowrun serve: graphs of {pipelines.graphs.folder.absolute()}", ""]
    for pipeline in pipelines.all():
        status = _listed(pipeline.name, pipeline.state())["status"]
        lines.append(f"{pipeline.name:<24} {status if isinstance(status, str) else 'Error'}")
    return "\n".join(lines) + "\n\n" + paths_of(app)


class _Commands:
    """The endpoints that start and stop."""

    def __init__(self, pipelines: Pipelines, others: Others) -> None:
        self._pipelines = pipelines
        self._others = others

    def router(self) -> APIRouter:
        router = new_router("/api/v0/pipeline")
        router.add_api_route(
            "/list", self.list_, responses={200: {"model": list[Listed]}, **refusals({})}
        )
        router.add_api_route(
            "/config",
            self.config,
            responses={
                200: {"model": dict[str, Any]},
                **refusals(
                    {
                        404: "No such pipeline.",
                        409: "Several run.",
                        422: "The graph has mistakes.",
                        503: "None runs.",
                    }
                ),
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

        `phase` says more, such as `starting`, `stopping`, or `waiting` to be started again. An error
        stays until the pipeline is started again or stopped. `next_start_s` is in how many
        seconds it is started by itself.
        """
        found = await asyncio.to_thread(self._pipelines.all)
        return Json([_listed(pipeline.name, pipeline.state()) for pipeline in found])

    async def config(
        self,
        request: Request,
        pipeline_id: Annotated[
            str | None, Query(description="The pipeline's id; that of the only one that runs.")
        ] = None,
    ) -> Response:
        """The graph of a pipeline, with secrets masked: as it runs, or as its file is now."""
        if pipeline_id is None:
            return self._others.reply(request)
        try:
            pipeline = self._pipelines.find(pipeline_id)
            if pipeline.is_running:
                return self._others.reply(request)
            return Json(jsonable(await asyncio.to_thread(_graph, pipeline)))
        except PipelineError as error:
            raise ApiError(404, str(error)) from None
        except FlowrunError as error:
            raise ApiError(422, str(error)) from None

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
        await _do(pipeline.restart, _restart(body) if "restart" in body else None)
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


def _restart(body: dict[str, Any]) -> Restart:
    given = body.get("restart", "never")
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
        "phase": "starting" if state.phase == "running" and not state.answers else state.phase,
        "pid": state.pid,
        "restart": state.restart,
        "restarts": state.restarts,
        "next_start_s": state.next_start_s,
        "parts": dict(state.parts),
    }
