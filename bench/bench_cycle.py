"""What a cycle costs: the caterpillar of 17 tasks and a chain of three, log on and off.

    python bench/bench_cycle.py [--seconds 3] [--rss-cycles 200000]

The floor is a bare Python loop that calls the same `process` methods on the same messages, in the
same order, taken in the same run: these machines are shared, so only ratios mean something.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from flowrun.msgs import BytesMsg
from flowrun.runtime.bind import bind
from flowrun.runtime.clock import LiveClock, ticks_ns
from flowrun.runtime.executor import Executor
from flowrun.runtime.graph import parse_graph
from flowrun.runtime.log_writer import LogWriter
from flowrun.runtime.plan import Plan, plan_graph
from flowrun.runtime.run import outputs_of
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


def floor(plan: Plan, cycles: int) -> float:
    """Seconds for `cycles` of the same calls in a bare loop, without gates, clocks and records."""
    executor = Executor(plan, clock=LiveClock())
    record = executor._ring[0]
    calls = [call for _gate, call in record.sources + record.steps]
    begin = time.perf_counter()
    for _ in range(cycles):
        for call in calls:
            call()
    return time.perf_counter() - begin


def measure(plan: Plan, cycles: int, *, log: bool) -> tuple[float, list[int], list[float]]:
    """Seconds in all; end-to-end ns of sampled cycles; mean ns of each step."""
    directory = Path(tempfile.mkdtemp(prefix="flowrun-bench-", dir=os.environ.get("BENCH_DIR")))
    writer = None
    if log:
        writer = LogWriter(
            directory / "run", outputs=outputs_of(plan), steps=len(plan.steps), metadata={}
        )
    executor = Executor(plan, clock=LiveClock(), log=writer)
    executor.timings = Everything(cycles)  # type: ignore[assignment]
    gc.collect()
    gc.freeze()
    begin = time.perf_counter()
    executor.run(cycles=cycles)
    took = time.perf_counter() - begin
    gc.unfreeze()
    if writer is not None:
        writer.finish({"reason": "bench"})
    shutil.rmtree(directory)
    spans, steps = executor.timings.spans, executor.timings.steps  # type: ignore[attr-defined]
    return took, spans, [total / len(spans) for total in steps]


class Everything:
    """Stands for the executor's `timings`: sums instead of the last 1024 cycles."""

    def __init__(self, cycles: int) -> None:
        self.spans: list[int] = []
        self.steps: list[float] = []
        self.every = max(1, cycles // 20_000)
        self.seen = 0

    def append(self, timing: tuple[int, list[int]]) -> None:
        self.seen += 1
        if self.seen % self.every:
            return
        start, ends = timing
        self.spans.append(ends[-1] - start)
        if not self.steps:
            self.steps = [0.0] * len(ends)
        previous = start
        for i, end in enumerate(ends):
            self.steps[i] += end - previous
            previous = end


def report(name: str, plan: Plan, seconds: float) -> None:
    steps = len(plan.steps)
    probe = floor(plan, 2000) / 2000
    cycles = max(1000, int(seconds / (probe * 4)))
    rows: dict[str, list[Any]] = {"floor": [], "log off": [], "log on": []}
    for _ in range(3):
        rows["floor"].append((floor(plan, cycles), [], []))
        rows["log off"].append(measure(plan, cycles, log=False))
        rows["log on"].append(measure(plan, cycles, log=True))
    print(f"\n{name}: {steps} tasks, {len(plan.slots)} outputs, {cycles} cycles, median of 3")
    base = statistics.median(took for took, _, _ in rows["floor"]) / cycles
    head = f"  {'':10}{'cycles/s':>12}{'ns/cycle':>12}{'ns/step':>10}{'x floor':>9}"
    print(head + "  end-to-end mean, p50, p99 us")
    for label, runs in rows.items():
        took, spans, _ = sorted(runs, key=lambda run: run[0])[1]
        each = took / cycles
        line = f"  {label:10}{1 / each:12,.0f}{each * 1e9:12,.0f}"
        line += f"{each * 1e9 / steps:10,.0f}{each / base:9.2f}"
        if spans:
            ordered = sorted(spans)
            line += (
                f"  {statistics.mean(spans) / 1e3:.2f}, {ordered[len(ordered) // 2] / 1e3:.2f}, "
                f"{ordered[int(len(ordered) * 0.99)] / 1e3:.2f}"
            )
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
        outputs=outputs_of(plan),
        steps=len(plan.steps),
        metadata={},
        slab_size_mib=128,
    )
    executor = Executor(plan, clock=LiveClock(), log=writer)
    marks: list[tuple[int, float]] = []

    class Marks(Everything):
        def append(self, timing: tuple[int, list[int]]) -> None:
            self.seen += 1
            if self.seen % (cycles // 10) == 0:
                marks.append((self.seen, rss_mib()))

    executor.timings = Marks(cycles)  # type: ignore[assignment]
    executor.run(cycles=cycles)
    writer.finish({"reason": "bench"})
    shutil.rmtree(directory)
    print(f"\nanonymous RSS of the chain over {cycles:,} logged cycles (MiB):")
    print("  " + "  ".join(f"{n:,}: {mib:.1f}" for n, mib in marks))
    print(f"  growth after the first tenth: {marks[-1][1] - marks[0][1]:+.2f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="per measurement, about")
    parser.add_argument("--rss-cycles", type=int, default=200_000)
    args = parser.parse_args()
    readings = 200_000
    begin = time.perf_counter()
    for _ in range(readings):
        ticks_ns()
    print(f"one clock reading: {(time.perf_counter() - begin) / readings * 1e9:.0f} ns")
    report("caterpillar (copper-rs's benchmark)", caterpillar(), args.seconds)
    report("chain of three, 64-byte payload", chain(), args.seconds)
    report_rss(args.rss_cycles)


if __name__ == "__main__":
    main()
