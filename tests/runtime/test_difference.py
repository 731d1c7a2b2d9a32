from __future__ import annotations

import numpy as np
import pytest

from flowrun.runtime.difference import ArrayDifference, differing_field


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
            {"a": np.zeros((2, 3), np.uint8)}, {"a": np.zeros((3, 2), np.uint8)},
            ("a", "uint8 [2, 3]", "uint8 [3, 2]"),
        ),
        (
            {"a": np.zeros(2, np.float32)}, {"a": np.zeros(2, np.float64)},
            ("a", "float32 [2]", "float64 [2]"),
        ),
        (
            {"a": np.array([[1, 2], [3, 4]])}, {"a": np.array([[1, 2], [9, 3]])},
            ("a", "3 at [1, 0]", "9 there; 2 of 4 elements differ, by 6 at most"),
        ),
        (
            {"a": np.array([0.0, np.nan])}, {"a": np.array([-0.0, np.nan])},
            ("a", "0.0 at [0]", "-0.0 there; 1 of 2 elements differ, by nan at most"),
        ),
        (
            {"a": np.array([np.inf])}, {"a": np.array([np.nan])},
            ("a", "inf at [0]", "nan there; 1 of 1 elements differ, by nan at most"),
        ),
        (
            {"a": np.array(["x", "y"])}, {"a": np.array(["x", "z"])},
            ("a", "y at [1]", "z there; 1 of 2 elements differ"),
        ),
    ],
)  # fmt: skip
def test_the_first_field_that_differs(before, now, found):
    difference = differing_field(before, now)
    assert (difference and difference[:3]) == found


def test_how_arrays_differ_is_given_in_numbers():
    difference = differing_field(
        {"a": np.array([[1, 2], [3, 4]])}, {"a": np.array([[1, 2], [9, 3]])}
    )
    assert difference.array == ArrayDifference((1, 0), count=2, size=4, largest=6.0)
    assert differing_field({"a": 1}, {"a": 2}).array is None
