from __future__ import annotations

import helpers
import pytest
from helpers import START_NS, Flaky, FlakySource, plan_of

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.errors import GraphError
from flowrun.runtime.log_reader import Log
from flowrun.runtime.replay import Replay
from flowrun.runtime.run import Run

S = 1_000_000_000


@pytest.fixture(autouse=True)
def forget():
    Flaky.starts = 0
    FlakySource.failed, FlakySource.at = False, 0


def record(plan, directory, *, step_ns=1000):
    clock = ManualClock(START_NS, step_ns=step_ns)
    result = Run(plan, clock=clock, directory=directory).run()
    assert result.error is None, result.error
    with Log(directory) as log:
        messages = {
            topic: [(m.cycle, m.fields["value"]) for m in log.messages(topic)]
            for topic in log.topics
            if not topic.startswith("/flowrun")
        }
        events = [
            (m.cycle, m.fields["kind"], m.fields["task"], m.fields["key"], m.fields["value"])
            for m in log.messages("/flowrun/control")
            if m.fields["kind"] in ("error", "restart")
        ]
    return messages, events


def replay(directory):
    Flaky.starts = 0
    with Log(directory) as log:
        return Replay(log, env={}).run()


def test_skip_leaves_out_the_tasks_outputs_and_goes_on(tmp_path):
    plan = plan_of(
        tmp_path, "n=Numbers(limit: 4); f=Flaky(at: [1])@on_error: skip; x=Scale", "n > f; n > x"
    )
    messages, events = record(plan, tmp_path / "run")
    assert messages["/f/total"] == [(0, 0), (2, 3), (3, 6)]  # its state goes on
    assert messages["/x/scaled"] == [(0, 0), (1, 10), (2, 20), (3, 30)]
    assert events == [(1, "error", "f", "skip", "ValueError: cannot stand 1")]
    assert replay(tmp_path / "run").first is None


def test_skip_cycle_ends_the_cycle_for_all_behind_it(tmp_path):
    plan = plan_of(
        tmp_path, "n=Numbers(limit: 4); f=Flaky(at: [1])@on_error: skip_cycle; x=Scale",
        "n > f; n > x",
    )  # fmt: skip
    messages, events = record(plan, tmp_path / "run")
    assert messages["/n/number"] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert messages["/f/total"] == [(0, 0), (2, 3), (3, 6)]
    assert messages["/x/scaled"] == [(0, 0), (2, 20), (3, 30)]
    assert events == [(1, "error", "f", "skip_cycle", "ValueError: cannot stand 1")]
    assert replay(tmp_path / "run").first is None


def times_of(directory):
    with Log(directory) as log:
        return {cycle.cycle: cycle.time_ns for cycle in log.cycles()}


def is_first_after(times, cycle, since, pause_ns):
    """Whether `cycle` is the first whose time is `pause_ns` behind that of `since`."""
    return times[cycle] - times[since] >= pause_ns > times[cycle - 1] - times[since]


def test_restart_makes_the_task_anew_after_a_pause_by_the_cycles_time(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 20); f=Flaky(at: [1])@on_error: restart", "n > f")
    messages, events = record(plan, tmp_path / "run", step_ns=S // 4)
    [(failed, *error), (again, *restart)] = events
    assert failed == 1
    assert error == ["error", "f", "restart", "ValueError: cannot stand 1"]
    assert restart == ["restart", "f", "", None]
    assert is_first_after(times_of(tmp_path / "run"), again, failed, S)
    # Its state begins anew; the cycles between are without its output.
    assert messages["/f/total"][:3] == [(0, 0), (again, again), (again + 1, 2 * again + 1)]
    assert Flaky.starts == 2
    assert replay(tmp_path / "run").first is None
    assert Flaky.starts == 2


def test_the_pause_doubles_while_restarts_fail(tmp_path):
    plan = plan_of(
        tmp_path, "n=Numbers(limit: 99); f=Flaky(at: [0], start_fails: 2)@on_error: restart",
        "n > f",
    )  # fmt: skip
    _, events = record(plan, tmp_path / "run", step_ns=S // 4)
    assert [(kind, value) for _, kind, _, _, value in events] == [
        ("error", "ValueError: cannot stand 0"),
        ("error", "OSError: not yet"),
        ("error", "OSError: not yet"),
        ("restart", None),
    ]
    cycles, times = [cycle for cycle, *_ in events], times_of(tmp_path / "run")
    assert is_first_after(times, cycles[1], cycles[0], S)
    assert is_first_after(times, cycles[2], cycles[1], 2 * S)
    assert is_first_after(times, cycles[3], cycles[2], 4 * S)
    assert replay(tmp_path / "run").first is None


def test_a_source_is_restarted_and_the_run_goes_on(tmp_path):
    plan = plan_of(tmp_path, "n=FlakySource(limit: 6)@on_error: restart; x=Scale", "n > x")
    messages, events = record(plan, tmp_path / "run", step_ns=S // 4)
    assert [value for _, value in messages["/n/number"]] == [0, 1, 2, 4, 5]
    assert [kind for _, kind, *_ in events] == ["error", "restart"]
    assert replay(tmp_path / "run").first is None


def test_a_background_tasks_error_is_skipped(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 1); f=Flaky(at: [0])!@on_error: skip", "n > f")
    messages, events = record(plan, tmp_path / "run")
    assert messages["/f/total"] == []
    [(_, *rest)] = events
    assert rest == ["error", "f", "skip", "ValueError: cannot stand 0"]
    assert replay(tmp_path / "run").first is None


def test_a_background_task_is_restarted_on_its_worker(tmp_path):
    plan = plan_of(tmp_path, "n=Hooked(limit: 6); f=Flaky(at: [1])!@on_error: restart", "n > f")
    live = Run(plan, clock=ManualClock(START_NS, step_ns=S), directory=tmp_path / "run")
    worker = live.executor.workers["f"]

    def wait_for_worker(number):
        """One job a cycle: each number waits for the job of the one before."""
        while worker.busy and not worker.has_result:
            pass

    helpers.Hooked.hook = wait_for_worker
    assert live.run().error is None
    with Log(tmp_path / "run") as log:
        totals = {m.cycle: m.fields["value"] for m in log.messages("/f/total")}
        restarted = [
            (m.cycle, m.fields["input_cycle"])
            for m in log.messages("/flowrun/control")
            if m.fields["kind"] == "completion" and m.fields["value"]
        ]
    [(cycle, number)] = restarted
    assert totals[cycle] == number  # its sum began anew with that number
    assert replay(tmp_path / "run").first is None


def test_an_error_that_does_not_come_again_is_a_difference(tmp_path, monkeypatch):
    plan = plan_of(tmp_path, "n=Numbers(limit: 3); f=Flaky(at: [1])@on_error: skip", "n > f")
    record(plan, tmp_path / "run")

    def process(self, ctx, number, total):
        if number.value != 1:
            self.total += number.value
            total.value = self.total + (number.value == 2)
            total.publish()

    process.__annotations__ = Flaky.process.__annotations__
    monkeypatch.setattr(Flaky, "process", process)
    first = replay(tmp_path / "run").first
    assert (first.cycle, first.task, first.field) == (1, "f", "error")
    assert (first.recorded, first.replayed) == ("ValueError: cannot stand 1", "no error")


def test_an_unknown_policy_is_named(tmp_path):
    with pytest.raises(GraphError) as caught:
        plan_of(tmp_path, "n=Numbers@on_error: ignore")
    [problem] = caught.value.problems
    assert problem.message == (
        "'on_error' must be stop or skip or skip_cycle or restart; got 'ignore'"
    )
