"""Live sources that are not in step share cycles, and none stalls another."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.engine.pairing import Arrivals, wait_until
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from support.helpers import START_NS, plan_of, values

MS = 1_000_000


def test_a_cycle_waits_for_a_source_that_has_never_had_anything():
    first, other = Arrivals(), Arrivals()
    assert wait_until([first, other], 0, 100) is None
    first.note(5)
    assert wait_until([first, other], 5, 100) == 105
    assert wait_until([first, other], 104, 100) == 105
    assert wait_until([first, other], 105, 100) is None
    first.waiting_ns = None
    first.note(200)
    assert wait_until([first, other], 200, 100) is None  # it was missed
    other.note(210)
    assert wait_until([first, other], 210, 100) is None  # both have something


def test_a_source_is_expected_one_interval_after_what_came_last():
    slow, quick = Arrivals(), Arrivals()
    for now in (0, 1000):
        slow.note(now)
        slow.waiting_ns = None
    quick.note(1899)
    assert wait_until([slow, quick], 1899, 100) is None  # 2000 is later than 1999
    quick.waiting_ns = None
    quick.note(1900)
    assert wait_until([slow, quick], 1900, 100) == 2000


def test_what_is_left_of_earlier_does_not_wait_for_others():
    busy, other = Arrivals(), Arrivals()
    for source in (busy, other):
        source.note(1000)
        source.waiting_ns = None
    busy.note(0)
    assert (busy.waiting_ns, busy.is_expected(1000)) == (0, True)
    assert wait_until([busy, other], 1001, 100) is None
    assert other.is_expected(2000)  # it was not waited for, and not missed


def shared(tmp_path, left: str, right: str, more: str = "") -> tuple[list[int], list[int]]:
    """The cycles of two live sources, which replay."""
    plan = plan_of(
        tmp_path,
        f"a=engine_tasks.Ticks({left}); b=engine_tasks.Ticks({right})",
        more=f"logging: {{slab_size_mib: 4, section_size_mib: 1}}{more}",
    )
    directory = tmp_path / "run"
    assert Run(plan, clock=ManualClock(START_NS), directory=directory).run().error is None
    with Log(directory) as log:
        assert Replay(log, env={}).run().identical
    left_cycles, right_cycles = (
        [cycle for cycle, _ in values(directory, f"/{task}/number")] for task in "ab"
    )
    return left_cycles, right_cycles


@pytest.mark.parametrize("offset_ms", [1, 16, 32])
def test_sources_of_one_rate_share_every_cycle(tmp_path, offset_ms):
    a, b = shared(tmp_path, "period_ms: 33", f"period_ms: 33, offset_ms: {offset_ms}")
    assert len(set(a) & set(b)) >= 29


def test_sources_of_two_rates_share_the_cycles_of_the_slower_one(tmp_path):
    a, b = shared(tmp_path, "period_ms: 33, count: 60", "period_ms: 66, offset_ms: 20")
    assert len(set(a) & set(b)) >= 28
    assert len(set(a) | set(b)) <= 33


def test_without_a_timeout_each_source_has_cycles_of_its_own(tmp_path):
    a, b = shared(
        tmp_path,
        "period_ms: 33",
        "period_ms: 33, offset_ms: 16",
        "\nruntime: {collect_timeout_ms: 0}",
    )
    assert (len(a), len(b), set(a) & set(b)) == (30, 30, set())


def test_a_source_that_falls_silent_delays_the_other_once(tmp_path):
    a, b = shared(
        tmp_path,
        "period_ms: 33, count: 60",
        "period_ms: 33, offset_ms: 10, count: 70, silent_after: 20",
    )
    assert len(set(a) & set(b)) >= 19
    assert len(a) >= 60 - 3  # 100 ms, at most


def test_a_source_that_gives_something_seldom_delays_the_other_seldom(tmp_path):
    a, b = shared(tmp_path, "period_ms: 33, count: 150", "period_ms: 1000, count: 5")
    assert len(a) >= 150 - 4 - 5  # at first, when nothing is known of the slow one
    assert len(b) == 5


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(10, 400), st.integers(0, 400)),
        min_size=2,
        max_size=4,
    ),
    st.integers(1, 150),
)
def test_nothing_waits_longer_than_the_timeout(sources, timeout):
    """A simulation of cameras: (period, offset) of each."""
    arrivals = [Arrivals() for _ in sources]
    comes = sorted(
        (offset + n * period, at) for at, (period, offset) in enumerate(sources) for n in range(20)
    )
    now = 0
    while comes:
        until = wait_until(arrivals, now, timeout)
        if until is None and any(it.waiting_ns is not None for it in arrivals):
            assert all(
                now - it.waiting_ns <= timeout for it in arrivals if it.waiting_ns is not None
            )
            for it in arrivals:
                it.waiting_ns = None
        assert until is None or now < until
        if until is not None and until < comes[0][0]:
            now = until
            continue
        now, at = comes.pop(0)
        arrivals[at].note(now)
