"""The fields that a message class may declare, and whether a value is what its declaration says.

Field types: `bool`, `int` (64 bits), `float`, `str`, `bytes`, `list[...]` and `dict[str, ...]` of
these, `T | None` of these, and NumPy arrays annotated with a `Shape`.
"""

from __future__ import annotations

import functools
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ArrayField",
    "Buffer",
    "LatePublishError",
    "Measured",
    "MessageTypeError",
    "Shape",
    "allows",
    "array_from_map",
    "array_to_map",
    "check_array",
    "is_field_type",
    "is_measured",
    "is_optional",
    "is_unicode",
    "short",
    "strip",
    "sure_tests",
    "type_name",
    "wrong_type",
]

Buffer = bytes | memoryview
T = TypeVar("T")
_NONE = type(None)


class MessageTypeError(TypeError):
    """A message class is declared wrongly, or a field holds what its declaration does not allow."""


class LatePublishError(RuntimeError):
    """A message was published after the call of `process` that had it as an output."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of an array field, as names and numbers: `Shape("H W 3")`."""

    dims: str

    def matches(self, shape: tuple[int, ...]) -> bool:
        lengths = _lengths(self.dims)
        return len(lengths) == len(shape) and all(
            length in (None, n) for length, n in zip(lengths, shape, strict=True)
        )

    def empty(self) -> tuple[int, ...]:
        """The shape of the array that an unset field holds: named dimensions are 0."""
        return tuple(length or 0 for length in _lengths(self.dims))


@functools.cache
def _lengths(dims: str) -> tuple[int | None, ...]:
    return tuple(int(dim) if dim.isdigit() else None for dim in dims.split())


class _MeasuredMarker:
    """Marks a field that holds a measurement of the run itself (a latency)."""


Measured = Annotated[T, _MeasuredMarker]
"""A field that is a measurement of the run, such as a latency. Replay does not compare it; it feeds
the recorded value to the tasks that read it."""


@dataclass(frozen=True, slots=True)
class ArrayField:
    """An array field of a message class: its element type and shape."""

    dtype: np.dtype[Any]
    shape: Shape


def is_field_type(declared: Any, *, inside: bool = False) -> bool:
    """Whether a field may have this type: one whose values msgpack stores and gives back.

    inside: whether it is the type of a list's or dict's items, which may also be `Any`, or a union
        without None.
    """
    base, _ = strip(declared)
    arguments = typing.get_args(base)
    if typing.get_origin(base) in (typing.Union, types.UnionType):
        return (inside or is_optional(base)) and all(
            option is _NONE or is_field_type(option, inside=True) for option in arguments
        )
    kind = typing.get_origin(base) or base
    if kind is dict and arguments:
        key, item = arguments
        return key is str and is_field_type(item, inside=True)
    if kind is list and arguments:
        [item] = arguments
        return is_field_type(item, inside=True)
    return kind in (bool, int, float, str, bytes, list, dict) or (inside and kind is Any)


def sure_tests(declared: Mapping[str, Any]) -> dict[str, str] | None:
    """For a class whose fields are all scalars: for each field, the Python expression in `{0}` which
    shows that it accepts a value and that the log gives this back as it is. None for other classes.

    The expressions use `is_unicode`.
    """
    tests = {}
    for name, kind in declared.items():
        test = _sure_test(kind)
        if test is None:
            return None
        tests[name] = test
    return tests


_LEAST, _MOST = -(2**63), 2**64 - 1
_SURE_TESTS: dict[Any, str] = {
    bool: "({0} is True or {0} is False)",
    int: f"(type({{0}}) is int and {_LEAST} <= {{0}} <= {_MOST})",
    float: f"(type({{0}}) is float or (type({{0}}) is int and {_LEAST} <= {{0}} <= {_MOST}))",
    str: "(type({0}) is str and ({0}.isascii() or is_unicode({0})))",
    bytes: "type({0}) is bytes",
    _NONE: "{0} is None",
}


def _sure_test(declared: Any) -> str | None:
    base, _ = strip(declared)
    options = typing.get_args(base) if is_optional(base) else (base,)
    if any(option not in _SURE_TESTS for option in options):
        return None
    return f"({' or '.join(_SURE_TESTS[option] for option in options)})"


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold `text`: it has no lone surrogate, as in a file name that is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def strip(declared: Any) -> tuple[Any, tuple[Any, ...]]:
    """The type inside `Annotated[...]`, and its annotations."""
    if typing.get_origin(declared) is Annotated:
        return declared.__origin__, declared.__metadata__
    return declared, ()


def is_measured(declared: Any) -> bool:
    return typing.get_origin(declared) is Annotated and _MeasuredMarker in declared.__metadata__


def is_optional(base: Any) -> bool:
    is_union = typing.get_origin(base) in (typing.Union, types.UnionType)
    return is_union and _NONE in typing.get_args(base)


def allows(declared: Any, value: Any) -> bool:
    """Whether a field of the type `declared` accepts `value`: a float field an int, an int field no
    bool."""
    return _test_of(declared)(value)


def _test_of(declared: Any) -> Callable[[Any], bool]:
    try:
        return _known_test(declared)
    except TypeError:  # it is annotated with something that has no hash
        return _made_test(declared)


def _made_test(declared: Any) -> Callable[[Any], bool]:
    base, _ = strip(declared)
    if typing.get_origin(base) in (typing.Union, types.UnionType):
        options = [_test_of(option) for option in typing.get_args(base)]
        return lambda value: any(test(value) for test in options)
    kind = typing.get_origin(base) or base
    if kind is Any:
        return lambda _: True
    if kind is float:
        return lambda value: isinstance(value, (float, int)) and not isinstance(value, bool)
    if kind is int:
        return lambda value: type(value) is int and _LEAST <= value <= _MOST
    arguments = typing.get_args(base)
    if kind is list and arguments:
        of_item = _test_of(arguments[0])
        return lambda value: isinstance(value, list) and all(map(of_item, value))
    if kind is dict:
        of_key, of_value = map(_test_of, arguments or (str, Any))
        return lambda value: (
            isinstance(value, dict)
            and all(map(of_key, value))
            and all(map(of_value, value.values()))
        )
    return lambda value: isinstance(value, kind)


_known_test = functools.cache(_made_test)
"""A type is taken apart once: each message that has a list or a dict is checked when it is published."""


def check_array(owner: str, name: str, value: Any, declared: ArrayField) -> None:
    """Raise `MessageTypeError` unless the field `name` of the class `owner` accepts `value`."""
    if not isinstance(value, np.ndarray):
        raise MessageTypeError(f"{owner}.{name}: expected an array, got {type(value).__name__}")
    if isinstance(value, np.ma.MaskedArray):
        raise MessageTypeError(
            f"{owner}.{name}: a masked array; the log keeps no mask: use filled()"
        )
    if value.dtype != declared.dtype or not declared.shape.matches(value.shape):
        raise MessageTypeError(
            f"{owner}.{name}: expected {declared.dtype} of shape ({declared.shape.dims}), "
            f"got {value.dtype} of shape {value.shape}"
        )


def wrong_type(owner: str, name: str, value: Any, declared: Any) -> MessageTypeError:
    """The error for a field of the class `owner` whose value its declaration forbids."""
    return MessageTypeError(
        f"{owner}.{name}: expected {type_name(declared)}, got {type(value).__name__} {short(value)}"
        + (" (an int has 64 bits)" if type(value) is int and declared is int else "")
    )


def type_name(declared: Any) -> str:
    base, _ = strip(declared)
    return base.__name__ if isinstance(base, type) else str(base)


def short(value: Any) -> str:
    """A value as an error text shows it: at most 60 characters."""
    if isinstance(value, np.ndarray):
        return f"<{value.dtype} {list(value.shape)}>"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # nested too deeply, or a `__repr__` that raises
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else f"{text[:57]}..."


def array_to_map(array: NDArray[Any]) -> dict[str, Any]:
    little = np.asarray(array, array.dtype.newbyteorder("<"))
    return {"dtype": little.dtype.str, "shape": list(array.shape), "data": little.tobytes()}


def array_from_map(packed: Any) -> NDArray[Any]:
    """The array in a map {dtype, shape, data}, as a view of `data`. `ValueError` for any other map."""
    try:
        dtype, shape, data = packed["dtype"], packed["shape"], packed["data"]
        # NumPy would make types of maps, lists and names with commas, and find a length for -1 or None.
        if not re.fullmatch(r"[<|][biufc]\d+", dtype):
            raise ValueError(f"dtype {dtype!r}")
        if not all(type(length) is int and length >= 0 for length in shape):
            raise ValueError(f"shape {shape!r}")
        return np.frombuffer(data, dtype).reshape(tuple(shape))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not an array: {error}") from error
