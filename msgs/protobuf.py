"""The part of protobuf that Foxglove's schemas need: writing and reading fields, descriptors.

Pictures and log records are stored as `foxglove.*` protobuf messages so that any MCAP viewer shows
them. They are packed by hand because the pixels must be the last field, referenced and not copied;
the protobuf package would copy them twice.

Wire format: a field is a varint `number << 3 | wire type` and a value: 0 varint, 1 fixed 64 bits,
2 length-delimited, 5 fixed 32 bits. A reader skips numbers that it does not know.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache

__all__ = [
    "bytes_field",
    "contents",
    "descriptor_set",
    "double_field",
    "fields",
    "fixed32_field",
    "message_descriptor",
    "number",
    "tag_and_length",
    "text_field",
    "timestamp_field",
    "varint_field",
]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_BYTE = [bytes([value]) for value in range(0x80)]
_LENGTHS = {_FIXED64: 8, _FIXED32: 4}


def _varint(value: int) -> bytes:
    """`value` (>= 0) in base 128, low groups first."""
    if 0 <= value < 0x80:
        return _BYTE[value]
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


@lru_cache
def _tag(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def varint_field(number: int, value: int) -> bytes:
    return _tag(number, _VARINT) + _varint(value)


def fixed32_field(number: int, value: int) -> bytes:
    return _tag(number, _FIXED32) + value.to_bytes(4, "little")


def double_field(number: int, value: float) -> bytes:
    return _tag(number, _FIXED64) + struct.pack("<d", value)


@lru_cache(16)
def _seconds_field(seconds: int) -> bytes:
    return varint_field(1, seconds % 2**64)


def timestamp_field(number: int, time_ns: int) -> bytes:
    """A `google.protobuf.Timestamp`."""
    seconds, nanos = divmod(time_ns, 1_000_000_000)
    return bytes_field(number, _seconds_field(seconds) + varint_field(2, nanos))


def tag_and_length(number: int, length: int) -> bytes:
    """The head of a length-delimited field whose `length` bytes the caller writes next."""
    return _tag(number, _BYTES) + _varint(length)


def bytes_field(number: int, value: bytes) -> bytes:
    return tag_and_length(number, len(value)) + value


@lru_cache(64)
def text_field(number: int, value: str) -> bytes:
    """Remembered: a message's texts are the same from one to the next."""
    return bytes_field(number, value.encode())


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Each field's number and value; length-delimited ones as views. `ValueError` on bad bytes."""
    position = 0
    while position < len(data):
        key, position = _read_varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, position = _read_varint(data, position)
            yield number, value
            continue
        if wire == _BYTES:
            length, position = _read_varint(data, position)
        elif wire in _LENGTHS:
            length = _LENGTHS[wire]
        else:
            raise ValueError(f"protobuf: unknown wire type {wire} at byte {position}")
        if position + length > len(data):
            raise ValueError(
                f"protobuf: field {number} ends at byte {position + length}, after the end of the data "
                f"at {len(data)}"
            )
        piece = data[position : position + length]
        position += length
        yield number, piece if wire == _BYTES else int.from_bytes(piece, "little")


def contents(value: int | memoryview) -> memoryview:
    """The value of a length-delimited field. `ValueError` for a number, of which `bytes` would make
    that many zeros."""
    if isinstance(value, int):
        raise ValueError(f"protobuf: {value}; expected a length-delimited field")  # noqa: TRY004
    return value


def number(value: int | memoryview) -> int:
    """The value of a numeric field. `ValueError` for a length-delimited one."""
    if not isinstance(value, int):
        raise ValueError("protobuf: a length-delimited field; expected a number")  # noqa: TRY004
    return value


def _read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """The varint that begins at `position`, of at most 10 bytes, and where it ends."""
    if position < len(data) and data[position] < 0x80:  # nearly all have one byte
        return data[position], position + 1
    value = 0
    for place, byte in enumerate(data[position : position + 10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, position + place + 1
    raise ValueError(f"protobuf: bad varint at byte {position}")


# Descriptors (google/protobuf/descriptor.proto), only as far as Foxglove's schemas need.
# fmt: off
_KINDS = {
    "double": 1, "int64": 3, "int32": 5, "fixed32": 7, "string": 9, "message": 11, "bytes": 12,
    "enum": 14,
}
# fmt: on
_OPTIONAL, _REPEATED = 1, 3
_TIMESTAMP = ".google.protobuf.Timestamp"

Member = tuple[int, str, str]
"""Number, name, kind: a scalar's name; "timestamp"; "enum" for the message's own; the name of another
message of the package. "repeated " may precede it."""
Enum = tuple[str, list[str]]
"""Name, and the names of the values, counted from 0."""


def descriptor_set(
    package: str,
    message: str,
    members: list[Member],
    *,
    enum: Enum | None = None,
    others: Iterable[bytes] = (),
) -> bytes:
    """A serialized FileDescriptorSet of one message and `google.protobuf.Timestamp`.

    others: the `message_descriptor`s of the package that members refer to.
    """
    timestamp = _file(
        "google/protobuf/timestamp.proto",
        "google.protobuf",
        _message("Timestamp", [_member(1, "seconds", "int64"), _member(2, "nanos", "int32")]),
    )
    main = _file(
        f"{package}/{message}.proto",
        package,
        *others,
        message_descriptor(package, message, members, enum=enum),
        imports=["google/protobuf/timestamp.proto"],
    )
    return bytes_field(1, timestamp) + bytes_field(1, main)


def message_descriptor(
    package: str, message: str, members: list[Member], *, enum: Enum | None = None
) -> bytes:
    """A serialized DescriptorProto."""
    described = []
    for number, name, declared in members:
        kind = declared.removeprefix("repeated ")
        label = _OPTIONAL if kind == declared else _REPEATED
        if kind == "timestamp":
            described.append(_member(number, name, "message", _TIMESTAMP, label))
        elif kind == "enum":
            assert enum is not None
            of = f".{package}.{message}.{enum[0]}"
            described.append(_member(number, name, "enum", of, label))
        elif kind in _KINDS:
            described.append(_member(number, name, kind, "", label))
        else:
            described.append(_member(number, name, "message", f".{package}.{kind}", label))
    nested = b""
    if enum is not None:
        values = b"".join(
            bytes_field(2, text_field(1, name) + varint_field(2, i))
            for i, name in enumerate(enum[1])
        )
        nested = bytes_field(4, text_field(1, enum[0]) + values)
    return _message(message, described) + nested


def _file(name: str, package: str, *messages: bytes, imports: Iterable[str] = ()) -> bytes:
    return (
        text_field(1, name)
        + text_field(2, package)
        + b"".join(text_field(3, item) for item in imports)
        + b"".join(bytes_field(4, message) for message in messages)
        + text_field(12, "proto3")
    )


def _message(name: str, members: list[bytes]) -> bytes:
    return text_field(1, name) + b"".join(bytes_field(2, member) for member in members)


def _member(
    number: int, name: str, kind: str, type_name: str = "", label: int = _OPTIONAL
) -> bytes:
    described = (
        text_field(1, name)
        + varint_field(3, number)
        + varint_field(4, label)
        + varint_field(5, _KINDS[kind])
    )
    return described + (text_field(6, type_name) if type_name else b"")
