"""A run that waits does not spin. What is called is counted, against the time that went by."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from flowrun.runtime.clock import LiveClock
from flowrun.runtime.engine.executor import Executor
from flowrun.runtime.engine.outside import Due
from flowrun.runtime.engine.waiting import IDLE_POLL_NS
from flowrun.runtime.run.live import Run
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


def test_sources_may_give_and_forget_their_times_from_any_thread():
    due, ended, errors = Due(), threading.Event(), []

    def give(number):
        try:
            while not ended.is_set():
                due.set(f"{number}", number)
                due.not_before(f"{number}", number + 1)
                due.forget(f"{number}")
        except RuntimeError as error:
            errors.append(error)

    threads = [threading.Thread(target=give, args=[number]) for number in range(3)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for _ in range(300):
            due.first()
            due.forget_until(2)
    finally:
        ended.set()
        sys.setswitchinterval(before)
        for thread in threads:
            thread.join()
    assert errors == []
    assert due.first() is None


def test_a_source_is_due_when_it_said_last_or_later_by_its_rate():
    due = Due()
    due.set("a", 5)
    due.set("a", 3)
    due.set("b", 9)
    assert due.first() == 3
    due.not_before("a", 2)
    assert due.first() == 3
    due.not_before("a", 4)
    assert due.first() == 4
    due.forget_until(4)
    assert due.first() == 9
    due.not_before("c", 1)
    assert due.first() == 1
    due.forget("c")
    due.forget_until(9)
    assert due.first() is None


def test_a_time_that_is_no_whole_number_is_an_error_of_its_source(tmp_path):
    result = Run(
        plan_of(tmp_path, "n=engine_tasks.WakesLater"), clock=LiveClock(), directory=None
    ).run()
    assert str(result.error) == (
        "task 'n' failed in process, cycle 0: TypeError: 'float' object cannot be interpreted as an "
        "integer"
    )
