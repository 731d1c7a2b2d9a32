"""What the runtime does with an envelope: showing, correcting, mending, asking what was set since."""

from __future__ import annotations

import heapq
from typing import Annotated, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flowrun.msgs import ImageRgb8Msg
from flowrun.msgs.arrays import sampled
from flowrun.msgs.message import Message, Shape
from flowrun.msgs.values import ReadOnlyDict, ReadOnlyList, pack


class StateMsg(Message):
    count: int
    ratio: float
    numbers: list[int]
    things: dict[str, Any]
    row: Annotated[NDArray[np.float32], Shape("N")]


def published(**fields: Any) -> Any:
    message: Any = StateMsg(**fields)
    message.publish(tov_ns=7)
    return message


def packed_of(message: Any) -> bytes:
    return pack({k: v for k, v in message.view().__dict__.items() if k != "row"})


def test_an_envelope_shows_what_another_shows_without_copying() -> None:
    result, slot = ImageRgb8Msg(source="a"), ImageRgb8Msg()
    result.allocate_pixels(2, 2)[:] = 3
    result.publish(tov_ns=11)
    slot.envelope.show(result.envelope)
    assert slot.view().pixels is result.view().pixels
    assert (slot.view().source, slot.tov_ns, slot.present) == ("a", 11, True)
    assert slot.envelope.packed == result.envelope.packed
    slot.clear()
    assert (slot.present, slot.view().pixels.shape) == (False, (0, 0, 3))
    assert result.view().source == "a"


def test_a_new_envelope_is_open_and_shows_the_defaults() -> None:
    message = StateMsg()
    envelope = message.envelope
    assert (envelope.present, envelope.tov_ns, envelope.packed) == (False, 0, None)
    assert (envelope.is_open, envelope.owner, envelope.note_late) == (True, "", None)
    view: Any = message.view()
    assert (view.count, view.numbers, view.things, view.row.shape) == (0, [], {}, (0,))
    assert (type(view.numbers), type(view.things)) == (ReadOnlyList, ReadOnlyDict)


def test_a_corrected_field_is_seen_and_packed() -> None:
    message = published(count=1, numbers=[1], row=np.ones(2, np.float32))
    message.envelope.correct("count", 9)
    assert message.view().count == 9
    assert message.envelope.packed == packed_of(message)
    assert message.envelope.mend() is None
    draft = StateMsg()
    draft.envelope.correct("count", 9)
    assert (draft.view().count, draft.envelope.packed) == (9, None)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda view: heapq.heappush(view.numbers, 1), "numbers"),
        (lambda view: dict.update(view.things, b=2), "things"),
        (lambda view: heapq.heappush(view.things["a"], 1), "things"),
        (lambda view: view.__dict__.update(count=5), "count"),
        (lambda view: view.__dict__.update(count=1), "count"),
        (lambda view: heapq.heappop(view.numbers), "numbers"),
    ],
)
def test_what_is_changed_in_place_is_put_back_and_named(change: Any, name: str) -> None:
    message = published(count=3, numbers=[3, 4], things={"a": [2]}, row=np.ones(2, np.float32))
    assert message.envelope.mend() is None
    view = message.view()
    change(view)
    assert message.envelope.mend() == name
    assert (view.count, view.numbers, view.things) == (3, [3, 4], {"a": [2]})
    assert view.row.tolist() == [1, 1]
    assert message.envelope.mend() is None


def test_the_first_of_several_fields_that_changed_is_named() -> None:
    message = published(numbers=[3, 4], things={"a": 1})
    dict.update(message.view().things, b=2)
    heapq.heappush(message.view().numbers, 1)
    assert message.envelope.mend() == "numbers"
    assert (message.view().numbers, message.view().things) == ([3, 4], {"a": 1})


def test_only_what_is_present_is_mended() -> None:
    message = published(numbers=[3, 4])
    message.clear()
    heapq.heappush(message.view().numbers, 1)
    assert message.envelope.mend() is None
    restored = published(numbers=[3, 4])
    restored.envelope.packed = None  # as a class of scalars leaves it
    heapq.heappush(restored.view().numbers, 1)
    assert restored.envelope.mend() is None


def test_a_scalar_set_after_publishing_is_named() -> None:
    message = published(count=1, ratio=0.5, numbers=[1], row=np.ones(2, np.float32))
    assert message.envelope.set_since() is None
    message.count, message.ratio = 2, 0.25
    assert message.envelope.set_since() == "count"
    message.count = 1
    assert message.envelope.set_since() == "ratio"
    message.ratio = 0.5
    assert message.envelope.set_since() is None


def test_what_is_set_to_the_same_or_is_no_scalar_is_not_set_since() -> None:
    message = published(count=np.int64(300), ratio=float("nan"), numbers=[1], things={})
    message.count = 300
    message.numbers, message.things, message.row = [2], {"a": 1}, np.ones(3, np.float32)
    assert message.envelope.set_since() is None
    message.ratio = float("nan")
    assert message.envelope.set_since() is None
    del message.ratio
    assert message.envelope.set_since() is None
    message.count = 301
    assert message.envelope.set_since() == "count"


@pytest.mark.parametrize("value", [float("nan"), np.arange(3), np.float64(0.25), "x", None, [0.5]])
def test_whatever_is_set_in_place_of_a_scalar_is_named(value: Any) -> None:
    message = published(ratio=0.5)
    message.ratio = value
    assert message.envelope.set_since() == "ratio"


def test_a_number_in_place_of_nan_is_named() -> None:
    message = published(ratio=float("nan"))
    message.ratio = 0.5
    assert message.envelope.set_since() == "ratio"


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((480, 640, 3), np.uint8),
        np.zeros((5, 7), np.float32),
        np.zeros(100, np.complex128),
        np.array(1.5),
        np.zeros(1000, bool),
    ],
)
def test_samples_show_a_change_of_a_whole_array_or_of_one_of_its_channels(array):
    before = sampled(array)
    assert 1 <= len(before) <= 128
    assert sampled(array.copy()) == before
    assert sampled(array + np.ones_like(array)) != before
    if array.ndim == 3:
        for channel in range(3):
            changed = array.copy()
            changed[:, :, channel] += 1
            assert sampled(changed) != before
    assert sampled(array[:0] if array.ndim else np.zeros(0)) == b""


@pytest.mark.parametrize(("size", "step"), [(1, 1), (64, 1), (255, 3), (256, 5), (6400, 101)])
def test_samples_are_bytes_at_even_distances(size: int, step: int) -> None:
    array = np.arange(size, dtype=np.uint8)
    assert sampled(array) == array.tobytes()[::step]
    assert sampled(array.view(bool).reshape(1, size)) == array.tobytes()[::step]


def test_samples_are_of_the_arrays_of_a_message_that_is_present() -> None:
    message = StateMsg(count=1, row=np.arange(3, dtype=np.float32))
    assert message.envelope.samples() == {}
    message.publish(tov_ns=1)
    view: Any = message.view()
    assert message.envelope.samples() == {"row": sampled(view.row)}
    message.clear()
    assert message.envelope.samples() == {}
