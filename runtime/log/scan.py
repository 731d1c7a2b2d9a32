"""Goes over the cycles of a run, slab after slab, and on with those that a live writer adds."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from flowrun.runtime.clock import ticks_ns
from flowrun.runtime.log.files import LogFiles
from flowrun.runtime.log.message import LateLines, LoggedCycle, Range
from flowrun.runtime.log.slab.bytes import Damage
from flowrun.runtime.log.slab.cycles import Entry
from flowrun.runtime.log.slab.format import LINES
from flowrun.runtime.log.slab.reader import SlabReader

__all__ = ["follow", "scan"]

_POLL_S = 0.02
"""How often a log that is followed is looked at while nothing comes; a look takes some 20 us."""


def scan(
    files: LogFiles, wanted: Range, *, goes_on: bool = False
) -> Iterator[tuple[SlabReader, LoggedCycle]]:
    """The cycles of `wanted` that are there, each with its slab, in order.

    Log lines that were written before their cycle are among its messages; those of a cycle that did not
    come any more are `LateLines`, unless the log `goes_on`.
    Damage ends the reading of its slab, and is noted in `files.losses`.
    """
    files.check_open()
    bounded = not wanted.is_everything
    previous = -1
    lines: list[Entry] = []
    last: tuple[int, int]
    """Number and time of `lines`, where there are any."""
    for slab in files.slabs[_first_slab(files, wanted) :]:
        chunks = slab.structure.chunks
        first_chunk = slab.chunk_of(cycle=wanted.start, time_ns=wanted.start_ns)
        count, begins = 0, True
        try:
            for index in range(first_chunk, len(chunks)):
                at = None
                if index == first_chunk and not wanted.begins_with_log:
                    at = slab.offset_of(index, cycle=wanted.start, time_ns=wanted.start_ns)
                for opcode, offset, cycle, time_ns, entries in slab.cycles.records(index, at):
                    if bounded and not wanted.contains(cycle, time_ns):
                        if wanted.is_over(cycle, time_ns):
                            return
                        continue
                    if cycle <= previous:
                        raise Damage(offset, f"cycle {cycle} after cycle {previous}")
                    count += len(entries)
                    if opcode == LINES:
                        lines += entries
                        last = cycle, time_ns
                        continue
                    if lines:
                        if last[0] == cycle:
                            entries = lines + entries  # noqa: PLW2901 - rarely
                        else:  # their own cycle is damaged
                            yield slab, LateLines(*last, lines)
                        lines = []
                    if begins and previous >= 0:
                        _check_follows(files, slab, previous, cycle)
                    previous, begins = cycle, False
                    yield slab, LoggedCycle(cycle, time_ns, entries)
                    if files.closed:
                        files.check_open()
            if not bounded:
                _check_count(slab, count)
        except Damage as damage:
            files.lose(slab, damage)
    if lines and not goes_on:
        yield files.slabs[-1], LateLines(*last, lines)


def follow(
    files: LogFiles, wanted: Range, *, timeout_s: float | None, stopped: threading.Event
) -> Iterator[tuple[SlabReader, LoggedCycle]]:
    """`scan`, and then what a writer adds, until it ends or dies, adds nothing for `timeout_s`, or
    `stopped` is set."""
    idle_since, alive = ticks_ns(), True
    start, end = wanted.start, wanted.end
    while True:
        files.check_open()
        files.refresh()
        over = files.slabs[-1].structure.end is not None or not alive
        found = False
        now = Range(start, start_ns=wanted.start_ns)
        for slab, record in scan(files, now, goes_on=not over):
            if wanted.is_over(record.cycle, record.time_ns):
                return
            vanished = files.vanished
            if vanished is not None and slab.path != vanished:
                if start is not None and record.cycle > start:
                    files.losses[vanished] = f"{vanished}: was removed before it was read"
                files.vanished = None
            found = True
            start = record.cycle + 1
            yield slab, record
        if over or (end is not None and start is not None and start >= end):
            return
        if found:
            idle_since = ticks_ns()
            continue
        if timeout_s is not None and ticks_ns() - idle_since >= timeout_s * 1e9:
            return
        # Asked before the next look: what a writer commits before it dies is then read.
        alive = files.writer_lives()
        if alive and stopped.wait(_POLL_S):
            return


def _first_slab(files: LogFiles, wanted: Range) -> int:
    """The last slab that may hold the first cycle of the range."""
    start, start_ns = wanted.start, wanted.start_ns
    for position, slab in reversed(list(enumerate(files.slabs))):
        head = slab.first(0) if slab.structure.chunks else None
        if head is not None and (
            (start is not None and head.cycle <= start)
            or (start_ns is not None and head.time_ns < start_ns)
        ):
            return position
    return 0


def _check_follows(files: LogFiles, slab: SlabReader, previous: int, cycle: int) -> None:
    """Note where the first cycle of `slab` is not the one after the last of the slab before: a power cut
    takes the end of that one, and leaves what came later."""
    if cycle > previous + 1 and not files.losses:
        files.losses[slab.path] = (
            f"{slab.path}: begins with cycle {cycle}; expected {previous + 1}, the one after the last "
            "of the slab before"
        )


def _check_count(slab: SlabReader, count: int) -> None:
    statistics = slab.structure.statistics
    if statistics is not None and statistics.message_count != count:
        raise Damage(
            slab.preamble.size, f"{count} messages; the summary counts {statistics.message_count}"
        )
