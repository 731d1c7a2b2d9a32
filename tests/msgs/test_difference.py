"""The first field in which two messages differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flowrun.msgs.difference import ArrayDifference, differing_field
from flowrun.msgs.values import ReadOnlyDict, ReadOnlyList


def difference(before: object, now: object) -> tuple[str, str] | None:
    found = differing_field({"same": 1, "x": before}, {"same": 1, "x": now})
    if found is None:
        return None
    assert found.name == "x"
    return found.before, found.now


def test_arrays_of_another_type_or_shape_differ_whatever_their_bytes() -> None:
    zeros = np.zeros((2, 3), np.int32)
    assert difference(zeros, zeros.copy()) is None
    assert difference(zeros, zeros.view(np.uint32)) == ("int32 [2, 3]", "uint32 [2, 3]")
    assert difference(zeros.view(np.uint32), zeros) == ("uint32 [2, 3]", "int32 [2, 3]")
    assert difference(zeros, zeros.reshape(3, 2)) == ("int32 [2, 3]", "int32 [3, 2]")
    assert difference(zeros.reshape(3, 2), zeros) == ("int32 [3, 2]", "int32 [2, 3]")


def test_the_first_element_that_differs_is_named_with_the_largest_difference() -> None:
    before = np.zeros((2, 3), np.int16)
    now = before.copy()
    now[1, 0], now[1, 2] = 5, -7
    found = differing_field({"x": before}, {"x": now})
    assert found is not None
    assert (found.before, found.now) == (
        "0 at [1, 0]",
        "5 there; 2 of 6 elements differ, by 7 at most",
    )
    assert found.array is not None
    assert (found.array.index, found.array.count, found.array.size, found.array.largest) == (
        (1, 0), 2, 6, 7.0,
    )  # fmt: skip


def test_numbers_are_compared_by_their_bits() -> None:
    nan = float("nan")
    assert difference(np.array([nan]), np.array([nan])) is None
    assert difference(np.array([0.0]), np.array([-0.0])) is not None
    assert difference(0.0, -0.0) == ("0.0", "-0.0")
    assert difference(1, 1.0) == ("1", "1.0")
    assert difference(nan, nan) is None


def test_a_field_that_only_one_has_is_a_difference() -> None:
    assert differing_field({"a": 1}, {}) is not None
    found = differing_field({"b": 1}, {"a": 1, "b": 2})
    assert found is not None
    assert (found.name, found.before, found.now) == ("a", "'(no such field)'", "1")


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ([True, True, False], [True, False, True], (1, 2, 1.0)),
        (np.array([1 + 1j, 2]), np.array([1 + 1j, 3]), (1, 1, None)),
        (np.array([0, 2**63], np.uint64), np.array([0, 0], np.uint64), (1, 1, 2.0**63)),
        (np.array([np.inf, 1]), np.array([-np.inf, 1]), (0, 1, np.inf)),
        (np.array([1.5, 1], np.float16), np.array([1.5, 3], np.float16), (1, 1, 2.0)),
    ],
)
def test_the_largest_difference_is_that_of_numbers(before: Any, now: Any, said: Any) -> None:
    old, new = np.array(before), np.array(now)
    index, count, largest = said
    found = differing_field({"x": old}, {"x": new})
    assert found is not None
    assert found.array == ArrayDifference((index,), count, old.size, largest)
    by = "" if largest is None else f", by {largest:g} at most"
    assert found.before == f"{old[index]} at [{index}]"
    assert found.now == f"{new[index]} there; {count} of {old.size} elements differ{by}"


def test_an_array_and_another_value_differ() -> None:
    found = differing_field({"x": np.zeros(1)}, {"x": 0})
    assert found is not None
    assert (found.before, found.now, found.array) == ("array([0.])", "0", None)
    assert differing_field({"x": 0}, {"x": np.zeros(1)}) is not None


def test_lists_and_dicts_of_a_message_are_as_plain_ones() -> None:
    assert difference(ReadOnlyList([1, 2]), [1, 2]) is None
    assert difference({"a": 1}, ReadOnlyDict(a=1)) is None
    assert difference([1], {"a": 1}) == ("[1]", "{'a': 1}")
    assert difference((1,), [1]) == ("(1,)", "[1]")


def test_the_order_of_fields_is_that_of_the_second() -> None:
    found = differing_field({"a": 1, "b": 1, "gone": 1}, {"b": 2, "a": 2})
    assert found is not None
    assert found.name == "b"
    found = differing_field({"gone": 5, "a": 1}, {"a": 1})
    assert found is not None
    assert tuple(found) == ("gone", "5", "'(no such field)'", None)
