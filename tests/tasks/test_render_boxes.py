"""`RenderBoxes`: what is drawn where, on which picture, and for how long."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.msgs import DetectionsMsg, ImageRgb8Msg
from flowrun.runtime.task import TaskConfig
from flowrun.runtime.testing import run_task
from flowrun.tasks.render_boxes import RenderBoxes, color_of, draw_boxes

GREY = 90
S = 1_000_000_000


def picture(tov_ns: int, size: tuple[int, int] = (120, 200)) -> ImageRgb8Msg:
    image = ImageRgb8Msg(
        pixels=np.full((*size, 3), GREY, np.uint8),
        frame_id=tov_ns // S,
        pts=5,
        fps=10.0,
        source="cam",
    )
    image.publish(tov_ns=tov_ns)
    return image


def found(
    tov_ns: int,
    *boxes: tuple[float, float, float, float],
    labels: list[str] | None = None,
    size: tuple[int, int] = (200, 120),
) -> DetectionsMsg:
    message = DetectionsMsg(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.full(len(boxes), 0.5, np.float32),
        labels=labels or ["cat"] * len(boxes),
        class_ids=np.zeros(len(boxes), np.int32),
        width=size[0],
        height=size[1],
    )
    message.publish(tov_ns=tov_ns)
    return message


def render(*inputs: dict[str, Any], **config: Any) -> list[Any]:
    given = {"labels": False, "line_px": 1, **config}
    return [out.get("rendered") for out in run_task(RenderBoxes, inputs=inputs, config=given)]


def drawn(image: Any) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of what is not the background."""
    ys, xs = np.nonzero((image.pixels != GREY).any(axis=2))
    if not len(ys):
        return None
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def test_a_box_is_drawn_on_its_edges_and_nowhere_else() -> None:
    [image] = render({"image": picture(S), "detections": found(S, (20, 30, 60, 90))})
    expected = np.full((120, 200, 3), GREY, np.uint8)
    expected[30:90, 20:60] = color_of("cat", 0)
    expected[31:89, 21:59] = GREY
    np.testing.assert_array_equal(image.pixels, expected)


def test_the_picture_keeps_its_frame() -> None:
    [image] = render({"image": picture(3 * S), "detections": found(S, (20, 30, 60, 90))})
    assert (image.tov_ns, image.frame_id, image.pts) == (3 * S, 3, 5)
    assert (image.fps, image.source) == (10.0, "cam")


def test_the_input_is_not_drawn_on() -> None:
    image = picture(S)
    render({"image": image, "detections": found(S, (20, 30, 60, 90))})
    assert (image.pixels == GREY).all()


def test_late_detections_are_drawn_on_the_next_pictures_until_newer_ones_come() -> None:
    images = render(
        {"image": picture(10 * S)},
        {"image": picture(11 * S), "detections": found(10 * S, (20, 30, 60, 90))},
        {"image": picture(12 * S)},
        {"detections": found(12 * S, (1, 2, 9, 8))},  # between two pictures
        {"image": picture(13 * S)},
        {"image": picture(14 * S), "detections": found(14 * S)},  # nothing there any more
    )
    assert [image and drawn(image) for image in images] == [
        None,
        (20, 30, 60, 90),
        (20, 30, 60, 90),
        None,
        (1, 2, 9, 8),
        None,
    ]
    assert images[3] is None


def test_detections_grow_too_old() -> None:
    box = (20, 30, 60, 90)
    seen = found(10 * S, box)
    times = [10 * S, 12 * S, 12 * S + 1, 60 * S]
    first, *rest = [{"image": picture(time)} for time in times]
    inputs = [{**first, "detections": seen}, *rest]
    assert [drawn(image) for image in render(*inputs)] == [box, box, None, None]
    assert [drawn(image) for image in render(*inputs, max_age_s=50)] == [box] * 4
    assert [drawn(image) for image in render(*inputs, max_age_s=None)] == [box] * 4


def test_detections_of_a_source_that_has_begun_again_are_not_drawn() -> None:
    inputs = [{"detections": found(60 * S, (20, 30, 60, 90))}, {"image": picture(S)}]
    assert drawn(render(*inputs)[1]) is None


def test_boxes_are_scaled_to_the_picture() -> None:
    seen = found(S, (20, 30, 60, 90), size=(100, 120))
    [image] = render({"image": picture(S), "detections": seen})
    assert drawn(image) == (40, 30, 120, 90)


def test_the_line_is_as_wide_as_asked_for() -> None:
    [image] = render({"image": picture(S), "detections": found(S, (20, 30, 60, 90))}, line_px=4)
    row = (image.pixels[60] != GREY).any(axis=1)
    assert np.flatnonzero(row).tolist() == [20, 21, 22, 23, 56, 57, 58, 59]


@pytest.mark.parametrize(
    ("box", "patch"),
    [
        ((20, 60, 60, 90), (20, 60)),
        ((190, 100, 200, 110), (200, 100)),  # moved to the left: it is wider than its box
        ((0, 3, 50, 40), (0, None)),  # moved down: there is no room above
    ],
)
def test_a_label_is_on_its_box_and_inside_the_picture(
    box: tuple[int, int, int, int], patch: tuple[int, int | None]
) -> None:
    [image] = render({"image": picture(S), "detections": found(S, box)}, labels=True)
    [bare] = render({"image": picture(S), "detections": found(S, box)})
    ys, xs = np.nonzero((image.pixels != bare.pixels).any(axis=2))
    assert patch[0] in {xs.min(), xs.max() + 1}
    assert (ys.max() + 1 if patch[1] is not None else None) == patch[1]
    if patch[1] is None:
        assert ys.min() == 0
    assert 10 <= ys.max() + 1 - ys.min() <= 20
    label = image.pixels[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    assert (label[0, 0] == color_of("cat", 0)).all()
    assert label.min(axis=2).max() > 200  # the text, white


def test_a_label_without_a_score_is_the_name_alone() -> None:
    box = (20, 60, 60, 90)
    seen = found(S, box)
    scored = render({"image": picture(S), "detections": seen}, labels=True)[0]
    seen.scores = np.array([np.nan], np.float32)
    bare = render({"image": picture(S), "detections": seen}, labels=True)[0]
    rows = slice(50, 59)
    assert (bare.pixels[rows] != GREY).sum() < (scored.pixels[rows] != GREY).sum()


def test_a_class_has_one_colour() -> None:
    assert color_of("cat", 3) == color_of("dog", 3)
    assert color_of("cat", -1) == color_of("cat", -1)
    assert len({color_of(name, -1) for name in ("red ring", "blue star", "cat", "dog")}) > 1


def test_without_boxes_the_picture_is_passed_on_as_it_is() -> None:
    images = render({"image": picture(S)}, {"image": picture(S), "detections": found(S)})
    assert [drawn(image) for image in images] == [None, None]


@settings(max_examples=60)
@given(
    boxes=st.lists(st.tuples(*[st.floats(width=32)] * 4), max_size=4),
    labels=st.text(max_size=80),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_no_box_and_no_label_crashes(
    boxes: list[tuple[float, float, float, float]], labels: str, size: tuple[int, int]
) -> None:
    pixels = np.zeros((*size, 3), np.uint8)
    draw_boxes(pixels, found(S, *boxes, labels=[labels] * len(boxes)))


@pytest.mark.parametrize("seen", [None, found(S, (20, 30, 60, 90))])
def test_a_thawed_task_goes_on_as_the_frozen_one(seen: DetectionsMsg | None) -> None:
    import msgpack

    class Thawed(RenderBoxes):
        def __init__(self, config: TaskConfig) -> None:
            super().__init__(config)
            self.thaw(state)

    before = RenderBoxes(RenderBoxes.Config(labels=False, line_px=1))
    if seen is not None:
        before.process(None, None, seen, ImageRgb8Msg())  # type: ignore[arg-type]
    state = msgpack.unpackb(msgpack.packb(before.freeze()))
    inputs = [{"image": picture(2 * S)}]
    [after] = run_task(Thawed, inputs=inputs, config={"labels": False, "line_px": 1})
    assert drawn(after["rendered"]) == (None if seen is None else (20, 30, 60, 90))
