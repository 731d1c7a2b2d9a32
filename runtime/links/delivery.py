"""What of the messages that have come enters one cycle: `deliver` and `max_age_ms`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from zlib_ng.zlib_ng import crc32

from flowrun.runtime.links.arrived import Gap, Taken
from flowrun.runtime.links.receiver import Receiver
from flowrun.runtime.links.runs import Cursor
from flowrun.runtime.links.wire import CONTEXT, Carried, Stream

__all__ = ["Batch", "Passed", "next_batch"]

_MOST_CYCLES = 256
"""Of the sender that one cycle takes."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A message of the sender's cycle `cycle`. shown: whether it is published; pictures that are not are
    decoded all the same, as later ones need them. is_old: whether it is too old for that."""

    cycle: int
    message: Carried
    shown: bool
    is_old: bool = False


@dataclass(slots=True)
class Batch:
    """What one cycle takes.

    first, cycle, time_ns, run, crc: see `OriginMsg`.
    passed: all messages, in order.
    gap: cycles that never come; there is nothing else then.
    """

    run: int
    first: int
    cycle: int
    time_ns: int
    crc: int = 0
    gap: Gap | None = None
    passed: list[Passed] = field(default_factory=list)

    @property
    def after(self) -> Cursor:
        """The cursor when all of it is in the log."""
        return Cursor(self.run, self.cycle + 1)

    @property
    def skipped(self) -> int:
        """Number of messages that are not shown."""
        return sum(not it.shown for it in self.passed)


def next_batch(
    receiver: Receiver, streams: Sequence[Stream], now_ns: int
) -> tuple[list[Taken], Batch | None]:
    """What has come, taken for the cycle of `now_ns`: cycles that are only decoded, and the batch; None
    if nothing has come.

    One cycle of the sender has one cycle of the receiver. Where all that it brings is to be delivered as
    the latest, it takes those after it too that have come, and only the newest message of each stream is
    shown.
    """
    context: list[Taken] = []
    taken: list[Taken] = []
    while (item := receiver.peek()) is not None:
        if isinstance(item, Gap):
            if not taken:
                receiver.take()
                after = item.after
                return context, Batch(after.run, after.cycle, after.cycle - 1, 0, gap=item)
            break
        if item.head.kind == CONTEXT:
            receiver.take()
            context.append(item)
            continue
        if taken and not _may_join(taken, item, streams):
            break
        receiver.take()
        taken.append(item)
        if not _is_latest(item, streams):
            break
    return context, _batch(taken, streams, now_ns) if taken else None


def _may_join(taken: Sequence[Taken], item: Taken, streams: Sequence[Stream]) -> bool:
    return (
        item.head.run == taken[-1].head.run
        and len(taken) < _MOST_CYCLES
        and _is_latest(item, streams)
    )


def _is_latest(item: Taken, streams: Sequence[Stream]) -> bool:
    return all(streams[it.stream].deliver == "latest" for it in item.messages)


def _batch(taken: Sequence[Taken], streams: Sequence[Stream], now_ns: int) -> Batch:
    head, crc = taken[-1].head, 0
    newest: dict[int, int] = {}
    for at, item in enumerate(taken):
        crc = crc32(item.payload, crc)
        newest |= {it.stream: at for it in item.messages}
    batch = Batch(head.run, taken[0].head.cycle, head.cycle, head.time_ns, crc)
    for at, item in enumerate(taken):
        for message in item.messages:
            age_ms = streams[message.stream].max_age_ms
            is_old = age_ms is not None and now_ns - message.tov_ns > age_ms * 1_000_000
            shown = newest[message.stream] == at and not is_old
            batch.passed.append(Passed(item.head.cycle, message, shown, is_old))
    return batch
