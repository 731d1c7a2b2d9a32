"""`flowrun replay RUN`: run a recorded log again, and compare every message."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowrun.runtime.atomic import require_place
from flowrun.runtime.cli.remote import fetched, run_argument
from flowrun.runtime.errors import TaskError, UntrustedRun, UsageError
from flowrun.runtime.printing import print_text
from flowrun.runtime.wording import counted, not_given_back, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowrun.runtime.log.reader import Log
    from flowrun.runtime.replay.replay import Replay, ReplayReport

__all__ = [
    "add_choices",
    "add_options",
    "add_parser",
    "add_tolerance",
    "how_to_trust",
    "pace_of",
    "prepare",
    "run",
    "values_of",
]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "replay",
        description="Run a recorded log again. Sources, times, control messages and the cycles in "
        "which background results appear come from the log; all else is computed again and compared "
        "byte for byte. The exit status is 1 if a message differs, or a picture is not given back.",
    )
    add_options(parser)
    parser.add_argument(
        "--partial",
        action="store_true",
        help="of a fleet's folder: replay what there is, though logs of other partitions are missing",
    )
    where = _where()
    parser.add_argument("--from", dest="first", metavar="WHERE", help=f"begin here: {where}")
    parser.add_argument("--to", dest="last", metavar="WHERE", help="end here, this cycle included")
    parser.add_argument(
        "--speed",
        default="max",
        metavar="N",
        help="max (as fast as possible), 1 (as fast as it was recorded), or N times as fast",
    )
    add_tolerance(parser)
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write every message that differs, with its picture, as a page (.html) or as .json",
    )
    parser.add_argument(
        "--log-dir", type=Path, metavar="DIR", help="write a run of its own into this new directory"
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="TASK.KIND=WHICH",
        dest="faults",
        help="let messages of TASK be left out (drop=5%%@SEED, drop=12,30..40), come late (delay=2s, "
        "delay=3:5%%), be repeated (repeat=5%%), or end (stop=100), and see whether a task raises an "
        "error; then find the fewest that do it (may be repeated)",
    )
    parser.add_argument(
        "--loop",
        action="store_true",
        help="again and again until Ctrl-C, each time with the code as it is on the disk then; says how "
        "a turn differs, and counts",
    )
    parser.add_argument(
        "--no-keyframes",
        action="store_true",
        help="for --from: run all earlier cycles instead of beginning at a keyframe",
    )
    parser.add_argument(
        "--verify-keyframes",
        action="store_true",
        help="begin at some of the keyframes, and name tasks that forget something",
    )
    parser.add_argument(
        "--verify-count", type=int, default=10, metavar="N", help="number of them (10)"
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what to run again; `prepare` takes them."""
    parser.add_argument(
        "run",
        type=run_argument,
        metavar="RUN",
        help="the run's directory, or a slab of it; or the address of a server, or of a moment there "
        "(http://box:3000/?run=ID&cycle=N): the newest cycles, or those around that one, are fetched",
    )
    parser.add_argument(
        "--token",
        help="what that server asks for; FLOWRUN_TOKEN in the environment if not given",
    )
    parser.add_argument(
        "graph", type=Path, nargs="?", metavar="GRAPH", help="another graph file than the recorded"
    )
    parser.add_argument("--graph", type=Path, dest="graph_option", help=argparse.SUPPRESS)
    add_choices(parser)
    parser.add_argument(
        "--trust",
        action="store_true",
        help="run the code and the commands that the recorded graph names, though somebody else may "
        "have recorded it",
    )
    parser.add_argument(
        "--debug-messages",
        action="store_true",
        help="find tasks that change a message after it was published, or keep an input (slow)",
    )
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="show what the tasks log, and the whole traceback of a task's error",
    )


def add_choices(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which tasks run, and with which values; `values_of` reads these."""
    parser.add_argument(
        "--task",
        action="append",
        metavar="TASK",
        dest="only",
        help="run only TASK, feed all others from the log (may be repeated)",
    )
    parser.add_argument(
        "--feed",
        action="append",
        default=[],
        metavar="TASK",
        help="do not run TASK; take its messages from the log (may be repeated)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="TASK.KEY=VALUE",
        dest="values",
        help="use this config value instead of the recorded one, from beginning to end (may be "
        "repeated); the logs and reports of the replay show what you type here",
    )


def add_tolerance(parser: argparse.ArgumentParser) -> None:
    """Add the option that `Tolerance.parse` takes."""
    parser.add_argument(
        "--tolerance",
        action="append",
        default=[],
        metavar="MSG[.FIELD]=N",
        help="how far the numbers in such messages may be from the recorded ones, for models that "
        "are not bit-exact; MSG.FIELD=any leaves a field out (may be repeated)",
    )


def values_of(args: argparse.Namespace) -> dict[str, Any]:
    """What `--set` gives, by "task.key"."""
    return dict(map(_value, args.values))


def run(args: argparse.Namespace) -> int:
    """0 if all messages are identical, 1 if one differs or a picture is not given back."""
    from flowrun.runtime.graph.find import importable
    from flowrun.runtime.log.reader import Log

    pace = pace_of(args.speed)
    args.run = fetched(args.run, token=args.token)
    if args.run.is_dir():
        from flowrun.runtime.fleet.record import is_fleet

        if is_fleet(args.run):
            from flowrun.runtime.cli.replay_fleet import replay_fleet

            with _traceback_if(wanted=args.verbose):
                return replay_fleet(args)
    if args.partial:
        raise UsageError(f"--partial: {args.run} is the run of one process, and no fleet's folder")
    if args.faults:
        return _with_faults(args)
    if args.loop:
        return _loop(args)
    with _traceback_if(wanted=args.verbose), Log(args.run) as log:
        replay = prepare(args, log, tolerance=args.tolerance, keyframes=not args.no_keyframes)
        with importable(replay.plan.graph.spec.path.parent):
            if args.verify_keyframes:
                _refuse_with_verify(args)
                return _verify(replay, args.verify_count)
            report, took = _replay(args, log, replay, pace)
        loss = log.loss
    for note in ([loss] if loss else []) + replay.notes:
        print_text(one_line(f"note: {note}"))
    if report.recorded_error is not None:
        print_text(f"the recorded error came again: {report.recorded_error}")
    print_text(
        f"{counted(report.cycles, 'cycle')} in {took:.1f} s, {counted(report.fed, 'message')} fed from "
        "the log"
    )
    if report.tolerated:
        print_text(f"{report.tolerated:,} messages differ within the tolerance")
    if report.first is not None:
        errors = f" and {counted(report.errors, 'error')}" if report.errors else ""
        print_text(
            f"{report.differing:,} of {report.compared:,} messages{errors} differ; the first:"
        )
        print_text(report.first)
        return 1
    if report.errors:
        print_text(f"{counted(report.errors, 'error')} came again")
    if report.compared:
        same = report.compared - report.tolerated
        print_text(f"{counted(same, 'message')} identical" + _by_task(report.per_task))
        if report.bare:
            print_text(
                f"{report.bare:,} of them were logged without payload: compared is only whether and "
                "when they came"
            )
    else:
        print_text("nothing to compare: no task that ran published a logged message")
    if report.missing:
        print_text(f"{not_given_back(report.missing)}")
        return 1
    return 0


def _with_faults(args: argparse.Namespace) -> int:
    from flowrun.runtime.cli.replay_faults import replay_with_faults
    from flowrun.runtime.graph.find import importable
    from flowrun.runtime.log.reader import Log
    from flowrun.runtime.replay.faults import parse_fault

    others = {
        "--from": args.first,
        "--to": args.last,
        "--loop": args.loop or None,
        "--report": args.report,
        "--tolerance": args.tolerance or None,
        "--verify-keyframes": args.verify_keyframes or None,
    }
    given = [option for option, value in others.items() if value is not None]
    if given:
        raise UsageError(f"--fault cannot be combined with {given[0]}")
    faults = [parse_fault(text) for text in args.faults]
    with _traceback_if(wanted=args.verbose), Log(args.run) as log:
        first = prepare(args, log)
        with importable(first.plan.graph.spec.path.parent):
            return replay_with_faults(
                first,
                lambda: prepare(args, log),
                faults,
                run=args.run,
                config=values_of(args),
                log_dir=args.log_dir,
            )


def _loop(args: argparse.Namespace) -> int:
    from flowrun.runtime.cli.replay_loop import replay_again_and_again
    from flowrun.runtime.graph.find import importable
    from flowrun.runtime.log.reader import Log

    others = {"--report": args.report, "--log-dir": args.log_dir}
    given = [option for option, value in others.items() if value is not None]
    given += ["--verify-keyframes"] if args.verify_keyframes else []
    if given:
        raise UsageError(f"--loop cannot be combined with {given[0]}")
    with Log(args.run) as log:

        def turn() -> tuple[list[str], ReplayReport, float]:
            with _traceback_if(wanted=args.verbose):
                replay = prepare(
                    args, log, tolerance=args.tolerance, keyframes=not args.no_keyframes
                )
                with importable(replay.plan.graph.spec.path.parent):
                    report, took = _replay(args, log, replay, pace_of(args.speed))
            return [*([log.loss] if log.loss else []), *replay.notes], report, took

        return replay_again_and_again(turn)


@contextmanager
def _traceback_if(*, wanted: bool) -> Iterator[None]:
    """Show the whole traceback of a task's error before its one line."""
    try:
        yield
    except TaskError as error:
        if wanted and error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        raise


def prepare(
    args: argparse.Namespace,
    log: Log,
    *,
    tolerance: list[str] | None = None,
    keyframes: bool = True,
) -> Replay:
    """The replay that the options of `add_options` ask for. Lines that tasks log are shown with
    `--verbose` only."""
    from flowrun.runtime.replay.graph import graph_in_place_of
    from flowrun.runtime.replay.replay import Replay, Tolerance, recorded_graph
    from flowrun.runtime.run.log_lines import configure_logs, drop_logs

    if args.graph and args.graph_option:
        raise UsageError(f"two graphs: {args.graph} and --graph {args.graph_option}")
    path = args.graph or args.graph_option
    try:
        graph = (
            recorded_graph(log, os.environ, trust=args.trust)
            if path is None
            else graph_in_place_of(log, path, os.environ)
        )
    except UntrustedRun as error:
        raise UsageError(how_to_trust(args, error)) from None
    if args.verbose:
        configure_logs(now_ns=time.time_ns, secrets=graph.secrets)
    else:
        drop_logs()
    return Replay(
        log,
        graph=graph,
        feed=args.feed,
        only=args.only,
        config=values_of(args),
        tolerance=Tolerance.parse(tolerance or []),
        keyframes=keyframes,
        env=os.environ,
        debug_messages=args.debug_messages,
    )


def how_to_trust(args: argparse.Namespace, error: UntrustedRun) -> str:
    command = f"flowrun {args.verb} {shlex.quote(str(args.run))}"
    would_run = "".join(f"\n  {item}" for item in error.would_run)
    return (
        f"{args.run}: {error.why}, so it may not be yours, and nothing that its graph names is run"
        + (f":{would_run}" if would_run else "")
        + f"\nto run it all the same: {command} --trust\n"
        f"to run a graph of your own on its sources: {command} GRAPH"
    )


def _replay(
    args: argparse.Namespace, log: Log, replay: Replay, pace: Callable[[int], None] | None
) -> tuple[ReplayReport, float]:
    from flowrun.runtime.cli.moments import first_cycle_at, last_cycle_at

    start = None if args.first is None else first_cycle_at(log, "--from", args.first)
    to = None if args.last is None else last_cycle_at(log, "--to", args.last)
    if start is not None and to is not None and to < start:
        raise UsageError(f"--to {args.last} is before --from {args.first}")
    differences = None
    if args.report is not None:
        from flowrun.runtime.replay.report import DifferenceReport

        require_place("--report", args.report, ".html", ".json")
        differences = DifferenceReport(replay)
    with ExitStack() as stack:
        recorder = None
        if args.log_dir is not None:
            from flowrun.runtime.replay.recorder import ReplayLog

            values = values_of(args)
            recorder = stack.enter_context(
                ReplayLog(replay, args.log_dir, config=values, now_ns=time.time_ns())
            )
        from flowrun.runtime.cli.progress import progress

        show = stack.enter_context(progress("replay", _cycles(replay, start, to)))
        begin = time.perf_counter()
        report = replay.run(start=start, to=to, progress=show, pace=pace, recorder=recorder)
        took = time.perf_counter() - begin
    if differences is not None:
        from flowrun.runtime.wording import mask_secrets

        secrets = replay.plan.graph.spec.secrets
        command = mask_secrets(shlex.join(["flowrun", *sys.argv[1:]]), secrets)
        differences.write(args.report, report, command=command)
    return report, took


def _cycles(replay: Replay, start: int | None, to: int | None) -> int:
    """Number of cycles to run, for a bar; 0 if stderr is not a terminal."""
    if not sys.stderr.isatty():
        return 0
    last = replay.last_cycle
    return max(0, (last if to is None else min(to, last)) - (start or 0) + 1)


def _refuse_with_verify(args: argparse.Namespace) -> None:
    others = {
        "--from": args.first,
        "--to": args.last,
        "--report": args.report,
        "--log-dir": args.log_dir,
        "--no-keyframes": args.no_keyframes or None,
    }
    given = [option for option, value in others.items() if value is not None]
    if given:
        raise UsageError(f"--verify-keyframes cannot be combined with {given[0]}")


def _verify(replay: Replay, count: int) -> int:
    from flowrun.runtime.cli.progress import progress
    from flowrun.runtime.replay.verify import verify_keyframes

    if count < 1:
        raise UsageError(f"--verify-count {count}: expected 1 or more")
    with progress("verify", 2 * _cycles(replay, None, None)) as show:
        found = verify_keyframes(replay, count=count, progress=show)
    for note in replay.notes:
        print_text(one_line(f"note: {note}"))
    for task, difference in found.unsteady.items():
        print_text(f"task {task!r} makes something else than was recorded even from the start:")
        print_text(f"  {difference}".replace("\n", "\n  "))
    for task, (cycle, difference) in found.forgetful.items():
        print_text(
            f"task {task!r} forgets something: run from the keyframe of cycle {cycle}, first in"
        )
        print_text(f"  {difference}".replace("\n", "\n  "))
    of = f" (of cycles {', '.join(map(str, found.verified))})" if found.verified else ""
    keyframes = counted(len(found.verified), "keyframe")
    print_text(f"{counted(found.cycles, 'cycle')} run from {keyframes}{of}")
    if found.refused:
        cycles = ", ".join(map(str, found.refused))
        print_text(
            f"{len(found.refused)} keyframes are refused, and cannot be verified: of cycles {cycles}"
        )
    for task, number in found.unfrozen.items():
        print_text(
            f"{counted(number, 'keyframe')} cannot be verified: freeze of task {task!r} failed in "
            "the run"
        )
    if found.forgetful or found.unsteady or found.refused or found.unfrozen:
        return 1
    print_text("no task forgets anything that its outputs depend on")
    return 0


def pace_of(speed: str) -> Callable[[int], None] | None:
    """What to call with a cycle's time to wait for it; None for no waiting."""
    if speed == "max":
        return None
    try:
        factor = float(speed.removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise UsageError(f"--speed {speed}: expected max, or a number above 0")
    begin: list[float] = []

    def wait(time_ns: int) -> None:
        now = time.monotonic()
        if not begin:
            begin.extend((now, time_ns / 1e9))
        time.sleep(max(0.0, begin[0] + (time_ns / 1e9 - begin[1]) / factor - now))

    return wait


def _where() -> str:
    from flowrun.runtime.cli.moments import MOMENT

    return MOMENT


def _value(text: str) -> tuple[str, Any]:
    """Key and value of `task.key=value`; the value is YAML, as in a graph file."""
    import yaml

    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text}: expected TASK.KEY=VALUE")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        return name, value


def _by_task(counts: dict[str, int]) -> str:
    return " (" + ", ".join(f"{task} {n:,}" for task, n in counts.items()) + ")" if counts else ""
