"""What a payload says, and how it is shown: fields, log lines, and what JSON can hold of them."""

from __future__ import annotations

import base64
import math

import msgpack
import numpy as np
import pytest

from flowrun.msgs import protobuf
from flowrun.runtime.log.lines import LEVELS, LOG_SCHEMA, pack_log, unpack_log
from flowrun.runtime.log.message import Range, Topic
from flowrun.runtime.log.values import decode, line_text, plain_value

ARRAY = np.array([[1, 2, 3], [4, 5, 6]], "<i2")
ARRAY_BASE64 = base64.b64encode(ARRAY.tobytes()).decode()


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None), (True, True), (3, 3), ("x", "x"), (1.5, 1.5), (0.0, 0.0), (-2.5, -2.5),
        (math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity"),
        (b"ab", "YWI="), (memoryview(b"ab"), "YWI="),
        ([1, [math.inf], b"a"], [1, ["Infinity"], "YQ=="]),
        ({"a": math.nan, 2: {None: b""}}, {"a": "NaN", "2": {"None": ""}}),
        (msgpack.Timestamp(5, 7), str(msgpack.Timestamp(5, 7))),
        (msgpack.ExtType(5, b"x"), str(msgpack.ExtType(5, b"x"))),
        ((1, 2), "(1, 2)"),
    ],
)  # fmt: skip
def test_a_value_as_json_can_hold_it(value, plain):
    for data in (False, True):
        assert plain_value(value, data=data) == plain


def test_an_array_as_json_can_hold_it():
    head = {"dtype": "<i2", "shape": [2, 3]}
    assert plain_value([ARRAY, {"a": ARRAY}], data=False) == [head, {"a": head}]
    whole = {**head, "data": ARRAY_BASE64}
    assert plain_value([ARRAY, {"a": ARRAY}], data=True) == [whole, {"a": whole}]


def test_fields_of_each_encoding():
    array = {"dtype": "<i2", "shape": [2, 3], "data": ARRAY.tobytes()}
    payload = memoryview(msgpack.packb({"a": array, "b": {"dtype": 1}, "c": [array], 7: 8}))
    found = decode(payload, "msgpack", "")
    assert found["a"].tolist() == ARRAY.tolist()
    assert (found["b"], found["c"], found[7]) == ({"dtype": 1}, [array], 8)
    assert decode(payload, "json", "") == {"data": payload}
    assert decode(memoryview(b"\x08\x05"), "protobuf", "x.Y") == {"1": 5}
    for payload, says in ((b"\x93\1\2\3", "a list, expected a map"), (b"\x07", "a int, expected")):
        with pytest.raises(ValueError, match=says):
            decode(memoryview(payload), "msgpack", "")


# -- log lines -----------------------------------------------------------------------------------


def test_a_log_line_is_a_message_of_foxglove():
    """Field by field: timestamp 1 {1 seconds, 2 nanos}, level 2, message 3, name 4; ours is 1000."""
    packed = pack_log(3_000_000_007, "error", "m", "n", {"k": 1})
    assert packed == (
        b"\x0a\x04\x08\x03\x10\x07\x10\x04\x1a\x01m\x22\x01n\xc2\x3e\x04\x81\xa1k\x01"
    )
    assert unpack_log(packed) == {
        "time_ns": 3_000_000_007, "level": "ERROR", "message": "m", "name": "n", "fields": {"k": 1},
    }  # fmt: skip
    assert pack_log(0, "info", "", "", {}) == b"\x0a\x04\x08\0\x10\0\x10\x02\x1a\0\x22\0"


def test_a_log_line_may_lack_everything():
    assert unpack_log(b"") == {
        "time_ns": 0, "level": "UNKNOWN", "message": "", "name": "", "fields": {},
    }  # fmt: skip


@pytest.mark.parametrize("level", range(7))
def test_levels_are_numbers(level):
    expected = LEVELS[level] if level < 6 else "UNKNOWN"
    assert unpack_log(bytes([0x10, level]))["level"] == expected


@pytest.mark.parametrize(
    "data",
    [
        b"\x08\x05",  # a number for the time
        b"\x12\x01a",  # a text for the level
        b"\x18\x05",  # a number for the message
        b"\x1a\x01\xff",  # no UTF-8
        b"\xc2\x3e\x01\xc1",  # no msgpack
        b"\xc2\x3e\x00",  # nothing of msgpack
    ],
)
def test_bytes_of_no_log_line_are_a_value_error(data):
    with pytest.raises(ValueError, match="."):
        unpack_log(data)


def members(data, number):
    return [value for found, value in protobuf.fields(memoryview(data)) if found == number]


def test_the_schema_numbers_the_fields_as_they_are_packed():
    # A FileDescriptorProto's message_type is 4, a DescriptorProto's field 2: name 1, number 3.
    found = {}
    for file in members(LOG_SCHEMA, 1):
        for message in members(file, 4):
            for field in members(message, 2):
                [name], [number] = members(field, 1), members(field, 3)
                found[bytes(name).decode()] = number
    assert found == {
        "timestamp": 1, "level": 2, "message": 3, "name": 4, "file": 5, "line": 6,
        "seconds": 1, "nanos": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "text"),
    [({}, "m"), ({"a": 1}, "m a=1"), ({"a": "x", "b": None}, "m a='x' b=None")],
)
def test_a_line_as_text(fields, text):
    assert line_text({"message": "m", "fields": fields}) == text


# -- ranges and topics ---------------------------------------------------------------------------


def test_a_range_holds_its_beginning_and_not_its_end():
    for bounds, within in (
        ((None, None, None, None), [0, 1, 2, 3, 4]),
        ((1, None, None, None), [1, 2, 3, 4]),
        ((None, 3, None, None), [0, 1, 2]),
        ((1, 3, None, None), [1, 2]),
        ((None, None, 20, None), [2, 3, 4]),
        ((None, None, 15, 31), [2, 3]),
        ((None, None, None, 30), [0, 1, 2]),
        ((3, None, 10, None), [3, 4]),
        ((1, None, 30, None), [3, 4]),
        ((None, 2, None, 30), [0, 1]),
        ((None, 4, None, 20), [0, 1]),
        ((0, 0, None, None), []),
    ):
        wanted = Range(*bounds)
        assert [it for it in range(5) if wanted.contains(it, 10 * it)] == within
        start, end, start_ns, end_ns = bounds
        over = [it for it in range(5) if wanted.is_over(it, 10 * it)]
        assert over == [
            it for it in range(5)
            if (end is not None and it >= end) or (end_ns is not None and 10 * it >= end_ns)
        ]  # fmt: skip
        assert wanted.begins_with_log == (start is None and start_ns is None)
        assert wanted.is_everything == (bounds == (None,) * 4)


@pytest.mark.parametrize(
    ("encoding", "schema", "metadata", "is_picture"),
    [
        ("protobuf", "foxglove.RawImage", {}, True),
        ("msgpack", "foxglove.RawImage", {}, False),
        ("protobuf", "foxglove.Log", {}, False),
        ("protobuf", "foxglove.CompressedVideo", {"codec": "packets"}, True),
        ("protobuf", "foxglove.CompressedVideo", {"task": "t"}, False),
    ],
)
def test_which_topics_are_pictures(encoding, schema, metadata, is_picture):
    topic = Topic("/a/b", encoding, schema, "protobuf", b"hidden", metadata)
    assert topic.is_picture == is_picture
    assert "hidden" not in repr(topic)
