"""What the sinks of a run show: pictures and answers, one at a time or as a stream."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the endpoints.

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from flowrun.runtime.broadcast import Answer, Picture
from flowrun.runtime.server.channels import ANSWERS, PICTURES, Channels
from flowrun.runtime.server.events import event_stream
from flowrun.runtime.server.feed import Feed
from flowrun.runtime.server.status import answer_json

__all__ = ["Streaming"]

_BOUNDARY = b"flowrun-frame"

_Timeout = Annotated[
    float, Query(ge=0, le=60, description="Seconds to wait for the next message, then 503.")
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

    # -- pictures -------------------------------------------------------------------------------

    async def image(
        self, request: Request, *, timeout_s: _Timeout = 5.0, latest: _Latest = False
    ) -> Response:
        """The next picture of the first task that shows pictures, as JPEG.

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
        """The next picture of one task that shows pictures: its id, or its number from 0."""
        task, number = self._channels.find(PICTURES, channel)
        picture, jpeg = await self._picture(request, task, timeout_s, latest=latest)
        accepted = request.headers.get("accept", "")
        if "application/json" in accepted and "image/jpeg" not in accepted:
            success = {
                "stamp_ns": picture.tov_ns,
                "channel_id": number,
                "data": list(jpeg),
                "encoding": "jpeg",
            }
            return JSONResponse({"Success": success}, headers=_stamp(picture))
        return Response(jpeg, media_type="image/jpeg", headers=_stamp(picture))

    async def inference_image(
        self, request: Request, *, timeout_s: _Timeout = 5.0, latest: _Latest = False
    ) -> Response:
        """The next picture as a JSON list of bytes, for clients that expect it so."""
        task, _ = self._channels.find(PICTURES, "")
        picture, jpeg = await self._picture(request, task, timeout_s, latest=latest)
        image = {"data": list(jpeg), "encoding": "jpeg"}
        return JSONResponse(
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
        return StreamingResponse(
            _parts(feed), media_type=f"multipart/x-mixed-replace; boundary={_BOUNDARY.decode()}"
        )

    # -- answers --------------------------------------------------------------------------------

    async def result(
        self, request: Request, *, timeout_s: _Timeout = 5.0, latest: _Latest = False
    ) -> JSONResponse:
        """The next answer of the first task that shows answers, with the time of its frame."""
        task, _ = self._channels.find(ANSWERS, "")
        answer = await self._answer(request, task, timeout_s, latest=latest)
        return JSONResponse({"Success": {"timestamp_nanos": answer.tov_ns, **answer_json(answer)}})

    async def channel_result(
        self,
        request: Request,
        channel: str,
        *,
        timeout_s: _Timeout = 5.0,
        latest: _Latest = False,
    ) -> JSONResponse:
        """The next answer of one task that shows answers: its id, or its number from 0."""
        task, number = self._channels.find(ANSWERS, channel)
        answer = await self._answer(request, task, timeout_s, latest=latest)
        return JSONResponse(
            {"Success": {"stamp_ns": answer.tov_ns, "channel_id": number, **answer_json(answer)}}
        )

    async def _answer(
        self, request: Request, task: str, timeout_s: float, *, latest: bool
    ) -> Answer:
        answer: Answer = await self._channels.next(
            request, ANSWERS, task, timeout_s=timeout_s, latest=latest
        )
        return answer

    # -- events ---------------------------------------------------------------------------------

    async def events(self) -> StreamingResponse:
        """Server-sent events: `result`, each answer as it comes; `partial`, an answer as far as
        it is (of those that come while a client is busy, the newest); `statistics`, the report, every
        second; `ended`, the last report, when the run or the server ends.
        """
        return StreamingResponse(event_stream(self._channels), media_type="text/event-stream")


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
        yield head.encode() + b"\r\n" + jpeg + b"\r\n--" + _BOUNDARY + b"\r\n"


def _stamp(picture: Picture) -> dict[str, str]:
    return {"X-Timestamp-Nanos": str(picture.tov_ns), "X-Cycle": str(picture.cycle)}
