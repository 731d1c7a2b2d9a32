"""Messages at the edges of what they accept: numbers, times, checks of their own, pickles."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet

from flowrun.msgs import ImageRgb8Msg, IntMsg
from flowrun.msgs.fields import MessageTypeError, short
from flowrun.msgs.message import Message
from flowrun.msgs.protobuf import descriptor_set


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
        return (b"v", *super().encode())


def published(message: Message, tov_ns: int | None = None) -> Message:
    message.publish(tov_ns=tov_ns)
    return message


@pytest.mark.parametrize("value", [-(2**63), 2**64 - 1])
def test_an_int_has_64_bits(value: int) -> None:
    assert published(IntMsg(value=value)).present
    with pytest.raises(MessageTypeError, match="64 bits"):
        IntMsg(value=value + (1 if value > 0 else -1)).publish()


def test_a_time_ends_before_2_to_the_63() -> None:
    assert published(IntMsg(value=1), 2**63 - 1).tov_ns == 2**63 - 1
    for tov_ns in (2**63, -1):
        with pytest.raises(MessageTypeError, match="tov_ns must be a whole number"):
            IntMsg(value=1).publish(tov_ns=tov_ns)


def test_a_class_of_scalars_may_check_and_encode_itself() -> None:
    assert published(Even(value=2)).present
    with pytest.raises(MessageTypeError, match="^Even.value is odd$"):
        Even(value=3).publish()
    assert published(Stamped(value=2)).encode()[0] == b"v"


def test_a_pickle_keeps_whether_and_when_a_message_was_published() -> None:
    sent = pickle.loads(pickle.dumps(published(IntMsg(value=5), 77)))
    assert (sent.value, sent.present, sent.tov_ns) == (5, True, 77)
    draft = pickle.loads(pickle.dumps(IntMsg(value=5)))
    assert (draft.value, draft.present) == (5, False)


def test_the_kinds_of_a_descriptor_are_those_of_protobuf() -> None:
    kinds = ["double", "int64", "int32", "fixed32", "string", "bytes", "enum"]
    members = [(number, kind, kind) for number, kind in enumerate(kinds, 1)]
    members += [(8, "when", "timestamp"), (9, "many", "repeated double")]
    data = descriptor_set("p", "M", members, enum=("Level", ["LOW", "HIGH"]))
    [_, file] = FileDescriptorSet.FromString(data).file
    [message] = file.message_type
    types = {field.name: FieldDescriptorProto.Type.Name(field.type) for field in message.field}
    expected = {kind: f"TYPE_{kind.upper()}" for kind in kinds}
    assert types == expected | {"when": "TYPE_MESSAGE", "many": "TYPE_DOUBLE"}
    labels = {field.name: FieldDescriptorProto.Label.Name(field.label) for field in message.field}
    assert {name for name, label in labels.items() if label == "LABEL_REPEATED"} == {"many"}
    assert [value.name for value in message.enum_type[0].value] == ["LOW", "HIGH"]


def test_a_value_is_shown_whole_up_to_60_characters() -> None:
    assert short("x" * 58) == repr("x" * 58)
    assert short("x" * 59) == "'" + "x" * 56 + "..."


def test_a_picture_has_the_size_of_its_pixels() -> None:
    image = ImageRgb8Msg(pixels=np.zeros((3, 5, 3), np.uint8))
    assert (image.height, image.width) == (3, 5)
