"""Keyframes that the tasks of today cannot take up: a replay passes them over, and says so."""

from __future__ import annotations

import pytest

from flowrun.runtime.cli import main
from flowrun.runtime.errors import ReplayError, TaskError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.recorder import ReplayLog
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.replay.verify import verify_keyframes
from support import helpers
from support.helpers import START_NS, plan_of, record, run_hooked, until

EVERY_THIRD = "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 3}"


@pytest.fixture(scope="module", params=["", "!"], ids=["foreground", "background"])
def run(request, tmp_path_factory):
    """21 cycles with a keyframe in every third, of a task that remembers a sum."""
    folder = tmp_path_factory.mktemp("yesterday")
    tasks = f"n=Hooked(limit: 20); f=Total{request.param}"
    plan = plan_of(folder, tasks, "n > f", EVERY_THIRD)
    assert run_hooked(plan, folder / "run", wait_for_workers).error is None
    return folder / "run"


def wait_for_workers(live, _number):
    """Until each background task is done with what it got."""
    until(lambda: not any(worker.jobs.working for worker in live.executor.workers.values()))


def gains_a_key(monkeypatch, *, from_total=0):
    """Let `thaw` need what `freeze` did not write when the run was recorded, of a task that remembers at
    least `from_total`; returns the sums that it was given."""
    given = []
    former = helpers.Total.thaw

    def thaw(self, state):
        given.append(state["total"])
        former(self, state)
        if state["total"] >= from_total:
            self.spending = state["spending"]

    monkeypatch.setattr(helpers.Total, "thaw", thaw)
    return given


def noted(replay):
    """The notes, without the place at the end."""
    return [note.partition(", at ")[0] for note in replay.notes]


def test_a_replay_begins_at_the_beginning_if_no_keyframe_can_be_taken_up(run, monkeypatch):
    given = gains_a_key(monkeypatch)
    with Log(run) as log:
        replay = Replay(log, env={})
        report = replay.run(start=10)
    assert report.identical
    assert report.cycles > 9
    assert len(given) == 4
    assert noted(replay) == [
        "no replay can begin at the keyframe of cycle 9, nor at 3 others: task 'f' cannot take up what "
        "it remembered: thaw raised KeyError: 'spending'"
    ]
    assert replay.notes[0].endswith('in thaw: self.spending = state["spending"]')
    assert replay.refused == {0, 3, 6, 9}


def test_a_replay_begins_at_an_earlier_keyframe_that_can_be_taken_up(run, monkeypatch):
    with Log(run) as log:
        totals = [m.fields["value"] for m in log.messages("/f/total")]
        gains_a_key(monkeypatch, from_total=totals[4])
        replay = Replay(log, env={})
        ran = []
        with replay:
            replay.hook(around=lambda task, call: (ran.append((task, replay.cycle)), call()))
            replay.seek(10)
            while replay.next_cycle():
                pass
            assert replay.report.identical
    [first, *_] = [cycle for task, cycle in ran if task == "f"]
    assert 0 < first < 9
    assert len(replay.notes) == 1
    assert replay.refused
    assert 0 not in replay.refused


def test_a_keyframe_that_was_refused_is_not_tried_again(run, monkeypatch):
    given = gains_a_key(monkeypatch)
    with Log(run) as log, Replay(log, env={}) as replay:
        replay.seek(10)
        tried = len(given)
        for cycle in (12, 4, 11, 20):
            replay.seek(cycle)
            replay.next_cycle()
            assert replay.differences == []
        assert len(given) == tried
        assert set(replay.keyframes).isdisjoint(replay.refused)


def test_what_verifies_keyframes_names_those_that_are_refused(run, monkeypatch, capsys):
    gains_a_key(monkeypatch)
    with Log(run) as log:
        found = verify_keyframes(Replay(log, env={}), count=1)
    assert (found.verified, found.refused, found.forgetful, found.unsteady) == ([], [0], {}, {})
    assert main(["replay", str(run), "--trust", "--verify-keyframes", "--verify-count", "1"]) == 1
    assert capsys.readouterr().out.endswith(
        "0 cycles run from 0 keyframes\n1 keyframes are refused, and cannot be verified: of cycles 0\n"
    )


def test_replay_from_a_cycle_says_so_in_one_line_and_ends_well(run, monkeypatch, capsys):
    gains_a_key(monkeypatch)
    assert main(["replay", str(run), "--trust", "--from", "10"]) == 0
    said = capsys.readouterr()
    [note] = [line for line in (said.out + said.err).splitlines() if "keyframe" in line]
    assert "no replay can begin at the keyframe of cycle 9, nor at 3 others" in note
    assert "identical" in said.out


def test_a_task_that_refused_comes_first_in_the_next_try(tmp_path, monkeypatch):
    """Jobs of others that were in flight do not run again for each keyframe."""
    tasks = "n=Numbers(limit: 20); a=Total; b=Forgetful"
    record(plan_of(tmp_path, tasks, "n > a; n > b", EVERY_THIRD), tmp_path / "run")
    given = []

    def refuse(_, state):
        raise KeyError(state)

    monkeypatch.setattr(helpers.Total, "thaw", lambda _, state: given.append(state))
    monkeypatch.setattr(helpers.Forgetful, "thaw", refuse)
    with Log(tmp_path / "run") as log, Replay(log, env={}) as replay:
        replay.seek(20)
        assert replay.refused == {0, 3, 6, 9, 12, 15, 18}
    assert len(given) == 1


def test_an_error_of_start_ends_the_replay(tmp_path, monkeypatch):
    """No earlier keyframe would be taken up either."""

    def hook(live, number):
        if number == 3:
            live.set_live("f", {"factor": 2})

    plan = plan_of(tmp_path, "n=Hooked(limit: 20); f=Total", "n > f", EVERY_THIRD)
    assert run_hooked(plan, tmp_path / "run", hook).error is None
    starts = [None]

    def refuse(self, ctx, changed):
        raise ValueError("restart me")

    monkeypatch.setattr(helpers.Total, "configure", refuse, raising=False)
    monkeypatch.setattr(helpers.Total, "start", lambda self, ctx: starts.pop())
    with Log(tmp_path / "run") as log, Replay(log, env={}) as replay:
        with pytest.raises(TaskError) as caught:
            replay.seek(14)
        assert str(caught.value) == (
            "task 'f' failed in taking up the keyframe of cycle 12: IndexError: pop from empty list"
        )
        assert replay.refused == set()
        with pytest.raises(
            ReplayError, match="^the replay ended with an error; seek a cycle to go on$"
        ):
            replay.step()


def test_the_tasks_begin_as_at_the_start_if_a_log_that_begins_in_the_middle_has_nothing_else(
    tmp_path, monkeypatch
):
    tasks = "n=Numbers(limit: 20); f=Total"
    record(plan_of(tmp_path, tasks, "n > f", EVERY_THIRD), tmp_path / "run")
    with Log(tmp_path / "run") as log:
        replay = Replay(log, env={})
        with ReplayLog(replay, tmp_path / "part", config={}, now_ns=START_NS) as recorder:
            assert replay.run(start=4, recorder=recorder).identical
    gains_a_key(monkeypatch)
    with Log(tmp_path / "part") as log:
        replay = Replay(log, env={})
        assert replay.run().first.cycle < 7
    assert noted(replay) == [
        "no replay can begin at the keyframe of cycle 4, nor at 5 others: task 'f' cannot take up "
        "what it remembered: thaw raised KeyError: 'spending'",
        "the log begins at cycle 4, without a keyframe that they can take up: the tasks begin as at the "
        "start of a run",
    ]
