"""What a process of a fleet hears of the others' ends.

`flowrun up`, or whatever else runs them all, writes lines to the standard input of each process:

```text
ended gpu/0     it has ended, and no other run of it follows
stop            all are to end
```

The end of the input also means `stop`: whoever wrote it is gone. A process that gets no lines, such as
one that systemd runs, cannot know whether another run of a process follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

__all__ = ["STOP", "Told", "ended"]

STOP = "stop"
_ENDED = "ended "


def ended(part: object) -> str:
    """What is said of a process, "gpu/0", that has ended for good."""
    return f"{_ENDED}{part}"


class Told:
    """What has been heard so far."""

    def __init__(self) -> None:
        self._ended: frozenset[str] = frozenset()
        self.is_over = False
        """Whether all processes are to end."""
        self.on_change: Callable[[], None] = lambda: None
        """Called, on any thread, when something was heard."""

    def has_ended(self, part: object) -> bool:
        """Whether no run of a process, "gpu/0", goes on or follows. From any thread."""
        return str(part) in self._ended

    def hear(self, lines: Iterable[str]) -> None:
        """Take all lines; returns at their end."""
        for line in lines:
            self.take(line.rstrip("\n"))
        self.take(STOP)

    def take(self, line: str) -> None:
        """Take one line. One of another version says nothing."""
        if line.startswith(_ENDED):
            self._ended |= {line.removeprefix(_ENDED)}
        self.is_over |= line == STOP
        self.on_change()
