"""Where a cycle's messages from another partition come from: the receiver's cursor, in its own log."""

from __future__ import annotations

from flowrun.msgs.message import Message

__all__ = ["OriginMsg"]


class OriginMsg(Message):
    """The sender's cycles that came in this cycle, or that never come.

    partition, instance: which process sent them.
    run: its run: when it began, nanoseconds since 1970 UTC.
    first, cycle: the first and the last of its cycles that were taken: several where messages were
        passed over for newer ones. first is cycle + 1 where none was.
    time_ns: the time of `cycle`, by the sender's clock.
    taken: for each output of the source task, in order, the sender's cycle whose message it is; -1 for
        none.
    crc: CRC-32 of the wire's payloads of all cycles taken, one continued over the next.
    skipped: number of messages passed over for newer ones, or because they were too old.
    gap: why cycles never come; "" if none is missing. They are those of run `gap_run` from `gap_from`
        to `gap_to`; -1: to its end.
    """

    partition: str
    instance: str
    run: int
    first: int
    cycle: int
    time_ns: int
    taken: list[int]
    crc: int = 0
    skipped: int = 0
    gap: str = ""
    gap_run: int = 0
    gap_from: int = 0
    gap_to: int = -1
