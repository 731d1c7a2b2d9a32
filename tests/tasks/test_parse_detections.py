"""`ParseDetections`: boxes in a model's text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from flowrun.msgs import DetectionsMsg, PromptResponseMsg
from flowrun.runtime.testing import run_task
from flowrun.tasks.parse_detections import ParseDetections, TextBox, parse_boxes

TWO = "<loc0256><loc0128><loc0768><loc0512> cat ; <loc0000><loc0512><loc1023><loc1024> black dog"


def parse(
    *responses: str,
    prompt: str = "detect cat",
    size: tuple[int, int] = (640, 480),
    **config: Any,
) -> list:
    inputs = []
    for response in responses:
        answer = PromptResponseMsg(
            prompt=prompt,
            response=response,
            frame_id=9,
            frame_cycle=4,
            latency_ms=12.0,
            frame_width=size[0],
            frame_height=size[1],
        )
        answer.publish(tov_ns=77)
        inputs.append({"answer": answer})
    outs = run_task(ParseDetections, inputs=inputs, config=config)
    return [out["detections"] for out in outs]


def test_boxes_come_in_pixels_of_the_frame() -> None:
    [found] = parse(TWO)
    assert isinstance(found, DetectionsMsg)
    assert found.boxes.tolist() == [[80, 120, 320, 360], [320, 0, 640, pytest.approx(479.53, 1e-4)]]
    assert found.labels == ["cat", "black dog"]
    assert found.boxes.dtype == found.scores.dtype == np.float32


def test_a_text_has_no_scores_and_no_class_ids() -> None:
    [found] = parse(TWO)
    assert np.isnan(found.scores).all()
    assert found.class_ids.tolist() == [-1, -1]


def test_detections_are_about_the_answers_frame() -> None:
    [found] = parse(TWO, size=(64, 48))
    assert (found.width, found.height, found.tov_ns) == (64, 48, 77)
    assert (found.frame_id, found.frame_cycle, found.latency_ms) == (9, 4, 12.0)


@pytest.mark.parametrize("response", ["none", "", "a red circle on the left", "<loc0001>"])
def test_an_answer_without_boxes_is_one_without_objects(response: str) -> None:
    [found] = parse(response)
    assert (found.count, found.boxes.shape) == (0, (0, 4))


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (
            "<loc0001><loc0002><loc0003><loc0004> cat ; <loc0001><loc0002><loc0003>",
            ["cat"],
        ),  # cut off
        ("<loc0001><loc0002><loc0003><loc0004>", [""]),  # cut off before its label
        ("<loc0005><loc0002><loc0003><loc0004> turned", []),
        ("<loc0001><loc0002><loc0001><loc0004> flat", []),
        ("<loc0001><loc0002><loc0003><loc0004><seg001><seg127> cat", ["cat"]),
        (
            "<loc0001> <loc0002> <loc0003> <loc0004>cat;<loc0001><loc0002><loc0003><loc0004>dog",
            ["cat", "dog"],
        ),
        ("I see: <loc0001><loc0002><loc0003><loc0004> cat\n", ["cat"]),
    ],
)
def test_what_is_a_box_and_what_is_not(text: str, labels: list[str]) -> None:
    assert [box.label for box in parse_boxes(text)] == labels


REPEATED = (
    "<loc0000><loc0000><loc0500><loc0500> cat ; <loc0000><loc0000><loc0490><loc0500> cat ; "
    "<loc0000><loc0000><loc0480><loc0500> dog ; <loc0800><loc0800><loc0900><loc0900> cat"
)


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        ({}, ["cat", "cat", "dog", "cat"]),
        ({"iou_threshold": 0.5}, ["cat", "dog", "cat"]),
        ({"iou_threshold": 0.5, "class_agnostic_nms": True}, ["cat", "cat"]),
        ({"max_detections": 2}, ["cat", "cat"]),
        ({"labels": ["dog"]}, ["dog"]),
        ({"labels": {"dog": "hound", "fox": "fox"}}, ["hound"]),
        ({"labels": {"dog": "pet", "cat": "pet"}, "iou_threshold": 0.5}, ["pet", "pet"]),
    ],
)
def test_some_of_the_boxes_are_kept(config: dict[str, Any], labels: list[str]) -> None:
    [found] = parse(REPEATED, **config)
    assert found.labels == labels
    assert len(found.boxes) == len(found.scores) == len(found.class_ids) == len(labels)


def test_beyond_the_grid_is_the_edge() -> None:
    assert parse_boxes("<loc0512><loc0256><loc9999><loc5000> cat") == [
        TextBox((0.25, 0.5, 1.0, 1.0), "cat")
    ]


@given(st.text(alphabet="<loc0123456789> ;cat\n", max_size=200))
def test_no_text_gives_a_box_outside_the_picture(text: str) -> None:
    for box in parse_boxes(text * 2):
        left, top, right, bottom = box.xyxy
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1


def test_a_prompt_that_asks_for_no_boxes_is_warned_of_once() -> None:
    with capture_logs() as logs:
        parse("a circle", "a ring", prompt="cap en")
        parse("none", prompt="detect cat")
    assert [(line["event"], line["prompt"], line["response"]) for line in logs] == [
        (
            "no boxes in the answer; ask for them with a prompt such as 'detect cat'",
            "cap en",
            "a circle",
        ),
    ]


def test_an_answer_that_does_not_say_its_frames_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="frame_width") as caught:
        parse(TWO, size=(0, 0))
    assert str(caught.value) == (
        "an answer about a frame of 0x0 pixels: the task that answers must set frame_width and "
        "frame_height"
    )
