"""`flowrun simulate GRAPH`: all partitions of a graph in one process, while a network fails by seeds."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from flowrun.runtime.cli.choosing import add_mission, add_settings, seconds
from flowrun.runtime.errors import FlowrunError, UsageError
from flowrun.runtime.printing import print_text
from flowrun.runtime.wording import counted

if TYPE_CHECKING:
    from flowrun.runtime.fleet.simulation import Simulation
    from flowrun.runtime.graph.spec import GraphSpec, PartId
    from flowrun.runtime.log.reader import Log

__all__ = ["add_parser", "run"]

_FAULTS = "drop,dup,delay,cut,kill"


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "simulate",
        description="Run all partitions of a graph in this process, by a clock that is moved by hand, "
        "over a network that loses, repeats, delays and cuts, while processes are killed and come back: "
        "once for each seed. Afterwards each message must have come once and in order, and the fleet "
        "must replay. A seed that fails is printed, and gives the same run again. Tasks in the "
        "background run in the cycle; sources that read a clock or a camera of their own are not "
        "reproduced.",
    )
    parser.add_argument("graph", type=Path, help="the graph file")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seeds", type=int, default=100, metavar="N", help="seeds 0 to N-1 (100)")
    which.add_argument("--seed", type=int, metavar="K", help="seed K alone, and what happens in it")
    parser.add_argument(
        "--faults",
        default=_FAULTS,
        metavar="LIST",
        help=f"what goes wrong, of drop, dup, delay, flip, cut, kill ({_FAULTS})",
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
    from flowrun.runtime.fleet.simulation import chosen_faults
    from flowrun.runtime.graph.find import importable
    from flowrun.runtime.run.log_lines import drop_logs

    if args.seeds < 1:
        raise UsageError(f"--seeds {args.seeds}: expected 1 or more")
    faults = chosen_faults(args.faults)
    duration_ns = round(seconds("--for", args.duration) * 1e9)
    with importable(args.graph.parent):
        graphs = _graphs(args)
        drop_logs()
        seeds = range(args.seeds) if args.seed is None else [args.seed]
        bar = len(seeds) if sys.stderr.isatty() and args.seed is None else 0
        cycles = 0
        with progress("simulate", bar) as show:
            for done, seed in enumerate(seeds, 1):
                simulation, wrong = _simulated(args, graphs, seed, faults, duration_ns)
                cycles += simulation.cycles
                if wrong:
                    break
                if show is not None:
                    show(done)
    if args.seed is not None:
        for line in simulation.happened:
            print_text(line)
    if wrong:
        _say_failed(args, simulation, wrong)
        return 1
    print_text(
        f"{counted(len(seeds), 'seed')}, {cycles:,} cycles: each message came once and in order, and "
        f"{'all fleets replay' if len(seeds) > 1 else 'the fleet replays'} identically"
        + (f" (digest {simulation.digest:08x})" if args.seed is not None else "")
    )
    return 0


def _graphs(args: argparse.Namespace) -> dict[PartId, GraphSpec]:
    from flowrun.runtime.fleet.simulation import simulated
    from flowrun.runtime.graph.plan import load_plan, load_plans
    from flowrun.runtime.graph.read import load_graph

    load_plans(args.graph, env=os.environ, ready=False, settings=args.settings)
    whole = load_plan(
        args.graph, env=os.environ, ready=False, mission=args.mission, settings=args.settings
    ).graph.spec
    if not whole.partitions:
        raise UsageError(f"{args.graph} has no partitions: there is no network to simulate")
    return {
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


def _simulated(
    args: argparse.Namespace,
    graphs: dict[PartId, GraphSpec],
    seed: int,
    faults: frozenset[str],
    duration_ns: int,
) -> tuple[Simulation, list[str]]:
    """The simulation of one seed, and what did not hold. The logs of one that failed are kept."""
    from flowrun.runtime.fleet.invariants import broken_invariants
    from flowrun.runtime.fleet.simulation import Simulation
    from flowrun.runtime.graph.spec import PartId
    from flowrun.runtime.log.slab.format import PARTITION

    def spec_of(log: Log) -> GraphSpec:
        partition, _, instance = log.metadata[PARTITION].partition("/")
        return graphs[PartId(partition, instance)]

    name = f"simulated-{args.graph.stem}-{seed}"
    with tempfile.TemporaryDirectory(prefix="flowrun-simulate-") as folder:
        simulation = Simulation(graphs, Path(folder) / name, seed, faults, duration_ns)
        simulation.folder.mkdir()
        try:
            simulation.run()
        except FlowrunError as error:
            wrong = [str(error)]
        else:
            wrong = broken_invariants(simulation.folder, simulation.plans, spec_of)
        if wrong or args.seed is not None:
            kept = args.log_dir / name
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(simulation.folder, kept)
            simulation.folder = kept
    return simulation, wrong


def _say_failed(args: argparse.Namespace, simulation: Simulation, wrong: list[str]) -> None:
    print_text(f"seed {simulation.seed} fails:")
    for text in wrong[:10]:
        print_text(f"  {text}")
    print_text(f"  logs:  {simulation.folder}  (digest {simulation.digest:08x})")
    words = ["flowrun", "simulate", str(args.graph), "--seed", str(simulation.seed)]
    words += ["--faults", args.faults, "--for", args.duration]
    words += [word for text in args.settings for word in ("--set", text)]
    print_text(f"  again: {shlex.join(words)}")
