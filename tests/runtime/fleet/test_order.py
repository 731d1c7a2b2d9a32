"""The causal order of a fleet's cycles."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.runtime.fleet.order import Cut, Need, in_causal_order


class Cycles:
    """A lane of cycles at times. needed, after: by cycle."""

    def __init__(
        self,
        times: list[int],
        needed: dict[int, list[Need[str]]] | None = None,
        after: dict[int, list[str]] | None = None,
    ) -> None:
        self._times = list(enumerate(times))
        self._needed, self._after = needed or {}, after or {}
        self.ran: list[int] = []

    @property
    def next(self) -> tuple[int, int] | None:
        return (self._times[0][1], self._times[0][0]) if self._times else None

    def needs(self) -> Iterable[Need[str]]:
        return self._needed.get(self._times[0][0], ())

    def goes_after(self) -> Iterable[str]:
        return self._after.get(self._times[0][0], ())

    def run(self) -> None:
        self.ran.append(self._times.pop(0)[0])


def ran(lanes: dict[str, Cycles]) -> list[tuple[str, int]]:
    order = sorted(lanes)
    return [
        (key, lanes[key].ran[-1]) for key in in_causal_order(lanes, lambda it: (order.index(it),))
    ]


def test_times_decide_where_nothing_else_does() -> None:
    assert ran({"a": Cycles([10, 30]), "b": Cycles([10, 20])}) == [
        ("a", 0), ("b", 0), ("b", 1), ("a", 1),
    ]  # fmt: skip


def test_a_cycle_waits_for_what_it_received_whatever_the_clocks_say() -> None:
    lanes = {"a": Cycles([100, 200]), "b": Cycles([1, 2], {1: [Need("a", 1)]})}
    assert ran(lanes) == [("b", 0), ("a", 0), ("a", 1), ("b", 1)]


def test_what_is_not_there_is_not_waited_for() -> None:
    lanes = {"b": Cycles([1], {0: [Need("gone", 7), Need("a", 9)]}), "a": Cycles([5])}
    assert ran(lanes) == [("a", 0), ("b", 0)]


def test_logs_that_contradict_each_other_are_named() -> None:
    lanes = {
        "a": Cycles([1], {0: [Need("b", 0)]}),
        "b": Cycles([1], {0: [Need("a", 0)]}),
        "c": Cycles([1]),
    }
    with pytest.raises(Cut) as caught:
        ran(lanes)
    assert caught.value.lanes == ["a", "b"]


def test_a_sender_that_is_far_ahead_lets_its_receiver_go_first() -> None:
    receiver = {0: [Need("a", 0)], 1: [Need("a", 1)], 2: [Need("a", 2)]}
    lanes = {"a": Cycles([1, 2, 3], after={1: ["b"], 2: ["b"]}), "b": Cycles([7, 8, 9], receiver)}
    assert ran(lanes) == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def test_who_the_receiver_waits_for_goes_first_too() -> None:
    lanes = {
        "a": Cycles([1, 2], after={1: ["b"]}),
        "b": Cycles([7], {0: [Need("a", 0), Need("c", 0)]}),
        "c": Cycles([9]),
    }
    assert ran(lanes) == [("a", 0), ("c", 0), ("b", 0), ("a", 1)]


def test_a_sender_goes_on_where_its_receiver_needs_more_of_it() -> None:
    lanes = {"a": Cycles([1, 2], after={1: ["b"]}), "b": Cycles([7], {0: [Need("a", 1)]})}
    assert ran(lanes) == [("a", 0), ("a", 1), ("b", 0)]


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_whatever_was_received_each_cycle_comes_once_and_after_its_causes(
    data: st.DataObject,
) -> None:
    """Needs are those of a real execution: of cycles that ended before, in a hidden global order."""
    names = ["a", "b", "c"]
    hidden = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=40))
    count = dict.fromkeys(names, 0)
    times: dict[str, list[int]] = {name: [] for name in names}
    needed: dict[str, dict[int, list[Need[str]]]] = {name: {} for name in names}
    for name in hidden:
        cycle = count[name]
        times[name].append(data.draw(st.integers(0, 50)))
        for other in names:
            if other != name and count[other] and data.draw(st.booleans()):
                last = data.draw(st.integers(0, count[other] - 1))
                needed[name].setdefault(cycle, []).append(Need(other, last))
        count[name] += 1
    after = {
        name: {
            cycle: data.draw(st.lists(st.sampled_from(names), max_size=2))
            for cycle in range(count[name])
        }
        for name in names
    }
    lanes = {name: Cycles(times[name], needed[name], after[name]) for name in names}
    order = ran(lanes)
    assert sorted(order) == sorted((name, i) for name in names for i in range(count[name]))
    at = {it: i for i, it in enumerate(order)}
    for name, cycle in order:
        assert all(
            at[need.lane, need.cycle] < at[name, cycle] for need in needed[name].get(cycle, ())
        )
        assert cycle == 0 or at[name, cycle - 1] < at[name, cycle]
    assert ran({name: Cycles(times[name], needed[name], after[name]) for name in names}) == order
