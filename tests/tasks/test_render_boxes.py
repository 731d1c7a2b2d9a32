"""`RenderBoxes`: what is drawn where, on which picture, and for how long."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.msgs import DetectionsMsg, ImageRgb8Msg, LinesMsg, ZonesMsg
from flowrun.runtime.errors import UsageError
from flowrun.runtime.task import Task
from flowrun.runtime.testing import run_task
from flowrun.tasks.blur import Blur
from flowrun.tasks.drawing import (
    DEFAULT_LABEL,
    LabelFormat,
    Style,
    color_of,
    draw_boxes,
    track_color,
)
from flowrun.tasks.render_boxes import RenderBoxes
from flowrun.tasks.shaping.crop import Crop

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
    boxes=st.lists(
        st.tuples(*[st.floats(width=32, allow_nan=False, allow_infinity=False)] * 4), max_size=4
    ),
    labels=st.text(max_size=80),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_no_box_and_no_label_crashes(
    boxes: list[tuple[float, float, float, float]], labels: str, size: tuple[int, int]
) -> None:
    pixels = np.zeros((*size, 3), np.uint8)
    style = Style.for_picture(pixels, None, label=LabelFormat(DEFAULT_LABEL))
    draw_boxes(pixels, found(S, *boxes, labels=[labels] * len(boxes)), style)


# -- labels, tracks, zones, lines, statistics --------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values", "label"),
    [
        (DEFAULT_LABEL, {}, "cat 0.50 #7"),
        (DEFAULT_LABEL, {"tracker_id": None}, "cat 0.50"),
        (DEFAULT_LABEL, {"confidence": None, "tracker_id": None}, "cat"),
        (DEFAULT_LABEL, {"class": None}, "0.50 #7"),
        ("{class} {confidence:.0%} #{tracker_id}", {}, "cat 50% #7"),
        ("[{class_id:02d}] {{{class!s:>5}}}", {}, "[03] {  cat}"),
        ("{class}/{tracker_id} seen", {"tracker_id": None}, "seen"),
        ("", {}, ""),
    ],
)
def test_a_label_is_written_as_asked(text: str, values: dict[str, Any], label: str) -> None:
    known = {"class": "cat", "confidence": 0.5, "tracker_id": 7, "class_id": 3}
    assert LabelFormat(text).of(known | values) == label


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "{clas}",
            "label '{clas}' has an unknown field 'clas'; fields: class, confidence, tracker_id, "
            "class_id (did you mean 'class'?)",
        ),
        ("{class", "label '{class' is no format: expected '}' before end of string"),
        (
            "{class:.2f}",
            "label '{class:.2f}' cannot be written: Unknown format code 'f' for object of type 'str'",
        ),
        (
            "{class.upper}",
            "label '{class.upper}' has an unknown field 'class.upper'; fields: class, confidence, "
            "tracker_id, class_id (did you mean 'class'?)",
        ),
        ("{confidence:{width}}", "label '{confidence:{width}}' cannot be written: 'width'"),
    ],
)
def test_a_label_that_is_no_format_is_refused_before_the_run(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="label") as caught:
        LabelFormat(text)
    assert str(caught.value) == said
    with pytest.raises(UsageError) as refused:
        render(label=text)
    assert said in str(refused.value)


def moving(at_s: float, *ids: int, labels: list[str] | None = None) -> DetectionsMsg:
    """Tracks that move to the right by 20 pixels a second."""
    x = 20 * at_s
    seen = found(
        round(at_s * S), *[(x, 40 * k, x + 20, 40 * k + 20) for k in range(len(ids))], labels=labels
    )
    seen.tracker_ids = np.array(ids, np.int64)
    seen.publish(tov_ns=seen.tov_ns)
    return seen


def test_each_track_has_a_colour_of_its_own() -> None:
    inputs = {"image": picture(S), "detections": moving(1, 1, 2)}
    [by_class] = render(inputs)
    assert (by_class.pixels[0, 20] == color_of("cat", 0)).all()
    assert (by_class.pixels[40, 20] == color_of("cat", 0)).all()
    [by_track] = render(inputs, color_by="track")
    assert (by_track.pixels[0, 20] == track_color(1)).all()
    assert (by_track.pixels[40, 20] == track_color(2)).all()


def test_a_track_draws_its_way_for_some_seconds() -> None:
    inputs = [{"image": picture(k * S), "detections": moving(k, 4)} for k in range(1, 6)]
    bare, drawn_ = render(*inputs)[-1], render(*inputs, trail_s=2)[-1]
    way = (drawn_.pixels != bare.pixels).any(axis=2)
    ys, xs = np.nonzero(way)
    # At second 5 its lower middle is at x 110, y 20; two seconds before it was at x 70.
    assert xs.min() in {69, 70}
    assert xs.max() <= 111
    assert set(ys.tolist()) <= {19, 20, 21}
    later: dict[str, Any] = {"image": picture(8 * S)}
    gone = render(*inputs, later, trail_s=2, max_age_s=None)[-1]
    assert (gone.pixels == render(*inputs, later, max_age_s=None)[-1].pixels).all()


def zones(tov_ns: int) -> ZonesMsg:
    message = ZonesMsg(
        names=["door"], polygons=[[[20.0, 40.0], [60.0, 40.0], [60.0, 80.0], [20.0, 80.0]]],
        counts=[3], labels=[{"cat": 3}], inside=[[]], inside_s=[[]], entered=[[]], left=[[]],
        totals=[0], width=100, height=120,
    )  # fmt: skip
    message.publish(tov_ns=tov_ns)
    return message


def lines(tov_ns: int) -> LinesMsg:
    message = LinesMsg(
        names=["gate"], lines=[[150.0, 110.0, 150.0, 10.0]], ins=[4], outs=[1],
        in_labels=[{"cat": 4}], out_labels=[{"cat": 1}], went_in=[[]], went_out=[[]],
        width=200, height=120,
    )  # fmt: skip
    message.publish(tov_ns=tov_ns)
    return message


def test_zones_and_lines_are_drawn_where_they_are() -> None:
    """A zone of a picture half as wide, and a line that goes up: "in" is on its right."""
    image, late = picture(S), picture(9 * S)
    [zoned, no_more] = render({"image": image, "zones": zones(S)}, {"image": late})
    color = np.array(track_color(0))
    assert (zoned.pixels[60, 40] == color).all()
    assert (zoned.pixels[60, 120] == color).all()
    assert (zoned.pixels[80, 60] == color).all()
    assert (zoned.pixels[60, 80] == GREY).all()
    assert drawn(no_more) is None
    [lined] = render({"image": image, "lines": lines(S)})
    assert (lined.pixels[100, 150] == color).all()
    assert (lined.pixels[60, 153] == color).all()
    assert (lined.pixels[62, 147] == GREY).all()


def test_statistics_are_written_if_asked() -> None:
    inputs = [{"image": picture(k * S // 10)} for k in range(1, 5)]
    assert drawn(render(*inputs)[-1]) is None
    [*_, last] = render(*inputs, statistics=True, text_px=12)
    left, top, right, bottom = drawn(last)  # type: ignore[misc]
    assert (left, top) == (0, 0)
    assert right < 70
    assert bottom <= 20
    seen = {"image": picture(S), "detections": found(S, (150, 90, 160, 100), labels=["dog"])}
    [counted] = render(seen, statistics=True, text_px=12)
    assert (counted.pixels[1, 1] != GREY).any()


FAR = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=15)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    polygon=st.lists(st.tuples(FAR, FAR), min_size=3, max_size=5),
    name=st.text(max_size=80),
)
def test_no_zone_and_no_name_crashes(size: Any, polygon: list[Any], name: str) -> None:
    seen = zones(S)
    seen.names, seen.polygons = [name], [[list(it) for it in polygon]]
    seen.publish(tov_ns=S)
    render({"image": picture(S, size), "zones": seen}, statistics=True)


@pytest.mark.parametrize("cut", range(6))
def test_a_thawed_task_goes_on_as_the_frozen_one(cut: int) -> None:
    import msgpack

    class Cut(RenderBoxes):
        """Frozen into another state before call `cut`."""

        calls = 0

        def process(self, *ports: Any) -> None:  # type: ignore[override]
            if self.calls == cut:
                state = msgpack.unpackb(msgpack.packb(self.freeze()))
                RenderBoxes.__init__(self, self.config)
                self.thaw(state)
            self.calls += 1
            super().process(*ports)

    Cut.process.__wrapped__ = RenderBoxes.process  # type: ignore[attr-defined]
    Cut.process.__annotations__ = RenderBoxes.process.__annotations__
    inputs: list[dict[str, Any]] = [
        {"image": picture(S)},
        {"image": picture(2 * S), "detections": moving(2, 3, 4, labels=["cat", "dog"])},
        {"zones": zones(3 * S)},
        {"image": picture(3 * S), "detections": moving(3, 3)},
        {"image": picture(4 * S), "lines": lines(3 * S)},
        {"image": picture(5 * S)},
    ]
    config = {"trail_s": 3, "statistics": True, "max_age_s": 5}
    whole, again = (
        [out.get("rendered") for out in run_task(kind, inputs=inputs, config=config)]
        for kind in (RenderBoxes, Cut)
    )
    for one, other in zip(whole, again, strict=True):
        assert (one is None) == (other is None)
        assert one is None or (one.pixels == other.pixels).all()


@pytest.mark.parametrize("task", [RenderBoxes, Crop, Blur])
def test_where_the_size_of_the_frame_is_not_known_is_an_error(task: type[Task]) -> None:
    image = ImageRgb8Msg(pixels=np.zeros((48, 64, 3), np.uint8))
    image.publish(tov_ns=5)
    boxes = DetectionsMsg(
        boxes=np.array([[4, 4, 9, 9]], np.float32),
        scores=np.ones(1, np.float32),
        labels=["cat"],
        class_ids=np.zeros(1, np.int32),
    )
    boxes.publish(tov_ns=5)
    with pytest.raises(ValueError, match=r"a frame of 0x0 pixels: .* must set width and height"):
        run_task(task, inputs=[{"image": image, "detections": boxes}])
