"""A run on a thread of its own: watched, changed and ended by the program that started it."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

from flowrun.msgs.display import html_fields, html_table
from flowrun.msgs.message import Message
from flowrun.runtime.api.asynchronous import on_a_thread
from flowrun.runtime.api.node import End, Node
from flowrun.runtime.api.received import Feeds, Messages, Queue, newest_logged
from flowrun.runtime.clock import LiveClock, monotonic_s
from flowrun.runtime.errors import UsageError, text_of
from flowrun.runtime.graph.find import importable
from flowrun.runtime.graph.plan import Plan, Slot
from flowrun.runtime.log.directory import new_run_directory
from flowrun.runtime.log.reader import Log
from flowrun.runtime.places import place_of
from flowrun.runtime.printing import print_text
from flowrun.runtime.run.live import Run, RunResult
from flowrun.runtime.run.report import RunReport
from flowrun.runtime.wording import listed, mask_secrets, nearest

if TYPE_CHECKING:
    from flowrun.runtime.server.serve import Server

__all__ = ["LiveRun", "running"]

_ATTEND_S = 0.5
_SAY_AFTER_S = 5.0
_EXIT_S = 10.0
"""Seconds that the end of the program waits for its runs, before their logs are finished without."""
_KEPT = 1024
_KEPT_ARRAYS = 16
"""Number of messages that are kept for a reader of an output that is not logged, of a class without
arrays and of one with."""


class LiveRun:
    """A run that goes on by itself, until its sources end, somebody stops it, or the program ends.

    with graph.start() as run:
        for answer in run.messages("inference.answer"):
            print(answer.response)

    Leaving the `with` block stops the run, and waits for its end. Its tasks run on threads of the run.
    All methods may be called from any thread.

    In a coroutine: `async with`, `async for`, and `await run` for what `wait` returns.

    Where a method takes a task or an output, it takes what `Graph.add` returned, too: `run.set(cap,
    prompt="cap de")`, `run.messages(cap.answer)`.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        cycles: int | None = None,
        log_dir: str | Path | None = "runs",
        port: int | None = None,
        notes: list[str] | None = None,
        before_start: Callable[[LiveRun], None] = lambda _: None,
    ) -> None:
        """As `Graph.start`.

        notes: what is to be logged at the beginning: why the run cannot be replayed.
        before_start: called with the run before its first cycle.
        """
        if cycles is not None and (not isinstance(cycles, int) or cycles < 0):
            raise UsageError(f"cycles={cycles!r}: expected a number of cycles, 0 or more, or None")
        if port is not None and not isinstance(port, int):
            raise UsageError(f"port={port!r}: expected a number, 0 for a free port, or None")
        self._plan = plan
        self._cycles = cycles
        self._pid = os.getpid()
        clock = LiveClock()
        directory = None
        if log_dir is not None:
            stamp = datetime.fromtimestamp(clock.now_ns() / 1e9, UTC).strftime("%Y%m%dT%H%M%SZ")
            directory = new_run_directory(Path(log_dir), f"{plan.graph.spec.name}-{stamp}")
        self._exits = ExitStack()
        self._server: Server | None = None
        try:
            self._exits.enter_context(importable(plan.graph.spec.path.parent))
            self._run = Run(plan, clock=clock, directory=directory)
            self._exits.enter_context(self._run.discarded_unless_run())
            if port is not None:
                self._server = self._serve(port)
            for note in notes or ():
                self._run.log.warning("`flowrun replay` cannot run this again by itself", why=note)
            self._feeds = Feeds()
            self._run.watch(self._feeds.look)
            self._latest: dict[int, Queue] = {}
            self._lock = threading.Lock()
            self._callbacks: list[_Callback] = []
            self._result: RunResult | None = None
            self._failure: BaseException | None = None
            self._has_ended = threading.Event()
            self._is_waited_for = False
            self._thread = threading.Thread(
                target=self._work, name=f"flowrun-{self.name}", daemon=True
            )
            before_start(self)
            _keep(self)
            self._thread.start()
        except BaseException:
            if hasattr(self, "_thread") and self._thread.ident is not None:
                self._run.stop("interrupted")  # Ctrl-C, once the thread had begun
                raise
            _live.discard(self)
            self._exits.close()
            if self._server is not None:
                self._server.stop()
            if directory is not None and directory.is_dir() and not any(directory.iterdir()):
                directory.rmdir()
            raise

    # -- of the run ----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """That of the graph."""
        return self._run.name

    @property
    def directory(self) -> Path | None:
        """Where its log is, the last one if it was stopped and begun again; None for a run without."""
        return self._run.directory

    @property
    def directories(self) -> tuple[Path, ...]:
        """Where all its logs are: one, unless `record` has stopped it and begun another."""
        return self._run.directories

    @property
    def url(self) -> str | None:
        """Where its page is; None if it is not served."""
        return None if self._server is None else self._server.url

    @property
    def outputs(self) -> list[str]:
        """The outputs of its tasks, as `task.port`."""
        return [f"{slot.task_id}.{slot.port}" for slot in self._plan.slots]

    @property
    def has_ended(self) -> bool:
        """Whether its last cycle has run, and its log is finished."""
        return self._has_ended.is_set()

    @property
    def log(self) -> Log:
        """Its log, opened; also while the run goes on. `UsageError` for a run without."""
        if self.directory is None:
            raise UsageError("the run keeps no log")
        return Log(self.directory)

    def report(self) -> RunReport:
        """How it is doing: cycles, rates, and each task's state, errors and latencies."""
        return self._run.report()

    def settings(self) -> dict[str, dict[str, Any]]:
        """Task id -> the values in force of the keys that may change while it runs."""
        return self._run.settings()

    def set(self, task: str | Node, /, **values: Any) -> None:
        """Change values of a task's config that may change while it runs, at the next cycle. The log
        has the change, and a replay makes it at the same cycle. `UsageError` names a wrong key or value.
        """
        self.check_is_here()
        self._check_goes_on()
        self._run.set_live(_named(task), values)

    def pause(self, source: str | Node | None = None) -> None:
        """From the next cycle on nothing comes from a source, or from any. A file waits where it is; a
        live source stays connected, and drops what comes. `UsageError` for a task that is no source."""
        self._switch(source, self._run.pause)

    def resume(self, source: str | Node | None = None) -> None:
        """End what `pause` began."""
        self._switch(source, self._run.resume)

    def record(self, on: bool) -> bool:  # noqa: FBT001
        """Stop the log, or begin another; False if it is so already. See `Run.record`."""
        self.check_is_here()
        return self._run.record(on)

    def stop(self) -> None:
        """Ask the run to end after the cycle that runs, and return; `wait` waits for the end. Also from
        a callback and from a task."""
        self.check_is_here()
        self._run.stop("stop()")

    def wait(self, timeout_s: float | None = None) -> RunResult:
        """Wait for the end of the run, and until callbacks have had all messages; says how it ended.

        Raises what ended it: `TaskError` names the task, and has what the task raised as its cause;
        what a callback raised comes as it is; `TimeoutError` if it goes on after `timeout_s`.

        Ctrl-C asks the run to end, as in `flowrun GRAPH`: `wait` then returns as usual, with the reason
        "SIGINT". A second Ctrl-C finishes the log at once and raises KeyboardInterrupt.
        """
        self.check_is_here()
        me = threading.current_thread()
        if me is self._thread:
            raise UsageError("a task cannot wait for the end of its own run; `stop` asks for it")
        try:
            self._is_waited_for = True
            self._wait(me, timeout_s)
        except KeyboardInterrupt:
            self._run.stop("SIGINT")
            try:
                self._wait(me, timeout_s)
            except KeyboardInterrupt:
                if not self.has_ended:
                    self._give_up("SIGINT")
                raise
        self.raise_error()
        assert self._result is not None
        return self._result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        if self._pid != os.getpid():
            return
        if not self.has_ended:
            self._run.stop("the program left its `with` block")
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            if failure is not error:
                error.add_note(f"the run ended with an error, too: {text_of(failure)}")

    def __await__(self) -> Generator[Any, None, RunResult]:
        return on_a_thread(self.wait).__await__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        await on_a_thread(partial(self.__exit__, kind, error, traceback))

    # -- its messages --------------------------------------------------------------------------

    def messages(self, output: str | Node | End, *, keep: int | None = None) -> Messages:
        """The messages of `task.port`, or of the only output of `task`: to iterate over while the run
        goes on. Ends with the run, and raises what ended it if that was an error.

        keep: None gives all messages since the run began, read from its log at your own pace: none is
            left out, and the run waits for nobody. A number gives those that come from now on; that
            many are kept while you are busy, 1 for the newest only, and `left_out` counts the others.

        Of a run without a log, or an output that is not logged, 1024 messages are kept, 16 of those
        with arrays. Each call gives an iterator of its own. The messages are yours.
        """
        return self._messages(output, keep, raises=True)

    def on_message(
        self,
        output: str | Node | End,
        call: Callable[[Any], object],
        *,
        keep: int | None = None,
        on_error: Literal["stop", "skip"] = "stop",
    ) -> Callable[[], None]:
        """Call `call(message)` for each message of an output, on a thread of its own, one after the
        other; returns a function that ends this. A slow or stuck `call` holds up nobody but `wait`.

        keep: as in `messages`.
        on_error: what follows if `call` raises. stop: the run ends, and `wait` raises the same. skip: it
            is logged, and the next message comes.
        """
        if on_error not in ("stop", "skip"):
            raise UsageError(f"on_error={on_error!r}: expected 'stop' or 'skip'")
        if not callable(call):
            raise UsageError(
                f"expected a function that is called with each message; got {call!r:.60}"
            )
        callback = _Callback(
            self, _named(output), call, self._messages(output, keep, raises=False), on_error
        )
        with self._lock:
            self._callbacks.append(callback)
        callback.thread.start()
        return callback.end

    def latest(self, output: str | Node | End, *, timeout_s: float = 0.0) -> Message | None:
        """The newest message of an output, as a copy; None if there is none yet within `timeout_s`."""
        self.check_is_here()
        slot = self._slot(output)
        with self._lock:
            queue = self._latest.get(slot.index)
            if queue is None:
                queue = Queue(1)
                self._feeds.add(slot, queue)
                if self.directory is not None and slot.logged and slot.payload:
                    before = newest_logged(self.directory, slot)
                    if before is not None:
                        queue.put_first(before)
                self._latest[slot.index] = queue
        found = queue.look(timeout_s)
        return None if found is None else found.copy()

    if not TYPE_CHECKING:  # to a checker it has none of these

        def __iter__(self) -> NoReturn:
            outputs = self.outputs
            text = (
                f"iterate over one of its outputs: run.messages({outputs[-1]!r})" if outputs else ""
            )
            raise TypeError(f"a run has no messages of its own; {text}; outputs: {listed(outputs)}")

        __aiter__ = __iter__

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a run stays in the process that has started it; its log can be read anywhere"
        )

    def __repr__(self) -> str:
        return f"<run of {self.name!r}: {self._said_state()}>"

    def _repr_html_(self) -> str:
        report = self.report()
        shown = {
            "state": self._said_state(),
            "cycles": report.cycles,
            "page": self.url or "",
            "log": "" if self.directory is None else str(self.directory),
        }
        rows = [
            (name, it.type, it.state or "", it.p50_us or "") for name, it in report.tasks.items()
        ]
        fields = {name: value for name, value in shown.items() if value != ""}
        return html_fields(self.name, fields) + html_table(
            "", ["task", "type", "state", "p50_us"], rows
        )

    def _said_state(self) -> str:
        if not self.has_ended:
            return "goes on"
        if self._failure is not None:
            return f"ended by {type(self._failure).__name__}"
        reason = "" if self._result is None else self._result.reason
        return f"ended by {reason}"

    # -- for its readers -----------------------------------------------------------------------

    def check_is_here(self) -> None:
        """`UsageError` in a process that was forked from that of the run."""
        if self._pid != os.getpid():
            raise UsageError(
                "the run goes on in the process that has started it, and not in its fork"
            )

    def raise_error(self) -> None:
        """Raise what has ended the run, or its log, if that was an error."""
        self._is_waited_for = True
        if self._failure is not None:
            raise self._failure
        if self._result is not None and (error := self._result.error or self._result.log_error):
            raise error

    def fail(self, error: BaseException) -> None:
        """End the run because a callback has raised `error`."""
        if self._failure is None:
            self._failure = error
        self._run.stop(f"a callback raised {type(error).__name__}")

    def note(self, text: str, error: BaseException) -> None:
        """Log the error of a callback."""
        self._run.log.error(text, raised=error)

    # -- inside --------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            attending = threading.Thread(
                target=self._attend, name=f"flowrun-{self.name}-attend", daemon=True
            )
            attending.start()
            with self._exits:
                self._result = self._run.run(cycles=self._cycles)
        except BaseException as error:  # noqa: BLE001  # `wait` raises it
            self._failure = self._failure or error
        finally:
            self._feeds.end()
            if self._server is not None:
                self._server.stop()
            _live.discard(self)
            self._has_ended.set()
            self._tell()

    def _give_up(self, reason: str) -> None:
        """Finish the log while a task does not come back."""
        self._result = self._run.end_now(reason)
        self._feeds.end()
        self._has_ended.set()
        _live.discard(self)

    def _tell(self) -> None:
        """Print what has ended the run, unless somebody waits for it."""
        error = self._failure or (self._result.error if self._result else None)
        if error is not None and not self._is_waited_for:
            text = mask_secrets(text_of(error), self._plan.graph.spec.secrets)
            place = place_of(error.__cause__ or error)
            print_text(
                f"{self.name}: error: {text}" + ("" if place is None else f"\n  at {place}"),
                file=sys.stderr,
            )

    def _attend(self) -> None:
        while not self._has_ended.wait(_ATTEND_S):
            self._run.attend()

    def _serve(self, port: int) -> Server:
        from flowrun.runtime.server.serve import Server

        return Server.start(self._run, port=port)

    def _wait(self, me: threading.Thread, timeout_s: float | None) -> None:
        until = None if timeout_s is None else monotonic_s() + timeout_s
        if not self._has_ended.wait(timeout_s):
            raise TimeoutError(f"the run goes on after {timeout_s:g} s")
        said_s = monotonic_s() + _SAY_AFTER_S
        with self._lock:
            callbacks = [it for it in self._callbacks if it.thread is not me]
        for callback in callbacks:
            while callback.thread.is_alive():
                callback.thread.join(_ATTEND_S)
                if until is not None and monotonic_s() > until:
                    raise TimeoutError(f"{callback} goes on after {timeout_s:g} s")
                if monotonic_s() > said_s:
                    said_s += _SAY_AFTER_S
                    print_text(f"{self.name}: waiting for {callback}", file=sys.stderr)

    def _switch(self, source: str | Node | None, switch: Callable[[str], bool]) -> None:
        self.check_is_here()
        self._check_goes_on()
        if source is not None:
            switch(_named(source))
            return
        sources = [step.task.id for step in self._plan.steps[: self._plan.source_count]]
        going = [id_ for id_ in sources if self._run.executor.states[id_][0] != "ended"]
        for id_ in going:
            switch(id_)

    def _check_goes_on(self) -> None:
        if self.has_ended:
            raise UsageError("the run has ended")

    def _messages(self, output: str | Node | End, keep: int | None, *, raises: bool) -> Messages:
        self.check_is_here()
        if threading.current_thread() is self._thread:
            raise UsageError(
                "a task cannot read the messages of its own run; connect it to the output"
            )
        slot = self._slot(output)
        if keep is not None and (type(keep) is not int or keep < 1):
            raise UsageError(f"keep={keep!r}: expected a whole number of at least 1, or None")
        if keep is None and self.directory is not None and slot.logged and slot.payload:
            return Messages.all_logged(self, slot, raises=raises)
        most = _KEPT_ARRAYS if slot.message_type.array_fields else _KEPT
        return Messages.newest(self, slot, self._feeds, keep=keep or most, raises=raises)

    def _slot(self, output: str | Node | End) -> Slot:
        name = _named(output)
        said = name.removeprefix("/").replace("/", ".")  # a topic of the log
        slots = self._plan.slots
        own = [it for it in slots if said in (f"{it.task_id}.{it.port}", it.task_id)]
        if len(own) != 1:
            known = self.outputs
            raise UsageError(
                f"unknown output {name!r}; outputs: {listed(known)}{nearest(said, known)}"
            )
        return own[0]

    def end_at_exit(self, until_s: float) -> None:
        """End the run, since the program ends; `until_s`: when its log is finished without its tasks."""
        self._run.stop("the program ended")
        self._has_ended.wait(max(0.0, until_s - monotonic_s()))
        if not self.has_ended:
            self._give_up("the program ended")

    def leave_fork(self) -> None:
        """In a forked process."""
        self._thread = threading.Thread()
        self._callbacks.clear()


def _named(given: str | Node | End) -> str:
    """What a graph file calls a task, or an output of it."""
    return given.id if isinstance(given, Node) else str(given)


class _Callback:
    """A function that is called with messages, on a thread."""

    def __init__(
        self,
        run: LiveRun,
        output: str,
        call: Callable[[Any], object],
        messages: Messages,
        on_error: str,
    ) -> None:
        self._run = run
        self._call = call
        self._messages = messages
        self._on_error = on_error
        self._is_over = False
        self._name = f"{getattr(call, '__qualname__', repr(call))} of {output!r}"
        self.thread = threading.Thread(
            target=self._work, name=f"flowrun-callback-{output}", daemon=True
        )

    def __str__(self) -> str:
        return f"callback {self._name}"

    def end(self) -> None:
        """Call no more. A call that runs goes on."""
        self._is_over = True
        self._messages.close()

    def _work(self) -> None:
        try:
            for message in self._messages:
                if self._is_over:
                    return
                self._call_with(message)
        except BaseException as error:  # noqa: BLE001  # whatever the program raises, or its log
            error.add_note(f"in {self}")
            self._run.fail(error)

    def _call_with(self, message: Message) -> None:
        try:
            self._call(message)
        except BaseException as error:
            if self._on_error == "stop":
                raise
            self._run.note(f"{self} has failed", error)


_live: set[LiveRun] = set()
"""The runs that have not ended: they go on though nobody holds them."""


def running() -> list[LiveRun]:
    """The runs of this process that have not ended, such as one whose handle was lost in a notebook."""
    return sorted(_live, key=lambda run: run.name)


def _keep(run: LiveRun) -> None:
    """Keep the run until it has ended, and end it before Python ends, while its threads still work."""
    _live.add(run)
    _watch_the_process()


def _end_all() -> None:
    until_s = monotonic_s() + _EXIT_S
    for run in list(_live):
        run.end_at_exit(until_s)


def _leave_fork() -> None:
    for run in _live:
        run.leave_fork()
    _live.clear()


@cache
def _watch_the_process() -> None:
    os.register_at_fork(after_in_child=_leave_fork)
    # What is registered with `atexit` runs after Python has waited for all other threads, and has
    # ended those of `concurrent.futures`, which a task may use until its run ends.
    register = getattr(threading, "_register_atexit", atexit.register)
    register(_end_all)
