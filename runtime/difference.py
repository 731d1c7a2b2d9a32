"""Two messages that should be the same: which field differs, and both values in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["differing_field"]


def differing_field(
    before: Mapping[str, Any], now: Mapping[str, Any]
) -> tuple[str, str, str] | None:
    """Name and both values, as text, of the first field of `now`, then of `before`, that differs.

    None where all are the same, in type too.
    """
    for name in [*now, *(key for key in before if key not in now)]:
        if name not in before or name not in now:
            there = "(no such field)"
            return name, repr(before.get(name, there)), repr(now.get(name, there))
        old, new = before[name], now[name]
        if isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
            if old.dtype != new.dtype or old.tobytes() != new.tobytes() or old.shape != new.shape:
                return name, *_describe_arrays(old, new)
        elif type(old) is not type(new) or repr(old) != repr(new):
            return name, repr(old), repr(new)
    return None


def _describe_arrays(before: NDArray[Any], now: NDArray[Any]) -> tuple[str, str]:
    if before.shape != now.shape or before.dtype != now.dtype:
        return f"{before.dtype} {list(before.shape)}", f"{now.dtype} {list(now.shape)}"
    # By their bytes: NaN is as good as the same NaN, and -0.0 is not 0.0.
    differs = (_as_bytes(before) != _as_bytes(now)).any(axis=-1).reshape(before.shape)
    where = np.argwhere(differs)
    first = tuple(int(i) for i in where[0])
    what = f"{len(where)} of {before.size} elements differ"
    if before.dtype.kind in "biuf":
        with np.errstate(invalid="ignore"):  # of two infinities
            distance = np.abs(before.astype(np.float64) - now.astype(np.float64))
        what += f", by {distance.max():g} at most"
    return f"{before[first]} at {list(first)}", f"{now[first]} there; {what}"


def _as_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.frombuffer(array.tobytes(), np.uint8).reshape(-1, array.dtype.itemsize)
