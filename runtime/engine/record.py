"""The ring: N preallocated cycle records, each with a message for every output of the graph.

A record is used again after N cycles. All that a cycle needs is bound to it once, at start: the
messages that each step reads and writes, and the calls themselves. So running a cycle allocates
nothing that outlives it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

from flowrun.msgs.envelope import Envelope
from flowrun.msgs.fields import LatePublishError
from flowrun.msgs.message import Message
from flowrun.runtime.context import CycleTime
from flowrun.runtime.errors import MessageMisused, WrongReturnError
from flowrun.runtime.graph.plan import Plan, Step
from flowrun.runtime.task import Context, Task
from flowrun.runtime.wording import with_article

__all__ = [
    "ALWAYS",
    "AllPresent",
    "BoundView",
    "CycleRecord",
    "Gate",
    "StepCall",
    "call_process",
    "make_record",
    "outputs_of_step",
    "refuse_returned",
    "run_process",
]


class Gate(Protocol):
    """Decides whether a step is called in a cycle: its required input, or several of them."""

    @property
    def present(self) -> bool: ...


class _Always:
    present = True


ALWAYS: Gate = _Always()


class AllPresent:
    """Open when all of several required inputs are present."""

    __slots__ = ("envelopes",)

    def __init__(self, envelopes: Sequence[Envelope]) -> None:
        self.envelopes = envelopes

    @property
    def present(self) -> bool:
        return all(envelope.present for envelope in self.envelopes)


StepCall = tuple[Gate, Callable[[], None]]
"""One step of a record: call the second if the first is open."""


@dataclass(frozen=True, slots=True)
class CycleRecord:
    """The messages and calls of one cycle.

    messages: one for each slot of the plan.
    calls: one for each step of the plan, on these messages.
    outputs: for each step, the envelopes of what it publishes when it is called: open while it runs. A
        background task publishes on messages of its jobs.
    """

    messages: tuple[Message, ...]
    calls: tuple[StepCall, ...]
    outputs: tuple[tuple[Envelope, ...], ...]

    def with_call(self, at: int, call: StepCall) -> CycleRecord:
        """The same record with another call of the step at `at`."""
        return replace(self, calls=(*self.calls[:at], call, *self.calls[at + 1 :]))

    def forget_made(self) -> None:
        """Let go of what can be made once more, after the record's cycle."""
        for message in self.messages:
            if message.array_fields:
                message.envelope.forget_made()

    def clear(self) -> None:
        """Make all messages absent, with default fields: no task sees those of an older cycle."""
        for message in self.messages:
            message.clear()


def make_record(
    plan: Plan,
    time: CycleTime,
    bind_step: Callable[[Step, tuple[Message, ...]], StepCall],
    note_late: Callable[[str, LatePublishError], None],
) -> CycleRecord:
    """A record for `plan`.

    time: gives the messages their default `tov_ns`.
    bind_step: gives gate and call of a step on the record's messages.
    note_late: called, on any thread, with the task that published outside its `process`, and the error.
    """
    messages = tuple(slot.message_type() for slot in plan.slots)
    for slot, message in zip(plan.slots, messages, strict=True):
        message.bind_time(time)
        envelope = message.envelope
        envelope.owner = f"task {slot.task_id!r}, port {slot.port!r}"
        envelope.note_late = partial(note_late, slot.task_id)
        envelope.is_open = None
        envelope.defers = not slot.stores_pixels
    return CycleRecord(
        messages,
        tuple(bind_step(step, messages) for step in plan.steps),
        tuple(
            ()
            if step.task.spec.background
            else tuple(message.envelope for message in outputs_of_step(step, messages))
            for step in plan.steps
        ),
    )


class BoundView(NamedTuple):
    """A view of an input, as the calls of a step get it."""

    task_id: str
    port: str
    view: Message


def call_process(
    step: Step,
    messages: Sequence[Message],
    task: Task,
    ctx: Context,
    *,
    views: list[BoundView] | None = None,
) -> StepCall:
    """Gate and call of a step whose task runs: `task.process(ctx, views of inputs, outputs)`.

    views: gets those that the call is bound to.
    """
    watched: list[tuple[str, Envelope]] = []
    required: list[Envelope] = []
    optional: list[tuple[int, Envelope]] = []
    arguments: list[Any] = []
    for argument in step.arguments:
        message = None if argument.slot is None else messages[argument.slot]
        if argument.port.is_output:
            arguments.append(message)
            continue
        if message is None:
            arguments.append(None)
            continue
        view = message.view()
        arguments.append(view)
        if views is not None:
            views.append(BoundView(step.task.id, argument.port.name, view))
        if message.may_hold_containers or message.array_fields:
            watched.append((argument.port.name, message.envelope))
        if argument.port.required:
            required.append(message.envelope)
        else:
            optional.append((len(arguments) - 1, message.envelope))
    gate = AllPresent(required) if required else ALWAYS
    call: Callable[[], None]
    if optional:
        call = partial(_call_with_optional, task, ctx, tuple(arguments), tuple(optional))
    else:
        call = partial(run_process, task.process, ctx, *arguments)
    return gate, partial(_call_watched, step.task.id, call, watched) if watched else call


def _call_watched(
    task_id: str, call: Callable[[], None], watched: Sequence[tuple[str, Envelope]]
) -> None:
    """Call, and see that lists, dicts and arrays of the inputs are as they were."""
    before = [(port, envelope, envelope.samples()) for port, envelope in watched]
    try:
        call()
    except BaseException:
        for _, envelope in watched:
            envelope.mend()
        raise
    for port, envelope, samples in before:
        field, around = envelope.mend(), ""
        if field is None and (samples or envelope.later):
            field = envelope.changed_array(samples)
            around = "; torch.from_numpy and ctypes write to its memory: copy() it before"
        if field is not None:
            raise MessageMisused(
                task_id,
                f"process changed {field!r} of its input {port!r}, which is read-only{around}",
            )


def run_process(process: Callable[..., Any], *arguments: Any) -> None:
    """Call `process`, which must return nothing."""
    back = process(*arguments)
    if back is not None:
        refuse_returned(process, back)


def refuse_returned(process: Callable[..., Any], back: Any) -> None:
    """Raise `WrongReturnError` for what `process` returned: nobody runs or sees it."""
    name = type(back).__name__
    if inspect.isawaitable(back) or inspect.isgenerator(back) or inspect.isasyncgen(back):
        close = getattr(back, "close", None)
        if close is not None:
            close()  # or Python warns that it was never awaited
        raise WrongReturnError(
            process,
            f"process returned a {name}, which nobody runs; write a plain "
            "`def process` that has done its work when it returns",
        )
    raise WrongReturnError(
        process,
        f"process returned {with_article(name)}, which nobody sees; set the fields of an output and "
        "publish() it, and return nothing (a function that is a task returns its message)",
    )


def outputs_of_step(step: Step, messages: Sequence[Message]) -> list[Message]:
    """The messages that the step publishes."""
    return [
        messages[argument.slot]
        for argument in step.arguments
        if argument.slot is not None and argument.port.is_output
    ]


def _call_with_optional(
    task: Task,
    ctx: Context,
    arguments: tuple[Any, ...],
    optional: tuple[tuple[int, Envelope], ...],
) -> None:
    given = list(arguments)
    for index, envelope in optional:
        if not envelope.present:
            given[index] = None
    run_process(task.process, ctx, *given)
