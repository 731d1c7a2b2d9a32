from __future__ import annotations

import pytest

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.log.diff import compare_logs
from flowrun.runtime.log.reader import Log
from flowrun.runtime.run.live import Run
from support.helpers import plan_of, record
from support.pictures import record_pictures


def compare(first, second, **options):
    with Log(first) as one, Log(second) as other:
        return compare_logs(one, other, **options)


def run_of(tmp_path, name, tasks="n=Numbers(limit: 6); x=Scale; z=Noise", cnx="n > x; n > z"):
    record(plan_of(tmp_path, tasks, cnx), tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("times", [False, True])
def test_two_runs_of_the_same_are_identical(tmp_path, times):
    found = compare(run_of(tmp_path, "a"), run_of(tmp_path, "b"), times=times)
    assert found.difference is None
    assert found.identical == 19  # 6 of each task, and the end of the source


def test_the_first_difference_has_cycle_task_field_and_both_values(tmp_path):
    other = "n=Numbers(limit: 6); x=Scale(factor: 11); z=Noise"
    found = compare(run_of(tmp_path, "a"), run_of(tmp_path, "b", other))
    assert found.identical == 4  # the cycle 0 of all, where 0 * 11 is 0 * 10; the number of cycle 1
    assert found.difference.text(first="runs/a", second="runs/b") == (
        "cycle 1, task 'x', port 'scaled', field 'value':\n  runs/a: 10\n  runs/b: 11"
    )


def test_a_run_that_ends_earlier_lacks_a_message(tmp_path):
    shorter = run_of(tmp_path, "b", "n=Numbers(limit: 4); x=Scale; z=Noise")
    found = compare(run_of(tmp_path, "a"), shorter)
    assert found.difference.text() == (
        "cycle 4, task 'n', port 'number':\n  first: a message of 8 bytes\n  second: no message"
    )
    found = compare(shorter, tmp_path / "a")
    assert found.difference.text() == (
        "cycle 4, topic /flowrun/control:\n  first: a message of 52 bytes\n  second: no message"
    )


def test_measured_fields_are_not_compared(tmp_path):
    first = record_pictures(tmp_path, run="a", reading="took_ms: 1.0")
    second = record_pictures(tmp_path, run="b", reading="took_ms: 2.0")
    found = compare(first, second, times=True)
    assert (found.difference, found.identical) == (None, 11)


def test_arrays_are_described(tmp_path):
    first = record_pictures(tmp_path, run="a")
    second = record_pictures(tmp_path, "changes_at: 2", run="b")
    assert compare(first, second).difference.text() == (
        "cycle 2, task 'c', port 'image', field 'pixels':\n"
        "  first: uint8 [48, 64, 3]\n  second: uint8 [48, 32, 3]"
    )


def test_times_are_compared_when_asked(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 3)")
    Run(plan, clock=ManualClock(1000, step_ns=10), directory=tmp_path / "a").run()
    Run(plan, clock=ManualClock(1000, step_ns=20), directory=tmp_path / "b").run()
    assert compare(tmp_path / "a", tmp_path / "b").difference is None
    with Log(tmp_path / "a") as one, Log(tmp_path / "b") as other:
        times = one[0].time_ns, other[0].time_ns
        assert compare_logs(one, other, times=True).difference.text() == (
            f"cycle 0, task 'n', port 'number', field 'time_ns':\n"
            f"  first: {times[0]}\n  second: {times[1]}"
        )
