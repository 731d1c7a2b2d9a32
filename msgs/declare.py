"""What a message class declares: its fields, read from its annotations and those of its bases."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowrun.msgs.arrays import shown
from flowrun.msgs.fields import (
    ArrayField,
    MessageTypeError,
    Shape,
    allows,
    is_field_type,
    is_measured,
    is_optional,
    strip,
    type_name,
)

__all__ = ["Fields", "declared_fields"]

_VALUES = (bool, int, float, str, bytes, list, dict, tuple, set, np.ndarray, np.generic)
"""Types of values that a class may have set in the belief that they make a field."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a message class, those of its bases first.

    types: the declared type of each field.
    arrays: the element type and shape of those that are arrays.
    defaults: what each field holds before it is set.
    measured: the names of those that are measurements of the run.
    """

    types: dict[str, Any]
    arrays: dict[str, ArrayField]
    defaults: dict[str, Any]
    measured: frozenset[str]


def declared_fields(cls: type, message: type) -> Fields:
    """The fields of `cls`. Raises `MessageTypeError` for one that a message cannot have.

    message: `Message`, whose annotations declare no fields.
    """
    types = _field_types(cls, message)
    _check_own(cls, message)
    arrays: dict[str, ArrayField] = {}
    defaults: dict[str, Any] = {}
    for name, declared in types.items():
        if hasattr(message, name):
            raise MessageTypeError(f"{cls.__name__}.{name}: the name is taken by Message itself")
        array = _array_field(cls, name, declared)
        if array is not None:
            arrays[name] = array
            defaults[name] = shown(np.zeros(array.shape.empty(), array.dtype))
        else:
            defaults[name] = _default(cls, name, declared)
    measured = frozenset(name for name, declared in types.items() if is_measured(declared))
    return Fields(types, arrays, defaults, measured)


def _field_types(cls: type, message: type) -> dict[str, Any]:
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise MessageTypeError(
            f"{cls.__name__}: {error}; message types must be importable at module level"
        ) from error
    types: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base is message or not issubclass(base, message):
            continue
        for name in inspect.get_annotations(base):
            declared = hints[name]
            if ClassVar not in (declared, typing.get_origin(declared)):
                types[name] = declared
    return types


def _check_own(cls: type, message: type) -> None:
    """Refuse what looks like a field and is none, and an `__init__` that a run could not call."""
    for name, value in vars(cls).items():
        is_known = name in inspect.get_annotations(cls) or name in inspect.get_annotations(message)
        if name.startswith("_") or is_known or hasattr(message, name):
            continue
        if value is None or isinstance(value, _VALUES):
            kind = "int | None" if value is None else type(value).__name__
            raise MessageTypeError(
                f"{cls.__name__}.{name} has no type; write a field as {name}: {kind} = {value!r}, and a "
                f"constant as {name}: ClassVar = {value!r}"
            )
    if "__init__" in vars(cls):
        try:
            inspect.signature(cls.__init__).bind(None)  # type: ignore[misc]
        except TypeError:
            raise MessageTypeError(
                f"{cls.__name__}.__init__ needs arguments, and a run gives none; leave it out: "
                f"{cls.__name__}(name=value) sets fields"
            ) from None


def _array_field(cls: type, name: str, declared: Any) -> ArrayField | None:
    base, metadata = strip(declared)
    if typing.get_origin(base) is not np.ndarray and base is not np.ndarray:
        return None
    with suppress(TypeError, ValueError):  # no shape, no element type, or one without a size
        [shape] = [item for item in metadata if isinstance(item, Shape)]
        _, kind = typing.get_args(base)
        [element] = typing.get_args(kind)
        dtype = np.dtype(element)
        if dtype.kind in "biufc":
            return ArrayField(dtype, shape)
    raise MessageTypeError(
        f"{cls.__name__}.{name}: an array field is declared as "
        'Annotated[NDArray[np.float32], Shape("N 3")]'
    )


def _default(cls: type, name: str, declared: Any) -> Any:
    base, _ = strip(declared)
    if not is_field_type(declared):
        raise MessageTypeError(
            f"{cls.__name__}.{name}: unsupported type {type_name(declared)}; use bool, int, float, "
            "str, bytes, list, dict, T | None, or "
            'Annotated[NDArray[...], Shape("...")]'
        )
    if any(name in base.__dict__ for base in cls.__mro__):
        value = getattr(cls, name)
        if isinstance(value, dataclasses.Field):
            raise MessageTypeError(
                f"{cls.__name__}.{name}: a message is no dataclass; leave field() out: each message has "
                "a list or dict of its own"
            )
        if not allows(declared, value):
            raise MessageTypeError(
                f"{cls.__name__}.{name}: default {value!r} is not a {type_name(declared)}"
            )
        return value
    if is_optional(base):
        return None
    return (typing.get_origin(base) or base)()
