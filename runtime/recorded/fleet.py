"""All recorded runs of a fleet as one: when each process ran, and how its links did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.runtime.events import Dropped, Failed
from flowrun.runtime.recorded.graph import processes_of
from flowrun.runtime.recorded.received import Taken
from flowrun.runtime.recorded.run import RecordedRun

__all__ = ["fleet"]

_MS = 1e6


@dataclass(slots=True)
class _PartRun:
    """One run.

    summary: as `summary` gives it. number: what the messages that it sent say of it.
    from_ns, to_ns: the times of its first and last cycle; None where it has none.
    processes: as `processes_of` gives it.
    received: what it took, by source task.
    """

    run: RecordedRun
    summary: dict[str, Any]
    from_ns: int | None
    to_ns: int | None
    errors: int
    dropped: int
    processes: dict[str, tuple[list[str], bool]]
    received: list[Taken]

    @property
    def part(self) -> str:
        return str(self.summary["part"])

    @property
    def number(self) -> int:
        return self.summary["started_ns"] or 0

    def span(self, ahead_ns: int) -> tuple[Any, Any]:
        """`from_ns` and `to_ns` by a clock of which the process's is `ahead_ns` ahead."""
        if self.from_ns is None or self.to_ns is None:
            return None, None
        return self.from_ns - ahead_ns, self.to_ns - ahead_ns

    @classmethod
    def of(cls, run: RecordedRun) -> _PartRun:
        with run.reading() as opened:
            times, by = opened.steps.times, opened.controls.by.items()
            return cls(
                run,
                run.summary(),
                int(times[0]) if len(times) else None,
                int(times[-1]) if len(times) else None,
                errors=sum(len(it.cycles) for (kind, _), it in by if kind == Failed.kind),
                dropped=sum(sum(it.counts) for (kind, _), it in by if kind == Dropped.kind),
                processes=processes_of(opened.log),
                received=deepcopy(opened.received.update()),
            )


def fleet(runs: Sequence[RecordedRun], *, bins: int) -> dict[str, Any] | None:
    """The processes of a fleet and the links between them; None where no run holds a cycle.

    `from_ns` and `to_ns` are the ends of the time in which something ran. These, the ends of runs and
    the times of gaps are by one clock: that of the first process with a log, for all to which links lead
    from it. The clock of each of `parts` is `ahead_ns` ahead of that, as the logs say; its own times are
    later by it. Where they do not say it, that is None, and its own clock counts. Each has its `runs`,
    the oldest first; one that the graph has and no log is here has none. Each of `links` has, by the
    parts of that time, the longest delay from a sender's cycle to the receiver's that took it,
    `delays_ms`; None where nothing came. It is corrected by how the clocks differed, `clock_offset_ms`;
    where that is None, it is by the clock of each.

    runs: of which each is one of a process. bins: number of parts of the time.
    """
    found = sorted(map(_PartRun.of, runs), key=lambda it: it.number)
    if all(it.from_ns is None for it in found):
        return None
    by_part: dict[str, list[_PartRun]] = {
        f"{name}/{process}": []
        for it in found
        for name, (processes, _) in it.processes.items()
        for process in processes
    }
    for it in found:
        by_part.setdefault(it.part, []).append(it)
    known_ns = _ahead(list(by_part), found)
    ahead_ns = {part: known_ns.get(part, 0) for part in by_part}
    spans = [it.span(ahead_ns[it.part]) for it in found if it.from_ns is not None]
    from_ns = min(begin for begin, _ in spans)
    to_ns = max(end for _, end in spans)
    edges = np.linspace(0, to_ns + 1 - from_ns, bins + 1)
    return {
        "from_ns": from_ns,
        "to_ns": to_ns,
        "parts": [_part(name, of_part, known_ns.get(name)) for name, of_part in by_part.items()],
        "links": [
            link
            for name, of_part in by_part.items()
            for link in _links(name, of_part, by_part, from_ns, edges, known_ns)
        ],
    }


def _ahead(parts: Sequence[str], runs: Sequence[_PartRun]) -> dict[str, int]:
    """By how much the clock of each process is ahead of the first one's, which is that of the first that
    has a log; not of those to which no links lead from it whose logs say so. Of several measurements the
    last of each link counts."""
    near: dict[str, dict[str, int]] = {}
    for run in runs:
        for taken in run.received:
            if taken.sender and taken.offset_ns is not None:
                near.setdefault(run.part, {})[taken.sender] = taken.offset_ns
                near.setdefault(taken.sender, {})[run.part] = -taken.offset_ns
    with_logs = {run.part for run in runs}
    found = [next(part for part in parts if part in with_logs)]
    ahead = {found[0]: 0}
    for part in found:
        for other, offset_ns in near.get(part, {}).items():
            if other not in ahead:
                ahead[other] = ahead[part] + offset_ns
                found.append(other)
    return ahead


def _part(name: str, runs: list[_PartRun], ahead_ns: int | None) -> dict[str, Any]:
    return {
        "part": name,
        "ahead_ns": ahead_ns,
        "restarts": max(0, len(runs) - 1),
        "cycles": sum(it.summary["cycles"] for it in runs),
        "errors": sum(it.errors for it in runs),
        "dropped": sum(it.dropped for it in runs),
        "runs": [
            {**it.summary, "from_ns": begin, "to_ns": end, "errors": it.errors}
            for it in runs
            for begin, end in [it.span(ahead_ns or 0)]
        ],
    }


def _links(
    receiver: str,
    runs: list[_PartRun],
    by_part: dict[str, list[_PartRun]],
    from_ns: int,
    edges: NDArray[np.float64],
    known_ns: Mapping[str, int],
) -> list[dict[str, Any]]:
    """What a process received, by sender. from_ns: when the fleet's time begins. known_ns: by how much
    clocks are ahead of the fleet's, as far as the logs say it."""
    ahead_ns = known_ns.get(receiver, 0)
    senders: dict[str, list[Taken]] = {}
    for run in runs:
        for taken in run.received:
            if taken.sender:
                senders.setdefault(taken.sender, []).append(taken)
    found = []
    for sender, takings in sorted(senders.items()):
        at = np.concatenate([np.array(it.at_ns, np.int64) for it in takings])
        measured = [it.offset_ns for it in takings if it.offset_ns is not None]
        offset_ns = measured[-1] if measured else _between(sender, receiver, known_ns)
        late = [np.array(it.late_ns(offset_ns), np.int64) for it in takings]
        delays = np.concatenate(late) / _MS
        found.append(
            {
                "sender": sender,
                "receiver": receiver,
                "cycles": len(at),
                "skipped": sum(it.skipped for it in takings),
                "gaps": [
                    {**gap._asdict(), "at_ns": gap.at_ns - ahead_ns}
                    for it in takings
                    for gap in it.gaps
                ],
                "reconnects": sum(it.met for it in takings) - 1 if measured else None,
                "clock_offset_ms": None if offset_ns is None else round(offset_ns / _MS, 3),
                "delay_ms": _quantiles(delays),
                "delays_ms": _longest(at - ahead_ns - from_ns, delays, edges),
                "left": _left(takings[-1], runs[-1], by_part.get(sender, [])),
            }
        )
    return found


def _between(sender: str, receiver: str, known_ns: Mapping[str, int]) -> int | None:
    """By how much the sender's clock is ahead of the receiver's, as other links say it."""
    if sender not in known_ns or receiver not in known_ns:
        return None
    return known_ns[sender] - known_ns[receiver]


def _quantiles(delays: NDArray[np.float64]) -> dict[str, float] | None:
    if not len(delays):
        return None
    p50, p99, most = np.quantile(delays, [0.5, 0.99, 1.0]).round(3).tolist()
    return {"p50": p50, "p99": p99, "most": most}


def _longest(
    at: NDArray[np.int64], delays: NDArray[np.float64], edges: NDArray[np.float64]
) -> list[float | None]:
    number = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, len(edges) - 2)
    most = np.full(len(edges) - 1, -np.inf)
    np.maximum.at(most, number, delays)
    return [None if it == -np.inf else round(it, 3) for it in most.tolist()]


def _left(taken: Taken, receiver: _PartRun, senders: list[_PartRun]) -> int | None:
    """Number of messages in the sender's logs after the last cycle that was taken; None where what is
    sent is shared between replicas, or the sender's logs are not here."""
    _, is_shared = receiver.processes.get(receiver.part.partition("/")[0], ([], True))
    run, cycle = taken.cursor
    later = [it for it in senders if it.number >= run]
    if is_shared or not later:
        return None
    with receiver.run.reading() as opened:
        names = {
            topic.metadata.get("port")
            for topic in opened.log.topics.values()
            if topic.metadata.get("task") == taken.source
        }
    return sum(_messages_after(it.run, names, cycle if it.number == run else -1) for it in later)


def _messages_after(sender: RecordedRun, names: set[str | None], cycle: int) -> int:
    """names: those of the receiver's source task, which has a port for each output of the sender's."""
    with sender.reading() as opened:
        places = [
            opened.places.of(name)
            for name, topic in opened.log.topics.items()
            if f"{topic.metadata.get('task')}_{topic.metadata.get('port')}" in names
        ]
        return sum(len(it) - it.before(cycle) for it in places)
