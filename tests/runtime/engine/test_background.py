"""Background tasks in a live run: what they make is given once, in order, whatever other tasks do."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from flowrun.msgs import LatePublishError
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.background import (
    BackgroundWorker,
    Jobs,
    JobState,
    are_complete,
    bind_background,
    job_inputs,
    prepare_job,
    run_job,
)
from flowrun.runtime.engine.instances import make_instances
from flowrun.runtime.engine.policy import FailedInPhase
from flowrun.runtime.engine.rates import Rate
from flowrun.runtime.events import Replaced
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


def worked(tmp_path, task, *, wake=lambda: None, freeze=None, cnx="n > t"):
    """A worker of task t, its instance, its step, the messages of a cycle in which n has published, and
    the time of that."""
    plan = plan_of(tmp_path, f"n=Numbers; t={task}!", cnx)
    time = CycleTime(3, 100)
    made = make_instances(plan, time, source=lambda _id: None)["t"]
    made.task.start(made.ctx)
    messages = [slot.message_type() for slot in plan.slots]
    messages[0].value = 7
    messages[0].publish(tov_ns=5)
    step = plan.steps[1]
    return BackgroundWorker(step, made, wake=wake, freeze=freeze), made, step, messages, time


def test_a_job_has_copies_of_its_inputs_and_outputs_of_its_own(tmp_path):
    _, made, step, messages, time = worked(tmp_path, "Scale")
    messages[1].envelope.owner = "task 't', port 'scaled'"
    job = prepare_job(step, messages, time=time, config=made.task.config)
    messages[0].clear()
    assert (job.cycle, job.now_ns, job.state) == (3, 100, JobState.WAITING)
    assert [job.messages[slot] is messages[slot] for slot in (0, 1)] == [False, False]
    run_job(job, step, made)
    own = job.messages[1]
    assert (own.value, own.tov_ns, own.present) == (70, 5, True)
    assert (job.error, job.phase, job.accepted) == (None, "process", None)
    assert (made.time.cycle, made.time.now_ns) == (3, 100)
    assert not messages[1].present
    with pytest.raises(LatePublishError, match="^task 't', port 'scaled': "):
        own.publish()


def test_a_worker_does_its_jobs_and_ends(tmp_path):
    woken, frozen = threading.Event(), []

    def freeze(job):
        frozen.append(job.cycle)
        if job.cycle == 4:
            raise OSError("cannot freeze")
        return {"state": job.cycle}

    worker, *_ = worked(tmp_path, "Scale")
    assert worker.thread_id is None
    assert worker.stop(timeout_s=0)  # it has not begun
    worker, made, step, messages, time = worked(tmp_path, "Scale", wake=woken.set, freeze=freeze)
    worker.start()
    assert worker.thread_id is not None
    for cycle, state, error in ((3, {"state": 3}, "None"), (4, None, "cannot freeze")):
        time.cycle = cycle
        woken.clear()
        assert (
            worker.submit(prepare_job(step, messages, time=time, config=made.task.config)) is None
        )
        assert woken.wait(30)
        job = worker.jobs.take()
        assert worker.jobs.give() is job
        assert (job.frozen, str(job.error)) == (state, error)
    assert frozen == [3, 4]
    assert worker.stop(timeout_s=30)
    assert worker.submit(prepare_job(step, messages, time=time, config=made.task.config)) is None
    assert not worker.jobs.busy


def test_a_worker_that_is_held_is_interrupted_and_not_waited_for(tmp_path):
    began, go_on, said = threading.Event(), threading.Event(), []
    worker, made, step, messages, time = worked(tmp_path, "Scale")

    def process(*_args):
        began.set()
        assert go_on.wait(30)

    def job():
        return prepare_job(step, messages, time=time, config=made.task.config)

    made.task.process = process
    made.task.interrupt = lambda _ctx: said.append(threading.current_thread().name)
    worker.start()
    first = job()
    worker.submit(first)
    assert began.wait(30)
    assert worker.jobs.running is first
    assert worker.submit(job()) is None
    assert worker.submit(job()) == 3  # in place of that
    assert not worker.stop(timeout_s=0)
    assert (len(said), worker.jobs.in_flight) == (1, [first])
    go_on.set()
    assert worker.stop(timeout_s=30)
    assert worker.jobs.running is None


def test_a_config_that_is_refused_leaves_the_task_with_the_one_before(tmp_path):
    _, made, step, messages, time = worked(tmp_path, "Picky(refuses: [2])")
    before = made.task.config
    config = before.model_copy(update={"factor": 2})
    job = prepare_job(step, messages, time=time, config=config)
    run_job(job, step, made)
    assert (str(job.error), job.phase, job.accepted) == ("no factor of 2", "configure", before)
    assert made.task.config is before
    assert not job.messages[1].present
    same = prepare_job(step, messages, time=time, config=before.model_copy())
    run_job(same, step, made)
    assert (same.error, made.task.changes) == (None, [frozenset({"factor"})])
    again = prepare_job(step, messages, time=time, config=config)
    again.restarts = True
    run_job(again, step, made)  # it starts with that config
    assert (again.error, made.task.changes, made.task.config) == (None, [], config)
    assert again.messages[1].value == 14


@pytest.mark.parametrize(
    ("present", "makes"), [((), False), ("a", True), ("b", False), ("ab", True)]
)
def test_inputs_make_a_job_if_all_that_is_required_is_there(tmp_path, present, makes):
    plan = plan_of(tmp_path, "a=Numbers; b=Numbers; s=Sum!", "a > s.a; b > s.b")
    messages = {slot.task_id: slot.message_type() for slot in plan.slots}
    for id_ in present:
        messages[id_].publish(tov_ns=1)
    [*_, step] = plan.steps
    inputs = job_inputs(step, list(messages.values()))
    assert [required for _, required in inputs] == [True, False]
    assert are_complete(inputs) is makes


def test_optional_inputs_alone_make_a_job_if_one_is_there(tmp_path):
    plan = plan_of(tmp_path, "a=Numbers; b=Numbers; s=engine_tasks.Either!", "a > s.a; b > s.b")
    messages = [slot.message_type() for slot in plan.slots]
    inputs = job_inputs(plan.steps[2], messages)
    assert not are_complete(inputs)
    messages[1].publish(tov_ns=1)
    assert are_complete(inputs)


class Handed:
    """The step of a background task, apart from its worker.

    done: the error of a job that a cycle has taken; "" if it made 70, None if there is no job.
    policy: whether a policy admits a job, whether it restarts the task, and whether a restart is due.
    """

    def __init__(self, tmp_path, *, done=None, policy=None, replaces=None, every=1):
        _, made, step, messages, time = worked(tmp_path, "Scale")
        self.jobs, self.submitted, self.said, self.messages = (
            Jobs(made.task.config),
            [],
            [],
            messages,
        )
        if done is not None:
            job = prepare_job(step, messages, time=time, config=made.task.config)
            if done:
                job.error, job.phase = OSError(done), "configure"
            else:
                run_job(job, step, made)
            self.jobs.put_taken(job)

        def submit(job):
            self.submitted.append(job)
            return replaces

        if policy is not None:
            admits, restarts, is_due = policy
            policy = SimpleNamespace(
                restarts=restarts,
                admits=lambda: admits,
                take_restart=lambda: is_due,
                note_success=lambda: self.said.append("success"),
                handle=lambda error, *, phase: self.said.append((str(error), phase)),
            )
        _, self.call = bind_background(
            SimpleNamespace(jobs=self.jobs, submit=submit),
            step,
            messages,
            time=time,
            rate=Rate(every=every, rate_hz=None),
            policy=policy,
            note=self.said.append,
        )


def handed(it):
    """(submitted jobs that begin with a restart or not, what was said, what was published)."""
    out = it.messages[1]
    return (
        [job.restarts for job in it.submitted],
        it.said,
        out.view().value if out.present else None,
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ([False], [], None)),
        ({"every": 2}, ([], [], None)),
        ({"replaces": 0}, ([False], [Replaced("t", 0)], None)),
        ({"done": ""}, ([False], [], 70)),
        ({"policy": (True, False, False)}, ([False], [], None)),
        ({"policy": (False, True, True)}, ([], [], None)),
        ({"policy": (True, True, True)}, ([True], [], None)),
        ({"policy": (True, True, False), "done": ""}, ([False], ["success"], 70)),
        ({"policy": (True, False, False), "done": "no"}, ([False], [("no", "configure")], None)),
        ({"policy": (True, True, False), "done": "no"}, ([], [("no", "configure")], None)),
        ({"policy": (False, False, False), "done": ""}, ([], ["success"], 70)),
    ],
)
def test_a_step_gives_what_is_done_and_hands_over_what_came(tmp_path, options, expected):
    it = Handed(tmp_path, **options)
    it.call()
    assert handed(it) == expected
    assert not it.jobs.has_taken


def test_an_error_without_a_policy_is_raised_with_what_the_task_did(tmp_path):
    it = Handed(tmp_path, done="no")
    with pytest.raises(FailedInPhase) as caught:
        it.call()
    assert (caught.value.phase, str(caught.value.__cause__)) == ("configure", "no")
    assert handed(it) == ([False], [], None)


def test_a_step_without_its_inputs_hands_nothing_over(tmp_path):
    it = Handed(tmp_path, done="")
    it.messages[0].clear()
    it.call()
    assert handed(it) == ([], [], 70)
