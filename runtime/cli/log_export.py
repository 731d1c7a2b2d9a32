"""`flowrun log export` and `flowrun log diff`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flowrun.runtime.cli.moments import MOMENT, moment
from flowrun.runtime.cli.progress import progress
from flowrun.runtime.errors import UsageError
from flowrun.runtime.log.reader import Bounds, Log
from flowrun.runtime.printing import Escaping, Writable, print_text
from flowrun.runtime.wording import counted, one_line

if TYPE_CHECKING:
    from flowrun.runtime.export.selection import ExportReport, Selection

__all__ = ["FORMATS", "WHERE", "add_diff", "add_export", "bounds", "by_time", "diff", "export"]

_TEXTS = ("jsonl", "csv")
"""Formats that are printed if no file is named."""
_SUFFIXES = {
    "jsonl": ".jsonl",
    "csv": ".csv",
    "parquet": ".parquet",
    "mp4": ".mp4",
    "trace": ".trace.json",
    "foxglove": ".foxglove.mcap",
    "mcap": ".mcap",
    "rerun": ".rrd",
    "otlp": ".otlp.jsonl",
}
FORMATS = tuple(_SUFFIXES)
"""What `--to` takes."""
_DATA_SETS = ("coco", "fiftyone", "hf")
_COUNTED = {"mp4": "picture", "trace": "cycle", "otlp": "span"}
WHERE = MOMENT


def add_export(verb: argparse.ArgumentParser) -> None:
    """The options of `flowrun log export`."""
    verb.description = (
        "jsonl: a JSON object a message. csv, parquet: one topic, its scalar fields as columns. "
        "mp4: the pictures of one topic at their own times, a camera's packets as they came, or "
        "H.264; of a run with decode: keyframes all pictures, also those that it did not decode. "
        "trace: when each task ran, for ui.perfetto.dev. mcap: all in one compressed MCAP "
        "file, for other tools. foxglove: such a file of Foxglove's own schemas, which Foxglove and "
        "Rerun show. rerun: a recording of Rerun. otlp: OpenTelemetry spans of the run, its cycles and "
        "their steps, as JSON lines, or sent to a collector (--endpoint). "
        "Example: flowrun log export RUN --to mp4 --from 10s --to 20s"
    )
    verb.add_argument(
        "--to",
        action="append",
        default=[],
        metavar="FORMAT",
        help=f"{', '.join(_SUFFIXES)}; the ending of FILE says it too. Given again with a cycle or "
        "seconds, as for --from: end there, this cycle included",
    )
    verb.add_argument("--from", dest="first", metavar="WHERE", help=f"begin here: {WHERE}")
    verb.add_argument(
        "--topic", action="append", metavar="TOPIC", help="only this topic; may be given again"
    )
    verb.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="where to write. Without it, or with -, jsonl and csv are printed; other formats get a "
        "file with the run's name in this directory",
    )
    verb.add_argument(
        "--endpoint",
        metavar="URL",
        help="otlp: send the spans there, as to http://localhost:4318; OTEL_EXPORTER_OTLP_HEADERS in "
        "the environment adds headers, such as a token",
    )
    verb.add_argument(
        "--follow", action="store_true", help="otlp: go on with what a live run adds, until it ends"
    )
    verb.add_argument("--pixels", action="store_true", help="jsonl: with the pictures' pixels")


def add_diff(verb: argparse.ArgumentParser) -> None:
    """The options of `flowrun log diff`."""
    verb.description = (
        "Show the first message in which two runs differ. The exit status is 1 if one does, else 0. "
        "Measurements such as a latency, log lines and step tables are not compared."
    )
    verb.add_argument("path", metavar="A", help="a run's directory, or one .mcap file of it")
    verb.add_argument("other", metavar="B", help="the other one")
    verb.add_argument(
        "--times",
        action="store_true",
        help="compare times too; those of two live runs always differ",
    )


def bounds(log: Log, first: str | None, last: str | None) -> Bounds:
    """The keyword arguments of `Log.messages` that `--from` and `--to` mean."""
    start, start_ns = _bound(log, "--from", first)
    end, end_ns = _bound(log, "--to", last)
    for begin, finish in ((start, end), (start_ns, end_ns)):
        if begin is not None and finish is not None and finish < begin:
            raise UsageError(f"--to {last} is before --from {first}")
    return {
        "start": start,
        "end": None if end is None else end + 1,
        "start_ns": start_ns,
        "end_ns": None if end_ns is None else end_ns + 1,
    }


def _bound(log: Log, option: str, value: str | None) -> tuple[int | None, int | None]:
    return (None, None) if value is None else moment(log, option, value)


def export(args: argparse.Namespace) -> int:
    """0 if everything selected could be read and written, 1 if not."""
    from flowrun.runtime.atomic import whole_file
    from flowrun.runtime.export.selection import Selection

    kind, last = _format(args.to, args.output)
    if args.pixels and kind != "jsonl":
        raise UsageError("--pixels is for --to jsonl")
    for option in ("endpoint", "follow"):
        if getattr(args, option) and kind != "otlp":
            raise UsageError(f"--{option} is for --to otlp")
    if args.endpoint is not None and args.output is not None:
        raise UsageError("--endpoint and -o: choose one")
    with Log(args.path, follow=args.follow) as log:
        limits = bounds(log, args.first, last)
        first = log.cycles(start=limits["start"], start_ns=limits["start_ns"])
        if args.first is not None and not args.follow and next(first, None) is None:
            raise UsageError(f"--from {args.first} is after the last cycle of the log")
        topics = None if args.topic is None else tuple(args.topic)
        output = args.output
        if output == Path("-"):
            if kind not in _TEXTS:
                raise UsageError(f"-o -: {kind} is not printed; give a file")
            output = None
        elif output is None and kind not in _TEXTS and args.endpoint is None:
            name = log.path.absolute()
            output = Path((name.stem if name.is_file() else name.name) + _SUFFIXES[kind])
        if args.endpoint is not None:
            report = _send(log, Selection(topics, limits), args.endpoint)
            print_text(f"sent {counted(report.count, 'span')}")
        elif output is None:
            selection = Selection(topics, limits)
            report = _write_text(log, selection, Escaping(sys.stdout), kind, args)
        else:
            if output.exists() and any(output.samefile(slab.path) for slab in log.slabs):
                raise UsageError(f"-o {output} is a file of this log; choose another name")
            with whole_file(output) as part, by_time(log, "export") as read:
                selection = Selection(topics, limits, read)
                report = _write(log, selection, part, kind, args)
        loss = log.loss
    for note in report.notes:
        print_text(one_line(f"note: {note}"), file=sys.stderr)
    if report.unreadable:
        unreadable = counted(report.unreadable, "message")
        print_text(f"flowrun log: {unreadable} cannot be decoded", file=sys.stderr)
    if loss is not None:
        print_text(f"flowrun log: not all could be read: {loss}", file=sys.stderr)
    if output is not None and output.is_file():
        size = output.stat().st_size
        print_text(
            f"{output}: {counted(report.count, _COUNTED.get(kind, 'message'))}, {size:,} bytes"
        )
    return 1 if loss is not None or report.unreadable else 0


def _format(values: list[str], output: Path | None) -> tuple[str, str | None]:
    """The format, and where to end: `--to` gives either, depending on its value."""
    kinds = [value for value in values if value in _SUFFIXES]
    ends = [value for value in values if value not in _SUFFIXES]
    if len(kinds) > 1 or len(ends) > 1:
        twice = kinds if len(kinds) > 1 else ends
        raise UsageError(f"--to {twice[0]!r} and --to {twice[1]!r}: choose one")
    if ends and ends[0] in _DATA_SETS:
        raise UsageError(
            f"--to {ends[0]}: a data set is written by flowrun dataset RUN --to {ends[0]} -o DIR"
        )
    if ends and not ends[0].startswith(("+", *"0123456789")):
        raise UsageError(
            f"--to {ends[0]!r}: expected one of {', '.join(_SUFFIXES)}, or where to end: {MOMENT}"
        )
    if not kinds and output is not None:
        named = output.name.endswith
        fitting = {kind: suffix for kind, suffix in _SUFFIXES.items() if named(suffix)}
        kinds = sorted(fitting, key=lambda kind: -len(fitting[kind]))[:1]
    if not kinds:
        raise UsageError(f"which format? choose one with --to: {', '.join(_SUFFIXES)}")
    return kinds[0], ends[0] if ends else None


def _write(
    log: Log, selection: Selection, path: Path, kind: str, args: argparse.Namespace
) -> ExportReport:
    if kind == "mp4":
        from flowrun.runtime.export.mp4 import export_mp4

        return export_mp4(log, selection, path)
    if kind == "mcap":
        from flowrun.runtime.export.mcap import export_mcap

        return export_mcap(log, selection, path)
    if kind == "foxglove":
        from flowrun.runtime.export.foxglove import export_foxglove

        return export_foxglove(log, selection, path)
    if kind == "rerun":
        from flowrun.runtime.export.rerun import export_rerun

        return export_rerun(log, selection, path)
    if kind == "parquet":
        from flowrun.runtime.export.text import export_parquet

        return export_parquet(log, selection, path)
    with path.open("w", encoding="utf-8", newline="") as stream:
        return _write_text(log, selection, stream, kind, args)


def _send(log: Log, selection: Selection, endpoint: str) -> ExportReport:
    """Send spans to a collector; while a followed run goes on, one that is away is waited for."""
    from flowrun.runtime.export.otlp import Collector, export_otlp

    reported: set[str] = set()

    def away(why: str) -> bool:
        if not log.is_written:
            return False
        if why not in reported:
            reported.add(why)
            print_text(one_line(f"{why}; trying again while the run goes on"), file=sys.stderr)
        return True

    return export_otlp(log, selection, Collector(endpoint, away=away if log.follow else None))


def _write_text(
    log: Log, selection: Selection, stream: Writable, kind: str, args: argparse.Namespace
) -> ExportReport:
    from flowrun.runtime.export.text import export_csv, export_jsonl

    if kind == "trace":
        from flowrun.runtime.export.trace import export_trace

        return export_trace(log, selection, stream)
    if kind == "otlp":
        from flowrun.runtime.export.otlp import JsonLines, export_otlp

        return export_otlp(log, selection, JsonLines(stream))
    if kind == "csv":
        return export_csv(log, selection, stream)
    return export_jsonl(log, selection, stream, pixels=args.pixels)


@contextmanager
def by_time(log: Log, what: str) -> Iterator[Callable[[int], None] | None]:
    """What to call with the time that reading `log` has reached; see `progress`."""
    start_ns, end_ns = log.start_ns, log.end_ns
    if start_ns is None or end_ns is None:
        yield None
        return
    with progress(what, end_ns - start_ns) as show:
        yield None if show is None else lambda time_ns: show(time_ns - start_ns)


def _diff_fleets(args: argparse.Namespace) -> int:
    """The same of each process of two fleets, run by run."""
    from flowrun.runtime.fleet.record import fleet_runs
    from flowrun.runtime.log.diff import compare_logs

    both = [
        [it for it in fleet_runs(Path(path)) if _holds_cycles(it.path)]
        for path in (args.path, args.other)
    ]
    differs = False
    for part in dict.fromkeys(it.part for it in (*both[0], *both[1])):
        ours, theirs = ([it for it in runs if it.part == part] for runs in both)
        if len(ours) != len(theirs):
            print_text(f"{part}: {len(ours)} and {len(theirs)} runs")
            differs = True
        for one, other in zip(ours, theirs, strict=False):
            with Log(one.path) as first, Log(other.path) as second:
                found = compare_logs(first, second, times=args.times)
                losses = [log.loss for log in (first, second) if log.loss is not None]
            print_text(f"{part}: {counted(found.identical, 'message')} identical", end="")
            print_text("" if found.difference is None else ", then a difference:")
            if found.difference is not None:
                print_text(found.difference.text(first=str(one.path), second=str(other.path)))
            for loss in losses:
                print_text(f"flowrun log: not all could be read: {loss}", file=sys.stderr)
            differs = differs or found.difference is not None or bool(losses)
    return int(differs)


def _holds_cycles(path: Path) -> bool:
    with Log(path, verify=False) as log:
        return next(log.cycles(), None) is not None


def diff(args: argparse.Namespace) -> int:
    """0 if no message differs, 1 if one does or not all could be read."""
    from flowrun.runtime.fleet.record import is_fleet
    from flowrun.runtime.log.diff import compare_logs

    if is_fleet(Path(args.path)) and is_fleet(Path(args.other)):
        return _diff_fleets(args)
    with Log(args.path) as first, Log(args.other) as second:
        with by_time(first, "compare") as read:
            found = compare_logs(first, second, times=args.times, progress=read)
        losses = [log.loss for log in (first, second) if log.loss is not None]
    for loss in losses:
        print_text(f"flowrun log: not all could be read: {loss}", file=sys.stderr)
    if found.difference is not None:
        print_text(f"{counted(found.identical, 'message')} identical, then a difference:")
        print_text(found.difference.text(first=args.path, second=args.other))
        return 1
    times = "times too" if args.times else "times not compared"
    print_text(f"{counted(found.identical, 'message')} identical ({times})")
    return 1 if losses else 0
