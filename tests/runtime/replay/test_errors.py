"""Errors of a recorded run must come again: compared by task, type and place, not by text."""

from __future__ import annotations

import pytest

from flowrun.msgs import IntMsg
from flowrun.runtime.errors import TaskError
from flowrun.runtime.events import Failed
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.compare import is_same_error
from flowrun.runtime.replay.cycles import _shown
from flowrun.runtime.replay.recorder import ReplayLog
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.task import Context, Input, Output
from support import engine_tasks, helpers
from support.helpers import START_NS, controls, plan_of, record

GRAPH = "n=Numbers(limit: 3); a=engine_tasks.Addressed{}@on_error: {}"


def replay(directory, to):
    """Replay a run, and write that to `to`."""
    with Log(directory) as log:
        again = Replay(log, env={})
        with ReplayLog(again, to, config={}, now_ns=START_NS) as recorder:
            return again.run(recorder=recorder), again.notes


@pytest.mark.parametrize("mark", ["", "!"])
@pytest.mark.parametrize("policy", ["stop", "skip", "restart"])
def test_an_error_that_holds_an_address_comes_again_as_it_was_recorded(tmp_path, policy, mark):
    record(plan_of(tmp_path, GRAPH.format(mark, policy), "n > a"), tmp_path / "run")
    report, notes = replay(tmp_path / "run", tmp_path / "again")
    assert (report.first, notes) == (None, [])
    recorded = controls(tmp_path / "run", "error")
    assert recorded
    assert controls(tmp_path / "again", "error") == recorded
    assert (report.errors, report.recorded_error) == (
        (0, f"task 'a', cycle {recorded[0][0]}: {recorded[0][3]}")
        if policy == "stop"
        else (len(recorded), None)
    )


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_the_same_error_with_another_text_is_noted(tmp_path, monkeypatch, policy):
    record(plan_of(tmp_path, GRAPH.format("", policy), "n > a"), tmp_path / "run")
    [[_, _, _, text], *_] = controls(tmp_path / "run", "error")
    monkeypatch.setattr(engine_tasks.Addressed, "says", "will not have")
    report, [note] = replay(tmp_path / "run", tmp_path / "again")
    assert report.first is None
    assert note.startswith(
        "task 'a' raised the same error with another text, first in cycle 0: ValueError: will not have "
    )
    assert note.endswith(f"; recorded: {text}")
    assert controls(tmp_path / "again", "error") == controls(tmp_path / "run", "error")


class Elsewhere(engine_tasks.Addressed):
    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        raise ValueError("cannot use that")


class OfAnotherType(engine_tasks.Addressed):
    error = KeyError


@pytest.mark.parametrize("other", [Elsewhere, OfAnotherType])
def test_an_error_of_another_type_or_place_is_a_difference(tmp_path, monkeypatch, other):
    for policy in ("stop", "skip"):
        plan = plan_of(tmp_path, GRAPH.format("", policy), "n > a")
        record(plan, tmp_path / policy)
    monkeypatch.setattr(engine_tasks, "Addressed", other)
    first = replay(tmp_path / "skip", tmp_path / "again")[0].first
    assert (first.cycle, first.task, first.field) == (0, "a", "error")
    assert first.recorded.startswith("ValueError: cannot use <")
    with pytest.raises(TaskError, match="^task 'a' failed in process, cycle 0: "):
        replay(tmp_path / "stop", tmp_path / "again2")


PLACE = "T.process: raise ValueError(x)"


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        (("E: a", "process", PLACE), ("E: b", "process", PLACE), True),
        (("E: a", "process", PLACE), ("F: a", "process", PLACE), False),
        (("E: a", "process", PLACE), ("E: a", "configure", PLACE), False),
        (("E: a", "process", PLACE), ("E: b", "process", "T.process: f()"), False),
        (("E: a", "process", PLACE), ("E: a", "process", "T.process: f()"), True),
        (("E: a", "publish", ""), ("E: b", "publish", ""), False),
        (("E: at 0x7f00a0", "publish", ""), ("E: at 0x9", "publish", ""), True),
    ],
)
def test_what_makes_two_errors_the_same(before, now, same):
    [(text, phase, place), (other, now_phase, now_place)] = before, now
    recorded = Failed("t", "skip", text, phase, place)
    assert is_same_error(recorded, Failed("t", "skip", other, now_phase, now_place)) is same


class Never(engine_tasks.Addressed):
    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None: ...


def test_an_error_that_only_one_side_has_is_a_difference(tmp_path, monkeypatch):
    record(plan_of(tmp_path, GRAPH.format("", "skip"), "n > a"), tmp_path / "run")
    recorded = controls(tmp_path / "run", "error")
    with monkeypatch.context() as patched:
        patched.setattr(engine_tasks, "Addressed", Never)
        report, _ = replay(tmp_path / "run", tmp_path / "again")
        assert (report.first.cycle, report.first.task, report.first.port) == (0, "a", "")
        assert (report.first.recorded, report.first.replayed) == (recorded[0][3], "no error")
        assert (report.differing, report.errors, report.compared) == (3, 3, 0)
        assert controls(tmp_path / "again", "error") == []
    report, _ = replay(tmp_path / "again", tmp_path / "once more")
    assert (report.first.cycle, report.first.recorded) == (0, "no error")
    assert report.first.replayed.startswith("ValueError: cannot use <")
    assert (report.differing, report.errors) == (3, 3)


def test_errors_of_the_same_text_are_shown_with_their_places():
    recorded = Failed("t", "skip", "E: a", "configure", "T.configure: f()")
    replayed = Failed("t", "skip", "E: a", "process", "")
    assert _shown(recorded, but=replayed) == "E: a (in configure: T.configure: f())"
    assert _shown(replayed, but=recorded) == "E: a (in process: its place is not known)"
    assert _shown(recorded, but=Failed("t", "skip", "E: b", "configure")) == "E: a"
    assert _shown(recorded, but=None) == "E: a"
    assert _shown(None, but=recorded) == "no error"


def test_another_error_ends_the_replay_at_once_where_one_ended_the_run(tmp_path, monkeypatch):
    record(plan_of(tmp_path, "n=Numbers; b=Boom", "n > b"), tmp_path / "run")

    def process(self: object, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        if number.value == 1:
            raise KeyError("early")
        out.publish()

    monkeypatch.setattr(helpers.Boom, "process", process)
    with pytest.raises(TaskError, match="^task 'b' failed in process, cycle 1: KeyError: 'early'"):
        replay(tmp_path / "run", tmp_path / "again")
    with Log(tmp_path / "again") as log:
        assert [cycle.cycle for cycle in log.cycles()] == [0, 1]
        assert (log.end["reason"], log.end["cycles"]) == ("error", "2")
    [(cycle, _, task, text)] = controls(tmp_path / "again", "error")
    assert (cycle, task, text) == (1, "b", "KeyError: 'early'")
