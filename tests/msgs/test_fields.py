"""Which types a field may have, which values each accepts, and how arrays are packed."""

from __future__ import annotations

from typing import Annotated, Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowrun.msgs import Measured, MessageTypeError, Shape
from flowrun.msgs.fields import (
    ArrayField,
    allows,
    array_from_map,
    array_to_map,
    check_array,
    is_field_type,
    is_measured,
    is_unicode,
    short,
    sure_tests,
)
from flowrun.msgs.publish import quick_test
from flowrun.msgs.values import as_stored, pack

SCALARS = (bool, int, float, str, bytes)


@pytest.mark.parametrize(
    "declared",
    [
        *SCALARS, list, dict, list[int], list[Any], list[int | str], list[list[str | None]],
        dict[str, bytes], dict[str, Any], dict[str, int | str], dict[str, list[bool]],
        int | None, int | str | None, list[int] | None, dict[str, int] | None, Any | None,
        list | None, Measured[float], Annotated[int, "metres"], list[Annotated[int, "metres"]],
    ],
    ids=str,
)  # fmt: skip
def test_a_field_may_have_these_types(declared: Any) -> None:
    assert is_field_type(declared)


@pytest.mark.parametrize(
    "declared",
    [
        Any, int | str, int | float, complex, set, tuple, object, None, type(None), list[set],
        list[complex],
        dict[int, str], dict[bytes, str], dict[str, set], list[int | set], list[set | None],
        dict[str, list[dict[int, int]]], set | None, list[NDArray[np.uint8]], Annotated[set, 1],
    ],
    ids=str,
)  # fmt: skip
def test_a_field_may_not_have_these_types(declared: Any) -> None:
    assert not is_field_type(declared)


LEAST, MOST = -(2**63), 2**64 - 1
VALUES: list[Any] = [
    None, True, False, 0, 1, LEAST, MOST, LEAST - 1, MOST + 1, 0.5, float("nan"), "", "é", "\ud800", b"",
    [], [1], [1, "x"], ["x", 1], [None], {}, {"a": 1}, {"a": "x"}, {1: 1}, {"a": 1, 2: 1}, {"a": [1]},
    {"a": ["x"]}, (1,), np.float64(1), np.int64(1), np.str_("s"), np.bool_(True), {1}, 1j,
]  # fmt: skip
INTS = [0, 1, LEAST, MOST]
NUMBERS = [*INTS, LEAST - 1, MOST + 1, 0.5, float("nan"), np.float64(1)]
TEXTS = ["", "é", "\ud800", np.str_("s")]


@pytest.mark.parametrize(
    ("declared", "accepted"),
    [
        (bool, [True, False]),
        (int, INTS),
        (float, NUMBERS),
        (str, TEXTS),
        (bytes, [b""]),
        (list, [v for v in VALUES if type(v) is list]),
        (list[int], [[], [1]]),
        (list[int | None], [[], [1], [None]]),
        (list[Any], [v for v in VALUES if type(v) is list]),
        (list[Annotated[int, "metres"]], [[], [1]]),
        (dict, [{}, {"a": 1}, {"a": "x"}, {"a": [1]}, {"a": ["x"]}]),
        (dict[str, int], [{}, {"a": 1}]),
        (dict[str, list[int]], [{}, {"a": [1]}]),
        (int | None, [None, *INTS]),
        (int | str | None, [None, *INTS, *TEXTS]),
        (list[int] | None, [None, [], [1]]),
        (Measured[float], NUMBERS),
    ],
    ids=str,
)
def test_a_field_accepts_these_values_only(declared: Any, accepted: list[Any]) -> None:
    assert repr([value for value in VALUES if allows(declared, value)]) == repr(
        [value for value in VALUES if repr(value) in map(repr, accepted)]
    )


@pytest.mark.parametrize("kind", [*SCALARS, int | None, float | str | None], ids=str)
def test_a_value_that_a_sure_test_accepts_is_stored_as_it_is(kind: Any) -> None:
    tests = sure_tests({"x": kind})
    assert tests is not None
    test = eval(f"lambda v: {tests['x'].format('v')}", {"is_unicode": is_unicode})
    sure = [value for value in VALUES if test(value)]
    # All that the field accepts, but for what only publishing finds out.
    exact = (type(None), bool, int, float, str, bytes)
    expected = [v for v in VALUES if allows(kind, v) and type(v) in exact and v != "\ud800"]
    in_64_bits = [v for v in expected if type(v) is not int or LEAST <= v <= MOST]
    assert repr(sure) == repr(in_64_bits)
    for value in sure:
        assert repr(msgpack.unpackb(pack(value))) == repr(value)


@pytest.mark.parametrize("kind", [list, list[int], dict, int | list[int] | None])
def test_a_class_with_a_container_has_no_sure_tests(kind: Any) -> None:
    assert sure_tests({"x": int, "y": kind, "z": str}) is None


def test_sure_tests_are_those_of_each_field_in_order() -> None:
    both = sure_tests({"b": int, "a": str})
    assert both is not None
    assert list(both.items()) == [
        *(sure_tests({"b": int}) or {}).items(),
        *(sure_tests({"a": str}) or {}).items(),
    ]
    assert sure_tests({}) == {}


def test_a_lone_surrogate_is_not_unicode() -> None:
    assert is_unicode("é")
    assert not is_unicode("a\ud800")


def test_only_what_is_marked_is_a_measurement() -> None:
    assert is_measured(Measured[float])
    assert not is_measured(Annotated[float, "Measured"])
    assert not is_measured(float)


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


def test_a_value_without_a_text_is_shown_by_its_type() -> None:
    assert short(Unprintable()) == "<Unprintable>"
    deep: list[Any] = []
    for _ in range(20_000):
        deep = [deep]
    assert short(deep) == "<list>"


# -- arrays ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dims", "fits", "others", "empty"),
    [
        ("H W 3", [(2, 5, 3), (0, 0, 3)], [(2, 5), (2, 5, 4), (2, 5, 3, 1), (3, 2, 5), ()], (0, 0, 3)),
        ("N", [(0,), (7,)], [(), (7, 1)], (0,)),
        ("2 2", [(2, 2)], [(2,), (2, 3), (3, 2), (2, 2, 2)], (2, 2)),
        ("", [()], [(0,), (1,)], ()),
    ],
)  # fmt: skip
def test_a_shape_is_of_names_and_numbers(
    dims: str, fits: list[Any], others: list[Any], empty: tuple[int, ...]
) -> None:
    shape = Shape(dims)
    assert [fit for fit in [*fits, *others] if shape.matches(fit)] == fits
    assert shape.empty() == empty
    assert shape.matches(empty)


@pytest.mark.parametrize("shape", [(2, 3, 1), (2,), (2, 4), (6,)])
def test_an_array_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    declared = ArrayField(np.dtype(np.float32), Shape("N 3"))
    check_array("Kind", "x", np.zeros((2, 3), np.float32), declared)
    with pytest.raises(MessageTypeError) as caught:
        check_array("Kind", "x", np.zeros(shape, np.float32), declared)
    assert str(caught.value) == (
        f"Kind.x: expected float32 of shape (N 3), got float32 of shape {shape}"
    )


ARRAYS = [
    np.arange(6, dtype=np.int16).reshape(2, 3),
    np.arange(6, dtype=">i4").reshape(3, 2),
    np.arange(12, dtype=np.float32).reshape(3, 4)[::2, ::-1],
    np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    np.array([[True, False]]),
    np.array([1 + 2j], np.complex64),
    np.array(5, np.uint8),
    np.zeros((0, 4), np.float16),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype} {array.shape}")
def test_an_array_is_packed_by_rows_low_byte_first(array: NDArray[Any]) -> None:
    packed = array_to_map(array)
    assert packed["dtype"] == array.dtype.newbyteorder("<").str
    assert packed["shape"] == list(array.shape)
    assert packed["data"] == array.astype(array.dtype.newbyteorder("<")).tobytes(order="C")
    again = array_from_map(msgpack.unpackb(msgpack.packb(packed)))
    assert again.shape == array.shape
    np.testing.assert_array_equal(again, array)


GOOD = {"dtype": "<f4", "shape": [2, 1], "data": bytes(8)}


@pytest.mark.parametrize(
    "changed",
    [
        {"dtype": "O"}, {"dtype": "<M8"}, {"dtype": "|V4"}, {"dtype": "<U1"}, {"dtype": "|S4"},
        {"dtype": "<f3"},
        {"dtype": "2f4"}, {"dtype": "f4,f4"}, {"dtype": "<f4,<f4"}, {"dtype": ["<f4"]}, {"dtype": {}},
        {"dtype": None}, {"dtype": b"<f4"}, {"dtype": ""}, {"dtype": "<f8"},
        {"shape": [2, 2]}, {"shape": [-1]}, {"shape": [-1, -2]}, {"shape": None}, {"shape": 2},
        {"shape": [2.0, 1]}, {"shape": [True, 2]}, {"shape": "21"}, {"shape": {"a": 1}},
        {"shape": [None]},
        {"shape": [2**70]}, {"shape": [2**63, 0]}, {"shape": [1] * 70}, {"shape": [[2, 1]]},
        {"shape": []},
        {"data": bytes(7)}, {"data": bytes(12)}, {"data": "abcdefgh"}, {"data": 8}, {"data": None},
    ],
    ids=str,
)  # fmt: skip
def test_any_other_map_is_no_array(changed: dict[str, Any]) -> None:
    assert array_from_map(GOOD).shape == (2, 1)
    with pytest.raises(ValueError, match=r"^not an array: "):
        array_from_map(GOOD | changed)


@pytest.mark.parametrize(
    "packed",
    [
        {},
        [],
        None,
        5,
        b"dtype",
        "dtype",
        *({k: GOOD[k] for k in GOOD if k != gone} for gone in GOOD),
    ],
)
def test_what_is_no_map_of_the_three_is_no_array(packed: Any) -> None:
    with pytest.raises(ValueError, match=r"^not an array: "):
        array_from_map(packed)


@given(array=st.sampled_from(ARRAYS), data=st.data())
def test_a_cut_array_is_no_array(array: NDArray[Any], data: st.DataObject) -> None:
    packed = array_to_map(array)
    length = data.draw(st.integers(0, array.nbytes + 9))
    if length != array.nbytes:
        with pytest.raises(ValueError, match=r"^not an array: "):
            array_from_map(packed | {"data": packed["data"].ljust(length, b"x")[:length]})


@given(
    values=st.fixed_dictionaries(
        {
            "flag": st.sampled_from([True, False, 1, None, "yes"]),
            "count": st.one_of(st.integers(-(2**66), 2**66), st.booleans(), st.none(), st.floats()),
            "ratio": st.one_of(st.floats(), st.integers(-(2**66), 2**66), st.booleans()),
            "name": st.one_of(st.text(), st.sampled_from(["\ud800", b"x", None])),
            "maybe": st.one_of(st.none(), st.integers(), st.text()),
        }
    )
)
def test_what_the_quick_test_is_sure_of_the_log_gives_back(values: dict[str, Any]) -> None:
    declared: dict[str, Any] = {
        "flag": bool,
        "count": int,
        "ratio": float,
        "name": str,
        "maybe": int | None,
    }
    tests = sure_tests(declared)
    assert tests is not None
    is_sure = quick_test(tests)(values)
    own = {name: values[name] for name in declared}
    try:
        packed, stored = as_stored("It", values, declared)
    except MessageTypeError:
        assert not is_sure
    else:
        assert not is_sure or (packed == pack(own) and repr(stored) == repr(own))


def test_a_field_annotated_with_what_has_no_hash_is_checked_as_any() -> None:
    counts = Annotated[list[Annotated[int, {"unit": "m"}]], {"unit": "m"}]
    assert allows(counts, [1, 2])
    assert not allows(counts, [1, "2"])
    assert not allows(counts, 1)
