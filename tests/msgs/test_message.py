"""Declaring messages, publishing, reading, copying, encoding."""

import contextlib
import dataclasses
import json
import re
import types
from base64 import b64encode
from typing import Annotated, Any, ClassVar

import jsonschema
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowrun.msgs import (
    BoolMsg,
    FloatMsg,
    ImageRgb8Msg,
    IntMsg,
    Measured,
    Message,
    MessageTypeError,
    PromptResponseMsg,
    Shape,
    TextMsg,
)
from flowrun.msgs.arrays import is_reused


class BoxesMsg(Message):
    """Boxes of a picture.

    Not part of the schema.
    """

    corners: Annotated[NDArray[np.float32], Shape("N 4")]
    labels: list[str]
    scores: dict[str, float]
    note: str = "none"


class EverythingMsg(Message):
    truth: bool
    count: int
    ratio: float
    name: str
    data: bytes
    numbers: list[int]
    nested: dict[str, list[float]]
    anything: list[Any]
    maybe: int | None
    number_or_text: float | str | None
    samples: Annotated[NDArray[np.int16], Shape("N 2")]
    took_ms: Measured[float]


class Time:
    now_ns = 42


def whole(text: str) -> str:
    return f"^{re.escape(text)}$"


def declare(**fields: Any) -> type[Message]:
    return types.new_class("BadMsg", (Message,), {}, lambda ns: ns.update(__annotations__=fields))


# -- declaring ---------------------------------------------------------------------------------


def test_fields_and_defaults_stand_in_the_order_of_declaration() -> None:
    class BaseMsg(Message):
        b: int = 5
        a: str

    class DerivedMsg(BaseMsg):
        c: float | None
        b: int = 6
        limit: ClassVar[int] = 9

    assert DerivedMsg.defaults == {"b": 6, "a": "", "c": None}
    assert BaseMsg.defaults == {"b": 5, "a": ""}
    assert DerivedMsg.field_types == {"b": int, "a": str, "c": float | None}


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("x", 3, "x has no type; write a field as x: int = 3, and a constant as x: ClassVar = 3"),
        (
            "rows",
            [],
            "rows has no type; write a field as rows: list = [], and a constant as rows: ClassVar = []",
        ),
        (
            "x",
            None,
            "x has no type; write a field as x: int | None = None, and a constant as x: ClassVar = None",
        ),
        (
            "__init__",
            lambda self, x: None,
            "__init__ needs arguments, and a run gives none; leave it out: BadMsg(name=value) sets "
            "fields",
        ),
    ],
)
def test_what_looks_like_a_field_and_is_none_is_refused(name: str, value: Any, text: str) -> None:
    with pytest.raises(MessageTypeError, match=whole(f"BadMsg.{text}")):
        type("BadMsg", (Message,), {"__module__": __name__, name: value})


def test_a_field_of_a_dataclass_is_refused() -> None:
    text = (
        "BadMsg.rows: a message is no dataclass; leave field() out: each message has a list or dict of "
        "its own"
    )
    with pytest.raises(MessageTypeError, match=whole(text)):

        class BadMsg(Message):
            rows: list[int] = dataclasses.field(default_factory=list)


def test_constants_methods_and_an_init_without_arguments_are_no_fields() -> None:
    class GoodMsg(Message):
        x: int
        limit: ClassVar = 9
        _own = 3

        def __init__(self, **fields: Any) -> None:
            super().__init__(**fields)

        @property
        def double(self) -> int:
            return 2 * self.x

    assert GoodMsg.defaults == {"x": 0}


def test_each_type_has_its_default() -> None:
    message = EverythingMsg()
    samples = message.__dict__.pop("samples")
    assert samples.shape == (0, 2)
    assert samples.dtype == np.int16
    assert message.__dict__ == {
        "truth": False,
        "count": 0,
        "ratio": 0.0,
        "name": "",
        "data": b"",
        "numbers": [],
        "nested": {},
        "anything": [],
        "maybe": None,
        "number_or_text": None,
        "took_ms": 0.0,
    }
    assert EverythingMsg.measured_fields == {"took_ms"}


@pytest.mark.parametrize(
    ("declared", "shown"),
    [
        (set, "set"),
        (complex, "complex"),
        (tuple[int, int], "tuple"),
        (list[complex], "list[complex]"),
        (dict[int, str], "dict[int, str]"),
        (set | None, "set | None"),
        (int | str, "int | str"),
        (Any, "Any"),
        (dict[str, list[set]], "dict[str, list[set]]"),
        (Annotated[NDArray[np.uint8], Shape("N")] | None, None),
    ],
)
def test_field_type_that_no_log_can_hold_is_refused(declared: Any, shown: str | None) -> None:
    with pytest.raises(MessageTypeError) as caught:
        declare(value=declared)
    if shown in {"tuple", "Any"}:  # Python's own words for it differ between versions
        assert str(caught.value).startswith("BadMsg.value: unsupported type ")
    elif shown is not None:
        assert str(caught.value) == (
            f"BadMsg.value: unsupported type {shown}; use bool, int, float, str, bytes, list, "
            'dict, T | None, or Annotated[NDArray[...], Shape("...")]'
        )


def test_array_without_a_shape_is_refused() -> None:
    text = (
        'BadMsg.value: an array field is declared as Annotated[NDArray[np.float32], Shape("N 3")]'
    )
    with pytest.raises(MessageTypeError, match=whole(text)):
        declare(value=NDArray[np.uint8])
    for declared in (np.ndarray, NDArray, NDArray[Any], np.ndarray[Any, Any]):
        with pytest.raises(MessageTypeError, match=whole(text)):
            declare(value=Annotated[declared, Shape("N")])
    with pytest.raises(MessageTypeError, match=whole(text)):
        declare(value=Annotated[NDArray[np.uint8], Shape("N"), Shape("N 3")])
    kind = declare(value=Annotated[NDArray[np.uint8], "a picture", Shape("N")])
    assert kind.array_fields["value"].shape == Shape("N")


def test_name_of_a_method_is_refused() -> None:
    text = "BadMsg.publish: the name is taken by Message itself"
    with pytest.raises(MessageTypeError, match=whole(text)):
        declare(publish=int)


def test_default_of_another_type_is_refused() -> None:
    text = "WrongMsg.value: default 'x' is not a int"
    with pytest.raises(MessageTypeError, match=whole(text)):

        class WrongMsg(Message):
            value: int = "x"  # type: ignore[assignment]


def test_type_that_cannot_be_found_is_refused() -> None:
    text = "BadMsg: name 'Nowhere' is not defined; message types must be importable at module level"
    with pytest.raises(MessageTypeError, match=whole(text)):
        declare(value="Nowhere")


def test_unknown_field_of_the_constructor_is_named() -> None:
    text = "IntMsg has no field 'valeu'; fields: ['value']"
    with pytest.raises(MessageTypeError, match=whole(text)):
        IntMsg(valeu=1)


# -- reading -----------------------------------------------------------------------------------


def test_view_shows_what_the_message_holds() -> None:
    message = IntMsg()
    view = message.view()
    message.value = 7
    message.publish(tov_ns=9)
    assert isinstance(view, IntMsg)
    assert (view.value, view.tov_ns, view.present) == (7, 9, True)
    assert type(view).__name__ == "IntMsg"
    assert repr(view) == "IntMsg(value=7)"


@pytest.mark.parametrize("name", ["value", "tov_ns", "present", "other"])
def test_view_cannot_be_set(name: str) -> None:
    message = IntMsg(value=7)
    text = (
        f"inputs are read-only: cannot set IntMsg.{name}; "
        "copy() the message, or publish the new value on an output"
    )
    with pytest.raises(AttributeError, match=whole(text)):
        setattr(message.view(), name, 1)
    with pytest.raises(AttributeError, match=whole(text)):
        delattr(message.view(), name)
    assert message.value == 7


def test_view_cannot_be_published() -> None:
    with pytest.raises(AttributeError, match=whole("an input cannot be published: IntMsg")):
        IntMsg().view().publish()


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("fill", (IntMsg(value=2),)),
        ("clear", ()),
        ("load", (b"\x81\xa5value\x02",)),
        ("restore", ({"value": 2},)),
    ],
)
def test_view_cannot_be_changed_by_a_method(method: str, arguments: tuple[Any, ...]) -> None:
    message = IntMsg(value=7)
    text = f"inputs are read-only: cannot {method} a IntMsg"
    also = {"tov_ns": 1} if method == "restore" else {}
    with pytest.raises(AttributeError, match=whole(text)):
        getattr(message.view(), method)(*arguments, **also)
    assert message.value == 7


def test_view_cannot_be_allocated() -> None:
    text = (
        "inputs are read-only: cannot set ImageRgb8Msg.pixels; "
        "copy() the message, or publish the new value on an output"
    )
    with pytest.raises(AttributeError, match=whole(text)):
        ImageRgb8Msg().view().allocate_pixels(2, 2)
    with pytest.raises(AttributeError, match=whole(text)):
        ImageRgb8Msg().view().hand_over("pixels", np.zeros((1, 1, 3), np.uint8))


def test_view_is_made_by_its_message_only() -> None:
    with pytest.raises(TypeError, match=whole("a view is made by its message")):
        type(IntMsg().view())()


# -- publishing --------------------------------------------------------------------------------


def test_unpublished_message_is_absent_and_publishing_sets_the_time() -> None:
    message = IntMsg()
    message.bind_time(Time)
    assert not message.present
    message.publish()
    assert (message.present, message.tov_ns) == (True, 42)
    message.publish(tov_ns=0)
    assert message.tov_ns == 0


@pytest.mark.parametrize("kind", [int, np.int32, np.int64, np.uint64])
def test_a_time_of_validity_of_any_integer_type_becomes_an_int(kind: type) -> None:
    message = IntMsg()
    message.publish(tov_ns=kind(7))
    assert type(message.view().tov_ns) is int
    assert message.tov_ns == 7


def test_clear_brings_the_defaults_back() -> None:
    message = BoxesMsg(labels=["a"], note="x")
    message.allocate("corners", (3, 4))
    message.publish()
    message.clear()
    assert not message.present
    assert message.corners.shape == (0, 4)
    assert (message.labels, message.note) == ([], "none")


def test_containers_are_each_messages_own() -> None:
    class NestedMsg(Message):
        value: dict[str, list[int]] = {"a": []}  # noqa: RUF012

    first, second = NestedMsg(), NestedMsg()
    first.value["a"].append(1)
    assert second.value == {"a": []}
    first.clear()
    assert first.value == {"a": []}
    assert NestedMsg.defaults == {"value": {"a": []}}


# -- arrays ------------------------------------------------------------------------------------


def test_allocated_memory_is_used_again_and_grows() -> None:
    message = ImageRgb8Msg()
    large = message.allocate_pixels(4, 6)
    message.publish()
    message.clear()
    small = message.allocate_pixels(2, 3)
    assert np.shares_memory(large, small)
    assert small.flags.writeable
    assert small.flags.c_contiguous
    larger = message.allocate_pixels(8, 6)
    assert not np.shares_memory(larger, large)
    assert np.shares_memory(message.allocate_pixels(4, 6), larger)
    assert type(larger) is np.ndarray


def test_allocate_checks_name_and_shape() -> None:
    text = "ImageRgb8Msg.pixels: cannot allocate shape (2, 2, 4); array fields: {'pixels': 'H W 3'}"
    with pytest.raises(MessageTypeError, match=whole(text)):
        ImageRgb8Msg().allocate("pixels", (2, 2, 4))
    with pytest.raises(MessageTypeError, match=r"^ImageRgb8Msg\.pixel: cannot allocate"):
        ImageRgb8Msg().allocate("pixel", (2, 2, 3))


def test_publishing_seals_arrays() -> None:
    message = ImageRgb8Msg()
    pixels = message.allocate_pixels(2, 2)
    pixels[:] = 7
    message.publish()
    with pytest.raises(ValueError, match="read-only"):
        pixels[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        message.view().pixels[0] = 1
    message.allocate_pixels(2, 2)[:] = 8


def test_copy_of_a_slots_array_outlives_its_cycle() -> None:
    message = ImageRgb8Msg(source="cam")
    message.allocate_pixels(2, 2)[:] = 7
    message.publish(tov_ns=5)
    copied = message.view().copy()
    message.allocate_pixels(2, 2)[:] = 8
    assert (copied.pixels == 7).all()
    assert not copied.pixels.flags.writeable
    assert (copied.source, copied.tov_ns, copied.present) == ("cam", 5, True)
    assert not copied.is_view


def test_copy_shares_an_array_that_was_handed_over() -> None:
    own = np.ones((2, 2, 3), np.uint8)
    message = ImageRgb8Msg()
    message.allocate_pixels(2, 2)
    message.hand_over("pixels", own)
    message.publish()
    copied = message.view().copy()
    assert np.shares_memory(copied.pixels, own)
    assert not own.flags.writeable


def test_copy_of_an_array_that_was_passed_on_outlives_its_cycle() -> None:
    camera, crop = ImageRgb8Msg(), ImageRgb8Msg()
    camera.allocate_pixels(4, 4)[:] = 7
    camera.publish()
    crop.pixels = camera.view().pixels[1:3]
    crop.publish()
    copied = crop.copy()
    camera.allocate_pixels(4, 4)[:] = 8
    assert (copied.pixels == 7).all()


def test_copy_of_an_unpublished_array_is_its_own() -> None:
    message = ImageRgb8Msg(pixels=np.zeros((1, 1, 3), np.uint8))
    copied = message.copy()
    message.pixels[:] = 1
    assert (copied.pixels == 0).all()


def test_copy_of_containers_is_deep() -> None:
    message = BoxesMsg(scores={"a": 1.0}, labels=["a"])
    copied = message.copy()
    message.labels.append("b")
    message.scores["a"] = 2.0
    assert (copied.labels, copied.scores) == (["a"], {"a": 1.0})


# -- what a field may hold ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (FloatMsg(value="x"), "FloatMsg.value: expected float, got str 'x'"),
        (FloatMsg(value=True), "FloatMsg.value: expected float, got bool True"),
        (FloatMsg(value=None), "FloatMsg.value: expected float, got NoneType None"),
        (IntMsg(value=True), "IntMsg.value: expected int, got bool True"),
        (IntMsg(value=1.0), "IntMsg.value: expected int, got float 1.0"),
        (
            IntMsg(value=2**64),
            "IntMsg.value: expected int, got int 18446744073709551616 (an int has 64 bits)",
        ),
        (IntMsg(value=np.float64(5)), "IntMsg.value: expected int, got float64 np.float64(5.0)"),
        (BoolMsg(value=1), "BoolMsg.value: expected bool, got int 1"),
        (TextMsg(value=b"x"), "TextMsg.value: expected str, got bytes b'x'"),
        (BoxesMsg(labels=["a", 1]), "BoxesMsg.labels: expected list[str], got list ['a', 1]"),
        (
            BoxesMsg(scores={1: 1.0}),
            "BoxesMsg.scores: expected dict[str, float], got dict {1: 1.0}",
        ),
        (
            BoxesMsg(corners=np.zeros((2, 3), np.float32)),
            "BoxesMsg.corners: expected float32 of shape (N 4), got float32 of shape (2, 3)",
        ),
        (
            BoxesMsg(corners=np.zeros((2, 4))),
            "BoxesMsg.corners: expected float32 of shape (N 4), got float64 of shape (2, 4)",
        ),
        (BoxesMsg(corners=[1]), "BoxesMsg.corners: expected an array, got list"),
        (ImageRgb8Msg(source=None), "ImageRgb8Msg.source: expected str, got NoneType None"),
        (ImageRgb8Msg(fps="x"), "ImageRgb8Msg.fps: expected float, got str 'x'"),
        (
            ImageRgb8Msg(pixels=np.zeros((2, 2), np.uint8)),
            "ImageRgb8Msg.pixels: expected uint8 of shape (H W 3), got uint8 of shape (2, 2)",
        ),
        (
            EverythingMsg(maybe="x"),
            "EverythingMsg.maybe: expected int | None, got str 'x'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_value_of_another_type_is_named(message: Message, text: str) -> None:
    with pytest.raises(MessageTypeError, match=whole(text)):
        message.check_fields()
    with pytest.raises(MessageTypeError, match=whole(text)):
        message.encode()


def test_value_of_another_type_is_found_after_right_ones() -> None:
    message = FloatMsg(value=1.0)
    message.encode()
    message.value = 3  # an int is a float
    message.encode()
    message.value = np.float64(2.0)
    message.encode()
    message.value = "x"  # type: ignore[assignment]
    with pytest.raises(
        MessageTypeError, match=whole("FloatMsg.value: expected float, got str 'x'")
    ):
        message.encode()


def test_misspelt_field_is_named() -> None:
    message = IntMsg()
    message.valeu = 1  # type: ignore[attr-defined]
    text = "IntMsg has no field 'valeu'; fields: ['value']"
    with pytest.raises(MessageTypeError, match=whole(text)):
        message.encode()


def test_deleted_field_is_named() -> None:
    message = IntMsg()
    del message.value
    with pytest.raises(MessageTypeError, match=whole("IntMsg.value: the field was deleted")):
        message.encode()


def test_text_that_is_not_unicode_is_an_error_of_ours() -> None:
    text = "TextMsg.value: the log cannot hold 'a\\ud800': '\\ud800' at 1 of a text is not Unicode"
    with pytest.raises(MessageTypeError, match=whole(text)):
        TextMsg(value="a\ud800").encode()
    with pytest.raises(MessageTypeError, match=r"^ImageRgb8Msg\.source: the log cannot hold"):
        ImageRgb8Msg(source="\ud800").publish()


def test_packer_works_again_after_an_error() -> None:
    with pytest.raises(MessageTypeError):
        IntMsg(value=2**70).encode()
    assert IntMsg(value=1).encode() == (b"\x81\xa5value\x01",)


# -- bytes -------------------------------------------------------------------------------------


def test_encoding_is_msgpack_of_the_fields_in_order() -> None:
    message = PromptResponseMsg(prompt="cap en", response="a circle", latency_ms=1.5)
    (data,) = message.encode()
    assert msgpack.unpackb(data) == message.__dict__
    assert list(msgpack.unpackb(data)) == list(PromptResponseMsg.defaults)
    assert PromptResponseMsg.is_plain
    assert not BoxesMsg.is_plain
    assert not ImageRgb8Msg.is_plain


def test_field_that_the_data_lacks_keeps_its_default_and_an_unknown_one_is_left_out() -> None:
    message = BoxesMsg()
    message.load(msgpack.packb({"labels": ["a"], "gone": 1}))
    assert (message.labels, message.note) == (["a"], "none")
    assert "gone" not in message.__dict__


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x81",
        b"\x01",
        b"\xc1",
        b"\x81\xa5value\x01\x01",
        b"\x81\x90\xc0",
        b"\x81\xa7corners\x01",
        b"\x81\xa7corners\x81\xa5dtype\xa1O",
    ],
)
def test_other_bytes_are_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        BoxesMsg.decode_fields(data)


@given(data=st.binary(max_size=40))
def test_no_bytes_raise_anything_but_a_value_error(data: bytes) -> None:
    for message_type in (BoxesMsg, IntMsg, ImageRgb8Msg):
        with contextlib.suppress(ValueError):
            message_type.decode_fields(data)


_INTEGERS = st.integers(-(2**63), 2**64 - 1)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
_SCALARS = st.none() | st.booleans() | _INTEGERS | st.floats() | _TEXTS | st.binary()
_MESSAGES = st.builds(
    EverythingMsg,
    truth=st.booleans(),
    count=_INTEGERS,
    ratio=st.floats(),
    name=_TEXTS,
    data=st.binary(),
    numbers=st.lists(_INTEGERS, max_size=5),
    nested=st.dictionaries(_TEXTS, st.lists(st.floats(), max_size=3), max_size=3),
    anything=st.lists(_SCALARS, max_size=5),
    maybe=st.none() | _INTEGERS,
    number_or_text=st.none() | st.floats() | _TEXTS,
    samples=st.integers(0, 4).map(lambda n: np.arange(2 * n, dtype=np.int16).reshape(n, 2)),
    took_ms=st.floats(),
)


@given(message=_MESSAGES)
def test_unpack_of_pack_is_the_message(message: EverythingMsg) -> None:
    again = EverythingMsg()
    again.load(b"".join(message.encode()))
    assert again.encode() == message.encode()
    assert repr(again.__dict__) == repr(message.__dict__)  # repr: NaN is not equal to itself


@given(message=_MESSAGES)
def test_schema_describes_the_packed_message(message: EverythingMsg) -> None:
    schema = json.loads(EverythingMsg.schema())
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(_as_json(msgpack.unpackb(b"".join(message.encode()))))


def _as_json(value: Any) -> Any:
    """As a viewer shows it: bytes in base64."""
    match value:
        case bytes():
            return b64encode(value).decode()
        case list():
            return [_as_json(item) for item in value]
        case dict():
            return {key: _as_json(item) for key, item in value.items()}
    return value


def test_schema_says_what_each_field_is() -> None:
    schema = json.loads(BoxesMsg.schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema == {
        "title": "BoxesMsg",
        "description": "Boxes of a picture.",
        "type": "object",
        "required": ["corners", "labels", "scores", "note"],
        "properties": {
            "corners": {
                "type": "object",
                "description": "float32 array of shape (N 4), row-major",
                "properties": {
                    "dtype": {"const": "<f4"},
                    "shape": {"type": "array", "items": {"type": "integer"}},
                    "data": {"type": "string", "contentEncoding": "base64"},
                },
            },
            "labels": {"type": "array", "items": {"type": "string"}},
            "scores": {"type": "object", "additionalProperties": {"type": "number"}},
            "note": {"type": "string"},
        },
    }


def test_schema_of_each_type() -> None:
    class AllMsg(Message):
        truth: bool
        count: Measured[int]
        ratio: Annotated[float, "metres"]
        data: bytes
        bare_list: list  # type: ignore[type-arg]
        bare_dict: dict  # type: ignore[type-arg]
        anything: list[Any]
        either: int | list[str] | None
        old: dict[str, int | None]
        samples: Annotated[NDArray[np.int16], Shape("N 2")]

    schema = json.loads(AllMsg.schema())
    assert "description" not in schema
    assert schema["properties"] == {
        "truth": {"type": "boolean"},
        "count": {
            "type": "integer",
            "description": "A measurement of the run; replay does not compare it.",
        },
        "ratio": {"type": "number"},
        "data": {"type": "string", "contentEncoding": "base64"},
        "bare_list": {"type": "array", "items": {}},
        "bare_dict": {"type": "object", "additionalProperties": {}},
        "anything": {"type": "array", "items": {}},
        "either": {
            "anyOf": [
                {"type": "integer"},
                {"type": "array", "items": {"type": "string"}},
                {"type": "null"},
            ]
        },
        "old": {
            "type": "object",
            "additionalProperties": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        },
        "samples": {
            "type": "object",
            "description": "int16 array of shape (N 2), row-major",
            "properties": {
                "dtype": {"const": "<i2"},
                "shape": {"type": "array", "items": {"type": "integer"}},
                "data": {"type": "string", "contentEncoding": "base64"},
            },
        },
    }
    assert json.loads(IntMsg.schema())["properties"] == {"value": {"type": "integer"}}


def test_schema_refuses_a_field_of_another_type() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(FloatMsg.schema()))
    assert validator.is_valid({"value": 1.5})
    assert not validator.is_valid({"value": "x"})
    assert not validator.is_valid({})


def test_schema_marks_measurements() -> None:
    properties = json.loads(PromptResponseMsg.schema())["properties"]
    assert properties["latency_ms"] == {
        "type": "number",
        "description": "A measurement of the run; replay does not compare it.",
    }


def test_long_values_are_shown_short() -> None:
    assert repr(TextMsg(value="x" * 100)) == f"TextMsg(value='{'x' * 56}...)"
    assert repr(BoxesMsg()).startswith("BoxesMsg(corners=<float32 [0, 4]>, labels=[]")


# -- the slot ----------------------------------------------------------------------------------


def test_memory_is_used_again_for_the_same_shape_unless_others_see_it() -> None:
    message = ImageRgb8Msg()
    first = message.allocate_pixels(2, 3)
    assert np.shares_memory(message.allocate_pixels(2, 3), first)
    message.publish(tov_ns=1)
    second = message.allocate_pixels(2, 3)
    assert not np.shares_memory(second, first)
    message.clear()
    assert np.shares_memory(message.allocate_pixels(2, 3), second)
    assert message.allocate_pixels(2, 3).flags.writeable


def test_who_keeps_an_array_of_a_poisoned_slot_reads_nonsense() -> None:
    message = ImageRgb8Msg()
    kept = message.allocate_pixels(2, 3)
    kept[:] = 1
    message.poison()
    assert (kept == 0xDB).all()
    with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
        kept[:].setflags(write=True)
    fresh = message.allocate_pixels(2, 3)
    assert not np.shares_memory(fresh, kept)
    message.publish(tov_ns=1)
    seen = message.view().pixels
    message.poison()
    assert (seen == 0xDB).all()


def test_filling_sets_all_fields() -> None:
    one, other = BoxesMsg(note="a", labels=["b"]), BoxesMsg()
    other.fill(one)
    assert (other.note, other.labels, other.present) == ("a", ["b"], False)


def test_restoring_keeps_fields_that_are_not_recorded_and_ignores_unknown_ones() -> None:
    message = BoxesMsg(note="kept")
    corners = np.ones((1, 4), np.float32)
    message.restore({"gone": 1, "labels": ["a"], "corners": corners}, tov_ns=0)
    view = message.view()
    assert (view.note, view.labels, view.tov_ns, view.present) == ("kept", ["a"], 0, True)
    assert np.shares_memory(view.corners, corners)
    assert is_reused(view.corners)  # a copy of it has memory of its own
    assert "gone" not in message.__dict__


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("corners", [[1.0] * 4], "BoxesMsg.corners: expected an array, got list"),
        ("note", np.zeros(1), "BoxesMsg.note: expected str, got ndarray <float64 [1]>"),
    ],
)
def test_a_recorded_field_of_another_type_is_named(name: str, value: Any, text: str) -> None:
    with pytest.raises(MessageTypeError, match=whole(text)):
        BoxesMsg().restore({name: value}, tov_ns=1)


def test_a_recorded_array_of_another_layout_is_copied() -> None:
    message, corners = BoxesMsg(), np.ones((4, 4), np.float32)[::2]
    message.restore({"corners": corners}, tov_ns=1)
    assert message.view().corners.flags.c_contiguous
    assert not np.shares_memory(message.view().corners, corners)


def test_a_message_outside_a_cycle_is_published_at_0() -> None:
    message = IntMsg(value=1)
    assert (message.tov_ns, message.present) == (0, False)
    message.publish()
    assert (message.tov_ns, message.present) == (0, True)


def test_a_class_says_whether_it_migrates() -> None:
    class OldMsg(Message):
        value: int

        @classmethod
        def migrate(cls, fields: dict[str, Any]) -> dict[str, Any]:
            return {"value": fields["number"]}

    class NewMsg(OldMsg):
        pass

    class ThirdMsg(Message):
        @staticmethod
        def migrate(fields: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
            return fields

    assert [kind.has_migration() for kind in (IntMsg, OldMsg, NewMsg, ThirdMsg)] == [
        False, True, True, True,
    ]  # fmt: skip
    assert IntMsg.migrate({"value": 1}) == {"value": 1}
    assert NewMsg.migrate({"number": 1}) == {"value": 1}


def test_a_subclass_has_a_schema_name_of_its_own_unless_it_says_another() -> None:
    class SmallMsg(ImageRgb8Msg):
        pass

    class NamedMsg(IntMsg):
        schema_name: ClassVar[str] = "other.Name"

    assert (SmallMsg.schema_name, NamedMsg.schema_name) == ("SmallMsg", "other.Name")
    assert list(SmallMsg.defaults) == list(ImageRgb8Msg.defaults)


def test_a_class_knows_whether_it_may_hold_containers() -> None:
    class AnyMsg(Message):
        value: int | list[int] | None

    kinds = (IntMsg, PromptResponseMsg, ImageRgb8Msg, AnyMsg, BoxesMsg)
    assert [kind.may_hold_containers for kind in kinds] == [False, False, False, True, True]
    assert [kind.has_containers for kind in kinds] == [False, False, False, False, True]
    assert [kind.is_plain for kind in kinds] == [True, True, False, True, False]


def test_maps_inside_a_field_may_have_any_keys() -> None:
    message = EverythingMsg(anything=[{1: 2, b"k": [{None: 0.5}]}])
    message.publish()
    fields = EverythingMsg.decode_fields(b"".join(message.encode()))
    assert fields["anything"] == message.view().anything == [{1: 2, b"k": [{None: 0.5}]}]
