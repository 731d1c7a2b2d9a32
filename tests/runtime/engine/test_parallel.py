"""Independent steps at once; that a log has the same bytes is a property in test_determinism.py."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from flowrun.runtime.clock import LiveClock, ManualClock
from flowrun.runtime.engine.executor import Executor
from flowrun.runtime.engine.parallel import Crew
from flowrun.runtime.errors import TaskError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from support.engine_tasks import Hangs
from support.helpers import START_NS, controls, plan_of, record, until
from support.parallel_tasks import Meets, Steps

PARALLEL = (
    "logging: {slab_size_mib: 1, section_size_mib: 1}\nruntime: {executor: parallel, workers: 3}"
)


@pytest.fixture(autouse=True)
def nothing_began() -> None:
    Steps.began, Steps.changed = [], threading.Condition()


def values(directory: Path, topic: str) -> list[int]:
    with Log(directory) as log:
        return [message.fields["value"] for message in log.messages(topic)]


@pytest.mark.parametrize("workers", [3, 2])
def test_steps_that_do_not_feed_each_other_run_at_once(tmp_path: Path, workers: int) -> None:
    Meets.barrier = threading.Barrier(workers)
    ids = [f"m{number}" for number in range(workers)]
    plan = plan_of(
        tmp_path,
        "; ".join(["n=Numbers(limit: 4)", *(f"{id_}=parallel_tasks.Meets" for id_ in ids)]),
        "; ".join(f"n > {id_}" for id_ in ids),
        PARALLEL.replace("3}", f"{workers}}}"),
    )
    _, result = record(plan, tmp_path / "run")
    assert result.error is None
    assert [values(tmp_path / "run", f"/{id_}/out") for id_ in ids] == [[0, 1, 2, 3]] * workers


def test_a_step_follows_the_one_that_feeds_it_though_others_still_run(tmp_path: Path) -> None:
    """`late` ends after `fed` has begun, and is before it in the plan's order."""
    tasks = (
        "n=Numbers(limit: 1); late=parallel_tasks.Steps(after: fed); a=Evens; "
        "fed=parallel_tasks.Steps"
    )
    plan = plan_of(tmp_path, tasks, "n > late; n > a; a > fed", PARALLEL)
    _, result = record(plan, tmp_path / "run")
    assert (result.error, sorted(Steps.began)) == (None, [("fed", 0), ("late", 0)])


@pytest.mark.parametrize("order", ["first", "last"])
def test_steps_after_the_one_that_ends_the_run_count_as_not_run(tmp_path: Path, order: str) -> None:
    """Both have run, `a` to its end in any case: a replay, step by step, does not run `b` at all."""
    fails = "a" if order == "first" else "b"
    other = "b" if order == "first" else "a"
    tasks = "; ".join(
        ["n=Numbers(limit: 5)"]
        + [
            f"{id_}=parallel_tasks.Steps({'at: 2, ' if id_ == fails else ''}after: {after})"
            for id_, after in (("a", "b"), ("b", "a"))
        ]
    )
    plan = plan_of(tmp_path, tasks, "n > a; n > b", PARALLEL)
    _, result = record(plan, tmp_path / "run")
    assert isinstance(result.error, TaskError)
    assert str(result.error).startswith(f"task {fails!r} failed in process, cycle 2")
    assert sorted(Steps.began) == [(id_, number) for id_ in "ab" for number in range(3)]
    assert values(tmp_path / "run", f"/{fails}/out") == [0, 1]
    assert values(tmp_path / "run", f"/{other}/out") == ([0, 1, 2] if other == "a" else [0, 1])
    with Log(tmp_path / "run") as log:
        report = Replay(log, env={}).run()
    assert report.first is None, str(report.first)


def test_of_two_steps_that_raise_the_first_one_counts(tmp_path: Path) -> None:
    tasks = (
        "n=Numbers(limit: 5); a=parallel_tasks.Steps(at: 0, after: b); "
        "b=parallel_tasks.Steps(at: 0, after: a)"
    )
    _, result = record(plan_of(tmp_path, tasks, "n > a; n > b", PARALLEL), tmp_path / "run")
    assert str(result.error).startswith("task 'a' failed in process, cycle 0")
    assert [task for _, _, task, _ in controls(tmp_path / "run", "error")] == ["a"]


def test_errors_that_tasks_outlive_are_in_the_plans_order(tmp_path: Path) -> None:
    tasks = (
        "n=Numbers(limit: 3); a=parallel_tasks.Steps(at: 1, after: c)@on_error: skip; "
        "b=parallel_tasks.Steps(at: 1, after: c)@on_error: skip; "
        "c=parallel_tasks.Steps(at: 1)@on_error: skip"
    )
    plan = plan_of(tmp_path, tasks, "n > a; n > b; n > c", PARALLEL)
    _, result = record(plan, tmp_path / "run")
    assert result.error is None
    assert [task for _, _, task, _ in controls(tmp_path / "run", "error")] == ["a", "b", "c"]


def test_a_step_that_may_end_the_cycle_runs_alone(tmp_path: Path) -> None:
    tasks = (
        "n=Numbers(limit: 2); a=parallel_tasks.Steps; "
        "b=parallel_tasks.Steps(at: 1)@on_error: skip_cycle; c=parallel_tasks.Steps"
    )
    plan = plan_of(tmp_path, tasks, "n > a; n > b; n > c", PARALLEL)
    _, result = record(plan, tmp_path / "run")
    assert result.error is None
    assert Steps.began == [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("b", 1)]


def test_when_steps_ended_never_goes_back(tmp_path: Path) -> None:
    """`a` ends after `b`."""
    tasks = "n=Numbers(limit: 2); a=parallel_tasks.Steps(after: b); b=parallel_tasks.Steps"
    run, result = record(plan_of(tmp_path, tasks, "n > a; n > b", PARALLEL), tmp_path / "run")
    assert result.error is None
    for start_ns, ends_ns, _ in run.executor.timings:
        assert [start_ns, *ends_ns] == sorted([start_ns, *ends_ns])
        assert len(ends_ns) == 3


def test_a_task_that_hangs_on_another_thread_is_named(tmp_path: Path) -> None:
    Hangs.go_on, Hangs.began = threading.Event(), threading.Event()
    tasks = "n=Numbers(limit: 1); " + "; ".join(
        f"h{number}=engine_tasks.Hangs(where: process)@deadline_ms: 20" for number in range(2)
    )
    plan = plan_of(tmp_path, tasks, "n > h0; n > h1", PARALLEL)
    run = Run(plan, clock=LiveClock(), directory=tmp_path / "run")
    thread = threading.Thread(target=run.run)
    thread.start()
    try:
        until(lambda: run.executor.watchdog.late.keys() == {"h0", "h1"})
        assert {late.method for late in run.executor.watchdog.late.values()} == {"process"}
    finally:
        Hangs.go_on.set()
        thread.join()


def test_messages_are_watched_one_step_after_the_other(tmp_path: Path) -> None:
    tasks = "n=Numbers(limit: 2); a=parallel_tasks.Steps; b=parallel_tasks.Steps"
    plan = plan_of(tmp_path, tasks, "n > a; n > b", PARALLEL)
    Executor(plan, clock=ManualClock(START_NS, step_ns=1000), debug_messages=True).run()
    assert Steps.began == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


def test_the_threads_end_with_the_run(tmp_path: Path) -> None:
    Meets.barrier = threading.Barrier(2)
    plan = plan_of(
        tmp_path,
        "n=Numbers(limit: 2); a=parallel_tasks.Meets; b=parallel_tasks.Meets",
        "n > a; n > b",
        PARALLEL,
    )
    record(plan, None)
    until(lambda: not [it for it in threading.enumerate() if it.name.startswith("flowrun-step")])


def test_a_crew_of_none_leaves_all_to_the_caller() -> None:
    crew = Crew(0)
    crew.help(lambda: pytest.fail("nobody is there"), 5)
    crew.end()
