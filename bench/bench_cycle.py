"""What a cycle costs: the caterpillar of 17 tasks and a chain of three, log on and off.

    python bench/bench_cycle.py [--rounds 2000] [--rss-cycles 200000]

The floor is a bare Python loop that calls the same `process` methods in the same order, on plain objects
in place of messages. Floor, log off and log on run in turns, a window of 1 ms or less each: machines are
shared, what is measured a second apart cannot be compared, and only short windows are often undisturbed.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flowrun.msgs import BytesMsg
from flowrun.runtime.clock import LiveClock, ticks_ns
from flowrun.runtime.engine.executor import Executor, Timing
from flowrun.runtime.engine.instances import start_all
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import Plan, plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log.writer import LogWriter
from flowrun.runtime.task import Context, Input, Output, Task


class Source64(Task):
    payload = bytes(range(64))

    def process(self, ctx: Context, out: Output[BytesMsg]) -> None:
        out.value = self.payload
        out.publish()


class Pass64(Task):
    def process(self, ctx: Context, given: Input[BytesMsg], out: Output[BytesMsg]) -> None:
        out.value = given.value
        out.publish(tov_ns=given.tov_ns)


class Sink64(Task):
    def process(self, ctx: Context, given: Input[BytesMsg]) -> None:
        self.last = given.value


def caterpillar() -> Plan:
    path = Path(__file__).parent.parent / "graphs" / "caterpillar.yaml"
    return plan_graph(bind(parse_graph(path.read_text(), path=path, env={})))


def chain() -> Plan:
    tasks = [("src", "Source64"), ("map", "Pass64"), ("sink", "Sink64")]
    text = "tasks:\n" + "".join(f"  - {{id: {i}, type: bench_cycle.{t}}}\n" for i, t in tasks)
    text += (
        "cnx:\n  - {src: src, dst: map, msg: BytesMsg}\n  - {src: map, dst: sink, msg: BytesMsg}\n"
    )
    return plan_graph(bind(parse_graph(text, path=Path(__file__).parent / "chain.yaml", env={})))


class Spans:
    """In place of the executor's `timings`: from first start to last end of some cycles, in ns."""

    def __init__(self) -> None:
        self.spans: list[int] = []
        self.seen = 0

    def append(self, timing: Timing) -> None:
        self.seen += 1
        if self.seen % 16 == 0:
            start, ends, _ = timing
            self.spans.append(ends[-1] - start)


class Contender:
    """One way to run the plan's cycles, a window at a time."""

    def __init__(self, plan: Plan, directory: Path | None) -> None:
        self.writer = None
        if directory is not None:
            self.writer = LogWriter(
                directory, outputs=plan.slots, steps=len(plan.steps), metadata={}
            )
        self.executor = Executor(plan, clock=LiveClock(), log=self.writer)
        self.spans = Spans()
        self.executor.timings = self.spans  # type: ignore[assignment]
        start_all(list(self.executor.instances.values()))
        self.seconds: list[float] = []

    def run(self, cycles: int) -> None:
        executor = self.executor
        begin = time.perf_counter()
        executor.stop_reason = None
        executor.run_cycles(executor.cycles + cycles)
        self.seconds.append((time.perf_counter() - begin) / cycles)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.finish({"reason": "bench"})


class Plain:
    """A message with one field, and nothing that flowrun does for it."""

    __slots__ = ("present", "tov_ns", "value")

    def __init__(self) -> None:
        self.value: Any = None
        self.tov_ns = 0
        self.present = False

    def publish(self, *, tov_ns: int = 0) -> None:
        self.tov_ns = tov_ns
        self.present = True


class Floor(Contender):
    """The same calls in a bare loop on plain objects: no gates, clocks, cycle records and log."""

    def run(self, cycles: int) -> None:
        plan, instances = self.executor.plan, self.executor.instances
        slots = [Plain() for _ in plan.slots]
        calls = []
        for step in plan.steps:
            made = instances[step.task.id]
            given = [slots[it.slot] for it in step.arguments if it.slot is not None]
            calls.append(partial(made.task.process, made.ctx, *given))
        begin = time.perf_counter()
        for _ in range(cycles):
            for call in calls:
                call()
        self.seconds.append((time.perf_counter() - begin) / cycles)


def report(name: str, plan: Plan, rounds: int) -> None:
    directory = Path(tempfile.mkdtemp(prefix="flowrun-bench-", dir=os.environ.get("BENCH_DIR")))
    contenders = {
        "floor": Floor(plan, None),
        "log off": Contender(plan, None),
        "log on": Contender(plan, directory / "run"),
    }
    cycles = 1_200 // len(plan.steps)
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        for contender in contenders.values():
            contender.run(cycles)
    gc.unfreeze()
    for contender in contenders.values():
        contender.close()
    shutil.rmtree(directory)
    steps = len(plan.steps)
    print(f"\n{name}: {steps} tasks, {len(plan.slots)} outputs; {rounds} windows of {cycles:,}")
    print("cycles each, in turns; median window, and the quickest tenth's limit in brackets")
    print(
        f"  {'':8}{'cycles/s':>21}{'ns/cycle':>16}{'ns/step':>9}{'x floor':>14}"
        "   end-to-end mean, p50, p99 us"
    )
    base = contenders["floor"].seconds
    for label, contender in contenders.items():
        seconds = contender.seconds
        median, quick = statistics.median(seconds), float(np.percentile(seconds, 10))
        ratio = statistics.median(s / b for s, b in zip(seconds, base, strict=True))
        quick_ratio = quick / float(np.percentile(base, 10))
        line = f"  {label:8}{1 / median:11,.0f} [{1 / quick:7,.0f}]"
        line += f"{median * 1e9:8,.0f} [{quick * 1e9:5,.0f}]{median * 1e9 / steps:9,.0f}"
        line += f"{ratio:7.2f} [{quick_ratio:.2f}]"
        if contender.spans.spans:
            spans = np.array(contender.spans.spans) / 1e3
            p50, p99 = np.percentile(spans, [50, 99])
            line += f"   {spans.mean():.2f}, {p50:.2f}, {p99:.2f}"
        print(line)


def rss_mib() -> float:
    """Anonymous resident memory: pages of the mapped log are the kernel's cache, not ours."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return 0.0


def report_rss(cycles: int) -> None:
    plan = chain()
    directory = Path(tempfile.mkdtemp(prefix="flowrun-bench-", dir=os.environ.get("BENCH_DIR")))
    writer = LogWriter(
        directory / "run",
        outputs=plan.slots,
        steps=len(plan.steps),
        metadata={},
        slab_size_mib=128,
    )
    executor = Executor(plan, clock=LiveClock(), log=writer)
    marks: list[tuple[int, float]] = []

    class Marks:
        seen = 0

        def append(self, timing: Timing) -> None:
            self.seen += 1
            if self.seen % (cycles // 10) == 0:
                marks.append((self.seen, rss_mib()))

    executor.timings = Marks()  # type: ignore[assignment]
    executor.run(cycles=cycles)
    writer.finish({"reason": "bench"})
    shutil.rmtree(directory)
    print(f"\nanonymous RSS of the chain over {cycles:,} logged cycles (MiB):")
    print("  " + "  ".join(f"{n:,}: {mib:.1f}" for n, mib in marks))
    print(f"  growth after the first tenth: {marks[-1][1] - marks[0][1]:+.2f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2_000, help="windows of each kind")
    parser.add_argument("--rss-cycles", type=int, default=200_000)
    args = parser.parse_args()
    readings = 200_000
    begin = time.perf_counter()
    for _ in range(readings):
        ticks_ns()
    print(f"one clock reading: {(time.perf_counter() - begin) / readings * 1e9:.0f} ns")
    report("caterpillar (copper-rs's benchmark)", caterpillar(), args.rounds)
    report("chain of three, 64-byte payload", chain(), args.rounds)
    report_rss(args.rss_cycles)


if __name__ == "__main__":
    main()
