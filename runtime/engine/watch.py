"""Finds tasks that change a message after it was published, or keep an input beyond their call.

An input is read-only and valid until `process` returns. Lists, dicts and NumPy arrays refuse a change
themselves; but a tensor that shares an array's memory, an older view of an array, or C code do not. And
a message that a task keeps will show the messages of later cycles, since slots are used again.

`MessageWatch` is what `--debug-messages` does: it hashes messages and ends their life after the cycle.
`KeptInputs` only looks who still refers to inputs, for the hints of a replay.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from flowrun.msgs.arrays import is_reused, owner_of
from flowrun.msgs.envelope import Envelope
from flowrun.msgs.message import Message
from flowrun.msgs.values import pack
from flowrun.runtime.engine.record import (
    BoundView,
    CycleRecord,
    StepCall,
    call_process,
)
from flowrun.runtime.errors import MessageMisused
from flowrun.runtime.graph.plan import Plan, Step
from flowrun.runtime.task import Context, Task
from flowrun.runtime.wording import listed

__all__ = ["Kept", "KeptInputs", "MessageWatch", "set_in_vain"]


class Kept(NamedTuple):
    """An input that is still referred to after its cycle.

    tasks: those that may keep it; there is one, unless several read the message.
    what: "the message", or an array of it, in words.
    """

    tasks: tuple[str, ...]
    what: str

    def __str__(self) -> str:
        doubt = f" (or {listed(self.tasks[1:])} does)" if self.tasks[1:] else ""
        return (
            f"keeps {self.what} after process has returned, when its memory is used again{doubt}; "
            "keep a copy() instead"
        )


class KeptInputs:
    """Looks for inputs that tasks keep.

    views: those of all records, which the calls are bound to.
    """

    def __init__(self, plan: Plan, views: Sequence[BoundView]) -> None:
        self._readers = _readers_of(plan)
        self._views = list(views)
        self._suspects: dict[tuple[int, str], list[str]] = {}
        self._usual = list(self._view_counts())

    def views(self) -> Iterator[Kept]:
        """The messages that a task keeps."""
        counts = list(self._view_counts())
        for bound, count, usual in zip(self._views, counts, self._usual, strict=True):
            if count > usual:
                yield Kept((bound.task_id,), f"its input {bound.port!r}")

    def arrays(self, record: CycleRecord) -> list[Kept]:
        """The arrays of the record's messages that are kept, though their memory is used again; clears
        the record."""
        memories: dict[int, tuple[list[str], str, Any]] = {}
        for slot, message in enumerate(record.messages):
            readers = self._readers[slot]
            for name in message.array_fields:
                array = message.envelope.fields.get(name)
                if array is not None and array.size and readers and is_reused(array):
                    memory = owner_of(array)
                    known = memories.setdefault(id(memory), ([], "", memory))[0]
                    what = f"{name!r} of its input {readers[0][1]!r}"
                    tasks = self._suspects.get((slot, name)) or [task for task, _ in readers]
                    memories[id(memory)] = ([*known, *tasks], what, memory)
        array = memory = None
        record.clear()
        self._suspects.clear()
        found = []
        while memories:
            _, (tasks, what, memory) = memories.popitem()
            if _references(memory) > _OWN_REFERENCES:
                gc.collect()  # an exception and its frames refer to each other
                if _references(memory) > _OWN_REFERENCES:
                    found.append(Kept(tuple(dict.fromkeys(tasks)), what))
        return found

    def references(self, slot: int, message: Message) -> dict[tuple[int, str], int]:
        """How often each array of the message, of a slot, is referred to."""
        fields = message.envelope.fields
        return {
            (slot, name): _references(fields[name]) + _references(owner_of(fields[name]))
            for name in message.array_fields
            if name in fields
        }

    def suspect(
        self,
        task_id: str,
        before: Mapping[tuple[int, str], int],
        now: Mapping[tuple[int, str], int],
        passed_on: Mapping[tuple[int, str], int],
    ) -> None:
        """The task has taken references to the arrays of which there are more `now`.

        passed_on: how many of them its outputs hold.
        """
        for key, count in now.items():
            if count - passed_on.get(key, 0) > before.get(key, count):
                self._suspects.setdefault(key, []).append(task_id)

    def _view_counts(self) -> Iterator[int]:
        for bound in self._views:
            yield _references(bound.view)


def _references(value: object) -> int:
    return sys.getrefcount(value)


_OWN_REFERENCES = _references(object()) + 1
"""Of an object that only one local variable refers to."""


class MessageWatch:
    """Checks what tasks do with the messages of a plan, in `--debug-messages` mode."""

    def __init__(self, plan: Plan) -> None:
        self._kept = KeptInputs(plan, ())
        self._names = {slot.index: (slot.task_id, slot.port) for slot in plan.slots}
        self._published: dict[int, bytes] = {}
        """The hash of each message of the cycle, by slot, when its step was over."""

    def call(self, step: Step, messages: Sequence[Message], task: Task, ctx: Context) -> StepCall:
        """`call_process`, with views that expire when the call is over."""
        views: list[BoundView] = []
        gate, _ = call_process(step, messages, task, ctx)

        def call() -> None:
            views.clear()
            _gate, inner = call_process(step, messages, task, ctx, views=views)
            try:
                inner()
            finally:
                for bound in views:
                    _expire(bound)

        return gate, self.checked(step, messages, call)

    def checked(
        self, step: Step, messages: Sequence[Message], call: Callable[[], None]
    ) -> Callable[[], None]:
        """`call`, a step's call on the messages, between checks of what it reads."""
        inputs = [
            (argument.slot, argument.port.name)
            for argument in step.arguments
            if argument.slot is not None and argument.port.is_input
        ]
        outputs = [
            argument.slot
            for argument in step.arguments
            if argument.slot is not None and argument.port.is_output
        ]

        def checking() -> None:
            for slot, _ in inputs:
                self._check_publisher(slot, messages[slot].envelope)
            before = self._references(inputs, messages)
            call()
            now, passed_on = (
                self._references(inputs, messages),
                _passed_on(inputs, outputs, messages),
            )
            self._kept.suspect(step.task.id, before, now, passed_on)
            for slot, port in inputs:
                envelope = messages[slot].envelope
                if self._has_changed(slot, envelope):
                    self._published[slot] = _digest(envelope)
                    raise MessageMisused(
                        step.task.id, f"process changed its input {port!r}, which is read-only"
                    )
            for slot in outputs:
                self._published.pop(slot, None)
                envelope = messages[slot].envelope
                if not envelope.present:
                    continue
                field = envelope.set_since()
                if field is not None:
                    raise MessageMisused(step.task.id, set_in_vain(self._names[slot][1], field))
                self._published[slot] = _digest(envelope)

        return checking

    def check(self, record: CycleRecord) -> None:
        """At the end of a cycle: raise `MessageMisused` for a message that its publisher has changed."""
        for slot, message in enumerate(record.messages):
            self._check_publisher(slot, message.envelope)

    def retire(self, record: CycleRecord) -> None:
        """End the life of the record's messages. Raises `MessageMisused` for one that is kept."""
        self._published.clear()
        found = self._kept.arrays(record)
        for message in record.messages:
            message.poison()
        for kept in found:
            raise MessageMisused(kept.tasks[0], str(kept))

    def _references(
        self, inputs: Sequence[tuple[int, str]], messages: Sequence[Message]
    ) -> dict[tuple[int, str], int]:
        found: dict[tuple[int, str], int] = {}
        for slot, _ in inputs:
            found |= self._kept.references(slot, messages[slot])
        return found

    def _check_publisher(self, slot: int, envelope: Envelope) -> None:
        if self._has_changed(slot, envelope):
            self._published[slot] = _digest(envelope)
            task_id, port = self._names[slot]
            raise MessageMisused(
                task_id,
                f"its message on port {port!r} changed after it was published: the task still writes to "
                "it, or to memory that it shares",
            )

    def _has_changed(self, slot: int, envelope: Envelope) -> bool:
        known = self._published.get(slot)
        return envelope.present and known is not None and known != _digest(envelope)


def set_in_vain(port: str, field: str) -> str:
    """The error of a task that set a field after it had published the message."""
    return f"{field!r} of port {port!r} was set after publish(), so that nobody sees it: publish() again"


def _readers_of(plan: Plan) -> list[list[tuple[str, str]]]:
    """For each slot, the tasks that read it and their ports; a background task reads a copy."""
    readers: list[list[tuple[str, str]]] = [[] for _ in plan.slots]
    for step in plan.steps:
        for argument in step.arguments:
            is_read = argument.port.is_input and not step.task.spec.background
            if is_read and argument.slot is not None:
                readers[argument.slot].append((step.task.id, argument.port.name))
    return readers


def _passed_on(
    inputs: Sequence[tuple[int, str]], outputs: Sequence[int], messages: Sequence[Message]
) -> dict[tuple[int, str], int]:
    """For each array of the inputs, how many arrays of the outputs show its memory."""
    fields = [
        *(messages[slot].__dict__ for slot in outputs),
        *(messages[slot].envelope.fields for slot in outputs),
    ]
    owners = [
        id(owner_of(value))
        for shown in fields
        for value in shown.values()
        if isinstance(value, np.ndarray)
    ]
    return {
        (slot, name): owners.count(id(owner_of(messages[slot].envelope.fields[name])))
        for slot, _ in inputs
        for name in messages[slot].array_fields
        if name in messages[slot].envelope.fields
    }


def _digest(envelope: Envelope) -> bytes:
    found = hashlib.blake2b(str(envelope.tov_ns).encode())
    for name, value in sorted(envelope.whole().items()):
        found.update(name.encode())
        if isinstance(value, np.ndarray):
            found.update(repr((value.shape, value.dtype)).encode())
            found.update(value.tobytes())
        else:
            found.update(pack(value))
    return found.digest()


def _expire(bound: BoundView) -> None:
    kind = _expired(type(bound.view), bound.task_id, bound.port)  # type: ignore[arg-type]
    object.__setattr__(bound.view, "__class__", kind)


@functools.cache
def _expired(kind: type[Message], task_id: str, port: str) -> type[Message]:
    """A class of views of which nothing can be read."""

    def refuse(self: Message, name: str) -> NoReturn:  # noqa: ARG001
        raise MessageMisused(
            task_id,
            f"reads {name!r} of its input {port!r} after the call of process that had it; the slot may "
            "hold another message then: keep a copy() instead",
        )

    namespace = {"__slots__": (), "is_view": True, "__getattribute__": refuse}
    return type(kind.__name__, (kind,), namespace)
