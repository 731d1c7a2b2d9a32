"""A replay that is stepped through: seeking by keyframes, single tasks, what can be looked at."""

from __future__ import annotations

import time

import numpy as np
import pytest

from flowrun.msgs import IntMsg
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.errors import ReplayError, TaskError, UsageError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.recorder import ReplayLog
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.replay.verify import verify_keyframes
from flowrun.runtime.run.live import Run
from flowrun.runtime.task import Context, Input, Output
from support import helpers
from support.helpers import Total, plan_of, record

SMALL = "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 3}"


def recorded(tmp_path, tasks, cnx, more=SMALL, **options):
    record(plan_of(tmp_path, tasks, cnx, more), tmp_path / "run", **options)
    return Log(tmp_path / "run")


@pytest.fixture
def total_run(tmp_path):
    with recorded(tmp_path, "n=Numbers(limit: 20); t=Total; x=Scale", "n > t; t.total > x") as log:
        yield log


def test_seeking_gives_back_what_the_tasks_remembered(total_run):
    totals = {m.cycle: m.fields["value"] for m in total_run.messages("/t/total")}
    with Replay(total_run, env={}) as replay:
        for cycle in (17, 4, 3, 19, 0, 11):
            replay.seek(cycle)
            assert replay.cycle == cycle
            assert replay.task("t").total == totals.get(cycle - 1, 0)
            assert replay.next_cycle()
            assert replay.message("t.total").value == totals[cycle]
            assert replay.differences == []
        assert replay.task("t").last.tolist() == [11, totals[11]]


def test_a_replay_from_every_cycle_is_that_from_the_start(total_run):
    for start in range(20):
        report = Replay(total_run, env={}).run(start=start)
        assert (report.first, report.cycles, report.compared) == (
            None,
            21 - start,
            2 * (20 - start),
        )


def test_seeking_begins_at_the_nearest_keyframe(total_run):
    with Replay(total_run, env={}) as replay:
        ran = []
        replay.hook(around=lambda task_id, call: (ran.append(replay.cycle), call()))
        replay.seek(14)
        assert ran == [12, 12, 13, 13]
        ran.clear()
        replay.seek(14)  # it is there
        replay.seek(15)  # a keyframe
        replay.seek(14)
        assert ran == [12, 12, 13, 13]


def test_tasks_run_one_by_one(total_run):
    with Replay(total_run, env={}) as replay:
        replay.seek(5)
        assert (replay.cycle, replay.next_task, replay.message("n").value) == (5, None, 4)
        assert [replay.step() for _ in range(3)] == ["n", "t", "x"]
        assert (replay.cycle, replay.next_task, replay.message("t").value > 0) == (5, None, True)
        assert [replay.step(), replay.cycle, replay.step()] == [None, 6, "n"]
        assert (replay.cycle, replay.next_task) == (6, "t")
        assert replay.message("n").value == 6
        assert replay.message("t") is None
        replay.next_cycle()
        assert (replay.cycle, replay.next_task) == (7, None)
        replay.seek(20)  # in which the source says that it has ended
        assert (replay.next_cycle(), replay.message("n")) == (True, None)
        assert (replay.cycle, replay.time_ns, replay.step(), replay.next_cycle()) == (
            None,
            None,
            None,
            False,
        )


def test_a_seek_starts_a_new_report(total_run):
    with Replay(total_run, config={"x.factor": 7}, env={}) as replay:
        replay.seek(10)
        assert (replay.report.cycles, replay.report.differing) == (0, 0)
        replay.next_cycle()
        assert (replay.report.cycles, replay.report.differing) == (1, 1)
        [difference] = replay.differences
        assert (difference.cycle, difference.task) == (10, "x")
        assert replay.recorded("x").value * 7 == replay.message("x").value * 10


def test_a_cycle_that_is_not_there_is_named(total_run):
    with Replay(total_run, env={}) as replay:
        with pytest.raises(UsageError) as caught:
            replay.seek(21)
        assert str(caught.value) == "cycle 21 is not in the log, which holds cycles 0 to 20"
        with pytest.raises(UsageError, match=r"^unknown output 'y'; outputs: n.number, t.total, "):
            replay.message("y")
        with pytest.raises(UsageError, match="^unknown task 'y'; tasks: n, t, x"):
            replay.task("y")


def test_without_keyframes_seeking_runs_all_earlier_cycles(tmp_path):
    more = SMALL.replace("keyframe_interval: 3", "keyframe_interval: 0")
    with recorded(tmp_path, "n=Numbers(limit: 9); t=Total", "n > t", more) as log:
        assert "/flowrun/keyframe" in log.topics
        assert list(log.messages("/flowrun/keyframe")) == []
        with Replay(log, env={}) as replay:
            for cycle in (7, 2):
                replay.seek(cycle)
                replay.next_cycle()
                assert replay.differences == []


def test_only_the_tasks_that_are_named_run(total_run, monkeypatch):
    monkeypatch.setattr(Total, "start", None)
    report = Replay(total_run, only=["x"], env={}).run()
    assert (report.first, report.per_task, report.fed) == (None, {"x": 20}, 40)
    with pytest.raises(UsageError, match="^unknown task 'y'; tasks: n, t, x$"):
        Replay(total_run, only=["y"], env={})


def test_live_values_and_rates_come_back_at_a_keyframe(tmp_path):
    plan = plan_of(
        tmp_path,
        "n=Hooked(limit: 20); t=Total; r=Total@rate_hz: 200000; e=Total@every: 4",
        "n > t; n > r; n > e",
        SMALL,
    )
    live = Run(plan, clock=ManualClock(helpers.START_NS, step_ns=1000), directory=tmp_path / "run")
    helpers.Hooked.hook = lambda number: number == 7 and live.set_live("t", {"factor": 9})
    live.run()
    with Log(tmp_path / "run") as log:
        assert len(list(log.messages("/r/total"))) < 15
        for start in (16, 8, 7, 3, 0, 12):
            report = Replay(log, env={}).run(start=start)
            assert report.first is None, str(report.first)
            with Replay(log, env={}) as replay:
                replay.seek(16)
                assert replay.task("t").config.factor == 9
                replay.seek(2)
                assert replay.task("t").config.factor == 1


def test_a_value_that_was_asked_for_holds_where_the_run_set_another(tmp_path):
    tasks = "n=Hooked(limit: 20); t=Total; b=Total!"
    plan = plan_of(tmp_path, tasks, "n > t; n > b", SMALL)
    live = Run(plan, clock=ManualClock(helpers.START_NS, step_ns=1000), directory=tmp_path / "run")

    worker = live.executor.workers["b"]

    def change(number):
        while worker.jobs.working:
            time.sleep(0)  # lets the worker have the interpreter
        if number == 7:
            live.set_live("t", {"factor": 9})
            live.set_live("b", {"factor": 9})

    helpers.Hooked.hook = change
    live.run()
    asked = {"t.factor": 5, "b.factor": 5}
    noted = "cycle 8 had set {}.factor: left out, as another value was asked for"
    with Log(tmp_path / "run") as log:
        with Replay(log, env={}, config=asked) as replay:
            for cycle in (3, 16, 8):  # 16 and 8 from keyframes after the change
                replay.seek(cycle)
                assert replay.task("t").config.factor == 5
                replay.next_cycle()
            replay.seek(18)
            assert replay.task("b").config.factor == 5
        replay = Replay(log, env={}, config=asked)
        with ReplayLog(replay, tmp_path / "new", config=asked, now_ns=1) as written:
            report = replay.run(recorder=written)
        assert {noted.format("t"), noted.format("b")} <= set(replay.notes)
        assert report.differing > 30
        first_run = [message.fields["value"] for message in log.messages("/t/total")]
    with Log(tmp_path / "new") as log:
        again = [message.fields["value"] for message in log.messages("/t/total")]
        before = sum(range(8)) + 9 * sum(range(8, 20))
        assert again[-1] - first_run[-1] == 5 * sum(range(20)) - before
        assert Replay(log, env={}).run().identical


def test_a_task_that_was_down_is_down_at_the_keyframe(tmp_path):
    with recorded(
        tmp_path, "n=Numbers(limit: 12); f=Flaky(at: [4])@on_error: restart", "n > f"
    ) as log:
        for start in range(12):
            report = Replay(log, env={}).run(start=start)
            assert report.cycles == 13 - start
            assert report.first is None, str(report.first)


@pytest.mark.long
def test_results_that_were_being_made_at_a_keyframe_are_made_again(tmp_path):
    plan = plan_of(tmp_path, "n=Hooked(limit: 200); t=Total!; x=Scale", "n > t; t.total > x", SMALL)
    live = Run(plan, clock=ManualClock(1, step_ns=10), directory=tmp_path / "run")
    worker = live.executor.workers["t"]

    def hook(number):
        while number % 5 == 3 and worker.jobs.working:
            time.sleep(0)  # lets the worker have the interpreter

    helpers.Hooked.hook = hook
    live.run()
    with Log(tmp_path / "run") as log:
        assert len(list(log.messages("/t/total"))) > 20
        for start in range(0, 200, 7):
            report = Replay(log, env={}).run(start=start)
            assert report.first is None, f"from {start}: {report.first}"
            assert report.cycles == len(log) - start


def test_a_freeze_that_fails_is_logged_once_and_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(Total, "freeze", lambda self: {"lock": object()} if self.total else 0)
    with recorded(tmp_path, "n=Numbers(limit: 9); t=Total", "n > t") as log:
        lines = [m.fields for m in log.messages("/flowrun/log")]
        assert [line["message"].partition(":")[0] for line in lines] == ["freeze failed"]
        monkeypatch.setattr(Total, "thaw", lambda self, state: self.start(None))
        replay = Replay(log, env={})
        assert replay.run(start=8).first is None
        assert replay.notes == [
            "no replay can begin at the keyframe of cycle 6, nor at 1 other: freeze of task 't' failed: "
            "WrongReturnError: freeze gave an object, which a keyframe cannot hold: numbers, texts, "
            "bytes, NumPy arrays, None, and lists and dicts of these",
        ]
        assert verify_keyframes(Replay(log, env={}), count=9).unfrozen == {"t": 3}


def test_a_task_that_forgets_is_named_and_none_downstream_of_it(tmp_path):
    with recorded(
        tmp_path,
        "n=Numbers(limit: 20); t=Total; f=Forgetful; x=Scale; y=Total",
        "n > t; t.total > f; f.total > x; x > y",
    ) as log:
        found = verify_keyframes(Replay(log, env={}), count=100)
        assert found.verified == [0, 3, 6, 9, 12, 15, 18]
        assert (found.unsteady, list(found.forgetful)) == ({}, ["f"])
        cycle, difference = found.forgetful["f"]
        assert (cycle, difference.cycle, difference.port) == (3, 3, "total")
        assert verify_keyframes(Replay(log, env={}), count=2).verified == [0, 9]
        # It goes on unnoticed where the same object goes on.
        with Replay(log, env={}) as replay:
            replay.seek(6)
            replay.seek(12)
            replay.next_cycle()
            assert [it.task for it in replay.differences] == ["f", "x", "y"]


def test_a_task_that_is_not_deterministic_is_not_called_forgetful(total_run, monkeypatch):
    class Unsteady(helpers.Total):
        def process(self, ctx: Context, number: Input[IntMsg], total: Output[IntMsg]) -> None:
            super().process(ctx, number, total)
            total.value += id(self) + 1
            total.publish()

    monkeypatch.setattr(helpers, "Total", Unsteady)
    found = verify_keyframes(Replay(total_run, env={}), count=3)
    assert (list(found.unsteady), found.forgetful) == (["t"], {})


def test_a_log_without_keyframes_cannot_be_verified(tmp_path):
    with (
        recorded(
            tmp_path, "n=Numbers(limit: 3)", "", SMALL.replace("interval: 3", "interval: 0")
        ) as log,
        pytest.raises(ReplayError, match="the log has no keyframe to verify$"),
    ):
        verify_keyframes(Replay(log, env={}), count=3)


def test_a_generator_that_a_task_keeps_goes_on_as_recorded(tmp_path):
    with recorded(tmp_path, "n=Numbers(limit: 9); k=Keeps", "n > k") as log:
        assert Replay(log, env={}).run(start=5).first is None
        assert verify_keyframes(Replay(log, env={}), count=9).forgetful == {}


def test_one_can_go_back_from_the_recorded_error(tmp_path):
    from flowrun.runtime.replay.debugger import Debugger

    with (
        recorded(tmp_path, "n=Numbers(limit: 20); b=Boom(at: 8)", "n > b") as log,
        Replay(log, env={}) as replay,
    ):
        debugger = Debugger(replay)
        while debugger.next_cycle():
            pass
        assert replay.report.recorded_error == "task 'b', cycle 8: ValueError: cannot stand 8"
        debugger.back()
        assert (debugger.place, replay.next_task) == ((8, 1), "b")
        replay.seek(7)
        assert (replay.next_cycle(), replay.cycle, replay.report.recorded_error) == (True, 8, None)


def test_what_if_from_a_keyframe_says_what_it_begins_with(total_run):
    replay = Replay(total_run, config={"x.factor": 7}, env={})
    replay.run(start=10)
    assert replay.notes == [
        "begun at the keyframe of cycle 9: what the tasks remember there was made with the recorded "
        "graph and config; without keyframes all earlier cycles run too"
    ]


def test_arrays_of_all_kinds_come_back(total_run):
    from flowrun.runtime.engine import keyframes as keyframe

    kinds = [
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([(1, 2.5)], dtype=[("id", "u2"), ("level", "f8")]),
        np.array(7, ">i4"),
        np.empty((0, 3), bool),
    ]
    for array in kinds:
        data = keyframe._pack({"a": array})
        import msgpack

        back = msgpack.unpackb(data, object_hook=keyframe._hook)["a"]
        assert (back.dtype, back.flags.f_contiguous) == (array.dtype, array.flags.f_contiguous)
        assert np.array_equal(back, array)
        assert back.flags.writeable
    with pytest.raises(
        TypeError, match="^freeze gave a MaskedArray, which a keyframe cannot hold: "
    ):
        keyframe._pack(np.ma.masked_array([1, 2], [True, False]))
    with pytest.raises(TypeError, match="^freeze gave a dict whose keys are not texts or numbers$"):
        keyframe._unpack(keyframe._pack({(1, 2): 3}))


def test_steps_want_started_tasks(total_run):
    replay = Replay(total_run)
    for step in (replay.step, replay.next_cycle, lambda: replay.seek(4)):
        with pytest.raises(ReplayError, match="^the tasks are not started: step within `with "):
            step()
    with replay:
        replay.seek(4)
        assert replay.next_cycle()
    with pytest.raises(ReplayError):
        replay.step()


def test_a_seek_does_not_call_and_ends_nothing_that_was_hooked(total_run):
    with Replay(total_run, config={"x.factor": 7}, env={}) as replay:
        found = []
        replay.hook(on_difference=lambda difference, *_: found.append(difference.cycle))
        replay.seek(4)
        assert found == []
        replay.next_cycle()
        assert found == [4]
        replay.hook()
        replay.next_cycle()
        assert found == [4]
        assert replay.report.differing == 2


def test_the_keyframe_of_the_first_cycle_holds_for_every_graph(total_run):
    with Replay(total_run, config={"x.factor": 7}, env={}) as replay:
        replay.seek(2)
        replay.seek(1)
        assert replay.notes == []
        replay.seek(5)
        assert len(replay.notes) == 1
        replay.seek(4)
        assert len(replay.notes) == 1


def test_a_task_that_forgets_goes_on_if_it_is_at_the_keyframe_already(tmp_path):
    with (
        recorded(tmp_path, "n=Numbers(limit: 20); f=Forgetful", "n > f") as log,
        Replay(log, env={}) as replay,
    ):
        replay.seek(1)  # begins at 0
        while replay.cycle != 6:
            replay.next_cycle()
        replay.seek(7)
        replay.next_cycle()
        assert replay.differences == []
        replay.seek(10)  # begins at 9
        replay.next_cycle()
        assert [it.task for it in replay.differences] == ["f"]


def test_a_step_that_is_not_due_is_passed_over(tmp_path):
    tasks = "n=Numbers(limit: 9); e=Total@every: 3; r=Total@rate_hz: 100000; f=Evens; s=Sum"
    with (
        recorded(tmp_path, tasks, "n > e; n > r; n > f; n > s.a; f > s.b") as log,
        Replay(log, env={}) as replay,
    ):
        assert len(list(log.messages("/r/total"))) < 9
        made = {
            name: {m.cycle for m in log.messages(topic)}
            for name, topic in (("e", "/e/total"), ("r", "/r/total"))
        }
        for cycle in range(9):
            ran = []
            assert replay.next_task is None
            while True:
                following = replay.next_task
                name = replay.step()
                if ran:
                    assert following == name
                if name is None or replay.cycle != cycle:
                    break
                ran.append(name)
            expected = ["n", *(it for it in "er" if cycle in made[it]), "f", "s"]
            assert ran == expected, cycle
            replay.seek(cycle + 1)


def test_tasks_are_stopped_if_they_cannot_be_put_at_the_beginning(tmp_path, monkeypatch):
    stopped = []
    monkeypatch.setattr(Total, "stop", lambda self, ctx: stopped.append(self), raising=False)
    with recorded(tmp_path, "n=Numbers(limit: 9); t=Total", "n > t") as log:
        replay = Replay(log, env={})
        with ReplayLog(replay, tmp_path / "part", config={}, now_ns=1) as recorder:
            replay.run(start=4, recorder=recorder)
    stopped.clear()
    monkeypatch.setattr(Total, "thaw", lambda self, state: 1 / 0)
    monkeypatch.setattr(Total, "start", lambda self, ctx: starts.pop())
    starts = [None]
    with Log(tmp_path / "part") as log:
        replay = Replay(log, env={})
        with pytest.raises(
            TaskError, match="^task 't' failed in start: IndexError: pop from empty"
        ):
            replay.start()
        assert stopped[-1:] == [replay.task("t")]
        with pytest.raises(ReplayError, match="^the tasks are not started: "):
            replay.step()


def test_a_replay_goes_on_after_an_error_with_a_seek(total_run, monkeypatch):
    process, fails = Total.process, [5]

    def failing(self: Total, ctx: Context, number: Input[IntMsg], total: Output[IntMsg]) -> None:
        process(self, ctx, number, total)
        if ctx.cycle in fails:
            raise ValueError("no")

    monkeypatch.setattr(Total, "process", failing)
    with Replay(total_run, env={}) as replay:
        replay.seek(5)
        with pytest.raises(
            TaskError, match="^task 't' failed in process, cycle 5: ValueError: no$"
        ):
            replay.next_cycle()
        assert replay.next_task is None
        with pytest.raises(ReplayError, match="^the replay ended with an error; seek a cycle to"):
            replay.next_cycle()
        fails.clear()
        replay.seek(5)
        assert replay.next_cycle()
        assert (replay.differences, replay.report.cycles) == ([], 1)


def test_after_a_seek_nothing_of_the_cycle_that_ran_last_is_seen(total_run):
    with Replay(total_run, env={}) as replay:
        assert replay.next_cycle()
        assert replay.message("t.total") is not None
        replay.seek(0)
        assert replay.message("t.total") is None


def interrupted(self, ctx: Context, number: Input[IntMsg], total: Output[IntMsg]) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("go_on", ["step", "next_cycle"])
def test_an_interrupt_that_a_task_raises_is_its_error(total_run, monkeypatch, go_on):
    monkeypatch.setattr(Total, "process", interrupted)
    with Replay(total_run, env={}) as replay:
        if go_on == "step":
            assert replay.step() == "n"
        with pytest.raises(TaskError, match="KeyboardInterrupt"):
            getattr(replay, go_on)()
