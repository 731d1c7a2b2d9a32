r"""One pipeline: a graph as a child process, which runs exactly `flowrun GRAPH`; one with partitions
runs `flowrun up GRAPH`, whose children they are.

```text
             start                      ends well
  stopped ----------> running ------------------------> stopped
     ^                 |  ^  \__ fails ____> failed
     |      stop       |  |                    |  start: running again
     '-----------------'  '--- back-off ---- waiting   (restart: on-failure, always)
```
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import quote

from flowrun.runtime.children.endings import why_ended
from flowrun.runtime.children.process import ChildProcess
from flowrun.runtime.clock import monotonic_s
from flowrun.runtime.errors import FlowrunError
from flowrun.runtime.graph.read import load_graph

__all__ = ["RESTARTS", "Pipeline", "PipelineError", "Place", "Restart", "State"]

Restart = Literal["never", "on-failure", "always"]
RESTARTS: tuple[Restart, ...] = get_args(Restart)

Phase = Literal["stopped", "running", "stopping", "failed", "waiting"]

_COMMAND = (sys.executable, "-P", "-m", "flowrun.runtime.cli", "run")
"""-P: the folder in which the server was started is not one of modules."""
_FLEET_COMMAND = (*_COMMAND[:-1], "up")
_OF_PART = re.compile(r"(?P<part>\w+/[\w-]+) +\| (?P<what>started again|started|ended|failed: .*)")
"""What `flowrun up` says of its children."""
_PATIENCE_S = 4.0
"""Seconds that a stopped run has to end. A stop must be answered within 5."""
_KEPT_LINES = 200
_LOOK_S = 0.02


class PipelineError(FlowrunError):
    """A pipeline does not do what it was asked to; the text says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the pipelines of a server run, and how they are reached.

    log_dir: the folder of their runs.
    sockets: a folder that only this user may open.
    token: what their own servers ask for, or None.
    say: takes the lines about them, and those that they write.
    root_path: the path below which a proxy has the server; "" for none.
    first_pause_s: seconds to wait before the first restart; doubled each time.
    command, fleet_command: what runs a graph, and one with partitions; the file and options follow.
    """

    log_dir: Path
    sockets: Path
    token: str | None
    say: Callable[[str], None]
    root_path: str = ""
    first_pause_s: float = 1.0
    command: tuple[str, ...] = _COMMAND
    fleet_command: tuple[str, ...] = _FLEET_COMMAND


@dataclass(frozen=True, slots=True)
class State:
    """A pipeline at one moment.

    error: why its last run failed; None if it did not.
    pid: its process, while it runs.
    restart: when it is started again by itself.
    restarts: how often that has happened since it was started.
    next_start_s: seconds until it happens next, if it waits for that.
    answers: whether its own server has answered since it was started.
    parts: of a graph with partitions, what has become of each: "started", "ended", "failed: ...".
    """

    phase: Phase
    error: str | None = None
    pid: int | None = None
    restart: Restart = "never"
    restarts: int = 0
    next_start_s: float | None = None
    answers: bool = False
    parts: Mapping[str, str] = field(default_factory=dict)


class Pipeline:
    """The graph `path`, which may run. Its methods may be called from any thread."""

    def __init__(self, name: str, path: Path, place: Place, *, socket_name: str) -> None:
        self.name = name
        self.path = path
        self.socket = place.sockets / socket_name
        self._place = place
        self._commands = threading.Lock()  # one at a time
        self._lock = threading.Lock()
        self._child: ChildProcess | None = None
        self._phase: Phase = "stopped"
        self._error: str | None = None
        self._restart: Restart = "never"
        self._planned_restarts = 0
        self._next_start_s = 0.0
        self._has_answered = False
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._parts: dict[str, str] = {}

    # -- commands -------------------------------------------------------------------------------

    def start(self, restart: Restart = "never") -> None:
        """Start a run. `PipelineError` if there is one, or if no process can be made."""
        with self._commands:
            if self.is_running:
                raise PipelineError("Pipeline already exists")
            self._leave()
            self._begin(restart)

    def stop(self) -> None:
        """End its run within 5 s, whatever its tasks do, and start it no more; forget its error.
        `PipelineError` if it neither runs nor has failed."""
        with self._commands:
            if self.state().phase == "stopped":
                raise PipelineError("Pipeline not found")
            self._end()

    def restart(self, restart: Restart | None = None) -> None:
        """Stop it if it runs, and start it; what others ask for meanwhile is done after that.

        restart: as for `start`; None: as it was.
        """
        with self._commands:
            self._end()
            self._begin(self._restart if restart is None else restart)

    def wait_until_serving(self, timeout_s: float) -> None:
        """Return when its run answers, has ended well, or `timeout_s` have passed; `PipelineError` says
        why it failed before."""
        end_s = monotonic_s() + timeout_s
        pause = threading.Event()
        while monotonic_s() < end_s:
            with self._lock:
                phase, error = self._phase, self._error
                answers = phase == "running" and self._answers()
            if error is not None:
                raise PipelineError(error)
            if phase != "running" or answers:
                return
            pause.wait(_LOOK_S)

    # -- what it is doing -----------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether it has a process."""
        with self._lock:
            return self._seen()[0] in ("running", "stopping")

    def state(self) -> State:
        """What it is doing."""
        with self._lock:
            phase, error = self._seen()
            waits = phase == "waiting"
            answers = phase == "running" and self._answers()
            return State(
                phase=phase,
                error=error,
                pid=self._child.command_pid if self._child and phase == "running" else None,
                restart=self._restart,
                restarts=self._planned_restarts - waits,
                next_start_s=max(0.0, self._next_start_s - monotonic_s()) if waits else None,
                answers=answers,
                parts=dict(self._parts),
            )

    def _seen(self) -> tuple[Phase, str | None]:
        """What it is doing, and its error, with what its process has done since that was noted."""
        status = None if self._child is None else self._child.status
        if self._phase == "waiting" and status is None:  # it has been started again
            self._phase, self._error = "running", None
        if self._phase == "running" and status is not None:  # `_ended` is about to be called
            error = why_ended(status, list(self._lines))
            return "failed" if error else "stopped", error
        return self._phase, self._error

    # -- its process ----------------------------------------------------------------------------

    def _begin(self, restart: Restart) -> None:
        child = self._new_child()
        with self._lock:
            self._child, self._phase, self._error = child, "running", None
            self._restart, self._planned_restarts = restart, 0
            self._has_answered = False
            self._parts = {}
        try:
            child.start()
        except OSError as error:
            self._failed(f"no process can be started: {error.strerror}")
            raise PipelineError(f"no process can be started: {error.strerror}") from error
        child.keep_running(on_end=self._ended, on_failure=self._not_started)
        self._place.say(f"{self.name}: started")

    def _end(self) -> None:
        phase = self.state().phase
        if phase == "running":
            with self._lock:
                self._phase = "stopping"
        self._leave()
        if phase in ("running", "waiting"):
            self._place.say(f"{self.name}: stopped")

    def _new_child(self) -> ChildProcess:
        place, is_fleet = self._place, _has_partitions(self.path)
        options = ["--socket", str(self.socket), "--log-dir", str(place.log_dir)]
        options += ["--root-path", f"{place.root_path}/pipelines/{quote(self.name)}"]
        command = place.fleet_command if is_fleet else place.command
        return ChildProcess(
            [*command, str(self.path), *options, *(() if is_fleet else ("--plain",))],
            folder=Path.cwd(),
            name=f"flowrun-pipeline-{self.name}",
            env={} if place.token is None else {"FLOWRUN_TOKEN": place.token},
            first_pause_s=place.first_pause_s,
            patience_s=_PATIENCE_S,
            drop_stdout=not is_fleet,  # the status, again and again
            on_line=self._note_line,
        )

    def _leave(self) -> None:
        """End its process, if it has one, and let it be started no more."""
        if self._child is not None:
            self._child.stop()
        with self._lock:
            self._child, self._phase, self._error = None, "stopped", None
            self._parts = {}
        with contextlib.suppress(OSError):
            self.socket.unlink(missing_ok=True)

    def _note_line(self, line: str) -> None:
        self._lines.append(line)
        if (found := _OF_PART.fullmatch(line)) is not None:
            with self._lock:
                self._parts[found["part"]] = found["what"]
        self._place.say(f"{self.name} | {line}")

    def _ended(self, status: int, pause_s: float) -> bool:
        error = why_ended(status, list(self._lines))
        self._lines.clear()
        with self._lock:
            again = self._restart == "always" or (self._restart == "on-failure" and status != 0)
            self._phase = "waiting" if again else "stopped" if error is None else "failed"
            self._error = error
            self._has_answered = False
            self._planned_restarts += again
            self._next_start_s = monotonic_s() + pause_s
        end = "ended" if error is None else f"failed: {error.splitlines()[0]}"
        self._place.say(
            f"{self.name}: {end}" + (f"; starts again in {pause_s:g} s" if again else "")
        )
        return again

    def _not_started(self, error: OSError) -> None:
        with self._lock:
            self._phase, self._error = "waiting", f"no process can be started: {error.strerror}"

    def _failed(self, text: str) -> None:
        with self._lock:
            self._child, self._phase, self._error = None, "failed", text

    def _answers(self) -> bool:
        """Whether its server does, or did before in this run."""
        if not self._has_answered:
            with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
                client.setblocking(False)  # the socket module's own order
                client.connect(str(self.socket))
                self._has_answered = True
        return self._has_answered


def _has_partitions(path: Path) -> bool:
    """Whether a graph is one of several processes; one with mistakes, which its run lists, is none."""
    try:
        return bool(load_graph(path, env=os.environ).partitions)
    except FlowrunError:
        return False
