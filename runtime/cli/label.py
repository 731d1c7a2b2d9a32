"""`flowrun label RUN CYCLE TASK`: say which recorded answers are wrong, and what is right."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from pathlib import Path
from typing import Any

from flowrun.runtime.errors import UsageError
from flowrun.runtime.printing import print_json, print_table, print_text
from flowrun.runtime.wording import counted, one_line

__all__ = ["add_parser", "run"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "label",
        description="Say of a recorded answer that it is right or wrong, and what is right; without "
        "CYCLE, list what was said. It is kept in labels.jsonl of the run's directory, which the page "
        "writes too.",
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="the run's directory, or a slab of it"
    )
    parser.add_argument(
        "cycle", type=int, nargs="?", metavar="CYCLE", help="the cycle of the answer"
    )
    parser.add_argument(
        "task",
        nargs="?",
        default="",
        metavar="TASK",
        help="whose answer; of several outputs TASK.PORT; the moment as a whole if not given",
    )
    said = parser.add_mutually_exclusive_group()
    said.add_argument("--right", action="store_true", help="the answer is right")
    said.add_argument("--wrong", action="store_true", help="it is wrong (the default)")
    said.add_argument("--undo", action="store_true", help="take back what was said of it")
    said.add_argument("--as", dest="label", metavar="WORD", help="a word of your own")
    parser.add_argument(
        "--expected",
        default="",
        metavar="VALUE",
        help="what is right; a text, or JSON for other values (a text in quotes)",
    )
    parser.add_argument(
        "--field",
        default="",
        metavar="FIELD",
        help="the field that VALUE is for (of an answer its text)",
    )
    parser.add_argument("--note", default="", metavar="TEXT", help="anything")
    parser.add_argument("--who", metavar="NAME", help="who says so (your login name)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """0; 1 if lines of the file are no labels."""
    from flowrun.runtime.log.reader import Log
    from flowrun.runtime.recorded.labels import labels_of
    from flowrun.runtime.recorded.run import RecordedRun

    if args.cycle is None:
        _refuse_without_cycle(args)
        with Log(args.run, verify=False) as log:
            run_id = log.metadata.get("run_id", "")
        labels, problems = labels_of(args.run, run_id)
        for problem in problems:
            print_text(one_line(f"left out: {problem}"), file=sys.stderr)
        if args.json:
            print_json([_as_map(it) for it in labels])
        else:
            _list(labels)
        return 1 if problems else 0
    if args.label == "":
        raise UsageError("--as: expected a word; --undo takes back what was said")
    recorded = RecordedRun(args.run.name, args.run)
    try:
        label = "right" if args.right else "" if args.undo else (args.label or "wrong")
        made = recorded.label(
            args.cycle,
            label,
            task=args.task,
            expected=_value(args.expected),
            field=args.field,
            note=args.note,
            who=_login() if args.who is None else args.who,
        )
    finally:
        recorded.close()
    if args.json:
        print_json(_as_map(made))
        return 0
    of = f"{made.task}: {made.answer}" if made.answer else made.task or "the moment"
    said = f"{made.label or 'taken back'}"
    right = f", right is {_text(made.expected)}" if made.expected != "" else ""
    print_text(one_line(f"cycle {made.cycle}, {of}: {said}{right}"))
    return 0


def _refuse_without_cycle(args: argparse.Namespace) -> None:
    given = [
        f"--{name}"
        for name, value in (
            ("right", args.right),
            ("wrong", args.wrong),
            ("undo", args.undo),
            ("as", args.label),
            ("expected", args.expected),
            ("field", args.field),
            ("note", args.note),
        )
        if value
    ]
    if given:
        raise UsageError(f"{given[0]}: name the cycle of the answer too")


def _list(labels: list[Any]) -> None:
    if not labels:
        print_text("no labels")
        return
    print_table(
        ("cycle", "task", "label", "answer", "right is", "who", "note"),
        [
            (
                str(it.cycle),
                it.task or "-",
                it.label,
                one_line(it.answer),
                one_line(_text(it.expected)),
                it.who,
                one_line(it.note),
            )
            for it in labels
        ],
    )
    print_text(counted(len(labels), "label"))


def _as_map(label: Any) -> dict[str, Any]:
    return {name: getattr(label, name) for name in type(label).__slots__}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _value(text: str) -> Any:
    """A value that was typed: JSON of numbers, lists, objects and texts in quotes; any other a text."""
    if text.lstrip()[:1] not in tuple('{["'):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
