"""The values of a published message: as the log gives them back, and read-only all the way down.

`as_stored` packs fields and unpacks them again, so that what a consumer sees is what the log returns:
np.float64 becomes float, a tuple a list, a StrEnum a str. Lists and dicts become `ReadOnlyList` and
`ReadOnlyDict`; copies of these are plain lists and dicts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, SupportsIndex

import msgpack
import numpy as np

from flowrun.msgs.fields import MessageTypeError, allows, short, wrong_type

__all__ = ["ReadOnlyDict", "ReadOnlyList", "as_stored", "pack", "thawed", "unpack"]

_CHANGES_LIST = {
    "__delitem__": "delete an item of",
    "__iadd__": "extend",
    "__imul__": "repeat",
    "__setitem__": "set an item of",
    "append": "append to",
    "clear": "clear",
    "extend": "extend",
    "insert": "insert into",
    "pop": "pop from",
    "remove": "remove from",
    "reverse": "reverse",
    "sort": "sort",
}
_CHANGES_DICT = {
    "__delitem__": "delete a key of",
    "__ior__": "update",
    "__setitem__": "set a key of",
    "clear": "clear",
    "pop": "pop from",
    "popitem": "pop from",
    "setdefault": "set a key of",
    "update": "update",
}


class ReadOnlyList(list[Any]):
    """A list in a published message. What would change it raises `TypeError`."""

    __slots__ = ()

    def __copy__(self) -> list[Any]:
        return list(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        return [copy.deepcopy(item, memo) for item in self]

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return list, (thawed(self),)


class ReadOnlyDict(dict[Any, Any]):
    """A dict in a published message. What would change it raises `TypeError`."""

    __slots__ = ()

    def __copy__(self) -> dict[Any, Any]:
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[Any, Any]:
        return {key: copy.deepcopy(value, memo) for key, value in self.items()}

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return dict, (thawed(self),)


def _refusing(action: str, kind: str) -> Callable[..., NoReturn]:
    def refuse(self: object, *_: object, **__: object) -> NoReturn:  # noqa: ARG001
        raise TypeError(
            f"inputs are read-only: cannot {action} a {kind} of a message; copy.deepcopy() the {kind}, "
            "or publish the new value on an output"
        )

    return refuse


for _name, _action in _CHANGES_LIST.items():
    setattr(ReadOnlyList, _name, _refusing(_action, "list"))
for _name, _action in _CHANGES_DICT.items():
    setattr(ReadOnlyDict, _name, _refusing(_action, "dict"))


def thawed(value: Any) -> Any:
    """`value` with plain lists and dicts of its own, which may be changed."""
    if isinstance(value, list):
        return [thawed(item) for item in value]
    if isinstance(value, dict):
        return {key: thawed(item) for key, item in value.items()}
    return value


def as_stored(
    owner: str, fields: Mapping[str, Any], declared: Mapping[str, Any]
) -> tuple[bytes, dict[str, Any]]:
    """The msgpack map of fields, and the values that the log returns for it, read-only.

    owner: the message's class, for errors.
    fields: its fields.
    declared: the types of those to pack.

    Raises `MessageTypeError` naming the first field whose value is none of its type, or none that
    msgpack holds.
    """
    chosen = {name: fields[name] for name in declared}
    try:
        data = pack(chosen)
        stored: dict[str, Any] = unpack(data)
    except _REFUSED:
        for name, value in chosen.items():
            _check_storable(owner, name, value, declared[name])
        raise
    for name, kind in declared.items():
        if not allows(kind, stored[name]):
            raise wrong_type(owner, name, fields[name], kind)
    return data, stored


_REFUSED = (TypeError, ValueError, OverflowError, RecursionError, BufferError)
"""What msgpack raises for values that it does not hold."""


def _check_storable(owner: str, name: str, value: Any, declared: Any) -> None:
    try:
        stored = unpack(pack(value))
    except _REFUSED as error:
        if not allows(declared, value):
            raise wrong_type(owner, name, value, declared) from None
        raise MessageTypeError(
            f"{owner}.{name}: the log cannot hold {short(value)}: {_reason(error)}"
        ) from None
    if not allows(declared, stored):
        raise wrong_type(owner, name, value, declared)


def pack(value: Any) -> bytes:
    """The value in msgpack. Raises what msgpack raises, or `TypeError` for a type without a place
    there."""
    packer = msgpack.Packer(default=_plain, buf_size=4096)
    packed: bytes = packer.pack(value)
    return packed


def unpack(data: bytes) -> Any:
    """The value that `pack` packed, with read-only lists and dicts."""
    return msgpack.unpackb(
        data,
        list_hook=ReadOnlyList,
        object_hook=ReadOnlyDict,
        ext_hook=_refuse_extension,
        strict_map_key=False,
    )


def _plain(value: Any) -> Any:
    """A NumPy scalar as Python's own; msgpack knows all other types that a field may hold."""
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, (np.float16, np.float32)):
        return float(value)
    if isinstance(value, int):
        raise OverflowError("an int has 64 bits")
    hint = ""
    if isinstance(value, np.ndarray):
        hint = "; declare an array field for it, or use tolist()"
    elif hasattr(value, "item") and hasattr(value, "dtype"):
        hint = "; use item()"
    raise TypeError(
        f"{type(value).__name__} {short(value)} is none of bool, int, float, str, bytes, list, dict "
        f"and None{hint}"
    )


def _refuse_extension(code: int, data: bytes) -> NoReturn:  # noqa: ARG001
    raise TypeError(f"an extension type of msgpack (code {code}) has no place in a field")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object[error.start]!r} at {error.start} of a text is not Unicode"
    if isinstance(error, RecursionError) or "recursion limit" in str(error):
        return "it is nested too deeply, or contains itself"
    return str(error)
