"""The lines of a run's log, up to a moment."""

from __future__ import annotations

from typing import Any, Literal, get_args

from flowrun.runtime.errors import LogError
from flowrun.runtime.log.lines import LEVELS, unpack_log
from flowrun.runtime.log.message import LateLines
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import LOG_TOPIC
from flowrun.runtime.log.values import plain_value
from flowrun.runtime.recorded.places import Places

__all__ = ["MOST_LINES", "Level", "lines"]

Level = Literal["debug", "info", "warning", "error", "critical"]
_LEVELS: tuple[str, ...] = get_args(Level)
_NAMES = dict(zip(LEVELS[1:], _LEVELS, strict=True))
MOST_LINES = 1000
_MOST_LOOKED_AT = 20_000


def lines(
    log: Log, places: Places, cycle: int | None, *, level: Level, task: str | None, most: int
) -> dict[str, Any]:
    """The newest lines at or before a cycle, the newest first, and whether there are earlier ones.

    cycle: None for all of the log, also those that came after its last cycle.
    level: the least one. task: only those of this task; None for all.
    """
    found = places.of(LOG_TOPIC)
    end = len(found) if cycle is None else found.before(cycle)
    least = _LEVELS.index(level)
    wanted: list[int] = []
    begin = max(0, end - _MOST_LOOKED_AT)
    index = end
    while index > begin and len(wanted) < most:
        index -= 1
        line = _line(places.payload_at(found.place(index)))
        if line is not None and _is_wanted(line, least, task):
            wanted.append(index)
    # An index proposes: what is given out is read by `Log`, which checks it.
    cycles = dict.fromkeys(found.cycle(it) for it in wanted)
    kept: list[dict[str, Any]] = []
    for at in cycles:
        kept += [it for it in reversed(_lines_of(log, at)) if _is_wanted(it, least, task)]
    return {"lines": kept[:most], "more": index > 0}


def _lines_of(log: Log, cycle: int) -> list[dict[str, Any]]:
    """All lines of a cycle, and those that came after it; none where the log does not give them."""
    found = []
    try:
        for record in log.records(cycle, cycle + 1):
            for topic, _, payload in record.entries:
                line = _line(payload) if topic == LOG_TOPIC else None
                if line is not None:
                    late = isinstance(record, LateLines)
                    found.append({"cycle": None if late else record.cycle, **line})
    except LogError:
        pass
    return found


def _line(payload: memoryview) -> dict[str, Any] | None:
    try:
        line = unpack_log(payload)
    except ValueError:
        return None
    fields = line["fields"] if isinstance(line["fields"], dict) else {}
    return {
        "timestamp_nanos": line["time_ns"],
        "level": _NAMES.get(line["level"], "info"),
        "task": line["name"],
        "message": line["message"],
        "fields": {str(key): plain_value(value, data=False) for key, value in fields.items()},
    }


def _is_wanted(line: dict[str, Any], least: int, task: str | None) -> bool:
    return _LEVELS.index(line["level"]) >= least and task in {None, line["task"]}
