"""A run that waits does not spin. What is called is counted, against the time that went by."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from flowrun.runtime.clock import LiveClock, ManualClock
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.executor import Executor
from flowrun.runtime.engine.outside import Due, LiveOutside
from flowrun.runtime.engine.rates import Rate
from flowrun.runtime.engine.waiting import IDLE_POLL_NS, Waiting
from flowrun.runtime.run.live import Run
from support.helpers import plan_of, until


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
    until(lambda: executor.instances["n"].task.asked > 1)
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
            due.take_until(2)
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
    due.take_until(4)
    assert due.first() == 9
    due.not_before("c", 1)
    assert due.first() == 1
    due.forget("c")
    due.take_until(9)
    assert due.first() is None


def test_a_time_that_is_no_whole_number_is_an_error_of_its_source(tmp_path):
    result = Run(
        plan_of(tmp_path, "n=engine_tasks.WakesLater"), clock=LiveClock(), directory=None
    ).run()
    assert str(result.error) == (
        "task 'n' failed in process, cycle 0: TypeError: 'float' object cannot be interpreted as an "
        "integer"
    )


# -- for how long, by a clock that only waiting moves ------------------------------------------

MS = 1_000_000


class StillClock(LiveClock):
    """Stands still, but for those who wait."""

    def __init__(self) -> None:
        super().__init__()
        self.time_ns = 0

    def now_ns(self) -> int:
        return self.time_ns


class Waited(threading.Event):
    """Keeps for how long it was waited for, which takes no time."""

    def __init__(self, clock: StillClock) -> None:
        super().__init__()
        self._clock = clock
        self.waits_s: list[float] = []

    def wait(self, timeout=None):
        self.waits_s.append(timeout)
        self._clock.time_ns += round(timeout * 1e9)
        return self.is_set()


def waiting(clock, *, rated=(), rate_hz=None):
    """A `Waiting` whose waits are kept: the outside's, then its own."""
    outside = LiveOutside(clock, sources=["a", "b"], packets=())
    outside.woken = Waited(clock)
    made = Waiting(clock, outside, rated=dict(rated), rate_hz=rate_hz)
    made._stopped = Waited(clock)
    return made, outside, outside.woken.waits_s, made._stopped.waits_s


@pytest.mark.parametrize(
    ("asked_ms", "due_ms", "waits_s"),
    [
        (0, None, [0.01]),
        (0, 4, [0.004]),
        (0, 25, [0.01]),
        (-7, None, [0.003]),
        (-7, 4, [0.003]),
        (-10, None, []),
        (-12, None, []),
        (0, 0, []),
    ],
)
def test_sources_are_waited_for_until_one_is_due_and_10_ms_at_most(asked_ms, due_ms, waits_s):
    clock = StillClock()
    made, outside, waited, _ = waiting(clock)
    clock.time_ns = 10**9
    if due_ms is not None:
        outside.due.set("a", clock.time_ns + due_ms * MS)
    made.for_sources(clock.time_ns + asked_ms * MS)
    assert waited == waits_s
    has_come = (due_ms is not None and waits_s == [due_ms / 1e3]) or due_ms == 0
    assert (outside.due.first() is None) == (due_ms is None or has_come)


@pytest.mark.parametrize(
    ("live", "due_ms", "waits_s"),
    [
        ("ab", {}, [0.1]),
        ("a", {}, [0.01]),
        ("a", {"b": 40}, [0.04]),
        ("a", {"b": 400}, [0.1]),
        ("a", {"b": 0}, []),
        ("", {"a": 400, "b": 30}, [0.03]),
        ("", {"a": 400, "b": 300}, [0.1]),
        ("", {"a": 400}, [0.01]),
    ],
)
def test_sources_that_say_when_they_have_something_are_not_asked_all_the_time(
    live, due_ms, waits_s
):
    clock = StillClock()
    made, outside, waited, _ = waiting(clock)
    clock.time_ns = 10**9
    for source in live:
        outside.source(source).live()
    for source, after_ms in due_ms.items():
        outside.due.set(source, clock.time_ns + after_ms * MS)
    made.for_sources(clock.time_ns)
    assert waited == waits_s


def test_a_source_that_is_paused_or_has_ended_is_not_asked():
    clock = StillClock()
    made, outside, waited, _ = waiting(clock)
    outside.source("a").finish()
    outside.switch("b", "paused")
    outside.begin(CycleTime(0, 0), 0)
    made.for_sources(clock.time_ns)
    assert waited == [0.1]


def test_a_rated_source_is_due_by_its_rate_unless_it_has_ended():
    clock, rates = StillClock(), {id_: Rate(every=1, rate_hz=500) for id_ in "ab"}
    made, outside, waited, _ = waiting(clock, rated=rates)
    made.for_sources(0)
    assert waited == [0.01]  # neither has run
    clock.time_ns = 0
    assert rates["a"].admits(CycleTime(0, 0))
    made.for_sources(0)
    assert waited == [0.01, 0.002]
    clock.time_ns = 0
    outside.source("a").finish()
    made.for_sources(0)
    assert waited == [0.01, 0.002, 0.01]


def test_a_manual_clock_moves_to_what_is_due_and_nobody_waits():
    clock = ManualClock(5)
    outside = LiveOutside(clock, sources=["a"], packets=())
    outside.woken = Waited(StillClock())
    made = Waiting(clock, outside, rated={}, rate_hz=2)
    outside.due.set("a", 80)
    made.for_sources(5)
    assert (clock.time_ns, outside.due.first(), outside.woken.waits_s) == (80, None, [])
    made.for_sources(80)
    assert (clock.time_ns, outside.woken.waits_s) == (80, [0.01])
    made._stopped = Waited(StillClock())
    made.after_source_error()
    made.count(CycleTime(0, 80))
    made.for_pace()
    assert (clock.time_ns, made._stopped.waits_s) == (80 + 500 * MS, [])


def test_the_pace_of_the_graph_is_waited_for_a_second_at_a_time():
    clock = StillClock()
    made, _, _, waited = waiting(clock, rate_hz=0.4)
    assert made.is_paced
    made.for_pace()
    made.count(CycleTime(0, 0))
    assert waited == []
    made.for_pace()
    assert waited == [1.0, 1.0, 0.5]
    made.for_pace()
    assert waited == [1.0, 1.0, 0.5]  # it is due now
    clock.time_ns = 0
    made.stop()
    made.for_pace()
    assert waited == [1.0, 1.0, 0.5]


def test_without_a_pace_nothing_is_waited_for():
    made, _, _, waited = waiting(StillClock())
    made.count(CycleTime(0, 0))
    made.for_pace()
    assert (made.is_paced, waited) == (False, [])


def test_a_source_that_fails_is_asked_again_after_10_ms():
    made, outside, _, waited = waiting(StillClock())
    made.after_source_error()
    assert waited == [0.01]
    made.stop()
    assert outside.woken.is_set()
