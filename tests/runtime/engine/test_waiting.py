"""A run that waits does not spin. What is called is counted, against the time that went by."""

from __future__ import annotations

import threading
import time

import pytest

from flowrun.runtime.clock import LiveClock
from flowrun.runtime.engine.executor import Executor
from flowrun.runtime.engine.waiting import IDLE_POLL_NS
from support.helpers import plan_of


class CountingClock(LiveClock):
    """Counts how often it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0
        at = self.at

        def counted(ticks: int) -> int:
            self.read += 1
            return at(ticks)

        self.at = counted

    def now_ns(self) -> int:
        self.read += 1
        return super().now_ns()


def most(took_ns):
    """Many more readings than waiting for `took_ns` takes, and far fewer than spinning does."""
    return 100 + 10 * took_ns / IDLE_POLL_NS


@pytest.mark.parametrize("source", ["engine_tasks.WakesInThePast", "Idle@rate_hz: 20"])
def test_an_idle_run_sleeps_whatever_its_source_asked_for(tmp_path, source):
    clock = CountingClock()
    executor = Executor(plan_of(tmp_path, f"n={source}"), clock=clock)
    begin_ns = time.monotonic_ns()
    thread = threading.Thread(target=executor.run)
    thread.start()
    thread.join(0.3)
    executor.stop("test")
    thread.join()
    took_ns = time.monotonic_ns() - begin_ns
    assert clock.read < most(took_ns)
    asked = executor.instances["n"].task.asked
    assert asked > 1
    if "rate_hz" in source:
        assert asked <= 1 + took_ns * 20 / 1e9


@pytest.mark.parametrize("where", ["graph", "source"])
def test_a_rate_is_waited_for(tmp_path, where):
    rate = "rate_hz: 20"
    keys, runtime = (
        ("", f"runtime: {{{rate}}}") if where == "graph" else (f"@{rate}", "runtime: {}")
    )
    plan = plan_of(tmp_path, f"n=Numbers(limit: 5){keys}", more=runtime)
    clock = CountingClock()
    begin_ns = time.monotonic_ns()
    executor = Executor(plan, clock=clock)
    executor.run()
    took_ns = time.monotonic_ns() - begin_ns
    assert executor.cycles == 6
    assert took_ns > 4 * 50_000_000
    assert clock.read < most(took_ns)
