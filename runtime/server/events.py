"""Everything that happens in a run as one stream: answers, parts of answers, the report, the end."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from flowrun.runtime.broadcast import Answer, PartialAnswer
from flowrun.runtime.server.channels import ANSWERS, PARTS, Channels
from flowrun.runtime.server.status import answer_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flowrun.runtime.server.feed import Feed

__all__ = ["event_stream"]

_QUEUED = 64
"""Events that wait for a slow client; those that make them then wait too."""

_REPORT_EVERY_S = 1.0


async def event_stream(channels: Channels) -> AsyncIterator[str]:
    """Server-sent events until the run or the server ends."""
    queue: asyncio.Queue[str | None] = asyncio.Queue(maxsize=_QUEUED)
    feeds = channels.feeds
    helpers = [
        _send_reports(channels, queue),
        *(_send_answers(task, feeds[task], queue) for task in channels.tasks(ANSWERS)),
        *(_send_parts(task, feeds[task], queue) for task in channels.tasks(PARTS)),
    ]
    running = [asyncio.create_task(helper) for helper in helpers]
    try:
        while (event := await queue.get()) is not None:
            yield event
        yield _event("ended", channels.status.report())
    finally:
        for task in running:
            task.cancel()


async def _send_answers(task: str, feed: Feed, queue: asyncio.Queue[str | None]) -> None:
    number = max(feed.broadcast.number - 1, 0)  # the newest first, so that there is one
    while found := await feed.next(number, timeout_s=None):
        number, answer = found
        if isinstance(answer, Answer):
            data = {"task": task, "timestamp_nanos": answer.tov_ns, **answer_json(answer)}
            await queue.put(_event("result", {**data, "tokens": answer.tokens}))


async def _send_parts(task: str, feed: Feed, queue: asyncio.Queue[str | None]) -> None:
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


async def _send_reports(channels: Channels, queue: asyncio.Queue[str | None]) -> None:
    """The report every second; at the end None, which ends the stream."""
    while channels.status.running and not channels.closing.is_set():
        await queue.put(_event("statistics", channels.status.recent_report()))
        try:
            async with asyncio.timeout(_REPORT_EVERY_S):
                await channels.closing.wait()
        except TimeoutError:
            continue
    await queue.put(None)


def _event(name: str, data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
