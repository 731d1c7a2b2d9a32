"""A task that hangs is named while it does."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from flowrun.runtime.clock import LiveClock
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine import watchdog
from flowrun.runtime.engine.instances import make_instances
from flowrun.runtime.engine.watchdog import Late, Watchdog
from flowrun.runtime.engine.whereabouts import Call
from flowrun.runtime.log.reader import Log
from flowrun.runtime.run.live import Run
from support.engine_tasks import Hangs
from support.helpers import plan_of, until


@contextmanager
def hanging(tmp_path, where, keys):
    """A run whose task hangs, until the context ends."""
    Hangs.go_on, Hangs.began = threading.Event(), threading.Event()
    more = "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 1}"
    tasks = f"n=Numbers(limit: 2); h=engine_tasks.Hangs(where: {where}){keys}"
    run = Run(
        plan_of(tmp_path, tasks, "n > h", more), clock=LiveClock(), directory=tmp_path / "run"
    )
    if where == "configure":
        run.set_live("h", {"gain": 2})
    thread = threading.Thread(target=run.run)
    thread.start()
    try:
        yield run
    finally:
        Hangs.go_on.set()
        thread.join()


def lines(tmp_path):
    with Log(tmp_path / "run") as log:
        return [line.fields for line in log.messages("/flowrun/log")]


@pytest.mark.parametrize(
    ("where", "mark"),
    [("process", ""), ("process", "!"), ("configure", ""), ("freeze", "")],
)
def test_a_task_beyond_its_deadline_is_named_until_it_goes_on(tmp_path, where, mark):
    with hanging(tmp_path, where, f"{mark}@deadline_ms: 20") as run:
        until(lambda: run.report().tasks["h"].late_s is not None)
        report = run.report()
        assert (report.tasks["n"].late_s, report.tasks["h"].late_s >= 0) == (None, True)
        if not mark:
            assert report.cycle_rate_hz == 0
        assert [late.method for late in run.executor.watchdog.late.values()] == [where]
        Hangs.go_on.set()
        until(lambda: run.report().tasks["h"].late_s is None)
    said, *rest = [line for line in lines(tmp_path) if line["name"] == "h"]
    assert (said["level"], said["message"]) == ("WARNING", f"still in {where}, beyond its deadline")
    assert said["fields"]["deadline_ms"] == 20
    assert "engine_tasks.py" in said["fields"]["at"]
    assert said["fields"]["at"].endswith("in _hang_in: assert self.go_on.wait(30)")
    assert [line["message"] for line in rest][:1] in ([], [f"{where} has ended"])


def test_a_task_within_its_deadline_or_without_one_is_not_named(tmp_path):
    for deadline_ms in (600_000, 0):
        place = tmp_path / str(deadline_ms)
        with hanging(place, "process", f"@deadline_ms: {deadline_ms}") as run:
            until(Hangs.began.is_set)
            watchdog = run.executor.watchdog
            watchdog.look(0.0)
            watchdog.look(599.0)
            assert not watchdog.late


def test_what_hangs_for_long_is_logged_once_a_minute_and_its_end_too(tmp_path):
    with hanging(tmp_path, "process", "@deadline_ms: 600000") as run:
        until(Hangs.began.is_set)
        for now_s in (0.0, 601.0, 602.0, 659.0, 662.0):
            run.executor.watchdog.look(now_s)
        assert run.executor.watchdog.late["h"].since_s == 0.0
    run.executor.watchdog.look(700.0)
    said = [line["fields"] for line in lines(tmp_path) if line["name"] == "h"]
    assert [(line.get("since_s"), line["deadline_ms"]) for line in said] == [
        (601.0, 600_000), (662.0, 600_000)
    ]  # fmt: skip
    assert not run.executor.watchdog.late


def test_no_thread_of_a_run_keeps_the_process_from_ending(tmp_path):
    before = set(threading.enumerate())
    with hanging(tmp_path, "process", "!@deadline_ms: 600000"):
        until(Hangs.began.is_set)
        begun = set(threading.enumerate()) - before
        threads = {it.name: it.daemon for it in begun if "flowrun-" in it.name}
    assert {"flowrun-h", "flowrun-watchdog"} <= threads.keys()
    assert all(threads.values())


class Whereabouts:
    """Says of each thread what the test says."""

    def __init__(self):
        self.calls = {}

    def call_in(self, frame):
        return self.calls.get(frame)


@pytest.fixture
def dog(tmp_path, monkeypatch):
    """A watchdog over a (deadline 2 s), b in the background (3 s) and c (none). `dog.does(a=1)`: that
    a is in its first call; `lines` are what it logged."""
    tasks = (
        "n=Numbers; a=Scale@deadline_ms: 2000; b=Free!@deadline_ms: 3000; c=Scale@deadline_ms: 0"
    )
    plan = plan_of(
        tmp_path, tasks.replace("n=Numbers", "n=Numbers@deadline_ms: 0"), "n > a; n > b; n > c"
    )
    instances = make_instances(plan, CycleTime(), source=lambda _id: None)
    whereabouts = Whereabouts()
    made = Watchdog(whereabouts, instances, {"b": SimpleNamespace(thread_id=2)})
    made.lines = []
    for id_, it in instances.items():

        def line(text, id_=id_, **fields):
            made.lines.append((id_, text, *fields.values()))

        it.ctx.log = SimpleNamespace(info=line, warning=line)
    made._cycles_thread = 1
    monkeypatch.setattr(watchdog, "stacks", lambda: {1: "cycles", 2: "worker"})
    monkeypatch.setattr(watchdog, "place_in", lambda _frame: None)

    def does(**numbers):
        threads = {"a": "cycles", "c": "cycles", "b": "worker"}
        whereabouts.calls = {
            threads[id_]: Call(id_, "process", number) for id_, number in numbers.items()
        }

    made.does = does
    return made


def test_a_call_is_late_from_its_deadline_on(dog):
    dog.does(a=1, b=7)
    for now_s, late in [(10.0, []), (11.9, []), (12.0, ["a"]), (12.9, ["a"]), (13.0, ["a", "b"])]:
        dog.look(now_s)
        assert sorted(dog.late) == late
    assert dog.late["b"] == Late("process", 10.0)
    assert dog.lines == [
        ("a", "still in process, beyond its deadline", 2.0, 2000),
        ("b", "still in process, beyond its deadline", 3.0, 3000),
    ]
    dog.does(b=7)
    dog.look(13.26)
    assert sorted(dog.late) == ["b"]
    assert dog.lines[2:] == [("a", "process has ended", 3.3)]


def test_another_call_of_the_task_has_time_of_its_own(dog):
    dog.does(a=1)
    dog.look(10.0)
    dog.does(a=2)
    dog.look(12.0)
    dog.look(13.9)
    assert (dog.late, dog.lines) == ({}, [])
    dog.look(14.0)
    assert dog.late == {"a": Late("process", 12.0)}


def test_what_has_no_deadline_is_never_late(dog):
    dog.does(c=1)
    dog.look(0.0)
    dog.look(1e6)
    assert (dog.late, dog.lines) == ({}, [])


def test_a_task_that_is_late_again_is_logged_once_a_minute(dog):
    dog.does(a=1)
    for now_s in (0.0, 2.0625, 61.9):
        dog.look(now_s)
    assert dog.lines == [("a", "still in process, beyond its deadline", 2.1, 2000)]
    dog.look(62.0625)
    assert dog.lines[1:] == [("a", "still in process, beyond its deadline", 62.1, 2000)]
    dog.does(a=2)
    dog.look(63.0)  # the end of what was logged
    dog.look(65.0)
    dog.does()
    dog.look(66.0)  # the end of what was not
    assert dog.lines[2:] == [("a", "process has ended", 63.0)]
    dog.does(a=3)
    dog.look(121.0)
    dog.look(123.0)
    assert dog.lines[3:] == [("a", "still in process, beyond its deadline", 2.0, 2000)]


@pytest.mark.parametrize(("deadlines_s", "pause_s"), [((2.0, 3.0), 0.5), ((9.0, 60.0), 1.0)])
def test_it_looks_four_times_within_the_shortest_deadline_and_once_a_second_at_least(
    dog, deadlines_s, pause_s
):
    dog._deadlines_s = dict(zip("ab", deadlines_s, strict=True))
    pauses, looked = [], []
    dog._ended = SimpleNamespace(wait=lambda it: pauses.append(it) or len(pauses) == 3)
    dog.look = looked.append
    dog._work()
    assert (pauses, len(looked)) == ([pause_s] * 3, 2)


def test_without_a_deadline_no_thread_looks():
    before = set(threading.enumerate())
    dog = Watchdog(Whereabouts(), {}, {})
    dog.start()
    assert set(threading.enumerate()) <= before
    dog.late = {"a": Late("process", 1.0)}
    dog.stop()
    assert dog.late == {}
