"""What is exported, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from flowrun.runtime.errors import LogError, UsageError
from flowrun.runtime.log.message import Bounds, LogMessage
from flowrun.runtime.log.reader import Log
from flowrun.runtime.wording import listed

__all__ = ["ExportReport", "Selection"]

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Selection:
    """Which messages of a log are exported.

    topics: None for all. bounds: the keyword arguments of `Log.messages`.
    progress: called with the cycle's time of each message that is read.
    """

    topics: tuple[str, ...] | None = None
    bounds: Bounds = field(default_factory=Bounds)
    progress: Callable[[int], None] | None = None

    def messages(self, log: Log, *topics: str) -> Iterator[LogMessage]:
        """The selected messages, or those of `topics` within the bounds."""
        wanted = topics or self.topics
        for message in log.messages(wanted, **self.bounds):
            if self.progress is not None:
                self.progress(message.time_ns)
            yield message

    def one_topic(self, log: Log, what: str, options: list[str]) -> str:
        """The one topic that the export `what` takes; `UsageError` lists the `options`."""
        if not options:
            raise UsageError(f"{log.path}: the log has no topic that {what} can hold")
        chosen = options if self.topics is None else list(self.topics)
        if len(chosen) != 1:
            raise UsageError(f"{log.path}: {what} holds one topic; choose one: {listed(options)}")
        return chosen[0]


@dataclass(slots=True)
class ExportReport:
    """What an export wrote.

    count: messages, or pictures, or cycles. unreadable: messages whose payload could not be decoded.
    notes: what the file does not hold as the log does, a sentence each.
    """

    count: int = 0
    unreadable: int = 0
    notes: list[str] = field(default_factory=list)

    def leave_out(self, error: LogError) -> None:
        """Go on without a message that cannot be decoded; the first ones are named in the notes."""
        self.unreadable += 1
        if self.unreadable <= _MOST_NAMED:
            self.notes.append(f"left out: {error}")
