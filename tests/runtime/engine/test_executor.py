from __future__ import annotations

import threading
import time

import pytest
from structlog.testing import capture_logs

from flowrun.runtime.clock import LiveClock, ManualClock
from flowrun.runtime.engine import keyframes
from flowrun.runtime.engine.executor import Executor
from flowrun.runtime.engine.waiting import IDLE_POLL_NS
from flowrun.runtime.errors import TaskError, UsageError
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log.reader import Log
from flowrun.runtime.run.live import Run
from support.helpers import START_NS, Hooked, Patient, Slow, plan_of, record


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
            assert Slow.began.acquire(timeout=10)  # the worker holds the first job ...
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
            assert Slow.began.acquire(timeout=10)
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
    assert Slow.began.acquire(timeout=1)


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
    live.executor.workers["s"]._thread.join(10)


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
