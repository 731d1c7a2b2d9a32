"""The first field in which two messages differ."""

from __future__ import annotations

import numpy as np

from flowrun.msgs.difference import differing_field


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
