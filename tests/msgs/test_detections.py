"""`DetectionsMsg`: what goes into the log comes out again, and a box without a label does not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.msgs import DetectionsMsg, MessageTypeError, TracksMsg


def detections(count: int = 2) -> DetectionsMsg:
    message = DetectionsMsg(
        boxes=np.arange(4 * count, dtype=np.float32).reshape(count, 4),
        scores=np.linspace(0.5, 1, count, dtype=np.float32),
        labels=[f"thing {k}" for k in range(count)],
        class_ids=np.arange(count, dtype=np.int32),
        width=640,
        height=480,
        frame_id=7,
        frame_cycle=3,
        latency_ms=1.5,
    )
    message.publish(tov_ns=11)
    return message


def encoded(message: DetectionsMsg) -> bytes:
    return b"".join(bytes(part) for part in message.encode())


FLOAT32 = st.floats(width=32)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
OBJECTS = st.lists(
    st.tuples(*[FINITE] * 4, FLOAT32, st.text(max_size=9), st.integers(-1, 2**31 - 1)), max_size=4
)


@settings(max_examples=50)
@given(boxes=OBJECTS)
def test_what_is_encoded_is_decoded(boxes: list[tuple]) -> None:
    message = DetectionsMsg(
        boxes=np.array([b[:4] for b in boxes], np.float32).reshape(-1, 4),
        scores=np.array([b[4] for b in boxes], np.float32),
        labels=[b[5] for b in boxes],
        class_ids=np.array([b[6] for b in boxes], np.int32),
        tracker_ids=np.array([b[6] for b in boxes], np.int64),
    )
    again = DetectionsMsg()
    again.load(encoded(message))
    assert encoded(again) == encoded(message)
    assert (again.labels, again.count) == (message.labels, len(boxes))
    np.testing.assert_array_equal(again.boxes, message.boxes)
    np.testing.assert_array_equal(again.class_ids, message.class_ids)


def test_a_message_without_objects_is_whole() -> None:
    message = DetectionsMsg(width=3, height=2)
    message.publish()
    assert message.boxes.shape == (0, 4)
    assert (message.scores.shape, message.class_ids.shape, message.count) == ((0,), (0,), 0)
    encoded(message)


def test_the_schema_describes_boxes_and_labels() -> None:
    properties = json.loads(DetectionsMsg.schema())["properties"]
    assert properties["boxes"]["description"] == "float32 array of shape (N 4), row-major"
    assert properties["boxes"]["properties"]["dtype"] == {"const": "<f4"}
    assert properties["labels"] == {"type": "array", "items": {"type": "string"}}
    assert properties["class_ids"]["properties"]["dtype"] == {"const": "<i4"}
    assert list(properties) == list(DetectionsMsg.defaults)
    tracks = json.loads(TracksMsg.schema())
    assert (tracks["title"], tracks["properties"]) == ("DetectionsMsg", properties)


def test_every_object_needs_a_box_a_score_a_label_and_a_class() -> None:
    message = detections()
    message.labels = ["cat"]
    with pytest.raises(MessageTypeError) as caught:
        message.encode()
    assert str(caught.value) == (
        "DetectionsMsg: every object has one box, score, label and class id; "
        "got boxes 2, scores 2, labels 1, class_ids 2"
    )


def test_tracks_need_a_number_each() -> None:
    message = detections()
    message.tracker_ids = np.array([3, -1])
    message.encode()
    message.tracker_ids = np.array([3])
    with pytest.raises(MessageTypeError) as caught:
        message.encode()
    assert str(caught.value) == (
        "DetectionsMsg: every object has one box, score, label and class id, and a tracker id if any "
        "has one; got boxes 2, scores 2, labels 2, class_ids 2, tracker_ids 1"
    )
    followed = TracksMsg()
    followed.encode()  # no object, no track
    followed.fill(detections())
    with pytest.raises(MessageTypeError, match=r"^TracksMsg: .*, tracker_ids 0$"):
        followed.encode()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", range(4))
def test_a_box_is_of_numbers(wrong: float, side: int) -> None:
    message = detections()
    message.boxes = message.boxes.copy()
    message.boxes[1, side] = wrong
    with pytest.raises(MessageTypeError) as caught:
        message.encode()
    assert str(caught.value) == (
        f"DetectionsMsg.boxes: expected finite numbers, got {message.boxes[1].tolist()} for object 1"
    )


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        (
            "boxes",
            np.zeros((2, 4)),
            "DetectionsMsg.boxes: expected float32 of shape (N 4), got float64 of shape (2, 4)",
        ),
        (
            "boxes",
            np.zeros((2, 5), np.float32),
            "DetectionsMsg.boxes: expected float32 of shape (N 4), got float32 of shape (2, 5)",
        ),
        ("labels", ["cat", 3], "DetectionsMsg.labels: expected list[str], got list ['cat', 3]"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object, said: str) -> None:
    message = detections()
    setattr(message, field, value)
    with pytest.raises(MessageTypeError) as caught:
        message.encode()
    assert str(caught.value) == said


def test_a_copy_does_not_change_with_its_original() -> None:
    message = detections()
    copy = message.copy()
    message.labels.append("another")
    assert copy.labels == ["thing 0", "thing 1"]
    assert copy.tov_ns == 11
