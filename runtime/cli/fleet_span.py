"""`--from` and `--to` of a fleet's replay: a stretch of time; each process has its own cycles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowrun.runtime.errors import UsageError

if TYPE_CHECKING:
    from flowrun.runtime.fleet.record import FleetRun
    from flowrun.runtime.fleet.replay import Span
    from flowrun.runtime.log.reader import Log

__all__ = ["span_of"]


def span_of(begin: str | None, end: str | None, runs: list[FleetRun]) -> Span:
    """What of each log `--from` and `--to` mean: the same stretch of time."""
    from flowrun.runtime.log.reader import Log

    if begin is None and end is None:
        return lambda _: (None, None)
    starts = []
    for run in runs:
        with Log(run.path) as log:
            starts += [] if log.start_ns is None else [log.start_ns]
    begin_ns = min(starts, default=0)
    first_ns, last_ns = (
        None if text is None else _time_of(option, text, runs, begin_ns)
        for option, text in (("--from", begin), ("--to", end))
    )
    if first_ns is not None and last_ns is not None and last_ns < first_ns:
        raise UsageError(f"--to {end} is before --from {begin}")

    def span(log: Log) -> tuple[int | None, int | None]:
        first = last = None
        if first_ns is not None:
            found = next(log.cycles(start_ns=first_ns), None)
            first = 2**62 if found is None else found.cycle
        if last_ns is not None:
            found = next(log.cycles(start_ns=last_ns + 1), None)
            last = None if found is None else found.cycle - 1
        return first, last

    return span


def _time_of(option: str, text: str, runs: list[FleetRun], begin_ns: int) -> int:
    """Nanoseconds since 1970 UTC. PART:CYCLE is the time of that cycle in the newest run that has it."""
    from flowrun.runtime.cli.moments import moment
    from flowrun.runtime.log.reader import Log

    part, colon, number = text.rpartition(":")
    if colon and "/" in part and number.isdecimal():
        for run in reversed(runs):
            if str(run.part) == part:
                with Log(run.path) as log:
                    found = next(log.cycles(int(number), int(number) + 1), None)
                if found is not None:
                    return found.time_ns
        parts = ", ".join(sorted({str(run.part) for run in runs}))
        raise UsageError(
            f"{option} {text}: no run of {part} here has cycle {number}; processes: {parts}"
        )
    with Log(runs[0].path) as log:
        cycle, time_ns = moment(log, option, text)
        start_ns = log.start_ns or 0
    if time_ns is None:
        part = min(str(run.part) for run in runs)
        raise UsageError(
            f"{option} {text}: each process of a fleet counts its own cycles; say of which it is, as in "
            f"{option} {part}:{cycle}, or a time: +12.5s since the fleet's first cycle"
        )
    return time_ns - start_ns + begin_ns if text.endswith("s") else time_ns
