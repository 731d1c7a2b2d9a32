"""What a client may ask of the run as a whole, and change in it."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the endpoints.

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from flowrun.runtime.errors import LogError, UsageError
from flowrun.runtime.server.bodies import (
    Json,
    MessageReply,
    Pipeline,
    Report,
    SetReply,
    SwitchReply,
    refusals,
)
from flowrun.runtime.server.errors import ApiError
from flowrun.runtime.server.requests import BODY_LIMIT, described_body, json_body
from flowrun.runtime.server.routes import new_router
from flowrun.runtime.server.status import Status, jsonable
from flowrun.runtime.task import ShownState
from flowrun.runtime.wording import described, nearest

__all__ = ["Control"]

_SHOWN = 5
"""How many unknown keys an error names."""

_STOP_S = 4.0
_STOP_LOOK_S = 0.02


_RECORDING = {
    "type": "object",
    "properties": {"command": {"type": "string", "enum": ["Start", "Stop"]}},
    "required": ["command"],
    "additionalProperties": False,
    "example": {"command": "Stop"},
}


class Control:
    """The endpoints about the pipeline, its report and its settings."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._run = status.run

    def router(self) -> APIRouter:
        router = new_router()
        wrong = {404: "No such pipeline.", 422: "A parameter is wrong."}
        gets: list[tuple[str, Callable[..., Any], Any, dict[int, str]]] = [
            ("/pipeline/list", self.list_, list[Pipeline], {}),
            ("/pipeline/config", self.config, dict[str, Any], wrong),
            ("/report", self.report, Report, {}),
        ]
        for path, endpoint, reply, errors in gets:
            router.add_api_route(
                path, endpoint, responses={200: {"model": reply}, **refusals(errors)}
            )
        errors = {
            400: "The body is not JSON, or names another pipeline.",
            413: f"The body is larger than {BODY_LIMIT} bytes.",
            422: "A key or a value is wrong; the error names it.",
        }
        router.add_api_route(
            "/pipeline/stop",
            self.stop,
            methods=["POST"],
            responses={
                200: {"model": MessageReply},
                202: {"model": MessageReply, "description": "A task has not returned yet."},
                **refusals(errors),
            },
            openapi_extra=described_body(self._stop_schema()),
        )
        router.add_api_route(
            "/pipeline/start",
            self.start,
            methods=["POST"],
            responses={200: {"model": MessageReply}, **refusals(errors)},
            openapi_extra=described_body(self._stop_schema()),
        )
        for verb, endpoint in (
            ("pause", self.pause),
            ("mute", self.mute),
            ("resume", self.resume),
        ):
            router.add_api_route(
                f"/pipeline/{verb}",
                endpoint,
                methods=["POST"],
                responses={
                    200: {"model": SwitchReply},
                    **refusals(
                        {
                            **errors,
                            404: "No such source; the error names those that there are.",
                            409: "The source, or every source, has ended.",
                            503: "The run has ended.",
                        }
                    ),
                },
                openapi_extra=described_body(self._switch_schema()),
            )
        router.add_api_route(
            "/recording/command",
            self.recording,
            methods=["POST"],
            responses={
                200: {"model": SetReply},
                **refusals(
                    {
                        **errors,
                        409: "There is no log to stop or begin, the run is still starting, or a task "
                        "holds the cycle up.",
                        503: "The run has ended.",
                    }
                ),
            },
            openapi_extra=described_body(_RECORDING),
        )
        router.add_api_route(
            "/inference/settings",
            self.settings_in_force,
            responses={200: {"model": dict[str, dict[str, Any]]}, **refusals({})},
        )
        router.add_api_route(
            "/inference/settings",
            self.settings,
            methods=["POST"],
            responses={
                200: {"model": SetReply},
                **refusals({**errors, 503: "The run has ended."}),
            },
            openapi_extra=described_body(self._settings_schema()),
        )
        return router

    def _stop_schema(self) -> dict[str, Any]:
        name = {"type": "string", "const": self._run.name}
        return {
            "type": "object",
            "properties": {"pipeline_id": name, "name": name},
            "anyOf": [{"required": ["pipeline_id"]}, {"required": ["name"]}],
            "example": {"pipeline_id": self._run.name},
        }

    def _switch_schema(self) -> dict[str, Any]:
        name, sources = {"type": "string", "const": self._run.name}, list(self._states())
        return {
            "type": "object",
            "properties": {
                "pipeline_id": name,
                "name": name,
                "source": {"type": "string", "enum": sources},
            },
            "additionalProperties": False,
            "minProperties": 1,
            "example": {"source": sources[0]} if sources else {"pipeline_id": self._run.name},
        }

    def _settings_schema(self) -> dict[str, Any]:
        live = {task: keys for task, keys in self._run.live_keys().items() if keys}
        keys: dict[str, Any] = {key: {} for task_keys in live.values() for key in task_keys}
        return {
            "type": "object",
            "properties": {"task": {"type": "string", "enum": list(live)}, **keys},
            "additionalProperties": False,
            "minProperties": 1,
            "example": {"prompt": "Is there any human?"},
        }

    async def list_(self) -> Json:
        """The pipeline of this server: `"Running"`, `"Stopped"` or `{"Error": text}`."""
        return Json([self._status.pipeline()])

    async def config(
        self, pipeline_id: Annotated[str | None, Query(description="The pipeline's id.")] = None
    ) -> Json:
        """The graph, resolved, with secrets masked."""
        if pipeline_id not in {None, self._run.name}:
            raise ApiError(
                404,
                f"Pipeline not found: {described(pipeline_id)}; the pipeline is {self._run.name!r}",
            )
        return Json(jsonable(self._run.graph()))

    async def report(self) -> Json:
        """Cycles, times of the tasks, size of the log, the last answer, and what may be set."""
        return Json(self._status.report())

    async def start(self, request: Request) -> Json:
        """Run the graph again, after its end, where the command stays for that on a terminal. Otherwise
        refused: `flowrun serve` starts pipelines."""
        body = await json_body(request)
        name = self._run.name
        given = [body[key] for key in ("pipeline_id", "name") if key in body]
        if not given or any(one != name for one in given):
            raise ApiError(400, f"Pipeline not supported. Try {name!r}")
        if self._status.running:
            raise ApiError(400, "Pipeline already exists")
        if self._run.run_again():
            return Json({"message": f"Pipeline {name} started"})
        raise ApiError(
            400, f"Pipeline {name} has ended; start it with 'flowrun serve', or run it again"
        )

    async def stop(self, request: Request) -> Json:
        """End the run: `{"pipeline_id": ...}` or `{"name": ...}`.

        Returns within 5 s; 202 says that a task has not returned yet.
        """
        body = await json_body(request)
        name = self._run.name
        given = [body[key] for key in ("pipeline_id", "name") if key in body]
        if not given or any(one != name for one in given):
            raise ApiError(400, "Pipeline not found")
        self._run.stop("a client asked over HTTP")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _STOP_S
        while self._status.running:
            if loop.time() > deadline:
                return Json(
                    {"message": f"Pipeline {name} is stopping: a task has not returned yet"},
                    status_code=202,
                )
            await asyncio.sleep(_STOP_LOOK_S)
        return Json({"message": f"Pipeline {name} stopped"})

    async def pause(self, request: Request) -> Json:
        """Pause a source, or all of them: `{"source": id}` or `{"pipeline_id": name}`.

        From the next cycle on nothing comes from it. A file waits where it is. A live source stays
        connected, and what comes is dropped and counted. The other sources go on. Asking twice changes
        nothing.
        """
        return await self._switch(request, self._run.pause, "paused")

    async def mute(self, request: Request) -> Json:
        """Mute a source, or all of them: `{"source": id}` or `{"pipeline_id": name}`.

        It goes on, a file too; what it would have published is dropped and counted.
        """
        return await self._switch(request, self._run.mute, "muted")

    async def resume(self, request: Request) -> Json:
        """Resume a source, or all of them: `{"source": id}` or `{"pipeline_id": name}`."""
        return await self._switch(request, self._run.resume, "resumed")

    def _states(self) -> dict[str, ShownState]:
        """How each source is doing, by id."""
        tasks = self._run.report().tasks
        return {id_: task.state for id_, task in tasks.items() if task.state is not None}

    async def _switch(self, request: Request, switch: Callable[[str], bool], done: str) -> Json:
        body = await json_body(request)
        if unknown := [key for key in body if key not in ("pipeline_id", "name", "source")]:
            raise ApiError(
                422, f"unknown key {described(unknown[0])}; keys: source, pipeline_id, name"
            )
        if any(body[key] != self._run.name for key in ("pipeline_id", "name") if key in body):
            raise ApiError(400, "Pipeline not found")
        if not body:
            raise ApiError(
                422, "nothing to switch; give a source, or the pipeline_id for all of them"
            )
        if (ended := self._status.ended_text()) is not None:
            raise ApiError(503, ended)
        states = self._states()
        source = body.get("source", "")
        if "source" in body and (not isinstance(source, str) or source not in states):
            raise ApiError(
                404, f"unknown source {described(source)}; sources: {', '.join(states) or 'none'}"
            )
        going = [id_ for id_, state in states.items() if state not in ("ended", "error")]
        sources = [source] if source else going
        if not sources:
            raise ApiError(409, "every source has ended")
        try:
            for id_ in sources:
                switch(id_)
        except UsageError as error:
            raise ApiError(409, str(error)) from None
        what = f"Source {source}" if source else f"Pipeline {self._run.name}"
        return Json({"message": f"{what} {done}", "sources": self._states()})

    async def recording(self, request: Request) -> Json:
        """Stop the log, or begin it again: `{"command": "Stop"}` or `{"command": "Start"}`.

        Each stretch is a run of its own in the same folder, and says of which it is the next.
        """
        body = await json_body(request)
        if unknown := [key for key in body if key != "command"]:
            raise ApiError(422, f"unknown key {described(unknown[0])}; keys: command")
        command = body.get("command")
        if command not in ("Start", "Stop"):
            raise ApiError(422, f"command: expected Start or Stop, got {described(command)}")
        if (ended := self._status.ended_text()) is not None:
            raise ApiError(503, f"Failed to send recording: {ended}")
        try:
            await asyncio.to_thread(self._run.record, command == "Start")
        except (UsageError, LogError) as error:
            raise ApiError(409, f"Failed to send recording: {error}") from None
        return Json({"success": True})

    async def settings_in_force(self) -> Json:
        """The values in force of all keys that may change while the graph runs, by task."""
        return Json(jsonable(self._run.settings()))

    async def settings(self, request: Request) -> Response:
        """Change values while the graph runs, from the next cycle on.

        Each key goes to all tasks that have it, or only to that of `"task"`, an id. One unknown
        key, and nothing is set. Values are checked task by task, in the order of the graph file: a
        task that refuses one, which the error names, keeps all its values, and so do those after
        it; those before it have changed.
        """
        values = await json_body(request)
        if (ended := self._status.ended_text()) is not None:
            raise ApiError(503, f"Failed to send inference settings: {ended}")
        for task, changes in self._changes(values).items():
            try:
                self._run.set_live(task, changes)
            except UsageError as error:
                raise ApiError(422, str(error)) from None
        return Json({"success": True})

    def _changes(self, values: dict[str, Any]) -> dict[str, dict[str, Any]]:
        live = {task: keys for task, keys in self._run.live_keys().items() if keys}
        if "task" in values:
            task = values["task"]
            if not isinstance(task, str):
                raise ApiError(422, f"task: must be a text; got {described(task)}")
            if task not in live:
                valid = ", ".join(live) or "none"
                raise ApiError(
                    422,
                    f"unknown task {described(task)}; tasks with keys that may be set: {valid}"
                    + nearest(task, live),
                )
            live = {task: live[task]}
        keys = [key for key in values if key != "task"]
        known = list(dict.fromkeys(key for task_keys in live.values() for key in task_keys))
        valid = ", ".join(known) or "none"
        if unknown := [key for key in keys if key not in known]:
            shown = ", ".join(map(described, unknown[:_SHOWN]))
            more = f" and {len(unknown) - _SHOWN:,} more" if len(unknown) > _SHOWN else ""
            hint = nearest(unknown[0], known) if len(unknown) == 1 else ""
            raise ApiError(422, f"unknown key {shown}{more}; keys that may be set: {valid}{hint}")
        if not keys:
            raise ApiError(422, f"nothing to set; keys that may be set: {valid}")
        return {
            task: {key: values[key] for key in keys if key in task_keys}
            for task, task_keys in live.items()
            if any(key in task_keys for key in keys)
        }
