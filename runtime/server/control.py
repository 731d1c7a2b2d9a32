"""What a client may ask of the run as a whole, and change in it."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the endpoints.

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from flowrun.runtime.errors import UsageError
from flowrun.runtime.server.errors import ApiError
from flowrun.runtime.server.status import Status, jsonable

__all__ = ["Control"]

_BODY_LIMIT = 1 << 20
_STOP_S = 4.0
_STOP_LOOK_S = 0.02


class Control:
    """The endpoints about the pipeline, its report and its settings."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._run = status.run

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/api/v0")
        router.add_api_route("/pipeline/list", self.list_, methods=["GET"])
        router.add_api_route("/pipeline/config", self.config, methods=["GET"])
        router.add_api_route("/report", self.report, methods=["GET"])
        for path, endpoint, example in (
            ("/pipeline/stop", self.stop, {"pipeline_id": self._run.name}),
            ("/inference/settings", self.settings, {"prompt": "Is there any human?"}),
        ):
            body = {"content": {"application/json": {"example": example}}, "required": True}
            router.add_api_route(
                path, endpoint, methods=["POST"], openapi_extra={"requestBody": body}
            )
        return router

    async def list_(self) -> JSONResponse:
        """The pipeline of this server: `"Running"`, `"Stopped"` or `{"Error": text}`."""
        return JSONResponse([self._status.pipeline()])

    async def config(
        self, pipeline_id: Annotated[str | None, Query(description="The pipeline's id.")] = None
    ) -> JSONResponse:
        """The graph, resolved, with secrets masked."""
        if pipeline_id not in {None, self._run.name}:
            raise ApiError(
                404, f"Pipeline not found: {pipeline_id!r}; the pipeline is {self._run.name!r}"
            )
        return JSONResponse(jsonable(self._run.graph()))

    async def report(self) -> JSONResponse:
        """Cycles, times of the tasks, size of the log, the last answer, and what may be set."""
        return JSONResponse(self._status.report())

    async def stop(self, request: Request) -> JSONResponse:
        """End the run: `{"pipeline_id": ...}` or `{"name": ...}`.

        Returns within 5 s; 202 says that a task has not returned yet.
        """
        body = await _body(request)
        name = body.get("pipeline_id", body.get("name"))
        if name != self._run.name:
            raise ApiError(400, "Pipeline not found")
        self._run.stop("a client asked over HTTP")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _STOP_S
        while self._status.running:
            if loop.time() > deadline:
                return JSONResponse(
                    {"message": f"Pipeline {name} is stopping: a task has not returned yet"},
                    status_code=202,
                )
            await asyncio.sleep(_STOP_LOOK_S)
        return JSONResponse({"message": f"Pipeline {name} stopped"})

    async def settings(self, request: Request) -> Response:
        """Change values while the graph runs, from the next cycle on.

        Each key goes to all tasks that have it, or only to that of `"task"`, an id. One unknown
        key, and nothing is set. Values are checked task by task, in the order of the graph file: a
        task that refuses one, which the error names, keeps all its values, and so do those after
        it; those before it have changed.
        """
        values = await _body(request)
        if (ended := self._status.ended_text()) is not None:
            raise ApiError(503, f"Failed to send inference settings: {ended}")
        for task, changes in self._changes(values).items():
            try:
                self._run.set_live(task, changes)
            except UsageError as error:
                raise ApiError(422, str(error)) from None
        return JSONResponse({"success": True})

    def _changes(self, values: dict[str, Any]) -> dict[str, dict[str, Any]]:
        live = {task: keys for task, keys in self._run.live_keys().items() if keys}
        if "task" in values:
            task = values["task"]
            if not isinstance(task, str) or task not in live:
                valid = ", ".join(live) or "none"
                raise ApiError(
                    422, f"unknown task {task!r}; tasks with keys that may be set: {valid}"
                )
            live = {task: live[task]}
        keys = [key for key in values if key != "task"]
        known = list(dict.fromkeys(key for task_keys in live.values() for key in task_keys))
        valid = ", ".join(known) or "none"
        if unknown := [key for key in keys if key not in known]:
            raise ApiError(
                422, f"unknown key {', '.join(map(repr, unknown))}; keys that may be set: {valid}"
            )
        if not keys:
            raise ApiError(422, f"nothing to set; keys that may be set: {valid}")
        return {
            task: {key: values[key] for key in keys if key in task_keys}
            for task, task_keys in live.items()
            if any(key in task_keys for key in keys)
        }


async def _body(request: Request) -> dict[str, Any]:
    """The request's body, which must be a JSON object."""
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > _BODY_LIMIT:
            raise ApiError(413, f"the body is larger than {_BODY_LIMIT} bytes")
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise ApiError(422, f"the body must be a JSON object, got {type(body).__name__}")
    return body
