"""A network in memory, moved by hand: it drops, duplicates, reorders, delays and cuts by a seed."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flowrun.runtime.links.transport import Query, Sample

__all__ = ["FakeNetwork", "FakeTransport", "Faults"]


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong.

    drop, duplicate, flip: how often, 0 to 1, a message is lost, comes twice, or has a byte changed.
    delay_ns: the longest that a message is under way; each takes its own time, so that they overtake
        each other.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    flip: float = 0.0
    delay_ns: int = 0


@dataclass(order=True)
class _Event:
    due_ns: int
    number: int
    act: Callable[[], None] = field(compare=False)


class FakeNetwork:
    """The same seed and the same calls give the same run.

    faults: may be set at any time.
    """

    def __init__(self, seed: int = 0, faults: Faults | None = None) -> None:
        self.faults = Faults() if faults is None else faults
        self.now_ns = 0
        self._random = random.Random(seed)  # noqa: S311  # reproducible on purpose
        self._events: list[_Event] = []
        self._count = 0
        self._ends: list[FakeTransport] = []
        self._cut: set[frozenset[str]] = set()
        self.at = ""
        """The end whose turn it is: where an exception came from, if there is one."""

    def transport(
        self, name: str, *, on_put: Callable[[str, bytes], None] = lambda _key, _payload: None
    ) -> FakeTransport:
        """The end of a process.

        name: by which `cut` knows it.
        on_put: called with the key and the payload of each message before it is sent.
        """
        end = FakeTransport(self, name, on_put)
        self._ends.append(end)
        return end

    def cut(self, one: str, other: str) -> None:
        """Let nothing pass between two processes."""
        self._cut.add(frozenset((one, other)))
        self._tell(one, other)

    def mend(self, one: str, other: str) -> None:
        """End a `cut`."""
        self._cut.discard(frozenset((one, other)))
        self._tell(one, other)

    def are_cut(self, one: str, other: str) -> bool:
        """Whether nothing passes between two processes."""
        return frozenset((one, other)) in self._cut

    def step(self, now_ns: int) -> None:
        """Deliver all that is due."""
        self.now_ns = max(self.now_ns, now_ns)
        while self._events and self._events[0].due_ns <= self.now_ns:
            heapq.heappop(self._events).act()

    @property
    def next_ns(self) -> int | None:
        """When the next message is due; None where nothing is under way."""
        return self._events[0].due_ns if self._events else None

    # -- for its ends --------------------------------------------------------------------------------

    def send(self, source: FakeTransport, key: str, payload: bytes, attachment: bytes) -> None:
        for end in list(self._ends):
            for on_sample in end.subscribers(key):
                sample = Sample(key, payload, attachment)
                self._carry(source, end, sample, on_sample)

    def ask(self, source: FakeTransport, query: FakeQuery, timeout_ns: int) -> None:
        for end in list(self._ends):
            on_query = end.serving.get(query.key)
            if on_query is not None:
                query.server = end
                asked = Sample(query.key, b"", b"")
                self._carry(source, end, asked, partial(_ask, on_query, query))
        self._later(timeout_ns, query.done)

    def _carry(
        self,
        source: FakeTransport,
        end: FakeTransport,
        sample: Sample,
        take: Callable[[Sample], None],
    ) -> None:
        faults, chance = self.faults, self._random.random
        copies = 1 + (chance() < faults.duplicate)
        for _ in range(copies):
            if self.is_cut(source, end) or chance() < faults.drop:
                continue
            carried = sample
            if sample.payload and chance() < faults.flip:
                carried = self._flipped(sample)
            delay = self._random.randint(0, faults.delay_ns) if faults.delay_ns else 0
            self._later(delay, partial(self._arrive, source, end, carried, take))

    def _arrive(
        self,
        source: FakeTransport,
        end: FakeTransport,
        sample: Sample,
        take: Callable[[Sample], None],
    ) -> None:
        if end in self._ends and not self.is_cut(source, end):
            self.at = end.name
            take(sample)

    def carry_reply(self, query: FakeQuery, sample: Sample) -> None:
        if query.server is not None and query.server in self._ends:
            self._carry(query.server, query.asker, sample, query.take)

    def finish(self, query: FakeQuery) -> None:
        delay = self.faults.delay_ns + 1
        if query.server is not None and not self.is_cut(query.server, query.asker):
            self._later(delay, query.done)

    def is_cut(self, one: FakeTransport, other: FakeTransport) -> bool:
        return self.are_cut(one.name, other.name)

    def has(self, end: FakeTransport) -> bool:
        return end in self._ends

    def leave(self, end: FakeTransport) -> None:
        if end in self._ends:
            self._ends.remove(end)
            for other in self._ends:
                other.tell_alive()

    def is_alive(self, key: str, seen_by: FakeTransport) -> bool:
        return any(key in end.alive and not self.is_cut(end, seen_by) for end in self._ends)

    def tell_all(self) -> None:
        for end in self._ends:
            end.tell_alive()

    def _tell(self, *names: str) -> None:
        for end in self._ends:
            if end.name in names:
                end.tell_alive()

    def _flipped(self, sample: Sample) -> Sample:
        changed = bytearray(sample.payload)
        changed[self._random.randrange(len(changed))] ^= 1 << self._random.randrange(8)
        return sample._replace(payload=bytes(changed))

    def _later(self, delay_ns: int, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, _Event(self.now_ns + delay_ns, self._count, act))


@dataclass(slots=True)
class _Watch:
    key: str
    on_change: Callable[[bool], None]
    is_alive: bool = False
    """As it was said last."""


class FakeTransport:
    """One end of a `FakeNetwork`; see `Transport`."""

    def __init__(
        self, network: FakeNetwork, name: str, on_put: Callable[[str, bytes], None]
    ) -> None:
        self._network, self.name, self._on_put = network, name, on_put
        self._subscribed: dict[str, list[Callable[[Sample], None]]] = {}
        self.serving: dict[str, Callable[[Query], None]] = {}
        self.alive: set[str] = set()
        self._watched: list[_Watch] = []

    def subscribers(self, key: str) -> list[Callable[[Sample], None]]:
        return self._subscribed.get(key, [])

    def put(self, key: str, payload: bytes, attachment: bytes) -> None:
        if self._network.has(self):
            self._on_put(key, payload)
            self._network.send(self, key, payload, attachment)

    def subscribe(self, key: str, on_sample: Callable[[Sample], None]) -> None:
        self._subscribed.setdefault(key, []).append(on_sample)

    def serve(self, key: str, on_query: Callable[[Query], None]) -> None:
        self.serving[key] = on_query

    def query(
        self,
        key: str,
        parameters: bytes,
        on_reply: Callable[[Sample], None],
        on_done: Callable[[], None],
        *,
        timeout_s: float,
    ) -> None:
        query = FakeQuery(self._network, self, key, parameters, on_reply, on_done)
        self._network.ask(self, query, int(timeout_s * 1e9))

    def declare_alive(self, key: str) -> None:
        self.alive.add(key)
        self._network.tell_all()

    def watch_alive(self, key: str, on_change: Callable[[bool], None]) -> None:
        self._watched.append(_Watch(key, on_change))
        self.tell_alive()

    def tell_alive(self) -> None:
        for watch in list(self._watched):
            was, watch.is_alive = watch.is_alive, self._network.is_alive(watch.key, self)
            if was != watch.is_alive:
                before, self._network.at = self._network.at, self.name
                watch.on_change(watch.is_alive)
                self._network.at = before

    def close(self, *, timeout_s: float = 0.0) -> None:
        del timeout_s
        self._subscribed.clear()
        self.serving.clear()
        self.alive.clear()
        self._watched.clear()
        self._network.leave(self)


class FakeQuery:
    """A question that is under way; see `Query`."""

    def __init__(
        self,
        network: FakeNetwork,
        asker: FakeTransport,
        key: str,
        parameters: bytes,
        on_reply: Callable[[Sample], None],
        on_done: Callable[[], None],
    ) -> None:
        self._network = network
        self.asker, self.key, self.parameters = asker, key, parameters
        self._on_reply, self._on_done = on_reply, on_done
        self._is_done = False
        self.server: Any = None

    def reply(self, payload: bytes, attachment: bytes) -> None:
        self._network.carry_reply(self, Sample(self.key, payload, attachment))

    def finish(self) -> None:
        self._network.finish(self)

    def take(self, sample: Sample) -> None:
        if not self._is_done:
            self._on_reply(sample)

    def done(self) -> None:
        if not self._is_done:
            self._is_done = True
            self._network.at = self.asker.name
            self._on_done()


def _ask(on_query: Callable[[Query], None], query: Query, _sample: Sample) -> None:
    on_query(query)
