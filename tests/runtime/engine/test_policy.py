from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace
from typing import ClassVar

import pytest

from flowrun.msgs import IntMsg
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.instances import make_instances
from flowrun.runtime.engine.policy import (
    ErrorPolicy,
    SkipCycle,
    failed,
    policies_of,
    reconfigure,
    restart_task,
)
from flowrun.runtime.errors import GraphError, RecordedError
from flowrun.runtime.events import Failed, Restarted
from flowrun.runtime.interrupts import telling_interrupts
from flowrun.runtime.log.check import check_log
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.recorder import ReplayLog
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig
from support import helpers
from support.helpers import START_NS, Flaky, plan_of

S = 1_000_000_000


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


def test_the_log_folds_an_error_that_repeats_itself(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 60); b=engine_tasks.Broken@on_error: skip", "n > b")
    _, events = record(plan, tmp_path / "run", step_ns=S // 2)
    assert len(events) == 60
    with Log(tmp_path / "run") as log:
        told = [
            (m.fields["fields"]["error"], m.fields["fields"].get("repeated"))
            for m in log.messages("/flowrun/log")
            if m.fields["message"] == "task failed"
        ]
    same, other = "OSError: out of order", "OSError: another fault"
    assert told[0] == (same, None)
    at = told.index((other, None))
    assert 1 < at < 5
    assert {error for error, _ in told[:at]} == {same}
    assert all(5 < repeated < 25 for _, repeated in told[1:at])
    assert told[at + 1] == (same, None)


def test_what_a_task_raised_is_counted_with_the_newest_error_and_its_cycle(tmp_path):
    plan = plan_of(
        tmp_path,
        "n=Numbers(limit: 9); f=Flaky(at: [1, 4])@on_error: skip; x=Flaky(at: [6])",
        "n > f; n > x",
    )
    run = Run(plan, clock=ManualClock(START_NS, step_ns=1000), directory=None)
    error = run.run().error
    raised = {id_: task.raised for id_, task in run.report().tasks.items()}
    assert raised["n"] is None
    assert (raised["f"].count, raised["f"].cycle) == (2, 4)
    assert raised["f"].text == "ValueError: cannot stand 4"
    assert START_NS < raised["f"].time_ns < raised["x"].time_ns
    assert (raised["x"].count, raised["x"].cycle) == (1, 6)
    assert str(error).endswith(raised["x"].text)


def test_skip_cycle_ends_the_cycle_for_all_tasks_after_it(tmp_path):
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
    """Whether `cycle` is the first whose time is `pause_ns` after that of `since`."""
    return times[cycle] - times[since] >= pause_ns > times[cycle - 1] - times[since]


def test_restart_makes_the_task_again_after_a_pause_by_the_cycles_time(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 20); f=Flaky(at: [1])@on_error: restart", "n > f")
    messages, events = record(plan, tmp_path / "run", step_ns=S // 4)
    [(failed, *error), (again, *restart)] = events
    assert failed == 1
    assert error == ["error", "f", "restart", "ValueError: cannot stand 1"]
    assert restart == ["restart", "f", "", None]
    assert is_first_after(times_of(tmp_path / "run"), again, failed, S)
    # It begins again from nothing; the cycles between are without its output.
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
        while worker.jobs.working:
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
    assert totals[cycle] == number  # its sum began again with that number
    assert replay(tmp_path / "run").first is None


def test_an_error_that_does_not_come_again_is_a_difference(tmp_path, monkeypatch):
    plan = plan_of(tmp_path, "n=Numbers(limit: 3); f=Flaky(at: [1])@on_error: skip", "n > f")
    record(plan, tmp_path / "run")

    class Mended(helpers.Flaky):
        def process(self, ctx: Context, number: Input[IntMsg], total: Output[IntMsg]) -> None:
            if number.value != 1:
                self.total += number.value
                total.value = self.total + (number.value == 2)
                total.publish()

    monkeypatch.setattr(helpers, "Flaky", Mended)
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


WRONG = "MessageTypeError: IntMsg.value: expected int, got str 'a text'"
SEEN = "n > w; w.total > s; n > x"


def wrong_plan(tmp_path, policy, *, limit=4, background=""):
    wrong = f"w=Wrong(at: [1]){background}@on_error: {policy}"
    return plan_of(tmp_path, f"n=Numbers(limit: {limit}); {wrong}; s=Sees; x=Scale", SEEN)


def replays_whole(tmp_path):
    """Whether the run replays as it was, and so does what the replay writes."""
    with Log(tmp_path / "run") as log:
        again = Replay(log, env={})
        with ReplayLog(again, tmp_path / "again", config={}, now_ns=START_NS) as recorder:
            report = again.run(recorder=recorder)
    assert report.first is None
    assert replay(tmp_path / "again").first is None
    assert report.recorded_error == replay(tmp_path / "again").recorded_error
    return report


def test_a_message_that_the_log_refuses_is_skipped_before_any_task_sees_it(tmp_path):
    messages, events = record(wrong_plan(tmp_path, "skip"), tmp_path / "run")
    assert messages["/n/number"] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert messages["/w/total"] == [(0, 0), (2, 3), (3, 6)]
    assert [cycle for cycle, _ in messages["/w/text"]] == [0, 2, 3]  # nothing of that call
    assert messages["/s/text"] == [(0, "0"), (2, "3"), (3, "6")]
    assert messages["/x/scaled"] == [(0, 0), (1, 10), (2, 20), (3, 30)]
    assert events == [(1, "error", "w", "skip", WRONG)]
    assert replays_whole(tmp_path).cycles > 3


def test_a_message_that_the_log_refuses_ends_the_cycle(tmp_path):
    messages, events = record(wrong_plan(tmp_path, "skip_cycle"), tmp_path / "run")
    assert messages["/n/number"] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert messages["/x/scaled"] == [(0, 0), (2, 20), (3, 30)]
    assert events == [(1, "error", "w", "skip_cycle", WRONG)]
    replays_whole(tmp_path)


def test_a_task_whose_message_the_log_refuses_is_restarted(tmp_path):
    plan = wrong_plan(tmp_path, "restart", limit=20)
    messages, events = record(plan, tmp_path / "run", step_ns=S // 4)
    [(failed, *error), (again, *restart)] = events
    assert (failed, error) == (1, ["error", "w", "restart", WRONG])
    assert restart == ["restart", "w", "", None]
    assert messages["/w/total"][:2] == [(0, 0), (again, again)]
    replays_whole(tmp_path)


@pytest.mark.parametrize("policy", ["skip", "skip_cycle", "restart"])
def test_a_background_message_that_the_log_refuses_follows_the_policy(tmp_path, policy):
    plan = wrong_plan(tmp_path, policy, limit=2, background="!")
    live = Run(plan, clock=ManualClock(START_NS, step_ns=S), directory=tmp_path / "run")
    assert live.run().error is None
    with Log(tmp_path / "run") as log:
        errors = [
            (m.fields["task"], m.fields["key"], m.fields["value"])
            for m in log.messages("/flowrun/control")
            if m.fields["kind"] == "error"
        ]
    assert errors == [("w", policy, WRONG)]
    replays_whole(tmp_path)


def test_a_sources_message_that_the_log_refuses_is_seen_by_no_task(tmp_path):
    plan = plan_of(tmp_path, "n=WrongSource(limit: 4)@on_error: skip; s=Sum", "n > s.a")
    messages, events = record(plan, tmp_path / "run")
    assert [value for _, value in messages["/s/total"]] == [0, 1, 4]  # of 0, 1 and 3
    assert [kind for _, kind, *_ in events] == ["error"]
    replays_whole(tmp_path)


@pytest.mark.parametrize("value", ['"half \\ud83d"', "2.5", "18446744073709551616"])
def test_what_a_policy_lets_pass_can_be_written(tmp_path, value):
    tasks = f"n=Numbers(limit: 3); w=Wrong(at: [1], value: {value})@on_error: skip"
    messages, events = record(plan_of(tmp_path, tasks, "n > w"), tmp_path / "run")
    assert [value for _, value in messages["/w/total"]] == [0, 3]
    assert len(events) == 1


@pytest.mark.parametrize("background", ["", "!"])
def test_a_message_that_the_log_refuses_stops_the_run_and_leaves_its_inputs(tmp_path, background):
    plan = wrong_plan(tmp_path, "stop", limit=2, background=background)
    result = Run(
        plan, clock=ManualClock(START_NS, step_ns=1000), directory=tmp_path / "run"
    ).run()  # fmt: skip
    assert str(result.error).startswith("task 'w' failed in process, cycle ")
    assert str(result.error).endswith(f": {WRONG}")
    with Log(tmp_path / "run") as log:
        assert log.finished
        assert [m.fields["value"] for m in log.messages("/n/number")] == [0, 1]
        [error] = [m for m in log.messages("/flowrun/control") if m.fields["kind"] == "error"]
        assert (error.fields["task"], error.fields["key"]) == ("w", "stop")
        assert not [m for m in log.messages(["/w/total", "/w/text"]) if m.cycle == error.cycle]
        # No task downstream has seen it.
        assert "a text" not in str([m.fields["value"] for m in log.messages("/s/text")])
        assert check_log(log)[2] == []
    assert replays_whole(tmp_path).recorded_error == f"task 'w', cycle {error.cycle}: {WRONG}"


def test_a_foreground_task_that_exits_is_skipped(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 4); e=Exits(at: 1)@on_error: skip", "n > e")
    messages, events = record(plan, tmp_path / "run")
    assert messages["/e/out"] == [(0, 0), (2, 2), (3, 3)]
    assert events == [(1, "error", "e", "skip", "SystemExit: 3")]
    replays_whole(tmp_path)


def test_a_foreground_task_that_exits_stops_the_run_with_its_reason(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 4); e=Exits(at: 1)", "n > e")
    result = Run(
        plan, clock=ManualClock(START_NS, step_ns=1000), directory=tmp_path / "run"
    ).run()  # fmt: skip
    assert str(result.error) == "task 'e' failed in process, cycle 1: SystemExit: 3"
    with Log(tmp_path / "run") as log:
        assert log.end["error"] == str(result.error)
        assert [m.fields["value"] for m in log.messages("/n/number")] == [0, 1]
    assert replays_whole(tmp_path).recorded_error == "task 'e', cycle 1: SystemExit: 3"


@pytest.mark.parametrize("where", ["start", "stop", "freeze"])
def test_a_task_that_exits_elsewhere_is_named_and_the_others_are_stopped(tmp_path, where):
    plan = plan_of(
        tmp_path, f"n=Numbers(limit: 4); e=Exits(where: {where}); b=Boom", "n > e; n > b"
    )
    live = Run(plan, clock=ManualClock(START_NS, step_ns=1000), directory=tmp_path / "run")
    stopped = []
    live.executor.instances["n"].task.stop = lambda _ctx: stopped.append("n")
    error = str(live.run().error)
    assert stopped == ["n"]
    if where == "start":
        assert error == "task 'e' failed in start: SystemExit: 3"
    else:
        assert error.startswith("task 'b' failed in process, cycle 2")


RAISED = {
    "cancelled": "CancelledError: by a library",
    "panic": "Panic: index out of bounds",
    "exit": "GeneratorExit: ",
    "leave": "SystemExit: 3",
    "interrupt": "KeyboardInterrupt: by a library",
    "group": "BaseExceptionGroup: several (1 sub-exception)",
    "mute": "MuteError: <its text cannot be had: str() raised CancelledError>",
}


@pytest.mark.parametrize("what", RAISED)
def test_whatever_a_task_raises_its_policy_holds(tmp_path, what):
    tasks = "; ".join(
        f"{policy}{mark.count('!')}=engine_tasks.Raises(what: {what}, at: 1){mark}@on_error: {policy}"
        for policy in ("skip", "restart", "skip_cycle")
        for mark in ("", "!")
    )
    ids = [task.partition("=")[0] for task in tasks.split("; ")]
    plan = plan_of(
        tmp_path, f"n=Numbers(limit: 4); {tasks}", "; ".join(f"n > {id_}" for id_ in ids)
    )
    _, events = record(plan, tmp_path / "run")
    errors = {(task, key, text) for _, kind, task, key, text in events if kind == "error"}
    # A background task need not get to number 1: newer inputs may replace it.
    assert {(id_, id_[:-1], RAISED[what]) for id_ in ids if id_.endswith("0")} <= errors
    assert {text for _, _, text in errors} == {RAISED[what]}
    report = replays_whole(tmp_path)
    assert report.errors == len([event for event in events if event[1] == "error"])


@pytest.mark.parametrize("mark", ["", "!"])
@pytest.mark.parametrize("what", RAISED)
def test_whatever_ends_a_run_its_cycle_is_in_the_log(tmp_path, what, mark):
    plan = plan_of(
        tmp_path, f"n=Numbers(limit: 1); r=engine_tasks.Raises(what: {what}, at: 0){mark}", "n > r"
    )
    _, result = helpers.record(plan, tmp_path / "run")
    [(cycle, _, _, text)] = helpers.controls(tmp_path / "run", "error")
    assert (text, str(result.error)) == (
        RAISED[what], f"task 'r' failed in process, cycle {cycle}: {text}"
    )  # fmt: skip
    assert replays_whole(tmp_path).recorded_error == f"task 'r', cycle {cycle}: {text}"


@pytest.mark.parametrize("where", ["start", "stop", "freeze", "configure"])
@pytest.mark.parametrize("what", ["cancelled", "mute", "interrupt"])
def test_whatever_a_task_raises_elsewhere_is_an_error_of_it(tmp_path, what, where):
    plan = plan_of(
        tmp_path,
        f"n=Numbers(limit: 4); r=engine_tasks.Raises(what: {what}, where: {where})",
        "n > r",
    )
    live = Run(plan, clock=ManualClock(START_NS, step_ns=1000), directory=tmp_path / "run")
    live.set_live("r", {"gain": 2})
    error = live.run().error
    if where in ("stop", "freeze"):
        assert error is None
        with Log(tmp_path / "run") as log:
            lines = [line.fields for line in log.messages("/flowrun/log")]
        assert [line["fields"]["error"] for line in lines] == [RAISED[what]]
    else:
        cycle = ", cycle 0" if where == "configure" else ""
        assert str(error) == f"task 'r' failed in {where}{cycle}: {RAISED[what]}"


@pytest.mark.parametrize("where", ["start", "process", "configure", "freeze", "stop"])
def test_an_interrupt_of_the_user_in_a_task_is_an_interrupt(tmp_path, where):
    task = f"engine_tasks.Raises(what: signal, at: 1, where: {where})"
    plan = plan_of(
        tmp_path,
        f"n=Numbers(limit: 2); e={task}@on_error: skip",
        "n > e",
        "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 1}",
    )
    live = Run(plan, clock=ManualClock(START_NS, step_ns=1000), directory=tmp_path / "run")
    live.set_live("e", {"gain": 2})
    with pytest.raises(KeyboardInterrupt):
        live.run()
    with Log(tmp_path / "run") as log:
        assert log.end["reason"] == "interrupted"
        assert not [m for m in log.messages("/flowrun/control") if m.fields["kind"] == "error"]


def test_the_place_of_an_error_is_its_function_and_line_up_to_300_characters(tmp_path):
    path = tmp_path / "long.py"
    path.write_text(f"def fails():\n    raise ValueError('{'x' * 400}')\n")
    made = {"__name__": "long"}
    exec(compile(path.read_text(), str(path), "exec"), made)
    error = failed(
        "t", raised_in(made["fails"]), policy="stop", phase="process", secrets=frozenset()
    )
    assert error.place == f"fails: raise ValueError('{'x' * 400}')"[:300]


def raised_in(function):
    """What `function` raises, with a traceback that begins there."""
    try:
        function()
    except ValueError as error:
        return error.with_traceback(error.__traceback__.tb_next)


class Guarded:
    """The policy of a task that does what the test says; its events and log lines."""

    def __init__(self, kind, *, restart=lambda _made: True):
        self.time, self.events, self.lines = CycleTime(), [], []
        log = SimpleNamespace(error=lambda text, **fields: self.lines.append((text, fields)))
        self.made = SimpleNamespace(
            id="t",
            bound=SimpleNamespace(spec=SimpleNamespace(on_error=kind)),
            ctx=SimpleNamespace(log=log),
            task=SimpleNamespace(config="first"),
        )
        self.policy = ErrorPolicy(
            self.made,
            self.time,
            note=self.events.append,
            secrets=frozenset({"s3cret"}),
            restart=restart,
        )

    def logged_at(self, seconds, text="no"):
        """Handle an error at a time; whether a line says so, and how many it stands for."""
        self.time.now_ns = round(seconds * S)
        before = len(self.lines)
        self.policy.handle(ValueError(text))
        return [fields.get("repeated", 1) for _, fields in self.lines[before:]]


def test_an_error_that_repeats_itself_is_logged_every_10_s(tmp_path):
    it = Guarded("skip")
    assert it.logged_at(100) == [1]
    assert it.logged_at(100) == []  # in the same cycle
    assert it.logged_at(109.999999999) == []
    assert it.logged_at(110) == [3]
    assert it.logged_at(120) == [1]
    assert it.logged_at(121) == []
    assert it.logged_at(122, "other") == [1]
    assert it.logged_at(123) == [1]
    assert it.logged_at(122.999999999) == [1]  # a replay has gone back
    assert len(it.events) == 9
    text, fields = it.lines[0]
    assert (text, fields["error"], fields["on_error"]) == ("task failed", "ValueError: no", "skip")


def test_the_pauses_before_restarts_double_up_to_30_s_until_one_works():
    it, pauses = Guarded("restart"), []
    assert (it.policy.is_down, it.policy.restarts) == (False, True)
    for _ in range(7):
        it.policy.handle(OSError("no"))
        pauses.append(it.policy.freeze()["until_ns"] - it.time.now_ns)
    assert pauses == [S, 2 * S, 4 * S, 8 * S, 16 * S, 30 * S, 30 * S]
    assert it.policy.freeze() == {"failures": 7, "until_ns": 30 * S}
    it.policy.note_success()
    it.policy.handle(OSError("no"))
    assert it.policy.freeze() == {"failures": 1, "until_ns": S}


def test_a_policy_that_does_not_restart_does_not_pause():
    for kind in ("skip", "skip_cycle"):
        it = Guarded(kind)
        with suppress(SkipCycle):
            it.policy.handle(OSError("no"))
        assert (it.policy.freeze(), it.policy.restarts) == (
            {"failures": 0, "until_ns": None},
            False,
        )


@pytest.mark.parametrize(
    ("kind", "phase", "skips"),
    [
        ("skip_cycle", "process", True),
        ("skip_cycle", "configure", False),
        ("skip", "process", False),
    ],
)
def test_only_skip_cycle_ends_the_cycle_and_only_for_what_process_raised(kind, phase, skips):
    it, error = Guarded(kind), OSError("with s3cret")
    if skips:
        with pytest.raises(SkipCycle) as caught:
            it.policy.handle(error, phase=phase)
        assert caught.value.__cause__ is error
    else:
        it.policy.handle(error, phase=phase)
    assert it.events == [Failed("t", kind, "OSError: with ***", phase)]


def test_a_background_task_gets_its_next_job_when_the_pause_is_over_and_that_restarts_it():
    it = Guarded("restart")
    it.time.now_ns = 5 * S
    assert (it.policy.admits(), it.policy.take_restart()) == (True, False)
    it.policy.handle(OSError("no"))
    it.time.now_ns = 6 * S - 1
    assert not it.policy.admits()
    it.time.now_ns = 6 * S
    assert it.policy.admits()
    assert it.policy.is_down
    assert (it.policy.take_restart(), it.policy.take_restart()) == (True, False)
    assert not it.policy.is_down


def test_a_task_that_is_down_runs_again_after_a_restart_that_works():
    answers, ran = [False, OSError("not yet"), True], []

    def restart(made):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    it = Guarded("restart", restart=restart)
    errors = [OSError("no")]

    def call():
        ran.append(it.time.now_ns)
        if errors:
            raise errors.pop()

    outputs = [SimpleNamespace(clear=lambda: ran.append("cleared"))]
    guarded = it.policy.guard(call, outputs)
    guarded()
    assert ran == [0, "cleared"]
    for now_ns in (S - 1, S, S, 3 * S - 1, 3 * S):
        it.time.now_ns = now_ns
        guarded()
    assert (ran, answers) == ([0, "cleared", 3 * S], [])
    assert [type(event) for event in it.events] == [Failed, Failed, Restarted]
    assert it.policy.freeze() == {"failures": 0, "until_ns": None}


def test_a_config_that_is_set_while_a_restart_is_under_way_is_what_the_task_is_restarted_with():
    answers = [False, True, True]
    it = Guarded("restart", restart=lambda made: answers.pop(0))
    guarded = it.policy.guard(lambda: None, [])
    it.policy.handle(OSError("no"))
    reconfigure(it.made, "second", it.policy)
    assert (it.made.task.config, it.policy.config) == ("second", "second")  # not begun yet
    it.time.now_ns = S
    guarded()
    reconfigure(it.made, "third", it.policy)
    assert (it.made.task.config, it.policy.config) == ("second", "third")
    guarded()
    assert (it.made.task.config, it.policy.config, answers) == ("third", "third", [])
    assert not it.policy.is_down


def test_a_policy_takes_up_what_it_was(tmp_path):
    it = Guarded("restart")
    it.policy.thaw({"failures": 3, "until_ns": 7})
    assert it.policy.freeze() == {"failures": 3, "until_ns": 7}
    it.policy.thaw({})
    assert it.policy.freeze() == {"failures": 0, "until_ns": None}


def test_only_tasks_that_do_not_stop_the_run_have_a_policy(tmp_path):
    tasks = "n=Numbers; a=Scale; b=Scale@on_error: skip; c=Scale@on_error: restart"
    plan = plan_of(tmp_path, tasks, "n > a; n > b; n > c")
    made = make_instances(plan, CycleTime(), source=lambda _id: None)
    options = {"note": None, "secrets": frozenset(), "restart": None}
    assert list(policies_of(made.values(), CycleTime(), **options)) == ["b", "c"]


def test_a_restart_begins_from_nothing_and_an_init_that_fails_is_tried_again(monkeypatch):
    class Remembers(Task):
        fails: ClassVar[bool] = False

        def __init__(self, config):
            super().__init__(config)
            if self.fails:
                raise OSError("cannot be made")

        def start(self, ctx):
            self.calls = [*getattr(self, "calls", []), "start"]

        def stop(self, ctx):
            raise KeyboardInterrupt

        def process(self, ctx: Context, number: Input[IntMsg]) -> None: ...

    warned = []
    task, ctx = Remembers(TaskConfig()), SimpleNamespace()
    ctx.log = SimpleNamespace(warning=lambda text, **fields: warned.append((text, fields["error"])))
    made = SimpleNamespace(task=task, ctx=ctx)
    task.start(ctx)
    config = task.config
    with telling_interrupts():
        restart_task(made)
        assert (task.calls, task.config) == (["start"], config)
        Remembers.fails = True
        with pytest.raises(OSError, match="cannot be made"):
            restart_task(made)
        assert task.config is config
        Remembers.fails = False
        restart_task(made)
    assert task.calls == ["start"]
    assert warned == [("stop failed before a restart", "KeyboardInterrupt: ")] * 3


def test_an_error_from_the_log_is_noted_as_it_was():
    recorded = RecordedError("OSError: s3cret", "f: line")
    options = {"policy": "skip", "phase": "configure", "secrets": frozenset({"s3cret"})}
    assert failed("t", recorded, **options) == Failed(
        "t", "skip", "OSError: s3cret", "configure", "f: line"
    )


@pytest.mark.parametrize("mark", ["", "!"])
def test_what_configure_raised_is_named_so(tmp_path, mark):
    tasks = f"n=Hooked(limit: 9); p=engine_tasks.HeldPicky{mark}"
    live = Run(
        plan_of(tmp_path, tasks, "n > p"),
        clock=ManualClock(START_NS, step_ns=1000),
        directory=tmp_path / "run",
    )
    live.set_live("p", {"gain": 2})
    helpers.Hooked.hook = lambda number: helpers.until(
        lambda: not mark or not live.executor.workers["p"].jobs.working
    )
    cycle = 2 if mark else 0
    assert str(live.run().error) == (
        f"task 'p' failed in configure, cycle {cycle}: ValueError: no gain of 2"
    )
    replays_whole(tmp_path)
