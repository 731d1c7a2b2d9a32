"""A task that hangs is named while it does."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest

from flowrun.runtime.clock import LiveClock
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
