from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from flowrun.runtime.clock import ManualClock, next_due
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.executor import Executor
from flowrun.runtime.engine.rates import Rate, RatedGate, is_rated
from flowrun.runtime.engine.record import ALWAYS
from flowrun.runtime.errors import GraphError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from support.helpers import START_NS, plan_of, record

MS = 1_000_000


def cycles_of(directory, topic):
    with Log(directory) as log:
        return [message.cycle for message in log.messages(topic)]


def run_every(plan, directory, step_ns):
    """A run whose clock moves by `step_ns` at each reading, and its replay."""
    from flowrun.runtime.run.live import Run

    clock = ManualClock(START_NS, step_ns=step_ns)
    result = Run(plan, clock=clock, directory=directory).run()
    assert result.error is None
    with Log(directory) as log:
        report = Replay(log, env={}).run()
    assert report.first is None, str(report.first)
    return report


def test_every_runs_a_task_in_multiples_only_and_replays(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 10); x=Scale@every: 3", "n > x")
    run_every(plan, tmp_path / "run", 1000)
    assert cycles_of(tmp_path / "run", "/x/scaled") == [0, 3, 6, 9]


def test_rate_hz_follows_the_cycles_times_and_replays(tmp_path):
    # A cycle each 4 ms, a task each 10 ms: due at 0, 10, 20, 30 ms.
    plan = plan_of(tmp_path, "n=Numbers(limit: 9); x=Scale@rate_hz: 100", "n > x")
    run_every(plan, tmp_path / "run", 4 * MS)
    with Log(tmp_path / "run") as log:
        times = [c.time_ns for c in log.cycles()]
    offsets = [(time - times[0]) // MS for time in times]
    assert offsets[:9] == [0, 4, 8, 12, 16, 20, 24, 28, 32]
    assert cycles_of(tmp_path / "run", "/x/scaled") == [0, 3, 5, 8]  # at 0, 12, 20, 32 ms


def test_a_rate_holds_for_a_background_tasks_inputs(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 40); f=Free!@every: 10; x=Scale", "n > f; n > x")
    run_every(plan, tmp_path / "run", 1000)
    with Log(tmp_path / "run") as log:
        controls = [m.fields for m in log.messages("/flowrun/control")]
    inputs = [c["input_cycle"] for c in controls if c["kind"] == "completion"]
    assert inputs
    assert all(cycle % 10 == 0 for cycle in inputs)


def test_a_rated_source_is_asked_at_its_rate(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 5)@rate_hz: 100")
    clock = ManualClock(START_NS)
    executor = Executor(plan, clock=clock)
    executor.run()
    # Five numbers and the end, 10 ms apart, with nothing slept: the clock was moved.
    assert clock.time_ns - START_NS == 50 * MS


def test_the_graphs_own_rate_holds_cycles_back(tmp_path):
    plan = plan_of(
        tmp_path, "n=Numbers(limit: 4)", more="runtime: {rate_hz: 50}\nlogging: {slab_size_mib: 1, "
        "section_size_mib: 1}",
    )  # fmt: skip
    record(plan, tmp_path / "run")
    with Log(tmp_path / "run") as log:
        times = [c.time_ns for c in log.cycles()]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(times) == 5
    assert all(gap >= 19 * MS for gap in gaps)


def test_the_grid_does_not_shift_with_late_cycles():
    assert next_due(0, 0, 10) == 10
    assert next_due(10, 13, 10) == 20
    assert next_due(10, 47, 10) == 50


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("every: 0", "'every' must be a whole number of at least 1; got 0"),
        ("rate_hz: 0", "'rate_hz' must be a number above 0; got 0"),
        ("rate_hz: fast", "'rate_hz' must be a number above 0; got 'fast'"),
        (
            "every: 2",
            "task 'n' is a source, and 'every' would make it wait for cycles that only its own "
            "messages start; use 'rate_hz'",
        ),
    ],
)
def test_a_rate_that_cannot_be_is_named(tmp_path, keys, text):
    with pytest.raises(GraphError) as caught:
        plan_of(tmp_path, f"n=Numbers@{keys}")
    [problem] = caught.value.problems
    assert problem.message == text
    assert problem.where.line == 4


def test_asking_whether_a_task_would_run_does_not_count_as_a_run():
    time, rate = CycleTime(0, 0), Rate(every=2, rate_hz=1)
    gate = RatedGate(ALWAYS, rate, time)
    assert [rate.would_admit(time), gate.would_open(), rate.would_admit(time)] == [True] * 3
    assert rate.due_ns is None
    assert gate.present
    assert rate.due_ns == 1000 * MS
    time.cycle, time.now_ns = 2, 999 * MS
    assert (rate.would_admit(time), gate.would_open()) == (False, False)
    time.cycle, time.now_ns = 3, 1000 * MS
    assert not gate.would_open()
    time.cycle = 4
    assert gate.would_open()
    assert rate.due_ns == 1000 * MS


@pytest.mark.parametrize(
    ("rate_hz", "period_ns"),
    [(3, 333_333_333), (0.5, 2_000_000_000), (1e9, 1), (4e9, 1)],
)
def test_a_rate_admits_again_exactly_one_period_later(rate_hz, period_ns):
    time, rate = CycleTime(0, 7), Rate(every=1, rate_hz=rate_hz)
    assert rate.due_ns is None
    assert rate.admits(time)
    assert not rate.admits(time)
    assert rate.due_ns == 7 + period_ns
    time.now_ns = 7 + period_ns - 1
    assert not rate.admits(time)
    time.now_ns = 7 + period_ns
    assert rate.admits(time)
    assert rate.due_ns == 7 + 2 * period_ns


def test_without_a_rate_a_task_runs_as_often_as_it_can():
    time, rate = CycleTime(2, 7), Rate(every=2, rate_hz=None)
    assert [rate.admits(time), rate.admits(time), rate.due_ns] == [True, True, None]
    time.cycle = 3
    assert not rate.admits(time)


def test_a_closed_gate_does_not_count_as_a_run():
    time, rate, inner = CycleTime(0, 7), Rate(every=1, rate_hz=1), SimpleNamespace(present=False)
    gate = RatedGate(inner, rate, time)
    assert not gate.present
    assert not gate.would_open()
    assert rate.due_ns is None
    inner.present = True
    assert gate.would_open()
    assert gate.present


def test_a_task_is_rated_if_the_graph_says_every_or_rate_hz(tmp_path):
    tasks = "n=Numbers; a=Scale; b=Scale@every: 1; c=Scale@every: 2; d=Scale@rate_hz: 5"
    plan = plan_of(tmp_path, tasks, "n > a; n > b; n > c; n > d")
    assert [step.task.id for step in plan.steps if is_rated(step)] == ["c", "d"]
