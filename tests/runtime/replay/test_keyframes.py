"""Where a replay can begin, and that it goes on from there as the run did."""

from __future__ import annotations

import threading

import pytest

from flowrun.runtime.engine.background import JobState
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.recorder import ReplayLog
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.replay.verify import verify_keyframes
from support import films
from support.engine_tasks import run_held
from support.helpers import (
    START_NS,
    controls,
    plan_of,
    record,
    replay_from_everywhere,
    run_hooked,
    until,
    values,
)

S = 1_000_000_000
SMALL = "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 2}"
RING = (
    "logging: {slab_size_mib: 1, section_size_mib: 1, mode: ring, keep_slabs: 2, "
    "keyframe_interval: 5}"
)


def wait_for_workers(live):
    """Until each background task is done with what it got."""
    until(lambda: not any(worker.jobs.working for worker in live.executor.workers.values()))


# -- live values that `configure` refuses ----------------------------------------------------------


@pytest.mark.parametrize("background", ["", "!"], ids=["foreground", "background"])
@pytest.mark.parametrize("policy", ["skip", "skip_cycle", "restart"])
def test_a_live_value_that_was_refused_is_not_kept(tmp_path, policy, background):
    def hook(live, number):
        wait_for_workers(live)
        if number in (3, 20):
            live.set_live("p", {"factor": 2 if number == 3 else 5})

    plan = plan_of(
        tmp_path, f"n=Hooked(limit: 30); p=Picky(refuses: [2]){background}@on_error: {policy}",
        "n > p", SMALL,
    )  # fmt: skip
    result = run_hooked(plan, tmp_path / "run", hook, step_ns=S // 3)
    assert result.error is None
    assert [value for *_, value in controls(tmp_path / "run", "error")][:1] == [
        "ValueError: no factor of 2"
    ]
    with Log(tmp_path / "run") as log:
        numbers = {m.tov_ns: m.fields["value"] for m in log.messages("/n/number")}
        factors = {numbers[m.tov_ns]: m.fields["value"] for m in log.messages("/p/scaled")}
    assert all(made in (10 * number, 5 * number) for number, made in factors.items())
    assert [factors[number] for number in (1, 2, 18, 19)] == [10, 20, 180, 190]
    assert [factors[number] for number in (28, 29)] == [140, 145]
    keyframes, notes = replay_from_everywhere(tmp_path / "run")
    assert notes == []
    assert {4, 6, 8, 10, 12, 14} < set(keyframes)


@pytest.mark.parametrize("background", ["", "!"], ids=["foreground", "background"])
def test_a_replay_begins_with_a_value_that_configure_refuses_and_a_restart_took(
    tmp_path, background
):
    def hook(live, number):
        wait_for_workers(live)
        if number in (3, 10):
            live.set_live("p", {"factor": 2})

    plan = plan_of(
        tmp_path, f"n=Hooked(limit: 30); p=Picky(refuses: [2]){background}@on_error: restart",
        "n > p", SMALL,
    )  # fmt: skip
    assert run_hooked(plan, tmp_path / "run", hook, step_ns=S // 9).error is None
    with Log(tmp_path / "run") as log:
        numbers = {m.tov_ns: m.fields["value"] for m in log.messages("/n/number")}
        [*_, last] = [(numbers[m.tov_ns], m.fields["value"]) for m in log.messages("/p/scaled")]
    assert last == (29, 58)
    keyframes, notes = replay_from_everywhere(tmp_path / "run")
    assert ({16, 28} < set(keyframes), notes) == (True, [])


# -- freeze ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", ["", "!"], ids=["foreground", "background"])
def test_a_freeze_that_is_cancelled_costs_its_keyframes_and_is_said_once(tmp_path, background):
    plan = plan_of(
        tmp_path, f"n=Hooked(limit: 8); c=engine_tasks.Cancelled{background}@on_error: skip",
        "n > c", SMALL.replace("interval: 2", "interval: 1"),
    )  # fmt: skip
    result = run_hooked(plan, tmp_path / "run", lambda live, _: wait_for_workers(live))
    assert result.error is None
    assert [value for _, value in values(tmp_path / "run", "/c/out")] == [*range(1, 9)]
    with Log(tmp_path / "run") as log:
        lines = [m.fields["message"] for m in log.messages("/flowrun/log")]
    assert [line.partition(":")[0] for line in lines] == ["freeze failed"]
    keyframes, notes = replay_from_everywhere(tmp_path / "run")
    # Before the calls in question, and after them; a background task's count is that of the last
    # result that appeared.
    lost = [4, 5] if background else [2, 3]
    assert keyframes == [cycle for cycle in range(len(Log(tmp_path / "run"))) if cycle not in lost]
    [note] = notes
    assert note == (
        f"no replay can begin at the keyframe of cycle {lost[0]}, nor at 1 other: freeze of task 'c' "
        "failed: CancelledError: from a library"
    )


# -- jobs in flight --------------------------------------------------------------------------------


def run_with_a_long_job(plan, directory, *, ends_at):
    """The first job of the background task h is held until number `ends_at`."""
    gate = threading.Semaphore(0)

    def hook(live, number):
        jobs = live.executor.workers["h"].jobs
        if number == 1:
            until(lambda: jobs.in_flight[0].state is JobState.RUNNING)
        if number == ends_at:
            gate.release()
            until(lambda: jobs.has_done)
            gate.release(999)
        if number > ends_at:
            wait_for_workers(live)

    result = run_held(plan, directory, hook, lambda *_: gate.acquire(timeout=30))
    assert result.error is None


@pytest.mark.parametrize("fails", ["", "(fails_at: [0])"], ids=["gives a result", "fails"])
def test_keyframes_with_a_job_whose_inputs_have_left_the_log_are_passed_over(tmp_path, fails):
    plan = plan_of(
        tmp_path,
        f"n=Hooked(limit: 60); big=engine_tasks.Big; h=engine_tasks.HeldCount{fails}!@on_error: skip",
        "n > big; n > h", RING,
    )  # fmt: skip
    run_with_a_long_job(plan, tmp_path / "run", ends_at=50)
    [(given, *_), *_] = controls(tmp_path / "run", "completion")
    with Log(tmp_path / "run") as log:
        recorded = [m.cycle for m in log.messages("/flowrun/keyframe")]
        assert 0 < recorded[0] < given
        found = verify_keyframes(Replay(log, env={}), count=9)
        assert (found.forgetful, found.unsteady) == ({}, {})
        begun = next(cycle.cycle for cycle in log.cycles())
        replay = Replay(log, env={})
        assert replay.run().first is None
    passed_over = [cycle for cycle in recorded if cycle <= given]
    assert passed_over
    keyframes, notes = replay_from_everywhere(tmp_path / "run")
    assert keyframes == [cycle for cycle in recorded if cycle > given]
    others = {1: "", 2: ", nor at 1 other"}.get(
        len(passed_over), f", nor at {len(passed_over) - 1} others"
    )
    assert (
        f"no replay can begin at the keyframe of cycle {passed_over[0]}{others}: the log lacks the "
        "inputs of cycle 0 of task 'h'"
    ) in notes
    assert replay.notes[-1] == (
        f"the log begins in the middle of its run: cycles {begun} to {keyframes[0] - 1} are left out, "
        "as no replay can begin before its first complete keyframe"
    )


@pytest.mark.parametrize(
    ("task", "passed_over"),
    [("HeldCount", [2, 4, 6]), ("HeldDraw", [2, 4, 6]), ("Held", [])],
    ids=["remembers", "draws its first numbers", "does not"],
)
def test_a_job_on_inputs_that_are_not_logged_is_in_the_way_of_a_task_that_remembers_only(
    tmp_path, task, passed_over
):
    plan = plan_of(
        tmp_path,
        "n=Hooked(limit: 14); x=Scale(factor: 1)@logging: {enabled: false}; "
        f"h=engine_tasks.{task}!",
        "n > x; x > h", SMALL,
    )  # fmt: skip
    run_with_a_long_job(plan, tmp_path / "run", ends_at=6)
    with Log(tmp_path / "run") as log:
        recorded = [m.cycle for m in log.messages("/flowrun/keyframe")]
        found = verify_keyframes(Replay(log, env={}), count=99)
    assert (found.forgetful, found.unsteady) == ({}, {})
    keyframes, _ = replay_from_everywhere(tmp_path / "run")
    assert recorded[:4] == [0, 2, 4, 6]
    assert set(recorded[:4]) - set(keyframes) == set(passed_over)


def test_a_job_may_have_drawn_the_first_numbers_if_no_later_keyframe_says_otherwise(tmp_path):
    plan = plan_of(
        tmp_path,
        "n=Hooked(limit: 8); x=Scale(factor: 1)@logging: {enabled: false}; h=engine_tasks.HeldDraw!",
        "n > x; x > h", SMALL.replace("interval: 2", "interval: 6"),
    )  # fmt: skip
    run_with_a_long_job(plan, tmp_path / "run", ends_at=7)
    with Log(tmp_path / "run") as log:
        assert [m.cycle for m in log.messages("/flowrun/keyframe")] == [0, 6]
    assert replay_from_everywhere(tmp_path / "run")[0] == [0]


def test_a_job_that_begins_with_a_restart_is_in_the_way_if_the_log_lacks_its_inputs(tmp_path):
    """Its task has no state at the keyframe, and has one after the job."""
    gate = threading.Semaphore(0)
    plan = plan_of(
        tmp_path,
        "n=Hooked(limit: 14); x=Scale(factor: 1)@logging: {enabled: false}; "
        "h=engine_tasks.HeldCount(fails_at: [0])!@on_error: restart, every: 3",
        "n > x; x > h", SMALL,
    )  # fmt: skip

    def hook(live, number):
        jobs = live.executor.workers["h"].jobs
        if number == 7:
            until(lambda: jobs.in_flight[0].state is JobState.RUNNING)
        if number == 9:
            gate.release(999)
        if number == 1 or number > 8:
            wait_for_workers(live)

    result = run_held(
        plan,
        tmp_path / "run",
        hook,
        lambda _, number: number == 0 or gate.acquire(timeout=30),
        step_ns=S // 2,
    )
    assert result.error is None
    completed = controls(tmp_path / "run", "completion")
    assert [restarted for *_, restarted in completed[:2]] == [False, True]
    keyframes, _ = replay_from_everywhere(tmp_path / "run")
    assert completed[1][0] > 8
    assert 8 not in keyframes


def test_a_job_that_may_refuse_a_live_value_is_in_the_way_if_the_log_lacks_its_inputs(tmp_path):
    """Later jobs have the value that was there before."""
    gate = threading.Semaphore(0)
    plan = plan_of(
        tmp_path,
        "n=Hooked(limit: 14); x=Scale(factor: 1)@logging: {enabled: false}; "
        "h=engine_tasks.HeldPicky!@on_error: skip",
        "n > x; x > h", SMALL,
    )  # fmt: skip

    def hook(live, number):
        jobs = live.executor.workers["h"].jobs
        if number == 1:
            until(lambda: jobs.in_flight[0].state is JobState.RUNNING)
            live.set_live("h", {"gain": 2})
        if number == 5:
            gate.release(999)
        if number >= 5:
            wait_for_workers(live)

    result = run_held(plan, tmp_path / "run", hook, lambda *_: gate.acquire(timeout=30))
    assert result.error is None
    errors = {value for *_, value in controls(tmp_path / "run", "error")}
    assert errors == {"ValueError: no gain of 2"}
    keyframes, _ = replay_from_everywhere(tmp_path / "run")
    assert {0, 12} < set(keyframes)
    assert 6 not in keyframes


@pytest.mark.parametrize("start", [2, 4, 5])
@pytest.mark.parametrize("task", ["Held", "HeldCount"])
def test_a_result_that_was_taken_in_a_cycle_that_an_error_ended_is_in_each_replay(
    tmp_path, task, start
):
    """It is taken in cycle 4 and given in cycle 5: in a log that begins at `start`, its inputs are
    missing, and that it was taken may be too."""
    plan = plan_of(
        tmp_path,
        f"n=Hooked(limit: 9); b=Boom(at: 4)@on_error: skip_cycle; h=engine_tasks.{task}!; s=Sum",
        "n > b; n > h; h > s.a",
        "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 1}",
    )
    run_with_a_long_job(plan, tmp_path / "run", ends_at=3)
    completed = [cycle for cycle, *_ in controls(tmp_path / "run", "completion")]
    assert (completed[0], values(tmp_path / "run", "/h/out")[0][0]) == (4, 5)
    replay_from_everywhere(tmp_path / "run")
    with Log(tmp_path / "run") as log:
        replay = Replay(log, env={})
        with ReplayLog(replay, tmp_path / "part", config={}, now_ns=START_NS) as recorder:
            assert replay.run(start=start, recorder=recorder).first is None
    replay_from_everywhere(tmp_path / "part")


@pytest.mark.parametrize("fed", [True, False], ids=["logged", "not logged"])
def test_what_cannot_begin_at_any_keyframe_is_taken_from_the_log(tmp_path, fed):
    """A log that begins in the middle, in which a job on earlier inputs is always in flight."""
    unlogged = "" if fed else "@logging: {enabled: false}"
    plan = plan_of(
        tmp_path,
        f"n=Hooked(limit: 12); h=engine_tasks.HeldCount!{unlogged}; s=Sum; t=Sum",
        "n > h; h > s.a; n > t.a", SMALL,
    )  # fmt: skip
    run_with_a_long_job(plan, tmp_path / "run", ends_at=11)
    with Log(tmp_path / "run") as log:
        replay = Replay(log, env={})
        with ReplayLog(replay, tmp_path / "part", config={}, now_ns=START_NS) as recorder:
            assert replay.run(start=4, to=12, recorder=recorder).first is None
    with Log(tmp_path / "part") as log:
        part = Replay(log, env={})
        report = part.run()
    if fed:
        assert part.notes == [
            "task 'h' is not run: no keyframe of the log, which begins in the middle of its run, holds "
            "all that it remembers and works on; its messages are taken from the log"
        ]
        assert (report.first, report.per_task) == (None, {"s": 1, "t": 8})
    else:
        assert part.notes[-2:] == [
            "the log begins at cycle 4, without a keyframe: the tasks begin as at the start of a run",
            "task 's' did not run where a task before it did not run, whose messages the log does "
            "not hold: its messages of those cycles are taken from the log, and what it remembers "
            "lacks them",
        ]
        assert report.per_task == {"t": 8}


@pytest.mark.parametrize("policy", ["skip", "stop"])
def test_a_job_that_began_before_a_flight_recorders_log_fails_again(tmp_path, policy):
    """Its error is the log's, and no difference, where the task remembers nothing."""
    gate = threading.Semaphore(0)
    plan = plan_of(
        tmp_path,
        f"n=Hooked(limit: 60); big=engine_tasks.Big; h=engine_tasks.Held(fails_at: [0])!"
        f"@on_error: {policy}",
        "n > big; n > h", RING,
    )  # fmt: skip

    def hook(live, number):
        jobs = live.executor.workers["h"].jobs
        if number == 1:
            until(lambda: jobs.in_flight[0].state is JobState.RUNNING)
        if number == 50:
            gate.release(999)
            until(lambda: jobs.has_done)

    result = run_held(plan, tmp_path / "run", hook, lambda *_: gate.acquire(timeout=30))
    assert (result.error is None) is (policy == "skip")
    [(failed, *_)] = controls(tmp_path / "run", "error")
    with Log(tmp_path / "run") as log:
        replay = Replay(log, env={})
        report = replay.run()
        begun = replay.keyframes[0]
        assert 0 < begun < failed
        assert (report.first, report.cycles > 0) == (None, True)
    expected = f"task 'h', cycle {failed}: ValueError: cannot stand 0"
    assert report.recorded_error == (expected if policy == "stop" else None)


# -- pictures --------------------------------------------------------------------------------------


def test_a_flight_recorders_replay_of_packets_begins_at_a_key_frame(tmp_path):
    film = films.draw(
        tmp_path / "noise.mp4", frames=80, moves=False, size=(256, 192), crf="8",
        **{"x264-params": "keyint=8:min-keyint=8:scenecut=0:bframes=0"},
    )  # fmt: skip
    plan = plan_of(
        tmp_path, f"a=VideoCapture(source_uri: {film}); d=Digest", "a > d: ImageRgb8Msg",
        RING.replace("interval: 5", "interval: 1"),
    )  # fmt: skip
    _, result = record(plan, tmp_path / "run")
    assert result.error is None
    with Log(tmp_path / "run") as log:
        recorded = [m.cycle for m in log.messages("/flowrun/keyframe")]
        replay = Replay(log, env={})
        report = replay.run()
        keyframes = replay.keyframes
        assert Replay(log, env={}).run(start=keyframes[-9]).first is None
        assert recorded[0] > 8
        first = -(-recorded[0] // 8) * 8
        blind = Replay(log, env={}, keyframes=False)
        assert (blind.run().first, blind.report.cycles) == (None, report.cycles)
    left_out = (
        f"the log begins in the middle of its run: cycles {recorded[0]} to {first - 1} are left out, "
        "as "
    )
    assert replay.notes == [f"{left_out}no replay can begin before its first complete keyframe"]
    assert blind.notes == [
        f"{left_out}the pictures before their first key frame cannot be decoded",
        f"the log begins at cycle {recorded[0]}, without a keyframe: the tasks begin as at the start "
        "of a run",
    ]
    assert keyframes == [cycle for cycle in recorded if cycle >= first]
    assert (report.first, report.cycles) == (None, len(keyframes))
