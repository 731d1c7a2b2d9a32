"""Work on several processes: each gets the next piece when it has done one.

A worker that dies takes one piece with it, which is reported; another takes its place. At the end, also
after Ctrl-C, all workers are ended; if this process is killed, they end by themselves.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from flowrun.runtime.errors import FlowrunError, worded
from flowrun.runtime.interrupts import Interrupted, is_users

__all__ = ["Broken", "Done", "Part", "cores", "spread"]

T = TypeVar("T")
_PATIENCE_S = 2.0
"""Seconds that a worker has to end before it is killed."""


@dataclass(frozen=True, slots=True)
class Part:
    """Something that the work on piece number `index` has sent on its way."""

    index: int
    value: Any


@dataclass(frozen=True, slots=True)
class Done:
    """What the work on piece number `index` has returned."""

    index: int
    value: Any


@dataclass(frozen=True, slots=True)
class Broken:
    """Piece number `index` has failed, and why. is_expected: whether it is an error that a user can
    mend, whose text says all."""

    index: int
    why: str
    is_expected: bool = False


Work = Callable[[T, Callable[[Any], None]], Any]
"""Called with a piece, and with a function that sends parts of the result."""


def cores() -> int:
    """The number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def spread(
    pieces: Sequence[T],
    make: Callable[[], Work[T]],
    *,
    processes: int,
) -> Iterator[Part | Done | Broken]:
    """Do the work on all `pieces`; yields what comes, as it comes.

    pieces: what can be pickled.
    make: called once in each worker process, which is a fresh one; gives the function that does the
        work, and may load what that needs. It must be pickled by its name.
    processes: the greatest number of them. Of one piece, one process is started.

    What `make` raises breaks each piece. Ending the iteration ends the workers.
    """
    waiting = list(range(len(pieces)))[::-1]
    workers: dict[Connection, _Worker] = {}
    try:
        while waiting or workers:
            while waiting and len(workers) < processes:
                worker = _Worker(make)
                workers[worker.connection] = worker
                worker.give(waiting.pop(), pieces)
            for ready in wait(list(workers)):
                assert isinstance(ready, Connection)
                worker = workers[ready]
                try:
                    event = ready.recv()
                except (EOFError, OSError):
                    event = Broken(worker.index, worker.how_it_ended())
                yield event
                if isinstance(event, Part):
                    continue
                if waiting and worker.is_alive:
                    worker.give(waiting.pop(), pieces)
                else:
                    workers.pop(ready).end()
    finally:
        for worker in workers.values():
            worker.process.terminate()
        for worker in workers.values():
            worker.end()


class _Worker:
    """A process, and the number of the piece that it works on."""

    def __init__(self, make: Callable[[], Work[Any]]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would have half of our threads
        self.connection, theirs = context.Pipe()
        self.index = -1
        self.process: BaseProcess = context.Process(
            target=_work, args=(make, theirs), name="flowrun-testbench", daemon=True
        )
        self.process.start()
        theirs.close()

    @property
    def is_alive(self) -> bool:
        return not self.connection.closed and self.process.is_alive()

    def give(self, index: int, pieces: Sequence[Any]) -> None:
        self.index = index
        with suppress(OSError):  # it has died: `wait` says so
            self.connection.send((index, pieces[index]))

    def how_it_ended(self) -> str:
        self.process.join(_PATIENCE_S)
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process ended with status {code}"

    def end(self) -> None:
        """End the process, which has nothing to do, or was asked to end."""
        self.connection.close()
        self.process.join(_PATIENCE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _work(make: Callable[[], Work[Any]], connection: Connection) -> None:
    """What a worker process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that started us
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(Interrupted, EOFError, OSError):
        _work_on(make, connection)


def _work_on(make: Callable[[], Work[Any]], connection: Connection) -> None:
    """Do the work on each piece that comes, until the connection is closed."""
    work: Work[Any] | None = None
    while True:
        index, piece = connection.recv()
        try:
            work = work or make()

            def send(value: Any, at: int = index) -> None:
                connection.send(Part(at, value))

            event: Done | Broken = Done(index, work(piece, send))
        except FlowrunError as error:
            event = Broken(index, str(error), is_expected=True)
        except BaseException as error:  # whatever the code of a task raises
            if is_users(error):
                raise
            event = Broken(index, worded(error))
        connection.send(event)


def _interrupt(_number: int, _frame: object) -> None:
    raise Interrupted


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
