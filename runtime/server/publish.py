"""Publishing a message on a port of the run."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the endpoints.

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.errors import UnknownPort, UsageError
from flowrun.runtime.pictures.still import pixels_of_file
from flowrun.runtime.server.bodies import Json, MessageReply, refusals
from flowrun.runtime.server.errors import ApiError
from flowrun.runtime.server.requests import json_object, raw_body
from flowrun.runtime.server.routes import new_router
from flowrun.runtime.server.status import Status

__all__ = ["Publish"]

_JSON_LIMIT = 4 << 20
_PICTURE_LIMIT = 32 << 20
_MOST_PIXELS = 10_000_000
"""Of a picture: as many bytes as a message may have, and 4K."""
_LATEST_NS = 2**63 - 1


class Publish:
    """The endpoint that publishes."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._run = status.run

    def router(self) -> APIRouter:
        router = new_router()
        kinds = self._run.ports().values()
        content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
        if any(issubclass(kind, ImageRgb8Msg) for kind in kinds):
            content["image/*"] = {"schema": {"type": "string", "format": "binary"}}
        router.add_api_route(
            "/publish", self.ports, responses={200: {"model": dict[str, str]}, **refusals({})}
        )
        router.add_api_route(
            "/publish/{port}",
            self.publish,
            methods=["POST"],
            responses={
                200: {"model": MessageReply},
                **refusals(
                    {
                        400: "The body is not JSON.",
                        404: "No such port; the error names those that there are.",
                        409: "Too many messages wait for a cycle: a task holds it up.",
                        413: f"The body is larger than {_JSON_LIMIT} bytes, a picture file than "
                        f"{_PICTURE_LIMIT}.",
                        422: "A field is wrong, which the error names, or the picture is.",
                        503: "The run has ended.",
                    }
                ),
            },
            openapi_extra={"requestBody": {"content": content, "required": True}},
        )
        return router

    async def ports(self) -> Json:
        """The ports on which messages may be published, and the class of their messages."""
        return Json({port: kind.__name__ for port, kind in self._run.ports().items()})

    async def publish(
        self,
        request: Request,
        port: Annotated[str, Path(description="Where: TASK.PORT, or TASK if it has one.")],
        tov_ns: Annotated[
            int | None,
            Query(ge=0, le=_LATEST_NS, description="Its time of validity (the cycle's time)."),
        ] = None,
    ) -> Json:
        """Publish a message on a port of the run, in its next cycle.

        The body holds the message's fields as a JSON object: bytes in base64, arrays as nested lists,
        or as a map of dtype, shape and data in base64. A field that is left out has its default. With a
        content type of `image/...` the body is a picture file, whose pixels are published.

        The message takes the place of the task's own on this port. A source waits for the cycle after
        it, so that nothing of it is lost. The log keeps the message, and a replay publishes it again.
        """
        if (ended := self._status.ended_text()) is not None:
            raise ApiError(503, ended)
        is_picture = request.headers.get("content-type", "").startswith("image/")
        raw = await raw_body(request, _PICTURE_LIMIT if is_picture else _JSON_LIMIT)
        return await asyncio.to_thread(self._publish, port, raw, is_picture, tov_ns)

    def _publish(self, port: str, raw: bytes, is_picture: bool, tov_ns: int | None) -> Json:  # noqa: FBT001
        try:
            fields = (
                {"pixels": pixels_of_file(raw, most=_MOST_PIXELS)}
                if is_picture
                else json_object(raw)
            )
            is_taken = self._run.publish(port, fields, tov_ns=tov_ns)
        except UnknownPort as error:
            raise ApiError(404, str(error)) from None
        except (UsageError, ValueError) as error:
            raise ApiError(422, str(error)) from None
        if not is_taken:
            raise ApiError(409, "too many messages wait for a cycle: a task holds it up")
        return Json({"message": f"published on {port}"})


def _of_picture(raw: bytes) -> dict[str, Any]:
    return {"pixels": pixels_of_file(raw, most=_MOST_PIXELS)}
