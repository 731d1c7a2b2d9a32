"""The process whose links they are: what both directions need to know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flowrun.runtime.clock import Clock
from flowrun.runtime.events import Assigned, Met
from flowrun.runtime.graph.spec import GraphSpec, PartId
from flowrun.runtime.links.told import Told
from flowrun.runtime.links.wire import Keys, Peer, graph_key

__all__ = ["AGAIN_S", "LOOK_S", "REST_S", "OwnProcess", "peer_of"]

LOOK_S = 0.05
"""Interval at which senders are asked for what is missing, and receivers that are waited for are looked
at."""
REST_S = 0.25
"""Interval at which the log, senders and receivers are looked at while nothing happens."""
AGAIN_S = 1.0
"""Interval at which what may have been lost is said again: a hello, an acknowledgement."""


@dataclass(frozen=True, slots=True)
class OwnProcess:
    """One process of a partition, and its run.

    run: how the wire names the run. clock: the run's. log: a logger of it.
    now_s: monotonic seconds, for what is said again and again.
    wake: called, on any thread, when there is something to `pump`.
    fail: called, on any thread, with why the run must end.
    note: called, on any thread, with what is to be recorded in the next cycle.
    told: what is heard of the others' ends; None where nobody says it.
    """

    spec: GraphSpec
    peer: Peer
    run: int
    clock: Clock
    log: Any
    now_s: Callable[[], float]
    wake: Callable[[], None]
    fail: Callable[[str], None]
    note: Callable[[Assigned | Met], None]
    told: Told | None = None

    @property
    def graph(self) -> str:
        """How the wire names the graph."""
        return graph_key(self.spec.name)

    def is_gone(self, peer: Peer) -> bool:
        """Whether it is known that a process has ended and no other run of it follows."""
        return self.told is not None and self.told.has_ended(peer)

    def keys_of(self, peer: Peer) -> Keys:
        """The keys of a process of the same graph."""
        return Keys.of(self.graph, peer)


def peer_of(spec: GraphSpec, part: PartId) -> Peer:
    """How the wire names a process."""
    partition = next(it for it in spec.partitions if it.id == part.partition)
    number = partition.processes.index(part.instance)
    return Peer(part.partition, part.instance, partition.number, number)
