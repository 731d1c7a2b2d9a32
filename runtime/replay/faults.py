"""Faults in a replay: messages that do not come, come late, or come twice, chosen by a seed.

`cam.drop=5%@7` leaves out one message of the task `cam` in twenty, chosen by the seed 7.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, cast, get_args

import numpy as np

from flowrun.msgs.message import Message
from flowrun.runtime.errors import UsageError
from flowrun.runtime.graph.plan import Plan, Slot
from flowrun.runtime.wording import listed, nearest

__all__ = ["Changes", "Chosen", "Fault", "Faults", "parse_fault"]

Kind = Literal["drop", "delay", "repeat", "stop"]
_EXAMPLES = (
    "cam.drop=5%@7, cam.drop=12,30..40, cam.delay=2s, cam.delay=3:10%, cam.repeat=5%, cam.stop=100"
)
_SHARE = re.compile(r"(\d+(?:\.\d+)?)%(?:@(\d+))?")
_TIME = re.compile(r"(\d+(?:\.\d+)?)(ms|s)|(\d+)")
_SPANS = re.compile(r"\d+(?:\.\.\d+)?(?:,\d+(?:\.\.\d+)?)*")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to messages of a task.

    kind: drop, they do not come; delay, they come later, in their order; repeat, the one before comes
        in their place; stop, none comes any more.
    share: of the messages, 0 to 1; None where `spans` says which. seed: by which they are chosen.
    spans: first and last of the cycles of which the messages are meant.
    later_ns, later_cycles: of delay, by how much; one of them is 0.
    """

    task: str
    kind: Kind
    share: float | None = None
    seed: int = 0
    spans: tuple[tuple[int, int], ...] = ()
    later_ns: int = 0
    later_cycles: int = 0

    def at(self, cycles: Sequence[int]) -> str:
        """The option that means the messages of these cycles alone."""
        if self.kind == "stop":
            return f"{self.task}.stop={self.spans[0][0]}"
        later = ""
        if self.kind == "delay":
            later = f"{self.later_cycles}:" if self.later_cycles else f"{self.later_ns / 1e9:g}s:"
        return f"{self.task}.{self.kind}={later}{','.join(map(str, cycles))}"


class Chosen(NamedTuple):
    """A message to which a fault has happened: the number of the fault among all, and its cycle; for
    stop, the cycle from which none came."""

    fault: int
    cycle: int


def parse_fault(text: str) -> Fault:
    """`TASK.KIND=...` as a fault; `UsageError` for another text."""
    name, equals, value = text.partition("=")
    task, dot, kind = name.rpartition(".")
    if not (equals and dot and task and value):
        raise UsageError(f"--fault {text}: expected TASK.KIND=..., such as {_EXAMPLES}")
    if kind not in get_args(Kind):
        kinds = get_args(Kind)
        raise UsageError(
            f"--fault {text}: there is no fault {kind!r}; faults: {listed(kinds)}{nearest(kind, kinds)}"
        )
    fault = Fault(task, cast("Kind", kind))
    if kind == "stop":
        if not value.isdecimal():
            raise UsageError(f"--fault {text}: expected a cycle, such as {task}.stop=100")
        return Fault(task, "stop", spans=((int(value), 2**63),))
    later_ns = later_cycles = 0
    if kind == "delay":
        amount, colon, rest = value.partition(":")
        found = _TIME.fullmatch(amount)
        if found is None or (colon and not rest):
            raise UsageError(
                f"--fault {text}: expected how long, such as {task}.delay=2s, =300ms or =3 (cycles)"
            )
        if found[3]:
            later_cycles = int(found[3])
        else:
            later_ns = round(float(found[1]) * (1e9 if found[2] == "s" else 1e6))
        value = rest or "100%"
    share = _SHARE.fullmatch(value)
    if share is not None and float(share[1]) <= 100:
        chosen = {"share": float(share[1]) / 100, "seed": int(share[2] or 0)}
        return Fault(task, fault.kind, **chosen, later_ns=later_ns, later_cycles=later_cycles)  # type: ignore[arg-type]
    if not _SPANS.fullmatch(value):
        raise UsageError(
            f"--fault {text}: {value!r} says no messages; expected a share (5%, 5%@SEED) or cycles "
            "(12 or 30..40 or 12,30..40)"
        )
    spans = tuple(
        (int(first), int(last or first))
        for first, _, last in (span.partition("..") for span in value.split(","))
    )
    return Fault(task, fault.kind, spans=spans, later_ns=later_ns, later_cycles=later_cycles)


@dataclass(slots=True)
class _Output:
    """What an output has in store.

    late: messages with the time and cycle at which each may come. last: the one that came last.
    """

    late: deque[tuple[int, int, Message]] = field(default_factory=deque)
    last: Message | None = None


class Changes(Protocol):
    """Changes messages of a replay."""

    def apply(
        self, slots: Sequence[Slot], messages: Sequence[Message], cycle: int, time_ns: int
    ) -> None:
        """Change what a task has published in a cycle, before others read it.

        slots: its outputs. messages: of all outputs of the graph.
        """
        ...


class Faults:
    """Lets faults happen in one replay of `plan`.

    only: of the messages that would be chosen, those to which it does happen; None for all.
    happened: the messages to which a fault has happened, in their order.

    `UsageError` for a task that the graph does not have.
    """

    def __init__(
        self, faults: Sequence[Fault], plan: Plan, *, only: Collection[Chosen] | None = None
    ) -> None:
        ids = [step.task.id for step in plan.steps]
        for fault in faults:
            if fault.task not in ids:
                raise UsageError(
                    f"--fault {fault.task}.{fault.kind}: unknown task {fault.task!r}; tasks: "
                    f"{listed(ids)}{nearest(fault.task, ids)}"
                )
        self.happened: list[Chosen] = []
        self._only = None if only is None else frozenset(only)
        self._of: Mapping[str, list[tuple[int, Fault]]] = {
            id_: [(at, it) for at, it in enumerate(faults) if it.task == id_] for id_ in ids
        }
        self._draws = [
            np.random.default_rng([fault.seed, *f"{fault.task}.{fault.kind}".encode()])
            for fault in faults
        ]
        self._outputs: dict[int, _Output] = {}

    def apply(
        self, slots: Sequence[Slot], messages: Sequence[Message], cycle: int, time_ns: int
    ) -> None:
        """Have the faults of a task happen to what it has published in a cycle.

        slots: its outputs. messages: of all outputs of the graph.
        """
        if not slots or not self._of[slots[0].task_id]:
            return
        is_here = any(messages[slot.index].present for slot in slots)
        chosen = [
            (at, fault)
            for at, fault in self._of[slots[0].task_id]
            if is_here and self._chooses(at, fault, cycle)
        ]
        for at, fault in chosen:
            noted = Chosen(at, fault.spans[0][0] if fault.kind == "stop" else cycle)
            if noted not in self.happened[-1:]:
                self.happened.append(noted)
        for slot in slots:
            self._change(slot, messages[slot.index], [it for _, it in chosen], cycle, time_ns)

    def _chooses(self, at: int, fault: Fault, cycle: int) -> bool:
        """Whether a fault happens to the messages of a cycle."""
        if fault.share is not None:
            is_chosen = bool(self._draws[at].random() < fault.share)
        else:
            is_chosen = any(first <= cycle <= last for first, last in fault.spans)
        noted = Chosen(at, fault.spans[0][0] if fault.kind == "stop" else cycle)
        return is_chosen and (self._only is None or noted in self._only)

    def _change(
        self, slot: Slot, message: Message, faults: Sequence[Fault], cycle: int, time_ns: int
    ) -> None:
        output = self._outputs.setdefault(slot.index, _Output())
        if message.present:
            came = message.copy()
            for fault in faults:
                if fault.kind in ("drop", "stop"):
                    message.clear()
                elif fault.kind == "repeat" and output.last is not None and message.present:
                    message.restore(output.last.all_fields(), tov_ns=output.last.tov_ns)
                elif fault.kind == "delay" and message.present:
                    due = time_ns + fault.later_ns, cycle + fault.later_cycles, message.copy()
                    output.late.append(due)
                    message.clear()
            output.last = came
            if message.present and output.late:  # after those that are late: in their order
                output.late.append((0, 0, message.copy()))
                message.clear()
        if output.late and not message.present:
            due_ns, due_cycle, late = output.late[0]
            if due_ns <= time_ns and due_cycle <= cycle:
                output.late.popleft()
                message.restore(late.all_fields(), tov_ns=late.tov_ns)
