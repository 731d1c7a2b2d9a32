"""A message that somebody publishes from outside on a port of a running graph."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.fields import ArrayField, MessageTypeError, array_from_map, short, strip
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message
from flowrun.runtime.errors import UnknownPort, UsageError
from flowrun.runtime.events import Injected
from flowrun.runtime.graph.plan import Plan, Slot
from flowrun.runtime.wording import counted, listed, nearest

__all__ = ["LARGEST_MESSAGE", "injected_message", "port_of"]

LARGEST_MESSAGE = 32 << 20
"""Bytes of a message as the log stores it."""


def port_of(plan: Plan, name: str) -> Slot:
    """The output port that `TASK.PORT` names, or `TASK` where the task has one port. `UnknownPort` lists
    those that there are."""
    task, _, port = name.partition(".")
    known = [f"{slot.task_id}.{slot.port}" for slot in plan.slots]
    of_task = [slot for slot in plan.slots if slot.task_id == task]
    found = [slot for slot in of_task if port in ("", slot.port)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownPort(
            f"task {task!r} has {counted(len(found), 'port')}; name one: "
            + listed(f"{task}.{slot.port}" for slot in found)
        )
    if of_task:
        ports = [slot.port for slot in of_task]
        raise UnknownPort(
            f"task {task!r} has no output {port!r}; outputs: {listed(ports)}{nearest(port, ports)}"
        )
    if any(step.task.id == task for step in plan.steps):
        raise UnknownPort(f"task {task!r} has no outputs; ports to publish on: {listed(known)}")
    raise UnknownPort(
        f"unknown port {name!r}; ports to publish on: {listed(known)}{nearest(name, known)}"
    )


def injected_message(
    plan: Plan, name: str, values: Mapping[str, Any], *, tov_ns: int | None
) -> Injected:
    """The message to publish on the port `name`, checked as a task's own would be.

    values: its fields: as JSON holds them, bytes in base64, arrays as nested lists or as the map of
        `dtype`, `shape` and `data` in base64 that the log's schema describes; or as a message holds
        them. A field that is left out has its default.

    Raises `UnknownPort`, or `UsageError` naming the field and what it expects.
    """
    slot = port_of(plan, name)
    kind = slot.message_type
    for key in values:
        if key not in kind.defaults:
            raise UsageError(
                f"{kind.__name__} has no field {key!r}; fields: {listed(kind.defaults)}"
                + nearest(key, kind.defaults)
            )
    if issubclass(kind, ImageRgb8Msg) and "pixels" not in values:
        raise UsageError(f"{slot.task_id}.{slot.port}: pixels are missing; a picture file has them")
    try:
        fields = {key: _from_json(kind, key, value) for key, value in values.items()}
        message = kind(**fields)
        message.publish(tov_ns=0 if tov_ns is None else tov_ns)
        data = b"".join(message.view().encode())
    except MessageTypeError as error:
        raise UsageError(f"{slot.task_id}.{slot.port}: {error}") from None
    if len(data) > LARGEST_MESSAGE:
        raise UsageError(
            f"{slot.task_id}.{slot.port}: the message has {len(data):,} bytes; at most "
            f"{LARGEST_MESSAGE:,} can be published from outside"
        )
    return Injected(slot.task_id, slot.port, data, tov_ns)


def _from_json(kind: type[Message], name: str, value: Any) -> Any:
    """The value of a field, made of what JSON holds; as it is if the field cannot hold that: checking
    the message says so."""
    array = kind.array_fields.get(name)
    if array is not None:
        return _array(f"{kind.__name__}.{name}", value, array)
    base, _ = strip(kind.field_types[name])
    if base is bytes and isinstance(value, str):
        return _bytes(f"{kind.__name__}.{name}", value)
    return value


def _bytes(owner: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise MessageTypeError(
            f"{owner}: expected bytes in base64, got {short(text)}: {error}"
        ) from None


_ITEMS: dict[str, tuple[type, ...]] = {
    "b": (bool,), "i": (int,), "u": (int,), "f": (int, float, type(None)), "c": (int, float),
}  # fmt: skip
"""What the lists of an array of each kind of element hold; null is a float that is not a number."""


def _array(owner: str, value: Any, declared: ArrayField) -> NDArray[Any]:
    if isinstance(value, np.ndarray):
        return value
    try:
        if isinstance(value, dict):
            return array_from_map({**value, "data": _bytes(f"{owner}.data", value["data"])})
        if not (isinstance(value, list) and _holds(value, _ITEMS[declared.dtype.kind])):
            raise ValueError("other items")
        with np.errstate(over="raise"):
            array = np.array(value, declared.dtype)
        return array if array.size else array.reshape(declared.shape.empty())
    except (KeyError, TypeError, ValueError, ArithmeticError):
        raise MessageTypeError(
            f"{owner}: expected {declared.dtype} of shape ({declared.shape.dims}) as nested lists, or "
            f"as dtype, shape and data in base64; got {short(value)}"
        ) from None


def _holds(value: Any, items: tuple[type, ...]) -> bool:
    if isinstance(value, list):
        return all(_holds(item, items) for item in value)
    return type(value) in items
