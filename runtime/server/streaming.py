"""What the sinks of a run show: pictures and answers, one at a time or as a stream."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the endpoints.

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from flowrun.runtime.broadcast import Answer, PartialAnswer, Picture
from flowrun.runtime.server.errors import ApiError
from flowrun.runtime.server.feed import Feed
from flowrun.runtime.server.status import Status

__all__ = ["Streaming"]

_LOOK_S = 1.0
"""How often a waiting request looks whether its client is still there."""

_FRESH_S = 1.0
"""`?latest=1` gives a picture at once if it was offered no longer ago than this."""

_BOUNDARY = b"flowrun-frame"

_Timeout = Annotated[
    float, Query(ge=0, le=60, description="Seconds to wait for the next message, then 503.")
]
_Latest = Annotated[
    bool,
    Query(description="The newest message at once, if there is one (a picture: if it is fresh)."),
]


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of sink: what it offers, the type that shows it, and its name in texts."""

    item: type
    task_type: str
    noun: str
    fresh_s: float | None

    def tasks(self, task_types: dict[str, str]) -> list[str]:
        """The tasks of this kind; the index is the channel's number."""
        return [
            task for task, type_ in task_types.items() if type_.split(".")[-1] == self.task_type
        ]


_PICTURES = _Kind(Picture, "BroadcastImage", "picture", _FRESH_S)
_ANSWERS = _Kind(Answer, "BroadcastChat", "answer", None)
_KINDS = (_PICTURES, _ANSWERS)
_PARTS = _Kind(PartialAnswer, "Inference", "answer in part", None)
"""No channel: only the events tell of them."""


class Streaming:
    """The endpoints below `/api/v0/streaming` and `/api/v0/inference` that read, and the events."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._run = status.run
        self._types = dict(status.run.task_types)
        self._feeds = {task: Feed(shown) for task, shown in status.run.broadcasts.items()}
        self._closing = asyncio.Event()

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/api/v0")
        picture: dict[int | str, dict[str, Any]] = {
            200: {"content": {"image/jpeg": {}, "application/json": {}}},
            503: {"description": "No picture, and why."},
        }
        answer: dict[int | str, dict[str, Any]] = {503: {"description": "No answer, and why."}}
        stream = {"response_class": StreamingResponse}
        for path, endpoint, options in (
            ("/streaming/image", self.image, {"responses": picture, "response_class": Response}),
            (
                "/streaming/image/{channel}",
                self.channel_image,
                {"responses": picture, "response_class": Response},
            ),
            ("/streaming/video/{task}", self.video, stream),
            ("/inference/image", self.inference_image, {"responses": picture}),
            ("/inference/result", self.result, {"responses": answer}),
            ("/inference/results", self.result, {"responses": answer}),
            ("/inference/result/{channel}", self.channel_result, {"responses": answer}),
            ("/events", self.events, stream),
        ):
            router.add_api_route(path, endpoint, methods=["GET"], **options)
        return router

    def close(self) -> None:
        """The server ends: streams end, and waiting requests are answered. On the loop's thread."""
        self._closing.set()
        for feed in self._feeds.values():
            feed.close()

    # -- pictures -------------------------------------------------------------------------------

    async def image(
        self, request: Request, *, timeout_s: _Timeout = 5.0, latest: _Latest = False
    ) -> Response:
        """The next picture of the first BroadcastImage task, as JPEG.

        `X-Timestamp-Nanos` is the time at which the frame was taken, `X-Cycle` the cycle in which
        it passed. With `Accept: application/json`: the same as a list of bytes.
        """
        return await self.channel_image(request, "", timeout_s=timeout_s, latest=latest)

    async def channel_image(
        self,
        request: Request,
        channel: str,
        *,
        timeout_s: _Timeout = 5.0,
        latest: _Latest = False,
    ) -> Response:
        """The next picture of one BroadcastImage task: its id, or its number from 0."""
        task, number = self._find(_PICTURES, channel)
        picture: Picture = await self._next(
            request, _PICTURES, task, timeout_s=timeout_s, latest=latest
        )
        jpeg = await self._feeds[task].jpeg(picture)
        headers = _stamp(picture)
        accepted = request.headers.get("accept", "")
        if "application/json" in accepted and "image/jpeg" not in accepted:
            success = {
                "stamp_ns": picture.tov_ns,
                "channel_id": number,
                "data": list(jpeg),
                "encoding": "jpeg",
            }
            return JSONResponse({"Success": success}, headers=headers)
        return Response(jpeg, media_type="image/jpeg", headers=headers)

    async def inference_image(
        self, request: Request, *, timeout_s: _Timeout = 5.0, latest: _Latest = False
    ) -> Response:
        """The next picture as a JSON list of bytes, for clients that expect it so."""
        task, _ = self._find(_PICTURES, "")
        picture: Picture = await self._next(
            request, _PICTURES, task, timeout_s=timeout_s, latest=latest
        )
        jpeg = await self._feeds[task].jpeg(picture)
        image = {"data": list(jpeg), "encoding": "jpeg"}
        return JSONResponse(
            {"Success": {"timestamp_nanos": picture.tov_ns, "image": image}},
            headers=_stamp(picture),
        )

    async def video(self, task: str) -> StreamingResponse:
        """The pictures of one BroadcastImage task as they come (multipart MJPEG, for an `<img>`).

        A client that reads slowly gets fewer pictures, never old ones.
        """
        found, _ = self._find(_PICTURES, task)
        if self._feeds[found].ended:
            raise ApiError(503, self._ended_text(), wrapped=True)
        return StreamingResponse(
            self._parts(self._feeds[found]),
            media_type=f"multipart/x-mixed-replace; boundary={_BOUNDARY.decode()}",
        )

    async def _parts(self, feed: Feed) -> AsyncIterator[bytes]:
        # The boundary goes out right behind a picture, not before the next: browsers show a part
        # only when they have seen its end.
        yield b"--" + _BOUNDARY + b"\r\n"
        number = feed.broadcast.number
        while found := await feed.next(number, timeout_s=None):
            number, picture = found
            if not isinstance(picture, Picture):
                return
            jpeg = await feed.jpeg(picture)
            lines = {"Content-Type": "image/jpeg", "Content-Length": len(jpeg), **_stamp(picture)}
            head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
            yield head.encode() + b"\r\n" + jpeg + b"\r\n--" + _BOUNDARY + b"\r\n"

    # -- answers --------------------------------------------------------------------------------

    async def result(
        self, request: Request, *, timeout_s: _Timeout = 5.0, latest: _Latest = False
    ) -> JSONResponse:
        """The next answer of the first BroadcastChat task, with the time of its frame."""
        task, _ = self._find(_ANSWERS, "")
        answer: Answer = await self._next(
            request, _ANSWERS, task, timeout_s=timeout_s, latest=latest
        )
        return JSONResponse({"Success": {"timestamp_nanos": answer.tov_ns, **_told(answer)}})

    async def channel_result(
        self,
        request: Request,
        channel: str,
        *,
        timeout_s: _Timeout = 5.0,
        latest: _Latest = False,
    ) -> JSONResponse:
        """The next answer of one BroadcastChat task: its id, or its number from 0."""
        task, number = self._find(_ANSWERS, channel)
        answer: Answer = await self._next(
            request, _ANSWERS, task, timeout_s=timeout_s, latest=latest
        )
        return JSONResponse(
            {"Success": {"stamp_ns": answer.tov_ns, "channel_id": number, **_told(answer)}}
        )

    # -- events ---------------------------------------------------------------------------------

    async def events(self) -> StreamingResponse:
        """Server-sent events: `result`, each answer as it comes; `partial`, an answer as far as
        it is (of those that come while a client is busy, the newest); `statistics`, the report, every
        second; `ended`, the last report, when the run or the server ends.
        """
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _events(self) -> AsyncIterator[str]:
        queue: asyncio.Queue[str | None] = asyncio.Queue(
            maxsize=64
        )  # a slow client makes `tell` wait

        async def tell(task: str, feed: Feed) -> None:
            number = max(feed.broadcast.number - 1, 0)  # the newest first, so that there is one
            while found := await feed.next(number, timeout_s=None):
                number, answer = found
                if isinstance(answer, Answer):
                    told = {"task": task, "timestamp_nanos": answer.tov_ns, **_told(answer)}
                    await queue.put(_event("result", {**told, "tokens": answer.tokens}))

        async def tell_parts(task: str, feed: Feed) -> None:
            number = feed.broadcast.number
            while found := await feed.next(number, timeout_s=None):
                number, part = found
                if isinstance(part, PartialAnswer):
                    await queue.put(_event("partial", {"task": task, **_told_part(part)}))

        async def count() -> None:
            while self._status.running and not self._closing.is_set():
                await queue.put(_event("statistics", self._status.report()))
                try:
                    async with asyncio.timeout(1.0):
                        await self._closing.wait()
                except TimeoutError:
                    continue
            await queue.put(None)

        helpers = [asyncio.create_task(count())]
        helpers += [
            asyncio.create_task(tell(task, self._feeds[task])) for task in self._tasks(_ANSWERS)
        ]
        helpers += [
            asyncio.create_task(tell_parts(task, self._feeds[task])) for task in self._tasks(_PARTS)
        ]
        try:
            while (event := await queue.get()) is not None:
                yield event
            yield _event("ended", self._status.report())
        finally:
            for helper in helpers:
                helper.cancel()

    # -- channels -------------------------------------------------------------------------------

    def _tasks(self, kind: _Kind) -> list[str]:
        return [task for task in kind.tasks(self._types) if task in self._feeds]

    def _find(self, kind: _Kind, channel: str) -> tuple[str, int]:
        """The task of a channel and its number; `""` is the first channel of its kind.

        A sink of a type that is not ours has no number, but may be named: what it offers shows.
        """
        tasks = self._tasks(kind)
        if channel in tasks:
            return channel, tasks.index(channel)
        others = {task for other in _KINDS if other is not kind for task in self._tasks(other)}
        if channel in self._feeds and channel not in others:
            return channel, len(tasks)
        if not tasks:
            raise ApiError(
                503,
                f"graph {self._run.name!r} has no {kind.task_type} task, so it shows no "
                f"{kind.noun}s; its tasks are: {', '.join(self._types) or 'none'}",
                wrapped=True,
            )
        if channel == "":
            return tasks[0], 0
        if channel.isascii() and channel.isdigit() and int(channel[:9]) < len(tasks):
            return tasks[int(channel)], int(channel)
        valid = ", ".join(f"{number} or {task}" for number, task in enumerate(tasks))
        raise ApiError(
            404,
            f"unknown channel {channel!r}; the channels of {kind.noun}s are: {valid}",
            wrapped=True,
        )

    async def _next(
        self, request: Request, kind: _Kind, task: str, *, timeout_s: float, latest: bool
    ) -> Any:
        feed = self._feeds[task]
        shown = feed.broadcast
        shown.watch()
        item = shown.newest
        if not (
            latest and item is not None and (kind.fresh_s is None or shown.age_s < kind.fresh_s)
        ):
            item = await self._wait(request, kind, task, timeout_s)
        if not isinstance(item, kind.item):
            raise ApiError(
                404,
                f"task {task!r} shows {type(item).__name__} items, not {kind.noun}s",
                wrapped=True,
            )
        return item

    async def _wait(self, request: Request, kind: _Kind, task: str, timeout_s: float) -> Any:
        feed = self._feeds[task]
        number = feed.broadcast.number
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            left_s = deadline - loop.time()
            found = await feed.next(number, timeout_s=max(0.0, min(left_s, _LOOK_S)))
            if found is not None:
                return found[1]
            if feed.ended or not self._status.running:
                raise ApiError(503, self._ended_text(), wrapped=True)
            if left_s <= _LOOK_S or await request.is_disconnected():
                raise ApiError(
                    503,
                    f"no new {kind.noun} of task {task!r} within {timeout_s:g} s; "
                    "wait longer with ?timeout_s= (60 at most), or see /api/v0/report",
                    wrapped=True,
                )

    def _ended_text(self) -> str:
        return self._status.ended_text() or "the server is stopping"


def _stamp(picture: Picture) -> dict[str, str]:
    return {"X-Timestamp-Nanos": str(picture.tov_ns), "X-Cycle": str(picture.cycle)}


def _told(answer: Answer) -> dict[str, Any]:
    return {
        "prompt": answer.prompt,
        "response": answer.response,
        "latency_ms": answer.latency_ms,
        "backend": answer.backend,
        "cycle": answer.cycle,
    }


def _told_part(part: PartialAnswer) -> dict[str, Any]:
    return {
        "timestamp_nanos": part.tov_ns,
        "cycle": part.cycle,
        "prompt": part.prompt,
        "text": part.text,
    }


def _event(name: str, data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
