"""What a sender's logs have for a receiver: the queue that `Shipper` and answers read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

from zlib_ng.zlib_ng import crc32

from flowrun.runtime.errors import LogError
from flowrun.runtime.links.runs import OwnRun, Runs
from flowrun.runtime.links.spread import Spread
from flowrun.runtime.links.wire import (
    CONTEXT,
    CYCLE,
    Carried,
    Head,
    Peer,
    Question,
    Status,
    Stream,
    packed,
)
from flowrun.runtime.log.committed import CommittedCycles, FellBehind
from flowrun.runtime.log.files import LogFiles
from flowrun.runtime.log.message import LateLines, LoggedCycle, Range
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.scan import scan
from flowrun.runtime.log.slab.format import CODEC, STARTED_NS
from flowrun.runtime.pictures.stored import StoredPicture

__all__ = ["Answer", "LogTail", "Picker", "SentLogs", "sent_crc"]

_MOST_OPEN = 2
"""Logs that stay open between two questions."""
_REMOVED = "the sender's log no longer has them"
_stream_of = itemgetter(0)


class Picker:
    """Picks from the cycles of a log what goes to a receiver.

    coded: topics of the log whose pictures are stored by a codec.
    """

    def __init__(self, streams: Sequence[Stream], coded: frozenset[str]) -> None:
        self._numbers = {stream.topic: number for number, stream in enumerate(streams)}
        self.coded = coded
        self._keyframes = {it.topic for it in streams if it.carry == "keyframes"}

    def messages(self, cycle: LoggedCycle) -> list[Carried]:
        """Those of a cycle, views of the log."""
        # `tuple.__new__` takes a third of what the class's own constructor does, and a sender does this
        # for each message.
        numbers, keyframes, new = self._numbers, self._keyframes, tuple.__new__
        found: list[Carried] = [
            new(Carried, (numbers[topic], tov_ns, payload))
            for topic, tov_ns, payload in cycle.entries
            if topic in numbers
            and (topic not in keyframes or self._stands_alone(topic, cycle.cycle, payload))
        ]
        found.sort(key=_stream_of)
        return found

    def keys(self, cycle: LoggedCycle) -> dict[str, int]:
        """By topic, the cycle at which the packets of its picture in this cycle begin, if it is
        another one."""
        found = {}
        for topic, _, payload in cycle.entries:
            if topic in self._numbers and topic in self.coded and topic not in self._keyframes:
                own = StoredPicture.parse(payload).own
                if "key" in own and own["key"] != cycle.cycle:
                    found[topic] = own["key"]
        return found

    def packets_of(self, cycle: LoggedCycle, topics: dict[str, int]) -> list[Carried]:
        """The messages of `topics` whose packets begin at the cycles given, or later."""
        return [
            Carried(self._numbers[topic], tov_ns, payload)
            for topic, tov_ns, payload in cycle.entries
            if topic in topics and cycle.cycle >= topics[topic]
        ]

    def _stands_alone(self, topic: str, cycle: int, payload: memoryview) -> bool:
        """Whether a message needs no earlier one."""
        if topic not in self.coded:
            return True
        own = StoredPicture.parse(payload).own
        return bool(own.get("key", cycle) == cycle)


def picker_of(log: Log, streams: Sequence[Stream]) -> Picker:
    """The picker of an opened log."""
    return Picker(streams, frozenset(n for n, t in log.topics.items() if CODEC in t.metadata))


def sent_crc(
    log: Log,
    first: int,
    last: int,
    streams: Sequence[Stream],
    *,
    is_for: Callable[[int], bool] = lambda _cycle: True,
) -> int:
    """The CRC-32 of what the wire has of the cycles from `first` to `last`, as `OriginMsg.crc`.

    is_for: whether a cycle went to the receiver, of several that share what is sent.

    `LogError` where the log lacks one of them.
    """
    picker, crc, following = picker_of(log, streams), 0, first
    for cycle in log.cycles(first, last + 1):
        if cycle.cycle != following:
            break
        following += 1
        messages = picker.messages(cycle)
        if messages and is_for(cycle.cycle):
            crc = crc32(packed(messages), crc)
    if following <= last:
        raise LogError(f"{log.path}: cycle {following} is not in it, or cannot be read")
    return crc


class LogTail:
    """The cycles that are added to a log, from its beginning on.

    committed: those that this process adds to it; what is not there is read from the log.
    """

    def __init__(self, path: Path, committed: CommittedCycles | None = None) -> None:
        self._path, self._committed = path, committed
        self._files: LogFiles | None = LogFiles(path, verify=True)
        """Open while cycles are read from the log."""
        self._next: int | None = None
        first = self._files.slabs[0].preamble
        self.coded = frozenset(
            channel.topic for channel in first.channels.values() if CODEC in channel.metadata
        )

    def new(self) -> Iterator[LoggedCycle]:
        """Those that were committed since the last call. `LogError` where the log cannot be read."""
        if self._files is not None:
            yield from self._read(self._files)
        if self._committed is None:
            return
        self._let_go()
        try:
            for taken in self._committed.take(self._next):
                self._next = taken[0] + 1
                yield LoggedCycle(*taken)
        except FellBehind:
            self._files = LogFiles(self._path, verify=True)
            yield from self._read(self._files)

    def _read(self, files: LogFiles) -> Iterator[LoggedCycle]:
        files.refresh()
        for _, record in scan(files, Range(self._next), goes_on=True):
            if isinstance(record, LateLines):
                continue
            self._next = record.cycle + 1
            yield record

    def _let_go(self) -> None:
        if self._files is not None:
            self._files.close()
            self._files = None

    def close(self) -> None:
        """Let go of the files."""
        self._let_go()
        if self._committed is not None:
            self._committed.close()


@dataclass(frozen=True, slots=True)
class Answer:
    """Messages for a receiver, and how the answer ends."""

    messages: Sequence[tuple[Head, bytes]]
    status: Status


class SentLogs:
    """All logs of one process of a partition, of this run and of those before it.

    runs: finds them. present: the run that is going on.
    spread: makes the `Spread` of a log with the coded topics given, for a partition whose replicas share
        what is sent; None for one that gets all.
    """

    def __init__(
        self,
        runs: Runs,
        present: int,
        own: Peer,
        *,
        spread: Callable[[str, frozenset[str]], Spread | None] = lambda _partition, _coded: None,
    ) -> None:
        self._runs = runs
        self._present = present
        self._own = own
        self._make_spread = spread
        self._open: dict[int, Log] = {}
        self._spreads: dict[tuple[int, str], Spread | None] = {}
        self.looked_at = -1
        """The last cycle of the present run that its spreads have looked at."""
        self.ended = False
        """Whether the present run has ended in order, so that nothing follows."""

    def spread_of(self, run: int, partition: str, coded: frozenset[str]) -> Spread | None:
        """To which replicas of a partition the cycles of a run belong; None where they get all. That of
        a run before this one is read from its log."""
        key = run, partition
        if key not in self._spreads:
            made = self._spreads[key] = self._make_spread(partition, coded)
            if made is not None and run != self._present:
                for it in self._runs.look():
                    if it.run == run:
                        with Log(it.path) as log:
                            for cycle in log.cycles():
                                made.look(cycle)
        return self._spreads[key]

    def answer(
        self, asked: Question, streams: Sequence[Stream], receiver: Peer | None = None
    ) -> Answer:
        """What there is for `receiver` from the cycle asked for on, at most `most_bytes`, one message in
        any case."""
        runs = self._runs.look()
        numbers = [it.run for it in runs]
        if asked.run not in numbers:
            return Answer((), self._other(asked, runs))
        at = numbers.index(asked.run)
        try:
            log = self._opened(runs[at])
            return self._from(log, asked, streams, runs[at + 1 :], receiver)
        except LogError:
            self._close(asked.run)
            return Answer((), self._other(asked, [it for it in runs if it.run != asked.run]))

    def close(self) -> None:
        """Let go of the logs."""
        for run in list(self._open):
            self._close(run)

    def _opened(self, run: OwnRun) -> Log:
        """The log of a run, as it is now; the two that were asked for last stay open."""
        log = self._open.pop(run.run, None)
        if log is None:
            log = Log(run.path)
        else:
            log.refresh()
        self._open[run.run] = log
        while len(self._open) > _MOST_OPEN:
            self._close(next(iter(self._open)))
        return log

    def _close(self, run: int) -> None:
        log = self._open.pop(run, None)
        if log is not None:
            log.close()

    def _other(self, asked: Question, runs: Sequence[OwnRun]) -> Status:
        """The run that was asked for is not there: go on with the one after it. Where all began before
        it, the clock was set back: they are later all the same, as the oldest is removed first."""
        later = [it for it in runs if it.run > asked.run] or runs
        nothing = Status(
            asked.run, asked.cycle, asked.cycle, 0, more=False, is_over=False, follows=0, follows_at=0,
            ended=False, reason="",
        )  # fmt: skip
        for run in later:
            begins = _first_cycle(run.path)
            if begins is not None:
                reason = _REMOVED if asked.run else ""
                return replace(
                    nothing,
                    is_over=True,
                    more=True,
                    follows=run.run,
                    follows_at=begins,
                    reason=reason,
                )
        return nothing

    def _from(
        self,
        log: Log,
        asked: Question,
        streams: Sequence[Stream],
        later: Sequence[OwnRun],
        receiver: Peer | None,
    ) -> Answer:
        picker = picker_of(log, streams)
        spread = None
        if receiver is not None:
            spread = self.spread_of(asked.run, receiver.partition, picker.coded)
        found: list[tuple[Head, bytes]] = []
        size, more, upto = 0, False, asked.cycle
        first, begins = asked.cycle, None
        context: dict[str, int] | None = {} if asked.context else None
        for cycle in log.cycles(asked.cycle):
            if begins is None:
                first = begins = cycle.cycle
            elif cycle.cycle != upto:
                more = (
                    True  # cycles are missing here: the next answer begins after them, and says so
                )
                break
            if spread is not None and asked.run == self._present and cycle.cycle > self.looked_at:
                break
            messages = picker.messages(cycle)
            if spread is not None and receiver and spread.at(cycle.cycle) != receiver.instance:
                messages = []
            if messages:
                if found and size > asked.most_bytes:
                    more = True
                    break
                if context is not None:
                    for topic, key in picker.keys(cycle).items():
                        context.setdefault(topic, key)
                payload = packed(messages)
                found.append((self._head(log, CYCLE, first, cycle), payload))
                size, first = size + len(payload), cycle.cycle + 1
            upto = cycle.cycle + 1
        if context:
            since = {topic: key for topic, key in context.items() if key < asked.cycle}
            found[:0] = self._context(log, asked, picker, since)
        reason = ""
        if begins is None:
            begins = asked.cycle
            if not self._is_complete(log, asked.cycle):
                reason = _REMOVED
        elif begins > asked.cycle:
            reason = _REMOVED
        status = Status(
            asked.run, begins, upto, len(found), more=more, is_over=False, follows=0, follows_at=0,
            ended=False, reason=reason,
        )  # fmt: skip
        return Answer(found, status if more else self._with_end(status, asked.run, later))

    def _with_end(self, status: Status, run: int, later: Sequence[OwnRun]) -> Status:
        for following in later:
            begins = _first_cycle(following.path)
            if begins is not None:
                return replace(
                    status, is_over=True, more=True, follows=following.run, follows_at=begins
                )
        is_over = run == self._present and self.ended
        return replace(status, is_over=is_over, ended=is_over)

    def _context(
        self, log: Log, asked: Question, picker: Picker, since: dict[str, int]
    ) -> Iterator[tuple[Head, bytes]]:
        if not since:
            return
        for cycle in log.cycles(min(since.values()), asked.cycle):
            messages = picker.packets_of(cycle, since)
            if messages:
                yield self._head(log, CONTEXT, cycle.cycle, cycle), packed(messages)

    def _is_complete(self, log: Log, cycle: int) -> bool:
        """Whether nothing of the log is missing before `cycle`, though it ends before."""
        return cycle == 0 or log.loss is None

    def _head(self, log: Log, kind: int, first: int, cycle: LoggedCycle) -> Head:
        run = _run_of(log)
        return Head(run, self._own.part, self._own.inst, kind, first, cycle.cycle, cycle.time_ns)


def _run_of(log: Log) -> int:
    return int(log.metadata.get(STARTED_NS, "0"))


def _first_cycle(path: Path) -> int | None:
    """The first cycle of a log; None where it has none yet, or cannot be read."""
    try:
        with Log(path, verify=False) as log:
            return next((cycle.cycle for cycle in log.cycles()), None)
    except LogError:
        return None
