"""What a sender makes now in place of what one run had received of it, until the cycle that takes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from flowrun.msgs.message import Message
from flowrun.runtime.fleet.deliveries import Delivery

__all__ = ["Substitutes"]


@dataclass(frozen=True, slots=True)
class _Substitute:
    """For one stream of one delivery. made: None if nothing is made now."""

    cycle: int
    made: Message | None


class Substitutes:
    """The messages of one run of a sender that one run of a receiver is to take in place of recorded
    ones. Only those that a delivery publishes are kept, one for each of its streams.

    deliveries: what the receiver took of that run, in order.
    """

    def __init__(self, deliveries: Iterator[Delivery]) -> None:
        self._deliveries = deliveries
        self._newest = next(deliveries, None)
        """The delivery of which the sender's present cycle is, or the next one."""
        self._kept: dict[int, dict[str, _Substitute]] = {}
        """By the receiver's cycle and the stream's name."""

    def __len__(self) -> int:
        """Number of messages that wait for their cycle."""
        return sum(map(len, self._kept.values()))

    def offer(self, topic: str, cycle: int, *, was_recorded: bool, made: Message | None) -> None:
        """Keep a copy of what the sender makes in `cycle`, where a delivery publishes it. Cycles rise.

        was_recorded: whether a message was made there when it was recorded.
        """
        while self._newest is not None and self._newest.last < cycle:
            self._newest = next(self._deliveries, None)
        delivery = self._newest
        if delivery is None or cycle < delivery.first:
            return
        for stream, taken in zip(delivery.boundary.streams, delivery.taken, strict=True):
            is_more = not was_recorded and made is not None and cycle > taken
            if stream.topic == topic and (is_more or cycle == taken):
                kept = self._kept.setdefault(delivery.at, {})
                if stream.name not in kept or kept[stream.name].cycle <= cycle:
                    kept[stream.name] = _Substitute(cycle, None if made is None else made.copy())

    def take(self, at: int, outputs: Mapping[str, Message]) -> None:
        """Put what is kept for the receiver's cycle `at` in the place of what it had received.

        outputs: the messages of the source task, by port.
        """
        taken = self._kept.pop(at, {})
        while self._kept and (passed := next(iter(self._kept))) < at:
            del self._kept[passed]  # its cycle ended before it took anything
        for name, it in taken.items():
            output = outputs[name]
            output.clear()
            if it.made is not None:
                output.restore(it.made.all_fields(), tov_ns=it.made.tov_ns)
