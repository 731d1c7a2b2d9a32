"""Values of messages as reports show them: plain, as numbers, and what kind of difference they make."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from flowrun.msgs.message import Message

if TYPE_CHECKING:  # who reads answers that are known needs no graph
    from flowrun.runtime.replay.compare import Recorded

__all__ = ["fields_of", "kind_of", "numbers_of", "plain"]

_MOST_NUMBERS = 4096
"""Numbers of an array that are kept; of a larger one its type and shape."""
_NUMBER = re.compile(r"\s*-?\d{1,9}(\.\d+)?\s*")


def fields_of(recorded: Recorded, made: Message) -> dict[str, Any]:
    """The fields of a recorded message, decoded as the class of `made`."""
    try:
        return made.decode_fields(recorded.payload)
    except ValueError:
        return {"bytes": f"{len(recorded.payload)} bytes that are not a {type(made).__name__}"}


def plain(
    fields: Mapping[str, Any] | None, *, but: Iterable[str] = (), most: int = _MOST_NUMBERS
) -> dict[str, Any] | None:
    """Fields as JSON and msgpack hold them; arrays of up to `most` numbers as lists, larger ones by type
    and shape.

    but: names that are left out.
    """
    if fields is None:
        return None
    left_out = frozenset(but)
    return {
        name: value if value is None or isinstance(value, (str, int)) else _plain(value, most)
        for name, value in fields.items()
        if name not in left_out
    }


def _plain(value: Any, most: int) -> Any:
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, np.ndarray):
        if value.size <= most and value.dtype.kind in "biuf":
            return _plain(value.tolist(), most)
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, (bytes, memoryview)):
        return f"{len(value)} bytes"
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [_plain(item, most) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item, most) for name, item in value.items()}
    return value


def numbers_of(fields: dict[str, Any]) -> dict[str, float]:
    """What of a message may be plotted: its numbers, texts that are a number, how many there are of what
    it lists; but for what says which frame it is about."""
    found: dict[str, float] = {}
    for name, value in fields.items():
        if name.startswith("frame_"):
            continue
        number: Any = value
        if isinstance(value, str):
            number = float(value) if _NUMBER.fullmatch(value) else None
        elif isinstance(value, list):
            name, number = f"number of {name}", len(value)  # noqa: PLW2901
        if isinstance(number, (bool, int, float, np.number)) and math.isfinite(number):
            found[name] = float(number)
    return found


def kind_of(
    field: str,
    recorded: Mapping[str, Any] | None,
    now: Mapping[str, Any] | None,
    *,
    is_picture: bool,
) -> str:
    """What kind of difference it is, in a word.

    field: the one that differs. recorded, now: plain fields of both messages; None where there is none.
    """
    if field == "error":
        return "error"
    if field == "tov_ns":
        return "time"
    if recorded is None or now is None:
        return "missing" if now is None else "besides"
    if is_picture:
        return "picture"
    if "boxes" in now:
        return "boxes"
    value = now.get(field)
    if isinstance(value, (bool, int, float)):
        return "number"
    return "text" if isinstance(value, str) else "value"
