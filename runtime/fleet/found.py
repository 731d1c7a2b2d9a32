"""What the replay of a fleet finds."""

from __future__ import annotations

from dataclasses import dataclass, field

from flowrun.runtime.fleet.record import FleetRun
from flowrun.runtime.replay.compare import Difference
from flowrun.runtime.replay.cycles import ReplayReport

__all__ = ["FleetReport", "LinkDifference", "PartReport"]


@dataclass(frozen=True, slots=True)
class LinkDifference:
    """What a receiver's log says it got is not what the sender's log has.

    first, last: the sender's cycles.
    what: the receiver's cycle, the topic, and what differs.
    """

    sender: FleetRun
    receiver: FleetRun
    first: int
    last: int
    what: str

    def __str__(self) -> str:
        several = f"s {self.first} to" if self.first != self.last else ""
        return (
            f"link {self.sender.part} -> {self.receiver.part}, cycle{several} {self.last} of "
            f"{self.sender.path.name}, got in {self.receiver.path.name}:\n  {self.what}"
        )


@dataclass(slots=True)
class PartReport:
    """What the replay of one run found."""

    run: FleetRun
    report: ReplayReport
    notes: list[str]


@dataclass(slots=True)
class FleetReport:
    """What the replay of a fleet found.

    parts: of each run, in the order in which they began.
    first: the run whose message was the first to differ, and how.
    delivered: number of deliveries whose bytes are those that the sender's log has.
    unverified: number of those that the senders' logs lack: one is not there, or a part of it, or
        it is damaged.
    links: the deliveries that are others than were sent.
    notes: what of the fleet is not there, or cannot be read.
    """

    parts: list[PartReport]
    first: tuple[FleetRun, Difference] | None = None
    delivered: int = 0
    unverified: int = 0
    links: list[LinkDifference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_identical(self) -> bool:
        """Whether nothing differs."""
        return not self.links and not any(
            it.report.first is not None or it.report.missing for it in self.parts
        )
