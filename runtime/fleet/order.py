"""In which order the cycles of a fleet's runs are run again: a cycle after all that it received.

Of the cycles that could be next, the one with the earliest time is, then by partition, instance and
run. Clocks of machines need not agree: they only decide between cycles that know nothing of each other.
A run whose receivers keep much of what it has made waits until they have taken it, where they can.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from heapq import heapify, heappop, heappush
from typing import Generic, NamedTuple, Protocol, TypeVar

__all__ = ["Cut", "Lane", "Need", "in_causal_order"]

K = TypeVar("K", bound=Hashable)


class Need(NamedTuple, Generic[K]):
    """A cycle that must have been run before.

    lane: whose it is. cycle: the last that is needed.
    """

    lane: K
    cycle: int


class Lane(Protocol[K]):
    """The cycles of one run, in order."""

    @property
    def next(self) -> tuple[int, int] | None:
        """The time and the number of the next cycle; None after the last."""
        ...

    def needs(self) -> Iterable[Need[K]]:
        """What the next cycle needs."""
        ...

    def goes_after(self) -> Iterable[K]:
        """The lanes that are to go first where they can, as they keep much of what this one made."""
        ...

    def run(self) -> None:
        """Run the next cycle."""
        ...


class Cut(Exception):  # noqa: N818  # the caller says it in its own words
    """The next cycle of each of `lanes` needs one that has not been run: the logs contradict each
    other."""

    def __init__(self, lanes: list[Hashable]) -> None:
        self.lanes = lanes
        super().__init__(str(lanes))


def in_causal_order(
    lanes: Mapping[K, Lane[K]], rank: Callable[[K], tuple[int, ...]]
) -> Iterator[K]:
    """Run all cycles of `lanes`, yielding whose was run, after each. A need of a lane that is not there
    is met, and so is one of a cycle that its lane passes over. `Cut` if none can be next.

    rank: decides between cycles of one time.
    """
    ready: list[tuple[int, tuple[int, ...], K]] = []
    waiting: dict[K, list[K]] = {}
    awaited: dict[K, K] = {}
    """By lane that waits, the one that it waits for."""

    def place(key: K) -> None:
        """Where the next cycle of a lane waits: among the ready, or for another lane."""
        awaited.pop(key, None)
        upcoming = lanes[key].next
        if upcoming is None:
            return
        for need in lanes[key].needs():
            other = lanes.get(need.lane)
            if other is None or need.lane == key:
                continue
            at = other.next
            if at is not None and at[1] <= need.cycle:
                waiting.setdefault(need.lane, []).append(key)
                awaited[key] = need.lane
                return
        heappush(ready, (upcoming[0], rank(key), key))

    def first_of(key: K) -> K:
        """The lane that `key` waits for, whatever for; itself, if it is ready or has ended."""
        seen = {key}
        while key in awaited and awaited[key] not in seen:
            key = awaited[key]
            seen.add(key)
        return key

    def pick() -> K:
        """The earliest of the ready, or one that it goes after."""
        passed: set[K] = set()
        key = ready[0][2]
        while key not in passed:
            passed.add(key)
            could = {it for _, _, it in ready} - passed
            firsts = (first_of(it) for it in lanes[key].goes_after())
            key = next((it for it in firsts if it in could), key)
        return key

    for key in lanes:
        place(key)
    while ready:
        key = pick()
        if key == ready[0][2]:
            heappop(ready)
        else:
            ready[:] = [it for it in ready if it[2] != key]
            heapify(ready)
        lanes[key].run()
        yield key
        for other in [*waiting.pop(key, ()), key]:
            place(other)
    stuck: list[Hashable] = [key for key, lane in lanes.items() if lane.next is not None]
    if stuck:
        raise Cut(stuck)
