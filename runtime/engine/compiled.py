"""A cycle as one function, compiled from source text once per record, as dataclasses do `__init__`.

Live runs call it. It does what `Cycle.begin` and one `Cycle.step` after another do, without a loop,
tuples to unpack and attributes to look up. For a graph of three tasks it is::

    def run():
        cycle.index = 0
        if b0.later: b0.forget_made()               # pixels of the record before
        m0.present = False                          # clear the record: message 0's envelope,
        f0['value'] = d0                            # its own fields,
        if len(f0) != 1: clear0()                   # and what is none
        ...
        e1 = e2 = e3 = 0                            # when each step ended
        cycle.events = events = []
        cycle.start_ns = start = ticks()
        came = outside.begin(time, start)           # what came from outside
        if came and not apply(came): return True
        if late and take_late(): return True        # published outside process, on another thread
        try:
            at = 0
            if g0.present:                          # the steps, in the plan's order
                m0.is_open = True                   # what it publishes
                back = p0(a0_0, a0_1)
                m0.is_open = False
                if back is not None: refuse(back)
            e1 = ticks()
            if outside.reported:                    # anything but a reason for a cycle waits for one
                events += outside.after_sources(bool(events or m0.present or has_taken()))
            if not (events or m0.present or has_taken()): return False
            at = 1
            if m0.present:
                m1.is_open = True
                back = p1(a1_0, a1_1, a1_2)
                m1.is_open = False
                if back is not None: refuse(back)
            e2 = ticks()
            ...
        except SkipCycle:
            skip([e1, e2, e3][:at])
        except BaseException as error:
            if is_users(error): raise
            fail(at, error, [e1, e2, e3][:at])
        else:
            cycle.ends_ns = [e1, e2, e3]
        cycle.published = (m0.present, m1.present)
        return True

The text contains only names that this module makes; the objects they name are bound to the function.
The property tests of determinism compare live runs, which call it, with replays, which go step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from flowrun.msgs.envelope import Envelope
from flowrun.msgs.message import Message
from flowrun.runtime.engine.policy import SkipCycle
from flowrun.runtime.engine.record import (
    ALWAYS,
    AllPresent,
    CycleRecord,
    Gate,
    refuse_returned,
    run_process,
)
from flowrun.runtime.events import Event
from flowrun.runtime.interrupts import is_users

__all__ = ["compile_cycle"]

Inner = Callable[[list[Event], list[int]], tuple[int, BaseException] | None]


def compile_cycle(
    record: CycleRecord,
    *,
    before: CycleRecord,
    index: int,
    source_count: int,
    source_slots: Sequence[int],
    names: Mapping[str, Any],
    inner: Inner | None = None,
) -> Callable[[], bool]:
    """The function that runs `record`'s cycle; it returns False if nothing came and no cycle began.

    before: the record of the cycle before, whose pixels are let go.
    index: of the record in the ring; it becomes `cycle.index`.
    source_count: number of steps that are sources.
    source_slots: slots that the sources publish on.
    names: the objects that the text uses: cycle, time, ticks, outside, apply, late, take_late,
        has_taken, skip and fail.
    inner: runs the other steps, where they do not run one by one: given the cycle's events and when the
        sources ended, it returns the index of a step that raised, and what.
    """
    bound: dict[str, Any] = {
        **names,
        "SkipCycle": SkipCycle,
        "refuse": refuse_returned,
        "is_users": is_users,
    }
    ends = [f"e{at + 1}" for at in range(len(record.calls))]
    all_ends = f"[{', '.join(ends)}]"
    came = " or ".join(["events", *(f"m{slot}.present" for slot in source_slots), "has_taken()"])
    lines = [
        f"cycle.index = {index}",
        *_forget(before, bound),
        *_clear(record, bound),
        f"{' = '.join(ends)} = 0",
        "cycle.events = events = []",
        "cycle.start_ns = start = ticks()",
        "came = outside.begin(time, start)",
        "if came and not apply(came): return True",
        "if late and take_late(): return True",
        "try:",
        *_steps(record, 0, source_count, bound),
        f"    if outside.reported: events += outside.after_sources(bool({came}))",
        f"    if not ({came}): return False",
        *([] if inner else _steps(record, source_count, len(record.calls), bound)),
        "except SkipCycle:",
        f"    skip(at, {all_ends}[:at])",
        "except BaseException as error:",
        "    if is_users(error): raise",
        f"    fail(at, error, {all_ends}[:at])",
        "else:",
        *(
            _ran(inner, ends[:source_count], bound)
            if inner
            else [f"    cycle.ends_ns = {all_ends}"]
        ),
        f"cycle.published = ({''.join(f'm{slot}.present, ' for slot in range(len(record.messages)))})",
        "return True",
    ]
    text = [f"def make({', '.join(bound)}):", "    def run():"]
    text += [*(f"        {line}" for line in lines), "    return run"]
    made: dict[str, Any] = {"__name__": __name__}
    exec("\n".join(text), made)  # noqa: S102  # only names that are made here
    run: Callable[[], bool] = made["make"](**bound)
    return run


def _ran(inner: Inner, ends: Sequence[str], bound: dict[str, Any]) -> list[str]:
    """Have `inner` run what follows the sources."""
    bound["inner"] = inner
    return [
        "    at = None",
        f"    ends = [{', '.join(ends)}]",
        "    found = inner(events, ends)",
        "    if found is None: cycle.ends_ns = ends",
        "    elif isinstance(found[1], SkipCycle): skip(found[0], ends)",
        "    else: fail(*found, ends)",
    ]


def _forget(before: CycleRecord, bound: dict[str, Any]) -> list[str]:
    """`CycleRecord.forget_made`."""
    lines = []
    for slot, message in enumerate(before.messages):
        if message.array_fields:
            bound[f"b{slot}"] = message.envelope
            lines.append(f"if b{slot}.later: b{slot}.forget_made()")
    return lines


def _clear(record: CycleRecord, bound: dict[str, Any]) -> list[str]:
    """`Message.clear` of each message; written out for scalars, unless its class overrides it."""
    lines = []
    for slot, message in enumerate(record.messages):
        bound |= {f"m{slot}": message.envelope, f"clear{slot}": message.clear}
        has_more = message.has_containers or message.array_fields
        if has_more or type(message).clear is not Message.clear:
            lines.append(f"clear{slot}()")
            continue
        bound[f"f{slot}"] = message.__dict__
        lines.append(f"m{slot}.present = False")
        for number, (name, default) in enumerate(message.defaults.items()):
            bound[f"d{slot}_{number}"] = default
            lines.append(f"f{slot}[{name!r}] = d{slot}_{number}")
        lines.append(f"if len(f{slot}) != {len(message.defaults)}: clear{slot}()")
    return lines


def _steps(record: CycleRecord, begin: int, end: int, bound: dict[str, Any]) -> list[str]:
    lines = []
    for at in range(begin, end):
        gate, call = record.calls[at]
        outputs = _is_open(record.outputs[at], record)
        lines += [
            f"    at = {at}",
            *_step(_condition(at, gate, record, bound), _call(at, call, bound), outputs),
            f"    e{at + 1} = ticks()",
        ]
    return lines


def _step(condition: str, call: Sequence[str], outputs: Sequence[str]) -> list[str]:
    lines = [*call]
    if outputs:
        opened, closed = (" = ".join([*outputs, value]) for value in ("True", "False"))
        lines = [opened, *call, closed]
    if not condition:
        return [f"    {line}" for line in lines]
    if len(lines) == 1:
        return [f"    if {condition}: {lines[0]}"]
    return [f"    if {condition}:", *(f"        {line}" for line in lines)]


def _condition(at: int, gate: Gate, record: CycleRecord, bound: dict[str, Any]) -> str:
    if gate is ALWAYS:
        return ""
    slots = {id(message.envelope): slot for slot, message in enumerate(record.messages)}
    envelopes = gate.envelopes if isinstance(gate, AllPresent) else [gate]
    if all(id(envelope) in slots for envelope in envelopes):
        tests = [f"m{slots[id(envelope)]}.present" for envelope in envelopes]
    else:
        bound[f"g{at}"] = gate
        tests = [f"g{at}.present"]
    return " and ".join(tests)


def _is_open(outputs: Sequence[Envelope], record: CycleRecord) -> list[str]:
    """Where the envelopes keep whether they are open."""
    slots = {id(message.envelope): slot for slot, message in enumerate(record.messages)}
    return [f"m{slots[id(envelope)]}.is_open" for envelope in outputs]


def _call(at: int, call: Callable[[], None], bound: dict[str, Any]) -> list[str]:
    if not isinstance(call, partial) or call.keywords:
        bound[f"p{at}"] = call
        return [f"p{at}()"]
    is_process = call.func is run_process
    function, *given = call.args if is_process else (call.func, *call.args)
    bound[f"p{at}"] = function
    arguments = {f"a{at}_{number}": value for number, value in enumerate(given)}
    bound |= arguments
    text = f"p{at}({', '.join(arguments)})"
    if not is_process:
        return [text]
    return [f"back = {text}", f"if back is not None: refuse(p{at}, back)"]
