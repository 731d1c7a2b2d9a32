"""What a message is: typed fields, an envelope, and one declaration that gives slot, bytes and schema.

A message class declares its fields as annotations, with defaults where zero will not do::

    class PromptResponseMsg(Message):
        prompt: str
        response: str
        latency_ms: Measured[float]

    class DepthMsg(Message):
        depth_m: Annotated[NDArray[np.float32], Shape("H W")]

Field types: `bool`, `int` (64 bits), `float`, `str`, `bytes`, `list[...]` and `dict[str, ...]` of
these, `T | None` of these, and NumPy arrays annotated with a `Shape`.

The runtime creates the instances, once, and uses them again every cycle. A task that has an
`Output[M]` sets fields and calls `publish()`; a task that has an `Input[M]` sees a read-only view
of the same fields. Fields live in the instance's `__dict__`, in the order of declaration, so that
a message is encoded without building anything first; the envelope lives in slots beside it.
"""

from __future__ import annotations

import copy
import math
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NoReturn, Protocol, Self, TypeVar

import msgpack
import numpy as np
from numpy.typing import NDArray

__all__ = ["ArrayField", "Buffer", "HasNow", "Measured", "Message", "MessageTypeError", "Shape"]

Buffer = bytes | memoryview
T = TypeVar("T")


class HasNow(Protocol):
    """Where `publish` reads the cycle's time."""

    now_ns: int


@dataclass(slots=True)
class _Epoch:
    now_ns: int = 0


_EPOCH = _Epoch()


class MessageTypeError(TypeError):
    """A message class is declared wrongly, or a field holds what its declaration does not allow."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of an array field, as names and numbers: `Shape("H W 3")`."""

    dims: str

    def matches(self, shape: tuple[int, ...]) -> bool:
        dims = self.dims.split()
        return len(dims) == len(shape) and all(
            not dim.isdigit() or int(dim) == n for dim, n in zip(dims, shape, strict=True)
        )

    def empty(self) -> tuple[int, ...]:
        """The shape of the array that an unset field holds: named dimensions are 0."""
        return tuple(int(dim) if dim.isdigit() else 0 for dim in self.dims.split())


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


class Message:
    """Base class of messages. Subclasses declare fields; they define no `__init__`.

    Envelope, set by `publish`:
        tov_ns: time of validity in nanoseconds: when what the message describes was so (for a
            picture, when it was taken). `int`.
        present: whether the message was published in this cycle.

    Never done: a message is never copied inside a cycle, and an unpublished one is never seen.
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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__dict__.get("is_view", False):
            return
        if "schema_name" not in cls.__dict__:
            cls.schema_name = cls.__name__
        _declare_fields(cls)
        # The class of the views that inputs are. A subclass, so that reading costs nothing and
        # isinstance holds; made here because a check in __setattr__ of the writer would cost every
        # field set 0.25 us.
        namespace = {"__module__": cls.__module__, "is_view": True}
        cls._reader = type(cls.__name__, (_ReadOnly, cls), namespace)

    def __init__(self, **fields: Any) -> None:
        """An unpublished message with default fields, then `fields`; `TypeError` names unknown ones."""
        unknown = fields.keys() - self.defaults.keys()
        if unknown:
            raise MessageTypeError(
                f"{type(self).__name__} has no field {sorted(unknown)[0]!r}; "
                f"fields: {list(self.defaults)}"
            )
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
            name: value.copy() if isinstance(value, (list, dict)) else value
            for name, value in cls.defaults.items()
        }

    def bind_time(self, now: HasNow) -> None:
        """Let `publish` without a `tov_ns` take `now.now_ns`. The runtime calls it once a slot."""
        self._now = now

    def allocate(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """Set array field `name` to the slot's own array of `shape`, and return it for writing.

        The memory is allocated once and used again every cycle; it grows when a shape needs more
        than any before. Its contents are whatever the slot held last. Raises `MessageTypeError`
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
            buffer = self._buffers[name] = np.empty(size, declared.dtype)
        array = buffer[:size].reshape(shape)
        self.__dict__[name] = array
        return array

    def publish(self, *, tov_ns: int | None = None) -> None:
        """Make the message visible to the tasks downstream, in this cycle.

        tov_ns: time of validity in nanoseconds; the cycle's time where it is not given.
        Arrays become read-only until the slot is used again. Publishing twice in one cycle keeps
        the last values. Copies nothing.
        """
        self.tov_ns = self._now.now_ns if tov_ns is None else tov_ns
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
        """The read-only view that inputs are: the same fields, no copy."""
        return typing.cast("Self", self._view)

    def clear(self) -> None:
        """Back to unpublished, with default fields. The runtime calls it before each cycle."""
        self.present = False
        self.__dict__.update(self._fresh())

    def copy(self) -> Self:
        """The message as it is now, for use beyond its cycle: what crosses a cycle's border.

        Arrays that live in the slot are copied. A read-only array that the task had set itself is
        shared: the slot never writes to it.
        """
        writer = self._view if self.is_view else self
        other = type(writer)()
        owned = writer._buffers
        for name, value in self.__dict__.items():
            copied = value
            if isinstance(value, (list, dict)):
                copied = copy.deepcopy(value)
            elif isinstance(value, np.ndarray) and (name in owned or value.flags.writeable):
                copied = value.copy()
                copied.setflags(write=False)
            other.__dict__[name] = copied
        other.tov_ns = self.tov_ns
        other.present = self.present
        return typing.cast("Self", other)

    def adopt(self, other: Message) -> None:
        """Become `other`, a published message that nobody uses any more: a move, without copying."""
        self.__dict__.update(other.__dict__)
        self.tov_ns = other.tov_ns
        self.present = other.present

    # -- bytes ---------------------------------------------------------------------------------

    def encode(self) -> tuple[Buffer, ...]:
        """The message's bytes in the log, as one or more parts to be written one after the other.

        A part that is a `memoryview` refers to the message's own array and is valid until the slot
        is used again. Raises `MessageTypeError` naming the field that cannot be encoded.
        """
        if not self.array_fields:
            return (_pack(self, self.__dict__),)
        packed = {
            name: _array_to_map(value) if isinstance(value, np.ndarray) else value
            for name, value in self.__dict__.items()
        }
        return (_pack(self, packed),)

    @classmethod
    def decode_fields(cls, data: Buffer) -> dict[str, Any]:
        """The fields held in `data`, as `encode` made it. Raises `ValueError` on other bytes."""
        fields = msgpack.unpackb(data, strict_map_key=False)
        if not isinstance(fields, dict):
            raise ValueError(f"{cls.__name__}: expected a map, got {type(fields).__name__}")
        for name in cls.array_fields:
            if name in fields:
                fields[name] = _array_from_map(fields[name])
        return fields

    def load(self, data: Buffer) -> None:
        """Set the fields from `data`, as `encode` made it. Fields not in `data` keep their default;
        fields the class no longer has are left out."""
        fields = self.decode_fields(data)
        self.__dict__.update((k, v) for k, v in fields.items() if k in self.defaults)

    @classmethod
    def schema(cls) -> bytes:
        """The schema of the message as the log stores it (`schema_encoding` says which kind)."""
        from flowrun.msgs.schema import json_schema

        return json_schema(cls)

    def check_fields(self) -> None:
        """Raise `MessageTypeError` naming the first field whose value its declaration forbids."""
        fields = self.__dict__
        for name in fields.keys() - self.defaults.keys():
            raise MessageTypeError(
                f"{type(self).__name__} has no field {name!r}; fields: {list(self.defaults)}"
            )
        for name, declared in self.field_types.items():
            value = fields[name]
            array = self.array_fields.get(name)
            if array is not None:
                _check_array(type(self).__name__, name, value, array)
            elif not _allows(declared, value):
                raise MessageTypeError(
                    f"{type(self).__name__}.{name}: expected {_type_name(declared)}, "
                    f"got {type(value).__name__} {value!r:.80}"
                )

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={_short(v)}" for k, v in self.__dict__.items())
        return f"{type(self).__name__}({shown})"


class _ReadOnly(Message):
    """Mixed into the class of each message's view: reading as usual, setting is an error."""

    __slots__ = ()
    is_view = True

    # The envelope is read from the message, which alone holds it: publishing stays one store.
    tov_ns = property(lambda self: self._view.tov_ns)  # type: ignore[assignment]
    present = property(lambda self: self._view.present)  # type: ignore[assignment]

    def __init__(self, **_fields: Any) -> None:
        raise TypeError("a view is made by its message")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"inputs are read-only: cannot set {type(self).__name__}.{name}; "
            "copy() the message, or publish the new value on an output"
        )

    def __delattr__(self, name: str) -> NoReturn:
        self.__setattr__(name, None)

    def publish(self, *, tov_ns: int | None = None) -> NoReturn:  # noqa: ARG002
        raise AttributeError(f"an input cannot be published: {type(self).__name__}")


_packer = msgpack.Packer(use_bin_type=True)


def _pack(message: Message, fields: dict[str, Any]) -> bytes:
    try:
        if len(fields) == len(message.defaults):
            return typing.cast("bytes", _packer.pack(fields))
    except (TypeError, ValueError, OverflowError) as error:
        _packer.reset()
        message.check_fields()
        raise MessageTypeError(f"{type(message).__name__}: {error}") from error
    message.check_fields()
    raise AssertionError("check_fields accepts what pack refuses")


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
        for name in base.__dict__.get("__annotations__", {}):
            declared = hints[name]
            if typing.get_origin(declared) is not ClassVar:
                annotations[name] = declared
    cls.field_types = annotations
    cls.array_fields, cls.defaults = {}, {}
    measured = set()
    for name, declared in annotations.items():
        if hasattr(Message, name):
            raise MessageTypeError(f"{cls.__name__}.{name}: the name is taken by Message itself")
        if typing.get_origin(declared) is Annotated and _MeasuredMarker in declared.__metadata__:
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
    cls.is_plain = not cls.array_fields and cls.encode is Message.encode


def _array_field(cls: type[Message], name: str, declared: Any) -> ArrayField | None:
    base, metadata = _strip(declared)
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
    if name in cls.__dict__ or any(name in base.__dict__ for base in cls.__mro__):
        value = getattr(cls, name)
        if not _allows(declared, value):
            raise MessageTypeError(f"{cls.__name__}.{name}: default {value!r} is not a {declared}")
        return value
    base, _ = _strip(declared)
    if _is_optional(base):
        return None
    kind = typing.get_origin(base) or base
    if kind in (bool, int, float, str, bytes, list, dict):
        return kind()
    raise MessageTypeError(
        f"{cls.__name__}.{name}: a field cannot be a {_type_name(declared)}; use bool, int, float, "
        'str, bytes, list, dict, T | None, or Annotated[NDArray[...], Shape("...")]'
    )


def _strip(declared: Any) -> tuple[Any, tuple[Any, ...]]:
    if typing.get_origin(declared) is Annotated:
        return declared.__origin__, declared.__metadata__
    return declared, ()


def _is_optional(base: Any) -> bool:
    return typing.get_origin(base) in (typing.Union, types.UnionType) and type(
        None
    ) in typing.get_args(base)


def _allows(declared: Any, value: Any) -> bool:
    """Whether `value` is what `declared` says. An int is a float; a bool is not an int."""
    base, _ = _strip(declared)
    if typing.get_origin(base) in (typing.Union, types.UnionType):
        return any(_allows(option, value) for option in typing.get_args(base))
    if base in (None, type(None)):
        return value is None
    kind = typing.get_origin(base) or base
    if kind is Any:
        return True
    if kind is float:
        return isinstance(value, (float, int)) and not isinstance(value, bool)
    if kind is int:
        return type(value) is int and -(2**63) <= value < 2**64
    if not isinstance(kind, type) or not isinstance(value, kind):
        return False
    arguments = typing.get_args(base)
    if kind is list and arguments:
        return all(_allows(arguments[0], item) for item in value)
    if kind is dict and arguments:
        return all(_allows(arguments[0], k) and _allows(arguments[1], v) for k, v in value.items())
    return True


def _check_array(owner: str, name: str, value: Any, declared: ArrayField) -> None:
    if not isinstance(value, np.ndarray):
        raise MessageTypeError(f"{owner}.{name}: expected an array, got {type(value).__name__}")
    if value.dtype != declared.dtype or not declared.shape.matches(value.shape):
        raise MessageTypeError(
            f"{owner}.{name}: expected {declared.dtype} of shape ({declared.shape.dims}), "
            f"got {value.dtype} of shape {value.shape}"
        )


def _type_name(declared: Any) -> str:
    base, _ = _strip(declared)
    return base.__name__ if isinstance(base, type) else str(base)


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"<{value.dtype} {list(value.shape)}>"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _array_to_map(array: NDArray[Any]) -> dict[str, Any]:
    contiguous = np.ascontiguousarray(array)
    little = contiguous.astype(contiguous.dtype.newbyteorder("<"), copy=False)
    return {"dtype": little.dtype.str, "shape": list(array.shape), "data": little.tobytes()}


def _array_from_map(packed: Any) -> NDArray[Any]:
    try:
        return np.frombuffer(packed["data"], dtype=packed["dtype"]).reshape(packed["shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not an array: {error}") from error
