"""stdout and stderr while a graph runs: what is printed is queued, and one thread writes it.

A cycle that prints or logs a line never waits: not for a pipe whose reader does not read, not for a
terminal that was stopped with Ctrl-S, not for a slow disk. An output that takes nothing costs a bounded
amount of memory and no error: the run is not what failed. The thread also owns the live display, since
two threads would mix their lines and leave parts of its table on the screen.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import math
import os
import select
import stat
import sys
import threading
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

from flowrun.runtime.descriptor import Descriptor
from flowrun.runtime.printing import print_text

__all__ = ["Display", "LogLines", "Outlet", "Terminal", "can_draw"]

_REFRESH_S = 0.25
_ROOM = 8 << 20
"""Bytes that wait for one output at most, besides the last piece."""
_MOMENT_S = 0.05
_SOON = 64 << 10
"""Bytes that are not left to wait for the next refresh."""
_PIECE = select.PIPE_BUF
"""A pipe that is ready takes this many bytes without blocking."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LAST_S = 2.0
"""Seconds that the end of a run waits for an output that takes nothing more."""
_FIRST_FD = 3


def _copy(fd: int) -> Descriptor:
    return Descriptor(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FD))


class Display(Protocol):
    """What the thread shows besides that which is printed. All is called on that thread."""

    def begin(self) -> None: ...
    def end(self) -> None: ...

    def tick(self) -> None:
        """Called a few times a second between `begin` and `end`; may print."""
        ...

    def above(self, text: str) -> None:
        """Write whole lines to the terminal above a table that stays there."""
        ...

    @property
    def is_live(self) -> bool:
        """Whether there is such a table."""
        ...


class Outlet:
    """One output of the process, as a queue.

    fd: where it writes, on a descriptor of its own: a task that closes 1, or all from 3 on, does not
        have the next file that is opened filled with our lines.
    """

    def __init__(self, fd: int, *, wake: Callable[[], None] = lambda: None) -> None:
        self._given = fd
        self._copy = _copy(fd)
        self.is_terminal = os.isatty(fd)
        self.left_out = 0
        """Number of lines that were left out since the last note of that."""
        self.written = 0
        self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self._wake = wake
        self._lock = threading.RLock()
        self._taken = threading.Condition(self._lock)
        self._is_stalled = False
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._is_gone = False

    @property
    def fd(self) -> int:
        """The descriptor. `OSError` where a task has closed it, and that of which it is a copy."""
        if not self._copy.is_open:
            again = _copy(self._given)
            if again.identity == self._copy.identity:
                self._copy = again
            else:
                again.close()
        return self._copy.number

    @property
    def identity(self) -> tuple[int, int]:
        """Device and number of what it writes to."""
        return self._copy.identity

    def put(self, data: bytes) -> None:
        """Queue `data`. Where too much waits already, an output that takes it in a moment is given that
        moment; for one that does not, `data` is left out, and so is what comes until it has taken half
        of what waits."""
        with self._lock:
            if self._is_gone:
                return
            if self._size >= _ROOM and not self._is_stalled:
                self._wake()
                self._is_stalled = not self._taken.wait_for(self._has_room, _MOMENT_S)
            if self._is_stalled and self._size >= _ROOM // 2:
                self.left_out += data.count(b"\n")
                return
            self._is_stalled = False
            if self.left_out:
                data = b"(%d lines left out: nobody read them)\n%b" % (self.left_out, data)
                self.left_out = 0
            self._pieces.append(data)
            self._size += len(data)
            is_much = self._size >= _SOON
        if is_much:
            self._wake()

    def take(self) -> bytes:
        """All that waits, for somebody else to write."""
        with self._lock:
            taken = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            self._taken.notify_all()
        return taken

    def _has_room(self) -> bool:
        return self._size < _ROOM

    def send(self, *, idle_s: float, at_most_s: float) -> bool:
        """Write what waits, as far as the output takes it; False if some is left. One thread at a time.

        idle_s: how long to wait while it takes nothing.
        at_most_s: when to stop, whatever it takes.
        """
        end = time.monotonic() + at_most_s
        rest = memoryview(b"")
        try:
            while rest or self._size:
                if time.monotonic() > end or not self._is_ready(idle_s):
                    return False
                rest = rest or memoryview(self.take())
                rest = rest[self._write(rest) :]
        except BlockingIOError:
            return False
        except OSError as error:
            rest = memoryview(b"")
            with self._lock:
                self._is_gone = error.errno not in _FULL
                self.take()
        finally:
            if rest:
                with self._lock:
                    self._pieces.appendleft(bytes(rest))
                    self._size += len(rest)
        return True

    def write_now(self, data: bytes) -> None:
        """Write past the queue, unless the output takes nothing. One thread at a time."""
        while data and not self._is_gone and self._is_ready(_REFRESH_S):
            data = data[self._write(data) :]

    def close(self) -> None:
        with self._lock:
            self._is_gone = True
        self._copy.close()

    def _write(self, data: bytes | memoryview) -> int:
        count = os.write(self.fd, data if self._is_file else data[:_PIECE])
        self.written += count
        return count

    def _is_ready(self, timeout_s: float) -> bool:
        if self._is_file:
            return True
        ready = select.poll()
        ready.register(self.fd, select.POLLOUT)
        return bool(ready.poll(timeout_s * 1000))


class _Raw(io.RawIOBase):
    """The bytes of a stream on their way to its outlet, or to `stream` once that is closed."""

    def __init__(self, outlet: Outlet, stream: TextIO) -> None:
        self.outlet: Outlet | None = outlet
        self._stream = stream
        self.name = getattr(stream, "name", "<output>")

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        outlet = self.outlet
        if outlet is not None:
            outlet.put(bytes(data))
            return len(data)
        written: int = self._stream.buffer.write(data)
        return written

    def flush(self) -> None:
        if self.outlet is None and not self._stream.closed:
            self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()


class _Stream(io.TextIOWrapper):
    """A stream that stays open whatever a task does to it: the run has something to say at its end."""

    def close(self) -> None: ...


class Terminal:
    """Takes the place of `sys.stdout` and `sys.stderr` while the context is open.

    Streams that are not the process's own, as in a test that captures them, are left alone.
    """

    def __init__(self) -> None:
        self._outlets: list[Outlet] = []
        self._raws: list[_Raw] = []
        self._before = sys.stdout, sys.stderr
        self.stdout: TextIO = sys.stdout
        self.stderr: TextIO = sys.stderr
        self._wanted: Display | None = None
        self._display: Display | None = None
        self._unfinished: dict[Outlet, str] = {}
        self._shown = threading.Event()
        self._woken = threading.Event()
        self._ending = threading.Event()
        self._ended = threading.Event()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._work, name="flowrun-terminal", daemon=True)

    def __enter__(self) -> Self:
        self._before = sys.stdout, sys.stderr
        self._thread.start()  # first: where the system gives no thread, nobody would write what waits
        sys.stdout = self.stdout = self._queued(sys.stdout)
        sys.stderr = self.stderr = self._queued(sys.stderr)
        os.register_at_fork(after_in_child=self._let_go_in_child)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()
        if os.getpid() == self._pid:
            self._let_go()

    def show(self, display: Display | None) -> None:
        """Call `display` from now on; None calls none. What was printed before comes before it, and what
        is printed later after its end."""
        self._wanted = display
        self._shown.clear()
        self._woken.set()
        if threading.current_thread() is not self._thread:
            self._shown.wait(_REFRESH_S * 4)

    def take_back(self) -> None:
        """Print to `stdout` and `stderr` again, whatever a task made of those of `sys`."""
        sys.stdout, sys.stderr = self.stdout, self.stderr

    @property
    def screen(self) -> Outlet | None:
        """The terminal that stdout is; None if it is none."""
        raw = self._raws[0] if self._raws else None
        outlet = None if raw is None else raw.outlet
        return outlet if outlet is not None and outlet.is_terminal else None

    def end(self) -> None:
        """Write all that was printed, as far as the outputs go on taking it. From any thread."""
        self._ending.set()
        self._woken.set()
        if threading.current_thread() is not self._thread:
            written = -1
            while not self._ended.wait(2 * _LAST_S) and written != self._written:
                written = self._written

    # -- the thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._ending.is_set():
            self._woken.wait(_REFRESH_S)
            self._woken.clear()
            self._tick()
            self._write()
        self._wanted = None
        self._tick()
        self._write(idle_s=_LAST_S, at_most_s=math.inf)
        self._ended.set()

    @property
    def _written(self) -> int:
        return sum(outlet.written for outlet in self._outlets)

    def _tick(self) -> None:
        before, now = self._display, self._wanted
        try:
            if now is not before:
                if before is not None:
                    self._write()
                    self._display = None
                    before.end()
                self._write()
                self._display = now
                if now is not None:
                    now.begin()
                self._shown.set()
            elif now is not None:
                now.tick()
        except OSError:  # it wrote to an output that is gone
            self._shown.set()
        except Exception as error:  # noqa: BLE001  # lines are still to be written, the run goes on
            self._wanted = self._display = None
            self._shown.set()
            print_text(f"the display of the run has failed: {error!r}", file=self.stderr)

    def _write(self, *, idle_s: float = _MOMENT_S, at_most_s: float = _REFRESH_S) -> None:
        display = self._display
        for outlet in self._outlets:
            if display is not None and display.is_live and outlet.is_terminal:
                self._write_above(display, outlet)
            else:
                with contextlib.suppress(OSError):
                    outlet.write_now(self._unfinished.pop(outlet, "").encode(errors="replace"))
                outlet.send(idle_s=idle_s, at_most_s=at_most_s)

    def _write_above(self, display: Display, outlet: Outlet) -> None:
        """Whole lines only: the table comes right after them."""
        text = self._unfinished.pop(outlet, "") + outlet.take().decode(errors="replace")
        lines, newline, rest = text.rpartition("\n")
        if rest:
            self._unfinished[outlet] = rest
        if newline:
            with contextlib.suppress(OSError):
                display.above(lines)

    # -- the streams -----------------------------------------------------------------------------

    def _queued(self, stream: TextIO) -> TextIO:
        try:
            outlet = Outlet(stream.fileno(), wake=self._woken.set)
        except (AttributeError, OSError, ValueError):  # not the process's own, or closed
            return stream
        for known in self._outlets:
            if known.identity == outlet.identity:  # one terminal: its lines keep their order
                outlet.close()
                outlet = known
                break
        else:
            self._outlets.append(outlet)
        with contextlib.suppress(OSError):
            stream.flush()
        raw = _Raw(outlet, stream)
        self._raws.append(raw)
        return _Stream(
            raw,  # a raw stream does, since nothing is held back
            encoding=stream.encoding,
            errors=stream.errors,
            write_through=True,
        )

    def _let_go(self) -> None:
        sys.stdout, sys.stderr = self._before
        for raw in self._raws:
            raw.outlet = None
        if self._ended.is_set():  # otherwise the thread still writes
            for outlet in self._outlets:
                outlet.close()

    def _let_go_in_child(self) -> None:
        """What a child process of a task prints goes where it would have gone: no thread of ours is
        there to write it."""
        if not self._ended.is_set():
            sys.stdout, sys.stderr = self._before
            for raw in self._raws:
                raw.outlet = None


class LogLines:
    """Where the lines of a run's log are shown."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        """Whether they are coloured; see https://no-color.org."""
        return self._stream.isatty() and not os.environ.get("NO_COLOR") and _has_commands()


def can_draw() -> bool:
    """Whether stdout is a terminal that moves its cursor."""
    return sys.stdout.isatty() and _has_commands()


def _has_commands() -> bool:
    return os.environ.get("TERM", "dumb") not in {"", "dumb", "unknown"}
