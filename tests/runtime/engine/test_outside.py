"""What comes from outside in a live run, from any thread."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from flowrun.runtime.clock import Clock, LiveClock, ManualClock
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.instances import Instance, make_instances
from flowrun.runtime.engine.outside import Due, LiveOutside
from flowrun.runtime.events import Dropped, EndOfSource, Event, Set, SourceState, Switched
from support.helpers import plan_of


def test_what_a_source_drops_between_two_cycles_is_one_event() -> None:
    outside = LiveOutside(LiveClock(), sources=["cam", "mic"], packets=())
    cam, mic = outside.source("cam"), outside.source("mic")

    def drop() -> None:
        for _ in range(1000):
            cam.dropped(2, "late")

    threads = [threading.Thread(target=drop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cam.finish()
    mic.dropped(1, "")
    cam.dropped(1, "old")
    assert list(outside.after_sources(True)) == [
        Dropped("cam", 8000, "late"),
        EndOfSource("cam"),
        Dropped("mic", 1),
        Dropped("cam", 1, "old"),
    ]
    assert list(outside.after_sources(True)) == []
    assert outside.left_out == {"cam": {"late": 8000, "old": 1}, "mic": {"": 1}}


class AskedClock(ManualClock):
    """Counts how often it was asked whether the machine was suspended."""

    asked = 0

    def refreshed_at(self):
        self.asked += 1
        return super().refreshed_at()


def test_a_cycle_asks_every_100_ms_whether_the_machine_was_suspended() -> None:
    clock, time, ms = AskedClock(7), CycleTime(), 1_000_000
    outside = LiveOutside(clock, sources=[], packets=())
    asked = []
    for start_ns in (0, 1, 2, 1 + 100 * ms, 2 + 100 * ms, 3 + 100 * ms, 3 + 200 * ms):
        assert list(outside.begin(time, start_ns)) == []
        asked.append(clock.asked)
    assert (asked, time.now_ns) == ([0, 1, 1, 1, 2, 2, 3], 7)


def begun(outside: LiveOutside) -> list[Event]:
    return list(outside.begin(CycleTime(), 1))


def test_whatever_has_come_is_in_the_next_cycle_alone() -> None:
    outside = LiveOutside(ManualClock(), sources=["cam", "mic"], packets=())
    cam, mic = outside.source("cam"), outside.source("mic")
    outside.set("x", {"gain": 2})
    outside.set("x", {"gain": 3})
    assert outside.woken.is_set()
    assert begun(outside) == [Set("x", {"gain": 2}), Set("x", {"gain": 3})]
    assert begun(outside) == []
    mic.dropped(2, "late")
    assert begun(outside) == []  # no reason for a cycle
    outside.set("x", {"gain": 4})
    assert begun(outside) == [Set("x", {"gain": 4}), Dropped("mic", 2, "late")]
    assert begun(outside) == []
    outside.woken.clear()
    cam.finish()
    assert outside.woken.is_set()
    assert (outside.gate("cam").present, outside.gate("mic").present) == (False, True)
    assert begun(outside) == [EndOfSource("cam")]
    cam.finish()
    assert begun(outside) == []


def test_a_state_is_an_event_when_it_has_changed() -> None:
    outside = LiveOutside(ManualClock(), sources=["cam", "mic"], packets=())
    cam = outside.source("cam")
    cam.report("running", "")
    assert begun(outside) == []
    assert not outside.woken.is_set()
    for state, code in [("lost", "timeout"), ("lost", "timeout"), ("lost", "refused")]:
        cam.report(state, code)
    assert outside.woken.is_set()
    assert outside.states == {"cam": ("lost", "refused"), "mic": ("running", "")}
    assert begun(outside) == [
        SourceState("cam", "lost", "timeout"),
        SourceState("cam", "lost", "refused"),
    ]
    cam.finish()
    assert outside.states["cam"] == ("ended", "")
    assert begun(outside) == [EndOfSource("cam")]


def test_a_source_that_has_said_nothing_is_starting_until_the_first_cycle() -> None:
    outside = LiveOutside(ManualClock(), sources=["cam", "mic", "net"], packets=())
    cam, net = outside.source("cam"), outside.source("net")
    cam.report("running", "")
    net.report("connecting", "")
    outside.switch("mic", "paused")
    assert outside.states == {
        "cam": ("running", ""),
        "mic": ("starting", ""),
        "net": ("connecting", ""),
    }
    assert begun(outside) == [Switched("mic", "paused"), SourceState("net", "connecting")]
    assert outside.states == {
        "cam": ("running", ""),
        "mic": ("paused", ""),
        "net": ("connecting", ""),
    }


def test_a_source_that_runs_again_after_its_error_is_running() -> None:
    outside = LiveOutside(ManualClock(), sources=["cam"], packets=())
    cam = outside.source("cam")
    for state in ("running", "error", "running", "running"):
        cam.report(state, "")
    assert begun(outside) == [SourceState("cam", "error"), SourceState("cam", "running")]
    assert outside.states == {"cam": ("running", "")}


def test_what_has_not_failed_has_ended_when_all_are_stopped() -> None:
    states = ["running", "connecting", "lost", "error", "paused"]
    outside = LiveOutside(ManualClock(), sources=[*states, "silent"], packets=())
    for state in states:
        outside.source(state).report(state, "timeout")
    outside.close()
    assert outside.states == {
        **dict.fromkeys([*states, "silent"], ("ended", "")),
        "error": ("error", "timeout"),
    }


def test_a_source_that_failed_does_not_end_well() -> None:
    outside = LiveOutside(ManualClock(), sources=["cam", "mic"], packets=())
    outside.source("cam").report("error", "auth")
    for task in ("cam", "mic", "no source"):
        outside.note_failure(task)
    for source in ("cam", "mic"):
        outside.source(source).finish()
    assert outside.states == {"cam": ("error", "auth"), "mic": ("error", "")}


def test_a_source_that_ended_is_due_no_more() -> None:
    outside = LiveOutside(ManualClock(), sources=["cam"], packets=())
    cam = outside.source("cam")
    cam.wake_at(5)
    assert outside.due.first() == 5
    cam.finish()
    assert outside.due.first() is None


def test_a_source_knows_whether_the_log_wants_its_packets() -> None:
    outside = LiveOutside(ManualClock(3), sources=["cam", "mic"], packets={"cam"})
    assert (outside.source("cam").logs_packets, outside.source("mic").logs_packets) == (True, False)
    assert outside.source("cam").clock_ns() == 3
    outside.source("cam").wake()
    assert outside.woken.is_set()


def test_a_source_is_due_later_only_after_the_time_that_it_gave() -> None:
    due = Due()
    due.set("cam", 5)
    assert [due.is_later("cam", now_ns) for now_ns in (4, 5, 6)] == [True, False, False]
    assert not due.is_later("mic", 0)


def test_only_a_source_is_restarted_on_a_thread_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tmp_path, "n=Numbers; x=Scale", "n > x")
    outside = LiveOutside(LiveClock(), sources=["n"], packets=())
    made = make_instances(plan, CycleTime(), source=outside.source)
    asked: list[str] = []

    def restart(it: Instance) -> bool:
        asked.append(it.id)
        return False

    monkeypatch.setattr(outside.restarts, "restart", restart)
    assert (outside.restart(made["n"]), outside.restart(made["x"])) == (False, True)
    assert asked == ["n"]
    assert made["x"].task.changes == []  # it was started


@pytest.mark.parametrize(("clock", "at_once_s"), [(ManualClock(), None), (LiveClock(), 0.02)])
def test_a_restart_is_waited_for_shortly_or_by_a_manual_clock_to_its_end(
    clock: Clock, at_once_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float | None] = []

    def wait(self: object, timeout_s: float | None) -> bool:
        waits.append(timeout_s)
        return False

    monkeypatch.setattr("flowrun.runtime.engine.restarts._Restart.wait", wait)
    outside = LiveOutside(clock, sources=["n"], packets=())
    made = SimpleNamespace(id="n", bound=SimpleNamespace(is_source=True), task=None, ctx=None)
    for _ in range(3):
        assert not outside.restart(made)  # type: ignore[arg-type]
    assert waits == [at_once_s, 0.0, 0.0]
