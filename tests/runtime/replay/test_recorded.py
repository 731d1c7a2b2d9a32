"""A log as the outside of a graph: what is fed comes as it was, and what cannot be fed is refused."""

from __future__ import annotations

import pytest

from flowrun.runtime.errors import ReplayError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.recorder import ReplayLog
from flowrun.runtime.replay.replay import Replay
from support.determinism import messages_of
from support.helpers import START_NS, controls, plan_of, record, run_hooked


@pytest.mark.parametrize("policy", ["skip", "skip_cycle", "restart"])
def test_a_fed_task_that_refused_a_live_value_does_not_end_the_cycle(tmp_path, policy):
    def hook(live, number):
        if number == 3:
            live.set_live("p", {"factor": 2})

    plan = plan_of(
        tmp_path, f"n=Hooked(limit: 8); p=Picky(refuses: [2])@on_error: {policy}; s=Sum",
        "n > p; n > s.a; p > s.b",
    )  # fmt: skip
    assert run_hooked(plan, tmp_path / "run", hook).error is None
    [(refused, *_)] = controls(tmp_path / "run", "error")
    assert refused == 4
    with Log(tmp_path / "run") as log:
        report = Replay(log, feed=["p"], env={}).run()
    assert (report.first, report.cycles) == (None, 9)
    assert report.per_task == {"s": 8}


def test_a_source_whose_messages_were_logged_without_payload_cannot_be_fed(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 3)@logging: {payload: none}; x=Scale", "n > x")
    record(plan, tmp_path / "run")
    with Log(tmp_path / "run") as log, pytest.raises(ReplayError) as caught:
        Replay(log, env={})
    assert str(caught.value) == (
        f"{tmp_path / 'run'}: the log holds no messages of /n/number, which the replay must feed; "
        "it holds: /x/scaled"
    )


def test_a_task_that_was_not_logged_is_in_the_way_only_of_those_that_read_it(tmp_path):
    tasks = "n=Numbers(limit: 3); u=Scale@logging: {enabled: false}; x=Scale; y=Scale"
    record(plan_of(tmp_path, tasks, "n > u; n > x; u > y"), tmp_path / "run")
    with Log(tmp_path / "run") as log:
        report = Replay(log, only=["x"], env={}).run()
        assert (report.first, report.per_task) == (None, {"x": 3})
        with pytest.raises(ReplayError) as caught:
            Replay(log, only=["y"], env={})
    assert str(caught.value) == (
        f"{tmp_path / 'run'}: the log holds no messages of /u/scaled, which the replay must feed; it "
        "holds: /n/number, /x/scaled, /y/scaled"
    )


def test_a_fed_message_that_was_logged_without_payload_is_in_the_replays_log_but_not_read(tmp_path):
    plan = plan_of(
        tmp_path, "n=Numbers(limit: 3); e=Evens@logging: {payload: none}; x=Scale", "n > e; n > x"
    )
    record(plan, tmp_path / "run")
    with Log(tmp_path / "run") as log:
        replay = Replay(log, feed=["e"], env={})
        with ReplayLog(replay, tmp_path / "again", config={}, now_ns=START_NS) as recorder:
            report = replay.run(to=0, recorder=recorder)
        assert (report.first, report.per_task, replay.message("e")) == (None, {"x": 1}, None)
        with ReplayLog(replay, tmp_path / "whole", config={}, now_ns=START_NS) as recorder:
            assert replay.run(recorder=recorder).first is None
    recorded = messages_of(tmp_path / "run")
    assert [(cycle, size) for cycle, topic, _, size in recorded if topic == "/e/even"] == [
        (0, b""), (2, b"")
    ]  # fmt: skip
    assert messages_of(tmp_path / "whole") == recorded
