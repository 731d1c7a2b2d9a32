"""The partitions with replicas that a run sends to: which replica gets what, and when another one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from flowrun.runtime.events import Assigned, Event
from flowrun.runtime.graph.boundary import Boundary
from flowrun.runtime.links.own import OwnProcess
from flowrun.runtime.links.spread import Spread, chosen, spread_key
from flowrun.runtime.links.streams import streams_of
from flowrun.runtime.links.wire import Peer
from flowrun.runtime.log.committed import CommittedCycles
from flowrun.runtime.log.message import LoggedCycle

__all__ = ["Replicas"]

_REASSIGN_S = 2.0
"""Seconds for which another replica must be the right one before it gets what is sent."""


@dataclass(slots=True)
class _Shared:
    """One such partition.

    names: of the replicas. key: by what one is chosen. task: what sends.
    boundary: to any of them; it is the same to all.
    spread: which one gets what is sent, as of the cycle committed last.
    assigned: the one that was recorded last in this run. since_s: since when another one is right.
    """

    names: tuple[str, ...]
    key: str
    task: str
    boundary: Boundary
    spread: Spread | None = None
    assigned: str | None = None
    since_s: float | None = None


class Replicas:
    """The partitions among `receivers` that have replicas, by name."""

    def __init__(self, own: OwnProcess, receivers: dict[Peer, Boundary]) -> None:
        self._own = own
        self._shared: dict[str, _Shared] = {}
        for peer, boundary in receivers.items():
            partition = next(it for it in own.spec.partitions if it.id == peer.partition)
            if not partition.instances and partition.replicas > 1:
                first = boundary.streams[0]
                key = spread_key(own.peer, partition.id, first.link.spread)
                made = _Shared(partition.processes, key, first.task, boundary)
                self._shared.setdefault(partition.id, made)

    def __len__(self) -> int:
        """Number of such partitions."""
        return len(self._shared)

    def begin(self, coded: frozenset[str]) -> None:
        """The run begins. coded: the topics of its log whose pictures are stored as packets."""
        for name, shared in self._shared.items():
            shared.spread = self.spread(name, coded)

    def spread(self, partition: str, coded: frozenset[str]) -> Spread | None:
        """Which replica gets what a log says, as of its begin; None for a partition without replicas."""
        shared = self._shared.get(partition)
        if shared is None:
            return None
        default = chosen(shared.key, shared.names)
        return Spread(partition, default, streams_of(shared.boundary), coded)

    def look(self, events: Collection[Event], committed: CommittedCycles) -> None:
        """A cycle was committed, with these events. On the cycles' thread."""
        spreads = [it.spread for it in self._shared.values() if it.spread is not None]
        is_said = any(isinstance(event, Assigned) for event in events)
        if spreads and (is_said or any(it.is_going_over for it in spreads)):
            logged = LoggedCycle(*committed.last())
            for spread in spreads:
                spread.look(logged)

    def is_for(self, peer: Peer, cycle: int) -> bool:
        """Whether a process gets what a cycle sends to its partition."""
        shared = self._shared.get(peer.partition)
        spread = None if shared is None else shared.spread
        return spread is None or spread.at(cycle) == peer.instance

    def restate(self) -> list[Event]:
        """Which replica gets what is sent. On the cycles' thread."""
        return [
            event
            for it in self._shared.values()
            if it.spread is not None
            for event in it.spread.restated(it.task)
        ]

    def assign(
        self,
        now_s: float,
        *,
        present: Callable[[str], str | None],
        is_there: Callable[[str], bool],
    ) -> None:
        """Have what is sent go to another replica where the present one is gone, or a better one has
        come, for a while. On the links' thread.

        present: the replica of a partition that what is put goes to. is_there: of a process, "gpu/0".
        """
        for partition, shared in self._shared.items():
            now = present(partition)
            live = [it for it in shared.names if is_there(f"{partition}/{it}")]
            wanted = chosen(shared.key, live) if live else now
            if wanted == now or wanted is None or shared.assigned == wanted:
                shared.since_s = None
                continue
            shared.since_s = now_s if shared.since_s is None else shared.since_s
            if now_s - shared.since_s >= _REASSIGN_S:
                shared.assigned = wanted
                to = f"{partition}/{wanted}"
                self._own.log.info("what is sent goes to another replica", to=to)
                self._own.note(Assigned(shared.task, partition, wanted))
