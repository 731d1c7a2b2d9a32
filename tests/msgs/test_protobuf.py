"""Protobuf as we write and read it, against the protobuf package."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet
from hypothesis import example, given
from hypothesis import strategies as st

from flowrun.msgs import protobuf as ours

KINDS = ["double", "int64", "int32", "fixed32", "string", "bytes"]


def described_by_the_package() -> FileDescriptorSet:
    """One file of a message with a field of each kind, and the file that it imports."""
    files = FileDescriptorSet()
    time = files.file.add(
        name="google/protobuf/timestamp.proto", package="google.protobuf", syntax="proto3"
    )
    stamp = time.message_type.add(name="Timestamp")
    one, many = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED
    stamp.field.add(name="seconds", number=1, label=one, type=FieldDescriptorProto.TYPE_INT64)
    stamp.field.add(name="nanos", number=2, label=one, type=FieldDescriptorProto.TYPE_INT32)
    file = files.file.add(name="pack/Whole.proto", package="pack", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    point = file.message_type.add(name="vertex")
    point.field.add(name="x", number=1, label=one, type=FieldDescriptorProto.TYPE_DOUBLE)
    whole = file.message_type.add(name="Whole")
    for number, kind in enumerate(KINDS, 1):
        of = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
        whole.field.add(name=kind, number=number, label=one, type=of)
    message, level = FieldDescriptorProto.TYPE_MESSAGE, FieldDescriptorProto.TYPE_ENUM
    stamp_type = ".google.protobuf.Timestamp"
    whole.field.add(name="when", number=7, label=one, type=message, type_name=stamp_type)
    whole.field.add(name="times", number=8, label=many, type=message, type_name=stamp_type)
    whole.field.add(name="level", number=9, label=one, type=level, type_name=".pack.Whole.Level")
    whole.field.add(name="levels", number=10, label=many, type=level, type_name=".pack.Whole.Level")
    whole.field.add(name="at", number=300, label=one, type=message, type_name=".pack.vertex")
    whole.field.add(name="way", number=301, label=many, type=message, type_name=".pack.vertex")
    whole.field.add(name="sizes", number=302, label=many, type=FieldDescriptorProto.TYPE_DOUBLE)
    values = whole.enum_type.add(name="Level").value
    for number, name in enumerate(["LOW", "MIDDLE", "HIGH"]):
        values.add(name=name, number=number)
    return files


def test_a_descriptor_is_that_of_the_package_byte_for_byte() -> None:
    members: list[ours.Member] = [(number, kind, kind) for number, kind in enumerate(KINDS, 1)]
    members += [(7, "when", "timestamp"), (8, "times", "repeated timestamp")]
    members += [(9, "level", "enum"), (10, "levels", "repeated enum")]
    members += [
        (300, "at", "vertex"),
        (301, "way", "repeated vertex"),
        (302, "sizes", "repeated double"),
    ]
    point = ours.message_descriptor("pack", "vertex", [(1, "x", "double")])
    made = ours.descriptor_set(
        "pack", "Whole", members, enum=("Level", ["LOW", "MIDDLE", "HIGH"]), others=[point]
    )
    assert made == described_by_the_package().SerializeToString()


def whole_class() -> Any:
    pool = descriptor_pool.DescriptorPool()
    for file in described_by_the_package().file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("pack.Whole"))


WHOLE = whole_class()
NUMBERS = st.sampled_from([1, 127, 128, 16384, 2**32 - 1]) | st.integers(1, 2**63 - 1)


@given(
    number=NUMBERS,
    real=st.floats(allow_nan=False).filter(bool),
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    data=st.binary(min_size=1, max_size=300),
    time_ns=st.integers(-(2**62), 2**63 - 1).filter(lambda ns: ns % 10**9 and ns // 10**9),
)
@example(number=128, real=1.0, text="x", data=bytes(128), time_ns=-1)
@example(number=127, real=-1.0, text="x", data=bytes(127), time_ns=1_999_999_999)
def test_fields_are_those_of_the_package_byte_for_byte(
    number: int, real: float, text: str, data: bytes, time_ns: int
) -> None:
    seconds, nanos = divmod(time_ns, 10**9)
    small = number % (2**32 - 1) + 1
    message = WHOLE(
        double=real, int64=number, fixed32=small, string=text, bytes=data,
        when={"seconds": seconds, "nanos": nanos}, at={"x": real},
    )  # fmt: skip
    written = (
        ours.double_field(1, real)
        + ours.varint_field(2, number)
        + ours.fixed32_field(4, small)
        + ours.text_field(5, text)
        + ours.tag_and_length(6, len(data))
        + data
        + ours.timestamp_field(7, time_ns)
        + ours.bytes_field(300, ours.double_field(1, real))
    )
    assert written == message.SerializeToString()


def test_a_value_that_is_zero_is_written() -> None:
    assert ours.varint_field(2, 0) == b"\x10\x00"
    assert ours.text_field(5, "") == b"\x2a\x00"
    assert ours.timestamp_field(7, 0) == b"\x3a\x04\x08\x00\x10\x00"


def test_what_the_package_writes_is_read() -> None:
    message = WHOLE(
        double=2.5, int64=2**63 - 1, int32=-1, fixed32=0x01020304, string="é", bytes=bytes(200),
        at={"x": -1.0},
    )  # fmt: skip
    data = message.SerializeToString()
    read = [
        (number, bytes(value) if isinstance(value, memoryview) else value)
        for number, value in ours.fields(memoryview(data))
    ]
    assert read == [
        (1, int.from_bytes(struct.pack("<d", 2.5), "little")),
        (2, 2**63 - 1),
        (3, 2**64 - 1),  # an int32 below 0 has ten bytes
        (4, 0x01020304),
        (5, "é".encode()),
        (6, bytes(200)),
        (300, b"\x09" + struct.pack("<d", -1.0)),
    ]


@given(number=st.integers(1, 2**29 - 1), value=st.integers(0, 2**64 - 1))
def test_varint_fields_read_back(number: int, value: int) -> None:
    assert list(ours.fields(memoryview(ours.varint_field(number, value)))) == [(number, value)]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x0f", "protobuf: unknown wire type 7 at byte 1"),
        (b"\x08\x01\x0b", "protobuf: unknown wire type 3 at byte 3"),
        (b"\x0a\x05ab", "protobuf: field 1 ends at byte 7, after the end of the data at 4"),
        (b"\x0a\x03ab", "protobuf: field 1 ends at byte 5, after the end of the data at 4"),
        (b"\x0d\x01", "protobuf: field 1 ends at byte 5, after the end of the data at 2"),
        (b"\x09\x01", "protobuf: field 1 ends at byte 9, after the end of the data at 2"),
        (b"\x08", "protobuf: bad varint at byte 1"),
        (b"\x08\x80", "protobuf: bad varint at byte 1"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "protobuf: bad varint at byte 1"),
        (b"\x08\x01\x80", "protobuf: bad varint at byte 2"),
    ],
)
def test_bad_bytes_are_named(data: bytes, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        list(ours.fields(memoryview(data)))


def test_a_field_of_another_kind_is_refused() -> None:
    assert ours.number(5) == 5
    assert ours.contents(memoryview(b"ab")) == b"ab"
    with pytest.raises(ValueError, match=r"^protobuf: 5; expected a length-delimited field$"):
        ours.contents(5)
    with pytest.raises(
        ValueError, match=r"^protobuf: a length-delimited field; expected a number$"
    ):
        ours.number(memoryview(b"ab"))
