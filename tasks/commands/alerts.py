"""`flowrun alerts`: which alerts recorded runs would have raised, and clips of those that they did."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowrun.runtime.errors import UsageError
from flowrun.runtime.printing import print_table, print_text
from flowrun.runtime.wording import counted, one_line
from flowrun.tasks.commands.recorded import add_runs, shown_progress

if TYPE_CHECKING:
    from flowrun.tasks.rehearsal import Fired, Rehearsed, Wanted

__all__ = ["add_parser", "run"]


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "alerts",
    )
    inner = parser.add_subparsers(dest="alerts_verb", metavar="VERB", required=True)
    test = inner.add_parser(
        "test",
        help="which alerts recorded runs would have raised",
        description="Try alerts on recorded runs: those of each run's own graph, of another graph, or "
        "one condition. No model runs: what an alert reads is taken from the log. Example: flowrun "
        "alerts test runs/ --when \"count('person') > 2\" --hold-s 3",
    )
    add_runs(test)
    test.add_argument(
        "--graph",
        type=Path,
        metavar="GRAPH",
        help="the alerts of this graph, in place of the runs' own",
    )
    test.add_argument("--when", metavar="EXPR", help="this condition alone")
    test.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="INPUT=TASK.PORT",
        help="with --when: where an input comes from (the only output of its kind); may be repeated",
    )
    test.add_argument("--hold-s", type=float, metavar="S", help="with --when: as in a graph (0)")
    test.add_argument(
        "--cooldown-s", type=float, metavar="S", help="with --when: as in a graph (60)"
    )
    test.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="TASK.KEY=VALUE",
        dest="settings",
        help="with --graph: use this value instead of the file's; may be repeated",
    )
    test.add_argument("--mission", metavar="NAME", help="with --graph: the mission that is meant")
    test.add_argument(
        "--trust",
        action="store_true",
        help="run the functions that alerts of runs name which somebody else has recorded",
    )
    test.add_argument(
        "--processes", type=int, metavar="N", help="runs at the same time (all cores)"
    )
    test.add_argument("--json", action="store_true", help="print JSON")
    clips = inner.add_parser(
        "clips",
        help="make the clips that runs lack",
        description="Make the folders of alerts that ask for a clip where there are none, of what the "
        "log holds: of runs that were killed, or of which somebody has removed them.",
    )
    add_runs(clips)


def run(args: argparse.Namespace) -> int:
    """0 if all could be read and tried; 1 if not."""
    return _test(args) if args.alerts_verb == "test" else _clips(args)


def _clips(args: argparse.Namespace) -> int:
    from flowrun.runtime.export.cases import make_missing
    from flowrun.runtime.testbench.folders import find_runs

    failed = made = 0
    for path in find_runs(args.runs):
        for found in make_missing(path) if path.is_dir() else ():
            if isinstance(found, str):
                failed += 1
                print_text(one_line(f"{path}: no clip: {found}"), file=sys.stderr)
            else:
                made += 1
                print_text(one_line(str(found)))
    print_text(f"{counted(made, 'clip')} made")
    return 1 if failed else 0


def _test(args: argparse.Namespace) -> int:
    from flowrun.runtime.testbench.folders import find_runs
    from flowrun.runtime.testbench.spread import cores
    from flowrun.tasks.rehearsal import rehearse_all

    wanted = _wanted(args)
    runs = find_runs(args.runs)
    found = []
    with shown_progress("runs") as progress:
        processes = args.processes or min(cores(), len(runs))
        if progress is not None:
            progress(0, len(runs))
        for rehearsed in rehearse_all(runs, wanted, processes=max(1, processes)):
            found.append(rehearsed)
            if progress is not None:
                progress(len(found), len(runs))
    if all(it.elsewhere for it in found):  # no run of the fleet has it
        for it in found:
            it.problems.append(it.elsewhere)
    if args.json:
        print_text(json.dumps(_as_json(found), ensure_ascii=False, indent=2))
    else:
        _print(found, of_graph=args.when is None)
    return 1 if any(it.problems for it in found) else 0


def _wanted(args: argparse.Namespace) -> Wanted:
    """What is to be tried. `UsageError`, and the errors of a graph."""
    from flowrun.runtime.graph.plan import load_plan
    from flowrun.tasks.conditions.condition import Condition
    from flowrun.tasks.conditions.language import INPUTS, ConditionError
    from flowrun.tasks.rehearsal import WHEN, Wanted, rules_of
    from flowrun.tasks.rules import is_function

    for option, needed in _NEEDS.items():
        if getattr(args, option) and getattr(args, needed) is None:
            name = {"settings": "set"}.get(option, option).replace("_", "-")
            raise UsageError(f"--{name} is for --{needed}")
    if args.graph is not None and args.when is not None:
        raise UsageError("--graph and --when: choose one")
    if args.graph is not None:
        plan = load_plan(
            args.graph, env=os.environ, ready=False, mission=args.mission, settings=args.settings
        )
        rules = rules_of(plan)
        if not rules:
            raise UsageError(f"{args.graph}: the graph has no Alert")
        return Wanted(rules=rules)
    if args.when is None:
        return Wanted(trust=args.trust)
    if is_function(args.when):
        raise UsageError("--when takes a condition; name a function in a graph: --graph GRAPH")
    feeds = {}
    for given in args.input:
        name, is_given, output = given.partition("=")
        if name not in INPUTS or not is_given or not output:
            raise UsageError(
                f"--input {given}: expected INPUT=TASK.PORT, where INPUT is one of {', '.join(INPUTS)}"
            )
        feeds[name] = output
    config: dict[str, Any] = {WHEN: args.when}
    for key in ("hold_s", "cooldown_s"):
        if getattr(args, key) is not None:
            if not getattr(args, key) >= 0:
                raise UsageError(f"--{key.replace('_', '-')}: expected seconds, at least 0")
            config[key] = getattr(args, key)
    try:
        Condition(args.when)
    except ConditionError as error:
        raise UsageError(f"--when: {error}") from None
    return Wanted(when=config, feeds=feeds)


_NEEDS = {
    "input": "when", "hold_s": "when", "cooldown_s": "when", "settings": "graph", "mission": "graph",
}  # fmt: skip
"""Options, and the one without which each means nothing."""


def _as_json(found: Sequence[Rehearsed]) -> dict[str, Any]:
    return {
        "runs": [
            {"run": it.run, "messages": it.looked_at, "problems": it.problems} for it in found
        ],
        "alerts": [
            {"run": it.run, **asdict(fired), "at": _at(fired).isoformat(), "open": _link(it, fired)}
            for it in found
            for fired in it.fired
        ],
        "per_day": [
            {"day": day, "alert": task, **counts} for (day, task), counts in _per_day(found).items()
        ],
    }


def _print(found: Sequence[Rehearsed], *, of_graph: bool) -> None:
    """of_graph: whether the rules are those of a graph, which are compared with what was recorded."""
    rows = []
    for it in found:
        for fired in it.fired:
            values = ", ".join(f"{name} = {value}" for name, value in fired.values.items())
            rows.append(
                (
                    fired.change or "-",
                    fired.task,
                    f"{_at(fired):%Y-%m-%d %H:%M:%S}",
                    f"{it.run} --cycle {fired.cycle}",
                    one_line(values or fired.text),
                )
            )
    if rows:
        print_table(("", "alert", "when", "flowrun view", "values"), rows)
        print_text()
        days = _per_day(found)
        columns = ("raised", "recorded") if of_graph else ("raised",)
        print_table(
            ("day", "alert", *columns),
            [
                (day, task, *(str(counts[it]) for it in columns))
                for (day, task), counts in days.items()
            ],
        )
        print_text()
    changes = Counter(fired.change for it in found for fired in it.fired)
    raised = sum(changes.values()) - changes["gone"]
    looked_at = sum(it.looked_at for it in found)
    said = f"{counted(raised, 'alert')} in {counted(len(found), 'run')}, "
    said += f"of {counted(looked_at, 'message')}"
    if of_graph and changes[None] < sum(changes.values()):
        said += f": {changes['same']} as recorded, {changes['new']} new; {changes['gone']} gone"
    print_text(said)
    for it in found:
        for problem in it.problems:
            print_text(one_line(f"{it.run}: {problem}"), file=sys.stderr)


def _per_day(found: Sequence[Rehearsed]) -> dict[tuple[str, str], dict[str, int]]:
    """By day and alert, how many are raised, and how many were recorded."""
    days: dict[tuple[str, str], dict[str, int]] = {}
    for it in found:
        for fired in it.fired:
            key = f"{_at(fired):%Y-%m-%d}", fired.task
            counts = days.setdefault(key, {"raised": 0, "recorded": 0})
            counts["raised"] += fired.change != "gone"
            counts["recorded"] += fired.change in {"same", "gone"}
    return dict(sorted(days.items()))


def _at(fired: Fired) -> datetime:
    """When the frame was taken, in the time of this machine."""
    return datetime.fromtimestamp(fired.tov_ns / 1e9, UTC).astimezone()


def _link(rehearsed: Rehearsed, fired: Fired) -> str:
    return f"flowrun view {rehearsed.run} --cycle {fired.cycle}"
