"""The first field in which two messages differ, with both values in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["ArrayDifference", "FieldDifference", "differing_field"]


@dataclass(frozen=True, slots=True)
class ArrayDifference:
    """How two arrays of one shape and type differ.

    index: the index of the first element that differs.
    count: how many elements differ.
    size: how many elements there are.
    largest: the greatest difference of two elements; None where they are not numbers.
    """

    index: tuple[int, ...]
    count: int
    size: int
    largest: float | None


class FieldDifference(NamedTuple):
    """A field that differs: its name, both values in words, and how two arrays differ."""

    name: str
    before: str
    now: str
    array: ArrayDifference | None = None


def differing_field(before: Mapping[str, Any], now: Mapping[str, Any]) -> FieldDifference | None:
    """The first field that differs, in value or type; None where all are the same.

    Fields are compared in the order of `now`; those that only `before` has come last.
    """
    for name in [*now, *(key for key in before if key not in now)]:
        if name not in before or name not in now:
            there = "(no such field)"
            return FieldDifference(name, repr(before.get(name, there)), repr(now.get(name, there)))
        old, new = before[name], now[name]
        if isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
            if old.dtype != new.dtype or old.tobytes() != new.tobytes() or old.shape != new.shape:
                return _describe_arrays(name, old, new)
        elif _kind(old) is not _kind(new) or repr(old) != repr(new):
            return FieldDifference(name, repr(old), repr(new))
    return None


def _kind(value: Any) -> type:
    """The type as the log knows it: lists and dicts of messages are of classes of their own."""
    return next((kind for kind in (list, dict) if isinstance(value, kind)), type(value))


def _describe_arrays(name: str, before: NDArray[Any], now: NDArray[Any]) -> FieldDifference:
    if before.shape != now.shape or before.dtype != now.dtype:
        old, new = (f"{array.dtype} {list(array.shape)}" for array in (before, now))
        return FieldDifference(name, old, new)
    # Compared as bytes: NaN equals the same NaN, and -0.0 is not 0.0.
    differs = (_as_bytes(before) != _as_bytes(now)).any(axis=1).reshape(before.shape)
    where = np.argwhere(differs)
    first = tuple(int(i) for i in where[0])
    what, largest = f"{len(where)} of {before.size} elements differ", None
    if before.dtype.kind in "biuf":
        with np.errstate(invalid="ignore"):  # the difference of two infinities
            distance = np.abs(before.astype(np.float64) - now.astype(np.float64))
        largest = float(distance.max())
        what += f", by {largest:g} at most"
    return FieldDifference(
        name,
        f"{before[first]} at {list(first)}",
        f"{now[first]} there; {what}",
        ArrayDifference(first, len(where), before.size, largest),
    )


def _as_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.frombuffer(array.tobytes(), np.uint8).reshape(array.size, array.dtype.itemsize)
