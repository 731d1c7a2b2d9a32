"""Which replica of a partition gets what is sent: the log of the sender says so, and nothing else.

Without a record it is the one that rendezvous hashing chooses among all. A record of kind `assigned` in
`/flowrun/control` names another one, from its cycle on; where pictures are sent as packets, from the
next cycle on in which the packets of one begin with a key frame. So each cycle belongs to one replica,
also after the sender has been started again, and one that was away gets its own when it comes back.

A flight recorder removes such records with the slabs that hold them. So each slab begins with one of
kind `stays`: who got what was sent before it; `assigned` follows it where that is about to change.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Collection, Sequence

import msgpack

from flowrun.runtime.events import Assigned, Event, Stays
from flowrun.runtime.links.wire import Stream
from flowrun.runtime.log.message import LoggedCycle
from flowrun.runtime.log.slab.format import CONTROL_TOPIC
from flowrun.runtime.pictures.stored import StoredPicture

__all__ = ["Spread", "chosen", "spread_key"]


def chosen(key: str, replicas: Collection[str]) -> str:
    """The replica of `key` by rendezvous hashing: where one comes or goes, only its own keys move."""

    def weight(replica: str) -> tuple[bytes, str]:
        return hashlib.blake2b(f"{key}\0{replica}".encode(), digest_size=8).digest(), replica

    return max(replicas, key=weight)


def spread_key(sender: object, partition: str, spread: str) -> str:
    """By what a replica of `partition` is chosen for what `sender` ("dock/0") sends.

    spread: "one": all senders have the same one; "instance": each has its own.
    """
    return partition if spread == "one" else str(sender)


class Spread:
    """To which of a partition's replicas the cycles of one log belong.

    partition: the receiver. default: the replica without a record.
    streams: what is sent. coded: topics of the log whose pictures are stored by a codec.
    """

    def __init__(
        self, partition: str, default: str, streams: Sequence[Stream], coded: frozenset[str]
    ) -> None:
        self.partition = partition
        self._pictures = {it.topic for it in streams} & coded
        self._from: list[int] = [0]
        self._to: list[str] = [default]
        self._wanted: str | None = None
        """The replica that gets what follows, from the next key frame on."""

    @property
    def current(self) -> str:
        """The replica that gets what follows, as far as it is recorded."""
        return self._wanted or self._to[-1]

    @property
    def is_going_over(self) -> bool:
        """Whether another replica gets what follows the next key frame."""
        return self._wanted is not None

    def restated(self, task: str) -> list[Event]:
        """The records that say of the cycles looked at what those who read on must know.

        task: which sends.
        """
        said: list[Event] = [Stays(task, self.partition, self._to[-1])]
        if self._wanted is not None:
            said.append(Assigned(task, self.partition, self._wanted))
        return said

    def look(self, cycle: LoggedCycle) -> None:
        """Take account of the next cycle of the log. Cycles may be left out that have no record, while
        nothing is going over."""
        for topic, _, payload in cycle.entries:
            if topic == CONTROL_TOPIC:
                record = msgpack.unpackb(payload)
                if record["key"] != self.partition:
                    continue
                if record["kind"] == Assigned.kind:
                    self._wanted = record["value"]
                elif record["kind"] == Stays.kind:
                    self._wanted = None
                    self._go_over(cycle.cycle, record["value"])
        if self._wanted is not None and (not self._pictures or self._begins(cycle)):
            self._go_over(cycle.cycle, self._wanted)
            self._wanted = None

    def _go_over(self, cycle: int, replica: str) -> None:
        if replica != self._to[-1]:
            self._from.append(cycle)
            self._to.append(replica)

    def at(self, cycle: int) -> str:
        """The replica to which a cycle belongs that was looked at."""
        return self._to[bisect_right(self._from, cycle) - 1]

    def _begins(self, cycle: LoggedCycle) -> bool:
        """Whether a picture of the cycle needs none before it."""
        for topic, _, payload in cycle.entries:
            if topic in self._pictures:
                own = StoredPicture.parse(payload).own
                if own.get("key", cycle.cycle) == cycle.cycle:
                    return True
        return False
