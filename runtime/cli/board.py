"""How a run is doing, as text for people: in a line, in lines about what is wrong, and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from flowrun.runtime.links.status import fleet_links
from flowrun.runtime.printing import size
from flowrun.runtime.wording import counted, one_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from flowrun.runtime.broadcast import Answer
    from flowrun.runtime.engine.whereabouts import Busy
    from flowrun.runtime.links.status import LinkStatus, PartStatus
    from flowrun.runtime.run.report import RunReport, TaskReport

__all__ = [
    "answer_line",
    "board",
    "cells",
    "errors",
    "fleet_lines",
    "link_lines",
    "status_line",
    "troubles",
]

_BUSY_S = 2.0
"""Seconds after which a method of a task that runs is mentioned."""
_WIDE = 80
"""Columns of a terminal from which on the table has all that there is."""
_SHORT = 14
_MILLION = 1_000_000


def board(report: RunReport, busy: Sequence[Busy] = (), *, width: int) -> list[RenderableType]:
    """All of it, for a terminal of `width` columns, of which no line is longer."""
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    line = Text(status_line(report, width=width), style="bold", no_wrap=True, overflow="ellipsis")
    parts: list[RenderableType] = [line]
    if report.progress is not None and report.progress.fraction is not None:
        parts.append(ProgressBar(total=1.0, completed=report.progress.fraction, width=60))
    parts += [
        Text(trouble, style="red", no_wrap=True, overflow="ellipsis")
        for trouble in troubles(report, busy, name=_SHORT if width < _WIDE else None)
    ]
    lines = [Text(f"  {line}", no_wrap=True, overflow="ellipsis") for line in link_lines(report)]
    return [*parts, _table(report, width=width), *lines]


def status_line(report: RunReport, *, width: int | None = None) -> str:
    """How long it has run, how far it is and how fast; as much of that as `width` columns hold, which is
    all but what is dropped where there are 50."""
    if report.starting is not None:
        line = f"{_duration(report.uptime_s)}  starting {report.starting}"
        if report.progress is None:
            return f"{line} ..."
        if report.progress.fraction is None:
            return f"{line}: {one_line(report.progress.what)} ..."
        return f"{line}: {one_line(report.progress.what)} {report.progress.fraction:.0%}"
    parts = [
        _duration(report.uptime_s),
        f"{_number(report.cycles)} cycles",
        f"{report.cycle_rate_hz:,.1f}/s",
    ]
    if report.log is not None:
        parts.append(f"log {size(report.log.bytes)}")
    dropped = sum(task.dropped for task in report.tasks.values())
    if dropped:
        parts.append(f"{_number(dropped)} dropped")
    while width is not None and len("  ".join(parts)) > width and len(parts) > 1:
        parts.pop()
    return "  ".join(parts)


def troubles(
    report: RunReport, busy: Sequence[Busy] = (), *, name: int | None = None
) -> Iterator[str]:
    """A line for each thing that is not as it should be: what hangs, which source does not run, and
    what a task has raised, however often.

    name: number of characters of a task's id that are shown; None for all.
    """
    for it in busy:
        if it.for_s >= _BUSY_S and report.tasks[it.task].late_s is None:
            yield f"{it.task}: {it.for_s:.0f} s in {it.method}"
    for id_, task in report.tasks.items():
        if task.late_s is not None:
            yield f"{id_} hangs: {task.late_s:,.0f} s in one call"
        elif task.state not in (None, "starting", "running", "ended"):
            yield f"{id_}: {task.state}" + (f" ({task.code})" if task.code else "")
    for link in report.links:
        if link.state in ("lost", "refused"):
            yield f"{_of(link)}: {link.state}" + (f" ({link.refused})" if link.refused else "")
    yield from errors(report, name=name)


def errors(report: RunReport, *, name: int | None = None) -> Iterator[str]:
    """A line for each task that has raised something; `name` as in `troubles`."""
    for id_, task in report.tasks.items():
        if (raised := task.raised) is not None:
            ago = _duration(max(0, report.at_ns - raised.time_ns) / 1e9)
            short = id_ if name is None or len(id_) <= name else f"{id_[: name - 1]}…"
            yield f"{short}: x{_number(raised.count)}, last {ago} ago: {one_line(raised.text)}"


def shadows(report: RunReport) -> Iterator[str]:
    """A line for each shadow."""
    for id_, task in report.tasks.items():
        if (shadow := task.shadow) is not None:
            line = f"{id_} disagrees with {shadow.of} about {_number(shadow.disagreed)} of "
            line += f"{_number(shadow.compared)} frames"
            left_out = [f"{_number(it)} {cause}" for cause, it in task.dropped_by.items()]
            yield f"{line}; left out: {', '.join(left_out)}" if left_out else line


def link_lines(report: RunReport) -> Iterator[str]:
    """A line for each link to another partition."""
    for link in report.links:
        yield f"{_of(link)}: {_how(link)}"


def fleet_lines(fleet: Sequence[PartStatus]) -> list[str]:
    """How all processes of a graph are doing, and a line for each link between them."""
    well = sum(it.state in ("running", "starting") for it in fleet)
    over = sum(it.state == "ended" for it in fleet)
    lines = [f"{well} of {len(fleet)} partitions run" + (f", {over} ended" if over else "")]
    lines += [f"  {part.part}: {_part(part)}" for part in fleet]
    lines += [f"  {it.sender} -> {it.receiver}: {_how(it.status)}" for it in fleet_links(fleet)]
    return lines


def _part(part: PartStatus) -> str:
    if part.state == "unknown":
        return "nothing was heard of it yet"
    said = [part.state]
    if part.state == "gone" and part.heard_s is not None:
        said[0] += f" for {_duration(part.heard_s)}"
    said += [f"{_number(part.cycles)} cycles", f"{part.cycle_rate_hz:,.1f}/s"]
    said += [f"{_number(part.dropped)} dropped"] if part.dropped else []
    said += [counted(part.restarts, "restart")] if part.restarts else []
    if part.errors or part.state == "failed":
        said.append(f"{counted(part.errors, 'error')}, the last: {part.error}")
    return one_line(", ".join(said))


def _how(link: LinkStatus) -> str:
    said = [link.state, f"{_number(link.lag_cycles)} behind"]
    said += [f"{_number(link.gaps)} {'gap' if link.gaps == 1 else 'gaps'}"] if link.gaps else []
    said += [f"{_number(link.skipped)} passed over"] if link.skipped else []
    said += [f"{_number(link.damaged)} damaged"] if link.damaged else []
    said += [counted(link.reconnects, "reconnect")] if link.reconnects else []
    if link.clock_offset_ms is not None:
        said.append(f"clock {link.clock_offset_ms:+,.1f} ms")
    return ", ".join(said)


def _of(link: LinkStatus) -> str:
    return f"from {link.peer}" if link.direction == "in" else f"to {link.peer}"


def answer_line(answer: Answer) -> str:
    """The newest answer."""
    text = answer.response or "(an empty answer)"
    cut_off = " ... (cut off)" if answer.truncated else ""
    return one_line(
        f"cycle {answer.cycle}: {text}{cut_off}  ({answer.prompt}, {answer.latency_ms:.0f} ms)"
    )


def _table(report: RunReport, *, width: int) -> Table:
    """A row a task; what nothing happened of, and the types, only where there is room."""
    from rich.table import Table
    from rich.text import Text

    is_wide, tasks = width >= _WIDE, report.tasks.values()
    columns = {
        "type": is_wide,
        "Hz": True,
        "p50": True,
        "p99": True,
        "drops": is_wide or any(task.dropped for task in tasks),
        "errors": is_wide or any(task.raised for task in tasks),
    }
    shown = [name for name, is_shown in columns.items() if is_shown]
    gap = 2 if is_wide else 1
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    table.add_column("task")
    for name in shown:
        if name == "type":
            table.add_column(name, style="dim")
        else:
            table.add_column(name, justify="right", no_wrap=True)
    for id_, task in report.tasks.items():
        texts = [id_, *(cells(task)[name] for name in shown)]
        table.add_row(*(Text(text, no_wrap=True, overflow="ellipsis") for text in texts))
    return table


def cells(task: TaskReport) -> dict[str, str]:
    """A task's row of the table, by column."""
    return {
        "type": one_line(task.type) + (" (background)" if task.background else ""),
        "Hz": "-" if task.rate_hz is None else f"{task.rate_hz:,.1f}",
        "p50": _microseconds(task.p50_us),
        "p99": _microseconds(task.p99_us),
        "drops": _number(task.dropped) if task.dropped else "-",
        "errors": _number(task.raised.count) if task.raised is not None else "-",
    }


def _duration(seconds: float) -> str:
    """`12.3 s`, `12:03`, `3:12:03`, `12 d 03:12`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days:,} d {hour:02}:{minute:02}"
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def _number(value: int) -> str:
    return f"{value:,}" if value < 10 * _MILLION else f"{value / _MILLION:,.1f} M"


def _microseconds(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value / 1000:,.1f} ms"
    return f"{value:,.1f} µs"
