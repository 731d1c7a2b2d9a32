"""What signals do to the command.

| signal                  | the first time                            | the second time           |
|-------------------------|-------------------------------------------|---------------------------|
| SIGINT (Ctrl-C)         | asks for the end                          | ends the process now      |
| SIGTERM                 | the same                                  | the same                  |
| SIGHUP (terminal gone)  | the same                                  | the same                  |

A signal that was ignored when the process began stays ignored: SIGHUP under `nohup`, SIGINT for a
background job of a script.

Python calls handlers on the main thread, between two of its instructions: never while a task waits in a
library. So a thread listens as well; it can say what the process waits for, and end it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from flowrun.runtime.clock import monotonic_s
from flowrun.runtime.interrupts import Handler, Interrupted

__all__ = ["AsksFirst", "Ended", "Listener", "exit_status", "listening"]

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_MAY_BE_IGNORED = (signal.SIGINT, signal.SIGHUP)
_TICK_S = 0.25


class Ended(Interrupted):
    """A signal asks a command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_status(interrupt: KeyboardInterrupt) -> int:
    """The exit status that a shell gives a command that the signal ended."""
    return 128 + (interrupt.number if isinstance(interrupt, Ended) else signal.SIGINT)


class Listener(Protocol):
    """What is called."""

    def interrupt(self, number: int) -> None:
        """On the main thread, at each signal: may raise. Called late, or never, while the main thread
        is in a library."""
        ...

    def first(self, number: int) -> None:
        """On a thread of its own, at the first signal."""
        ...

    def waiting(self, number: int, seconds: float) -> None:
        """There too, a few times a second from the first signal on; with the seconds since then."""
        ...

    def again(self, number: int, *, is_stuck: bool) -> None:
        """There too, at each further signal.

        is_stuck: whether the main thread has not yet come to the signals before this one.
        """
        ...


class Stops:
    """A command that leaves nothing to finish: each signal raises `Ended`; the next one ends the
    process if the main thread has not come to it."""

    def interrupt(self, number: int) -> None:
        raise Ended(number)

    def first(self, number: int) -> None: ...

    def waiting(self, number: int, seconds: float) -> None: ...

    def again(self, number: int, *, is_stuck: bool) -> None:
        if is_stuck:
            os._exit(128 + number)


class AsksFirst:
    """A command that ends others in order: the first signal asks it to; the second ends it at once, and
    the others after it.

    asked: set by the first signal. name: of that signal.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.name = ""

    def interrupt(self, number: int) -> None: ...

    def first(self, number: int) -> None:
        self.name = signal.Signals(number).name
        self.asked.set()

    def waiting(self, number: int, seconds: float) -> None: ...

    def again(self, number: int, *, is_stuck: bool) -> None:
        del is_stuck
        os._exit(128 + number)


@contextmanager
def listening(listener: Listener | None = None) -> Iterator[None]:
    """Call `listener` for the signals of the table while the context is open. The main thread alone
    may do that; elsewhere this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = _Heard(Stops() if listener is None else listener)
    before = heard.begin()  # first: where the system gives no thread, nothing is changed
    handlers = {
        number: signal.signal(number, Handler(heard.on_main_thread))
        for number in _NUMBERS
        if number not in _MAY_BE_IGNORED or signal.getsignal(number) != signal.SIG_IGN
    }
    _HANDLERS.append(handlers)
    try:
        yield
    finally:
        if handlers in _HANDLERS:  # else this is a child process of a fork, which has let go of all
            signal.set_wakeup_fd(-1)
            with contextlib.suppress(OSError, ValueError):  # a task closed all that it found
                signal.set_wakeup_fd(before)
            _HANDLERS.remove(handlers)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            heard.end()


_HANDLERS: list[dict[signal.Signals, Any]] = []
"""What handled the signals before each `listening` that is open."""


def _let_go_in_child() -> None:
    """A child process of a fork, such as a worker of `multiprocessing`, ends as it would without us: its
    signals must not be heard here."""
    if _HANDLERS:
        signal.set_wakeup_fd(-1)
        for handlers in reversed(_HANDLERS):
            for number, handler in handlers.items():
                signal.signal(number, handler)
        _HANDLERS.clear()
    _go_on()


_FORKING = threading.local()


def _wait_for_fork() -> None:
    """Until the child has handlers of its own, its signals wait."""
    _FORKING.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _NUMBERS)


def _go_on() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _FORKING.mask)


os.register_at_fork(before=_wait_for_fork, after_in_parent=_go_on, after_in_child=_let_go_in_child)


class _Pipe:
    """A pipe that a task may close, as what makes a daemon of a process does; its numbers are then those
    of other files."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.writing, False)
        self._identity = os.fstat(self.reading)

    def has(self, number: int) -> bool:
        """Whether `number` is still an end of it."""
        try:
            return os.path.samestat(os.fstat(number), self._identity)
        except OSError:
            return False

    def close(self, number: int) -> None:
        """Close an end of it."""
        if self.has(number):
            os.close(number)


class _Heard:
    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._delivered = 0

    def begin(self) -> int:
        """Listen from now on; what Python had told of signals before."""
        self._pipe = _Pipe()
        self._thread = threading.Thread(
            target=self._listen, args=[self._pipe], name="flowrun-signals", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError:
            self._pipe.close(self._pipe.writing)
            self._pipe.close(self._pipe.reading)
            raise
        return signal.set_wakeup_fd(self._pipe.writing, warn_on_full_buffer=False)

    def end(self) -> None:
        """Listen no longer."""
        self._pipe.close(self._pipe.writing)
        self._thread.join()
        self._pipe.close(self._pipe.reading)

    def on_main_thread(self, number: int, _frame: object) -> None:
        self._delivered += 1
        if not self._pipe.has(self._pipe.writing):
            self.begin()
            os.write(self._pipe.writing, bytes([number]))
        self._listener.interrupt(number)

    def _listen(self, pipe: _Pipe) -> None:
        """Until the other end is closed."""
        first, count, since_s = 0, 0, 0.0
        ready = select.poll()
        ready.register(pipe.reading, select.POLLIN)
        while True:
            if not ready.poll(_TICK_S * 1000 if first else None):
                self._listener.waiting(first, monotonic_s() - since_s)
                continue
            numbers = os.read(pipe.reading, 64) if pipe.has(pipe.reading) else b""
            if not numbers:
                return
            for number in numbers:
                if number not in _NUMBERS:
                    continue
                count += 1
                if first:
                    self._listener.again(number, is_stuck=self._delivered < count - 1)
                else:
                    first, since_s = number, monotonic_s()
                    self._listener.first(number)
