"""What `runtime: {executor: parallel}` gains: two tasks, one after the other and at once.

    python bench/bench_parallel.py [--rounds 30] [--ms 20]

The tasks work in NumPy, which lets other threads run, or in Python, of which one thread runs at a time.
The floor is the same two calls on two threads, without flowrun. All run in turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
from rounds import in_turns, ratio

from flowrun.msgs import IntMsg
from flowrun.runtime.clock import LiveClock
from flowrun.runtime.engine.executor import Executor
from flowrun.runtime.engine.instances import start_all
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.task import Context, Input, Output, Task

CYCLES = 5
"""Of a round."""


def numpy_work(size: int) -> None:
    np.sort(np.arange(size, 0, -1) * 2654435761 % 4294967296)


def python_work(size: int) -> None:
    total = 0
    for number in range(size):
        total += number


WORKS: dict[str, Callable[[int], None]] = {"NumPy": numpy_work, "Python": python_work}


class Source(Task):
    def process(self, ctx: Context, out: Output[IntMsg]) -> None:
        out.publish()


class Works(Task):
    work = staticmethod(numpy_work)
    size = 1000

    def process(self, ctx: Context, given: Input[IntMsg], out: Output[IntMsg]) -> None:
        Works.work(Works.size)
        out.publish()


def executor(kind: str) -> Executor:
    text = (
        "tasks:\n"
        "  - {id: src, type: bench_parallel.Source}\n"
        "  - {id: a, type: bench_parallel.Works}\n"
        "  - {id: b, type: bench_parallel.Works}\n"
        "cnx:\n"
        "  - {src: src, dst: a, msg: IntMsg}\n"
        "  - {src: src, dst: b, msg: IntMsg}\n"
        f"runtime: {{executor: {kind}, workers: 2}}\n"
    )
    path = Path(__file__).parent / "two.yaml"
    made = Executor(plan_graph(bind(parse_graph(text, path=path, env={}))), clock=LiveClock())
    start_all(list(made.instances.values()))
    return made


def cycles(made: Executor) -> tuple[list[float], float]:
    made.stop_reason = None
    begin = time.perf_counter()
    made.run_cycles(made.cycles + CYCLES)
    seconds = (time.perf_counter() - begin) / CYCLES
    return [seconds], seconds


def size_of(work: Callable[[int], None], seconds: float) -> int:
    """How much takes about so long."""
    size = 1000
    while True:
        took = min(_seconds(work, size) for _ in range(3))
        if took > seconds / 2:
            return int(size * seconds / took)
        size *= 2


def _seconds(work: Callable[[int], None], size: int) -> float:
    begin = time.perf_counter()
    work(size)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--ms", type=float, default=20.0)
    args = parser.parse_args()
    print(f"two tasks of {args.ms:g} ms each, {len(os.sched_getaffinity(0))} cores; ms a cycle")
    with ThreadPoolExecutor(2) as pool:
        for name, work in WORKS.items():
            size = size_of(work, 1e-3 * args.ms)
            Works.work, Works.size = staticmethod(work), size

            def floor(
                work: Callable[[int], None] = work, size: int = size
            ) -> tuple[list[float], float]:
                begin = time.perf_counter()
                for _ in range(CYCLES):
                    wait([pool.submit(work, size) for _ in range(2)])
                seconds = (time.perf_counter() - begin) / CYCLES
                return [seconds], seconds

            serial, parallel = executor("serial"), executor("parallel")
            found = in_turns(
                {
                    "serial": lambda made=serial: cycles(made),
                    "parallel": lambda made=parallel: cycles(made),
                    "two threads": floor,
                },
                args.rounds,
            )
            print(f"{name}")
            for who, samples in found.items():
                print(f"  {who:12}{1e3 * statistics.median(samples.whole):7.1f}")
            print(
                f"  serial / parallel      {ratio(found['serial'].whole, found['parallel'].whole)}"
            )
            print(
                f"  parallel / two threads {ratio(found['parallel'].whole, found['two threads'].whole)}"
            )


if __name__ == "__main__":
    main()
