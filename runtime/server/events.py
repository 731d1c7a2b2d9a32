"""Everything that happens in a run as one stream; `docs/http-api.md` lists the events."""

from __future__ import annotations

import asyncio
import json
import math
from typing import TYPE_CHECKING, Any

from flowrun.runtime.broadcast import Answer, PartialAnswer
from flowrun.runtime.events import (
    Dropped,
    EndOfSource,
    Event,
    Failed,
    Injected,
    Replaced,
    Restarted,
    Set,
    SourceState,
    Switched,
)
from flowrun.runtime.recorded.regions import regions
from flowrun.runtime.server.channels import ANSWERS, PARTS, Channels
from flowrun.runtime.server.status import answer_json, jsonable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from flowrun.msgs.detections import DetectionsMsg
    from flowrun.runtime.run.observed import Alerted, Counted, Detected, Happened, Line
    from flowrun.runtime.server.feed import Feed, Watched

__all__ = ["detections_json", "event_stream"]

_QUEUED = 64
"""Events that wait for a slow client; those that make them then wait too."""

_REPORT_EVERY_S = 1.0
_LINES_BEFORE = 200
"""Lines of the log that were there before a client: what is wrong has often been said at the start."""
_ALERTS_BEFORE = 50

_Queue = asyncio.Queue[str | None]


async def event_stream(channels: Channels) -> AsyncIterator[str]:
    """Server-sent events until the run or the server ends."""
    queue: _Queue = asyncio.Queue(maxsize=_QUEUED)
    making = asyncio.create_task(_make(channels, queue))
    try:
        while (event := await queue.get()) is not None:
            yield event
        await making  # raises what has gone wrong: the client asks again then
        yield _event("ended", channels.status.report())
    finally:
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)


async def _make(channels: Channels, queue: _Queue) -> None:
    """All events; at the end None, which ends the stream."""
    feeds = channels.feeds
    try:
        async with asyncio.TaskGroup() as group:
            reports = group.create_task(_send_reports(channels, queue))
            others = [
                group.create_task(sending)
                for sending in (
                    *(_send_answers(task, feeds[task], queue) for task in channels.tasks(ANSWERS)),
                    *(_send_parts(task, feeds[task], queue) for task in channels.tasks(PARTS)),
                    _send_series(channels.happened, queue, _happened),
                    _send_series(channels.detected, queue, _detected),
                    _send_series(channels.alerts, queue, _alerted, before=_ALERTS_BEFORE),
                    _send_series(channels.counted, queue, _counted),
                    _send_series(channels.lines, queue, _line, before=_LINES_BEFORE),
                )
            ]
            await asyncio.wait(others)
            reports.cancel()
    except Exception:
        await queue.put(None)  # nobody would end the stream otherwise
        raise
    await queue.put(None)


async def _send_answers(task: str, feed: Feed, queue: _Queue) -> None:
    number = max(feed.broadcast.number - 1, 0)  # the newest first, so that there is one
    while found := await feed.next(number, timeout_s=None):
        number, answer = found
        if isinstance(answer, Answer):
            data = {"task": task, "timestamp_nanos": answer.tov_ns, **answer_json(answer)}
            more = {"tokens": answer.tokens, "event_type": "INFERENCE_COMPLETED"}
            await queue.put(_event("result", data | more))


async def _send_parts(task: str, feed: Feed, queue: _Queue) -> None:
    number = feed.broadcast.number
    while found := await feed.next(number, timeout_s=None):
        number, part = found
        if isinstance(part, PartialAnswer):
            data = {
                "task": task,
                "timestamp_nanos": part.tov_ns,
                "cycle": part.cycle,
                "prompt": part.prompt,
                "text": part.text,
            }
            await queue.put(_event("partial", data))


async def _send_series(
    watched: Watched[Any],
    queue: _Queue,
    told: Callable[[Any], tuple[str, dict[str, Any]]],
    *,
    before: int = 0,
) -> None:
    """The items of a series from now on, and the last ones `before`; how many were lost, where the
    client is too slow for them."""
    number = max(0, watched.series.number - before)
    async for lost, items in watched.after(number):
        if lost:
            await queue.put(_event("lost", {"count": lost}))
        for item in items:
            await queue.put(_event(*told(item)))


async def _send_reports(channels: Channels, queue: _Queue) -> None:
    while True:
        await queue.put(_event("statistics", channels.status.recent_report()))
        await asyncio.sleep(_REPORT_EVERY_S)


# -- as JSON ------------------------------------------------------------------------------------


def _happened(happened: Happened) -> tuple[str, dict[str, Any]]:
    event = happened.event
    name, more = _told(event)
    if (type_ := _type_of(event)) is not None:
        more["event_type"] = type_
    if isinstance(event, Failed):
        more["count"] = happened.errors
    elif isinstance(event, Injected):
        more["bytes"] = happened.size
    return name, {"task": event.task, "cycle": happened.cycle, **more}


def _told(event: Event) -> tuple[str, dict[str, Any]]:
    """The name of an event, and what it says besides task and cycle."""
    match event:
        case Failed():
            return "error", {
                "policy": event.policy,
                "phase": event.phase,
                "text": event.text,
                "place": event.place,
            }
        case Dropped():
            return "dropped", {"cause": event.cause, "count": event.count}
        case Set():
            return "set", {"values": jsonable(event.values)}
        case Injected():
            return "injected", {"port": event.port}
        case SourceState():
            return "source", {"state": event.state, "code": event.code}
        case EndOfSource():
            return "source", {"state": "ended", "code": ""}
        case Switched():
            return "switched", {"playback": event.playback}
        case Replaced():
            return "replaced", {"input_cycle": event.input_cycle}
        case Restarted():
            return "restart", {}
        case _:
            return event.kind, {}


def _type_of(event: Event) -> str | None:
    """What Roboflow's InferencePipeline calls the event in its status updates, where it has it too."""
    match event:
        case Dropped():
            return "FRAME_DROPPED"
        case Failed():
            return "INFERENCE_ERROR"
        case SourceState(state="lost"):
            return "SOURCE_CONNECTION_LOST"
        case SourceState(state="connecting", code=code) if code:
            return "SOURCE_CONNECTION_ATTEMPT_FAILED"
        case EndOfSource():
            return "VIDEO_CONSUMPTION_FINISHED"
        case SourceState() | Switched():
            return "SOURCE_STATE_UPDATE"
        case _:
            return None


def _detected(detected: Detected) -> tuple[str, dict[str, Any]]:
    found = detections_json(detected.message)
    return "detections", {"task": detected.task, "port": detected.port, **found}


def detections_json(message: DetectionsMsg) -> dict[str, Any]:
    """The objects in a picture, each with the centre and the size of its box in pixels."""
    found = zip(
        message.boxes.tolist(),
        message.scores.tolist(),
        message.labels,
        message.class_ids.tolist(),
        message.tracker_ids.tolist() or [-1] * message.count,
        strict=True,
    )
    return {
        "timestamp_nanos": message.tov_ns,
        "cycle": message.frame_cycle,
        "width": message.width,
        "height": message.height,
        "detections": [
            {
                "x": (left + right) / 2,
                "y": (top + bottom) / 2,
                "width": right - left,
                "height": bottom - top,
                "confidence": None if math.isnan(score) else score,
                "class": label,
                "class_id": class_id,
                "tracker_id": tracker if tracker >= 0 else None,
            }
            for (left, top, right, bottom), score, label, class_id, tracker in found
        ],
    }


def _alerted(alerted: Alerted) -> tuple[str, dict[str, Any]]:
    message = alerted.message
    return "alert", {
        "task": alerted.task,
        "timestamp_nanos": message.tov_ns,
        "cycle": message.frame_cycle,
        "text": message.text,
        "severity": message.severity,
    }


def _counted(counted: Counted) -> tuple[str, dict[str, Any]]:
    """Zones and lines: their shapes in pixels of the frame, and what is counted there."""
    message = counted.message
    return "regions", {
        "task": counted.task,
        "timestamp_nanos": message.tov_ns,
        "cycle": message.frame_cycle,
        "width": message.width,
        "height": message.height,
        **regions(message.all_fields()),
    }


def _line(line: Line) -> tuple[str, dict[str, Any]]:
    return "log", {
        "timestamp_nanos": line.time_ns,
        "level": line.level,
        "task": line.task,
        "message": line.text,
        "fields": jsonable(line.fields),
    }


def _event(name: str, data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
