"""What of a sender's cycles was taken by which cycle of a receiver: the links between recorded runs.

Each run of a receiver holds, for each cycle in which something came, which cycles of which run of the
sender it took. From there come the order of a fleet's cycles, what is compared between two logs, and
where a changed message of a sender belongs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from flowrun.runtime.fleet.record import FleetRun
from flowrun.runtime.graph.boundary import Boundary
from flowrun.runtime.graph.spec import PartId
from flowrun.runtime.log.message import LogMessage
from flowrun.runtime.log.reader import Log

__all__ = ["Arrivals", "Delivery"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one cycle of a receiver took of one sender.

    at: the receiver's cycle.
    sender, run: the process that sent, and which of its runs.
    first, last: the sender's cycles that were taken; `last` is before `first` where none was.
    taken: for each stream, the sender's cycle whose message was published; -1 for none.
    origin: the message that says so, as the receiver's log has it.
    """

    at: int
    boundary: Boundary
    run: int
    first: int
    last: int
    taken: tuple[int, ...]
    origin: LogMessage

    @property
    def sender(self) -> PartId:
        return self.boundary.peer


@dataclass(slots=True)
class Arrivals:
    """The deliveries of one run, cycle by cycle; `of` is to be called with rising numbers.

    run: of the receiver. boundaries: what it receives, by its plan.
    """

    run: FleetRun
    log: Log
    boundaries: tuple[Boundary, ...]
    _coming: dict[str, Iterator[Delivery]] = field(init=False)
    _next: dict[str, Delivery | None] = field(init=False)

    def __post_init__(self) -> None:
        self._coming = {it.source: self._of_source(it) for it in self.boundaries}
        self._next = {name: next(found, None) for name, found in self._coming.items()}

    def of(self, cycle: int) -> list[Delivery]:
        """Those of a cycle, in the order of the sources."""
        found = []
        for name, coming in self._coming.items():
            at = self._next[name]
            while at is not None and at.at < cycle:
                at = next(coming, None)
            if at is not None and at.at == cycle:
                found.append(at)
            self._next[name] = at
        return found

    def all(self) -> Iterator[Delivery]:
        """All of one source after the other; in place of `of`."""
        for boundary in self.boundaries:
            yield from self._of_source(boundary)

    def _of_source(self, boundary: Boundary) -> Iterator[Delivery]:
        topic = f"/{boundary.source}/origin"
        if topic not in self.log.topics:
            return
        for message in self.log.messages(topic):
            said: dict[str, Any] = message.fields
            yield Delivery(
                at=message.cycle,
                boundary=boundary,
                run=said["run"],
                first=said["first"],
                last=said["cycle"],
                taken=tuple(said["taken"]),
                origin=message,
            )
