"""A log as the outside of a graph: what is fed comes as it was, and what cannot be fed is refused."""

from __future__ import annotations

from types import SimpleNamespace

import msgpack
import pytest

from flowrun.runtime.context import CycleTime
from flowrun.runtime.errors import ReplayError, UsageError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay import recorded as module
from flowrun.runtime.replay.background import RecordedBackground
from flowrun.runtime.replay.recorder import ReplayLog
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.task import TaskConfig
from support import helpers
from support.determinism import messages_of
from support.helpers import START_NS, controls, plan_of, record, run_hooked, until


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


@pytest.mark.parametrize("source", ["enabled: false", "payload: none"])
@pytest.mark.parametrize("first", ["enabled: true", "enabled: false"])
def test_a_replay_begins_with_what_was_made_of_a_source_that_is_not_logged(tmp_path, source, first):
    """Also where the first task of those that work on it is not logged either."""
    tasks = (
        f"n=Numbers(limit: 3)@logging: {{{source}}}; u=Scale@logging: {{{first}}}; "
        "x=Scale; s=Sum; d=Scale!"
    )
    record(plan_of(tmp_path, tasks, "n > u; u > x; x > s.a; n > d"), tmp_path / "run")
    fed = ["u", "d"] if first == "enabled: true" else ["u", "x", "d"]
    with Log(tmp_path / "run") as log, Replay(log, env={}) as replay:
        assert sorted(replay.notes) == sorted(
            f"task {task!r} is not run: the log does not hold what its sources gave; its messages are "
            "taken from the log"
            for task in fed
        )
        while replay.next_cycle():
            pass
        assert replay.report.first is None
        assert replay.report.per_task == ({"s": 3} if "x" in fed else {"x": 3, "s": 3})
        with pytest.raises(UsageError) as caught:
            Replay(log, env={}, config={"u.factor": 3})
        assert str(caught.value) == (
            "u.factor would change nothing: task 'u' is not run: the log does not hold what its sources "
            "gave; its messages are taken from the log"
        )


@pytest.mark.parametrize("source", ["enabled: false", "payload: none"])
def test_a_log_that_holds_nothing_of_a_source_is_not_replayed(tmp_path, source):
    tasks = f"n=Numbers(limit: 3)@logging: {{{source}}}; x=Scale@logging: {{payload: none}}"
    record(plan_of(tmp_path, tasks, "n > x"), tmp_path / "run")
    with Log(tmp_path / "run") as log:
        for only in (None, ["x"]):
            with pytest.raises(ReplayError) as caught:
                Replay(log, env={}, only=only)
            assert str(caught.value) == (
                f"{tmp_path / 'run'}: the log holds no messages of /n/number, which the replay must "
                "feed; it holds: none"
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


def test_a_value_that_is_left_out_leaves_what_else_was_set_in_its_cycle(tmp_path):
    def hook(live, number):
        if number == 3:
            live.set_live("t", {"factor": 2})
            live.set_live("x", {"factor": 7})

    plan = plan_of(tmp_path, "n=Hooked(limit: 6); t=Total; x=Scale", "n > t; n > x")
    assert run_hooked(plan, tmp_path / "run", hook).error is None
    with Log(tmp_path / "run") as log:
        replay = Replay(log, config={"t.factor": 1}, env={})
        report = replay.run()
        assert replay.notes == [
            "cycle 4 had set t.factor: left out, as another value was asked for"
        ]
        assert (report.first.task, report.first.cycle, report.differing) == ("t", 4, 2)
        assert report.per_task == {"t": 6, "x": 6}
        assert Replay(log, feed=["x"], env={}).run().first is None


@pytest.mark.parametrize(("start", "when"), [(None, "cycle 4 had set"), (8, "the run had set")])
def test_a_value_of_a_key_that_can_change_no_more_is_left_out(tmp_path, monkeypatch, start, when):
    def hook(live, number):
        if number == 3:
            live.set_live("t", {"factor": 2})

    more = "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 6}"
    plan = plan_of(tmp_path, "n=Hooked(limit: 9); t=Total", "n > t", more)
    assert run_hooked(plan, tmp_path / "run", hook).error is None

    class Config(TaskConfig):
        factor: int = 2  # as the run had set it: so all is as it was from there on

    monkeypatch.setattr(helpers.Total, "Config", Config)
    with Log(tmp_path / "run") as log:
        replay = Replay(log, env={})
        assert replay.run(start=start).identical is (start is not None)
    assert replay.notes == [
        f"{when} t.factor: left out, as the task of today has no such key that can change"
    ]


def test_bytes_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    record(plan_of(tmp_path, "n=Numbers(limit: 3); x=Scale", "n > x"), tmp_path / "run")
    with Log(tmp_path / "run") as log:
        whole = Log.raw_payload
        monkeypatch.setattr(
            Log,
            "raw_payload",
            lambda log, cycle, entry: (
                memoryview(b"\xc1")
                if (cycle.cycle, entry[0]) == (1, "/n/number")
                else whole(log, cycle, entry)
            ),
        )
        text = "^cycle 1: /n/number: the message cannot be read as IntMsg: "
        with pytest.raises(ReplayError, match=text):
            Replay(log, env={}).run()


@pytest.mark.parametrize(
    "data", [b"\xc1", b"\x81\x90\x05", b"\x05", b"\x90", msgpack.packb({"kind": "set"})]
)
def test_control_records_that_cannot_be_read_are_named(data):
    with pytest.raises(ReplayError, match="^cycle 3: /flowrun/control: "):
        module._event(memoryview(data), 3)


def test_which_results_of_a_background_task_appear():
    time = CycleTime()
    made = SimpleNamespace(task=SimpleNamespace(config=None))
    inputs = {3: False, 7: True}
    background = RecordedBackground(None, made, time, inputs, secrets=frozenset())
    assert [background.gives(cycle) for cycle in (2, 3, 4, 7)] == [False, True, False, True]
    assert [background.gives_after(cycle) for cycle in (2, 3, 6, 7)] == [True, True, True, False]
    for cycle in (3, 4, 7):
        time.cycle = cycle
        assert background.has_work is (cycle != 4)


def test_a_background_task_that_was_fed_is_fed_in_the_replays_log_too(tmp_path):
    plan = plan_of(tmp_path, "n=Hooked(limit: 6); f=Free!; x=Scale", "n > f; n > x")

    def wait(live, number):
        until(lambda: not live.executor.workers["f"].jobs.working)

    assert run_hooked(plan, tmp_path / "run", wait).error is None
    with Log(tmp_path / "run") as log:
        replay = Replay(log, feed=["f"], env={})
        with ReplayLog(replay, tmp_path / "again", config={}, now_ns=START_NS) as recorder:
            report = replay.run(recorder=recorder)
    assert (report.first, report.per_task, report.fed) == (None, {"x": 6}, 12)
    assert messages_of(tmp_path / "again") == messages_of(tmp_path / "run")
    with Log(tmp_path / "again") as log:
        replay = Replay(log, env={})
        assert replay.fed == {"n", "f"}
        assert replay.run().per_task == {"x": 6}
