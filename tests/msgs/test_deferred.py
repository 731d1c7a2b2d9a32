"""Pixels that are made when somebody first reads them."""

from __future__ import annotations

import copy
import ctypes
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flowrun.msgs import ImageRgb8Msg
from flowrun.msgs.arrays import sampled, shown
from flowrun.msgs.fields import MessageTypeError


class Pending:
    """A picture of 2 x 3 pixels of one colour; counts how often its pixels are made."""

    def __init__(self, color: int = 7) -> None:
        self.color, self.count = color, 0
        self.height, self.width = 2, 3
        self._pixels: NDArray[np.uint8] | None = None

    def made(self) -> NDArray[np.uint8]:
        if self._pixels is None:
            self.count += 1
            self._pixels = shown(np.full((2, 3, 3), self.color, np.uint8))
        return self._pixels

    def sample(self) -> bytes:
        assert self._pixels is not None
        return sampled(np.full((2, 3, 3), self.color, np.uint8))

    def __reduce__(self) -> tuple[Any, ...]:
        return Pending, (self.color,)


def published(picture: Pending, **fields: Any) -> ImageRgb8Msg:
    message = ImageRgb8Msg(frame_id=3, pts=5, fps=30.0, source="cam", **fields)
    message.show(picture)
    message.publish(tov_ns=9)
    return message


def test_who_reads_no_pixels_makes_none() -> None:
    picture = Pending()
    message = published(picture)
    view = message.view()
    assert (view.height, view.width, view.frame_id, view.source) == (2, 3, 3, "cam")
    assert (message.height, message.width) == (2, 3)
    assert repr(view) == (
        "ImageRgb8Msg(pixels=<uint8 [2, 3, 3]>, frame_id=3, pts=5, fps=30.0, source='cam', "
        "pixel_aspect=1.0)"
    )
    copies = [view.copy(), copy.deepcopy(view), copy.copy(message)]
    other = ImageRgb8Msg()
    other.fill(view)
    other.publish()
    assert view.picture is other.view().picture is picture
    assert {it.picture for it in copies} == {picture}
    pickle.dumps(view)
    assert view.envelope.samples() == {}
    assert picture.count == 0


def test_pixels_are_made_once_for_all_who_read_them() -> None:
    picture = Pending()
    message = published(picture)
    view, other, kept = message.view(), message.view(), message.view().copy()
    relayed = ImageRgb8Msg()
    relayed.fill(view)
    relayed.publish()
    found = [it.pixels for it in (view, other, kept, message, relayed.view(), view)]
    assert all(np.shares_memory(it, found[0]) for it in found)
    assert found[0].tolist() == np.full((2, 3, 3), 7).tolist()
    assert not found[0].flags.writeable
    assert picture.count == 1
    assert view.pixels is view.pixels


def test_messages_are_compared_by_the_pixels_that_they_give() -> None:
    array = ImageRgb8Msg(
        pixels=np.full((2, 3, 3), 7, np.uint8), frame_id=3, pts=5, fps=30.0, source="cam"
    )
    assert published(Pending()) == array
    assert published(Pending()).view() == published(Pending())
    assert published(Pending()) != published(Pending(8))


@pytest.mark.parametrize("is_read", [False, True])
def test_a_message_is_pickled_with_what_gives_its_pixels(is_read: bool) -> None:
    message = published(Pending())
    assert not is_read or message.view().pixels.size
    for given in (message, message.view()):
        found = pickle.loads(pickle.dumps(given))
        assert found == message
        assert (found.present, found.tov_ns) == (True, 9)
        assert isinstance(found.picture, Pending)
    unpublished = ImageRgb8Msg(source="x")
    unpublished.show(Pending())
    found = pickle.loads(pickle.dumps(unpublished))
    assert (found.present, found.source, found.pixels[0, 0, 0]) == (False, "x", 7)


def test_the_bytes_are_those_of_the_pixels() -> None:
    message = published(Pending())
    parts = message.view().encode()
    array = ImageRgb8Msg()
    array.load(b"".join(map(bytes, parts)))
    assert array == message
    assert b"".join(map(bytes, message.encode())) == b"".join(map(bytes, parts))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("frame_id", "3"), ("frame_id", 1 << 64), ("frame_id", None), ("pts", 0.5)],
        *[("fps", "30"), ("source", b"cam"), ("source", "\ud800"), ("pixel_aspect", None)],
        ("unknown", 1),
    ],
)
def test_wrong_fields_are_refused_as_with_pixels(name: str, value: object) -> None:
    texts = []
    for picture in (Pending(), None):
        message = ImageRgb8Msg(frame_id=3, source="cam")
        if picture is None:
            message.pixels = np.zeros((2, 3, 3), np.uint8)
        else:
            message.show(picture)
        message.__dict__[name] = value
        with pytest.raises(MessageTypeError) as refused:
            message.publish(tov_ns=9)
        texts.append(str(refused.value))
    assert texts[0] == texts[1]


def test_a_message_that_shows_other_pixels_forgets_the_picture() -> None:
    picture = Pending()
    message = published(picture)
    view = message.view()
    message.pixels = np.zeros((1, 1, 3), np.uint8)
    assert message.picture is None
    assert view.picture is picture  # until it is published again
    message.publish()
    assert (view.picture, view.height, view.pixels.shape) == (None, 1, (1, 1, 3))
    message.show(picture)
    message.publish()
    assert view.pixels[0, 0, 0] == 7
    message.allocate_pixels(2, 2)[...] = 1
    message.publish()
    assert (view.picture, view.pixels.max()) == (None, 1)
    message.show(picture)
    message.clear()
    assert (message.picture, view.picture, view.pixels.size) == (None, None, 0)


def test_a_copy_keeps_its_picture_when_the_slot_is_used_again() -> None:
    message = published(Pending(1))
    kept = message.view().copy()
    message.clear()
    message.show(Pending(2))
    message.publish()
    assert (kept.pixels.max(), message.view().pixels.max()) == (1, 2)
    kept.publish()
    assert kept.view().pixels.max() == 1


def test_another_field_is_checked_as_ever() -> None:
    message = published(Pending())
    message.show(Pending(8))
    message.frame_id = "four"  # type: ignore[assignment]
    with pytest.raises(MessageTypeError, match="frame_id: expected int, got str 'four'"):
        message.publish()
    assert message.view().pixels[0, 0, 0] == 7
    assert message.view().frame_id == 3
    with pytest.raises(AttributeError, match="has no attribute 'pixel'"):
        _ = message.pixel  # type: ignore[attr-defined]
    del message.frame_id
    with pytest.raises(MessageTypeError, match="frame_id: the field was deleted"):
        message.publish()


def test_where_the_log_holds_pixels_they_are_what_is_shown() -> None:
    picture = Pending()
    message = ImageRgb8Msg()
    message.envelope.defers = False
    message.show(picture)
    assert (message.picture, picture.count) == (None, 1)
    message.restore({"pixels": picture, "frame_id": 4}, tov_ns=1)  # as the log gave it
    assert message.view().picture is picture


def test_what_is_changed_in_place_after_the_first_reading_is_seen() -> None:
    message = published(Pending())
    view, envelope = message.view(), message.envelope
    before = envelope.samples()
    assert envelope.changed_array(before) is None
    assert view.pixels.size
    assert envelope.changed_array(before) is None
    ctypes.memset(view.pixels.ctypes.data, 99, 1)
    assert envelope.changed_array(before) == "pixels"
    assert envelope.changed_array(envelope.samples()) is None


def test_readers_of_one_envelope_on_many_threads_get_the_same_pixels() -> None:
    for color in range(20):
        message = published(Pending(color))
        view = message.view()
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _, view=view: view.pixels, range(8)))
        assert {int(it[0, 0, 0]) for it in found} == {color}
