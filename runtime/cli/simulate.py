"""`flowrun simulate GRAPH`: all partitions of a graph in one process, while a network fails by seeds."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from traceback import format_exception
from typing import TYPE_CHECKING

from flowrun.runtime.cli.choosing import add_mission, add_settings, seconds
from flowrun.runtime.errors import FlowrunError, UsageError
from flowrun.runtime.printing import print_text
from flowrun.runtime.wording import counted, listed

if TYPE_CHECKING:
    from flowrun.runtime.fleet.simulation.fleet import Simulation
    from flowrun.runtime.fleet.simulation.invariants import Verdict
    from flowrun.runtime.graph.plan import Plan
    from flowrun.runtime.graph.spec import GraphSpec, PartId
    from flowrun.runtime.log.reader import Log

__all__ = ["add_parser", "run"]

_FAULTS = "drop,dup,delay,flip,cut,kill,slow,skew"
_TRACEBACK = "traceback.txt"
_ATTEMPTS = 40
"""How often a seed that fails is run again to find out what it needs for that."""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "simulate",
        description="Run all partitions of a graph in this process, by a clock that is moved by hand, "
        "over a network that loses, repeats, delays and cuts, while processes are killed and come back: "
        "once for each seed. Afterwards each message must have come once and in order, as its link's "
        "`deliver` says, and the fleet must replay. A seed that fails is printed with the fewest "
        "mishaps that it needs, and gives the same logs again, byte for byte. Cameras and servers are "
        "not simulated: films, the test pattern, models of this process and `backend: stub` are. What "
        "acts outside, such as a webhook, is left out.",
    )
    parser.add_argument("graph", type=Path, help="the graph file")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seeds", type=int, default=100, metavar="N", help="how many seeds (100)")
    which.add_argument("--seed", type=int, metavar="K", help="seed K alone, and what happens in it")
    parser.add_argument(
        "--from", dest="first", type=int, default=0, metavar="K", help="the first (0)"
    )
    parser.add_argument(
        "--without",
        default="",
        metavar="LIST",
        help="with --seed: mishaps that do not happen, by their numbers, such as 3,7-12",
    )
    parser.add_argument(
        "--faults",
        default=_FAULTS,
        metavar="LIST",
        help=f"what goes wrong; without one, all of {_FAULTS}",
    )
    parser.add_argument(
        "--for",
        dest="duration",
        default="10s",
        metavar="TIME",
        help="for how long by the simulation's clock, if the sources do not end before (10s)",
    )
    parser.add_argument(
        "--log-dir",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="where the logs of a seed that fails, or of --seed, go (runs)",
    )
    add_mission(parser, "the first one")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """0 if all that must hold did, 1 for a seed that fails, 2 for a mistake in the graph or options."""
    from flowrun.runtime.cli.progress import progress
    from flowrun.runtime.fleet.simulation.graphs import check_simulates, left_out
    from flowrun.runtime.fleet.simulation.mischief import chosen_faults
    from flowrun.runtime.graph.find import importable
    from flowrun.runtime.run.log_lines import drop_logs

    if args.seeds < 1:
        raise UsageError(f"--seeds {args.seeds}: expected 1 or more")
    if args.without and args.seed is None:
        raise UsageError("--without leaves out mishaps of one seed; give --seed")
    runner = _Runner(args, chosen_faults(args.faults), round(seconds("--for", args.duration) * 1e9))
    without = _numbers(args.without)
    with importable(args.graph.parent):
        runner.load()
        check_simulates(runner.plans.values())
        for task in left_out(runner.plans.values()):
            print_text(f"left out: task {task.id!r}, which acts outside", file=sys.stderr)
        drop_logs()
        first = args.first
        seeds = range(first, first + args.seeds) if args.seed is None else [args.seed]
        bar = len(seeds) if sys.stderr.isatty() and args.seed is None else 0
        cycles = came = compared = 0
        with progress("simulate", bar) as show:
            for done, seed in enumerate(seeds, 1):
                with runner.simulated(seed, without) as (simulation, found):
                    if found.broken or args.seed is not None:
                        runner.keep(simulation)
                cycles += simulation.cycles
                came, compared = came + found.came, compared + found.compared
                if found.broken:
                    break
                if show is not None:
                    show(done)
        if args.seed is not None:
            for mishap in simulation.happened:
                print_text(str(mishap))
        if found.broken:
            _say_failed(args, simulation, found)
            if args.seed is None:
                _say_shrunk(args, runner, simulation, found)
            return 1
    print_text(
        f"{counted(len(seeds), 'seed')}, {cycles:,} cycles: each of {came:,} deliveries came once and "
        f"in order, and {'all fleets replay' if len(seeds) > 1 else 'the fleet replays'} identically "
        f"({compared:,} messages)"
        + (f", digest {simulation.digest:08x}" if args.seed is not None else "")
    )
    return 0


class _Runner:
    """Runs seeds of one graph."""

    def __init__(self, args: argparse.Namespace, faults: frozenset[str], duration_ns: int) -> None:
        self._args, self._faults, self._duration_ns = args, faults, duration_ns
        self.plans: dict[PartId, Plan] = {}
        self._graphs: dict[PartId, GraphSpec] = {}

    def load(self) -> None:
        from flowrun.runtime.fleet.simulation.graphs import plan_of, simulated
        from flowrun.runtime.graph.plan import load_plan, load_plans
        from flowrun.runtime.graph.read import load_graph

        args = self._args
        load_plans(args.graph, env=os.environ, ready=False, settings=args.settings)
        whole = load_plan(
            args.graph, env=os.environ, ready=False, mission=args.mission, settings=args.settings
        ).graph.spec
        if not whole.partitions:
            raise UsageError(f"{args.graph} has no partitions: there is no network to simulate")
        self._graphs = {
            part: simulated(
                load_graph(
                    args.graph,
                    env=os.environ,
                    mission=args.mission,
                    partition=str(part),
                    settings=args.settings,
                )
            )
            for partition in whole.partitions
            for part in partition.parts
        }
        self.plans = {part: plan_of(graph) for part, graph in self._graphs.items()}

    @contextmanager
    def simulated(self, seed: int, without: frozenset[int]) -> Iterator[tuple[Simulation, Verdict]]:
        """The simulation of one seed, and what did not hold. Its logs are there for the time being."""
        from flowrun.runtime.fleet.simulation.fleet import DefectError, Simulation
        from flowrun.runtime.fleet.simulation.invariants import Verdict

        name = f"simulated-{self._args.graph.stem}-{seed}"
        with tempfile.TemporaryDirectory(prefix="flowrun-simulate-") as folder:
            simulation = Simulation(
                self.plans, Path(folder) / name, seed, self._faults, self._duration_ns, without
            )
            simulation.folder.mkdir()
            try:
                simulation.run()
                found = simulation.verdict(self._spec_of)
            except FlowrunError as error:
                found = Verdict([str(error)])
            except DefectError as error:
                found = Verdict([str(error)], traceback="".join(format_exception(error)))
                (simulation.folder / _TRACEBACK).write_text(found.traceback, encoding="utf-8")
            yield simulation, found

    def keep(self, simulation: Simulation) -> None:
        """Keep the logs."""
        kept = self._args.log_dir / simulation.folder.name
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(simulation.folder, kept)
        simulation.folder = kept

    def _spec_of(self, log: Log) -> GraphSpec:
        from flowrun.runtime.graph.spec import PartId
        from flowrun.runtime.log.slab.format import PARTITION

        partition, _, instance = log.metadata[PARTITION].partition("/")
        return self._graphs[PartId(partition, instance)]


def _numbers(text: str) -> frozenset[int]:
    found: set[int] = set()
    for word in filter(None, text.split(",")):
        first, _, last = word.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            raise UsageError(f"--without {text}: expected numbers such as 3,7-12")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _ranges(numbers: Sequence[int]) -> str:
    """What `_numbers` reads."""
    words: list[list[int]] = []
    for number in sorted(numbers):
        if words and words[-1][1] == number - 1:
            words[-1][1] = number
        else:
            words.append([number, number])
    return ",".join(f"{a}-{b}" if a != b else str(a) for a, b in words)


def _say_failed(args: argparse.Namespace, simulation: Simulation, found: Verdict) -> None:
    print_text(f"seed {simulation.seed} fails:")
    for text in found.broken[:10]:
        print_text(f"  {text}")
    print_text(f"  logs:  {simulation.folder}  (digest {simulation.digest:08x})")
    if found.traceback:
        print_text(f"  please report it with {simulation.folder / _TRACEBACK}")
    print_text(f"  again: {_again(args, simulation.seed, args.without)}")


def _say_shrunk(
    args: argparse.Namespace, runner: _Runner, simulation: Simulation, found: Verdict
) -> None:
    """Find and show what of the seed's mishaps a failure needs."""
    from flowrun.runtime.fleet.simulation.shrinking import shrunk

    kind = _kind_of(found)
    tried: dict[frozenset[int], Simulation] = {}

    def fails(without: frozenset[int]) -> bool:
        with runner.simulated(simulation.seed, without) as (again, now):
            tried[without] = again
            return bool(now.broken) and _kind_of(now) == kind

    numbers = [it.number for it in simulation.happened if it.number >= 0]
    without = shrunk(numbers, fails, attempts=_ATTEMPTS)
    if not without:
        return
    left = [it for it in tried[without].happened if it.number >= 0]
    needed = listed(it.what for it in left) if left else "none is needed"
    count = counted(len(left), "mishap")
    print_text(f"  it fails with {count} of {len(numbers)} as well: {needed}")
    print_text(f"  again: {_again(args, simulation.seed, _ranges(sorted(without)))}")


def _kind_of(found: Verdict) -> str:
    """What is broken first, without the cycles: those may be others when less goes wrong."""
    return found.broken[0].partition("cycle")[0] if found.broken else ""


def _again(args: argparse.Namespace, seed: int, without: str) -> str:
    words = ["flowrun", "simulate", str(args.graph), "--seed", str(seed)]
    words += ["--without", without] if without else []
    words += ["--faults", args.faults, "--for", args.duration]
    words += ["--mission", args.mission] if args.mission is not None else []
    words += [word for text in args.settings for word in ("--set", text)]
    return shlex.join(words)
