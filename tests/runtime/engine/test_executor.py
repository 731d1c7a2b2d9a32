from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from flowrun.runtime.clock import LiveClock, ManualClock
from flowrun.runtime.engine import keyframes
from flowrun.runtime.engine.executor import Executor
from flowrun.runtime.engine.waiting import IDLE_POLL_NS
from flowrun.runtime.errors import LogError, TaskDefinitionError, TaskError, UsageError
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log.reader import Log
from flowrun.runtime.run.live import Run
from support.helpers import START_NS, Hooked, Patient, Scale, Slow, plan_of, record


def run(plan, **options):
    executor = Executor(plan, clock=ManualClock(START_NS, step_ns=1000))
    reason = executor.run(**options)
    return executor, reason


def test_runs_until_the_sources_end(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 4); c=Collect", "n > c")
    executor, reason = run(plan)
    assert reason == "end of sources"
    assert executor.instances["c"].task.seen == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert executor.cycles == 5  # the source's end is logged in a cycle of its own


def test_ends_after_the_cycles_asked_for(tmp_path):
    executor, reason = run(plan_of(tmp_path, "n=Numbers(limit: 99)"), cycles=3)
    assert (executor.cycles, reason) == (3, "the limit of 3 cycles")


def test_an_absent_input_skips_the_step_and_shows_nothing_stale(tmp_path):
    plan = plan_of(
        tmp_path,
        "n=Numbers(limit: 5); e=Evens; c=Collect",
        "n > e; e > c",
        "runtime: {ring_size: 2}",
    )
    executor, _ = run(plan)
    assert executor.instances["c"].task.seen == [(0, 0), (2, 2), (4, 4)]


def test_an_absent_optional_input_is_none(tmp_path):
    plan = plan_of(
        tmp_path, "n=Numbers(limit: 4); e=Evens; s=Sum; c=Collect", "n > s.a; e > s.b; n > e; s > c"
    )
    executor, _ = run(plan)
    assert [value for _, value in executor.instances["c"].task.seen] == [0, 1, 5, 8]


def test_the_time_is_fixed_within_a_cycle_and_never_goes_back(tmp_path):
    _, result = record(plan_of(tmp_path, "n=Numbers(limit: 3); x=Scale", "n > x"), tmp_path / "run")
    assert result.error is None
    with Log(tmp_path / "run") as log:
        times = [cycle.time_ns for cycle in log.cycles()]
        tov = [m.tov_ns for m in log.messages("/x/scaled")]
    assert times == sorted(set(times))
    assert tov == [time - 5 for time in times[:3]]


def test_a_task_error_names_task_and_cycle_and_leaves_a_finished_log(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers; b=Boom; c=Collect", "n > b; b > c")
    _, result = record(plan, tmp_path / "run")
    assert str(result.error) == ("task 'b' failed in process, cycle 2: ValueError: cannot stand 2")
    with Log(tmp_path / "run") as log:
        assert log.finished
        assert log.end["error"] == str(result.error)
        assert [m.fields["value"] for m in log.messages("/n/number")] == [0, 1, 2]
        controls = [m.fields for m in log.messages("/flowrun/control")]
    assert controls[-1] == {
        "kind": "error", "task": "b", "key": "stop", "value": "ValueError: cannot stand 2",
        "input_cycle": -1,
        "place": 'Boom.process: raise ValueError(f"cannot stand {number.value}")',
    }  # fmt: skip


def test_a_field_that_is_none_is_named_with_its_task(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers; m=Mistyped", "n > m")
    _, result = record(plan, tmp_path / "run")
    assert str(result.error) == (
        "task 'm' failed in process, cycle 0: MessageTypeError: "
        "TextMsg has no field 'valeu'; fields: ['value']"
    )


def test_all_tasks_are_stopped_after_an_error(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers; b=Boom", "n > b")
    executor = Executor(plan, clock=ManualClock())
    stopped = []
    for id_, made in executor.instances.items():
        made.task.stop = lambda _ctx, id_=id_: stopped.append(id_)
    with pytest.raises(TaskError):
        executor.run()
    assert stopped == ["b", "n"]


def test_a_failing_start_stops_those_that_were_started(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers; b=Boom", "n > b")
    executor = Executor(plan, clock=ManualClock())
    stopped = []
    for id_, made in executor.instances.items():
        made.task.stop = lambda _ctx, id_=id_: stopped.append(id_)

    def fail(_ctx):
        raise OSError("no such device")

    executor.instances["b"].task.start = fail
    with pytest.raises(TaskError, match="^task 'b' failed in start: OSError: no such device$"):
        executor.run()
    assert stopped == ["b", "n"]


def test_a_live_value_changes_at_a_cycle_boundary_and_is_logged(tmp_path):
    plan = plan_of(tmp_path, "n=Hooked(limit: 4); x=Scale; c=Collect", "n > x; x > c")
    live = Run(plan, clock=ManualClock(START_NS, step_ns=1000), directory=tmp_path / "run")
    Hooked.hook = lambda number: live.set_live("x", {"factor": 3}) if number == 2 else None
    live.run()
    seen = live.executor.instances["c"].task.seen
    assert [value for _, value in seen] == [0, 10, 20, 9]
    assert live.executor.instances["x"].task.changes == [frozenset({"factor"})]
    with Log(tmp_path / "run") as log:
        sets = [(m.cycle, m.fields) for m in log.messages("/flowrun/control")]
    assert sets[0] == (
        3, {"kind": "set", "task": "x", "key": "", "value": {"factor": 3}, "input_cycle": -1},
    )  # fmt: skip


def test_a_bad_live_value_names_key_and_valid_ones(tmp_path):
    executor = Executor(plan_of(tmp_path, "n=Numbers; x=Scale", "n > x"), clock=ManualClock())
    for task, values, text in [
        ("y", {"factor": 1}, "unknown task 'y'; tasks: n, x"),
        ("x", {"fctor": 1}, "x.fctor: unknown key; keys that can change: factor"),
        ("n", {"limit": 1}, "n.limit: cannot change while the graph runs; keys that can change: none"),
        ("x", {"factor": "much"}, "x.factor: must be a whole number; got 'much'"),
    ]:  # fmt: skip
        with pytest.raises(UsageError) as caught:
            executor.set_live(task, values)
        assert str(caught.value) == text


def test_a_background_task_never_holds_up_the_cycle(tmp_path):
    plan = plan_of(tmp_path, "n=Hooked(limit: 50); s=Slow!; c=Collect", "n > s; n > c")

    def hook(number):
        if number == 1:
            assert Slow.began.acquire(timeout=240)  # the worker holds the first job ...
        if number == 50:  # ... until all cycles have passed
            Slow.gate.release(2)

    Hooked.hook = hook
    live, result = record(plan, tmp_path / "run")
    assert result.reason == "end of sources"
    assert len(live.executor.instances["c"].task.seen) == 50
    with Log(tmp_path / "run") as log:
        texts = [m.fields["value"] for m in log.messages("/s/text")]
        tov = [m.tov_ns for m in log.messages("/s/text")]
        completions = [
            (m.cycle, m.fields["input_cycle"])
            for m in log.messages("/flowrun/control")
            if m.fields["kind"] == "completion"
        ]
        numbers = {m.cycle: m.tov_ns for m in log.messages("/n/number")}
    # The first input, and the newest of those that came while it was busy.
    assert texts == ["seen 0 of cycle 0", "seen 49 of cycle 49"]
    assert [cycle for _, cycle in completions] == [0, 49]
    assert all(cycle > 49 for cycle, _ in completions)
    assert tov == [numbers[0], numbers[49]]
    assert live.executor.workers["s"].jobs.replaced == 48


def test_a_background_error_is_named_in_the_cycle_where_it_appears(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 3); b=Boom(at: 2)!", "n > b")
    _, result = record(plan, tmp_path / "run")
    assert "task 'b' failed in process" in str(result.error)
    assert str(result.error).endswith("ValueError: cannot stand 2")


def test_an_idle_run_sleeps(tmp_path):
    """No busy loop, which would ask the source thousands of times in half a second."""
    executor = Executor(plan_of(tmp_path, "n=Idle"), clock=LiveClock())
    begin_ns = time.monotonic_ns()
    thread = threading.Thread(target=executor.run)
    thread.start()
    thread.join(0.5)
    executor.stop("test")
    thread.join()
    took_ns = time.monotonic_ns() - begin_ns
    assert executor.cycles == 0
    assert executor.instances["n"].task.asked < 10 * took_ns / IDLE_POLL_NS


def test_sources_only_may_see_the_clock(tmp_path):
    executor = Executor(plan_of(tmp_path, "n=Numbers; x=Scale", "n > x"), clock=ManualClock(7))
    assert executor.instances["n"].ctx.clock_ns() == 7
    with pytest.raises(UsageError) as caught:
        executor.instances["x"].ctx.clock_ns()
    assert str(caught.value) == (
        "task 'x' has inputs: only sources may see the outside. "
        "Use ctx.now_ns for the time; it is the same in a replay"
    )


def test_secrets_of_the_environment_never_reach_the_log(tmp_path):
    text = (
        "tasks:\n"
        "  - {id: n, type: support.helpers.Numbers}\n"
        "  - {id: t, type: support.helpers.Tells, config: {password: '${PASSWORD}'}}\n"
        "cnx: [{src: n, dst: t, msg: IntMsg}]\n"
        "logging: {slab_size_mib: 1, section_size_mib: 1}\n"
    )
    spec = parse_graph(text, path=tmp_path / "g.yaml", env={"PASSWORD": "s3cret-word"})
    run, result = record(plan_graph(bind(spec)), tmp_path / "run")
    assert "cannot log in with" in str(result.error)
    [slab] = (tmp_path / "run").glob("*.mcap")
    assert b"cannot log in with ***" in slab.read_bytes()
    assert b"***" in slab.read_bytes()
    assert b"s3cret" not in slab.read_bytes()
    assert run.state() == {
        "Error": "task 't' failed in process, cycle 0: OSError: cannot log in with ***"
    }


def run_stopped_in_background(tmp_path):
    graph = parse_graph(
        "tasks:\n"
        "  - {id: n, type: support.helpers.Hooked, config: {limit: 50}}\n"
        "  - {id: s, type: support.helpers.Patient, background: true}\n"
        "cnx: [{src: n, dst: s, msg: IntMsg}]\n"
        "logging: {slab_size_mib: 4, section_size_mib: 1}\n",
        path=tmp_path / "g.yaml", env={},
    )  # fmt: skip
    live = Run(plan_graph(bind(graph)), clock=ManualClock(START_NS), directory=tmp_path / "run")

    def hook(number):
        if number == 1:
            assert Slow.began.acquire(timeout=240)
            live.stop("enough")

    Hooked.hook = hook
    with capture_logs() as records:
        result = live.run()
    assert (result.reason, result.error) == ("enough", None)
    return live, [(r["event"], r.get("task")) for r in records]


def test_a_background_call_is_interrupted_when_the_run_ends(tmp_path):
    live, said = run_stopped_in_background(tmp_path)
    assert not live.executor.workers["s"]._thread.is_alive()
    assert Patient.threads == [threading.current_thread().name] * len(Patient.threads)
    assert Patient.threads
    assert said == []


def test_a_background_task_that_does_nothing_is_not_interrupted(tmp_path):
    Patient.threads.clear()
    plan = plan_of(tmp_path, "n=Numbers(limit: 1); e=Evens@every: 2; s=Patient!", "n > e; e > s")
    executor = Executor(plan, clock=ManualClock(START_NS, step_ns=1000))
    Slow.gate.release()
    executor.run()
    assert (executor.cycles, Patient.threads) == (3, [])
    assert Slow.began.acquire(timeout=240)


def test_the_run_waits_for_a_background_call_and_ends_without_it(tmp_path, monkeypatch):
    monkeypatch.setattr(Patient, "deaf", True)
    monkeypatch.setattr("flowrun.runtime.engine.executor.WORKER_STOP_S", 0.05)
    live, said = run_stopped_in_background(tmp_path)
    failed = ("interrupt failed", "s")
    assert said == [
        failed, failed, ("waiting for its running call", "s"), failed,
        ("still running; the run ends without it", "s")
    ]  # fmt: skip
    Slow.gate.release()
    live.executor.workers["s"]._thread.join(30)


def test_a_state_keeps_words_that_merely_look_like_a_secret():
    secrets = frozenset({"camera", "s3cr", "a-long-password"})
    state = {"camera": "the camera", "uri": "rtsp://u:camera@h", 7: ["camera", b"xs3crx"], "n": 4}
    assert keyframes._without(state, secrets) == {
        "***": "the camera",
        "uri": "rtsp://***@h",
        7: ["***", b"x***x"],
        "n": 4,
    }
    assert keyframes._without({"__ndarray__": b"s3cr"}, secrets) == {"__ndarray__": b"s3cr"}


class Fullness:
    """A log that refuses to commit a cycle, or says when it is checked that it is full."""

    def __init__(self, *, at=None, checks=False):
        self.at, self.checks, self.committed, self.failed = at, checks, [], LogError("it is full")

    def check(self):
        if self.checks:
            raise self.failed

    def bind(self, messages):
        return messages

    def commit(self, cycle, *_args, **_more):
        if cycle == self.at:
            raise self.failed
        self.committed.append(cycle)


NUMBERED = "n=Numbers(limit: 4); b=Boom(at: {at})"


@pytest.mark.parametrize("log", [Fullness(at=2), Fullness(checks=True)])
def test_a_log_that_is_lost_ends_the_run_unless_somebody_goes_on_without(tmp_path, log):
    plan = plan_of(tmp_path, NUMBERED.format(at=9), "n > b")
    executor = Executor(plan, clock=ManualClock(START_NS, step_ns=1000), log=log)
    with pytest.raises(LogError, match="it is full"):
        executor.run()
    assert executor.stop_reason == "it is full"
    lost = []
    executor = Executor(
        plan, clock=ManualClock(START_NS, step_ns=1000), log=log, on_log_error=lost.append
    )
    log.committed.clear()
    assert executor.run() == "end of sources"
    assert (lost, executor.cycles) == ([log.failed], 5)
    assert log.committed == ([0, 1] if log.at else [0, 1, 2, 3, 4])


def test_an_error_of_a_task_counts_more_than_the_log_that_cannot_hold_it(tmp_path):
    plan = plan_of(tmp_path, NUMBERED.format(at=2), "n > b")
    log, lost = Fullness(at=2), []
    executor = Executor(
        plan, clock=ManualClock(START_NS, step_ns=1000), log=log, on_log_error=lost.append
    )
    with pytest.raises(TaskError, match="cannot stand 2") as caught:
        executor.run()
    assert (caught.value.__cause__, lost) == (log.failed, [])
    assert executor.stop_reason == str(caught.value)


def test_a_run_that_may_have_no_cycle_has_none(tmp_path):
    executor, reason = run(plan_of(tmp_path, "n=Numbers"), cycles=0)
    assert (executor.cycles, reason) == (0, "the limit of 0 cycles")


@pytest.mark.parametrize("turned", [False, True], ids=["", "into an error of a library"])
def test_an_interrupt_while_tasks_start_ends_the_run_before_its_first_cycle(tmp_path, turned):
    executor = Executor(
        plan_of(tmp_path, "n=Numbers; x=Scale; c=Collect", "n > x; x > c"),
        clock=ManualClock(START_NS, step_ns=1000),
    )
    seen, stopped = [], []
    executor.interrupt_start("too early")  # nothing starts yet
    assert executor.stop_reason is None

    def start(_ctx):
        seen.append((executor.starting, executor.has_started))
        try:
            executor.interrupt_start("enough")
        except KeyboardInterrupt as error:
            if turned:
                raise OSError("cancelled") from error
            raise

    executor.instances["x"].task.start = start
    for id_, made in executor.instances.items():
        made.task.stop = lambda _ctx, id_=id_: stopped.append(id_)
    assert executor.run() == "enough"
    assert (seen, stopped) == ([("x", False)], ["x", "n"])
    assert (executor.cycles, executor.has_started, executor.starting) == (0, False, None)


def test_a_run_that_is_stopped_while_a_task_starts_starts_no_other(tmp_path):
    executor = Executor(
        plan_of(tmp_path, "n=Numbers; x=Scale; c=Collect", "n > x; x > c"),
        clock=ManualClock(START_NS, step_ns=1000),
    )
    executor.instances["x"].task.start = lambda _ctx: executor.stop("enough")
    executor.stop_reason = None
    assert executor.run() == "enough"
    assert not hasattr(executor.instances["c"].task, "seen")
    assert not executor.has_started


def test_after_its_tasks_have_started_a_run_cannot_be_interrupted_only_stopped(tmp_path):
    executor = Executor(
        plan_of(tmp_path, "n=Hooked(limit: 2)"), clock=ManualClock(START_NS, step_ns=1000)
    )
    Hooked.hook = lambda _number: executor.interrupt_start("too late")
    assert executor.run() == "end of sources"
    assert executor.has_started


def test_the_first_reason_to_stop_is_the_one(tmp_path):
    executor = Executor(
        plan_of(tmp_path, "n=Hooked(limit: 9)"), clock=ManualClock(START_NS, step_ns=1000)
    )

    def hook(number):
        if number == 2:
            executor.stop("enough")
            executor.stop("once more")

    Hooked.hook = hook
    assert executor.run() == "enough"
    assert executor.cycles == 3


class Deaf:
    """A worker that ends within as many waits as the test says."""

    def __init__(self, waits):
        self.left, self.waited_s, self.interrupted, self.thread_id = waits, [], 0, None
        self.jobs = SimpleNamespace(busy=False)

    def start(self): ...

    def interrupt(self):
        self.interrupted += 1

    def stop(self, *, timeout_s):
        self.waited_s.append(timeout_s)
        return len(self.waited_s) >= self.left


def test_a_run_says_after_half_a_second_whom_it_waits_for_and_waits_8_s(tmp_path):
    tasks = "n=Numbers(limit: 0); a=Free!; b=Free!; c=Free!"
    executor = Executor(
        plan_of(tmp_path, tasks, "n > a; n > b; n > c"), clock=ManualClock(START_NS, step_ns=1000)
    )
    executor.workers.update(a=Deaf(1), b=Deaf(9), c=Deaf(2))
    with capture_logs() as said:
        executor.run()
    assert [it.waited_s for it in executor.workers.values()] == [[0.5], [0.5, 7.5], [0.5, 7.5]]
    assert {it.interrupted for it in executor.workers.values()} == {1}
    assert [(it["event"], it["task"], it.get("up_to_s")) for it in said] == [
        ("waiting for its running call", "b", 8.0),
        ("still running; the run ends without it", "b", None),
        ("waiting for its running call", "c", 8.0),
    ]


def test_a_run_waits_for_restarts_as_long_as_for_workers(tmp_path, monkeypatch):
    executor = Executor(
        plan_of(tmp_path, "n=Numbers(limit: 0); x=Scale", "n > x"),
        clock=ManualClock(START_NS, step_ns=1000),
    )
    asked, stopped = [], []
    executor._outside.restarts.end = lambda **times: asked.append(times) or {"n"}
    for id_, made in executor.instances.items():
        made.task.stop = lambda _ctx, id_=id_: stopped.append(id_)
    executor.run()
    assert asked == [{"silent_s": 0.5, "timeout_s": 8.0}]
    assert stopped == ["x"]


def test_a_run_waits_after_an_error_of_a_source_and_of_no_other_task(tmp_path):
    source = "n=RoughNumbers(limit: 4, fails_at: [2], set_at: {})@on_error: skip"
    plan = plan_of(tmp_path, f"{source}; b=Boom(at: 1)@on_error: skip", "n > b")
    executor = Executor(plan, clock=ManualClock(START_NS, step_ns=1000))
    waited = []
    executor._waiting.after_source_error = lambda: waited.append(executor.cycles)
    executor.run()
    assert waited == [3]


def test_something_may_come_from_a_source_that_goes_on_and_is_due(tmp_path):
    clock = ManualClock(7)
    executor = Executor(plan_of(tmp_path, "n=Numbers"), clock=clock)
    assert executor.awaits("n")
    executor.instances["n"].ctx.wake_at(9)
    assert not executor.awaits("n")
    clock.advance_to(9)
    assert executor.awaits("n")
    executor.instances["n"].ctx.finish()
    assert not executor.awaits("n")


def test_a_live_value_that_the_log_cannot_hold_is_refused(tmp_path):
    tasks = "n=Numbers; b=fault_tasks.Bounds"
    executor = Executor(
        plan_of(tmp_path, tasks, "n > b"), clock=ManualClock(START_NS, step_ns=1000)
    )
    for values, what in [
        ({"lo": -(2**70)}, "{'lo': -11805"),
        ({"word": "half \ud83d"}, "{'word': "),
    ]:
        with pytest.raises(UsageError, match=re.escape(f"b: the log cannot hold {what}")):
            executor.set_live("b", values)
    executor.set_live("b", {"lo": 4})
    with pytest.raises(UsageError, match="lo must not exceed hi"):
        executor.set_live("b", {"hi": 3})  # with the one that waits


def test_packets_are_asked_of_sources_whose_pictures_are_logged_as_packets(tmp_path):
    plan = plan_of(tmp_path, "a=Numbers; b=Numbers; c=Numbers; d=Numbers")
    a, b, c, d = plan.slots
    slots = (
        replace(a, codec="packets"),
        b,
        replace(c, codec="packets", logged=False),
        replace(d, codec="packets", payload=False),
    )
    plan = replace(plan, slots=slots)
    for log, asked in ((Fullness(), ["a"]), (None, [])):
        executor = Executor(plan, clock=ManualClock(START_NS, step_ns=1000), log=log)
        made = executor.instances.values()
        assert [it.id for it in made if it.ctx.logs_packets] == asked


def test_a_run_keeps_when_its_last_cycles_began_and_each_step_ended(tmp_path):
    executor, _ = run(plan_of(tmp_path, "n=Numbers(limit: 3); x=Scale", "n > x"))
    assert len(executor.timings) == executor.cycles == 4
    for start_ns, ends_ns, _ in executor.timings:
        assert len(ends_ns) == 2
        assert start_ns <= ends_ns[0] <= ends_ns[1]


def test_a_run_keeps_which_tasks_published_in_its_last_cycles(tmp_path):
    tasks = "n=Numbers(limit: 4); x=Scale@every: 2; f=Flaky(at: [1])@on_error: skip_cycle; y=Scale"
    executor, _ = run(plan_of(tmp_path, tasks, "n > x; n > f; n > y"))
    slots = [slot.task_id for slot in executor.plan.slots]
    published = [
        {task for task, is_there in zip(slots, there, strict=True) if is_there}
        for _, _, there in executor.timings
    ]
    all_of_them = {"n", "x", "f", "y"}
    assert published == [all_of_them, {"n"}, all_of_them, {"n", "f", "y"}, set()]


@pytest.mark.parametrize(("interval", "cycles"), [(2, [0, 2, 4]), (3, [0, 3]), (0, [])])
def test_a_keyframe_is_taken_at_its_interval_from_the_first_cycle_on(tmp_path, interval, cycles):
    more = f"logging: {{slab_size_mib: 1, section_size_mib: 1, keyframe_interval: {interval}}}"
    record(plan_of(tmp_path, "n=Numbers(limit: 4); s=Sum", "n > s.a", more), tmp_path / "run")
    with Log(tmp_path / "run") as log:
        assert [m.cycle for m in log.messages("/flowrun/keyframe")] == cycles


def _of_a_dataclass(task, count=0):
    task.count = count


def _of_its_own(task, config):
    task.config = {"factor": config.factor}


@pytest.mark.parametrize(
    ("init", "text"),
    [
        (_of_a_dataclass, "Scale.__init__ does not call super().__init__(config)"),
        (
            _of_its_own,
            "Scale.__init__ makes self.config a dict; leave it to super().__init__(config), and give "
            "what you keep another name",
        ),
    ],
)
def test_a_task_that_does_not_take_its_config_is_refused(tmp_path, monkeypatch, init, text):
    monkeypatch.setattr(Scale, "__init__", init)
    with pytest.raises(TaskDefinitionError) as caught:
        run(plan_of(tmp_path, "n=Numbers(limit: 4); s=Scale", "n > s"))
    assert str(caught.value) == text
