"""The ring: N preallocated cycle records, each with a message for every output of the graph.

A record is used again after N cycles. All that a cycle needs is bound to it once, at start: which
message each step reads and writes, and the calls themselves, so that running a cycle allocates
nothing that outlives it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from flowrun.msgs.message import Message
from flowrun.runtime.graph.plan import Plan, Step
from flowrun.runtime.task import Context, CycleTime, Task

__all__ = [
    "ALWAYS",
    "CycleRecord",
    "Gate",
    "StepCall",
    "call_process",
    "make_record",
    "outputs_of_step",
]


class Gate(Protocol):
    """What decides whether a step is called in a cycle: its required input, or several."""

    @property
    def present(self) -> bool: ...


class _Always:
    present = True


ALWAYS: Gate = _Always()


class _All:
    """Open when all of several required inputs are present."""

    __slots__ = ("_messages",)

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages

    @property
    def present(self) -> bool:
        return all(message.present for message in self._messages)


StepCall = tuple[Gate, Callable[[], None]]
"""One step of a record: call the second if the first is open."""


class CycleRecord:
    """One cycle's place: a message for every slot of the plan, and the calls of its steps.

    messages: by slot index.
    calls: of all steps of the plan, in order; sources: the first of them, of the sources; steps: the
        rest.
    """

    __slots__ = ("_others", "_plain", "calls", "messages", "sources", "steps")

    def __init__(
        self, messages: tuple[Message, ...], calls: list[StepCall], *, source_count: int
    ) -> None:
        self.messages = messages
        self.calls = calls
        self.sources = calls[:source_count]
        self.steps = calls[source_count:]
        self._plain = [
            (message, message.__dict__, type(message).defaults, len(message.__dict__))
            for message in messages
            if _clears_plainly(message)
        ]
        self._others = [message for message in messages if not _clears_plainly(message)]

    def clear(self) -> None:
        """All messages absent, with default fields: nothing of an older cycle is ever seen."""
        for message, fields, defaults, count in self._plain:  # Message.clear, without its calls
            message.present = False
            if len(fields) != count:  # something was set that is no field
                fields.clear()
            fields.update(defaults)
        for message in self._others:
            message.clear()


def _clears_plainly(message: Message) -> bool:
    """Whether its class leaves `clear` as it is, and shares its defaults among its messages."""
    return type(message).clear is Message.clear and not message.has_containers


def make_record(
    plan: Plan,
    time: CycleTime,
    bind_step: Callable[[Step, tuple[Message, ...]], StepCall],
) -> CycleRecord:
    """A record for `plan`; `bind_step` says how each of its steps is called on these messages."""
    messages = tuple(slot.message_type() for slot in plan.slots)
    for message in messages:
        message.bind_time(time)
    calls = [bind_step(step, messages) for step in plan.steps]
    return CycleRecord(messages, calls, source_count=plan.source_count)


def call_process(step: Step, messages: Sequence[Message], task: Task, ctx: Context) -> StepCall:
    """The plain way to call a step: `task.process(ctx, views of inputs, outputs)`."""
    required: list[Message] = []
    optional: list[tuple[int, Message]] = []
    arguments: list[Any] = []
    for argument in step.arguments:
        message = None if argument.slot is None else messages[argument.slot]
        if argument.port.direction == "output":
            arguments.append(message)
            continue
        arguments.append(None if message is None else message.view())
        if message is not None and argument.port.required:
            required.append(message)
        elif message is not None:
            optional.append((len(arguments) - 1, message))
    gate: Gate = ALWAYS
    if required:
        gate = required[0] if len(required) == 1 else _All(required)
    if not optional:
        return gate, partial(task.process, ctx, *arguments)
    return gate, partial(_call_with_optional, task, ctx, tuple(arguments), tuple(optional))


def outputs_of_step(step: Step, messages: Sequence[Message]) -> list[Message]:
    """The messages that the step publishes."""
    return [
        messages[argument.slot]
        for argument in step.arguments
        if argument.slot is not None and argument.port.direction == "output"
    ]


def _call_with_optional(
    task: Task,
    ctx: Context,
    arguments: tuple[Any, ...],
    optional: tuple[tuple[int, Message], ...],
) -> None:
    given = list(arguments)
    for index, message in optional:
        if not message.present:
            given[index] = None
    task.process(ctx, *given)
