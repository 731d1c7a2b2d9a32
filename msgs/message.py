"""What a message is: typed fields, an envelope; one declaration gives slot, bytes and schema.

A message class declares its fields as annotations, with a default where zero is not a good one::

    class PromptResponseMsg(Message):
        prompt: str
        response: str
        latency_ms: Measured[float]

    class DepthMsg(Message):
        depth_m: Annotated[NDArray[np.float32], Shape("H W")]

`fields` lists the types that a field may have.

The runtime creates the instances once and reuses them every cycle. A task that has an `Output[M]`
sets fields and calls `publish()`; a task that has an `Input[M]` sees a read-only view of the same
fields. Fields live in the instance's `__dict__`, in the order of declaration, so that a message is
encoded without building anything first; the envelope lives in slots.

Types are checked when a class is declared, by `flowrun.runtime.testing` at each publish, and for
every message that goes into the log, so that a replay can make again whatever a run has logged.
"""

from __future__ import annotations

import copy
import inspect
import math
import operator
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn, Protocol, Self, SupportsIndex

import msgpack
import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.fields import (
    ArrayField,
    Buffer,
    MessageTypeError,
    Shape,
    allows,
    array_from_map,
    array_to_map,
    check_array,
    is_field_type,
    is_measured,
    is_optional,
    short,
    strip,
    type_check,
    type_name,
)
from flowrun.msgs.schema import json_schema

__all__ = ["HasNow", "Message"]


class HasNow(Protocol):
    """Where `publish` reads the cycle's time."""

    now_ns: int


@dataclass(slots=True)
class _Epoch:
    now_ns: int = 0


_EPOCH = _Epoch()


class Message:
    """Base class of messages. Subclasses declare fields; they define no `__init__`.

    Envelope, set by `publish`:
        tov_ns: time of validity: when what the message describes was true (a picture: when it was
            taken), in nanoseconds since 1970 UTC.
        present: whether the message was published in this cycle.

    A message is never copied within a cycle, and an unpublished one is never seen.
    """

    __slots__ = ("__dict__", "_buffers", "_now", "_view", "present", "tov_ns")

    tov_ns: int
    present: bool

    schema_name: ClassVar[str]
    """Name of the schema in the log; the class's name unless the class says otherwise."""
    schema_encoding: ClassVar[str] = "jsonschema"
    message_encoding: ClassVar[str] = "msgpack"

    field_types: ClassVar[dict[str, Any]]
    """Declared type of each field, in order."""
    defaults: ClassVar[dict[str, Any]]
    """What each field holds before it is set, in order."""
    array_fields: ClassVar[dict[str, ArrayField]]
    measured_fields: ClassVar[frozenset[str]]
    is_view: ClassVar[bool] = False
    is_plain: ClassVar[bool]
    """Whether `msgpack` of the fields is the whole encoding (no arrays, no own encoding)."""
    has_containers: ClassVar[bool]
    """Whether a default is a list or a dict, of which each message needs one of its own."""
    _reader: ClassVar[type[Message]]
    has_sure_types: ClassVar[Callable[[dict[str, Any]], bool]]
    """Whether the types of the fields alone show that `check_fields` accepts them. Arrays and the range
    of an integer are left out; the packer checks the latter. A deleted field raises `KeyError`, as a
    rule. It takes a twentieth of a microsecond: the log calls it for each message."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__dict__.get("is_view", False):
            return
        if "schema_name" not in cls.__dict__:
            cls.schema_name = cls.__name__
        _declare_fields(cls)
        # The class of the views that inputs are: a subclass, so that reading costs nothing and
        # isinstance holds. A check in __setattr__ of the message itself would add 0.25 us to every
        # field that a task sets.
        namespace = {"__module__": cls.__module__, "is_view": True}
        cls._reader = type(cls.__name__, (_ReadOnly, cls), namespace)

    def __init__(self, **fields: Any) -> None:
        """An unpublished message: defaults, then `fields`; `MessageTypeError` names a wrong one."""
        for name in fields:
            if name not in self.defaults:
                raise _unknown_field(self, name)
        self.present = False
        self.tov_ns = 0
        self._now: HasNow = _EPOCH
        self._buffers: dict[str, NDArray[Any]] = {}
        self.__dict__.update(self._fresh())
        self.__dict__.update(fields)
        view = object.__new__(self._reader)
        object.__setattr__(view, "__dict__", self.__dict__)
        object.__setattr__(view, "_view", self)
        self._view: Message = view

    @classmethod
    def _fresh(cls) -> dict[str, Any]:
        if not cls.has_containers:
            return cls.defaults
        return {
            name: copy.deepcopy(value) if isinstance(value, (list, dict)) else value
            for name, value in cls.defaults.items()
        }

    def bind_time(self, now: HasNow) -> None:
        """Make `publish` use `now.now_ns` where it is given no `tov_ns`. Called once per slot."""
        self._now = now

    def allocate(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """Set array field `name` to the slot's own array of `shape`, and return it for writing.

        The memory is allocated once and reused every cycle; it grows when a shape needs more than
        any before. It contains whatever the slot held last. Raises `MessageTypeError`
        for a shape that the declaration forbids.
        """
        declared = self.array_fields.get(name)
        if declared is None or not declared.shape.matches(shape):
            raise MessageTypeError(
                f"{type(self).__name__}.{name}: cannot allocate shape {shape}; array fields: "
                f"{ {k: v.shape.dims for k, v in self.array_fields.items()} }"
            )
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = np.empty(size, declared.dtype)
            self._buffers[name] = buffer
        array = buffer[:size].reshape(shape)
        self.__dict__[name] = array
        return array

    def publish(self, *, tov_ns: SupportsIndex | None = None) -> None:
        """Make the message visible to the tasks downstream, in this cycle.

        Arrays become read-only until the slot is reused. Publishing twice in one cycle keeps the
        last values. Copies nothing.

        tov_ns: time of validity in nanoseconds; the cycle's time if not given. NumPy's integers
            become an `int`; what is no whole number is refused when the message is checked.
        """
        if tov_ns is None:
            self.tov_ns = self._now.now_ns
        else:
            self.tov_ns = tov_ns if tov_ns.__class__ is int else _whole(tov_ns)
        self.present = True
        if self.array_fields:
            self._seal()

    def _seal(self) -> None:
        fields = self.__dict__
        for name in self.array_fields:
            array = fields[name]
            if isinstance(array, np.ndarray):
                array.setflags(write=False)

    def view(self) -> Self:
        """The read-only view that a task gets as its input: the same fields, no copy."""
        return typing.cast("Self", self._view)

    def clear(self) -> None:
        """Make the message unpublished, with default fields. Called before each cycle."""
        self.present = False
        self.__dict__.clear()  # including attributes that are not fields
        self.__dict__.update(self._fresh())

    def copy(self) -> Self:
        """The message as it is now, for use beyond its cycle.

        Copies arrays that live in a slot (this one, or another one whose array was passed on) and
        views of a writable array. Shares an array of the task's own that is read-only all the way
        down, since nobody writes to it.
        """
        writer = self._view if self.is_view else self
        other = type(writer)()
        for name, value in self.__dict__.items():
            copied = value
            if isinstance(value, (list, dict)):
                copied = copy.deepcopy(value)
            elif isinstance(value, np.ndarray) and not _is_frozen(value):
                copied = value.copy()
                copied.setflags(write=False)
            other.__dict__[name] = copied
        other.tov_ns = self.tov_ns
        other.present = self.present
        return typing.cast("Self", other)

    def adopt(self, other: Message) -> None:
        """Take the fields of `other`, a published message that nobody uses any longer; copy nothing."""
        self.__dict__.update(other.__dict__)
        self.tov_ns = other.tov_ns
        self.present = other.present

    def encode(self) -> tuple[Buffer, ...]:
        """The message's bytes in the log, as one or more parts to be written in this order.

        A part that is a `memoryview` refers to the message's own array and is valid until the slot
        is reused. Raises `MessageTypeError` naming a field whose value is not of its type.
        """
        self._check_types()
        if not self.array_fields:
            return (_pack(self, self.__dict__),)
        packed = {
            name: array_to_map(value) if isinstance(value, np.ndarray) else value
            for name, value in self.__dict__.items()
        }
        return (_pack(self, packed),)

    @classmethod
    def decode_fields(cls, data: Buffer) -> dict[str, Any]:
        """The fields held in `data`, as `encode` made it. Raises `ValueError` on other bytes."""
        try:
            fields = msgpack.unpackb(data, strict_map_key=False)
        except TypeError as error:  # a map's key is a list
            raise ValueError(f"{cls.__name__}: {error}") from error
        if not isinstance(fields, dict):
            raise ValueError(  # noqa: TRY004  # it is the bytes that are wrong
                f"{cls.__name__}: expected a map, got {type(fields).__name__}"
            )
        for name in cls.array_fields:
            if name in fields:
                fields[name] = array_from_map(fields[name])
        return fields

    def load(self, data: Buffer) -> None:
        """Set the fields from `data`, as `encode` made it. A field that is not in `data` keeps its
        default; one that the class no longer has is ignored."""
        fields = self.decode_fields(data)
        self.__dict__.update((k, v) for k, v in fields.items() if k in self.defaults)

    @classmethod
    def schema(cls) -> bytes:
        """The schema of the message as the log stores it (`schema_encoding` says which kind)."""
        return json_schema(cls)

    def check_fields(self) -> None:
        """Raise `MessageTypeError` naming the first field whose value its declaration forbids."""
        fields = self.__dict__
        for name in fields:
            if name not in self.defaults:
                raise _unknown_field(self, name)
        for name, declared in self.field_types.items():
            if name not in fields:
                raise MessageTypeError(f"{type(self).__name__}.{name}: the field was deleted")
            value = fields[name]
            array = self.array_fields.get(name)
            if array is not None:
                check_array(type(self).__name__, name, value, array)
            elif not allows(declared, value):
                raise MessageTypeError(
                    f"{type(self).__name__}.{name}: expected {type_name(declared)}, "
                    f"got {type(value).__name__} {short(value)}"
                    + (" (an int has 64 bits)" if type(value) is int and declared is int else "")
                )

    def check_envelope(self) -> None:
        """Raise `MessageTypeError` unless `tov_ns` is an `int` from 0 to 2**63 - 1."""
        if not (isinstance(self.tov_ns, int) and 0 <= self.tov_ns < 2**63):
            raise MessageTypeError(
                f"{type(self).__name__}: tov_ns must be a whole number of nanoseconds, 0 or more; "
                f"got {self.tov_ns!r}"
            )

    def check_published(self) -> None:
        """Raise `MessageTypeError` if the log would refuse the message. Copies no array."""
        self.check_envelope()
        if not self.array_fields or type(self).encode is not Message.encode:
            self.encode()
            return
        self._check_types()
        arrays = self.array_fields
        _pack(self, {k: None if k in arrays else v for k, v in self.__dict__.items()})

    def _check_types(self) -> None:
        """`check_fields`, in a quicker way where the types alone decide."""
        fields = self.__dict__
        try:
            is_sure = type(self).has_sure_types(fields)
        except KeyError:
            is_sure = False
        if not is_sure:
            self.check_fields()
            return
        for name, array in self.array_fields.items():
            check_array(type(self).__name__, name, fields[name], array)

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={short(v)}" for k, v in self.__dict__.items())
        return f"{type(self).__name__}({shown})"


class _ReadOnly(Message):
    """Mixed into the class of a message's view: fields are read as usual; setting one is an error."""

    __slots__ = ()
    is_view = True

    # The envelope is read from the message, which alone holds it: publishing stays one store.
    tov_ns = property(lambda self: self._view.tov_ns)
    present = property(lambda self: self._view.present)

    def __init__(self, **_fields: Any) -> None:
        raise TypeError("a view is made by its message")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"inputs are read-only: cannot set {type(self).__name__}.{name}; "
            "copy() the message, or publish the new value on an output"
        )

    def __delattr__(self, name: str) -> NoReturn:
        self.__setattr__(name, None)

    def publish(self, *, tov_ns: SupportsIndex | None = None) -> NoReturn:  # noqa: ARG002
        raise AttributeError(f"an input cannot be published: {type(self).__name__}")

    # These change fields without setting an attribute.

    def allocate(self, name: str, shape: tuple[int, ...]) -> NoReturn:  # noqa: ARG002
        self.__setattr__(name, None)

    def adopt(self, other: Message) -> NoReturn:  # noqa: ARG002
        self._refuse("adopt")

    def clear(self) -> NoReturn:
        self._refuse("clear")

    def load(self, data: Buffer) -> NoReturn:  # noqa: ARG002
        self._refuse("load")

    def _refuse(self, method: str) -> NoReturn:
        raise AttributeError(f"inputs are read-only: cannot {method} a {type(self).__name__}")


def _whole(value: SupportsIndex) -> int:
    """A whole number of any type as an `int`; anything else as it is, for `check_envelope` to refuse."""
    try:
        return operator.index(value)
    except TypeError:
        return typing.cast("int", value)


_packer = msgpack.Packer(use_bin_type=True)


def _pack(message: Message, fields: dict[str, Any]) -> bytes:
    if len(fields) != len(message.defaults):
        message.check_fields()  # names the field that was deleted, or set but not declared
    try:
        return typing.cast("bytes", _packer.pack(fields))
    except (TypeError, ValueError, OverflowError) as error:
        _packer.reset()
        message.check_fields()
        raise MessageTypeError(f"{type(message).__name__}: {error}") from error


def _declare_fields(cls: type[Message]) -> None:
    """Read the annotations of `cls` (bases first) into its field tables."""
    annotations: dict[str, Any] = {}
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise MessageTypeError(
            f"{cls.__name__}: {error}; message types must be importable at module level"
        ) from error
    for base in reversed(cls.__mro__):
        if base is Message or not issubclass(base, Message):
            continue
        for name in inspect.get_annotations(base):
            declared = hints[name]
            if typing.get_origin(declared) is not ClassVar:
                annotations[name] = declared
    cls.field_types = annotations
    cls.array_fields, cls.defaults = {}, {}
    measured = set()
    for name, declared in annotations.items():
        if hasattr(Message, name):
            raise MessageTypeError(f"{cls.__name__}.{name}: the name is taken by Message itself")
        if is_measured(declared):
            measured.add(name)
        array = _array_field(cls, name, declared)
        if array is not None:
            cls.array_fields[name] = array
            empty = np.zeros(array.shape.empty(), array.dtype)
            empty.setflags(write=False)
            cls.defaults[name] = empty
        else:
            cls.defaults[name] = _default(cls, name, declared)
    cls.measured_fields = frozenset(measured)
    cls.has_containers = any(isinstance(v, (list, dict)) for v in cls.defaults.values())
    scalars = {name: d for name, d in annotations.items() if name not in cls.array_fields}
    cls.has_sure_types = staticmethod(type_check(scalars, len(annotations)))
    cls.is_plain = not cls.array_fields and cls.encode is Message.encode


def _array_field(cls: type[Message], name: str, declared: Any) -> ArrayField | None:
    base, metadata = strip(declared)
    if typing.get_origin(base) is not np.ndarray and base is not np.ndarray:
        return None
    shapes = [item for item in metadata if isinstance(item, Shape)]
    arguments = typing.get_args(base)
    element = typing.get_args(arguments[1])[0] if len(arguments) == 2 else None
    if not shapes or not isinstance(element, type):
        raise MessageTypeError(
            f"{cls.__name__}.{name}: an array field is declared as "
            'Annotated[NDArray[np.float32], Shape("N 3")]'
        )
    return ArrayField(np.dtype(element), shapes[0])


def _default(cls: type[Message], name: str, declared: Any) -> Any:
    base, _ = strip(declared)
    if not is_field_type(declared):
        raise MessageTypeError(
            f"{cls.__name__}.{name}: unsupported type {type_name(declared)}; use bool, int, float, "
            "str, bytes, list, dict, T | None, or "
            'Annotated[NDArray[...], Shape("...")]'
        )
    if any(name in base.__dict__ for base in cls.__mro__):
        value = getattr(cls, name)
        if not allows(declared, value):
            raise MessageTypeError(
                f"{cls.__name__}.{name}: default {value!r} is not a {type_name(declared)}"
            )
        return value
    if is_optional(base):
        return None
    return (typing.get_origin(base) or base)()


def _unknown_field(message: Message, name: str) -> MessageTypeError:
    return MessageTypeError(
        f"{type(message).__name__} has no field {name!r}; fields: {list(message.defaults)}"
    )


def _is_frozen(array: NDArray[Any]) -> bool:
    """Whether nobody can write to the memory of `array`, by it or by an array that it is a view of."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        if owner.flags.writeable:
            return False
        owner = owner.base
    return True
