"""The clock of a live run."""

from __future__ import annotations

import time
from itertools import pairwise

from flowrun.runtime.clock import LiveClock, ticks_ns
from flowrun.runtime.engine.executor import Executor
from support.helpers import Hooked, plan_of

HOUR_NS = 3_600 * 10**9


class Machine:
    """A machine whose suspension the test plays: `ticks_ns` does not see it."""

    slept_ns = 0

    def boot_ns(self):
        return ticks_ns() + self.slept_ns


def test_the_time_goes_on_while_the_machine_is_suspended():
    machine = Machine()
    clock = LiveClock(machine.boot_ns)
    before, at = clock.now_ns(), clock.at
    assert clock.refreshed_at() is at
    machine.slept_ns = HOUR_NS
    assert clock.now_ns() - before >= HOUR_NS
    assert clock.refreshed_at()(ticks_ns()) - before >= HOUR_NS
    assert clock.at is clock.refreshed_at()


def test_the_time_is_that_of_the_system_and_does_not_follow_when_that_is_set(monkeypatch):
    clock = LiveClock()
    assert abs(clock.now_ns() - time.time_ns()) < HOUR_NS
    assert abs(clock.at(ticks_ns()) - clock.now_ns()) < HOUR_NS
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert clock.now_ns() > HOUR_NS


def test_the_cycles_of_a_run_go_on_with_the_time_after_a_suspension(tmp_path, monkeypatch):
    machine, times = Machine(), []
    executor = Executor(
        plan_of(tmp_path, "n=Hooked(limit: 4)@rate_hz: 8"), clock=LiveClock(machine.boot_ns)
    )

    def hook(number):
        times.append(executor.cycle.time.now_ns)
        machine.slept_ns = HOUR_NS if number >= 1 else 0

    monkeypatch.setattr(Hooked, "hook", staticmethod(hook))
    executor.run()
    steps = [after - before for before, after in pairwise(times)]
    # The clock is asked ten times a second: where a cycle began late, the next one does not ask.
    assert [step >= HOUR_NS for step in steps] in (
        [False, True, False, False],
        [False, False, True, False],
    )
