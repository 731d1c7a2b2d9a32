"""Which task's code a thread of a live run is in, read from its stack: cycles pay nothing for it."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from flowrun.runtime.clock import monotonic_s
from flowrun.runtime.engine.background import reconfigure_for, run_job
from flowrun.runtime.engine.cycle import Cycle
from flowrun.runtime.engine.instances import Instance, interrupt_task, start_all, stop_all
from flowrun.runtime.engine.keyframes import freeze_task
from flowrun.runtime.engine.parallel import run_step
from flowrun.runtime.engine.policy import reconfigure, restart_task
from flowrun.runtime.task import Task

__all__ = ["Busy", "Call", "Whereabouts", "stacks", "undisturbed"]


@dataclass(frozen=True, slots=True)
class Call:
    """What the engine has called.

    task: the id of the task.
    method: the name of its method, such as "process"; "restart" for all that a restart calls.
    number: differs from that of the task's other calls of the method.
    """

    task: str
    method: str
    number: int


@dataclass(frozen=True, slots=True)
class Busy:
    """A task whose method runs.

    method: as in `Call`.
    for_s: for how long, as far as it was seen.
    """

    task: str
    method: str
    for_s: float


class Whereabouts:
    """Of the tasks of one run."""

    def __init__(self, cycle: Cycle, instances: Mapping[str, Instance]) -> None:
        self._cycle = cycle
        self._instances = instances
        self._seen: dict[tuple[int, Call], float] = {}

    def busy(self) -> list[Busy]:
        """The tasks that the engine has called, on whatever thread, the longest first. Called
        regularly, it knows for how long."""
        now = monotonic_s()
        seen: dict[tuple[int, Call], float] = {}
        with undisturbed():
            calls = {thread: self.call_in(frame) for thread, frame in stacks().items()}
        for thread, call in calls.items():
            if call is not None:
                seen[thread, call] = self._seen.get((thread, call), now)
        self._seen = seen
        busy = [Busy(call.task, call.method, now - since) for (_, call), since in seen.items()]
        return sorted(busy, key=lambda it: -it.for_s)

    def call_in(self, frame: FrameType | None) -> Call | None:
        """The call that a thread of the engine is in; None if it is in no task's.

        frame: the innermost of its stack.
        """
        cycle_codes = self._cycle.codes
        while frame is not None:
            code = frame.f_code
            if code in cycle_codes:
                return self._step_of(frame)
            if code in _CALLERS:
                made = _local(frame, "made")
                return None if made is None else self._call(made, _CALLERS[code])
            frame = frame.f_back
        return None

    def task_of(self, frame: FrameType | None) -> str | None:
        """The id of the task that the code of `frame` works for: the engine has called it, also on a
        thread of the task's own; or it is the only one of that module."""
        call = self.call_in(frame)
        if call is not None:
            return call.task
        by_task = {id(made.task): id_ for id_, made in self._instances.items()}
        while frame is not None:
            code = frame.f_code
            if code.co_argcount and not _is_runtime(frame):
                owner = frame.f_locals.get(code.co_varnames[0])
                if isinstance(owner, Task) and id(owner) in by_task:
                    return by_task[id(owner)]
            of_module = self._of_module(frame.f_globals.get("__name__"))
            if of_module is not None:
                return of_module
            frame = frame.f_back
        return None

    def _step_of(self, frame: FrameType) -> Call | None:
        at = _local(frame, "at")  # none before the first step
        if at is None:
            return None
        made = self._instances[self._cycle.plan.steps[at].task.id]
        # The step of a background task only hands over: a worker calls it.
        return None if made.bound.spec.background else self._call(made, "process")

    def _call(self, made: Instance, method: str) -> Call:
        is_job = made.bound.spec.background
        return Call(made.id, method, made.time.cycle if is_job else self._cycle.start_ns)

    def _of_module(self, name: object) -> str | None:
        ids = [
            id_
            for id_, made in self._instances.items()
            if type(made.task).__module__ == name and not str(name).startswith("flowrun.")
        ]
        return ids[0] if len(ids) == 1 else None


_looking = threading.Lock()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Look at the frames of other threads within: no garbage is collected.

    Before Python 3.12 that may happen in the middle of a look at a frame. What is collected may let the
    other threads run; a frame that has returned then is memory that something else uses, and the process
    may crash.
    """
    with _looking:
        collects = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collects:
                gc.enable()


def stacks() -> Mapping[int, FrameType]:
    """The innermost frame of each thread, by its `threading.get_ident`; to be looked at `undisturbed`.

    No local variable may hold that of the thread itself: it refers to its callers, so that all frames
    would stay, with pictures and decoders in their variables, until Python looks for such circles.
    """
    return sys._current_frames()  # noqa: SLF001  # the documented way, in spite of its name


def _local(frame: FrameType, name: str) -> Any:
    """A variable of a function of the engine that another thread may be in; None before it has a value.

    Before Python 3.13 all variables are copied into a dict that stays with the frame. At the next look
    it might be the last to refer to some, and what is freed then may let other threads run, see above.
    """
    found = frame.f_locals
    value = found.get(name)
    if isinstance(found, dict):
        found.clear()
    return value


def _code_of(function: Callable[..., object]) -> CodeType:
    return function.__code__


_CALLERS = {
    _code_of(start_all): "start",
    _code_of(run_job): "process",
    _code_of(run_step): "process",
    _code_of(reconfigure): "configure",
    _code_of(reconfigure_for): "configure",
    _code_of(freeze_task): "freeze",
    _code_of(restart_task): "restart",
    _code_of(interrupt_task): "interrupt",
    _code_of(stop_all): "stop",
}
"""What calls a method of one task, a local `made`, and which. Steps are called by the cycle itself."""


def _is_runtime(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("flowrun.runtime.")
