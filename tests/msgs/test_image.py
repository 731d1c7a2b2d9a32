"""Pictures as any other reader sees them: `foxglove.RawImage`, by the protobuf package."""

from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from flowrun.msgs import ImageRgb8Msg
from flowrun.msgs import protobuf as ours


def raw_image_class() -> Any:
    """The message class that the schema in our logs describes."""
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(ImageRgb8Msg.schema()).file
    for file in files:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("foxglove.RawImage"))


RAW_IMAGE = raw_image_class()


def picture(height: int = 2, width: int = 3) -> ImageRgb8Msg:
    message = ImageRgb8Msg(frame_id=7, pts=90_000, fps=29.97, source="cam0")
    message.allocate_pixels(height, width)[:] = np.arange(3 * width * height).reshape(
        height, width, 3
    )
    message.publish(tov_ns=1_700_000_000_123_456_789)
    return message


def test_other_readers_see_a_raw_image() -> None:
    message = picture()
    seen = RAW_IMAGE.FromString(b"".join(message.encode()))
    assert (seen.timestamp.seconds, seen.timestamp.nanos) == (1_700_000_000, 123_456_789)
    assert (seen.width, seen.height, seen.step, seen.encoding) == (3, 2, 9, "rgb8")
    assert seen.frame_id == "cam0"
    assert seen.data == message.pixels.tobytes()


def test_other_readers_keep_our_field_as_an_unknown_one() -> None:
    message = picture()
    data = RAW_IMAGE.FromString(b"".join(message.encode())).SerializeToString()
    again = ImageRgb8Msg.decode_fields(data)
    assert (again["frame_id"], again["pts"], again["fps"]) == (7, 90_000, 29.97)


def test_schema_is_that_of_foxglove() -> None:
    described = {field.name: (field.number, field.type) for field in RAW_IMAGE.DESCRIPTOR.fields}
    kind = descriptor_pb2.FieldDescriptorProto
    assert described == {
        "timestamp": (1, kind.TYPE_MESSAGE),
        "width": (2, kind.TYPE_FIXED32),
        "height": (3, kind.TYPE_FIXED32),
        "encoding": (4, kind.TYPE_STRING),
        "step": (5, kind.TYPE_FIXED32),
        "data": (6, kind.TYPE_BYTES),
        "frame_id": (7, kind.TYPE_STRING),
    }
    timestamp = RAW_IMAGE.DESCRIPTOR.fields_by_name["timestamp"].message_type
    assert timestamp.full_name == "google.protobuf.Timestamp"


def test_pixels_are_referenced_not_copied() -> None:
    message = picture()
    _, pixels = message.encode()
    assert isinstance(pixels, memoryview)
    assert np.shares_memory(np.frombuffer(pixels, np.uint8), message.pixels)


def test_rows_with_a_gap_are_written_without_it() -> None:
    wide = np.arange(2 * 6 * 3, dtype=np.uint8).reshape(2, 6, 3)
    message = ImageRgb8Msg(pixels=wide[:, 1:4])
    again = ImageRgb8Msg.decode_fields(b"".join(message.encode()))
    np.testing.assert_array_equal(again["pixels"], wide[:, 1:4])


@given(
    height=st.integers(0, 5),
    width=st.integers(0, 5),
    frame_id=st.integers(-(2**63), 2**63 - 1),
    pts=st.none() | st.integers(-(2**63), 2**63 - 1),
    fps=st.floats(allow_nan=False),
    source=st.text(st.characters(exclude_categories=["Cs"])),
    tov_ns=st.integers(0, 2**62),
)
def test_unpack_of_pack_is_the_picture(
    height: int, width: int, frame_id: int, pts: int | None, fps: float, source: str, tov_ns: int
) -> None:
    message = picture(height, width)
    message.frame_id, message.pts, message.fps, message.source = frame_id, pts, fps, source
    message.publish(tov_ns=tov_ns)
    data = b"".join(message.encode())
    again = ImageRgb8Msg()
    again.load(data)
    np.testing.assert_array_equal(again.pixels, message.pixels)
    assert (again.frame_id, again.pts, again.fps, again.source) == (frame_id, pts, fps, source)
    seen = RAW_IMAGE.FromString(data)
    assert seen.timestamp.seconds * 10**9 + seen.timestamp.nanos == tov_ns


def test_picture_of_another_program_is_a_value_error() -> None:
    foreign = RAW_IMAGE(width=1, height=1, encoding="rgb8", step=3, data=b"abc")
    with pytest.raises(ValueError, match=r"^not an ImageRgb8Msg: KeyError\(1000\)$"):
        ImageRgb8Msg.decode_fields(foreign.SerializeToString())


def test_cut_picture_is_a_value_error() -> None:
    data = b"".join(picture().encode())
    for length in range(len(data)):
        with pytest.raises(ValueError):
            ImageRgb8Msg.decode_fields(data[:length])


def test_enum_of_a_descriptor_is_known_to_other_readers() -> None:
    data = ours.descriptor_set(
        "demo",
        "Level",
        [(1, "level", "enum"), (2, "when", "timestamp")],
        enum=("Kind", ["LOW", "HIGH"]),
    )
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.Add(file)
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("demo.Level"))
    assert made.Kind.items() == [("LOW", 0), ("HIGH", 1)]
    seen = made.FromString(ours.varint_field(1, 1) + ours.bytes_field(2, ours.varint_field(1, 5)))
    assert (seen.level, seen.when.seconds) == (1, 5)


@given(number=st.integers(1, 2**29 - 1), value=st.integers(0, 2**64 - 1))
def test_varint_fields_read_back(number: int, value: int) -> None:
    assert list(ours.fields(memoryview(ours.varint_field(number, value)))) == [(number, value)]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x0f", "protobuf: unknown wire type 7 at byte 1"),
        (b"\x0a\x05ab", "protobuf: field 1 ends at byte 7, after the end of the data at 4"),
        (b"\x0d\x01", "protobuf: field 1 ends at byte 5, after the end of the data at 2"),
        (b"\x08", "protobuf: bad varint at byte 1"),
        (b"\x08" + b"\xff" * 11, "protobuf: bad varint at byte 11"),
    ],
)
def test_bad_bytes_are_named(data: bytes, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        list(ours.fields(memoryview(data)))
