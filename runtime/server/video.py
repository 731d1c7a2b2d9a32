"""Pictures over a WebSocket: a camera's own packets, or JPEGs."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the endpoints.

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Annotated, Literal

from fastapi import APIRouter, Query, WebSocket
from starlette.websockets import WebSocketDisconnect

from flowrun.runtime.broadcast import Picture
from flowrun.runtime.live_video import LiveVideo, Shown
from flowrun.runtime.server.channels import PICTURES, Channels
from flowrun.runtime.server.errors import ApiError
from flowrun.runtime.server.feed import LoopWakeup
from flowrun.runtime.server.packets import Configuration, configuration, pack
from flowrun.runtime.server.routes import new_router

__all__ = ["Video"]

_ENDED, _STOPPING, _FULL, _NONE = 1000, 1001, 1013, 4404
_CACHED = 64
_LONGEST_REASON = 120
"""Bytes of a close message's reason; the protocol allows 123."""


class _Film:
    """One camera as its viewers get it: each message is packed once for all of them."""

    def __init__(self, task: str, video: LiveVideo) -> None:
        self.task = task
        self.video = video
        self.wakeup = LoopWakeup(video.subscribe)
        self._packed: dict[tuple[int, bool], bytes] = {}
        self._configured: tuple[int, Configuration] | None = None

    def packed(self, number: int, shown: Shown, *, is_entry: bool) -> bytes:
        key = number, is_entry
        data = self._packed.get(key)
        if data is None:
            data = self._packed[key] = pack(shown, is_entry=is_entry)
            while len(self._packed) > _CACHED:
                del self._packed[next(iter(self._packed))]
        return data

    def configuration(self, number: int, shown: Shown) -> Configuration:
        if self._configured is None or self._configured[0] != number:
            self._configured = number, configuration(self.task, shown)
        return self._configured[1]


class _NoPacketsError(Exception):
    """The camera's pictures are not given as packets; its text says why."""


class Video:
    """The endpoint below `/api/v0/streaming/ws`."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._films = {id_: _Film(id_, video) for id_, video in channels.observed.videos.items()}
        for film in self._films.values():
            channels.add_wakeup(film.wakeup)

    def router(self) -> APIRouter:
        router = new_router()
        router.add_api_websocket_route("/streaming/ws/{channel}", self.watch)
        return router

    async def watch(
        self,
        websocket: WebSocket,
        channel: str,
        form: Annotated[Literal["jpeg", "packets"], Query(alias="format")] = "jpeg",
        stamps: bool = False,  # noqa: FBT001, FBT002  # FastAPI gives it by name
    ) -> None:
        """Send the pictures of a channel until the viewer goes, or the run ends.

        stamps: whether a text comes before each JPEG, which says of which cycle and time it is.
        """
        with suppress(WebSocketDisconnect, OSError):  # it may be gone whatever is said to it
            await websocket.accept()
            code, reason = await self._show(websocket, channel, form, stamps=stamps)
            if code is not None:
                await websocket.close(code, _shortened(reason))

    async def _show(
        self, websocket: WebSocket, channel: str, form: str, *, stamps: bool
    ) -> tuple[int | None, str]:
        """Send what is asked for; with which code and reason to close then, None if the viewer has."""
        try:
            messages = (
                self._jpegs(channel, stamps=stamps)
                if form == "jpeg"
                else self._packets(self._film(channel))
            )
            with self._channels.streams.taken():
                code, reason = await _send_until_gone(websocket, messages)
        except ApiError as error:
            code, reason = (_FULL if error.status == 503 else _NONE), error.text
        except _NoPacketsError as error:
            code, reason = _NONE, f"{error}: ask for JPEGs"
        if code == _ENDED and self._channels.closing.is_set() and self._channels.status.running:
            code, reason = _STOPPING, "the server is stopping"
        return code, reason

    # -- JPEGs ----------------------------------------------------------------------------------

    async def _jpegs(self, channel: str, *, stamps: bool) -> AsyncGenerator[str | bytes]:
        task, _ = self._channels.find(PICTURES, channel)
        feed = self._channels.feeds[task]
        number = feed.broadcast.number
        while found := await feed.next(number, timeout_s=None):
            number, picture = found
            if isinstance(picture, Picture):
                jpeg = await feed.jpeg(picture)
                if stamps:
                    stamp = {"timestamp_nanos": picture.tov_ns, "cycle": picture.cycle}
                    yield json.dumps({"type": "picture", **stamp})
                yield jpeg

    # -- packets --------------------------------------------------------------------------------

    def _film(self, channel: str) -> _Film:
        """The camera of a channel; `ApiError` if it has no packets."""
        task: str | None = channel
        if channel not in self._films:
            sink, _ = self._channels.find(PICTURES, channel)
            task = self._channels.camera_of(sink)
        if task in self._films:
            return self._films[task]
        valid = ", ".join(self._films) or "none"
        raise ApiError(404, f"no packets of this channel: ask for JPEGs; cameras: {valid}")

    async def _packets(self, film: _Film) -> AsyncGenerator[str | bytes]:
        video, known, end, lost, gap = film.video, None, None, 0, ""
        number: int | None = None  # of the last picture that was sent
        with film.wakeup.watching():
            while True:
                changed = film.wakeup.changed
                news = None if number is None else video.after(number)
                if news is None and (entry := video.entry()) is not None:
                    lost += 0 if number is None else entry - number - 1
                    number, known = entry - 1, None
                    continue
                for shown in news or ():
                    assert number is not None
                    number += 1
                    is_entry = False
                    if shown.video.begins and shown.video.packets:
                        now = film.configuration(number, shown)
                        is_entry = now != known or shown.first != end
                        if is_entry:
                            known, gap = now, ""
                            yield json.dumps(known.message(lost=lost))
                    yield film.packed(number, shown, is_entry=is_entry)
                    end = shown.end
                if news:
                    continue
                if news is None and (why := video.withheld):
                    if not video.had_packets:
                        raise _NoPacketsError(why)
                    if not gap:
                        gap = why
                        yield json.dumps({"type": "gap", "reason": why})
                if video.closed or film.wakeup.closed:
                    return
                await changed.wait()


async def _send_until_gone(
    websocket: WebSocket, messages: AsyncGenerator[str | bytes]
) -> tuple[int | None, str]:
    """Send messages until there are no more, or the viewer goes: None then, instead of a code."""
    sending = asyncio.ensure_future(_send(websocket, messages))
    hearing = asyncio.ensure_future(_hear(websocket))
    done, _ = await asyncio.wait((sending, hearing), return_when=asyncio.FIRST_COMPLETED)
    for task in (sending, hearing):
        task.cancel()
    await asyncio.gather(sending, hearing, return_exceptions=True)
    if hearing in done:
        return None, ""
    try:
        await sending
    except (WebSocketDisconnect, OSError):
        return None, ""
    return _ENDED, "the run has ended"


async def _send(websocket: WebSocket, messages: AsyncGenerator[str | bytes]) -> None:
    async with aclosing(messages):
        async for message in messages:
            kind = "text" if isinstance(message, str) else "bytes"
            await websocket.send({"type": "websocket.send", kind: message})


async def _hear(websocket: WebSocket) -> None:
    """Until the viewer goes; what it says is nothing to us."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


def _shortened(reason: str) -> str:
    return reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
