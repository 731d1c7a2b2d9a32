"""`flowrun log`: look into a recorded run, check it, finish one that was cut off."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flowrun.runtime.cli.log_export import (
    WHERE,
    add_diff,
    add_export,
    bounds,
    by_time,
    diff,
    export,
)
from flowrun.runtime.cli.progress import progress
from flowrun.runtime.cli.signals import exit_status
from flowrun.runtime.errors import LogError
from flowrun.runtime.log.reader import Log, LogMessage
from flowrun.runtime.printing import print_table, print_text
from flowrun.runtime.wording import counted, one_line

__all__ = ["add_parser", "run"]

_NS = 1_000_000_000


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `log` and its verbs to the command line."""
    parser = subparsers.add_parser("log")
    verbs = parser.add_subparsers(dest="log_verb", metavar="VERB", required=True)

    info = verbs.add_parser("info", help="what ran, when, how it ended, and the files")
    topics = verbs.add_parser("ls", help="the topics, with counts and rates")
    stats = verbs.add_parser(
        "stats", help="latencies of tasks and from source to sink, bandwidth, memory"
    )
    cat = verbs.add_parser("cat", help="the messages, one a line")
    check = verbs.add_parser("check", help="read every byte, and list what is wrong")
    recover = verbs.add_parser("recover", help="finish a run whose writer was cut off, in place")
    export = verbs.add_parser(
        "export", help="write it for other programs: tables, films, Foxglove, Rerun, ..."
    )
    diff = verbs.add_parser("diff", help="the first message in which two runs differ")
    shadows = verbs.add_parser(
        "shadows", help="where shadows said something else than the tasks whose shadows they are"
    )
    add_diff(diff)
    for verb in (info, topics, stats, cat, recover, export, shadows):
        verb.add_argument("path", metavar="RUN", help="a run's directory, or one .mcap file of it")
    check.add_argument(
        "path",
        metavar="RUN",
        help="a run's directory, one .mcap file of it, or a folder of runs, such as a fleet's",
    )
    for verb in (info, topics, stats, cat, shadows):
        verb.add_argument("--json", action="store_true", help="print JSON")
    cat.add_argument(
        "--topic", action="append", metavar="TOPIC", help="only this topic; may be given again"
    )
    cat.add_argument("--from", dest="first", metavar="WHERE", help=f"begin here: {WHERE}")
    cat.add_argument("--to", dest="last", metavar="WHERE", help="end here, this cycle included")
    cat.add_argument(
        "--follow", action="store_true", help="wait for what a live run adds, until it ends"
    )
    check.add_argument(
        "--fast", action="store_true", help="do not decode pictures to compare their pixels"
    )
    add_export(export)


def run(args: argparse.Namespace) -> int:
    verb = {
        "info": _info,
        "ls": _ls,
        "stats": _stats,
        "cat": _cat,
        "check": _check,
        "recover": _recover,
        "export": export,
        "diff": diff,
        "shadows": _shadows,
    }
    return verb[args.log_verb](args)


def _info(args: argparse.Namespace) -> int:
    with Log(args.path) as log:
        start_ns, end_ns = log.start_ns, log.end_ns
        described: dict[str, Any] = {
            "path": str(log.path),
            **log.metadata,
            "finished": log.finished,
            "end": log.end,
            "cycles": len(log),
            "start": None if start_ns is None else _time(start_ns),
            "duration_s": 0.0 if start_ns is None or end_ns is None else (end_ns - start_ns) / _NS,
            "topics": len(log.topics),
            "attachments": {name: len(data) for name, data in log.attachments.items()},
            "files": {slab.path.name: slab.size for slab in log.slabs},
            "loss": log.loss,
        }
    if args.json:
        print_text(json.dumps(described, indent=2))
        return 0
    rows: list[tuple[str, ...]] = []
    for name, value in described.items():
        if isinstance(value, dict):
            rows += [(f"{name} {key}", _text(item)) for key, item in value.items()]
        elif value is not None:
            rows.append((name, _text(value)))
    print_table(("", ""), rows)
    return 0


def _ls(args: argparse.Namespace) -> int:
    with Log(args.path) as log:
        counts = dict.fromkeys(log.topics, 0)
        sizes = dict.fromkeys(log.topics, 0)
        for message in log.messages():
            counts[message.topic] += 1
            sizes[message.topic] += len(message.payload)
        start_ns, end_ns = log.start_ns, log.end_ns
        seconds = 0 if start_ns is None or end_ns is None else (end_ns - start_ns) / _NS
        rows = [
            {
                "topic": topic.name,
                "messages": counts[topic.name],
                "rate_hz": round((counts[topic.name] - 1) / seconds, 3)
                if seconds > 0 and counts[topic.name] > 1
                else None,
                "bytes": sizes[topic.name],
                "type": topic.schema_name,
                "encoding": topic.message_encoding,
            }
            for topic in log.topics.values()
        ]
        loss = log.loss
    if args.json:
        print_text(json.dumps(rows, indent=2))
    else:
        names = ("topic", "messages", "rate_hz", "bytes", "type", "encoding")
        print_table(names, [tuple(_text(row[name]) for name in names) for row in rows])
    return _say_loss(loss)


def _stats(args: argparse.Namespace) -> int:
    from flowrun.runtime.cli.log_stats import print_stats
    from flowrun.runtime.recorded.stats import run_stats

    with Log(args.path) as log:
        with by_time(log, "stats") as read:
            stats = run_stats(log, read)
        loss = log.loss
    if args.json:
        print_text(json.dumps(asdict(stats) | {"loss": loss}, indent=2))
    else:
        print_stats(stats)
    return _say_loss(loss)


def _cat(args: argparse.Namespace) -> int:
    with Log(args.path, follow=args.follow) as log:
        undecoded = False
        for message in log.messages(args.topic, **bounds(log, args.first, args.last)):
            try:
                fields = message.outline
            except LogError as error:
                undecoded = True
                fields = {"error": str(error)}
            line = _json_line(message, fields) if args.json else _line(message, fields)
            print_text(line, flush=args.follow)
        loss = log.loss
    return _say_loss(loss) or int(undecoded)


def _check(args: argparse.Namespace) -> int:
    from flowrun.runtime.testbench.folders import find_runs

    path = Path(args.path)
    runs = find_runs([path]) if path.is_dir() else [path]
    if runs == [path]:
        return int(_has_problems(args.path, pictures=not args.fast))
    wrong = 0
    for run in runs:
        try:
            wrong += _has_problems(run, pictures=not args.fast)
        except LogError as error:
            print_text(one_line(str(error)))
            wrong += 1
    print_text(f"{args.path}: {counted(len(runs), 'run')}, {wrong} with problems")
    return int(wrong > 0)


def _has_problems(run: str | Path, *, pictures: bool) -> bool:
    from flowrun.runtime.log.check import check_log

    notes: list[str] = []
    with Log(run) as log:
        with by_time(log, "check") as read:
            cycles, messages, problems = check_log(
                log, pictures=pictures, progress=read, note=notes.append
            )
        finished = log.finished
    for note in notes:
        print_text(one_line(f"note: {note}"))
    for problem in problems:
        print_text(one_line(str(problem)))
    state = "" if finished else ", not finished: being written, or cut off (flowrun log recover)"
    print_text(
        f"{run}: {counted(cycles, 'cycle')}, {counted(messages, 'message')}, "
        f"{counted(len(problems), 'problem')}{state}"
    )
    return bool(problems)


def _shadows(args: argparse.Namespace) -> int:
    """0 if all could be read, whether or not they disagree."""
    from flowrun.runtime.log.shadows import compared

    with Log(args.path) as log:
        found = compared(log)
        loss = log.loss
    if args.json:
        shown = [{**asdict(it), "unanswered": it.unanswered} for it in found]
        print_text(json.dumps(shown, ensure_ascii=False, indent=2))
        return _say_loss(loss)
    for it in found:
        if it.disagreed:
            rows = [(str(two.frame_cycle), two.said, two.shadow_said) for two in it.disagreed]
            print_table(("frame", it.of, it.shadow), [tuple(map(one_line, row)) for row in rows])
        print_text(
            f"{it.shadow} disagrees with {it.of} about {len(it.disagreed):,} of "
            f"{it.compared:,} frames"
        )
        others = {**it.left_out, "not answered when the run ended": it.unanswered}
        why = [f"{count:,} {one_line(cause)}" for cause, count in others.items() if count]
        if why:
            lacking = it.answered - it.compared
            print_text(f"{it.of} answered about {lacking:,} more: {', '.join(why)}")
    if not found:
        print_text("no task of the run has a shadow")
    return _say_loss(loss)


def _recover(args: argparse.Namespace) -> int:
    from flowrun.runtime.log.recover import recover

    try:
        with progress("recover", 1) as show:
            report = recover(args.path, progress=show)
    except KeyboardInterrupt as interrupt:
        print_text(f"interrupted: {args.path} can be recovered again", file=sys.stderr)
        return exit_status(interrupt)
    print_text(report)
    return _make_clips(Path(args.path))


def _make_clips(run: Path) -> int:
    """Make the clips of alerts that the run was killed over; 1 if that fails."""
    from flowrun.runtime.export.cases import make_missing

    failed = 0
    for made in make_missing(run) if run.is_dir() else ():
        failed |= isinstance(made, str)
        print_text(f"no clip: {made}" if isinstance(made, str) else f"made the clip {made}")
    return failed


def _say_loss(loss: str | None) -> int:
    if loss is None:
        return 0
    print_text(f"flowrun log: not all could be read: {loss}", file=sys.stderr)
    return 1


def _line(message: LogMessage, fields: dict[str, Any]) -> str:
    shown = " ".join(f"{name}={_value(value)}" for name, value in fields.items())
    return one_line(f"{_time(message.time_ns)} {message.cycle} {message.topic} {shown}")


def _json_line(message: LogMessage, fields: dict[str, Any]) -> str:
    return json.dumps(
        {
            "cycle": message.cycle,
            "time_ns": message.time_ns,
            "tov_ns": message.tov_ns,
            "topic": message.topic,
            "fields": fields,
        },
        default=_value,
        ensure_ascii=False,
    )


def _value(value: Any) -> str:
    """A field's value on a line: of arrays and bytes, only the size."""
    if hasattr(value, "dtype"):
        return f"<{value.dtype} {'x'.join(map(str, value.shape))}>"
    if isinstance(value, (bytes, memoryview)):
        return f"<{len(value)} bytes>"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # quoted, on one line
    return json.dumps(value, default=_value, ensure_ascii=False)


def _time(time_ns: int) -> str:
    seconds, nanos = divmod(time_ns, _NS)
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{time_ns}ns"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
