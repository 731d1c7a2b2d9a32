"""What the sinks of a run show: pictures and answers, one at a time or as a stream."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the endpoints.

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from flowrun.runtime.broadcast import Answer, Picture
from flowrun.runtime.server.bodies import (
    ChannelAnswerReply,
    ChannelPictureReply,
    DetectionsReply,
    Json,
    NewestAnswerReply,
    PictureReply,
    refusals,
)
from flowrun.runtime.server.channels import ANSWERS, PICTURES, Channels, Places
from flowrun.runtime.server.events import detections_json, event_stream
from flowrun.runtime.server.feed import Feed
from flowrun.runtime.server.routes import new_router
from flowrun.runtime.server.status import answer_json

__all__ = ["Streaming"]

_BOUNDARY = b"flowrun-frame"
_MULTIPART = "multipart/x-mixed-replace"

_Timeout = Annotated[
    float, Query(ge=0, le=60, description="Seconds to wait for the next message, then 503.")
]
_Form = Annotated[
    Literal["jpeg", "json"] | None,
    Query(
        alias="format",
        description="A JPEG file, or JSON with a list of its bytes; without, as `Accept` says.",
    ),
]
_Latest = Annotated[
    bool,
    Query(description="The newest message at once, if there is one (a picture: if it is fresh)."),
]


class Streaming:
    """The endpoints below `/api/v0/streaming` and `/api/v0/inference` that read, and the events."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    def router(self) -> APIRouter:
        router = new_router()
        jpeg = {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}
        picture = {"model": ChannelPictureReply, "content": jpeg}
        inferred = {"model": PictureReply, "content": jpeg}
        errors = refusals(
            {422: "A parameter is wrong."},
            wrapped={
                404: "No such channel; the error lists them.",
                503: "Nothing to show in time, and why; or too many clients wait.",
            },
        )
        for path, endpoint, reply in (
            ("/streaming/image", self.image, picture),
            ("/streaming/image/{channel}", self.channel_image, picture),
            ("/streaming/video/{task}", self.video, {"content": {_MULTIPART: {}}}),
            ("/inference/image", self.inference_image, inferred),
            ("/inference/image/{channel}", self.inference_channel_image, inferred),
            ("/inference/result", self.result, {"model": NewestAnswerReply}),
            ("/inference/results", self.result, {"model": NewestAnswerReply}),
            ("/inference/result/{channel}", self.channel_result, {"model": ChannelAnswerReply}),
            ("/inference/detections", self.detections, {"model": DetectionsReply}),
            ("/inference/detections/{task}", self.task_detections, {"model": DetectionsReply}),
            ("/events", self.events, {"content": {"text/event-stream": {}}}),
        ):
            router.add_api_route(
                path,
                endpoint,
                methods=["GET"],
                responses={200: reply, **errors},
                response_class=Json if "model" in reply else StreamingResponse,
            )
        return router

    # -- pictures -------------------------------------------------------------------------------

    async def image(
        self,
        request: Request,
        *,
        timeout_s: _Timeout = 5.0,
        latest: _Latest = False,
        form: _Form = None,
    ) -> Response:
        """The next picture of the first channel, as JPEG.

        `X-Timestamp-Nanos` is the time at which the frame was taken, `X-Cycle` the cycle in which
        it passed. With `?format=json` or `Accept: application/json`: the same as a list of bytes.
        """
        return await self.channel_image(request, "", timeout_s=timeout_s, latest=latest, form=form)

    async def channel_image(
        self,
        request: Request,
        channel: str,
        *,
        timeout_s: _Timeout = 5.0,
        latest: _Latest = False,
        form: _Form = None,
    ) -> Response:
        """The next picture of one channel: a task's id, or its number."""
        task, number = self._channels.find(PICTURES, channel)
        picture, jpeg = await self._picture(request, task, timeout_s, latest=latest)
        if _is_json(request, form, otherwise=False):
            success = {
                "stamp_ns": picture.tov_ns,
                "channel_id": number,
                "data": list(jpeg),
                "encoding": "jpeg",
            }
            return Json({"Success": success}, headers=_stamp(picture))
        return Response(jpeg, media_type="image/jpeg", headers=_stamp(picture))

    async def inference_image(
        self,
        request: Request,
        *,
        timeout_s: _Timeout = 5.0,
        latest: _Latest = False,
        form: _Form = None,
    ) -> Response:
        """The next picture of the first channel, in JSON with a list of its bytes.

        With `?format=jpeg` or `Accept: image/jpeg` it is a JPEG, as below `/streaming`.
        """
        return await self.inference_channel_image(
            request, "", timeout_s=timeout_s, latest=latest, form=form
        )

    async def inference_channel_image(
        self,
        request: Request,
        channel: str,
        *,
        timeout_s: _Timeout = 5.0,
        latest: _Latest = False,
        form: _Form = None,
    ) -> Response:
        """The next picture of one channel, in JSON with a list of its bytes."""
        task, _ = self._channels.find(PICTURES, channel)
        picture, jpeg = await self._picture(request, task, timeout_s, latest=latest)
        if not _is_json(request, form, otherwise=True):
            return Response(jpeg, media_type="image/jpeg", headers=_stamp(picture))
        image = {"data": list(jpeg), "encoding": "jpeg"}
        return Json(
            {"Success": {"timestamp_nanos": picture.tov_ns, "image": image}},
            headers=_stamp(picture),
        )

    async def _picture(
        self, request: Request, task: str, timeout_s: float, *, latest: bool
    ) -> tuple[Picture, bytes]:
        picture: Picture = await self._channels.next(
            request, PICTURES, task, timeout_s=timeout_s, latest=latest
        )
        return picture, await self._channels.feeds[task].jpeg(picture)

    async def video(self, task: str) -> StreamingResponse:
        """The pictures of one task as they come (multipart MJPEG, for an `<img>`).

        A client that reads slowly gets fewer pictures, never old ones.
        """
        found, _ = self._channels.find(PICTURES, task)
        feed = self._channels.feeds[found]
        if feed.ended:
            raise self._channels.ended()
        return _Stream(
            _parts(feed),
            media_type=f"{_MULTIPART}; boundary={_BOUNDARY.decode()}",
            places=self._channels.streams,
        )

    # -- answers --------------------------------------------------------------------------------

    async def result(
        self, request: Request, *, timeout_s: _Timeout = 5.0, latest: _Latest = False
    ) -> Json:
        """The next answer of the first task that shows answers, with the time of its frame."""
        task, _ = self._channels.find(ANSWERS, "")
        answer = await self._answer(request, task, timeout_s, latest=latest)
        return Json({"Success": {"timestamp_nanos": answer.tov_ns, **answer_json(answer)}})

    async def channel_result(
        self,
        request: Request,
        channel: str,
        *,
        timeout_s: _Timeout = 5.0,
        latest: _Latest = False,
    ) -> Json:
        """The next answer of one task that shows answers: its id, or its number from 0."""
        task, number = self._channels.find(ANSWERS, channel)
        answer = await self._answer(request, task, timeout_s, latest=latest)
        return Json(
            {"Success": {"stamp_ns": answer.tov_ns, "channel_id": number, **answer_json(answer)}}
        )

    async def _answer(
        self, request: Request, task: str, timeout_s: float, *, latest: bool
    ) -> Answer:
        answer: Answer = await self._channels.next(
            request, ANSWERS, task, timeout_s=timeout_s, latest=latest
        )
        return answer

    # -- detections -----------------------------------------------------------------------------

    async def detections(self, *, timeout_s: _Timeout = 5.0, latest: _Latest = False) -> Json:
        """The next objects that a task has found in a picture, with the time of that picture.

        x and y are the centre of a box, in pixels.
        """
        return await self._detections(None, timeout_s, latest=latest)

    async def task_detections(
        self, task: str, *, timeout_s: _Timeout = 5.0, latest: _Latest = False
    ) -> Json:
        """The next objects that one task has found, by its id."""
        return await self._detections(task, timeout_s, latest=latest)

    async def _detections(self, task: str | None, timeout_s: float, *, latest: bool) -> Json:
        detected = await self._channels.next_detected(task, timeout_s=timeout_s, latest=latest)
        return Json({"Success": {"task": detected.task, **detections_json(detected.message)}})

    # -- events ---------------------------------------------------------------------------------

    async def events(self) -> StreamingResponse:
        """All that happens, as server-sent events: answers, detections, errors, drops, log lines.

        `result`, `partial`, `detections`, `error`, `restart`, `source`, `dropped`, `replaced`, `set`,
        `switched` and `log` as they come; `statistics`, the report, every second; `lost`, how many a
        slow client has missed; `ended`, the last report, when the run or the server ends.
        """
        return _Stream(
            event_stream(self._channels),
            media_type="text/event-stream",
            places=self._channels.streams,
        )


class _Stream(StreamingResponse):
    """A reply without an end, which takes one of `places` as long as it lasts."""

    def __init__(self, content: AsyncIterator[Any], *, media_type: str, places: Places) -> None:
        super().__init__(content, media_type=media_type)
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._places.taken():
            await super().__call__(scope, receive, send)


async def _parts(feed: Feed) -> AsyncIterator[bytes]:
    # The boundary goes out right after a picture, not before the next: browsers show a part only
    # when they have seen its end.
    yield b"--" + _BOUNDARY + b"\r\n"
    number = feed.broadcast.number
    while found := await feed.next(number, timeout_s=None):
        number, picture = found
        if not isinstance(picture, Picture):
            return
        jpeg = await feed.jpeg(picture)
        lines = {"Content-Type": "image/jpeg", "Content-Length": len(jpeg), **_stamp(picture)}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        yield head.encode() + b"\r\n"
        yield jpeg  # as it is: all clients are sent the same bytes
        yield b"\r\n--" + _BOUNDARY + b"\r\n"


def _is_json(request: Request, form: str | None, *, otherwise: bool) -> bool:
    """Whether the client wants a picture in JSON: as its address says, or `Accept`, or `otherwise`."""
    if form is not None:
        return form == "json"
    accepted = request.headers.get("accept", "")
    takes_json, takes_jpeg = "application/json" in accepted, "image/" in accepted
    return otherwise if takes_json == takes_jpeg else takes_json


def _stamp(picture: Picture) -> dict[str, str]:
    return {"X-Timestamp-Nanos": str(picture.tov_ns), "X-Cycle": str(picture.cycle)}
