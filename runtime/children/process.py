"""A command as a child process: started, watched, started again when it ends, and ended with us, also
where we are killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from flowrun.runtime.children import warden
from flowrun.runtime.clock import monotonic_s

__all__ = ["ChildProcess", "find_program", "why_unusable"]

_WARDEN = Path(warden.__file__)
_LONGEST_PAUSE_S = 30.0
_STEADY_S = 60.0
"""After a process has run for this long, the pauses before new starts begin from the shortest."""
_KEPT_LINES = 20
_PATIENCE_S = 5.0
_READ_S = 2.0
"""What has outlived a killed warden may hold the other end of its output."""
_MORE_S = 3.0
"""How much longer than the command the warden may take to end."""


def find_program(name: str, folder: Path) -> str | None:
    """The path of an executable program: a name with a slash is looked for from `folder`, any other
    on the PATH. None if there is no such program."""
    return shutil.which(str(_place(name, folder)) if "/" in name else name)


def why_unusable(name: str, folder: Path) -> str | None:
    """Why the file of program `name` cannot be run; None if it can, or if there is no such file."""
    place = _place(name, folder)
    if "/" not in name or not place.exists() or shutil.which(str(place)) is not None:
        return None
    if place.is_dir():
        return f"{place} is a folder"
    return f"{place} is not executable; chmod +x makes it so"


def _place(name: str, folder: Path) -> Path:
    return (folder / Path(name).expanduser()).absolute()  # a bare name is looked for on the PATH


class ChildProcess:
    """Runs `command` until `stop`.

    command: program and arguments.
    folder: where it runs.
    name: for the names of the threads that watch it.
    env: environment variables besides those of this process; other users cannot read them, as they
        can the arguments.
    first_pause_s: seconds to wait before the first restart; doubled each time.
    patience_s: seconds that `stop` gives the command to end: after three quarters of them it gets
        SIGTERM again, at last SIGKILL.
    drop_stdout: whether to read what the command writes to stderr alone.
    hears: whether the command reads on its standard input what `tell` says; it is empty otherwise.
    on_line: called with each line that it writes, on a thread of the process.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        name: str,
        env: Mapping[str, str] | None = None,
        first_pause_s: float = 1.0,
        patience_s: float = _PATIENCE_S,
        drop_stdout: bool = False,
        hears: bool = False,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self._command = list(command)
        self._folder = folder
        self._name = name
        self._env = dict(env or {})
        self._first_pause_s = first_pause_s
        self._patience_s = patience_s
        self._drop_stdout, self._hears = drop_stdout, hears
        self._told: list[str] = []
        self._on_line = on_line
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._life_line = -1
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._reader: threading.Thread | None = None
        self._watcher: threading.Thread | None = None

    def start(self) -> None:
        """Start the command, unless `cancel` or `stop` was called. Raises what `Popen` raises."""
        with self._lock:
            if self._stopping.is_set():
                return
            reading, self._life_line = os.pipe()
            warden_words = [str(_WARDEN), str(reading), str(self._patience_s)]
            try:
                self._process = subprocess.Popen(  # noqa: S603  # the user's own command
                    [sys.executable, "-I", "-S", *warden_words, *self._command],
                    cwd=self._folder,
                    env={**os.environ, **self._env},
                    stdin=subprocess.PIPE if self._hears else subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL if self._drop_stdout else subprocess.PIPE,
                    stderr=subprocess.PIPE if self._drop_stdout else subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    pass_fds=[reading],
                    start_new_session=True,  # Ctrl-C is for flowrun, which then ends the command
                )
            finally:
                os.close(reading)
            self._lines.clear()
            self._say(self._told)
            self._reader = threading.Thread(
                target=self._read, args=[self._process], name=self._name, daemon=True
            )
            self._reader.start()

    def keep_running(
        self, *, on_end: Callable[[int, float], bool], on_failure: Callable[[OSError], None]
    ) -> None:
        """From now on start the command again when it ends. To be called once, after `start`.

        on_end: called with the exit status and the pause in seconds before the next start, when all
            that the command wrote has been read; returns whether there is to be a next start.
        on_failure: called with the error of a start that failed.
        Both are called on the thread that watches the process.
        """
        self._watcher = threading.Thread(
            target=self._watch, args=[on_end, on_failure], name=self._name, daemon=True
        )
        self._watcher.start()

    def tell(self, line: str) -> None:
        """Say a line to the command, and to each that is started after it. From any thread."""
        with self._lock:
            self._told.append(line)
            self._say([line])

    def cancel(self) -> None:
        """Start the command no more, and end every `pause`; from any thread."""
        self._stopping.set()

    def wait(self, seconds: float) -> int | None:
        """The exit status of the command, when it has ended by itself and what it wrote has been read;
        None if it has not ended within `seconds`."""
        process, reader = self._process, self._reader
        if process is None or reader is None:
            return None
        try:
            status = _wait(process, seconds)
        except subprocess.TimeoutExpired:
            return None
        reader.join(_READ_S)
        return status

    def stop(self) -> None:
        """End the command and all that it has started."""
        self._stopping.set()
        with self._lock:
            self._cut_life_line()
            process = self._process
        if process is not None:
            try:
                _wait(process, self._patience_s + _MORE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                _wait(process)
        if self._watcher is not None:
            self._watcher.join()
        with self._lock:
            self._hush()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` or `stop` was called."""
        return self._stopping.is_set()

    @property
    def pid(self) -> int | None:
        """The process id of the warden that runs the command; None before the first start."""
        return None if self._process is None else self._process.pid

    @property
    def command_pid(self) -> int | None:
        """The process id of the command itself; None before the first start, and when it has ended."""
        if self._process is None:
            return None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        try:
            pids = children.read_text().split()
        except OSError:
            return None
        return int(pids[0]) if pids else None  # orphans that the warden adopts come after it

    @property
    def status(self) -> int | None:
        """The exit status, or None while the command runs."""
        return None if self._process is None else self._process.poll()

    @property
    def last_lines(self) -> list[str]:
        """The newest lines that the command has written, empty ones left out."""
        return [line for line in list(self._lines) if line.strip()]

    def pause(self, seconds: float) -> bool:
        """Wait, at most until `cancel` or `stop` is called; whether it was."""
        return self._stopping.wait(seconds)

    def _read(self, process: subprocess.Popen[str]) -> None:
        stream = process.stderr if self._drop_stdout else process.stdout
        assert stream is not None
        with stream:
            for line in stream:
                self._lines.append(line.rstrip())
                if self._on_line is not None:
                    self._on_line(line.rstrip())

    def _say(self, lines: Sequence[str]) -> None:
        stream = None if self._process is None else self._process.stdin
        if stream is not None and not stream.closed:
            with contextlib.suppress(OSError):  # it has ended
                stream.writelines(f"{line}\n" for line in lines)
                stream.flush()

    def _hush(self) -> None:
        """The command has ended, and hears nothing more."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):  # what was not read before it ended
                self._process.stdin.close()

    def _cut_life_line(self) -> None:
        if self._life_line >= 0:
            os.close(self._life_line)
            self._life_line = -1

    def _watch(
        self, on_end: Callable[[int, float], bool], on_failure: Callable[[OSError], None]
    ) -> None:
        pause_s = self._first_pause_s
        while True:
            assert self._process is not None
            assert self._reader is not None
            started = monotonic_s()
            status = _wait(self._process)
            self._reader.join(_READ_S)
            with self._lock:
                self._cut_life_line()
                self._hush()
            if self._stopping.is_set():
                return
            if monotonic_s() - started > _STEADY_S:
                pause_s = self._first_pause_s
            if not on_end(status, pause_s) or self.pause(pause_s):
                return
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            try:
                self.start()
            except OSError as error:
                on_failure(error)


def _wait(warden: subprocess.Popen[str], seconds: float | None = None) -> int:
    """The exit status of a warden, once it has ended; if it was killed, what it has left is killed too.
    `TimeoutExpired` after `seconds`."""
    status = warden.wait(seconds)
    if status < 0:
        _kill_session(warden.pid)
    return status


def _kill_session(session: int) -> None:
    """SIGKILL to all processes of a session, also to those that they start meanwhile."""
    killed: set[int] = set()
    while found := {pid for pid in _pids() if _session_of(pid) == session} - killed:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed |= found


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _session_of(pid: int) -> int | None:
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(pid)
    return None
