"""Background tasks in a live run: what they make is given once, in order, whatever other tasks do."""

from __future__ import annotations

import threading

import pytest

from flowrun.runtime.engine.background import JobState
from flowrun.runtime.log.reader import Log
from support.engine_tasks import run_held
from support.helpers import controls, plan_of, replay_from_everywhere, until, values

S = 1_000_000_000
SMALL = "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 1}"


def states(live, task_id):
    """The states of the task's jobs in flight, in their order."""
    return [job.state for job in live.executor.workers[task_id].jobs.in_flight]


def run_until_done(plan, directory, *, limit, jobs):
    """A run whose background tasks a and b are held until `limit` numbers have come and each has `jobs`
    results, which the cycle after that finds."""
    gates = {"a": threading.Semaphore(0), "b": threading.Semaphore(0)}

    def hook(live, number):
        if number == 1:
            until(lambda: all(states(live, id_)[0] is JobState.RUNNING for id_ in gates))
        if number == limit:
            for id_, gate in gates.items():
                gate.release(jobs)
                until(lambda id_=id_: states(live, id_) == [JobState.DONE] * jobs)

    result = run_held(plan, directory, hook, lambda id_, _n: gates[id_].acquire(timeout=30))
    assert (result.error, result.reason) == (None, "end of sources")


@pytest.mark.parametrize(
    ("first", "cnx"),
    [
        ("a=engine_tasks.Held(fails_at: [0])!@on_error: skip_cycle", ""),
        ("a=engine_tasks.Held!; strict=Boom(at: 0)@on_error: skip_cycle", "a > strict; "),
    ],
    ids=["of a background task", "of the task that reads another result"],
)
def test_a_result_taken_in_a_cycle_that_an_error_ends_appears_in_the_next(tmp_path, first, cnx):
    plan = plan_of(
        tmp_path, f"n=Hooked(limit: 1); {first}; b=engine_tasks.Held!; x=Scale",
        f"n > a; {cnx}n > b; b > x", SMALL,
    )  # fmt: skip
    run_until_done(plan, tmp_path / "run", limit=1, jobs=1)
    assert [(cycle, task) for cycle, _, task, _ in controls(tmp_path / "run", "completion")] == [
        (2, "a"), (2, "b"),
    ]  # fmt: skip
    assert values(tmp_path / "run", "/b/out") == [(3, 0)]
    assert values(tmp_path / "run", "/x/scaled") == [(3, 0)]
    keyframes, notes = replay_from_everywhere(tmp_path / "run")
    assert (keyframes, notes) == ([0, 1, 2, 3], [])


def test_a_result_that_is_done_while_an_older_one_is_untaken_comes_after_it(tmp_path):
    plan = plan_of(
        tmp_path,
        "n=Hooked(limit: 2); a=engine_tasks.Held(fails_at: [0, 1])!@on_error: skip_cycle; "
        "b=engine_tasks.HeldCount!",
        "n > a; n > b", SMALL,
    )  # fmt: skip
    run_until_done(plan, tmp_path / "run", limit=2, jobs=2)
    # Cycles 3 and 4 end with the errors of a; b's first result is taken in 3 and waits there.
    assert [cycle for cycle, *_ in controls(tmp_path / "run", "error")] == [3, 4]
    completions = controls(tmp_path / "run", "completion")
    assert [(cycle, task) for cycle, _, task, _ in completions] == [
        (3, "a"), (3, "b"), (4, "a"), (6, "b"),
    ]  # fmt: skip
    assert values(tmp_path / "run", "/b/out") == [(5, 1), (6, 2)]
    keyframes, notes = replay_from_everywhere(tmp_path / "run")
    assert (keyframes, notes) == ([*range(7)], [])


def run_with_a_restart(tmp_path):
    """Job 0 fails while job 1 waits. Job 1 is then held while the restart falls due, and newer inputs
    replace each other in the place of the job that waits for it."""
    gate = threading.Semaphore(0)
    plan = plan_of(
        tmp_path,
        "n=Hooked(limit: 8); c=engine_tasks.HeldCount(fails_at: [0])!@on_error: restart",
        "n > c", SMALL,
    )  # fmt: skip

    def hook(live, number):
        if number == 1:
            until(lambda: states(live, "c") == [JobState.RUNNING])
        if number == 3:
            assert states(live, "c") == [JobState.RUNNING, JobState.WAITING]
            gate.release()
            until(lambda: states(live, "c")[:2] == [JobState.DONE, JobState.RUNNING])
        if number == 8:
            gate.release(9)

    result = run_held(plan, tmp_path / "run", hook, lambda *_: gate.acquire(timeout=30), step_ns=S)
    assert result.error is None


def test_a_due_restart_is_not_lost_when_newer_inputs_replace_those_that_wait_for_it(tmp_path):
    run_with_a_restart(tmp_path)
    completions = controls(tmp_path / "run", "completion")
    assert [restarted for *_, restarted in completions] == [False, False, True]
    with Log(tmp_path / "run") as log:
        inputs = [
            m.fields["input_cycle"]
            for m in log.messages("/flowrun/control")
            if m.fields["kind"] == "completion"
        ]
    assert inputs == [0, 2, 7]
    # The job that had waited goes on with the count; the restarted task begins with 1.
    assert [value for _, value in values(tmp_path / "run", "/c/out")] == [2, 1]


def test_a_keyframe_between_a_failed_job_and_the_one_that_waited_is_what_that_goes_on_with(
    tmp_path,
):
    run_with_a_restart(tmp_path)
    keyframes, notes = replay_from_everywhere(tmp_path / "run")
    assert notes == []
    assert {4, 5, 6, 7, 8} < set(keyframes)  # after the failure, before the restarted job's result
