"""What others see of a message: views read from its `Envelope`, and the log writes it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.arrays import sampled
from flowrun.msgs.difference import differing_field
from flowrun.msgs.fields import LatePublishError
from flowrun.msgs.values import pack, unpack

__all__ = ["NOTHING_LATER", "TIME_ENDS", "Envelope", "Later"]

TIME_ENDS = 2**63
"""Every time of validity, in nanoseconds, is less."""


class Later(Protocol):
    """An array field that is made when somebody first reads it."""

    def made(self) -> NDArray[Any]:
        """The array, read-only; made by the first call, on any thread, and the same one until
        `forget`."""
        ...

    def sample(self) -> bytes:
        """`sampled` of the array when it was made."""
        ...

    def forget(self) -> None:
        """Keep the array no longer: who wants it makes it once more."""
        ...


NOTHING_LATER: Mapping[str, Later] = MappingProxyType({})


class Envelope:
    """What others see of a message. Only `publish`, and the runtime, change it.

    own: the message's own fields, as its task sets them; the same dict for ever, as is `fields`.
    arrays: the names of those that are arrays.
    fields: as they were published last, read-only all the way down; without those of `later` that nobody
        has read. `whole` gives all.
    later: by name, fields that are made when somebody first reads them.
    defers: whether fields may be made later; False where the log stores what is made.
    present: whether the message was published in this cycle.
    tov_ns: time of validity; 0 before the message was first published.
    beside: what the message's class keeps that is no field.
    packed: the msgpack map of the fields that are not arrays, if `publish` has made it: not where all
        are scalars, which nobody changes in place.
    is_open: whether it may be published; None before its task was first called.
    owner: the task and port that publish it, for errors.
    note_late: called with the error when it is published while it is not open.
    """

    __slots__ = (
        "arrays",
        "beside",
        "defers",
        "fields",
        "is_open",
        "later",
        "note_late",
        "own",
        "owner",
        "packed",
        "present",
        "tov_ns",
    )

    def __init__(
        self, own: dict[str, Any], fields: Mapping[str, Any], arrays: Collection[str]
    ) -> None:
        self.own = own
        self.arrays = arrays
        self.fields = dict(fields)
        self.later = NOTHING_LATER
        self.defers = True
        self.present = False
        self.beside: Any = None
        self.tov_ns = 0
        self.packed: bytes | None = None
        self.is_open: bool | None = True
        self.owner = ""
        self.note_late: Callable[[LatePublishError], None] | None = None

    def whole(self) -> dict[str, Any]:
        """`fields`, after making those that nobody has read."""
        for name in self.later:
            if name not in self.fields:
                self.make(name)
        return self.fields

    def make(self, name: str) -> NDArray[Any]:
        """Make one of `later`, which is in `fields` from now on. From any thread."""
        found = self.fields[name] = self.later[name].made()
        return found

    def defer(self, later: Mapping[str, Later]) -> None:
        """Show these fields when they are made, in place of what they were."""
        self.later = later
        for name in later:
            self.fields.pop(name, None)

    def forget_made(self) -> None:
        """Let go of what was made of `later`: the cycle is over, and few read a message after it."""
        for name, later in self.later.items():
            self.fields.pop(name, None)
            later.forget()

    def show(self, other: Envelope) -> None:
        """Show what `other` shows; copies nothing."""
        self.fields.update(other.fields)
        self.defer(other.later)
        self.packed = other.packed
        self.tov_ns = other.tov_ns
        self.present = other.present

    def correct(self, name: str, value: Any) -> None:
        """Show another value of one field that is no array."""
        self.fields[name] = value
        if self.packed is not None:
            self.packed = pack(self._without_arrays())

    def mend(self) -> str | None:
        """Show again what was published, if fields that are not arrays were changed in place since;
        returns the first of them. C code, such as heapq, changes lists that refuse it."""
        if not self.present or self.packed is None or pack(self._without_arrays()) == self.packed:
            return None
        published = unpack(self.packed)
        changed = differing_field(published, self._without_arrays())
        self.fields.update(published)
        return None if changed is None else changed.name

    def samples(self) -> dict[str, bytes]:
        """What shows whether arrays are changed in place; see `sampled`. Empty while nothing is
        published."""
        fields = self.fields
        if not self.present:
            return {}
        return {name: sampled(fields[name]) for name in self.arrays if name in fields}

    def changed_array(self, before: Mapping[str, bytes]) -> str | None:
        """The first array that was changed in place since `samples` gave `before`, or since it was
        made; None if there is none."""
        for name, now in self.samples().items():
            if now != (before[name] if name in before else self.later[name].sample()):
                return name
        return None

    def set_since(self) -> str | None:
        """The first scalar field that was set to another value since the message was published, which
        nobody sees; None if there is none."""
        for name, shown_value in self.fields.items():
            is_scalar = not isinstance(shown_value, (list, dict, np.ndarray))
            if is_scalar and name in self.own and not _is_same(self.own[name], shown_value):
                return name
        return None

    def _without_arrays(self) -> dict[str, Any]:
        fields = self.fields.items()
        return {name: value for name, value in fields if not isinstance(value, np.ndarray)}


def _is_same(own: Any, shown_value: Any) -> bool:
    """Whether `own`, which a task has set to anything, is the value that is shown; NaN is NaN."""
    try:
        return bool(own == shown_value or (own != own and shown_value != shown_value))  # noqa: PLR0124
    except Exception:  # noqa: BLE001  # an array or a tensor: nothing that is shown is one
        return False
