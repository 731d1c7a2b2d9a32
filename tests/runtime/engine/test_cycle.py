"""What a cycle shows its tasks: nothing stale, and a task only with all that it needs."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from flowrun.msgs import IntMsg, LatePublishError, MessageTypeError
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.engine.alone import Alone
from flowrun.runtime.engine.executor import Executor
from flowrun.runtime.errors import InternalError, TaskError, UsageError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.places import explained
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig
from flowrun.runtime.testing import run_task
from support.engine_tasks import KeepsOutput
from support.helpers import (
    START_NS,
    Flaky,
    Scale,
    controls,
    plan_of,
    record,
    replay_from_everywhere,
    values,
)


def test_a_task_with_two_required_inputs_runs_only_when_both_are_there(tmp_path):
    plan = plan_of(
        tmp_path, "n=Numbers(limit: 5); e=Evens; both=engine_tasks.Both",
        "n > e; n > both.a; e > both.b",
    )  # fmt: skip
    _, result = record(plan, tmp_path / "run")
    assert result.error is None
    assert values(tmp_path / "run", "/both/both") == [(0, 0), (2, 4), (4, 8)]
    replay_from_everywhere(tmp_path / "run")


def test_what_was_left_on_an_output_that_was_not_published_is_not_seen_ring_size_cycles_later(
    tmp_path,
):
    plan = plan_of(
        tmp_path, "n=Numbers(limit: 6); l=engine_tasks.Leaves", "n > l",
        "runtime: {ring_size: 2}\nlogging: {slab_size_mib: 1, section_size_mib: 1}",
    )  # fmt: skip
    _, result = record(plan, tmp_path / "run")
    assert result.error is None  # an undeclared attribute would be refused where it is published
    assert [cycle for cycle, _ in values(tmp_path / "run", "/l/out")] == [0, 2, 3, 4, 5]
    assert values(tmp_path / "run", "/l/found") == [(cycle, 0) for cycle in range(6)]
    replay_from_everywhere(tmp_path / "run")


def test_a_source_may_count_what_it_dropped_in_a_whole_number_of_numpy(tmp_path):
    plan = plan_of(tmp_path, "d=engine_tasks.Drops(type: int64)")
    _, result = record(plan, tmp_path / "run")
    assert result.error is None
    assert [value for *_, value in controls(tmp_path / "run", "dropped")] == [3, 3]


def test_a_source_that_dropped_half_a_picture_is_named(tmp_path):
    plan = plan_of(tmp_path, "d=engine_tasks.Drops(type: float, count: 1.5)")
    _, result = record(plan, tmp_path / "run")
    assert str(result.error) == (
        "task 'd' failed in process, cycle 0: TypeError: 'float' object cannot be interpreted as an "
        "integer"
    )


@pytest.mark.parametrize("at", [0, 1, 3])
def test_an_error_names_its_step_wherever_in_the_plan_it_is(tmp_path, at):
    tasks = ["n=Numbers(limit: 4)", "x=Scale", "y=Scale", "z=Scale"]
    if at:
        id_ = tasks[at][0]
        tasks[at] = f"{id_}=Boom(at: 0)"
    else:
        tasks[0] = "n=RoughNumbers(limit: 4, fails_at: [0], set_at: {})"
    _, result = record(plan_of(tmp_path, "; ".join(tasks), "n > x; n > y; n > z"), tmp_path / "run")
    assert str(result.error).startswith(f"task {tasks[at][0]!r} failed in process, cycle 0: ")
    made = {id_ for id_ in "xyz" if values(tmp_path / "run", _topic(tasks, id_))}
    assert made == {task[0] for task in tasks[1:at]}


def _topic(tasks, id_):
    [task] = [task for task in tasks if task.startswith(id_)]
    return f"/{id_}/{'out' if 'Boom' in task else 'scaled'}"


@pytest.mark.parametrize("mark", ["", "!"])
@pytest.mark.parametrize("kind", ["coroutine", "generator", "async_generator", "Promise"])
def test_a_process_that_returns_what_nobody_runs_is_an_error(tmp_path, kind, mark):
    tasks = f"n=Numbers(limit: 1); h=engine_tasks.HandsBack(kind: {kind}){mark}@on_error: skip"
    _, result = record(plan_of(tmp_path, tasks, "n > h"), tmp_path / "run")
    assert result.error is None
    assert [text for _, _, _, text in controls(tmp_path / "run", "error")] == [
        f"WrongReturnError: process returned a {kind}, which nobody runs; write a plain `def process` "
        "that has done its work when it returns"
    ]
    with Log(tmp_path / "run") as log:
        assert Replay(log, env={}).run().first is None


def test_a_process_that_returns_what_nobody_runs_ends_a_run_without_a_policy(tmp_path):
    tasks = "n=Numbers(limit: 3); h=engine_tasks.HandsBack(kind: generator)"
    _, result = record(plan_of(tmp_path, tasks, "n > h"), None)
    assert str(result.error).startswith(
        "task 'h' failed in process, cycle 0: WrongReturnError: process returned a generator"
    )


@pytest.mark.parametrize("mark", ["", "!"])
def test_an_error_that_has_a_cause_is_named_itself(tmp_path, mark):
    tasks = f"n=Numbers(limit: 1); c=engine_tasks.Caused{mark}"
    _, result = record(plan_of(tmp_path, tasks, "n > c"), None)
    assert str(result.error).startswith("task 'c' failed in process, cycle ")
    assert str(result.error).endswith(": ValueError: no answer")


def test_a_task_that_cannot_be_made_is_named(tmp_path):
    tasks = "n=Numbers(limit: 1); u=engine_tasks.Unmade(by: {by})"
    with pytest.raises(TaskError, match="^task 'u' failed in __init__: ValueError: no$"):
        record(plan_of(tmp_path, tasks.replace("{by}", "error")), None)
    with pytest.raises(KeyboardInterrupt):
        record(plan_of(tmp_path, tasks.replace("{by}", "user")), None)


def test_an_interrupt_on_a_worker_is_an_error_of_its_task(tmp_path):
    tasks = "n=Numbers(limit: 1); e=engine_tasks.Raises(at: 0, what: interrupt)!@on_error: skip"
    _, result = record(plan_of(tmp_path, tasks, "n > e"), tmp_path / "run")
    assert result.error is None
    [(*_, text)] = controls(tmp_path / "run", "error")
    assert text.startswith("KeyboardInterrupt")


LATE = "IntMsg.publish() was called outside process, on thread 'helper'; publish before process returns"


def test_what_is_published_after_process_ends_the_run(tmp_path):
    _, result = record(plan_of(tmp_path, "n=Numbers(limit: 9); l=engine_tasks.Late", "n > l"), None)
    assert LATE in str(result.error)
    assert result.cycles < 9


def test_what_is_published_after_process_is_logged_with_a_policy(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 9); l=engine_tasks.Late@on_error: skip", "n > l")
    _, result = record(plan, tmp_path / "run")
    assert result.error is None
    assert values(tmp_path / "run", "/l/out") == []
    assert len(values(tmp_path / "run", "/n/number")) == 9


def test_a_run_without_keyframes_freezes_nothing(tmp_path, monkeypatch):
    frozen = []
    monkeypatch.setattr(Flaky, "freeze", lambda self: frozen.append(self.total))
    plan = plan_of(
        tmp_path, "n=Numbers(limit: 5); f=Flaky(at: [])", "n > f",
        "logging: {slab_size_mib: 4, section_size_mib: 1, keyframe_interval: 2}",
    )  # fmt: skip
    record(plan, None)
    assert frozen == []
    record(plan, tmp_path / "run")
    assert frozen == [0, 1, 6, 10]


def test_a_process_that_returns_a_value_is_an_error_at_its_place(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 1); h=engine_tasks.HandsBack(kind: int)", "n > h")
    _, result = record(plan, None)
    assert str(result.error) == (
        "task 'h' failed in process, cycle 0: WrongReturnError: process returned an int, which nobody "
        "sees; set the fields of an output and publish() it, and return nothing (a function that is a "
        "task returns its message)"
    )
    [place] = explained(result.error.__cause__)
    assert place.endswith(": def process(self, ctx: Context, number: Input[IntMsg]) -> Any:")


def test_a_cycle_that_is_stepped_asks_the_outside_between_sources_and_others(tmp_path):
    alone = Alone(Scale, Scale.Config(), graph_dir=tmp_path, seed=0)
    cycle, asked = alone._cycle, []

    def after_sources(_runs):
        asked.append(len(cycle.ends_ns))  # steps that have ended
        return ()

    alone._outside.after_sources = after_sources
    alone.start()
    number = IntMsg(value=3)
    number.publish(tov_ns=1)
    [made] = alone.run({alone.inputs[0]: number}, cycle=0, now_ns=1).values()
    assert made.value == 30
    assert asked == [1]


def test_a_message_that_is_published_between_two_steps_of_a_replay_is_late(tmp_path):
    alone = Alone(KeepsOutput, TaskConfig(), graph_dir=tmp_path, seed=0)
    alone.start()
    number = IntMsg(value=3)
    alone.run({"number": number}, cycle=0, now_ns=1)
    with pytest.raises(LatePublishError):
        alone._made.task.out.publish()
    with pytest.raises(LatePublishError, match="^task 'KeepsOutput', port 'out': "):
        alone.run({"number": number}, cycle=1, now_ns=2)


def test_an_input_that_is_kept_shows_the_message_of_the_next_cycle(tmp_path):
    """As it may in a run, when the slot is used again."""
    inputs = [{"number": IntMsg(value=value)} for value in (1, 2)]
    assert [it.out.value for it in run_task(KeepsOutput, inputs=inputs)] == [1, 2]


def test_an_error_of_the_task_counts_more_than_a_field_that_it_set_in_vain():
    class Fails(Task):
        def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
            out.publish()
            out.value = 5
            raise ValueError("no")

    with pytest.raises(ValueError, match="^no") as caught:
        run_task(Fails, inputs=[{"number": IntMsg()}])
    assert caught.value.__notes__ == ["raised in cycle 0 of Fails"]


def test_a_field_that_is_set_on_an_output_that_was_not_published_is_no_error():
    class Sets(Task):
        def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
            out.value = 5

    assert run_task(Sets, inputs=[{"number": IntMsg()}]) == [{}]


def test_a_cycle_that_an_error_ends_has_an_end_for_each_step(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers; b=Boom(at: 1); x=Scale; y=Scale", "n > b; n > x; n > y")
    executor = Executor(plan, clock=ManualClock(START_NS, step_ns=1000))
    with pytest.raises(TaskError):
        executor.run()
    start_ns, ends_ns, _ = executor.timings[-1]
    assert len(ends_ns) == 4
    assert start_ns < ends_ns[0] <= ends_ns[1] == ends_ns[2] == ends_ns[3]


def test_a_task_that_published_once_is_not_silent(tmp_path):
    plan = plan_of(
        tmp_path, "n=Numbers(limit: 3); o=Boom(at: 1)@on_error: skip; e=engine_tasks.Once; m=Boom(at: 0)"
        "@on_error: skip; s=message_tasks.Mute",
        "n > o; n > e; e > m; n > s", "runtime: {ring_size: 1}",
    )  # fmt: skip
    executor = Executor(plan, clock=ManualClock(START_NS, step_ns=1000))
    executor.run()
    assert executor.silent == ["m", "s"]


def test_a_log_that_refuses_what_was_published_is_our_error(tmp_path):
    class Refuses:
        def check(self): ...

        def bind(self, messages):
            return messages

        def commit(self, *_args, **_more):
            raise MessageTypeError("too large")

    executor = Executor(
        plan_of(tmp_path, "n=Numbers"), clock=ManualClock(START_NS, step_ns=1000), log=Refuses()
    )
    with pytest.raises(InternalError, match="^the log refuses what was published: too large"):
        executor.run()


@pytest.mark.parametrize("ends", ["skip_cycle", "stop"])
def test_what_a_source_says_before_it_fails_is_in_that_cycle(tmp_path, ends):
    plan = plan_of(tmp_path, f"d=engine_tasks.DropsAndFails@on_error: {ends}")
    record(plan, tmp_path / "run")
    said = [(cycle, kind) for cycle, kind, *_ in controls(tmp_path / "run", "dropped", "error")]
    assert sorted(said) == [(0, "dropped"), (0, "error")]


def test_a_task_that_cannot_be_made_for_a_reason_of_ours_says_that(tmp_path):
    tasks = "n=Numbers(limit: 1); u=engine_tasks.Unmade(by: usage)"
    with pytest.raises(UsageError, match="^use it otherwise$"):
        record(plan_of(tmp_path, tasks), None)


def test_where_a_task_computes_is_logged_when_it_has_started(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 1); x=Scale; y=Scale", "n > x; n > y")
    executor = Executor(plan, clock=ManualClock(START_NS, step_ns=1000))
    executor.instances["x"].ctx.computes_on = "cuda:0"
    with capture_logs() as said:
        executor.run()
    assert [(it["event"], it["task"], it["where"]) for it in said] == [
        ("computes on", "x", "cuda:0")
    ]


def test_a_stop_that_fails_is_logged_and_the_others_are_stopped(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 1); x=Scale", "n > x")
    executor = Executor(plan, clock=ManualClock(START_NS, step_ns=1000))
    stopped = []

    def stop(_ctx):
        raise SystemExit(3)

    executor.instances["x"].task.stop = stop
    executor.instances["n"].task.stop = stopped.append
    with capture_logs() as said:
        executor.run()
    assert len(stopped) == 1
    assert [(it["event"], it["task"], it["error"]) for it in said] == [
        ("stop failed", "x", "SystemExit: 3")
    ]


def test_the_outputs_of_a_task_that_failed_are_closed(tmp_path):
    class Fails(Task):
        def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
            self.out = out
            raise ValueError("no")

    alone = Alone(Fails, TaskConfig(), graph_dir=tmp_path, seed=0)
    with pytest.raises(ValueError, match="no"):
        alone.run({"number": IntMsg(value=3)}, cycle=0, now_ns=1)
    with pytest.raises(LatePublishError):
        alone._made.task.out.publish()
