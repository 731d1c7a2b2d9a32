"""The messages of a run, for those who read them outside of it. A cycle waits for nobody.

All messages of an output that the log keeps are read from the log, at the reader's own pace: nothing
is left out, and nothing piles up in memory. Who only wants the newest, or reads an output that is not
logged, has a queue of bounded length: what does not fit is left out and counted.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from flowrun.msgs.message import Message
from flowrun.runtime.api.asynchronous import begun, finished
from flowrun.runtime.errors import LogError
from flowrun.runtime.log.reader import Log, LogMessage

if TYPE_CHECKING:
    from flowrun.runtime.engine.cycle import Cycle
    from flowrun.runtime.graph.plan import Slot

__all__ = ["Feeds", "Messages", "Queue", "newest_logged"]

_LOOK_S = 0.02
_WINDOWS = (64, 4096)
"""Numbers of last cycles in which the newest message is looked for, before all are."""


class Source(Protocol):
    """The run, as its readers see it."""

    @property
    def directories(self) -> tuple[Path, ...]:
        """Where its logs are, those of the past first."""
        ...

    @property
    def has_ended(self) -> bool: ...

    def check_is_here(self) -> None:
        """`UsageError` in a process that was forked from that of the run."""
        ...

    def raise_error(self) -> None:
        """Raise what has ended the run, or its log, if that was an error."""
        ...


class Queue:
    """Copies of the newest messages of an output.

    most: how many are kept.
    """

    def __init__(self, most: int) -> None:
        self._changed = threading.Condition()
        self._kept: deque[Message] = deque(maxlen=most)
        self.left_out = 0
        """Number of messages that the reader was too slow for."""
        self.is_over = False

    def offer(self, message: Message) -> None:
        with self._changed:
            if len(self._kept) == self._kept.maxlen:
                self.left_out += 1
            self._kept.append(message)
            self._changed.notify_all()

    def end(self) -> None:
        """No more messages come; those that are kept can still be taken."""
        with self._changed:
            self.is_over = True
            self._changed.notify_all()

    def take(self) -> Message | None:
        """The oldest message that is kept, waited for; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._kept or self.is_over)
            return self._kept.popleft() if self._kept else None

    def put_first(self, message: Message) -> None:
        """Keep a message from before all that are offered."""
        with self._changed:
            if not self._kept:
                self._kept.append(message)

    def look(self, timeout_s: float) -> Message | None:
        """The newest message, which stays; None if there is none within `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._kept or self.is_over, timeout_s)
            return self._kept[-1] if self._kept else None


class Feeds:
    """The queues of a run, filled after each cycle, on the cycles' thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: tuple[tuple[int, Queue], ...] = ()
        self._is_over = False

    def add(self, slot: Slot, queue: Queue) -> None:
        with self._lock:
            if self._is_over:
                queue.end()
            self._queues = (*self._queues, (slot.index, queue))

    def remove(self, queue: Queue) -> None:
        with self._lock:
            self._queues = tuple(it for it in self._queues if it[1] is not queue)
        queue.end()  # a thread may wait for its next message

    def look(self, cycle: Cycle) -> None:
        """A cycle has been committed."""
        copies: dict[int, Message] = {}
        for index, queue in self._queues:
            message = cycle.messages[index]
            if message.present:
                if index not in copies:
                    copies[index] = message.view().copy()
                queue.offer(copies[index].copy())

    def end(self) -> None:
        """The run has ended."""
        with self._lock:
            self._is_over = True
            queues = self._queues
        for _, queue in queues:
            queue.end()


class Messages(Iterator[Message]):
    """The messages of an output, as they come; ends with the run, and raises what ended it if that was
    an error. `close` ends it earlier, also from another thread; so does dropping it.

    In a coroutine, `async for` waits without holding up the event loop. What came for an iteration that
    was cancelled is given to the next one.

    output: as `task.port`.
    read: gives the messages.
    closed: makes `read` end.
    queue: where they come from, if that is no log.
    leave: the run fills the queue no more.
    """

    def __init__(
        self,
        output: str,
        read: Generator[Message],
        closed: threading.Event,
        queue: Queue | None = None,
        leave: Callable[[], object] = lambda: None,
    ) -> None:
        self._read = read
        self._closed = closed
        self._queue = queue
        self._leave = leave
        self._asked: Future[Message | None] | None = None
        self._output = output

    @classmethod
    def all_logged(cls, source: Source, slot: Slot, *, raises: bool) -> Messages:
        """All messages of an output, from the first cycle on.

        raises: whether the end raises what ended the run, if that was an error.
        """
        closed = threading.Event()
        return cls(_named(slot), _from_log(source, slot, closed, raises=raises), closed)

    @classmethod
    def newest(
        cls, source: Source, slot: Slot, feeds: Feeds, *, keep: int, raises: bool
    ) -> Messages:
        """The messages from now on; `keep` of them while the reader is busy. raises: as before."""
        queue, closed = Queue(keep), threading.Event()
        feeds.add(slot, queue)
        made = cls(_named(slot), _from_queue(source, queue, closed, raises=raises), closed, queue)
        made._leave = leave = weakref.finalize(made, feeds.remove, queue)
        leave.atexit = False
        return made

    @property
    def left_out(self) -> int:
        """Number of messages that came while the reader was busy, and are not given; 0 where all are
        read from the log."""
        return 0 if self._queue is None else self._queue.left_out

    def __repr__(self) -> str:
        return f"<messages of {self._output!r}, one after the other>"

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message:
        return next(self._read)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        if self._asked is None:
            read = self._read  # a thread that waits does not keep the iterator
            self._asked = begun(lambda: next(read, None))
        await finished(self._asked)
        asked, self._asked = self._asked, None
        message = asked.result()
        if message is None:
            raise StopAsyncIteration
        return message

    def close(self) -> None:
        """Read no more. A thread that waits for a message gets none."""
        self._closed.set()
        self._leave()
        if self._queue is not None:
            self._queue.end()
        with suppress(ValueError):  # another thread is in it, which it leaves by itself
            self._read.close()


def _named(slot: Slot) -> str:
    return f"{slot.task_id}.{slot.port}"


def _from_queue(
    source: Source, queue: Queue, closed: threading.Event, *, raises: bool
) -> Generator[Message]:
    source.check_is_here()
    while (message := queue.take()) is not None and not closed.is_set():
        yield message
        source.check_is_here()
    if raises and not closed.is_set():
        source.raise_error()


def _from_log(
    source: Source, slot: Slot, closed: threading.Event, *, raises: bool
) -> Generator[Message]:
    number = 0
    source.check_is_here()
    while not closed.is_set():
        is_over = source.has_ended  # asked before, so that no log is overlooked
        directories = source.directories
        if number == len(directories):
            if is_over:
                break
            closed.wait(_LOOK_S)  # the run may begin another log: its recording was stopped
            continue
        directory = directories[number]
        number += 1
        try:
            with Log(directory, follow=True, stopped=closed) as log:
                for logged in log.messages(slot.topic):
                    if closed.is_set():
                        return
                    yield _message_of(logged, slot)
                    source.check_is_here()
                if log.loss is not None:
                    raise LogError(log.loss)
        except LogError:
            if directory.exists():
                raise
            # No log is kept of a run whose tasks did not start.
    if raises and not closed.is_set():
        source.raise_error()


def newest_logged(directory: Path, slot: Slot) -> Message | None:
    """The last message of an output that a log holds now."""
    with Log(directory) as log:
        last = max((record.cycle for record in log.cycles()), default=-1)
        for window in (*_WINDOWS, last + 1):
            found = deque(log.messages(slot.topic, max(0, last + 1 - window)), maxlen=1)
            if found:
                return _message_of(found[0], slot)
    return None


def _message_of(logged: LogMessage, slot: Slot) -> Message:
    message = slot.message_type()
    message.restore(logged.deferred, tov_ns=logged.tov_ns)
    return message
