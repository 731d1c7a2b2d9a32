from __future__ import annotations

import math
import struct
from typing import Annotated

import numpy as np
import pytest
from numpy.typing import NDArray

from flowrun.msgs import FloatMsg, IntMsg, Measured, Message, Shape
from flowrun.msgs.difference import ArrayDifference, FieldDifference, differing_field
from flowrun.runtime.errors import UsageError
from flowrun.runtime.replay.compare import (
    Difference,
    Recorded,
    Tolerance,
    compare,
    compare_bare,
)


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
        (2, 1, True),
        (1, 2.5, False),
        (2.5, 1, False),
        (1, 1.5, True),
        (1, "a", False),
        ("a", 1, False),
        (1, True, False),
        (True, 1, False),
        (True, True, True),
        (True, False, False),
        (math.inf, math.inf, True),
        (math.inf, -math.inf, False),
        (math.nan, math.nan, True),
        (math.nan, 1.0, False),
        (1.0, math.nan, False),
        ([1, 2], [2, 3], True),
        ([1, 2], [2, 9], False),
        ([1, 2], [1], False),
        ([1], [1, 2], False),
        ([], {}, False),
        ({}, [], False),
        ([[1]], [[1.5]], True),
        ({"a": 1}, {"a": 2}, True),
        ({"a": 1}, {"a": 9}, False),
        ({"a": 1}, {"b": 1}, False),
        ({"a": 1}, {"a": 1, "b": 1}, False),
        ({"a": 1, "b": 1}, {"a": 1}, False),
        (np.zeros(1), 0, False),
        (0, np.zeros(1), False),
        (np.zeros(2), np.ones(2), True),
        (np.zeros(2), np.array([0.0, 1.01]), False),
        (np.array([1e9]), np.array([1e9 + 2]), False),  # no share of the value
        (np.zeros(1), np.zeros(2), False),
        (np.zeros((1, 2)), np.zeros(2), False),
        (np.zeros(2, np.float32), np.zeros(2), False),
        (np.zeros(1, np.int64), np.zeros(2, np.int64), False),
        (np.array([3], np.int8), np.array([2], np.int8), True),
        (np.array([3], np.int8), np.array([1], np.int8), False),
        (np.array([True]), np.array([True]), True),
        (np.array([True]), np.array([False]), False),
        (np.array(["a"]), np.array(["b"]), False),
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


# -- a message -------------------------------------------------------------------------------------


class Now(Message):
    """A class that has got the field `c` since the recording, and lost `gone`."""

    a: int
    b: float
    c: str = "new"
    took_ms: Measured[float]


def recorded(message, tov_ns=5):
    message.publish(tov_ns=tov_ns)
    payload = memoryview(b"".join(message.encode()))
    return Recorded(tov_ns, lambda: payload)


def before(**fields):
    """As it was recorded, with an older class."""
    kind = type(
        "Now", (Message,), {"__annotations__": {name: type(it) for name, it in fields.items()}}
    )
    return recorded(kind(**fields))


def now(tov_ns=5, **fields):
    message = Now(**fields)
    message.publish(tov_ns=tov_ns)
    return message


def test_a_message_that_came_without_or_did_not_come():
    assert compare(None, now(a=1), Tolerance()) == ("", "no message", repr(Now(a=1)), None)
    missing = ("", "a message of 8 bytes", "no message", None)
    assert compare(recorded(IntMsg(value=1)), IntMsg(), Tolerance()) == missing


def test_bytes_that_are_not_of_the_class_are_named():
    found = compare(Recorded(5, lambda: memoryview(b"\xc1")), now(a=1), Tolerance())
    assert (found.name, found.now) == ("", repr(Now(a=1)))
    assert found.before.startswith("1 bytes that are not a Now (")


def test_the_time_of_validity_is_compared_first():
    found = compare(recorded(Now(a=1), 5), now(6, a=2), Tolerance({"Now": 9}))
    assert found == ("tov_ns", "5", "6", None)


def test_a_measurement_becomes_the_recorded_one():
    made = now(a=1, took_ms=9.0)
    assert compare(recorded(Now(a=1, took_ms=1.5)), made, Tolerance()) is True
    assert made.view().took_ms == 1.5
    made = now(a=1, took_ms=9.0)
    assert compare(before(a=1, b=0.0), made, Tolerance()) is True  # recorded before it was there
    assert made.view().took_ms == 9.0


@pytest.mark.parametrize("limits", [{}, {"IntMsg": 1}, {"Now.a": 0}])
def test_only_what_was_recorded_is_compared(limits):
    tolerance = Tolerance(limits)
    assert compare(before(a=1, b=0.5), now(a=1, b=0.5, c="x"), tolerance) is True
    assert compare(before(a=1, b=0.5), now(a=2, b=0.5), tolerance) == ("a", "1", "2", None)
    assert compare(before(a=1, b=0.0), now(a=1, b=-0.0), tolerance) == ("b", "0.0", "-0.0", None)


def test_a_message_within_the_tolerance_becomes_the_recorded_one():
    made = now(a=3, b=0.5)
    assert compare(recorded(Now(a=1, b=0.5)), made, Tolerance({"Now": 2})) is False
    assert (made.view().a, made.view().b, made.tov_ns) == (1, 0.5, 5)
    found = compare(recorded(Now(a=1, b=0.5)), now(a=4, b=0.6), Tolerance({"Now": 2}))
    assert found == ("a", "1", "4", None)
    assert compare(before(a=1), now(a=3, b=7.0), Tolerance({"Now": 2})) is False


def test_a_field_that_only_one_side_has_is_beyond_every_tolerance():
    limits = Tolerance({"Now": 9})
    assert limits.beyond(Now, {"a": 1, "gone": 2}, {"a": 1}) == "gone"
    assert limits.beyond(Now, {"a": 1}, {"a": 1, "c": 2}) == "c"
    assert (
        Tolerance({"Now.a": None, "Now": 0}).beyond(Now, {"a": 1, "b": 2}, {"a": 5, "b": 3}) == "b"
    )


def test_a_recorded_message_is_read_once_and_only_if_it_is_needed():
    reads = []

    def read():
        reads.append(1)
        return recorded(IntMsg(value=1)).payload

    found = Recorded(7, read)
    assert reads == []
    assert found.payload is found.payload
    assert reads == [1]
    message = IntMsg()
    Recorded(7, read, lambda: {"value": 4}).load_into(message)
    assert (message.view().value, message.tov_ns, reads) == (4, 7, [1])
    found.load_into(message)
    assert (message.view().value, reads) == (1, [1])


def test_without_payload_whether_and_when_it_came_is_compared():
    assert compare_bare(None, IntMsg()) is None
    assert compare_bare(0, IntMsg()) == ("", "a message", "no message", None)
    assert compare_bare(5, now(5, a=1)) is None
    assert compare_bare(6, now(5, a=1)) == ("tov_ns", "6", "5", None)
    assert compare_bare(4, now(5, a=1)) == ("tov_ns", "4", "5", None)
    assert compare_bare(None, now(5, a=1)) == ("", "no message", repr(Now(a=1)), None)


# -- words -----------------------------------------------------------------------------------------


def test_a_difference_says_where_it_is_and_what_may_be_why():
    found = Difference(3, "t", "out", "value", "1", "2", hint="it keeps an input")
    assert str(found) == (
        "cycle 3, task 't', port 'out', field 'value':\n  recorded: 1\n  replayed: 2\n"
        "  hint: it keeps an input"
    )
    assert str(Difference(3, "t", "out", "", "a", "b")) == (
        "cycle 3, task 't', port 'out':\n  recorded: a\n  replayed: b"
    )


def test_limits_are_read_from_texts():
    texts = ["Pair=0.5", "Pair.a=any", "Reading=0", "Reading.ids=2"]
    read = Tolerance.parse(texts)
    read.check([Pair, Reading, IntMsg])
    assert read._limits == {"Pair": 0.5, "Pair.a": None, "Reading": 0.0, "Reading.ids": 2.0}
    assert [read.holds_for(kind) for kind in (Pair, Reading, IntMsg)] == [True, True, False]


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"Other": 1}, "Other: no such message or field in the graph; messages: IntMsg, Pair"),
        ({"Pair.c": 1}, "Pair.c: no such message or field in the graph; messages: IntMsg, Pair"),
        (
            {"Pair": None},
            "Pair=any: name the field, Pair.FIELD=any; to leave a task out, feed it from the log",
        ),
    ],
)
def test_a_limit_for_what_is_not_there_is_refused(limits, text):
    with pytest.raises(UsageError) as caught:
        Tolerance({"IntMsg.value": None, **limits}).check([Pair, IntMsg])
    assert str(caught.value) == f"tolerance {text}"
