"""All processes of a graph, on this machine as its children: started, watched, started again, ended."""

from __future__ import annotations

import random
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flowrun.runtime.children.endings import why_ended
from flowrun.runtime.children.process import ChildProcess
from flowrun.runtime.errors import UsageError
from flowrun.runtime.fleet.ending import ending_order
from flowrun.runtime.fleet.placement import (
    LOCAL_SETTINGS,
    PATIENCE_S,
    Place,
    PlaceLost,
    Placement,
    Process,
)
from flowrun.runtime.fleet.record import folder_of
from flowrun.runtime.graph.spec import GraphSpec, PartId
from flowrun.runtime.links.told import STOP, ended

__all__ = ["COMMAND", "Fleet", "addresses"]

COMMAND = ("-P", "-m", "flowrun.runtime.cli", "run")
"""Python's arguments. -P: the folder in which the command was started is not one of modules."""
_KEPT_LINES = 200
_SEEN_S = 0.5
"""How long a process has to be there again before that is said."""
_PORTS = range(20_000, 32_000)
"""Below those that the system gives to clients."""
_ASKED = {128 + it for it in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
"""The statuses of one that somebody has ended at once."""
_STUCK = 128 + signal.SIGKILL
_WRONG = 2
"""The status of a mistake in the graph or the options: no other start would help."""


def addresses(parts: Sequence[PartId]) -> dict[PartId, str]:
    """An address on this machine for each of `parts`, at which nobody listens. `UsageError` if there
    are no such ports."""
    found: dict[PartId, str] = {}
    ports = random.SystemRandom().sample(_PORTS, len(_PORTS))
    for part in parts:
        while True:
            if not ports:
                raise UsageError(f"no free port for {part} from {_PORTS[0]} to {_PORTS[-1]}")
            port = ports.pop()
            if _is_free(port):
                found[part] = f"tcp/127.0.0.1:{port}"
                break
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass(slots=True)
class _Member:
    """One process."""

    part: PartId
    child: Process
    folder: Path
    on_error: str
    lines: list[str] = field(default_factory=list)
    status: int | None = None
    restarts: int = 0


class Fleet:
    """The processes of `graph`; each runs `flowrun GRAPH --partition PART`.

    folder: that of the fleet.
    options: what their command lines say besides, by process.
    say: takes the lines about them, and those that they write.
    first_pause_s: seconds to wait before the first restart; doubled each time.
    command: Python's arguments that run a graph; the file and options follow. On its standard input
        each hears which others have ended for good: see `links.told`.
    placement: where they run; as children of this process, if not given.
    """

    def __init__(
        self,
        graph: GraphSpec,
        folder: Path,
        *,
        options: Callable[[PartId], Sequence[str]],
        say: Callable[[str], None],
        first_pause_s: float = 1.0,
        command: Sequence[str] = COMMAND,
        placement: Placement | None = None,
    ) -> None:
        self._graph = graph
        self._say_line = say
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._stopping = False
        self.failed: dict[PartId, str] = {}
        """Why processes failed that were not started again."""
        parts = [part for partition in graph.partitions for part in partition.parts]
        self._width = max(len(str(part)) for part in parts)
        self._members: dict[PartId, _Member] = {}
        placement = self._placement = placement or LocalPlacement()
        where = placement.places(graph)
        for partition in graph.partitions:
            for part in partition.parts:
                words = [
                    *command,
                    str(graph.path),
                    *("--partition", str(part)),
                    *("--log-dir", str(logs := folder_of(folder, part))),
                    *_at_its_place(graph, part, where),
                    *options(part),
                ]
                child = placement.process(part, words, self._noting(part), first_pause_s)
                self._members[part] = _Member(part, child, logs, partition.on_error)

    def start(self) -> None:
        """Start all. `UsageError` if a process cannot be made."""
        for member in self._members.values():
            try:
                member.child.start()
            except OSError as error:
                self.stop()
                raise UsageError(f"{member.part}: {_not_started(member, error)}") from error
            member.child.keep_running(on_end=self._ending(member), on_failure=self._failing(member))
            self._say(member.part, "started")

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until all have ended, or one has failed for good; whether it is so."""
        return self._ended.wait(seconds)

    def stop(self) -> None:
        """End all, senders first; each has some seconds to finish its log."""
        with self._lock:
            self._stopping = True
        self._tell(STOP)
        for group in ending_order(self._graph):
            threads = [
                threading.Thread(target=self._members[part].child.stop, name=f"flowrun-stop-{part}")
                for part in group
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        for member in self._members.values():
            if member.status is None:
                self._note(member, member.child.status)
        self._placement.close()

    def pid(self, part: PartId) -> int | None:
        """The process id of a process; None while it does not run."""
        member = self._members[part]
        return None if member.status is not None else member.child.command_pid

    def restarts(self, part: PartId) -> int:
        """How often a process was started again."""
        return self._members[part].restarts

    # -- what happens to them, on threads of their own ------------------------------------------

    def _noting(self, part: PartId) -> Callable[[str], None]:
        def note(line: str) -> None:
            lines = self._members[part].lines
            lines.append(line)
            del lines[:-_KEPT_LINES]
            self._say(part, line)

        return note

    def _ending(self, member: _Member) -> Callable[[int, float], bool]:
        def on_end(status: int, pause_s: float) -> bool:
            with self._lock:
                again = member.on_error == "restart" and status not in (0, _WRONG, *_ASKED)
                again = again and not self._stopping
                member.restarts += again
            if again:
                why = (why_ended(status, member.lines) or "ended").splitlines()[0]
                self._say(member.part, f"failed: {why}; starts again in {pause_s:g} s")
                member.lines.clear()
                timer = threading.Timer(pause_s + _SEEN_S, self._say_again, [member])
                timer.daemon = True
                timer.start()
                return True
            self._note(member, status)
            return False

        return on_end

    def _say_again(self, member: _Member) -> None:
        with self._lock:
            if self._stopping or member.status is not None or member.child.status is not None:
                return
        self._say(member.part, "started again")

    def _failing(self, member: _Member) -> Callable[[OSError], None]:
        def on_failure(error: OSError) -> None:
            self._note(member, 1, _not_started(member, error))

        return on_failure

    def _note(self, member: _Member, status: int | None, why: str | None = None) -> None:
        """A process has ended for good. why: as its status and its lines say it, if not given."""
        is_well = status is None or status in _ASKED
        if self._stopping and status == _STUCK:
            why = f"did not end within {PATIENCE_S:g} s, and was killed"
        if why is None and status is not None and not is_well:
            why = why_ended(status, member.lines)
        self._say(member.part, "ended" if why is None else f"failed: {why.splitlines()[0]}")
        with self._lock:
            member.status = 0 if status is None else status
            if why is not None:
                self.failed[member.part] = why
            if self.failed or all(it.status is not None for it in self._members.values()):
                self._ended.set()
        self._tell(ended(member.part))

    def _tell(self, line: str) -> None:
        for member in self._members.values():
            member.child.tell(line)

    def _say(self, part: PartId, line: str) -> None:
        self._say_line(f"{part!s:<{self._width}} | {line}")


def _not_started(member: _Member, error: OSError) -> str:
    if isinstance(error, PlaceLost):
        return f"{error.strerror}; its log is there, in {member.folder.absolute()}; {error.advice}"
    return f"no process can be started: {error.strerror}"


class LocalPlacement:
    """See `Placement`: children of this process, which end with it."""

    def places(self, graph: GraphSpec) -> Mapping[PartId, Place]:
        parts = [part for partition in graph.partitions for part in partition.parts]
        return {part: Place(at, LOCAL_SETTINGS) for part, at in addresses(parts).items()}

    def process(
        self, part: PartId, words: Sequence[str], on_line: Callable[[str], None], pause_s: float
    ) -> Process:
        return ChildProcess(
            [sys.executable, *words],
            folder=Path.cwd(),
            name=f"flowrun-part-{part}",
            first_pause_s=pause_s,
            patience_s=PATIENCE_S,
            drop_stdout=True,  # the status, again and again
            hears=True,
            on_line=on_line,
        )

    def close(self) -> None: ...


def _at_its_place(graph: GraphSpec, part: PartId, where: Mapping[PartId, Place]) -> list[str]:
    """Settings in place of the addresses of the file: `part` listens at its own, and looks for those of
    all before it."""
    said = dict(where[part].settings)
    for partition in graph.partitions:
        is_own = partition.id == part.partition
        said[f"partitions.{partition.id}.listen"] = f"[{where[part].address}]" if is_own else "[]"
        before = [
            where[it].address for it in where if list(where).index(it) < list(where).index(part)
        ]
        said[f"partitions.{partition.id}.connect"] = f"[{', '.join(before)}]" if is_own else "[]"
    return [word for name, value in said.items() for word in ("--set", f"{name}={value}")]
