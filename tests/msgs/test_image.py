"""Pictures as any other reader sees them: `foxglove.RawImage`, by the protobuf package."""

import re
from typing import Any

import msgpack
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from flowrun.msgs import ImageRgb8Msg, MessageTypeError
from flowrun.msgs import protobuf as ours
from flowrun.msgs.image import VideoDecoder, VideoPackets


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


def test_a_picture_made_of_another_is_described_as_it() -> None:
    image = ImageRgb8Msg(frame_id=7, pts=3, fps=25.0, source="gate", pixel_aspect=1.5)
    image.pixels = np.zeros((2, 4, 3), np.uint8)
    made = ImageRgb8Msg()
    made.describe_as(image)
    made.pixels = image.pixels
    assert made.all_fields().keys() == image.all_fields().keys()
    for name, value in image.all_fields().items():
        assert name == "pixels" or getattr(made, name) == value


def test_picture_of_another_program_is_a_value_error() -> None:
    foreign = RAW_IMAGE(width=1, height=1, encoding="rgb8", step=3, data=b"abc")
    with pytest.raises(ValueError, match=r"^not an ImageRgb8Msg: KeyError\(1000\)$"):
        ImageRgb8Msg.decode_fields(foreign.SerializeToString())


def without(number: int, *instead: bytes) -> bytes:
    """The bytes of a picture that lacks the field `number`, then `instead`."""
    data = b"".join(picture().encode())
    kept, rest = [], memoryview(data)
    for key, value in ours.fields(rest):
        size = value if isinstance(value, int) else bytes(value)
        if key == number:
            continue
        if isinstance(size, bytes):
            kept.append(ours.bytes_field(key, size))
        else:
            kept.append(ours.fixed32_field(key, size))
    return b"".join([*kept, *instead])


OWN = ours.bytes_field(1000, msgpack.packb([7, 90_000, 29.97]))


@pytest.mark.parametrize(
    ("number", "instead", "said"),
    [
        (1000, (), "KeyError(1000)"),
        (2, (), "KeyError(2)"),
        (3, (), "KeyError(3)"),
        (6, (), "KeyError(6)"),
        (7, (), "KeyError(7)"),
        (1000, (ours.varint_field(1000, 5),), "TypeError("),
        (1000, (ours.bytes_field(1000, b"\xc1"),), "FormatError("),
        (1000, (ours.bytes_field(1000, b"\x93\x01"),), "ValueError("),
        (1000, (ours.bytes_field(1000, msgpack.packb([7, 1])),), "ValueError("),
        (1000, (ours.bytes_field(1000, msgpack.packb(7)),), "TypeError("),
        (2, (ours.text_field(2, "3"),), "ValueError('protobuf: a length-delimited field"),
        (3, (ours.text_field(3, "2"),), "ValueError('protobuf: a length-delimited field"),
        (6, (ours.varint_field(6, 18),), "ValueError('protobuf: 18; expected"),
        (7, (ours.varint_field(7, 18),), "ValueError('protobuf: 18; expected"),
        (7, (ours.bytes_field(7, b"\xff"),), "UnicodeDecodeError("),
        (6, (ours.bytes_field(6, bytes(17)),), "ValueError("),
        (6, (ours.bytes_field(6, bytes(19)),), "ValueError("),
        (2, (ours.fixed32_field(2, 4),), "ValueError("),
        (3, (ours.varint_field(3, 2**64 - 1),), "ValueError("),
    ],
)
def test_what_is_no_picture_is_named(number: int, instead: tuple[bytes, ...], said: str) -> None:
    assert ImageRgb8Msg.decode_fields(without(1000, OWN))["pts"] == 90_000
    with pytest.raises(ValueError, match=rf"^not an ImageRgb8Msg: {re.escape(said)}"):
        ImageRgb8Msg.decode_fields(without(number, *instead))


def test_a_picture_is_the_bytes_of_its_fields() -> None:
    """In this order, so that the pixels come last, by reference."""
    message = picture()
    front, pixels = message.encode()
    assert front == (
        ours.timestamp_field(1, message.tov_ns)
        + ours.text_field(7, "cam0")
        + ours.fixed32_field(2, 3)
        + ours.fixed32_field(3, 2)
        + ours.text_field(4, "rgb8")
        + ours.fixed32_field(5, 9)
        + OWN
        + ours.tag_and_length(6, 18)
    )
    assert bytes(pixels) == bytes(range(18))
    assert ImageRgb8Msg().encode()[1] == b""


def test_a_picture_whose_fields_do_not_fit_is_refused() -> None:
    message = picture()
    message.fps = 2**64
    with pytest.raises(MessageTypeError, match=r"^ImageRgb8Msg\.fps: the log cannot hold"):
        message.publish(tov_ns=1)
    with pytest.raises(MessageTypeError, match=r"^ImageRgb8Msg: Integer value out of range$"):
        message.pack_front([2**64], [], source=7, data=6, size=0)
    message.source = "\ud800"
    with pytest.raises(MessageTypeError, match=r"^ImageRgb8Msg: 'utf-8' codec can't encode"):
        message.pack_front([], [], source=7, data=6, size=0)
    message.pixels = np.zeros((2, 2), np.uint8)
    for made in (message.encode, message.checked_pixels):
        with pytest.raises(
            MessageTypeError, match=r"^ImageRgb8Msg\.pixels: expected uint8 of shape"
        ):
            made()


def test_the_packets_of_a_picture_last_for_a_cycle() -> None:
    message = ImageRgb8Msg()
    assert message.video is None
    message.video = VideoPackets(
        VideoDecoder("h264", b"", 2, 2, "yuv420p", "", 0, 0, (2, 0)), (), 0, 0, 0, True, False
    )
    message.clear()
    assert message.video is None


def test_cut_picture_is_a_value_error() -> None:
    data = b"".join(picture().encode())
    for length in range(len(data)):
        with pytest.raises(ValueError):
            ImageRgb8Msg.decode_fields(data[:length])
