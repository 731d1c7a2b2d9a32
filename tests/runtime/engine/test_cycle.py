"""What a cycle shows its tasks: nothing stale, and a task only with all that it needs."""

from __future__ import annotations

import pytest

from flowrun.msgs import IntMsg
from flowrun.runtime.engine.alone import Alone
from flowrun.runtime.errors import TaskError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from support.helpers import Flaky, Scale, controls, plan_of, record, replay_from_everywhere, values


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
        f"TypeError: process returned a {kind}, which nobody runs; write a plain `def process` that "
        "has done its work when it returns"
    ]
    with Log(tmp_path / "run") as log:
        assert Replay(log, env={}).run().first is None


def test_a_process_that_returns_what_nobody_runs_ends_a_run_without_a_policy(tmp_path):
    tasks = "n=Numbers(limit: 3); h=engine_tasks.HandsBack(kind: generator)"
    _, result = record(plan_of(tmp_path, tasks, "n > h"), None)
    assert str(result.error).startswith(
        "task 'h' failed in process, cycle 0: TypeError: process returned a generator"
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


def test_what_else_a_process_returns_does_not_matter(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 1); h=engine_tasks.HandsBack(kind: int)", "n > h")
    _, result = record(plan, None)
    assert result.error is None


def test_a_cycle_that_is_stepped_asks_the_outside_between_sources_and_others(tmp_path):
    alone = Alone(Scale, Scale.Config(), graph_dir=tmp_path, seed=0)
    cycle, asked = alone._cycle, []

    def after_sources():
        asked.append(len(cycle.ends_ns))  # steps that have ended
        return ()

    alone._outside.after_sources = after_sources
    alone.start()
    number = IntMsg(value=3)
    number.publish(tov_ns=1)
    [made] = alone.run({alone.inputs[0]: number}, cycle=0, now_ns=1).values()
    assert made.value == 30
    assert asked == [1]
