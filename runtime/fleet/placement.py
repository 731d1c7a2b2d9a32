"""Where the processes of a fleet run, and by which addresses they find each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from flowrun.runtime.graph.spec import GraphSpec, PartId

__all__ = ["LOCAL_SETTINGS", "PATIENCE_S", "Place", "PlaceLost", "Placement", "Process"]

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


class PlaceLost(OSError):  # noqa: N818  # what has happened, not what somebody did wrong
    """Where a process ran is gone, and the process with it.

    strerror: which place, and why. advice: what to do.
    """

    def __init__(self, text: str, advice: str) -> None:
        super().__init__(0, text)
        self.advice = advice


class Process(Protocol):
    """A process of a fleet; see `ChildProcess`."""

    @property
    def status(self) -> int | None: ...
    @property
    def command_pid(self) -> int | None: ...
    def start(self) -> None: ...
    def tell(self, line: str) -> None: ...
    def keep_running(
        self, *, on_end: Callable[[int, float], bool], on_failure: Callable[[OSError], None]
    ) -> None:
        """As `ChildProcess`; `on_failure` is called with `PlaceLost` too."""

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
