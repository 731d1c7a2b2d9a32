from __future__ import annotations

import math
import struct
from typing import Annotated

import numpy as np
import pytest
from numpy.typing import NDArray

from flowrun.msgs import FloatMsg, Message, Shape
from flowrun.msgs.difference import ArrayDifference, FieldDifference, differing_field
from flowrun.runtime.errors import UsageError
from flowrun.runtime.replay.compare import Recorded, Tolerance, compare


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": 1, "b": "x"}, {"a": 1, "b": "y"}, ("b", "'x'", "'y'")),
        ({"a": 1}, {"a": 1.0}, ("a", "1", "1.0")),
        ({"a": 1}, {"a": True}, ("a", "1", "True")),
        ({"a": 1}, {}, ("a", "1", "'(no such field)'")),
        ({}, {"a": 1}, ("a", "'(no such field)'", "1")),
        ({"a": float("nan")}, {"a": float("nan")}, None),
        ({"a": np.zeros(3)}, {"a": np.zeros(3)}, None),
        ({"a": np.zeros(3)}, {"a": 0}, ("a", "array([0., 0., 0.])", "0")),
        (
            {"a": np.zeros((2, 3), np.uint8)},
            {"a": np.zeros((3, 2), np.uint8)},
            ("a", "uint8 [2, 3]", "uint8 [3, 2]"),
        ),
        (
            {"a": np.zeros(2, np.float32)},
            {"a": np.zeros(2, np.float64)},
            ("a", "float32 [2]", "float64 [2]"),
        ),
        (
            {"a": np.array([[1, 2], [3, 4]])},
            {"a": np.array([[1, 2], [9, 3]])},
            ("a", "3 at [1, 0]", "9 there; 2 of 4 elements differ, by 6 at most"),
        ),
        (
            {"a": np.array([0.0, np.nan])},
            {"a": np.array([-0.0, np.nan])},
            ("a", "0.0 at [0]", "-0.0 there; 1 of 2 elements differ, by nan at most"),
        ),
        (
            {"a": np.array([np.inf])},
            {"a": np.array([np.nan])},
            ("a", "inf at [0]", "nan there; 1 of 1 elements differ, by nan at most"),
        ),
        (
            {"a": np.array(["x", "y"])},
            {"a": np.array(["x", "z"])},
            ("a", "y at [1]", "z there; 1 of 2 elements differ"),
        ),
    ],
)
def test_the_first_field_that_differs(before, now, found):
    difference = differing_field(before, now)
    assert (difference and difference[:3]) == found


def test_how_arrays_differ_is_given_in_numbers():
    difference = differing_field(
        {"a": np.array([[1, 2], [3, 4]])}, {"a": np.array([[1, 2], [9, 3]])}
    )
    assert difference.array == ArrayDifference((1, 0), count=2, size=4, largest=6.0)
    assert differing_field({"a": 1}, {"a": 2}).array is None


class Reading(Message):
    stamp_ns: int
    stamps_ns: Annotated[NDArray[np.int64], Shape("N")]
    ids: Annotated[NDArray[np.uint8], Shape("N")]
    depth_m: Annotated[NDArray[np.float32], Shape("N")]


def beyond(tolerance, **changed):
    before = {
        "stamp_ns": 1795256184954953645,
        "stamps_ns": np.array([1795256184954953645, -(2**63)]),
        "ids": np.array([0, 255], np.uint8),
        "depth_m": np.array([1.0, np.nan], np.float32),
    }
    return Tolerance(tolerance).beyond(Reading, before, before | changed)


def test_whole_numbers_in_arrays_are_compared_as_such():
    """Not as floats, for which times 100 ns apart are the same."""
    later = np.array([1795256184954953745, -(2**63)])
    assert beyond({"Reading.depth_m": 0.5}) is None
    assert beyond({"Reading.depth_m": 0.5}, stamps_ns=later) == "stamps_ns"
    assert beyond({"Reading.stamps_ns": 99}, stamps_ns=later) == "stamps_ns"
    assert beyond({"Reading.stamps_ns": 100.5}, stamps_ns=later) is None
    far = np.array([1795256184954953645, 2**63 - 1])
    assert beyond({"Reading.stamps_ns": 1e18}, stamps_ns=far) == "stamps_ns"
    assert beyond({"Reading.stamps_ns": 2.0**63}, stamps_ns=far) == "stamps_ns"
    assert beyond({"Reading.stamps_ns": 2**64 - 2}, stamps_ns=far) == "stamps_ns"
    assert beyond({"Reading.stamps_ns": 2**64 - 1}, stamps_ns=far) is None
    assert beyond({"Reading.stamps_ns": math.inf}, stamps_ns=far) is None
    assert beyond({"Reading": 3}, ids=np.array([2, 253], np.uint8)) is None
    assert beyond({"Reading": 1}, ids=np.array([2, 253], np.uint8)) == "ids"
    assert beyond({"Reading": 0}, depth_m=np.array([1.0, 1.0], np.float32)) == "depth_m"


def test_the_field_that_is_named_is_one_beyond_the_tolerance():
    message = Reading(stamp_ns=1, ids=np.array([1], np.uint8))
    message.publish(tov_ns=0)
    payload = memoryview(b"".join(message.encode()))
    now = Reading(stamp_ns=9, ids=np.array([4], np.uint8))
    now.publish(tov_ns=0)
    found = compare(Recorded(0, lambda: payload), now, Tolerance({"Reading.stamp_ns": None}))
    assert isinstance(found, FieldDifference)
    assert (found.name, found.array.largest) == ("ids", 3.0)


def test_a_nan_of_other_bits_is_a_difference_unless_its_class_has_a_limit():
    recorded = FloatMsg(value=math.nan)
    recorded.publish(tov_ns=0)
    payload = memoryview(b"".join(recorded.encode()))
    [other] = struct.unpack(">d", bytes.fromhex("7ff8000000000001"))
    now = FloatMsg(value=other)
    now.publish(tov_ns=0)
    found = compare(Recorded(0, lambda: payload), now, Tolerance({"IntMsg": 1}))
    assert isinstance(found, FieldDifference)
    assert found.before == "the same fields in other bytes"
    assert compare(Recorded(0, lambda: payload), now, Tolerance({"FloatMsg": 0})) is False


class Pair(Message):
    a: float
    b: float


def test_a_limit_of_one_field_leaves_the_bits_of_the_others(tmp_path):
    [other] = struct.unpack(">d", bytes.fromhex("7ff8000000000001"))
    strict = Tolerance({"Pair.a": 1})
    assert strict.beyond(Pair, {"a": 0.0, "b": math.nan}, {"a": 0.5, "b": other}) == "b"
    assert strict.beyond(Pair, {"a": math.nan, "b": 0.0}, {"a": other, "b": 0.0}) is None


def test_a_limit_for_messages_of_one_name_is_refused():
    other = type("Pair", (Message,), {"__annotations__": {"a": float}, "__module__": "elsewhere"})
    with pytest.raises(UsageError) as caught:
        Tolerance({"Pair.a": 1}).check([Pair, other, Pair])
    assert str(caught.value) == (
        "tolerance Pair.a: the graph has several messages of that name, elsewhere.Pair and "
        f"{__name__}.Pair; rename one of them"
    )


def test_a_field_without_a_limit_must_be_the_same_beside_one_that_has_one():
    before, now = {"a": 0.0, "b": 0.0}, {"a": 0.5, "b": -0.0}
    assert Tolerance({"Pair.a": 1}).beyond(Pair, before, now) == "b"
    assert Tolerance({"Pair": 1}).beyond(Pair, before, now) is None


@pytest.mark.parametrize(
    "text", ["IntMsg=abc", "IntMsg=", "=1", "IntMsg", "IntMsg=-1", "IntMsg=nan"]
)
def test_a_limit_that_is_none_is_named(text):
    with pytest.raises(UsageError) as caught:
        Tolerance.parse([text])
    assert str(caught.value) == (
        f"tolerance {text}: expected MSG=NUMBER, MSG.FIELD=NUMBER or MSG.FIELD=any, such as "
        "DetectionsMsg=0.001 or PromptResponseMsg.response=any"
    )


@pytest.mark.parametrize(
    ("before", "now", "is_near"),
    [
        (1, 2, True),
        (1, 2.5, False),
        (1, True, False),
        (True, True, True),
        (math.nan, math.nan, True),
        (math.nan, 1.0, False),
        ([1, 2], [2, 3], True),
        ([1, 2], [2, 9], False),
        ([1, 2], [1], False),
        ([[1]], [[1.5]], True),
        ({"a": 1}, {"a": 2}, True),
        ({"a": 1}, {"a": 9}, False),
        ({"a": 1}, {"b": 1}, False),
        ("a", "a", True),
        ("a", "b", False),
        (b"a", "a", False),
        (None, None, True),
        ([1], {"a": 1}, False),
    ],
)
def test_what_is_near(before, now, is_near):
    found = Tolerance({"Pair": 1}).beyond(Pair, {"a": before}, {"a": now})
    assert found == (None if is_near else "a")
