"""`flowrun up GRAPH`: all partitions of a graph on this machine, each in a process of its own."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flowrun.runtime.cli.choosing import add_mission, add_settings, seconds
from flowrun.runtime.cli.serving import add_listening, add_proxied
from flowrun.runtime.cli.signals import AsksFirst, listening
from flowrun.runtime.errors import UsageError
from flowrun.runtime.printing import print_if_read, print_text
from flowrun.runtime.wording import counted

if TYPE_CHECKING:
    from flowrun.runtime.fleet.local import Fleet
    from flowrun.runtime.graph.plan import Plan
    from flowrun.runtime.graph.spec import PartId

__all__ = ["add_parser", "run"]

DEFAULT_PORT = 3000
_LOOK_S = 0.2
_LAST_PORT = 65_535


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "up",
        description="Run all partitions of a graph on this machine, each in a process of its own, until "
        "their sources end or Ctrl-C. The addresses of the file are not used: they reach each other by "
        "free ports that nobody else on the network sees. Their logs go into one folder under runs/, of "
        "which `flowrun replay` runs all again.",
    )
    parser.add_argument("graph", type=Path, help="the graph file")
    add_mission(parser, "the first one")
    add_settings(parser)
    parser.add_argument(
        "--for",
        dest="duration",
        metavar="TIME",
        help="end after this time, such as 10s, 2m or 1h",
    )
    parser.add_argument(
        "--log-dir",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="where to make the fleet's own directory (runs)",
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const="auto",
        metavar="ADDRESS",
        help="have a Ray cluster say on which nodes they run (auto: the one of this machine): the graph "
        "and flowrun are at the same paths on all of them, and logs stay where they are written",
    )
    parser.add_argument(
        "--port",
        type=int,
        metavar="N",
        help="serve the page of the first partition that shows something there; its tab Fleet has all "
        "of them, and leads to the pages of others, which are at free ports; 0 picks one, -1 serves "
        f"nothing ({DEFAULT_PORT} where a task shows pictures or answers, else a free one)",
    )
    parser.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        help="serve that page on this Unix socket instead, which only you can open",
    )
    add_listening(parser)
    add_proxied(parser)


def run(args: argparse.Namespace) -> int:
    """0 if all ended well, 1 if one failed for good, 2 for a mistake in the graph or the options."""
    from flowrun.runtime.clock import monotonic_s
    from flowrun.runtime.fleet.local import Fleet
    from flowrun.runtime.fleet.record import write_fleet
    from flowrun.runtime.graph.find import importable
    from flowrun.runtime.graph.plan import load_plan, load_plans
    from flowrun.runtime.links.zenoh import require_zenoh
    from flowrun.runtime.log.directory import new_run_directory
    from flowrun.runtime.server.serve import token_for

    limit_s = None if args.duration is None else seconds("--for", args.duration)
    if args.socket is not None and args.port is not None:
        raise UsageError("--socket and --port: the page is served at one of them")
    if args.port is not None and not -1 <= args.port <= _LAST_PORT:
        raise UsageError(
            f"--port {args.port}: expected 1 to {_LAST_PORT}, 0 for free ones, or -1 for no page"
        )
    with importable(args.graph.parent):
        load_plans(args.graph, env=os.environ, settings=args.settings)
        plan = load_plan(args.graph, env=os.environ, mission=args.mission, settings=args.settings)
    graph = plan.graph.spec
    if not graph.partitions:
        raise UsageError(f"{args.graph} has no partitions; flowrun {args.graph} runs it")
    require_zenoh()
    placement = None
    if args.ray is not None:
        from flowrun.runtime.fleet.ray import RayPlacement

        os.environ.setdefault(
            "RAY_USAGE_STATS_ENABLED", "0"
        )  # Ray reports its use over the internet
        placement = RayPlacement(args.ray)
    showing = _showing(plan)
    port = args.port if args.port is not None else DEFAULT_PORT if showing else 0
    is_elsewhere = args.socket is not None or (args.ray is not None and port > 0)
    if port >= 0 and not is_elsewhere:
        port = _usable(args.host, port)
    ports = _ports(plan, showing, port)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    folder = new_run_directory(args.log_dir, f"{graph.name}-{stamp}")
    write_fleet(folder, graph)
    if placement is not None:
        placement.note_into(folder / "ray.log")
    first = next((part for part, it in ports.items() if it == port), None)
    token = token_for(
        os.environ.get("FLOWRUN_TOKEN") if args.token is None else args.token, args.host
    )
    if token is not None:
        os.environ["FLOWRUN_TOKEN"] = token  # a command line can be read by others
    given = [word for text in args.settings for word in ("--set", text)]
    given += ["--host", args.host, *(word for it in args.cors for word in ("--cors", it))]
    if args.mission is not None:
        given += ["--mission", args.mission]

    def options(part: PartId) -> Sequence[str]:
        place = ["--port", str(ports[part])]
        if part == first:
            if args.socket is not None:
                place = ["--socket", str(args.socket.absolute())]
            place += ["--root-path", args.root_path]
        return ["--plain", "--exit", "--told", *place, *given]

    fleet = Fleet(graph, folder, options=options, say=print_if_read, placement=placement)
    ending = AsksFirst()
    until_s = None if limit_s is None else monotonic_s() + limit_s
    with listening(ending):
        fleet.start()
        is_shown = port < 0 or args.socket is not None
        while not fleet.wait(_LOOK_S):
            if not is_shown and _answers(args.host, port):
                is_shown = True
                print_if_read(f"page of all partitions: {_url(args.host, port, token)}")
            if ending.asked.is_set():
                print_if_read(f"{ending.name}: stopping, senders first")
                break
            if until_s is not None and monotonic_s() > until_s:
                print_if_read(f"the limit of {args.duration}: stopping, senders first")
                break
        fleet.stop()
    return _summary(fleet, folder)


def _usable(host: str, port: int) -> int:
    """`port`, or a free one for 0. `UsageError` where another program has it."""
    from flowrun.runtime.server.listening import listen

    with listen(host, port) as listener:
        found: int = listener.getsockname()[1]
        return found


def _answers(host: str, port: int) -> bool:
    import socket

    with contextlib.suppress(OSError), socket.create_connection((_here(host), port), _LOOK_S):
        return True
    return False


def _here(host: str) -> str:
    """Where a server that listens at `host` is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104


def _url(host: str, port: int, token: str | None) -> str:
    from urllib.parse import quote

    shown = f"[{_here(host)}]" if ":" in host else _here(host)
    asked = "" if token is None else f"?token={quote(token, safe='')}"
    return f"http://{shown}:{port}/{asked}#fleet"


def _showing(plan: Plan) -> set[str | None]:
    """The partitions with tasks that show pictures or answers."""
    return {
        task.spec.partition
        for task in plan.graph.tasks
        if task.task_class.shows in ("picture", "answer")
    }


def _ports(plan: Plan, showing: Collection[str | None], port: int) -> dict[PartId, int]:
    """Where each process serves its page; -1 for none. The first one of the partitions `showing` has
    `port`, the first one of all where there is none."""
    parts = [part for it in plan.graph.spec.partitions for part in it.parts]
    if port < 0:
        return dict.fromkeys(parts, -1)
    found = {part: 0 if part.partition in showing else -1 for part in parts}
    first = next((part for part in parts if found[part] == 0), parts[0])
    return {**found, first: port}


def _summary(fleet: Fleet, folder: Path) -> int:
    from flowrun.runtime.errors import LogError, LogNotFound
    from flowrun.runtime.fleet.record import fleet_runs

    print_text()
    unreadable: list[LogError] = []
    try:
        runs = fleet_runs(folder, unreadable=unreadable.append)
    except LogNotFound:
        print_text("no log is kept: nothing was recorded")
    except LogError:
        print_text(f"  logs:   {folder}")
    else:
        parts = dict.fromkeys(it.part for it in runs)
        print_text(
            f"  logs:   {folder}  ({counted(len(runs), 'run')} of "
            f"{counted(len(parts), 'partition')})"
        )
        print_text(f"  replay: flowrun replay {shlex.quote(str(folder))}")
    for error in unreadable:
        print_text(f"  note:   {error}")
    if not fleet.failed:
        return 0
    said = "\n".join(f"{part} failed: {why}" for part, why in fleet.failed.items())
    sys.stdout.flush()  # where both go into one pipe, the error is the last thing in it
    print_text(f"error: {said}", file=sys.stderr)
    return 1
