"""Stopping the log of a run, and beginning it again."""

import threading
from contextlib import contextmanager

import pytest

from flowrun.runtime import Log
from flowrun.runtime.clock import LiveClock
from flowrun.runtime.errors import UsageError
from flowrun.runtime.run.live import Run
from support import helpers
from support.films import draw

PACED = "runtime: {rate_hz: 1000}\nlogging: {slab_size_mib: 4, section_size_mib: 1"


@contextmanager
def running(plan, directory):
    """The run, while its cycles go on on a thread of their own."""
    run = Run(plan, clock=LiveClock(), directory=directory)
    results = []
    thread = threading.Thread(target=lambda: results.append(run.run()))
    thread.start()
    try:
        yield run
    finally:
        run.stop("the test")
        thread.join(30)
    assert results[0].error is None


def passing(run, cycles):
    """Until some more cycles have passed."""
    until = run.executor.cycles + cycles
    while run.executor.cycles < until:
        threading.Event().wait(0.002)


def logs(folder):
    return sorted(path for path in folder.iterdir() if path.is_dir())


def numbers_of(path):
    with Log(path) as log:
        return [record.cycle for record in log.cycles() if record.entries]


@pytest.fixture
def plan(tmp_path):
    return helpers.plan_of(
        tmp_path,
        "n=Numbers(limit: 1000000000); s=Sum; t=Free!",
        "n>s.a:IntMsg; n>t:IntMsg",
        more=f"{PACED}, keyframe_interval: 20}}",
    )


def test_each_stretch_is_a_log_that_says_where_the_gap_is_and_replays(tmp_path, plan):
    with running(plan, tmp_path / "runs" / "g-1") as run:
        passing(run, 30)
        assert run.record(False)
        assert not run.record(False)
        assert not run.report().log.on
        passing(run, 30)
        assert run.record(True)
        assert not run.record(True)
        assert run.report().log.on
        passing(run, 50)
        first, second = logs(tmp_path / "runs")
        assert run.directory == second
    with Log(first) as log:
        end, stopped_at = log.end, numbers_of(first)[-1] + 1
        assert (end["reason"], end["cycles"]) == ("recording stopped", str(stopped_at))
    with Log(second) as log:
        assert log.metadata["continues"] == first.name
        assert log.metadata["gap_from_cycle"] == str(stopped_at)
        assert log.end["reason"] == "the test"
    cycles = numbers_of(second)
    assert cycles[0] >= stopped_at + 30
    assert cycles == list(range(cycles[0], cycles[-1] + 1))
    assert numbers_of(first)
    for path in (first, second):
        keyframes, _ = helpers.replay_from_everywhere(path)
        assert len(keyframes) >= 2


@pytest.mark.long
def test_a_camera_goes_on_from_pictures_that_can_be_decoded(tmp_path):
    film = draw(tmp_path / "film.mp4", bf="0")
    plan = helpers.plan_of(
        tmp_path,
        f"cam=VideoCapture(source_uri: {film}, loop: true); m=Mean",
        "cam>m:ImageRgb8Msg",
        more=f"{PACED}}}",
    )
    with running(plan, tmp_path / "runs" / "g-1") as run:
        passing(run, 20)
        run.record(False)
        passing(run, 20)
        run.record(True)
        passing(run, 60)
    for path in logs(tmp_path / "runs"):
        helpers.replay_from_everywhere(path)


def test_a_run_without_a_log_has_none_to_stop(plan):
    with running(plan, None) as run:
        passing(run, 1)
        with pytest.raises(UsageError, match="^the run keeps no log$"):
            run.record(False)


def test_a_run_that_ends_meanwhile_is_finished_once(tmp_path, plan):
    with running(plan, tmp_path / "runs" / "g-1") as run:
        passing(run, 5)
        run.record(False)
    with pytest.raises(UsageError, match="^the run has ended$"):
        run.record(True)
    [only] = logs(tmp_path / "runs")
    with Log(only) as log:
        assert log.end["reason"] == "recording stopped"


def test_an_end_at_once_leaves_a_log_alone_that_is_being_removed(tmp_path, monkeypatch, plan):
    """As by a second Ctrl-C just after one that ended the run while its tasks started."""
    run = Run(plan, clock=LiveClock(), directory=tmp_path / "run")
    discard, finished, results = run.writer.discard, [], []
    second = threading.Thread(target=lambda: results.append(run.end_now("SIGINT")))

    def discard_slowly():
        second.start()
        second.join(0.2)  # it waits for the end of this
        discard()

    monkeypatch.setattr(run.writer, "discard", discard_slowly)
    finish = run.writer.finish
    monkeypatch.setattr(run.writer, "finish", lambda end: (finished.append(end), finish(end)))
    monkeypatch.setattr(run.executor, "run", lambda **_: "SIGINT")  # as one that is stopped at once
    assert run.run().error is None
    second.join()
    assert [it.error for it in results] == [None]
    assert [it["reason"] for it in finished] == ["discarded"]
    assert not list((tmp_path / "run").glob("*.mcap"))
