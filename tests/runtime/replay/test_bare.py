"""Messages that were logged without payload: whether and when they came is compared."""

from __future__ import annotations

import pytest

from flowrun.msgs import IntMsg
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.recorder import ReplayLog
from flowrun.runtime.replay.replay import Replay, Tolerance
from flowrun.runtime.replay.verify import verify_keyframes
from flowrun.runtime.task import Context, Input, Output
from support import helpers
from support.determinism import messages_of
from support.helpers import START_NS, plan_of, record, replay_from_everywhere

BARE = "@logging: {payload: none}"
SMALL = "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 2}"


@pytest.fixture
def run(tmp_path):
    tasks = f"n=Numbers(limit: 6); e=Evens{BARE}; x=Scale; t=Total{BARE}"
    record(plan_of(tmp_path, tasks, "n > e; e > x; n > t", SMALL), tmp_path / "run")
    return tmp_path / "run"


def replay(directory, **options):
    with Log(directory) as log:
        return Replay(log, env={}, **options).run()


def test_they_are_compared_and_counted(run):
    report = replay(run)
    assert (report.first, report.cycles) == (None, 7)
    assert (report.compared, report.bare) == (12, 9)
    assert report.per_task == {"e": 3, "x": 3, "t": 6}
    assert replay_from_everywhere(run)[0] == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("made", "found"),
    [
        (lambda value, tov_ns: (1, tov_ns), None),  # no payload to compare with
        (lambda value, tov_ns: (value, tov_ns + (value == 2)), (2, "tov_ns", "{tov}", "{tov+1}")),
        (lambda value, tov_ns: (0, tov_ns if value < 4 else None), (4, "", "a message", "no message")),
    ],
    ids=["another value", "another time", "none"],
)  # fmt: skip
def test_a_message_that_came_otherwise_is_a_difference(run, monkeypatch, made, found):
    class Other(helpers.Evens):
        def process(self, ctx: Context, number: Input[IntMsg], even: Output[IntMsg]) -> None:
            even.value, tov_ns = made(number.value, number.tov_ns)
            if number.value % 2 == 0 and tov_ns is not None:
                even.publish(tov_ns=tov_ns)

    with Log(run) as log:
        tov = {it.cycle: it.tov_ns for it in log.messages("/e/even")}
    monkeypatch.setattr(helpers, "Evens", Other)
    report = replay(run, tolerance=Tolerance({"IntMsg": 1e18}))
    if found is None:
        assert report.first is None
        return
    cycle, field, *texts = found
    recorded, replayed = (
        text.format(**{"tov": tov[cycle], "tov+1": tov[cycle] + 1}) for text in texts
    )
    first = report.first
    assert (first.cycle, first.task, first.port) == (cycle, "e", "even")
    assert (first.field, first.recorded, first.replayed) == (field, recorded, replayed)


def test_a_message_that_did_not_come_before_is_a_difference(run, monkeypatch):
    class All(helpers.Evens):
        def process(self, ctx: Context, number: Input[IntMsg], even: Output[IntMsg]) -> None:
            even.publish(tov_ns=number.tov_ns)

    monkeypatch.setattr(helpers, "Evens", All)
    first = replay(run, only=["e"]).first
    assert str(first) == (
        "cycle 1, task 'e', port 'even':\n  recorded: no message\n  replayed: IntMsg(value=0)"
    )


def test_what_is_fed_is_not_compared_and_a_replay_of_a_replay_finds_the_same(run, tmp_path):
    report = replay(run, only=["t"])
    assert (report.first, report.per_task, report.bare) == (None, {"t": 6}, 6)
    for name, feed in (("whole", []), ("part", ["t"])):
        with Log(run) as log:
            again = Replay(log, env={}, feed=feed)
            with ReplayLog(again, tmp_path / name, config={}, now_ns=START_NS) as recorder:
                again.run(recorder=recorder)
        assert messages_of(tmp_path / name) == messages_of(run)
        report = replay(tmp_path / name)
        assert (report.first, report.bare) == (None, 3 if feed else 9)


def test_a_background_tasks_results_are_compared_in_the_cycles_in_which_they_appeared(tmp_path):
    plan = plan_of(tmp_path, f"n=Hooked(limit: 9); f=Free!{BARE}; x=Scale", "n > f; n > x", SMALL)

    def wait(live, number):
        worker = live.executor.workers["f"]
        helpers.until(lambda: not worker.jobs.working)

    assert helpers.run_hooked(plan, tmp_path / "run", wait).error is None
    report = replay(tmp_path / "run")
    assert (report.first, report.bare, report.per_task) == (None, 9, {"f": 9, "x": 9})
    assert len(replay_from_everywhere(tmp_path / "run")[0]) == 6


def test_a_task_that_forgets_its_time_is_named_and_none_downstream(tmp_path, monkeypatch):
    class Late(helpers.Scale):
        """Publishes one nanosecond later each time, and forgets how often it did."""

        def start(self, ctx: Context) -> None:
            super().start(ctx)
            self.calls = 0

        def process(self, ctx: Context, number: Input[IntMsg], scaled: Output[IntMsg]) -> None:
            scaled.value = number.value
            scaled.publish(tov_ns=number.tov_ns + self.calls)
            self.calls += 1

        def freeze(self) -> None: ...

        def thaw(self, state: None) -> None: ...

    monkeypatch.setattr(helpers, "Late", Late, raising=False)
    tasks = f"n=Numbers(limit: 6); l=Late{BARE}; x=Scale"
    record(plan_of(tmp_path, tasks, "n > l; l > x", SMALL), tmp_path / "run")
    with Log(tmp_path / "run") as log:
        found = verify_keyframes(Replay(log, env={}), count=9)
    assert (found.unsteady, list(found.forgetful)) == ({}, ["l"])
