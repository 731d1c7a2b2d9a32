"""The messages of one topic, as a notebook wants them: `log["inference.answer"][100:200].df`."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import datetime
from itertools import islice
from numbers import Real
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from flowrun.msgs.display import html_image, html_table, png
from flowrun.runtime.errors import LogNotFound
from flowrun.runtime.extras import import_optional
from flowrun.runtime.log.message import Frame, LogMessage, Range, Topic
from flowrun.runtime.log.table import Table
from flowrun.runtime.wording import listed, nearest

if TYPE_CHECKING:
    from flowrun.runtime.log.reader import Log

__all__ = ["LogTopic", "topic_named"]

_SHOWN = 10
_SHOWN_PICTURES = 4


class LogTopic:
    """The messages of a topic of a log, or those of some of its cycles. Nothing is read before it is
    asked for, and again each time: of a live run, all that is there then.

    name: the topic's, such as "/inference/answer".
    """

    def __init__(self, log: Log, name: str, wanted: Range) -> None:
        self._log = log
        self._wanted = wanted
        self.name = name

    @property
    def topic(self) -> Topic:
        """Its schema and encoding, and the task and port that publish it."""
        return self._log.topics[self.name]

    def __iter__(self) -> Iterator[LogMessage]:
        return self._log.messages(self.name, **self._bounds)

    def __len__(self) -> int:
        """Number of messages. Goes over all cycles."""
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        """Whether there is a message."""
        return next(iter(self), None) is not None

    @overload
    def __getitem__(self, cycle: int) -> LogMessage: ...
    @overload
    def __getitem__(self, cycle: slice) -> LogTopic: ...
    def __getitem__(self, cycle: int | slice) -> LogMessage | LogTopic:
        """The message of a cycle; `LogNotFound` if it has none. `[100:200]`: those of cycles 100 to 199;
        a negative number counts from the last cycle of the log."""
        if isinstance(cycle, slice):
            if cycle.step not in (None, 1):
                raise TypeError(f"{self.name}[::{cycle.step!r}]: a range of cycles has no step")
            start, end = (
                None if it is None else max(0, self._number(it)) for it in (cycle.start, cycle.stop)
            )
            return self._within(Range(start, end))
        number = self._number(cycle)
        for message in self._within(Range(number, number + 1)):
            return message
        later = next(iter(self._within(Range(number + 1, None))), None)
        next_ = "no later one has one" if later is None else f"the next one is in {later.cycle}"
        raise LogNotFound(
            f"{self._log.path}: {self.name} has no message in cycle "
            f"{number if number >= 0 else cycle}; {next_}"
        )

    def between(self, start: float | datetime | None, end: float | datetime | None) -> LogTopic:
        """The messages with start <= time < end: seconds since the first cycle of the log, or moments;
        None is no bound. A `datetime` without a time zone is one of this machine's."""
        return self._within(Range(start_ns=self._time_ns(start), end_ns=self._time_ns(end)))

    def frames(self) -> Iterator[Frame]:
        """Its pictures; `LogNotFound` if it holds none."""
        return self._log.frames(self.name, **self._bounds)

    @property
    def table(self) -> Table:
        """Its messages as columns; see `Log.table`."""
        return self._log.table(self.name, **self._bounds)

    @property
    def df(self) -> Any:
        """`table` as a `pandas.DataFrame`; needs the package pandas."""
        return self.table.df

    @property
    def pl(self) -> Any:
        """`table` as a `polars.DataFrame`; needs the package polars."""
        return self.table.pl

    @property
    def arrow(self) -> Any:
        """`table` as a `pyarrow.Table`; needs the package pyarrow."""
        pyarrow = import_optional("pyarrow", "LogTopic.arrow", extra="tables")
        return self.table.arrow(pyarrow)

    def __repr__(self) -> str:
        return f"LogTopic({self.name!r} of {str(self._log.path)!r})"

    def _repr_html_(self) -> str:
        found = list(islice(self, _SHOWN + 1))
        more = "; the first of them" if len(found) > _SHOWN else ""
        title = f"{self.name}: {self.topic.schema_name}{more}"
        names = list(dict.fromkeys(name for it in found[:_SHOWN] for name in it.outline))
        rows = [
            [it.cycle, it.tov_ns, *(it.outline.get(name, "") for name in names)]
            for it in found[:_SHOWN]
        ]
        shown = html_table(title, ["cycle", "tov_ns", *names], rows)
        if self.topic.is_picture:
            pictures = (png(frame.pixels) for frame in islice(self.frames(), _SHOWN_PICTURES))
            shown += "".join(map(html_image, pictures))
        return shown

    @property
    def _bounds(self) -> dict[str, Any]:
        """The range as arguments of `Log.messages`, `frames` and `table`."""
        return asdict(self._wanted)

    def _number(self, cycle: Any) -> int:
        if not isinstance(cycle, SupportsIndex):
            raise TypeError(f"{self.name}[{cycle!r}]: a cycle is found by its number")
        number = operator.index(cycle)
        if number >= 0:
            return number
        last = max((record.cycle for record in self._log.cycles()), default=-1)
        return last + 1 + number

    def _time_ns(self, time: float | datetime | None) -> int | None:
        if time is None:
            return None
        is_number = isinstance(time, Real) and math.isfinite(time)
        if not (is_number or isinstance(time, datetime)):
            raise TypeError(
                f"between({time!r}): expected seconds since the first cycle, a datetime, or None"
            )
        if isinstance(time, datetime):
            whole, part = int(time.replace(microsecond=0).timestamp()), time.microsecond
            return whole * 1_000_000_000 + part * 1000
        return (self._log.start_ns or 0) + round(time * 1e9)

    def _within(self, more: Range) -> LogTopic:
        """The messages of it that are in `more`, too."""
        mine = self._wanted
        return LogTopic(
            self._log,
            self.name,
            replace(
                mine,
                start=_most(mine.start, more.start),
                end=_least(mine.end, more.end),
                start_ns=_most(mine.start_ns, more.start_ns),
                end_ns=_least(mine.end_ns, more.end_ns),
            ),
        )


def topic_named(log: Log, name: str) -> LogTopic:
    """The messages of a topic, named as in the log, as `task.port`, or by the task that has no other
    output. `LogNotFound` if there is none."""
    topics = log.topics
    if name in topics:
        return LogTopic(log, name, Range())
    ends = {
        topic: f"{it.metadata['task']}.{it.metadata['port']}"
        for topic, it in topics.items()
        if "task" in it.metadata and "port" in it.metadata
    }
    found = [topic for topic, end in ends.items() if name in (end, end.partition(".")[0])]
    if len(found) == 1:
        return LogTopic(log, found[0], Range())
    known = [*topics, *ends.values()]
    raise LogNotFound(
        f"{log.path}: no topic {name!r}; topics: {listed(known)}{nearest(name, known)}"
    )


def _most(one: int | None, other: int | None) -> int | None:
    return max((it for it in (one, other) if it is not None), default=None)


def _least(one: int | None, other: int | None) -> int | None:
    return min((it for it in (one, other) if it is not None), default=None)
