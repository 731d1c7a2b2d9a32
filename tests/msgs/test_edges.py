"""Messages at the edges of what they accept: numbers, times, checks of their own, pickles."""

from __future__ import annotations

import pickle
from typing import Any, ClassVar

import numpy as np
import pytest

from flowrun.msgs import ImageRgb8Msg, IntMsg
from flowrun.msgs.fields import MessageTypeError, short
from flowrun.msgs.message import Message


class Even(Message):
    """Checks its one scalar itself."""

    value: int

    def check_fields(self) -> None:
        super().check_fields()
        if self.value % 2:
            raise MessageTypeError("Even.value is odd")


class Stamped(Message):
    """Is encoded in a way of its own."""

    value: int

    def encode(self) -> Any:
        if self.value == 3:
            raise MessageTypeError("Stamped: 3")
        return (b"v", *super().encode())

    @classmethod
    def decode_fields(cls, data: Any) -> dict[str, Any]:
        return super().decode_fields(bytes(data)[1:])


def published(message: Message, tov_ns: int | None = None) -> Message:
    message.publish(tov_ns=tov_ns)
    return message


@pytest.mark.parametrize("value", [-(2**63), 2**64 - 1])
def test_an_int_has_64_bits(value: int) -> None:
    assert published(IntMsg(value=value)).present
    with pytest.raises(MessageTypeError, match="64 bits"):
        IntMsg(value=value + (1 if value > 0 else -1)).publish()


def test_a_time_ends_before_2_to_the_63() -> None:
    for kind in (IntMsg, Even):  # a compiled publish, and the general one
        for tov_ns in (0, 2**63 - 1):
            assert published(kind(value=2), tov_ns).tov_ns == tov_ns
        for tov_ns in (2**63, -1):
            with pytest.raises(MessageTypeError, match="tov_ns must be a whole number"):
                kind(value=2).publish(tov_ns=tov_ns)


def test_a_class_of_scalars_may_check_and_encode_itself() -> None:
    assert published(Even(value=2)).present
    with pytest.raises(MessageTypeError, match="^Even.value is odd$"):
        Even(value=3).publish()
    assert published(Stamped(value=2)).encode()[0] == b"v"
    with pytest.raises(MessageTypeError, match="^Stamped: 3$"):
        Stamped(value=3).publish()


class Loud(IntMsg):
    """Publishes in a way of its own."""

    heard: ClassVar[list[int]] = []

    def publish(self, *, tov_ns: Any = None) -> None:
        self.heard.append(self.value)
        super().publish(tov_ns=tov_ns)


class Named(IntMsg):
    name: str


class LoudAndNamed(Loud):
    name: str


def test_a_class_of_scalars_may_publish_in_a_way_of_its_own() -> None:
    for kind in (Loud, LoudAndNamed):
        message = published(kind(value=3), 5)
        assert (message.view().value, message.tov_ns) == (3, 5)
    assert Loud.heard == [3, 3]
    assert LoudAndNamed(value=1, name="a").copy().name == "a"


def test_a_class_of_scalars_publishes_its_own_fields_and_those_of_its_base() -> None:
    view = published(Named(value=3, name="a")).view()
    assert (view.value, view.name) == (3, "a")
    with pytest.raises(MessageTypeError, match=r"^Named.name: expected str, got int 4$"):
        Named(value=3, name=4).publish()


def test_a_pickle_keeps_whether_and_when_a_message_was_published() -> None:
    sent = pickle.loads(pickle.dumps(published(IntMsg(value=5), 77)))
    assert (sent.value, sent.present, sent.tov_ns) == (5, True, 77)
    draft = pickle.loads(pickle.dumps(IntMsg(value=5)))
    assert (draft.value, draft.present) == (5, False)


def test_a_value_is_shown_whole_up_to_60_characters() -> None:
    assert short("x" * 58) == repr("x" * 58)
    assert short("x" * 59) == "'" + "x" * 56 + "..."


def test_a_picture_has_the_size_of_its_pixels() -> None:
    image = ImageRgb8Msg(pixels=np.zeros((3, 5, 3), np.uint8))
    assert (image.height, image.width) == (3, 5)


class Rounded(Message):
    """Its encoding loses something of each field."""

    distance_m: float
    name: str = "x"

    def encode(self) -> Any:
        if self.name == "broken":
            return (b"?",)
        return (f"{self.distance_m:.1f}".encode(),)

    @classmethod
    def decode_fields(cls, data: Any) -> dict[str, Any]:
        return {"distance_m": float(bytes(data)), "an old field": 1}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"distance_m": 0.25},
            ".distance_m: consumers would see 0.25, and the log, after encode and decode_fields, 0.2",
        ),
        (
            {"distance_m": 1.5, "name": "y"},
            ".name: consumers would see 'y', and the log, after encode and decode_fields, 'x'",
        ),
        (
            {"name": "broken"},
            ".decode_fields does not read what encode makes: could not convert string to float: b'?'",
        ),
    ],
)
def test_an_encoding_that_does_not_give_a_field_back_is_refused(
    fields: dict[str, Any], text: str
) -> None:
    assert published(Rounded(distance_m=0.5)).present
    with pytest.raises(MessageTypeError) as caught:
        Rounded(**fields).publish()
    assert str(caught.value) == f"Rounded{text}"


def test_a_field_for_which_an_inherited_encoding_has_no_place_is_refused() -> None:
    with pytest.raises(MessageTypeError) as caught:

        class Thermal(ImageRgb8Msg):
            celsius: float

    assert str(caught.value) == (
        "Thermal.celsius: the encoding of ImageRgb8Msg has no place for the field; declare it in a "
        "message of its own, or override encode and decode_fields"
    )
