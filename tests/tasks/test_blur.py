"""`Blur`: what is left of what was found, and that a picture nobody has looked at is concealed."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.msgs import DetectionsMsg, ImageRgb8Msg
from flowrun.runtime.testing import run_task
from flowrun.tasks.blur import Blur, concealed

S = 1_000_000_000


def picture(tov_ns: int = S, size: tuple[int, int] = (60, 100), frame_id: int = 1) -> ImageRgb8Msg:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    image = ImageRgb8Msg(pixels=pixels, frame_id=frame_id, pts=5, fps=10.0, source="cam")
    image.publish(tov_ns=tov_ns)
    return image


def found(
    *boxes: tuple[float, float, float, float],
    tov_ns: int = S,
    frame_id: int = 1,
    labels: list[str] | None = None,
    size: tuple[int, int] = (100, 60),
) -> DetectionsMsg:
    message = DetectionsMsg(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.ones(len(boxes), np.float32),
        labels=labels or ["face"] * len(boxes),
        class_ids=np.zeros(len(boxes), np.int32),
        width=size[0],
        height=size[1],
        frame_id=frame_id,
    )
    message.publish(tov_ns=tov_ns)
    return message


def blur(*inputs: dict[str, Any], **config: Any) -> list[Any]:
    given = {"method": "fill", "margin": 0, **config}
    return [out.get("blurred") for out in run_task(Blur, inputs=inputs, config=given)]


def hidden(image: Any) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of what is black."""
    ys, xs = np.nonzero(~image.pixels.any(axis=2))
    return (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1) if len(ys) else None


WHOLE = (0, 0, 100, 60)


def test_a_box_is_concealed_and_nothing_else() -> None:
    image = picture()
    [out] = blur({"image": image, "detections": found((20, 10, 40, 30))})
    expected = image.pixels.copy()
    expected[10:30, 20:40] = 0
    np.testing.assert_array_equal(out.pixels, expected)
    assert (out.tov_ns, out.frame_id, out.pts, out.fps, out.source) == (S, 1, 5, 10.0, "cam")


@pytest.mark.parametrize(
    ("box", "size", "margin", "expected"),
    [
        ((20, 10, 40, 30), (100, 60), 0.5, (10, 0, 50, 40)),
        ((20.4, 10.6, 39.5, 29.2), (100, 60), 0, (20, 10, 40, 30)),  # never less than the box
        ((-9, -9, 5, 500), (100, 60), 0, (0, 0, 5, 60)),
        ((10, 5, 20, 15), (50, 30), 0, (20, 10, 40, 30)),  # seen in half the size
        ((30, 20, 30, 20), (100, 60), 0, (30, 20, 31, 21)),  # no size at all
        ((100, 60, 100, 60), (100, 60), 0, None),
        ((200, 10, 300, 30), (100, 60), 0, None),
        ((99.5, 59.5, 300, 300), (100, 60), 0, (99, 59, 100, 60)),
    ],
)
def test_boxes_over_and_on_borders(box: Any, size: Any, margin: float, expected: Any) -> None:
    [out] = blur({"image": picture(), "detections": found(box, size=size)}, margin=margin)
    assert hidden(out) == expected


def test_only_some_labels_are_concealed() -> None:
    seen = found((0, 0, 10, 10), (50, 20, 70, 40), labels=["car", "face"])
    [out] = blur({"image": picture(), "detections": seen}, labels=["face"])
    assert hidden(out) == (50, 20, 70, 40)


def test_a_picture_nobody_has_looked_at_is_concealed_as_a_whole() -> None:
    nothing = found()
    outs = blur(
        {"image": picture()},
        {"image": picture(), "detections": nothing},
        {"image": picture(2 * S, frame_id=2)},
        {"detections": found(tov_ns=2 * S, frame_id=2)},  # too late
        {"image": picture(3 * S, frame_id=3)},
        {"image": picture(4 * S, frame_id=4), "detections": found(tov_ns=3 * S, frame_id=3)},
    )
    assert [out and hidden(out) for out in outs] == [WHOLE, None, WHOLE, None, WHOLE, WHOLE]
    assert outs[3] is None


def test_older_detections_serve_if_asked() -> None:
    first = {"image": picture(), "detections": found((20, 10, 40, 30))}
    later = [{"image": picture(at, frame_id=2)} for at in (2 * S, 2 * S + 1, S - 1)]
    outs = blur(first, *later, max_age_s=1)
    assert [hidden(out) for out in outs] == [(20, 10, 40, 30), (20, 10, 40, 30), WHOLE, WHOLE]


@settings(max_examples=30)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    blocks=st.integers(1, 12),
    method=st.sampled_from(["pixelate", "blur", "fill"]),
)
def test_of_what_is_concealed_a_few_colours_are_left(
    size: tuple[int, int], blocks: int, method: Any
) -> None:
    pixels = picture(size=size).pixels
    made = concealed(pixels, method, blocks=blocks)
    assert (made.shape, made.dtype) == (pixels.shape, np.uint8)
    side = -(-max(size) // blocks)
    if method == "pixelate":
        for top in range(0, size[0], side):
            for left in range(0, size[1], side):
                block = np.s_[top : top + side, left : left + side]
                mean = pixels[block].reshape(-1, 3).astype(int).mean(axis=0)
                assert (made[block] == np.floor(mean + 1e-9)).all()
    if method == "blur" and blocks == 1 and min(size) > 10:
        assert made.std() < pixels.std() / 2


def test_the_input_is_not_concealed() -> None:
    image = picture()
    before = image.pixels.copy()
    blur({"image": image})
    np.testing.assert_array_equal(image.pixels, before)


def test_objects_of_a_frame_without_a_size_are_refused() -> None:
    with pytest.raises(ValueError, match="0x60") as caught:
        blur({"image": picture(), "detections": found((0, 0, 1, 1), size=(0, 60))})
    assert str(caught.value) == (
        "objects of a frame of 0x60 pixels: the task that finds them must set width and height"
    )


@pytest.mark.parametrize("seen", [None, found((20, 10, 40, 30))])
def test_a_thawed_task_goes_on_as_the_frozen_one(seen: DetectionsMsg | None) -> None:
    config = Blur.Config(max_age_s=5, method="fill", margin=0)
    before, after = Blur(config), Blur(config)
    if seen is not None:
        before.process(None, None, seen, ImageRgb8Msg())  # type: ignore[arg-type]
    after.thaw(msgpack.unpackb(msgpack.packb(before.freeze())))
    out = ImageRgb8Msg()
    after.process(None, picture(2 * S, frame_id=2), None, out)  # type: ignore[arg-type]
    assert hidden(out) == (WHOLE if seen is None else (20, 10, 40, 30))
