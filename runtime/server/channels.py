"""The channels of a run: what its sinks show, as HTTP clients ask for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowrun.runtime.broadcast import Answer, PartialAnswer, Picture, Shows
from flowrun.runtime.server.errors import ApiError
from flowrun.runtime.server.feed import Feed, LoopWakeup, Watched
from flowrun.runtime.wording import described

if TYPE_CHECKING:
    from fastapi import Request

    from flowrun.runtime.run.observed import Detected
    from flowrun.runtime.server.status import Status

__all__ = ["ANSWERS", "PARTS", "PICTURES", "Channels", "Kind", "Places"]

_LONGER = "wait longer with ?timeout_s= (60 at most), or see /api/v0/report"
_LOOK_S = 1.0
"""How often a waiting request looks whether its client is still there."""

_FRESH_S = 1.0
"""`?latest=1` gives a picture at once if it was offered no longer ago than this."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of what tasks show.

    item: the class of what they offer.
    noun: its name, in a task's `shows` and in texts.
    fresh_s: how many seconds the newest item counts as fresh; None: always.
    """

    item: type
    noun: Shows
    fresh_s: float | None = None


PICTURES = Kind(Picture, "picture", _FRESH_S)
ANSWERS = Kind(Answer, "answer")
_KINDS = (PICTURES, ANSWERS)
PARTS = Kind(PartialAnswer, "partial answer")
"""These have no channels: only the event stream has them."""


class Places:
    """A number of clients that may stay at once, so that connections are left for the others.

    most: how many.
    what: what they do, in the plural.
    """

    def __init__(self, most: int, what: str) -> None:
        self._most = most
        self._what = what
        self._taken = 0

    @property
    def count(self) -> int:
        """How many have a place."""
        return self._taken

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold a place; `ApiError` if there is none."""
        if self._taken >= self._most:
            raise ApiError(
                503, f"{self._most} {self._what} already, which is the limit", wrapped=True
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class Channels:
    """What the sinks of a run show, by kind and channel. All methods are for the loop's thread.

    connections: how many the server has at most; some of them stay free of requests that wait.

    feeds: task id -> what it shows.
    closing: set when the server ends.
    observed: what the run's cycles bring.
    happened, detected, alerts, counted, lines: of these, what has a place in the stream of events.
    streams: the places of clients that are sent a stream.
    """

    def __init__(self, status: Status, *, connections: int) -> None:
        self.status = status
        self.streams = Places(connections // 4, "streams are open")
        self._waits = Places(connections * 5 // 8, "clients wait for messages")
        self.feeds = {task: Feed(shown) for task, shown in status.run.broadcasts.items()}
        self.closing = asyncio.Event()
        self._shows = dict(status.run.shows)
        self.observed = status.run.observe()
        self.happened = Watched(self.observed.happened)
        self.detected = Watched(self.observed.detected)
        self.alerts = Watched(self.observed.alerts)
        self.counted = Watched(self.observed.counted)
        self.lines = Watched(self.observed.lines)
        watched = (self.happened, self.detected, self.alerts, self.counted, self.lines)
        self._wakeups = [it.wakeup for it in watched]

    def close(self) -> None:
        """The server ends: streams end, and waiting requests are answered."""
        self.closing.set()
        for feed in self.feeds.values():
            feed.close()
        for wakeup in self._wakeups:
            wakeup.close()

    def add_wakeup(self, wakeup: LoopWakeup) -> None:
        """End what waits for it, too, when the server ends."""
        self._wakeups.append(wakeup)

    def camera_of(self, task: str) -> str | None:
        """The task whose pictures `task` shows."""
        cnx: list[dict[str, str]] = self.status.run.graph()["cnx"]
        sources = [it["src"] for it in cnx if it["dst"].partition(".")[0] == task]
        return sources[0].partition(".")[0] if sources else None

    def tasks(self, kind: Kind) -> list[str]:
        """The tasks of this kind, in declaration order."""
        return [task for task, shows in self._shows.items() if shows == kind.noun]

    def find(self, kind: Kind, channel: str) -> tuple[str, int]:
        """The task of a channel and its number; `""` is the first channel of its kind.

        A sink that does not say what it shows has no number, but may be named: the items that it
        offers say so.
        """
        tasks = self.tasks(kind)
        numbers = self.status.run.channels
        if channel in tasks:
            return channel, numbers[channel]
        others = {task for other in _KINDS if other is not kind for task in self.tasks(other)}
        if channel in self.feeds and channel not in others:
            return channel, len(tasks)
        if not tasks:
            raise ApiError(
                503,
                f"no task of graph {self.status.run.name!r} shows {kind.noun}s; "
                f"its tasks are: {', '.join(self._shows) or 'none'}",
                wrapped=True,
            )
        first, *others_ = sorted(tasks, key=numbers.__getitem__)
        if channel == "":
            return first, numbers[first]
        for task in tasks:
            if channel == str(numbers[task]):
                return task, numbers[task]
        valid = ", ".join(f"{numbers[task]} or {task}" for task in (first, *others_))
        raise ApiError(
            404,
            f"unknown channel {described(channel)}; the channels of {kind.noun}s are: {valid}",
            wrapped=True,
        )

    async def next(
        self, request: Request, kind: Kind, task: str, *, timeout_s: float, latest: bool
    ) -> Any:
        """What `task` shows next, an item of this kind; `ApiError` says why there is none.

        timeout_s: how long to wait for it.
        latest: the newest item at once, if there is one that is fresh enough.
        """
        shown = self.feeds[task].broadcast
        shown.watch()
        item = shown.newest
        if not (
            latest and item is not None and (kind.fresh_s is None or shown.age_s < kind.fresh_s)
        ):
            with self._waits.taken():
                item = await self._wait(request, kind, task, timeout_s)
        if not isinstance(item, kind.item):
            raise ApiError(
                404,
                f"task {task!r} shows {type(item).__name__} items, not {kind.noun}s",
                wrapped=True,
            )
        return item

    async def next_detected(self, task: str | None, *, timeout_s: float, latest: bool) -> Detected:
        """What `task`, or any, finds next; `ApiError` says why there is nothing.

        timeout_s: how long to wait for it.
        latest: the newest at once, if there is one.
        """
        detecting = self.observed.detecting
        if task is not None and task not in detecting:
            those = ", ".join(detecting) or "none"
            text = f"task {described(task)} finds no objects; tasks that do: {those}"
            raise ApiError(404, text, wrapped=True)
        if not detecting:
            text = f"no task of graph {self.status.run.name!r} finds objects"
            raise ApiError(503, text, wrapped=True)
        series = self.detected.series
        if latest:
            _, kept = series.after(0)
            fitting = [it for it in kept if task is None or it.task == task]
            if fitting:
                return fitting[-1]
        with self._waits.taken(), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                async for _, items in self.detected.after(series.number):
                    for item in items:
                        if task is None or item.task == task:
                            return item
                raise self.ended()
        raise ApiError(503, f"no new detections within {timeout_s:g} s; {_LONGER}", wrapped=True)

    async def _wait(self, request: Request, kind: Kind, task: str, timeout_s: float) -> Any:
        feed = self.feeds[task]
        number = feed.broadcast.number
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            left_s = deadline - loop.time()
            found = await feed.next(number, timeout_s=max(0.0, min(left_s, _LOOK_S)))
            if found is not None:
                return found[1]
            if feed.ended or not self.status.running:
                raise self.ended()
            if left_s <= _LOOK_S or await request.is_disconnected():
                raise ApiError(
                    503,
                    f"no new {kind.noun} of task {task!r} within {timeout_s:g} s; {_LONGER}",
                    wrapped=True,
                )

    def ended(self) -> ApiError:
        """Why nothing more comes."""
        text = self.status.ended_text() or "the server is stopping"
        return ApiError(503, text, wrapped=True)
