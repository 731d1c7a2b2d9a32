"""Which task's code a thread is in."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref

import pytest

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.engine.executor import Executor
from flowrun.runtime.run.live import Run
from flowrun.runtime.task import TaskConfig
from flowrun.tasks.basic import Square
from support.engine_tasks import Looks
from support.helpers import START_NS, plan_of
from support.stages import TESTS

S = 1_000_000_000


def looking(tmp_path, mark):
    """A run in which task t looks, in each of its methods, what the engine has called:
    [(method, (task, method), task of its stack)]."""
    plan = plan_of(
        tmp_path,
        f"n=Numbers(limit: 4); t=engine_tasks.Looks{mark}@on_error: restart",
        "n > t",
        "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 1}",
    )
    live = Run(plan, clock=ManualClock(START_NS, step_ns=S), directory=tmp_path / "run")
    whereabouts, found = live.executor.whereabouts, []

    def look(method):
        frame = sys._getframe(1)
        [busy] = [it for it in live.busy() if it.task == "t"]
        assert busy.for_s >= 0
        found.append((method, busy.method, whereabouts.task_of(frame)))
        thread = threading.Thread(target=lambda: elsewhere.append(whereabouts.task_of(frame)))
        thread.start()
        thread.join()

    elsewhere = []
    Looks.look = staticmethod(look)
    live.set_live("t", {"gain": 2})
    assert live.run().error is None
    assert set(elsewhere) == {"t"}
    assert live.busy() == []
    return found


@pytest.mark.parametrize("mark", ["", "!"])
def test_each_method_of_a_task_is_named_while_it_runs(tmp_path, mark):
    found = looking(tmp_path, mark)
    assert {task for *_, task in found} == {"t"}
    named = {(method, said) for method, said, _ in found}
    within_restart = {("stop", "restart"), ("start", "restart")}
    assert named - within_restart == {
        (method, method) for method in ("start", "configure", "process", "freeze", "stop")
    }
    if not mark:
        assert within_restart < named
    assert found[0][:2] == ("start", "start")
    assert found[-1][:2] == ("stop", "stop")


def test_a_task_that_is_interrupted_is_named(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 9); t=engine_tasks.Looks(waits: true)!", "n > t")
    live = Run(plan, clock=ManualClock(START_NS), directory=None)
    found = []

    def look(method):
        if method == "process":
            live.stop("enough")
        found.append((method, sorted(it.method for it in live.busy() if it.task == "t")))

    Looks.look = staticmethod(look)
    live.run()
    assert found[-2:] == [("interrupt", ["interrupt", "process"]), ("stop", ["stop"])]


def test_the_step_that_hands_over_to_a_worker_is_not_the_tasks(tmp_path, monkeypatch):
    plan = plan_of(tmp_path, "n=Numbers(limit: 1); t=Free!", "n > t")
    live = Run(plan, clock=ManualClock(START_NS), directory=None)
    worker, said = live.executor.workers["t"], []
    submit = worker.submit

    def submitting(job):
        said.append(live.executor.whereabouts.call_in(sys._getframe()))
        return submit(job)

    monkeypatch.setattr(worker, "submit", submitting)
    live.run()
    assert said == [None]


def test_what_runs_longest_is_first_and_a_call_that_goes_on_is_one(tmp_path, monkeypatch):
    plan = plan_of(tmp_path, "n=Hooked(limit: 1); t=engine_tasks.Looks(waits: true)!", "n > t")
    live = Run(plan, clock=ManualClock(START_NS), directory=None)
    now_s = iter([10.0, 13.0, 17.0])
    monkeypatch.setattr("flowrun.runtime.engine.whereabouts.monotonic_s", lambda: next(now_s))
    found = []

    def look(method):
        if method == "process":
            live.busy()
            live.stop("enough")
        if method == "interrupt":
            found.append([(it.method, it.for_s) for it in live.busy()])
            found.append([(it.method, it.for_s) for it in live.busy()])

    Looks.look = staticmethod(look)
    live.run()
    assert found == [
        [("process", 3.0), ("interrupt", 0.0)],
        [("process", 7.0), ("interrupt", 4.0)],
    ]


class Large:
    """What a function has in a variable."""


def test_who_looks_at_stacks_keeps_nothing_of_them(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers@deadline_ms: 100; s=Scale", "n > s")
    executor = Run(plan, clock=ManualClock(START_NS), directory=None).executor
    began, may_end, found = threading.Event(), threading.Event(), []

    def work():
        large = Large()
        found.append(weakref.ref(large))
        began.set()
        may_end.wait()

    gc.disable()
    try:
        thread = threading.Thread(target=work)
        thread.start()
        began.wait()
        executor.whereabouts.busy()
        executor.watchdog.look(0.0)
        may_end.set()
        thread.join()
        assert found[0]() is None
    finally:
        gc.enable()


@pytest.mark.timeout(240)
def test_a_look_at_stacks_is_safe_while_garbage_lets_their_threads_run():
    program = [sys.executable, "-m", "support.looked_at"]
    done = subprocess.run(program, cwd=TESTS, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def said(tmp_path):
    """`said(module, first)`: whose the code is of a function of that module, called with that."""
    tasks = "n=Numbers; x=Scale; t=engine_tasks.Looks; c=Scale"
    plan = plan_of(tmp_path, tasks, "n > x; n > t; n > c")
    executor = Executor(plan, clock=ManualClock(START_NS))
    executor.instances["c"].task = Square(TaskConfig())

    def said(module, *first):
        names = {"__name__": module}
        exec("def called(*args): return inner(*args)", names)
        exec("def inner(it, look): return look()", names)
        exec("def alone(look): return look()", names)
        look = lambda: executor.whereabouts.task_of(sys._getframe())  # noqa: E731
        if not first:
            return names["alone"](look)
        made = executor.instances.get(first[0])
        return names["called"](first[0] if made is None else made.task, look)

    return said


@pytest.mark.parametrize(
    ("module", "first", "task"),
    [
        ("elsewhere", "x", "x"),
        ("elsewhere", "a text", None),
        ("elsewhere", None, None),
        ("flowrun.runtime.somewhere", "x", None),
        ("support.engine_tasks", "a text", "t"),
        ("support.engine_tasks", None, "t"),
        ("support.helpers", "a text", None),  # of two tasks
        ("support.helpers", "n", "n"),
        ("flowrun.tasks.basic", "a text", None),
        ("flowrun.tasks.basic", "c", "c"),
    ],
)
def test_code_outside_the_engine_is_of_the_task_that_it_has_or_of_the_only_one_of_its_module(
    said, module, first, task
):
    assert said(module, *([] if first is None else [first])) == task


def test_a_thread_that_calls_no_task_is_in_none(tmp_path):
    executor = Executor(plan_of(tmp_path, "n=Numbers"), clock=ManualClock(START_NS))
    assert executor.whereabouts.call_in(None) is None
    assert executor.whereabouts.call_in(sys._getframe()) is None
    begin, said = executor._outside.begin, []

    def begins(*args):
        said.append(executor.whereabouts.call_in(sys._getframe()))
        return begin(*args)

    executor._outside.begin = begins
    executor.run(cycles=1)
    assert said == [None]  # no step has begun
