"""A source that is restarted does not hold up the cycles."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import ClassVar

import pytest

from flowrun.msgs import IntMsg
from flowrun.runtime.clock import LiveClock
from flowrun.runtime.engine import executor, policy
from flowrun.runtime.engine.restarts import Restarts
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from flowrun.runtime.task import Context, Output, Task, TaskConfig
from support.engine_tasks import SlowSource
from support.helpers import controls, plan_of, until, values


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run, on a thread, of a source that is being restarted and of one that goes on."""
    monkeypatch.setattr(policy, "_FIRST_PAUSE_NS", 1000)
    SlowSource.go_on, SlowSource.starts, SlowSource.fails = threading.Event(), [], False
    tasks = "s=engine_tasks.SlowSource@on_error: restart; n=Numbers(limit: 1000000)@rate_hz: 500"
    run = Run(plan_of(tmp_path, tasks), clock=LiveClock(), directory=tmp_path / "run")
    thread = threading.Thread(target=run.run)
    thread.start()
    until(lambda: len(SlowSource.starts) == 2)
    yield run
    SlowSource.go_on.set()
    run.stop("the test is over")
    thread.join()


def ended(run, tmp_path):
    until(lambda: run.executor._outside.sources["s"].has_ended)
    run.stop("the test is over")
    until(lambda: run.state() == "Stopped")
    with Log(tmp_path / "run") as log:
        assert Replay(log, env={}).run().first is None
    return [(kind, value) for _, kind, _, value in controls(tmp_path / "run", "error", "restart")]


def test_the_cycles_go_on_while_a_source_starts_again(run, tmp_path):
    before = run.executor.cycles
    until(lambda: run.executor.cycles > before + 3)
    assert len(SlowSource.starts) == 2
    SlowSource.go_on.set()
    assert ended(run, tmp_path) == [("error", "OSError: the cable is out"), ("restart", None)]
    assert [value for _, value in values(tmp_path / "run", "/s/number")] == [1, 1]


def test_a_restart_that_fails_is_the_tasks_error_and_is_tried_again(run, tmp_path):
    SlowSource.fails = True
    SlowSource.go_on.set()
    assert ended(run, tmp_path) == [
        ("error", "OSError: the cable is out"),
        ("error", "OSError: the camera does not answer"),
        ("restart", None),
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_a_value_that_is_set_meanwhile_is_what_the_source_starts_with(run, tmp_path, fails):
    SlowSource.fails = fails
    run.set_live("s", {"gain": 2})
    run.set_live("s", {"gain": 3})
    until(lambda: run.executor.cycle.policies["s"].config.gain == 3)
    SlowSource.go_on.set()
    assert ended(run, tmp_path) == [("error", "OSError: the cable is out"), ("restart", None)]
    assert SlowSource.starts == [1, 1, 3]
    assert [value for _, value in values(tmp_path / "run", "/s/number")] == [1, 3]


def test_a_run_ends_without_a_source_that_still_starts(run, monkeypatch):
    monkeypatch.setattr(executor, "WORKER_STOP_S", 0.01)
    monkeypatch.setattr(executor, "_SILENT_STOP_S", 0.01)
    stopped = []
    run.executor.instances["s"].task.stop = lambda _ctx: stopped.append("s")
    run.stop("the test is over")
    until(lambda: run.state() == "Stopped")
    assert stopped == []


def test_a_start_that_can_be_interrupted_ends_with_the_run(run):
    stopped = []
    task = run.executor.instances["s"].task
    task.interrupt = lambda _ctx: SlowSource.go_on.set()
    task.stop = lambda _ctx: stopped.append("s")
    run.stop("the test is over")
    until(lambda: run.state() == "Stopped")
    assert stopped == ["s"]


class Camera(Task):
    """Its `start` does what the test says."""

    starting: ClassVar[Callable[[Context], None]]

    def start(self, ctx: Context) -> None:
        type(self).starting(ctx)

    def process(self, ctx: Context, out: Output[IntMsg]) -> None: ...


def made_of(*ids):
    """A source for each id, whose log lines are kept."""
    lines = []

    def log_of(id_):
        def line(text, **fields):
            lines.append((id_, text, fields))

        return SimpleNamespace(info=line, warning=line)

    tasks = {}
    for id_ in ids:
        ctx = SimpleNamespace(task_id=id_, log=log_of(id_))
        tasks[id_] = SimpleNamespace(id=id_, task=Camera(TaskConfig()), ctx=ctx)
    return tasks, lines


def test_a_restart_under_way_is_asked_for_and_then_over(monkeypatch):
    tasks, _ = made_of("a")
    go_on, began, woken, threads = threading.Event(), threading.Event(), threading.Event(), []

    def starting(_ctx):
        threads.append((threading.current_thread().name, threading.current_thread().daemon))
        began.set()
        assert go_on.wait(30)
        if len(threads) == 1:
            raise OSError("no answer")

    monkeypatch.setattr(Camera, "starting", staticmethod(starting), raising=False)
    restarts = Restarts(woken.set, at_once_s=0.0)
    assert not restarts.restart(tasks["a"])
    assert began.wait(30)
    assert not restarts.restart(tasks["a"])
    assert not woken.is_set()
    go_on.set()
    assert woken.wait(30)
    with pytest.raises(OSError, match="no answer"):
        until(lambda: restarts.restart(tasks["a"]))
    # That one is over: the next call begins another.
    until(lambda: restarts.restart(tasks["a"]))
    assert threads == [("flowrun-restart-a", True)] * 2


def test_the_end_waits_for_each_restart_and_names_those_that_are_left(monkeypatch):
    tasks, lines = made_of("a", "b", "c", "d")
    restarts = Restarts(lambda: None, at_once_s=0.0)
    waits = {"a": [True], "b": [False, True], "c": [False, False], "d": [True]}
    asked = []
    for id_, answers in waits.items():

        def wait(timeout_s, id_=id_, answers=answers):
            asked.append((id_, timeout_s))
            return answers.pop(0)

        restarts._under_way[id_] = SimpleNamespace(made=tasks[id_], wait=wait)
    assert restarts.end(silent_s=0.5, timeout_s=8.0) == {"c"}
    assert asked == [("a", 0.5), ("b", 0.5), ("b", 8.0), ("c", 0.5), ("c", 8.0), ("d", 0.5)]
    assert lines == [
        ("b", "waiting for its start", {"up_to_s": 8.0}),
        ("c", "waiting for its start", {"up_to_s": 8.0}),
        ("c", "still starting; the run ends without it", {}),
    ]
