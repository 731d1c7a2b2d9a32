"""Where the processes of a fleet run, and by which addresses they find each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from flowrun.runtime.graph.spec import GraphSpec, PartId

__all__ = ["LOCAL_SETTINGS", "PATIENCE_S", "Place", "Placement", "Process"]

PATIENCE_S = 9.0
"""Seconds that a process has to end: one that is stuck ends itself 8 s after SIGTERM."""
LOCAL_SETTINGS: Mapping[str, str] = {
    "network.tls": "{}",
    "network.allow": "{}",
    "network.insecure": "false",
}
"""What holds between processes of one machine, whatever the file says: plain TCP that stays there."""


class Place(NamedTuple):
    """Where a process listens, and what its graph is set to besides."""

    address: str
    settings: Mapping[str, str]


class Process(Protocol):
    """A process of a fleet; see `ChildProcess`."""

    @property
    def status(self) -> int | None: ...
    @property
    def command_pid(self) -> int | None: ...
    def start(self) -> None: ...
    def keep_running(
        self, *, on_end: Callable[[int, float], bool], on_failure: Callable[[OSError], None]
    ) -> None: ...
    def stop(self) -> None: ...


class Placement(Protocol):
    """Chooses where processes run."""

    def places(self, graph: GraphSpec) -> Mapping[PartId, Place]:
        """A place for each process. Called once."""

    def process(
        self, part: PartId, words: Sequence[str], on_line: Callable[[str], None], pause_s: float
    ) -> Process:
        """The process at the place of `part`, not yet started.

        words: the arguments of Python. on_line: called with each line that it writes.
        pause_s: seconds to wait before the first restart; doubled each time.
        """

    def close(self) -> None:
        """All processes have ended."""
