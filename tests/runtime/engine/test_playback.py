"""Sources that somebody pauses, mutes and resumes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.outside import LiveOutside
from flowrun.runtime.errors import UsageError
from flowrun.runtime.events import Switched
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from support.helpers import START_NS, Hooked, controls, plan_of, run_hooked, values

TWO = "a=Hooked(limit: 10); b=Numbers(limit: 8); x=Scale"


def run_switched(tmp_path: Path, at: dict[int, str], tasks: str = TWO) -> list[tuple[int, int]]:
    """Run `tasks` with a call of the run's method for source b before each number of a, and see that
    the run replays; the values of b with their cycles."""

    def switch(run: Run, number: int) -> None:
        if number in at:
            assert getattr(run, at[number])("b")
            assert not getattr(run, at[number])("b")

    plan = plan_of(tmp_path, tasks, "b > x")
    result = run_hooked(plan, tmp_path / "run", switch)
    assert result.error is None
    with Log(tmp_path / "run") as log:
        assert Replay(log, env={}).run().identical
    return values(tmp_path / "run", "/b/number")


def test_a_paused_source_goes_on_where_it_stopped_and_others_are_not_affected(tmp_path):
    seen = run_switched(tmp_path, {2: "pause", 5: "resume"})
    assert seen == [(0, 0), (1, 1), (2, 2), (6, 3), (7, 4), (8, 5), (9, 6), (10, 7)]
    assert values(tmp_path / "run", "/a/number") == [(n, n) for n in range(10)]
    assert controls(tmp_path / "run", "switched", "dropped") == [
        (3, "switched", "b", None),
        (6, "switched", "b", None),
    ]


@pytest.mark.parametrize(
    ("verb", "state", "first"), [("pause", "paused", (4, 0)), ("mute", "muted", (5, 3))]
)
def test_a_source_can_be_switched_before_the_first_cycle(tmp_path, verb, state, first):
    plan = plan_of(tmp_path, TWO, "b > x")
    run = Run(plan, clock=ManualClock(START_NS, step_ns=1000), directory=tmp_path / "run")
    shown = [run.report().tasks["b"].state]
    assert getattr(run, verb)("b")
    shown.append(run.report().tasks["b"].state)

    def look(number: int) -> None:
        if number < 4:
            shown.append(run.report().tasks["b"].state)
        if number == 3:
            assert run.resume("b")

    Hooked.hook = look
    assert run.run().error is None
    assert shown == ["starting"] * 2 + [state] * 4
    assert values(tmp_path / "run", "/b/number")[0] == first
    assert controls(tmp_path / "run", "switched")[0] == (0, "switched", "b", None)
    assert run.report().tasks["b"].state == "ended"
    with Log(tmp_path / "run") as log:
        assert Replay(log, env={}).run().identical


def test_a_muted_source_goes_on_unseen_and_what_it_publishes_is_counted(tmp_path):
    seen = run_switched(tmp_path, {2: "mute", 5: "resume"})
    assert seen == [(0, 0), (1, 1), (2, 2), (7, 5), (8, 6), (9, 7)]
    assert values(tmp_path / "run", "/x/scaled") == [(n, 10 * value) for n, value in seen]
    dropped = controls(tmp_path / "run", "dropped")
    assert sum(value for _, _, _, value in dropped) == 2


@pytest.mark.parametrize(
    ("verbs", "after"),
    [(("pause", "mute"), [(8, 4), (9, 5), (10, 6)]), (("mute", "pause"), [(7, 3), (8, 4), (9, 5)])],
)
def test_a_source_goes_from_paused_to_muted_and_back(tmp_path, verbs, after):
    seen = run_switched(tmp_path, {1: verbs[0], 3: verbs[1], 6: "resume"})
    assert seen[:5] == [(0, 0), (1, 1), *after]


def test_a_run_waits_for_a_source_that_is_paused(tmp_path):
    plan = plan_of(tmp_path, "a=Hooked(limit: 3); b=Numbers(limit: 8)")
    idle = []

    def pause(run: Run, number: int) -> None:
        if number != 2:
            return
        run.pause("b")

        def waits(_now_ns: int) -> None:
            idle.append((run.report().tasks["b"].state, run.executor.awaits("b")))
            run.stop("the test has seen it wait")

        run.executor._waiting.for_sources = waits  # type: ignore[method-assign]

    result = run_hooked(plan, tmp_path / "run", pause)
    assert (result.reason, idle) == ("the test has seen it wait", [("paused", False)])


def test_a_source_that_was_muted_fails_by_its_own_policy(tmp_path):
    tasks = "a=Hooked(limit: 9); b=RoughNumbers(limit: 8, fails_at: [3], set_at: {})@on_error: skip"
    assert [n for _, n in run_switched(tmp_path, {1: "mute"}, f"{tasks}; x=Scale")] == [0, 1]
    assert [kind for _, kind, *_ in controls(tmp_path / "run", "error")] == ["error"]


def test_only_a_source_that_goes_on_can_be_switched(tmp_path):
    plan = plan_of(tmp_path, "a=Hooked(limit: 3); b=Numbers(limit: 0); x=Scale", "b > x")
    errors = []

    def switch(run: Run, number: int) -> None:
        for task in ("b", "x", "nobody") if number == 1 else ():
            with pytest.raises(UsageError) as raised:
                run.pause(task)
            errors.append(str(raised.value))

    run_hooked(plan, tmp_path / "run", switch)
    assert errors == [
        "source 'b' has ended; nothing more comes from it",
        "task 'x' is no source; sources: a, b",
        "unknown task 'nobody'; sources: a, b",
    ]


def test_a_source_knows_what_is_asked_and_how_long_it_was_paused():
    outside, time = (
        LiveOutside(ManualClock(100, step_ns=10), sources=["cam"], packets=()),
        CycleTime(),
    )
    cam = outside.source("cam")
    seen = []
    for playback in ("paused", "paused", "running", "muted", "running"):
        outside.switch("cam", playback)
        outside.begin(time, 1)
        seen.append((cam.playback(), cam.paused_ns(), outside.states["cam"][0]))
    assert [it for it, *_ in seen] == ["paused", "paused", "running", "muted", "running"]
    assert [state for *_, state in seen] == ["paused", "paused", "running", "muted", "running"]
    assert seen[2][1] > 0
    assert [ns for _, ns, _ in seen] == [0, 0, seen[2][1], seen[2][1], seen[2][1]]


def test_a_source_that_is_lost_while_paused_is_shown_as_lost():
    outside = LiveOutside(ManualClock(), sources=["cam"], packets=())
    outside.switch("cam", "paused")
    assert list(outside.begin(CycleTime(), 1)) == [Switched("cam", "paused")]
    outside.source("cam").report("lost", "timeout")
    assert outside.states == {"cam": ("lost", "timeout")}
    outside.source("cam").report("running", "")
    assert outside.states == {"cam": ("paused", "")}
    outside.source("cam").finish()
    assert outside.states == {"cam": ("ended", "")}


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.integers(0, 15), st.sampled_from("ab"), st.sampled_from("pmr")), max_size=8
    ),
    st.sampled_from(["", "rate_hz: 100000"]),
)
def test_any_switches_replay_and_lose_only_what_is_counted(tmp_path_factory, switches, keys):
    tmp_path = tmp_path_factory.mktemp("run")
    verbs = {"p": "pause", "m": "mute", "r": "resume"}
    # The clock source is never switched, so that there is always a next cycle.
    tasks = f"clock=Hooked(limit: 16); a=Numbers(limit: 9)@{keys}; b=Numbers(limit: 9); x=Scale"

    def switch(run: Run, number: int) -> None:
        for at, source, verb in switches:
            if at == number and run.report().tasks[source].state != "ended":
                getattr(run, verbs[verb])(source)
        if number == 16:
            run.stop("the test is over")

    run_hooked(plan_of(tmp_path, tasks, "b > x"), tmp_path / "run", switch)
    with Log(tmp_path / "run") as log:
        assert Replay(log, env={}).run().identical
    unseen = {"a": 0, "b": 0}
    for _, _, task, count in controls(tmp_path / "run", "dropped"):
        unseen[task] += count
    for source, count in unseen.items():
        seen = [n for _, n in values(tmp_path / "run", f"/{source}/number")]
        assert seen == sorted(set(seen))
        assert len(seen) + count <= 9
        if seen:  # what is not seen, up to the last that is, was counted
            assert seen[-1] + 1 - len(seen) <= count
