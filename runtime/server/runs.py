"""Recorded runs, and the log of the live one: summaries, lanes, moments, pictures, clips, what-ifs."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the endpoints.

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from flowrun.runtime.errors import LogError, LogInUse, LogNotFound, UsageError
from flowrun.runtime.recorded.clip import pytest_lines
from flowrun.runtime.recorded.frames import SMALL
from flowrun.runtime.recorded.labels import LONGEST, Label
from flowrun.runtime.recorded.lines import MOST_LINES, Level
from flowrun.runtime.recorded.run import RecordedRun
from flowrun.runtime.recorded.runs import RecordedRuns
from flowrun.runtime.server.bodies import Json, refusals
from flowrun.runtime.server.errors import ApiError
from flowrun.runtime.server.packets import configuration, in_sequence, pack
from flowrun.runtime.server.requests import described_body, json_body
from flowrun.runtime.server.routes import new_router
from flowrun.runtime.server.turns import Turns
from flowrun.runtime.wording import described

__all__ = ["Runs"]

_MCAP = _PACKETS = "application/octet-stream"

_Cycle = Annotated[int | None, Query(ge=0, le=2**63 - 1, description="A cycle's number.")]
_Bins = Annotated[int, Query(ge=1, le=5000, description="Number of parts.")]
_Width = Annotated[int | None, Query(ge=16, le=4096, description="Pixels; smaller than it is.")]

_T = TypeVar("_T")


class Runs:
    """The endpoints below `/api/v0/runs`."""

    def __init__(self, runs: RecordedRuns) -> None:
        self._runs = runs
        self._turns: dict[str, Turns] = {}
        """By run, whose turn it is to have a picture decoded."""

    def router(self) -> APIRouter:
        router = new_router("/api/v0/runs")
        gone = refusals(
            {404: "No such run, or its log does not hold that.", 422: "A parameter is wrong."}
        )
        jpeg: dict[str, Any] = {"content": {"image/jpeg": {}}}
        mcap: dict[str, Any] = {"content": {_MCAP: {}}}
        packets: dict[str, Any] = {"content": {_PACKETS: {}}}
        for path, endpoint, reply in (
            ("", self.list_, {"model": list[dict[str, Any]]}),
            ("/{run}", self.details, {"model": dict[str, Any]}),
            ("/{run}/fleet", self.fleet, {"model": dict[str, Any] | None}),
            ("/{run}/lanes", self.lanes, {"model": dict[str, Any]}),
            ("/{run}/moment", self.moment, {"model": dict[str, Any]}),
            ("/{run}/lines", self.lines, {"model": dict[str, Any]}),
            ("/{run}/latencies", self.latencies, {"model": dict[str, Any]}),
            ("/{run}/seen", self.seen, {"model": dict[str, Any]}),
            ("/{run}/shadows", self.shadows, {"model": dict[str, Any]}),
            ("/{run}/image/{task}", self.image, jpeg),
            ("/{run}/packets/{task}", self.packets, packets),
            ("/{run}/log.mcap", self.log, mcap),
            ("/{run}/clip", self.clip, mcap),
            ("/{run}/test", self.test, {"model": dict[str, Any]}),
            ("/{run}/labels", self.labels, {"model": list[dict[str, Any]]}),
            ("/{run}/what-if", self.what_ifs, {"model": list[dict[str, Any]]}),
            ("/{run}/what-if/{what_if}", self.what_if, {"model": dict[str, Any]}),
        ):
            router.add_api_route(
                path,
                endpoint,
                methods=["GET"],
                responses={200: reply, **gone},
                response_class=Json if "model" in reply else Response,
            )
        posts = refusals(
            {
                400: "The body is not JSON.",
                404: "No such run.",
                409: "It cannot be done now; the error says why.",
                413: "The body is too large.",
                422: "A key or a value is wrong; the error names it.",
            }
        )
        changes: list[tuple[str, Callable[..., Any], dict[str, Any]]] = [
            ("/{run}/labels", self.add_label, described_body(_LABEL_SCHEMA)),
            ("/{run}/what-if", self.ask, described_body(_WHAT_IF_SCHEMA)),
            ("/{run}/what-if/{what_if}/cancel", self.cancel, {}),
        ]
        for path, change, extra in changes:
            router.add_api_route(
                path,
                change,
                methods=["POST"],
                responses={200: {"model": dict[str, Any]}, **posts},
                openapi_extra=extra,
            )
        return router

    # -- what there is -------------------------------------------------------------------------

    async def list_(self) -> Json:
        """The runs, the newest first: id, graph, part, started_ns, ended_ns, state, cycles, why.

        `state` is "running", "ended", "error", "cut off" (its writer did not finish it) or "unreadable";
        `why` says why it ended, and what of it is missing; `part` which process of a graph it was, where
        it has several.
        """
        return Json(await self._in_thread(self._runs.summaries))

    async def details(self, run: str) -> Json:
        """One run: its summary, tasks, connections, topics and pictures. `current` is the live run."""

        def found() -> dict[str, Any]:
            stretches = self._runs.stretches(run)
            return self._runs.get(run).details() if stretches is None else stretches.details()

        return Json(await self._in_thread(found))

    async def fleet(
        self,
        run: str,
        bins: Annotated[int, Query(ge=1, le=1000, description="Number of parts.")] = 200,
    ) -> Json:
        """All recorded runs of the fleet that a run is of: `from_ns`, `to_ns`, by one clock; `parts`,
        its processes, with their `runs`, `restarts`, `cycles`, `errors`, what they `dropped`, and by how
        much their clocks are ahead, `ahead_ns` (null: not known, and taken for 0); and `links`, with
        `gaps`, what was `skipped`, `reconnects`, `clock_offset_ms`, how long after the sender's cycles
        those came that took them (`delay_ms`, and `delays_ms` by the parts of the time; where
        `clock_offset_ms` is null, by the clock of each machine), and how many messages were `left` at
        the end. null for a run of no fleet."""
        return Json(await self._in_thread(lambda: self._fleet(run, bins)))

    async def lanes(
        self,
        run: str,
        first: Annotated[_Cycle, Query(alias="from")] = None,
        last: Annotated[_Cycle, Query(alias="to")] = None,
        bins: _Bins = 500,
        *,
        keys: Annotated[bool, Query(description="Also where key frames are.")] = False,
    ) -> Json:
        """What happened when: answers, alerts, errors, settings, drops and keyframes, counted by the
        parts of the time between two cycles.

        `cycles` is the first cycle of each part, and the one after the last part; `frames` the number of
        cycles in each part; `missing` what the log does not hold, and `gaps` where the recording of a
        live run was stopped. With `keys`, also the cycle of the key
        frame before each part: its picture is there soonest.
        """
        return Json(
            await self._in_thread(
                lambda: self._lanes(run, first=first, last=last, bins=bins, keys=keys)
            )
        )

    async def moment(
        self,
        run: str,
        cycle: _Cycle = None,
        at_ns: Annotated[int | None, Query(ge=0, le=2**63 - 1)] = None,
    ) -> Json:
        """Everything of the last cycle at or before a cycle or a time: answers, detections, settings in
        force, states of the sources, errors, and where the pictures are."""
        if cycle is not None and at_ns is not None:
            raise ApiError(422, "cycle and at_ns: give one of the two")

        def found() -> dict[str, Any]:
            it = self._runs.get(run, cycle=cycle, at_ns=at_ns)
            moment = it.moment(cycle=cycle, at_ns=at_ns, url=f"api/v0/runs/{quote(it.id)}")
            stretches = self._runs.stretches(run)
            return moment if stretches is None else stretches.moment(moment)

        return Json(await self._in_thread(found))

    async def lines(
        self,
        run: str,
        cycle: _Cycle = None,
        level: Level = "debug",
        task: str | None = None,
        most: Annotated[int, Query(ge=1, le=MOST_LINES)] = 300,
    ) -> Json:
        """The log lines up to a cycle, the newest first: `lines`, and whether there may be `more`.
        Without a cycle, all of the run: also those after its last cycle."""
        return Json(
            await self._ask(
                run, lambda it: it.lines(cycle, level=level, task=task, most=most), cycle
            )
        )

    async def latencies(
        self,
        run: str,
        first: Annotated[_Cycle, Query(alias="from")] = None,
        last: Annotated[_Cycle, Query(alias="to")] = None,
        bins: Annotated[int, Query(ge=1, le=1000, description="Number of parts.")] = 200,
    ) -> Json:
        """How often cycles came, and how long steps and answers took, by the parts of the time between
        two cycles: `at_ns`, `rate_hz`, and medians by task, `steps_ms` and `answers_ms`."""
        return Json(
            await self._ask(run, lambda it: it.latencies(first=first, last=last, bins=bins), last)
        )

    async def seen(self, run: str, cycle: _Cycle = None) -> Json:
        """The objects that were found in the minute before a cycle, by task and class."""
        return Json(await self._ask(run, lambda it: it.seen(cycle), cycle))

    async def shadows(
        self,
        run: str,
        cycle: _Cycle = None,
        bins: Annotated[int, Query(ge=1, le=1000, description="Number of parts.")] = 200,
        most: Annotated[int, Query(ge=0, le=500, description="Of disagreements.")] = 50,
    ) -> Json:
        """By shadow, how often it has disagreed with its task until a cycle, and the `last` times: the
        cycle in which both had answered, that of the frame, and both answers. Also its `errors`, what it
        left out (`dropped`, by cause) and what of its `budget` is spent; and by the `parts` of the time
        of the run, from `at_ns` on, how many frames were `compared` and about how many it `disagreed`.

        Without a cycle, at the last one of the log."""
        return Json(await self._ask(run, lambda it: it.shadows(cycle, bins=bins, most=most), cycle))

    async def image(
        self,
        request: Request,
        run: str,
        task: str,
        cycle: _Cycle = None,
        width: _Width = None,
    ) -> Response:
        """The last picture of a task at or before a cycle, as JPEG, upright; `X-Cycle` is its own.

        Of requests that wait, those whose client has gone meanwhile are not answered.
        """
        turns = self._turns.setdefault(self._get(run).id, Turns())
        is_small = width is not None and width <= SMALL
        async with turns.small(request) if is_small else turns.large():
            if await request.is_disconnected():
                return Response(status_code=499)  # nobody gets it
            jpeg, found = await self._ask(run, lambda it: it.jpeg(task, cycle, width=width), cycle)
        kept = "max-age=3600" if found == cycle else "no-store"
        headers = {"X-Cycle": str(found), "Cache-Control": f"private, {kept}"}
        return Response(jpeg, media_type="image/jpeg", headers=headers)

    async def packets(
        self,
        run: str,
        task: str,
        cycle: Annotated[int, Query(ge=0, le=2**63 - 1, description="A cycle's number.")],
        first: Annotated[_Cycle, Query(alias="from")] = None,
        ahead: Annotated[int, Query(ge=0, le=1000, description="Pictures after that one.")] = 0,
    ) -> Response:
        """The packets that give a camera's picture at a cycle, from its key frame on or from a cycle
        `from`, and those of the pictures after it that need the same key frame.

        Each message of `/streaming/ws/{channel}?format=packets`, after its size as u32, little-endian,
        whose highest bit says that it is text.
        """
        film = await self._ask(
            run, lambda it: it.film(task, cycle, first=first, ahead=ahead), cycle
        )
        self._turns.setdefault(self._get(run).id, Turns()).drags()
        begin = await self._in_thread(lambda: next(film, []))

        async def messages() -> AsyncIterator[bytes]:
            part, known = begin, None
            while part:
                packed = []
                for shown in part:
                    is_entry = known is None and shown.video.begins
                    if is_entry:
                        known = configuration(task, shown)
                        packed.append(in_sequence(json.dumps(known.message(lost=0))))
                    packed.append(in_sequence(pack(shown, is_entry=is_entry)))
                yield b"".join(packed)
                try:
                    part = await asyncio.to_thread(next, film, [])
                except LogError:  # damaged here: what comes before it is good
                    return

        headers = {"Cache-Control": "private, no-store"}
        return StreamingResponse(messages(), media_type=_PACKETS, headers=headers)

    # -- files ---------------------------------------------------------------------------------

    async def log(self, run: str) -> Response:
        """The whole log as one MCAP file, which flowrun replays; of a live run what there is now."""
        found = await self._ask(run, RecordedRun.file)
        name = f"{self._get(run).id}.mcap"
        if found is not None:
            return FileResponse(found, media_type=_MCAP, filename=name)
        (first, _), (last, _) = await self._ask(run, lambda it: it.span(None, None))
        return await self._clip(run, first, last, name)

    async def clip(
        self,
        run: str,
        first: Annotated[int, Query(alias="from", ge=0, le=2**63 - 1)],
        last: Annotated[int, Query(alias="to", ge=0, le=2**63 - 1)],
    ) -> Response:
        """The cycles from `from` to `to` as an MCAP file, which flowrun replays. It begins at the
        keyframe before, as a replay does."""
        return await self._clip(run, first, last, _clip_name(self._get(run, first), first, last))

    async def test(
        self,
        run: str,
        first: Annotated[int, Query(alias="from", ge=0, le=2**63 - 1)],
        last: Annotated[int, Query(alias="to", ge=0, le=2**63 - 1)],
    ) -> Json:
        """The two lines of pytest that replay a clip: `text`, and the clip's `file` name and `url`."""
        found = self._get(run, first)
        if last < first:
            raise ApiError(422, f"from={first} is after to={last}")
        name = _clip_name(found, first, last)
        return Json(
            {
                "file": name,
                "url": f"api/v0/runs/{quote(found.id)}/clip?from={first}&to={last}",
                "text": pytest_lines(name, found.id, first, last),
            }
        )

    async def _clip(self, run: str, first: int, last: int, name: str) -> Response:
        handle, path = tempfile.mkstemp(suffix=".mcap", prefix="flowrun-")
        os.close(handle)
        try:
            await self._ask(run, lambda it: it.clip(first, last, Path(path)), first)
        except BaseException:
            _remove(path)
            raise
        return _Temporary(path, media_type=_MCAP, filename=name)

    # -- labels --------------------------------------------------------------------------------

    async def labels(self, run: str) -> Json:
        """The moments that were marked."""

        def all_() -> list[Label]:
            stretches = self._runs.stretches(run)
            runs = [self._runs.get(run)] if stretches is None else stretches.runs
            return [label for it in runs for label in it.labels.all()]

        return Json([_as_map(it) for it in await self._in_thread(all_)])

    async def add_label(self, request: Request, run: str) -> Json:
        """Mark the moment of a cycle: `{"cycle": 120, "task": "inference", "label": "wrong"}`, with
        `expected`, `field`, `note` and `who` as they may be; the label "" takes a mark back.

        It is written into the file `labels.jsonl` of the run.
        """
        body = await json_body(request)
        cycle = _whole(body, "cycle")
        return Json(
            await self._ask(run, lambda it: _as_map(_labelled(it, body)), cycle, changes=True)
        )

    # -- what-ifs ------------------------------------------------------------------------------

    async def ask(self, request: Request, run: str) -> Json:
        """Run cycles again with other values: `{"set": {"inference.prompt": "Is it open?"},
        "from_cycle": 100, "to_cycle": 400}`. The reply has the `id` to ask about."""
        body = await json_body(request)
        unknown = [key for key in body if key not in {"set", "from_cycle", "to_cycle"}]
        if unknown:
            raise ApiError(
                422, f"unknown key {described(unknown[0])}; keys: set, from_cycle, to_cycle"
            )
        values = body.get("set")
        if not isinstance(values, dict):
            raise ApiError(
                422, f"set: expected an object of task.key and value, got {described(values)}"
            )
        first, last = (_whole(body, key) for key in ("from_cycle", "to_cycle"))
        self._get(run)
        return Json(
            await self._in_thread(lambda: self._runs.ask(run, values, first, last), changes=True)
        )

    async def what_ifs(self, run: str) -> Json:
        """All what-ifs of a run: what was set, for which cycles, and how far they are."""
        return Json(await self._in_thread(lambda: self._runs.what_ifs(run)))

    async def what_if(self, run: str, what_if: str) -> Json:
        """How far a what-if is (`state`, `progress`), which answers differ (`differs`), and the `run`
        that it is: its lanes, moments and pictures are those of a run."""
        return Json(await self._in_thread(lambda: self._runs.what_if(run, what_if)))

    async def cancel(self, run: str, what_if: str) -> Json:
        """End a what-if before it is done. What it has compared until then stays."""
        return Json(await self._in_thread(lambda: self._runs.cancel(run, what_if)))

    # -- inside --------------------------------------------------------------------------------

    def _fleet(self, run: str, bins: int) -> dict[str, Any] | None:
        self._runs.get(run)  # there is none: the error says which there are
        return self._runs.fleet(run, bins=bins)

    def _lanes(self, run: str, **part: Any) -> dict[str, Any]:
        stretches = self._runs.stretches(run)
        return self._runs.get(run).lanes(**part) if stretches is None else stretches.lanes(**part)

    def _get(self, run: str, cycle: int | None = None) -> RecordedRun:
        try:
            return self._runs.get(run, cycle=cycle)
        except LogNotFound as error:
            raise ApiError(404, self._runs.told(error)) from None

    async def _ask(
        self,
        run: str,
        question: Callable[[RecordedRun], _T],
        cycle: int | None = None,
        *,
        changes: bool = False,
    ) -> _T:
        """The answer of a run; of several stretches of the live one that which holds a cycle."""
        return await self._in_thread(
            lambda: question(self._runs.get(run, cycle=cycle)), changes=changes
        )

    async def _in_thread(self, question: Callable[[], _T], *, changes: bool = False) -> _T:
        """The answer, made on a worker thread; `ApiError` for one that there is not."""
        try:
            return await asyncio.to_thread(question)
        except LogInUse as error:
            raise ApiError(409, self._runs.told(error)) from None
        except UsageError as error:
            raise ApiError(422, self._runs.told(error)) from None
        except LogNotFound as error:
            raise ApiError(404, self._runs.told(error)) from None
        except LogError as error:
            raise ApiError(409 if changes else 404, self._runs.told(error)) from None


def _clip_name(run: RecordedRun, first: int, last: int) -> str:
    return f"{run.id.replace('~', '-what-if-')}-{first}-{last}.mcap"


def _whole(body: dict[str, Any], key: str) -> int:
    value = body.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ApiError(422, f"{key}: expected the number of a cycle, got {described(value)}")
    return value


class _Temporary(FileResponse):
    """A file that is removed when it has been sent, or its client has left."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            _remove(self.path)


def _remove(path: str | os.PathLike[str]) -> None:
    Path(path).unlink(missing_ok=True)


def _labelled(run: RecordedRun, body: dict[str, Any]) -> Label:
    known = ("cycle", "task", "label", "expected", "note", "field", "who")
    if unknown := [key for key in body if key not in known]:
        raise UsageError(f"unknown key {described(unknown[0])}; keys: {', '.join(known)}")
    texts = {key: body.get(key, "") for key in known if key not in ("cycle", "expected")}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise UsageError(
                f"{key}: expected a text of at most {LONGEST:,} characters, got {described(text)}"
            )
    return run.label(_whole(body, "cycle"), expected=body.get("expected", ""), **texts)


def _as_map(label: Label) -> dict[str, Any]:
    return {name: getattr(label, name) for name in Label.__slots__}


_LABEL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "cycle": {"type": "integer", "minimum": 0},
        **{name: {"type": "string"} for name in ("task", "label", "note", "field", "who")},
        "expected": {},
    },
    "required": ["cycle", "label"],
    "additionalProperties": False,
    "example": {"cycle": 120, "task": "inference", "label": "wrong"},
}
_WHAT_IF_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "set": {"type": "object", "minProperties": 1},
        "from_cycle": {"type": "integer", "minimum": 0},
        "to_cycle": {"type": "integer", "minimum": 0},
    },
    "required": ["set", "from_cycle", "to_cycle"],
    "additionalProperties": False,
    "example": {"set": {"inference.prompt": "Is it open?"}, "from_cycle": 100, "to_cycle": 400},
}
