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
sets fields and calls `publish()`; a task that has an `Input[M]` sees a read-only view.

What others see is what was published, and what the log returns. `publish` checks the fields, makes
their values those that the log gives back (`values`), and puts them into the message's `Envelope`,
from which views read and the log writes. Whatever happens to the message, to a list or to an array
afterwards, they do not see it.
"""

from __future__ import annotations

import inspect
import math
import operator
import threading
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol, Self, SupportsIndex

import msgpack
import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.arrays import is_published, is_reused, owner_of, shown
from flowrun.msgs.declare import declared_fields
from flowrun.msgs.difference import differing_field
from flowrun.msgs.envelope import TIME_ENDS, Envelope
from flowrun.msgs.fields import (
    ArrayField,
    Buffer,
    LatePublishError,
    MessageTypeError,
    Shape,
    allows,
    array_from_map,
    array_to_map,
    check_array,
    short,
    sure_tests,
    wrong_type,
)
from flowrun.msgs.publish import quick_publish, quick_test
from flowrun.msgs.schema import json_schema
from flowrun.msgs.values import as_stored, pack, thawed, unpack
from flowrun.msgs.view import ReadOnly

__all__ = ["HasNow", "Message", "Shape", "worded"]

_POISON = 0xDB


class HasNow(Protocol):
    """Where `publish` reads the cycle's time."""

    now_ns: int


class _Epoch:
    now_ns = 0


_EPOCH = _Epoch()


class Message:
    """Base class of messages. Subclasses declare fields; they define no `__init__`.

    Two messages are equal if they are of one class and the log would hold the same bytes of their
    fields: NaN equals itself, 1 is not 1.0, and the envelope does not count. A message has no hash,
    since its fields change.

    A message is never copied within a cycle, and an unpublished one is never seen.
    """

    __slots__ = ("__dict__", "_buffers", "_now", "envelope")

    envelope: Envelope

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
    may_hold_containers: ClassVar[bool]
    """Whether a field may hold a list or a dict."""
    _scalars: ClassVar[dict[str, Any]]
    """The types of the fields that are no arrays."""
    gives_back: ClassVar[Callable[[Mapping[str, Any]], bool]]
    """Whether the log gives the values of those back as they are: then nobody has to try."""
    _is_quick: ClassVar[bool]
    """Whether `publish` is a compiled one, which packs nothing."""
    _keeps_all: ClassVar[bool]
    """Whether the encoding is one of flowrun's own, which need not be looked at."""
    _reader: ClassVar[type[Message]]
    _writer: ClassVar[type[Message]]
    _unset: ClassVar[dict[str, Any]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__dict__.get("is_view", False):
            return
        if "schema_name" not in cls.__dict__:
            cls.schema_name = cls.__name__
        cls._declare()
        # The class of the views that inputs are: a subclass, so that reading costs nothing and
        # isinstance holds. A check in __setattr__ of the message itself would add 0.25 us to every
        # field that a task sets.
        namespace = {"__module__": cls.__module__, "__doc__": cls.__doc__, "is_view": True}
        cls._writer = cls
        cls._reader = type(cls.__name__, (ReadOnly, cls), namespace)

    @classmethod
    def _declare(cls) -> None:
        """Read the annotations into the field tables."""
        declared = declared_fields(cls, Message)
        cls.field_types, cls.array_fields = declared.types, declared.arrays
        cls.defaults, cls.measured_fields = declared.defaults, declared.measured
        cls.has_containers = any(isinstance(v, (list, dict)) for v in cls.defaults.values())
        cls._unset = {
            name: value if name in cls.array_fields else unpack(pack(value))
            for name, value in cls.defaults.items()
        }
        scalars = {k: v for k, v in cls.field_types.items() if k not in cls.array_fields}
        tests = sure_tests(scalars)
        cls.may_hold_containers = tests is None
        cls._scalars = scalars
        cls.gives_back = staticmethod(quick_test(tests) if tests is not None else _never)
        cls._keeps_all = _keeps_all(cls)
        cls.is_plain = not cls.array_fields and cls.encode is Message.encode
        is_sure = cls.is_plain and cls.check_fields is Message.check_fields
        cls._is_quick = False
        if is_sure and tests is not None and inspect.unwrap(cls.publish) is Message.publish:
            cls._is_quick = True
            cls.publish = quick_publish(tests, Message.publish)  # type: ignore[method-assign]

    def __init__(self, **fields: Any) -> None:
        """An unpublished message: defaults, then `fields`; `MessageTypeError` names a wrong one."""
        for name in fields:
            if name not in self.defaults:
                raise _unknown_field(self, name)
        self._now: HasNow = _EPOCH
        self._buffers: dict[str, NDArray[Any]] = {}
        own = self.__dict__
        own.update(self._fresh())
        own.update(fields)
        self.envelope = Envelope(own, self._unset, self.array_fields)

    @property
    def own_class(self) -> type[Message]:
        """The class that declares the fields; of an input, which is a view, that of what was
        published."""
        return self._writer

    @property
    def present(self) -> bool:
        """Whether the message was published in this cycle."""
        return self.envelope.present

    @property
    def tov_ns(self) -> int:
        """Time of validity, set by `publish`: when what the message describes was true (a picture: when
        it was taken), in nanoseconds since 1970 UTC; 0 before."""
        return self.envelope.tov_ns

    if not TYPE_CHECKING:  # a checker would take every name for a field

        def __getattr__(self, name: str) -> Any:
            found = getattr(type(self), name, None)
            if isinstance(found, property):  # it has raised an AttributeError of its own
                return found.__get__(self)
            text = f"{type(self).__name__!r} object has no attribute {name!r}"
            if not name.startswith("_"):
                text += f"; fields: {', '.join(self.defaults)}, tov_ns"
            raise AttributeError(text)

    def _fresh(self) -> dict[str, Any]:
        return thawed(self.defaults) if self.has_containers else self.defaults

    def bind_time(self, now: HasNow) -> None:
        """Make `publish` use `now.now_ns` where it is given no `tov_ns`. Called once per slot."""
        self._now = now

    def allocate(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """Set array field `name` to the slot's own array of `shape`, and return it for writing.

        Publishing copies such an array not: do not write to it afterwards. The memory is allocated
        once and reused every cycle; it grows when a shape needs more than any before. It contains
        whatever the slot held last. Raises `MessageTypeError` for a shape that the declaration forbids.
        """
        declared = self.array_fields.get(name)
        if declared is None or not declared.shape.matches(shape):
            raise MessageTypeError(
                f"{type(self).__name__}.{name}: cannot allocate shape {shape}; array fields: "
                f"{ {k: v.shape.dims for k, v in self.array_fields.items()} }"
            )
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        # Once published, others see the memory until the end of the cycle.
        if buffer is None or buffer.size < size or self.envelope.present:
            buffer = np.empty(size, declared.dtype)
            self._buffers[name] = buffer
        buffer.setflags(write=True)
        array = buffer[:size].reshape(shape)
        self.__dict__[name] = array
        return array

    def hand_over(self, name: str, array: NDArray[Any]) -> None:
        """Set array field `name` to `array`, which is the message's from now on: publishing does not
        copy it. You promise that nobody writes to its memory again; `array` itself becomes read-only.

        An array that is only set (`message.pixels = array`) is copied when it is published, since no
        flag shows whether its memory is shared. Raises `MessageTypeError` for an array that the
        declaration forbids.
        """
        declared = self.array_fields.get(name)
        if declared is None:
            raise MessageTypeError(
                f"{type(self).__name__} has no array field {name!r}; array fields: "
                f"{list(self.array_fields)}"
            )
        check_array(type(self).__name__, name, array, declared)
        self.__dict__[name] = shown(array) if _is_like_stored(array) else array

    def publish(self, *, tov_ns: SupportsIndex | None = None) -> None:
        """Show the message, as it is now, to the tasks downstream in this cycle.

        Publishing again in one cycle shows the new values; setting a field alone does not. Values
        become those that the log gives back: np.float64 a float, a tuple a list, a StrEnum a str. An
        array is copied unless it is the slot's own (`allocate`), handed over, or of an input.

        tov_ns: time of validity in nanoseconds; the cycle's time if not given. NumPy's integers
            become an `int`.

        Raises `MessageTypeError` naming a field whose value its declaration, or the log, does not
        allow; what was published before stays. Raises `LatePublishError` after `process` has returned.
        """
        if not self.envelope.is_open:
            self._refuse_late()
        self._show(self._now.now_ns if tov_ns is None else tov_ns)

    def restore(self, fields: Mapping[str, Any], *, tov_ns: int) -> None:
        """Publish recorded `fields`, as `decode_fields` gives them, also while the message is not open.

        A field that is not in `fields` keeps its value; one that the class does not have is ignored.
        Arrays are taken over. Raises `MessageTypeError` as `publish`.
        """
        own = self.__dict__
        for name, value in fields.items():
            if name not in self.defaults:
                continue
            is_array = name in self.array_fields and isinstance(value, np.ndarray)
            if is_array and _is_like_stored(value):
                value = shown(value, is_reused=True)  # noqa: PLW2901  # as in the run, for a cycle
            own[name] = value
        self._show(tov_ns)

    def view(self) -> Self:
        """The read-only view that a task gets as its input: what is published, without a copy."""
        return typing.cast("Self", self._view_of(self.envelope.fields))

    def clear(self) -> None:
        """Make the message unpublished, with default fields. Called before each cycle."""
        envelope, fields = self.envelope, self.__dict__
        envelope.present = False
        fields.clear()  # including attributes that are not fields
        fields.update(self._fresh())
        if self.array_fields:  # memory is freed
            envelope.fields.update(self._unset)

    def copy(self) -> Self:
        """The message as it is now, for use beyond its cycle; its fields may be set, its lists and dicts
        changed.

        Its arrays are read-only. Those that live in a slot, which overwrites them later, are copied,
        others shared.
        """
        other = self._writer()
        kept: dict[int, NDArray[Any]] = {}
        for fields, copied in (
            (self.__dict__, other.__dict__),
            (self.envelope.fields, other.envelope.fields),
        ):
            for name, value in fields.items():
                if isinstance(value, np.ndarray):
                    if id(value) not in kept:
                        kept[id(value)] = _durable(value)
                    copied[name] = kept[id(value)]
                else:
                    copied[name] = value
        other.__dict__.update(
            (name, thawed(value))
            for name, value in other.__dict__.items()
            if isinstance(value, (list, dict))
        )
        mine, others = self.envelope, other.envelope
        others.present, others.tov_ns, others.packed = mine.present, mine.tov_ns, mine.packed
        if mine.packed is not None:
            others.fields.update(unpack(mine.packed))
        return typing.cast("Self", other)

    def poison(self) -> None:
        """Overwrite the slot's own arrays, and give the memory up: who kept one reads nonsense."""
        for buffer in self._buffers.values():
            buffer.setflags(write=True)
            buffer.view(np.uint8).fill(_POISON)
            buffer.setflags(write=False)
        self._buffers.clear()

    def fill(self, other: Message) -> None:
        """Set all fields to those of `other`, a message of the same class."""
        self.__dict__.update(other.__dict__)

    def all_fields(self) -> dict[str, Any]:
        """The fields by name, in the order of their declaration; not to be changed."""
        return self.__dict__

    def encode(self) -> tuple[Buffer, ...]:
        """The message's bytes in the log, as one or more parts to be written in this order. A class that
        overrides it overrides `decode_fields` too, which must give every field back as it was: `publish`
        looks.

        Of a view: what is published; valid until the slot is reused. Of a message: its fields as they
        are now; raises `MessageTypeError` naming a field that could not be published.
        """
        fields = self.__dict__ if self.is_view else self._checked()[1]
        if not self.array_fields:
            return (pack(fields),)
        packed = {
            name: array_to_map(value) if name in self.array_fields else value
            for name, value in fields.items()
        }
        return (pack(packed),)

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
    def migrate(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields of a message that was recorded when the class had other fields, as the class has
        them today. A field that is left out gets its default.

        A replay calls it for each recorded message that it feeds, if the recorded schema is not
        today's. Override it when you rename a field or change its type::

            @classmethod
            def migrate(cls, fields):
                fields["distance_m"] = fields.pop("distance_mm") / 1000
                return fields
        """
        return fields

    @classmethod
    def has_migration(cls) -> bool:
        """Whether the class says how to `migrate`."""
        return getattr(cls.migrate, "__func__", None) is not getattr(
            Message.migrate, "__func__", None
        )

    @classmethod
    def schema(cls) -> bytes:
        """The schema of the message as the log stores it (`schema_encoding` says which kind)."""
        return json_schema(cls)

    def check_fields(self) -> None:
        """Raise `MessageTypeError` naming the first field whose value its declaration forbids.

        A class may add what must hold between its fields: `publish` calls this on a view of the values
        that it is about to show.
        """
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
                raise wrong_type(type(self).__name__, name, value, declared)

    # -- inside ----------------------------------------------------------------------------------

    def _view_of(self, fields: dict[str, Any]) -> Message:
        view = object.__new__(self._reader)
        object.__setattr__(view, "__dict__", fields)
        object.__setattr__(view, "envelope", self.envelope)
        return view

    def _show(self, tov_ns: SupportsIndex) -> None:
        """Put the fields into the envelope, made what the log gives back. All of them, or none."""
        envelope, time_ns = self.envelope, self._checked_time(tov_ns)
        packed, fields = self._checked()
        envelope.fields.update(fields)
        envelope.packed = None if self._is_quick else packed
        envelope.tov_ns = time_ns
        envelope.present = True

    def _checked(self) -> tuple[bytes | None, dict[str, Any]]:
        """The fields as others will see them; without the arrays, also in msgpack, where they may hold
        what can be changed in place."""
        owner, own = type(self).__name__, self.__dict__
        if own.keys() != self.defaults.keys():
            self.check_fields()  # names the field that was deleted, or set but not declared
        arrays = {
            name: self._array_to_show(name, own[name], declared)
            for name, declared in self.array_fields.items()
        }
        packed: bytes | None = None
        if self._writer.gives_back(own):
            stored = {name: own[name] for name in self._scalars}
        else:
            packed, stored = as_stored(owner, own, self._scalars)
        fields = dict(stored)
        if arrays:
            fields = {
                name: arrays[name] if name in arrays else stored[name] for name in self.defaults
            }
        writer = self._writer
        if writer.check_fields is not Message.check_fields:
            self._view_of(fields).check_fields()
        if writer.encode is not Message.encode:
            self._check_encoding(fields)
        return packed, fields

    def _check_encoding(self, fields: dict[str, Any]) -> None:
        """See that an encoding of the class's own can hold the fields, and gives them back."""
        parts = self._view_of(fields).encode()
        if self._keeps_all:
            return
        name = type(self).__name__
        try:
            back = self.decode_fields(b"".join(parts))
        except ValueError as error:
            text = f"{name}.decode_fields does not read what encode makes: {error}"
            raise MessageTypeError(text) from error
        known = {key: value for key, value in back.items() if key in self.defaults}
        lost = differing_field(fields, {**self.defaults, **known})
        if lost is not None:
            raise MessageTypeError(
                f"{name}.{lost.name}: consumers would see {lost.before:.60}, and the log, after encode "
                f"and decode_fields, {lost.now:.60}"
            )

    def _array_to_show(self, name: str, value: Any, declared: ArrayField) -> NDArray[Any]:
        check_array(type(self).__name__, name, value, declared)
        array: NDArray[Any] = value
        if _is_like_stored(array):
            if is_published(array):
                return array.view(np.ndarray)  # the task may change the shape of its own one
            if owner_of(array) is self._buffers.get(name):
                return shown(array, is_reused=True)
        return shown(np.array(array, order="C"))

    def _checked_time(self, tov_ns: SupportsIndex) -> int:
        try:
            whole = operator.index(tov_ns)
        except TypeError:
            whole = None
        if whole is None or not 0 <= whole < TIME_ENDS:
            raise MessageTypeError(
                f"{type(self).__name__}: tov_ns must be a whole number of nanoseconds, 0 or more; "
                f"got {tov_ns!r}"
            )
        return whole

    def _refuse_late(self) -> NoReturn:
        envelope = self.envelope
        error = LatePublishError(
            f"{envelope.owner}: {type(self).__name__}.publish() was called outside process, on thread "
            f"{threading.current_thread().name!r}; publish before process returns, or keep the value "
            "and publish it in a later call"
        )
        if envelope.note_late is not None:
            envelope.note_late(error)
        raise error

    # -- as a Python object ----------------------------------------------------------------------

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.copy()

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        fields = thawed(dict(self.all_fields()))
        return _unpickled, (self._writer, fields, self.envelope.tov_ns if self.present else None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message) or other._writer is not self._writer:
            return NotImplemented
        return differing_field(self.all_fields(), other.all_fields()) is None

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return worded(type(self).__name__, self.__dict__)

    def _repr_html_(self) -> str:
        from flowrun.msgs.display import html_fields  # for notebooks only

        fields = {name: getattr(self, name) for name in self.defaults}
        return html_fields(type(self).__name__, {**fields, "tov_ns": self.tov_ns})


def worded(kind: str, fields: Mapping[str, Any]) -> str:
    """A message of the class `kind` as an error text shows it."""
    return f"{kind}({', '.join(f'{name}={short(value)}' for name, value in fields.items())})"


def _never(_own: Mapping[str, Any]) -> bool:
    return False


def _keeps_all(kind: type[Message]) -> bool:
    """Whether the encoding of the class is one of flowrun's own. Raises `MessageTypeError` for a field
    that an inherited one does not know."""
    encodes = next(base for base in kind.__mro__ if "encode" in base.__dict__)
    if encodes not in (kind, Message) and issubclass(encodes, Message):
        for name in kind.field_types:
            if name not in encodes.field_types:
                raise MessageTypeError(
                    f"{kind.__name__}.{name}: the encoding of {encodes.__name__} has no place for the "
                    "field; declare it in a message of its own, or override encode and decode_fields"
                )
    return encodes.__module__.startswith(f"{__package__}.")


def _unpickled(kind: type[Message], fields: Mapping[str, Any], tov_ns: int | None) -> Message:
    message = kind()
    message.__dict__.update(fields)
    if tov_ns is not None:
        message.restore(fields, tov_ns=tov_ns)
    return message


def _is_like_stored(array: NDArray[Any]) -> bool:
    """Whether the array is laid out as the log gives it back: sums of floats depend on it."""
    return array.flags.c_contiguous and array.flags.aligned


def _durable(array: NDArray[Any]) -> NDArray[Any]:
    """`array`, or a copy if its memory may be written to after the cycle."""
    if is_published(array) and not is_reused(array):
        return array
    return shown(np.array(array, order="C"))


def _unknown_field(message: Message, name: str) -> MessageTypeError:
    return MessageTypeError(
        f"{type(message).__name__} has no field {name!r}; fields: {list(message.defaults)}"
    )
