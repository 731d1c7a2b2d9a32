"""Whether an answer is the right one."""

from __future__ import annotations

import pytest

from flowrun.tasks.evaluation.recorded import ANSWER, DETECTIONS
from flowrun.tasks.evaluation.scores import Score, Truth, score, shown

CAT = "<loc0100><loc0100><loc0500><loc0500> cat"
CAT_MOVED = "<loc0110><loc0100><loc0510><loc0500> cat"
CAT_FAR = "<loc0600><loc0600><loc0900><loc0900> cat"
DOG = "<loc0600><loc0600><loc0900><loc0900> dog"


def near(answer: str, right: str, prompt: str = "cap en") -> float:
    fields = {"prompt": prompt, "frame_width": 640, "frame_height": 480}
    found = score(ANSWER, {**fields, "response": answer}, Truth({**fields, "response": right}))
    assert found is not None
    assert found.right == (found.near == 1)
    return found.near


@pytest.mark.parametrize(
    ("answer", "right", "expected"),
    [
        ("A cat.", " a  CAT", 1),
        ("a cat", "a dog", 0),
        ("", "a dog", 0),
        (CAT_MOVED, CAT, 1),
        (CAT_FAR, CAT, 0),
        (CAT.replace("cat", "dog"), CAT, 0),
        (f"{DOG} ; {CAT_MOVED}", f"{CAT} ; {DOG}", 1),
        (CAT, f"{CAT} ; {DOG}", pytest.approx(2 / 3)),
        (f"{CAT} ; {CAT_MOVED}", CAT, pytest.approx(2 / 3)),
        ("a<loc0100>b", "an empty scene", 0),
        (CAT, "a cat", 0),
    ],
)
def test_texts_are_compared_as_they_are_read_and_boxes_by_overlap(answer, right, expected):
    assert near(answer, right) == expected


def test_no_objects_where_objects_were_asked_for_is_the_same_as_none():
    assert near("", "nothing here", prompt="detect cat") == 1
    assert near("", CAT, prompt="detect cat") == 0


def test_detections_are_compared_by_overlap_and_label():
    one = {"boxes": [[0, 0, 10, 10], [20, 20, 30, 30]], "labels": ["cat", "dog"]}
    same = {"boxes": [[20, 20, 30, 31], [0, 1, 10, 10]], "labels": ["dog", "cat"]}
    other = {"boxes": [[20, 20, 30, 30]], "labels": ["cat"]}
    none: dict[str, list[object]] = {"boxes": [], "labels": []}
    assert score(DETECTIONS, same, Truth(one)) == Score(1, right=True)
    assert score(DETECTIONS, other, Truth(one)) == Score(0, right=False)
    assert score(DETECTIONS, none, Truth(none)) == Score(1, right=True)
    assert shown(DETECTIONS, one) == "cat, dog"
    assert shown(DETECTIONS, {"boxes": [], "labels": ["cat", "dog", "cat"]}) == "2 cat, dog"


def test_of_a_wrong_answer_only_the_same_one_is_known_to_be_wrong():
    wrong = Truth({"response": "a dog"}, is_wrong=True)
    assert score(ANSWER, {"response": "A dog"}, wrong) == Score(0, right=False)
    assert score(ANSWER, {"response": "a cat"}, wrong) is None
