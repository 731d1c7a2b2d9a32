"""`flowrun top`: how the runs on this machine are doing, or one elsewhere."""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowrun.runtime.cli.announced import running
from flowrun.runtime.cli.board import (
    answer_line,
    board,
    cells,
    fleet_lines,
    link_lines,
    status_line,
    troubles,
)
from flowrun.runtime.cli.shape import fits
from flowrun.runtime.cli.signals import Ended
from flowrun.runtime.cli.terminal import can_draw
from flowrun.runtime.errors import FlowrunError, UsageError
from flowrun.runtime.printing import print_table, print_text
from flowrun.runtime.wording import described, listed, one_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from flowrun.runtime.links.status import PartStatus
    from flowrun.runtime.run.report import RunReport

__all__ = ["add_parser", "run"]

_EVERY_S = 1.0
_TIMEOUT_S = 5.0
_UNIX = "unix:"
_REPORT = {
    "id": str,
    "status": (str, {"Error": str}),
    "cycles": int,
    "tasks": dict,
    "last_answer": ({"timestamp_nanos": object}, None),
}
"""What is read of a report before it is known to be one of this version."""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "top",
        description="Show how a run is doing while it runs: how often each task publishes, how long it "
        "takes, what it dropped and raised, how its sources are, how large its log is.",
    )
    parser.add_argument(
        "which",
        nargs="?",
        metavar="RUN",
        help="a run's directory, a graph's name, the URL of a run's page or its port (all runs that "
        "you have on this machine)",
    )
    parser.add_argument("--once", action="store_true", help="print it once, as without a terminal")
    parser.add_argument("--json", action="store_true", help="print it once, as JSON")
    parser.add_argument(
        "--token",
        help="what the page's server asks for; FLOWRUN_TOKEN in the environment if not given",
    )


def run(args: argparse.Namespace) -> int:
    """0; 1 if there is no such run, or its server does not answer."""
    look = _looking(args.which, args.token)
    seen = look()
    if args.json:
        reports = [{"where": it.where, **it.report} for it in seen]
        print_text(json.dumps(reports if args.which is None else reports[0], indent=2))
    elif args.once or not can_draw():
        for it in seen:
            _print(it)
        for name, lines in _fleets(seen):
            print_text(f"fleet {name}: {lines[0]}")
            for line in lines[1:]:
                print_text(line)
    else:
        try:
            _watch(look)
        except Ended as ended:
            if ended.number != signal.SIGINT:
                raise
    return 0


class NotRunningError(FlowrunError):
    """No such run goes on."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A run at one moment.

    where: its page, or its log, for people.
    report: as `/api/v0/report` gives it.
    """

    where: str
    report: dict[str, Any]

    @property
    def state(self) -> str:
        status = self.report["status"]
        return status if isinstance(status, str) else one_line(f"Error: {status['Error']}")


Look = Callable[[], list[_Seen]]
"""What is to be seen now. `NotRunningError` if that is nothing."""


def _looking(which: str | None, token: str | None) -> Look:
    if which is None or not (which.startswith(_UNIX) or "://" in which or which.isdecimal()):
        return lambda: _local(which)
    token = os.environ.get("FLOWRUN_TOKEN") if token is None else token
    return _remote(f"http://127.0.0.1:{which}/" if which.isdecimal() else which, token)


def _local(which: str | None) -> list[_Seen]:
    found = running()
    if which is None:
        chosen = found
        if not found:
            raise NotRunningError(
                "no run of yours goes on on this machine; of one elsewhere: flowrun top URL"
            )
    else:
        wanted = Path(which).absolute()
        chosen = [it for it in found if it.directory == wanted or it.report["id"] == which]
    if not chosen:
        names = [f"{it.report['id']} ({it.directory or 'no log'})" for it in found]
        raise NotRunningError(
            f"{described(which)} does not run on this machine; what does: {listed(names)}"
        )
    return [_Seen(it.url or str(it.directory or f"process {it.pid}"), it.report) for it in chosen]


def _remote(url: str, token: str | None) -> Look:
    import httpx

    uds = url.removeprefix(_UNIX).partition("?")[0] if url.startswith(_UNIX) else None
    try:
        given = httpx.URL(url)
        token = given.params.get("token", token)
        shown = str(given.copy_with(query=None, fragment=None))
        page = given if uds is None else httpx.URL("http://localhost/")
        path = page.path.rstrip("/") + "/api/v0/report"
        address = page.copy_with(path=path, query=None, fragment=None)
    except httpx.InvalidURL as error:
        raise UsageError(f"{described(url)} is no URL: {error}") from None
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def look() -> list[_Seen]:
        transport = None if uds is None else httpx.HTTPTransport(uds=uds)
        try:
            with httpx.Client(
                transport=transport,
                headers=headers,
                timeout=_TIMEOUT_S,
                trust_env=False,
                verify=address.scheme == "https",
            ) as client:
                reply = client.get(address)
            found = reply.json()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NotRunningError(f"{shown}: nobody answers: {error}") from None
        except (ValueError, RecursionError):
            raise NotRunningError(f"{shown}: what answers is not flowrun") from None
        if reply.status_code == httpx.codes.UNAUTHORIZED:
            raise NotRunningError(
                f"{shown}: its server asks for a token: give --token, or set FLOWRUN_TOKEN"
            )
        if not fits(found, _REPORT):
            why = found["error"] if fits(found, {"error": str}) else "what answers is not flowrun"
            raise NotRunningError(f"{shown}: {why}")
        return [_Seen(shown, found)]

    return look


def _watch(look: Look) -> None:
    """Show it until all have ended."""
    from rich.console import Console, Group
    from rich.live import Live

    console = Console(highlight=False)
    seen: list[_Seen] = []
    with Live(console=console, auto_refresh=False) as live:
        while True:
            try:
                seen = look()
            except NotRunningError:
                seen = [replace(it, report={**it.report, "status": "ended"}) for it in seen]
            parts = [part for it in seen for part in _board(it, width=console.width)]
            parts += [line for it in _fleets(seen) for line in _fleet_board(*it)]
            live.update(Group(*parts), refresh=True)
            if all(it.report["status"] != "Running" for it in seen):
                return
            time.sleep(_EVERY_S)


def _fleets(seen: list[_Seen]) -> list[tuple[str, list[str]]]:
    """Each graph of several processes, once, and the lines about it: as that one of its processes says
    it which knows most."""
    best: dict[str, Sequence[PartStatus]] = {}
    for it in seen:
        fleet, known = _report(it).fleet, best.get(it.report["id"], ())
        if sum(map(_is_known, fleet)) > sum(map(_is_known, known)):
            best[it.report["id"]] = fleet
    return [(name, fleet_lines(fleet)) for name, fleet in best.items()]


def _is_known(part: PartStatus) -> bool:
    return part.state not in ("unknown", "gone")


def _fleet_board(name: str, lines: list[str]) -> list[RenderableType]:
    from rich.text import Text

    head = Text(f"fleet {name}: {lines[0]}", style="bold")
    found = [head, *map(Text, lines[1:])]
    for line in found:
        line.no_wrap, line.overflow = True, "ellipsis"
    return list(found)


def _name(seen: _Seen) -> str:
    """The run's graph, and which process of it where there are several."""
    part = seen.report.get("part")
    return f"{seen.report['id']} {part}" if part else str(seen.report["id"])


def _board(seen: _Seen, *, width: int) -> list[RenderableType]:
    from rich.text import Text

    report = _report(seen)
    title = f"{_name(seen)}: {seen.state}  "
    lines = [Text.assemble((one_line(title), "bold"), (one_line(seen.where), "dim"))]
    if report.last_answer is not None:
        lines.append(Text(f"  {answer_line(report.last_answer)}"))
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return [lines[0], *board(report, width=width), *lines[1:]]


def _print(seen: _Seen) -> None:
    """A line about the run, one about each trouble, and one about each task: for grep and awk."""
    report = _report(seen)
    print_text(f"{_name(seen)}: {seen.state}  {seen.where}")
    print_text(f"  {status_line(report)}")
    for trouble in troubles(report):
        print_text(f"  {trouble}")
    for line in link_lines(report):
        print_text(f"  {line}")
    if report.last_answer is not None:
        print_text(f"  {answer_line(report.last_answer)}")
    rows = [{"task": id_, **cells(task)} for id_, task in report.tasks.items()]
    names = tuple(rows[0]) if rows else ()
    print_table(names, [tuple(row[name] for name in names) for row in rows])


def _report(seen: _Seen) -> RunReport:
    """What it is for those who show it. `NotRunningError` if it is of another version of flowrun."""
    from pydantic import TypeAdapter, ValidationError

    from flowrun.runtime.run.report import RunReport

    found = dict(seen.report)
    if (answer := found["last_answer"]) is not None:
        found["last_answer"] = {"tokens": 0, **answer, "tov_ns": answer["timestamp_nanos"]}
    try:
        return TypeAdapter(RunReport).validate_python(found)
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, it["loc"])) for it in error.errors())
        raise NotRunningError(
            f"{seen.where}: another version of flowrun runs there, whose report is another: {wrong}"
        ) from None
