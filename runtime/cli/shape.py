"""Whether JSON that came from elsewhere is what a verb reads: a verb never fails on what it is not."""

from __future__ import annotations

from typing import Any

__all__ = ["fits"]


def fits(found: Any, shape: Any) -> bool:
    """Whether `found` has the shape: a class, several classes or shapes in a tuple of which one fits, a
    value, `{"key": shape}` with all these keys among others, those that end in "?" perhaps, or
    `[shape]` for a list of such items."""
    match shape:
        case type():
            return isinstance(found, shape) and not (shape is int and isinstance(found, bool))
        case tuple():
            return any(fits(found, it) for it in shape)
        case dict():
            return isinstance(found, dict) and all(
                fits(found[name], it) if (name := key.removesuffix("?")) in found else name != key
                for key, it in shape.items()
            )
        case [item]:
            return isinstance(found, list) and all(fits(it, item) for it in found)
        case _:
            return bool(found == shape)
