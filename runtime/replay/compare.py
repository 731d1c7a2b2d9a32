"""Compares a message that a replay made with the recorded one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from flowrun.msgs.difference import ArrayDifference, FieldDifference, differing_field
from flowrun.msgs.message import Message
from flowrun.runtime.errors import UsageError
from flowrun.runtime.events import Failed

__all__ = [
    "Difference",
    "OnDifference",
    "OnMessage",
    "Recorded",
    "Tolerance",
    "compare",
    "compare_bare",
    "is_same_error",
    "says_the_same",
]

_ADDRESS = re.compile("0x[0-9a-fA-F]+")


class Recorded:
    """A recorded message.

    tov_ns: time of validity.
    read: gives its bytes, as its class decodes them.
    fields: gives its fields, if they can be had without those bytes: a picture is decoded anyway.
    """

    __slots__ = ("_fields", "_payload", "_read", "tov_ns")

    def __init__(
        self,
        tov_ns: int,
        read: Callable[[], memoryview],
        fields: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self.tov_ns = tov_ns
        self._read = read
        self._fields = fields
        self._payload: memoryview | None = None

    @property
    def payload(self) -> memoryview:
        """Its bytes."""
        if self._payload is None:
            self._payload = self._read()
        return self._payload

    def load_into(self, message: Message) -> None:
        """Load it into `message`, and publish that. `ValueError` for bytes of another kind."""
        fields = message.decode_fields(self.payload) if self._fields is None else self._fields()
        message.restore(fields, tov_ns=self.tov_ns)


@dataclass(frozen=True, slots=True)
class Difference:
    """A message that the replay did not make as it was recorded.

    field: the field that differs, "tov_ns", or "" for the message as a whole.
    recorded: the recorded value, as text.
    replayed: the value that the replay made, as text.
    array: for two arrays, where they differ and by how much.
    hint: what the task does that may be why, such as keeping an input.
    """

    cycle: int
    task: str
    port: str
    field: str
    recorded: str
    replayed: str
    array: ArrayDifference | None = None
    hint: str = ""

    def __str__(self) -> str:
        where = f"cycle {self.cycle}, task {self.task!r}, port {self.port!r}"
        what = f", field {self.field!r}" if self.field else ""
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{where}{what}:\n  recorded: {self.recorded}\n  replayed: {self.replayed}{hint}"


def is_same_error(recorded: Failed, replayed: Failed) -> bool:
    """Whether a task raised the same error again: of the same type, in the same place.

    Its text may differ, as it may hold an address or a duration. An error whose place is not known
    must have the same text, but for addresses.
    """
    if (recorded.phase, _type_of(recorded)) != (replayed.phase, _type_of(replayed)):
        return False
    is_there = recorded.place != "" and recorded.place == replayed.place
    return is_there or says_the_same(recorded, replayed)


def says_the_same(recorded: Failed, replayed: Failed) -> bool:
    """Whether two errors have the same text, but for addresses of objects."""
    return _ADDRESS.sub("", recorded.text) == _ADDRESS.sub("", replayed.text)


def _type_of(error: Failed) -> str:
    return error.text.partition(":")[0]


OnDifference = Callable[[Difference, Recorded | None, Message | None], None]
"""Called with a difference, the recorded message, and the one that was made instead; None for a message
that is missing, such as after an error."""

OnMessage = Callable[[str, str, Recorded | None, Message, Difference | None], None]
"""Called with a task, its port, the recorded message or None, the message that was made, which is absent
where none was, and how they differ; None where they do not, and where the log holds no such messages."""


class Tolerance:
    """How far messages may be from the recorded ones, for models that are not bit-exact.

    limits: by message class, or "Class.field", the greatest distance of two numbers, also of those in
        arrays, lists and maps; None allows any value. A class's limit holds for all its fields that
        are or hold numbers. A text must be the same, unless its "Class.field" is None.
    """

    def __init__(self, limits: Mapping[str, float | None] | None = None) -> None:
        self._limits = dict(limits or {})

    @property
    def limits(self) -> Mapping[str, float | None]:
        """As they were given."""
        return self._limits

    def holds_for(self, kind: type[Message]) -> bool:
        """Whether any field of the class has a limit."""
        return any(limit.partition(".")[0] == kind.__name__ for limit in self._limits)

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Tolerance:
        """From `Class=1e-3`, `Class.field=2` and `Class.field=any`; `UsageError` for other texts."""
        limits: dict[str, float | None] = {}
        for text in texts:
            name, equals, value = text.partition("=")
            try:
                limit = None if value == "any" else float(value)
            except ValueError:
                limit = math.nan
            if not equals or not name or not (limit is None or limit >= 0):
                raise UsageError(
                    f"tolerance {text}: expected MSG=NUMBER, MSG.FIELD=NUMBER or MSG.FIELD=any, "
                    "such as DetectionsMsg=0.001 or PromptResponseMsg.response=any"
                )
            limits[name] = limit
        return cls(limits)

    def check(self, known: Sequence[type[Message]]) -> None:
        """Raise `UsageError` for a name that is neither one of the `known` classes nor a field."""
        fields = {f"{kind.__name__}.{name}" for kind in known for name in kind.defaults}
        names = {kind.__name__ for kind in known}
        for name, limit in self._limits.items():
            own = {kind for kind in known if kind.__name__ == name.partition(".")[0]}
            if len(own) > 1:
                paths = sorted(f"{kind.__module__}.{kind.__name__}" for kind in own)
                raise UsageError(
                    f"tolerance {name}: the graph has several messages of that name, "
                    f"{' and '.join(paths)}; rename one of them"
                )
            if name not in names and name not in fields:
                raise UsageError(
                    f"tolerance {name}: no such message or field in the graph; messages: "
                    + ", ".join(sorted(names))
                )
            if name in names and limit is None:
                raise UsageError(
                    f"tolerance {name}=any: name the field, {name}.FIELD=any; "
                    "to leave a task out, feed it from the log"
                )

    def beyond(
        self, kind: type[Message], before: Mapping[str, Any], now: Mapping[str, Any]
    ) -> str | None:
        """The first field in which the two differ by more than its limit; None if there is none.

        Fields without a limit must be the same."""
        name = kind.__name__
        for field in [*before, *now]:
            if field not in before or field not in now:
                return field
        for field, old in before.items():
            own = f"{name}.{field}"
            if own in self._limits and self._limits[own] is None:
                continue
            limit = self._limits.get(own, self._limits.get(name))
            if limit is None:
                if not _is_same(old, now[field]):
                    return field
            elif not _is_near(old, now[field], limit):
                return field
        return None


def _is_same(old: Any, new: Any) -> bool:
    """Whether two values are the same to the bit: NaN has many, and 0.0 is not -0.0."""
    if differing_field({"": old}, {"": new}) is not None:
        return False
    before, now = (msgpack.packb(value, default=lambda _array: None) for value in (old, new))
    return bool(before == now)


def _is_near(old: Any, new: Any, limit: float) -> bool:
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        if old.dtype != new.dtype or old.shape != new.shape:
            return False
        if old.dtype.kind == "f":
            old, new = old.astype(np.float64), new.astype(np.float64)
            return np.allclose(old, new, rtol=0, atol=limit, equal_nan=True)
        if old.dtype.kind not in "iu":
            return old.tobytes() == new.tobytes()
        # Floats are too coarse for times and ids; modulo 2**64 this is exact.
        higher, lower = np.maximum(old, new), np.minimum(old, new)
        apart = higher.astype(np.uint64) - lower.astype(np.uint64)
        return bool(np.all(apart <= np.uint64(int(min(limit, 2**64 - 1)))))
    if isinstance(old, (int, float)) and isinstance(new, (int, float)):
        if isinstance(old, bool) or isinstance(new, bool):
            return old is new
        return old == new or abs(old - new) <= limit or (old != old and new != new)  # noqa: PLR0124
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(
            _is_near(a, b, limit) for a, b in zip(old, new, strict=True)
        )
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_is_near(old[k], new[k], limit) for k in old)
    return type(old) is type(new) and bool(old == new)


def compare_bare(tov_ns: int | None, message: Message) -> FieldDifference | None:
    """How a message differs from one that was logged without payload: in whether it came, or in its
    time of validity.

    tov_ns: the recorded one; None if no message was recorded.
    """
    if tov_ns is None:
        return FieldDifference("", "no message", repr(message)) if message.present else None
    if not message.present:
        return FieldDifference("", "a message", "no message")
    if tov_ns != message.tov_ns:
        return FieldDifference("tov_ns", str(tov_ns), str(message.tov_ns))
    return None


def compare(
    recorded: Recorded | None, message: Message, tolerance: Tolerance
) -> FieldDifference | bool:
    """The first difference; True for the recorded bytes, False for other bytes within `tolerance`.

    Measurements and fields that were not recorded are not compared. Measurements, and values within
    the tolerance, are set to the recorded ones, so that the tasks downstream see the same.
    """
    if recorded is None:
        return FieldDifference("", "no message", repr(message))
    tov_ns, payload = recorded.tov_ns, recorded.payload
    if not message.present:
        return FieldDifference("", f"a message of {len(payload)} bytes", "no message")
    kind = type(message)
    try:
        fields = message.decode_fields(payload)
    except ValueError as error:
        what = f"{len(payload)} bytes that are not a {kind.__name__} ({error})"
        return FieldDifference("", what, repr(message))
    for name in message.measured_fields & fields.keys():
        message.envelope.correct(name, fields[name])
    if tov_ns != message.tov_ns:
        return FieldDifference("tov_ns", str(tov_ns), str(message.tov_ns))
    if b"".join(message.view().encode()) == payload:
        return True
    # Fields that were added to the class since the recording have nothing to compare them with.
    made = message.envelope.whole()
    old = {name: value for name, value in made.items() if name in fields}
    if len(old) < len(made) and all(
        name in old and _is_same(value, old[name]) for name, value in fields.items()
    ):
        return True
    if tolerance.holds_for(kind):
        field = tolerance.beyond(kind, fields, old)
        if field is None:
            recorded.load_into(message)
            return False
        fields, old = (
            {key: it for key, it in side.items() if key == field} for side in (fields, old)
        )
    same = FieldDifference("", "the same fields in other bytes", "(encoded differently)")
    return differing_field(fields, old) or same
