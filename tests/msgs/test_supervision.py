"""`DetectionsMsg` and the `supervision` package: what goes there comes back."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.msgs import DetectionsMsg, MessageTypeError, TracksMsg

sv: Any = pytest.importorskip("supervision")

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
SCORES = st.floats(0, 1, width=32) | st.just(np.nan)


@st.composite
def messages(draw: st.DrawFn) -> DetectionsMsg:
    count = draw(st.integers(0, 4))

    def each(items: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(items, min_size=count, max_size=count))

    tracker_ids = each(st.integers(-1, 2**63 - 1)) if draw(st.booleans()) else []
    message = DetectionsMsg(
        boxes=np.array(each(st.tuples(*[FINITE] * 4)), np.float32).reshape(-1, 4),
        scores=np.array(each(SCORES), np.float32),
        labels=each(st.text(max_size=5)),
        class_ids=np.array(each(st.integers(-1, 2**31 - 1)), np.int32),
        tracker_ids=np.array(tracker_ids, np.int64),
        width=draw(st.integers(0, 4000)),
        height=480,
        frame_id=7,
        frame_cycle=3,
        latency_ms=1.5,
    )
    message.publish(tov_ns=9)
    return message


@settings(max_examples=30)
@given(message=messages())
def test_a_message_comes_back_as_it_was(message: DetectionsMsg) -> None:
    there = message.to_supervision()
    assert DetectionsMsg.from_supervision(there, like=message) == message
    again = DetectionsMsg.from_supervision(message.view().to_supervision(), like=message)
    assert again == message
    if not np.isnan(message.scores).any():  # NaN is not NaN there
        assert again.to_supervision() == there


def test_what_no_object_has_is_none() -> None:
    message = DetectionsMsg(
        boxes=np.zeros((2, 4), np.float32),
        scores=np.full(2, np.nan, np.float32),
        labels=["cat", "dog"],
        class_ids=np.full(2, -1, np.int32),
    )
    there = message.to_supervision()
    assert (there.confidence, there.class_id, there.tracker_id) == (None, None, None)
    assert there.data["class_name"].tolist() == ["cat", "dog"]
    assert there.data["class_name"].dtype.kind == "U"
    nobody = DetectionsMsg().to_supervision()
    assert (len(nobody), nobody.confidence.shape, nobody.class_id.shape) == (0, (0,), (0,))


def test_what_supervision_has_besides_is_left_out() -> None:
    there = sv.Detections(
        xyxy=np.array([[1.5, 2, 3, 4]]),
        mask=np.zeros((1, 8, 8), bool),
        confidence=np.array([0.5]),
        class_id=np.array([3]),
        tracker_id=np.array([8]),
        data={"speed": np.array([9.0])},
    )
    made = TracksMsg.from_supervision(there)
    assert isinstance(made, TracksMsg)
    assert (made.boxes.tolist(), made.scores.tolist()) == ([[1.5, 2, 3, 4]], [0.5])
    assert (made.labels, made.class_ids.tolist(), made.tracker_ids.tolist()) == ([""], [3], [8])


def test_a_number_without_a_place_is_refused() -> None:
    there = sv.Detections(xyxy=np.zeros((1, 4)), class_id=np.array([2**31]))
    with pytest.raises(MessageTypeError) as caught:
        DetectionsMsg.from_supervision(there)
    assert str(caught.value) == ("DetectionsMsg.class_ids: expected int32, got int64 [2147483648]")


def test_what_is_given_away_may_be_changed() -> None:
    message = DetectionsMsg(
        boxes=np.zeros((1, 4), np.float32),
        scores=np.ones(1, np.float32),
        labels=["cat"],
        class_ids=np.zeros(1, np.int32),
    )
    message.publish()
    there = message.view().to_supervision()
    there.xyxy += 1
    there.confidence *= 0
    assert (message.boxes.max(), message.scores.min()) == (0, 1)


def test_without_supervision_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        DetectionsMsg().to_supervision()
    assert str(caught.value) == (
        "DetectionsMsg.to_supervision needs supervision: pip install 'flowrun-runtime[track]'"
    )
