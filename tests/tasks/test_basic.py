"""The small tasks, each run alone."""

from __future__ import annotations

from itertools import pairwise

from flowrun.msgs import BoolMsg, IntMsg
from flowrun.runtime.testing import run_task
from flowrun.tasks.basic import BoolSink, BoolSource, Counter, PassBool, Print, Square


def test_counter_counts_to_its_limit_and_finishes() -> None:
    out = run_task(Counter, config={"limit": 3})
    assert [cycle["count"].value for cycle in out if cycle] == [0, 1, 2]


def test_counter_with_a_limit_of_none_at_all_publishes_nothing() -> None:
    assert not any(run_task(Counter, config={"limit": 0}))
    assert not any(run_task(BoolSource, config={"limit": 0}))


def test_counter_keeps_its_rate() -> None:
    out = run_task(Counter, config={"limit": 4, "rate_hz": 4}, period_ns=1_000_000)
    times = [cycle["count"].tov_ns for cycle in out if cycle]
    assert [b - a for a, b in pairwise(times)] == [250_000_000] * 3


def test_counter_takes_up_its_frozen_state() -> None:
    first, second = (Counter(Counter.Config()) for _ in range(2))
    first._next = 7
    second.thaw(first.freeze())
    assert second._next == 7


def test_square_and_pass_keep_the_time_of_validity() -> None:
    number = IntMsg(value=-3)
    number.publish(tov_ns=5)
    [cycle] = run_task(Square, inputs=[{"number": number}])
    assert (cycle["square"].value, cycle["square"].tov_ns) == (9, 5)
    truth = BoolMsg(value=True)
    truth.publish(tov_ns=6)
    [cycle] = run_task(PassBool, inputs=[{"value": truth}])
    assert (cycle["out"].value, cycle["out"].tov_ns) == (True, 6)


def test_bool_source_finishes_at_its_limit() -> None:
    out = run_task(BoolSource, config={"limit": 2})
    assert [cycle["out"].value for cycle in out if cycle] == [True, True]


def test_sinks_publish_nothing() -> None:
    assert run_task(BoolSink, inputs=[{"value": BoolMsg(value=True)}]) == [{}]
    assert run_task(Print, inputs=[{"number": IntMsg(value=1)}]) == [{}]
