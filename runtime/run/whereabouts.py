"""Which task's code a thread is in, read from its stack: live cycles pay nothing for it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import CodeType, FrameType

from flowrun.runtime.clock import monotonic_s
from flowrun.runtime.engine.instances import Instance
from flowrun.runtime.task import Task

__all__ = ["Busy", "Whereabouts"]

_METHODS = (
    "__init__",
    "start",
    "process",
    "configure",
    "freeze",
    "thaw",
    "interrupt",
    "stop",
)


@dataclass(frozen=True, slots=True)
class Busy:
    """A task whose method runs.

    method: its name, such as "process".
    for_s: for how long, as far as it was seen.
    """

    task: str
    method: str
    for_s: float


class Whereabouts:
    """Of the tasks of one run.

    instances: the tasks by id; may be filled later.
    """

    def __init__(self, instances: Mapping[str, Instance]) -> None:
        self._instances = instances
        self._codes: dict[CodeType, list[str]] = {}
        self._seen: dict[tuple[int, str, str, object], float] = {}

    def busy(self, moment: object) -> list[Busy]:
        """The tasks whose methods run now, on whatever thread, the longest first. Called regularly, it
        knows for how long.

        moment: the same as in the last call if no cycle has begun since.
        """
        now = monotonic_s()
        seen: dict[tuple[int, str, str, object], float] = {}
        for thread, frame in sys._current_frames().items():  # noqa: SLF001  # as its docs say
            found = self._in_method(frame)
            if found is not None:
                made = self._instances[found[0]]
                of = made.time.cycle if made.bound.spec.background else moment
                key = thread, *found, of
                seen[key] = self._seen.get(key, now)
        self._seen = seen
        busy = [Busy(key[1], key[2], now - since) for key, since in seen.items()]
        return sorted(busy, key=lambda it: -it.for_s)

    def task_of(self, frame: FrameType | None) -> str | None:
        """The id of the task that the code of `frame` works for: one of whose methods is in the stack,
        also on a thread of the task's own; or the only one of that module."""
        found = self._in_method(frame)
        if found is not None:
            return found[0]
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

    def _in_method(self, frame: FrameType | None) -> tuple[str, str] | None:
        if not self._codes:
            self._note_codes()
        while frame is not None:
            ids = self._codes.get(frame.f_code)
            if ids is not None:
                owner = ids[0] if len(ids) == 1 else self._owner(frame)
                if owner is not None:
                    return owner, frame.f_code.co_name
            frame = frame.f_back
        return None

    def _owner(self, frame: FrameType) -> str | None:
        names = frame.f_code.co_varnames
        owner = frame.f_locals.get(names[0]) if names else None
        return next((id_ for id_, made in self._instances.items() if made.task is owner), None)

    def _of_module(self, name: object) -> str | None:
        ids = [
            id_
            for id_, made in self._instances.items()
            if type(made.task).__module__ == name and not str(name).startswith("flowrun.")
        ]
        return ids[0] if len(ids) == 1 else None

    def _note_codes(self) -> None:
        for id_, made in self._instances.items():
            for name in _METHODS:
                method = getattr(type(made.task), name, None)
                if method is None or getattr(Task, name, None) is method:
                    continue
                for function in (method, inspect.unwrap(method)):
                    code = getattr(function, "__code__", None)
                    if code is not None and id_ not in self._codes.setdefault(code, []):
                        self._codes[code].append(id_)


def _is_runtime(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("flowrun.runtime.")
