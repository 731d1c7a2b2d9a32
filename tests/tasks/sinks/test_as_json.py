"""Any message becomes JSON that any reader takes."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun import msgs
from flowrun.msgs import ImageRgb8Msg, IntMsg
from flowrun.runtime.wording import escaped
from flowrun.tasks.sinks.as_json import Kept, kept_fields, plain, to_json
from support.sink_tasks import MixedMsg

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    TEXTS,
    st.binary(max_size=10),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=5,
)
MESSAGES = st.builds(
    MixedMsg,
    text=TEXTS,
    number=st.floats(),
    maybe=st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
    data=st.binary(max_size=20),
    nested=st.dictionaries(TEXTS, st.lists(VALUES, max_size=3), max_size=3),
    items=st.lists(VALUES, max_size=4),
    pose=st.builds(
        lambda values: np.array(values, np.float32),
        st.tuples(*[st.floats(width=32)] * 3),
    ),
    points=st.builds(lambda n: np.full((n, 2), np.nan), st.integers(0, 4)),
)


def kept_of(message):
    ctx = SimpleNamespace(fed_by={"message": "a.b"}, cycle=1, now_ns=2)
    return Kept.of(ctx, message.view(), max_array=5)


def plain_fields(message, *, max_array):
    kept = kept_fields(message, max_array=max_array)
    return {name: plain(value) for name, value in kept.items()}


def strict(text):
    def refuse(name):
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


@settings(max_examples=15, deadline=None)
@given(MESSAGES)
def test_every_message_is_one_line_of_valid_json(message):
    message.publish(tov_ns=5)
    text = to_json(kept_of(message).plain())
    found = strict(text)
    assert escaped(text) == text
    assert len(text.splitlines()) == 1
    assert strict(text.encode().decode()) == found
    assert (found["task"], found["port"], found["type"]) == ("a", "b", "MixedMsg")
    assert (found["cycle"], found["time_ns"], found["tov_ns"]) == (1, 2, 5)
    assert list(found["fields"]) == list(MixedMsg.defaults)
    assert found["fields"]["text"] == message.text
    assert found["fields"]["maybe"] == message.maybe


@pytest.mark.parametrize(
    "name", [name for name in msgs.__all__ if name.endswith("Msg")], ids=lambda name: name
)
def test_every_class_of_ours_does(name):
    kind = getattr(msgs, name)
    message = kind()
    message.publish(tov_ns=1)
    found = strict(to_json(kept_of(message).plain()))
    assert list(found["fields"]) == list(kind.defaults)


def test_what_json_lacks():
    message = MixedMsg(
        number=float("nan"),
        data=b"\0\xff",
        nested={"a": [1, {"b": float("-inf")}]},
        pose=np.array([1, np.nan, 3], np.float32),
        points=np.zeros((3, 2)),
    )
    message.publish()
    plain = plain_fields(message, max_array=5)
    assert plain["number"] == "NaN"
    assert plain["data"] == "AP8="
    assert plain["nested"] == {"a": [1, {"b": "-Infinity"}]}
    assert plain["pose"] == [1.0, "NaN", 3.0]
    assert plain["points"] == {"dtype": "<f8", "shape": [3, 2]}


class Unmade:
    height, width = 480, 640

    def made(self):
        raise AssertionError("pixels were made")


def test_a_picture_is_its_size_and_no_pixels_are_made():
    image = ImageRgb8Msg(frame_id=7)
    image.show(Unmade())
    image.publish()
    plain = plain_fields(image.view(), max_array=10**9)
    assert plain["pixels"] == {"dtype": "|u1", "shape": [480, 640, 3]}
    assert plain["frame_id"] == 7


def test_what_waits_has_no_large_array():
    image = ImageRgb8Msg(pixels=np.zeros((480, 640, 3), np.uint8))
    image.publish()
    mixed = MixedMsg(points=np.zeros((1000, 2)), pose=np.zeros(3, np.float32))
    mixed.publish()
    arrays = [
        it
        for it in (*kept_of(image).fields.values(), *kept_of(mixed).fields.values())
        if isinstance(it, np.ndarray)
    ]
    assert [it.tolist() for it in arrays] == [[0, 0, 0]]


def test_control_characters_are_escaped():
    assert to_json("a\x1b[0m\x9b\u2028é\u202e") == '"a\\u001b[0m\\u009b\\u2028é\\u202e"'


def test_int_64():
    message = IntMsg(value=2**63 - 1)
    message.publish()
    assert to_json(plain_fields(message, max_array=0)) == '{"value":9223372036854775807}'
