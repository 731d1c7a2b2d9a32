"""Crop, Resize, Mosaic, Throttle, Join, PythonCallable: their laws, whatever comes."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.msgs import DetectionsMsg, ImageRgb8Msg, IntMsg, TextMsg
from flowrun.runtime.cli import main
from flowrun.runtime.engine.alone import Alone
from flowrun.runtime.errors import UsageError, WrongReturnError
from flowrun.runtime.graph.ports import ports_for, with_types
from flowrun.runtime.log.reader import Log
from flowrun.runtime.testing import run_task
from flowrun.tasks.shaping.callables import PythonCallable
from flowrun.tasks.shaping.crop import Crop
from flowrun.tasks.shaping.fitting import fitted
from flowrun.tasks.shaping.join import Join
from flowrun.tasks.shaping.mosaic import Mosaic
from flowrun.tasks.shaping.resize import Resize
from flowrun.tasks.shaping.throttle import Throttle

MS = 1_000_000
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def picture(width: int, height: int, *, tov_ns: int = 1, **fields: Any) -> ImageRgb8Msg:
    """Each pixel has a value of its own: its column, its row, 9."""
    image = ImageRgb8Msg(**fields)
    pixels = image.allocate_pixels(height, width)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = np.arange(width), np.arange(height)[:, None], 9
    image.publish(tov_ns=tov_ns)
    return image


def number(value: int, tov_ns: int) -> IntMsg:
    message = IntMsg(value=value)
    message.publish(tov_ns=tov_ns)
    return message


def found(*boxes: list[float], labels: str = "", scores: list[float] | None = None, **more: Any):
    message = DetectionsMsg(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores or [0.5] * len(boxes), np.float32),
        labels=list(labels or "a" * len(boxes)),
        class_ids=np.zeros(len(boxes), np.int32),
        **{"width": 20, "height": 10, **more},
    )
    message.publish(tov_ns=1)
    return message


def one(task: Any, given: dict[str, Any], /, **config: Any) -> Any:
    [only] = run_task(task, inputs=[given], config=config)
    return only


def refusal(task: Any, **config: Any) -> str:
    with pytest.raises(UsageError) as caught:
        run_task(task, inputs=[], config=config)
    return str(caught.value).partition(": ")[2]


# -- Resize --------------------------------------------------------------------------------------


def test_the_other_size_follows_and_the_picture_keeps_its_shape() -> None:
    image = picture(40, 30, frame_id=7, pts=5, fps=25.0, source="cam", pixel_aspect=1.5, tov_ns=99)
    made = one(Resize, {"image": image}, width=20).resized
    assert (made.width, made.height, made.pixel_aspect) == (20, 15, 1.5)
    assert (made.frame_id, made.pts, made.fps, made.source, made.tov_ns) == (7, 5, 25, "cam", 99)
    made = one(Resize, {"image": image}, height=60).resized
    assert (made.width, made.height) == (80, 60)


@given(SIZES, SIZES, st.sampled_from([0.5, 1.0, 1.25]))
@settings(max_examples=30, deadline=None)
def test_a_stretched_picture_is_shown_in_its_own_shape(
    size: tuple[int, int], new: tuple[int, int], aspect: float
) -> None:
    image = picture(*size, pixel_aspect=aspect)
    made = one(Resize, {"image": image}, width=new[0], height=new[1]).resized
    assert (made.width, made.height) == new
    shown = made.width * made.pixel_aspect / made.height
    assert math.isclose(shown, image.width * aspect / image.height)
    assert np.array_equal(made.pixels, image.resized(*new))


@given(SIZES, SIZES, st.sampled_from([0.5, 1.0, 1.25]))
@settings(max_examples=30, deadline=None)
def test_a_letterbox_has_all_of_the_picture_in_its_middle(
    size: tuple[int, int], new: tuple[int, int], aspect: float
) -> None:
    image = picture(*size, pixel_aspect=aspect)
    made = fitted(image, *new, "letterbox", color=(1, 2, 255))
    inside = made[..., 2] != 255
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    height, width = len(rows), len(columns)
    assert inside[rows[0] :, columns[0] :][:height, :width].all()
    assert new[0] - width <= 2 * columns[0] + 1 <= new[0] - width + 1
    assert new[1] - height <= 2 * rows[0] + 1 <= new[1] - height + 1
    assert width == new[0] or height == new[1]
    shape = size[0] * aspect / size[1]
    assert abs(width - height * shape) <= max(1, shape)
    part = made[rows[0] : rows[0] + height, columns[0] : columns[0] + width]
    assert np.array_equal(part, image.resized(width, height))


@given(SIZES, SIZES)
@settings(max_examples=30, deadline=None)
def test_a_cover_has_no_bars_and_the_middle_of_the_picture(
    size: tuple[int, int], new: tuple[int, int]
) -> None:
    made = fitted(picture(*size), *new, "cover", color=(1, 2, 255))
    assert made.shape == (new[1], new[0], 3)
    assert not (made[..., 2] == 255).any()
    if size[0] >= new[0] and size[1] >= new[1]:
        middle = (size[0] - 1) / 2, (size[1] - 1) / 2
        scale = max(new[0] / size[0], new[1] / size[1])
        assert abs(made[..., 0].mean() - middle[0]) <= 1.5 + 1 / scale
        assert abs(made[..., 1].mean() - middle[1]) <= 1.5 + 1 / scale


def test_a_picture_of_the_size_is_passed_on() -> None:
    image = picture(4, 3)
    assert one(Resize, {"image": image}, width=4).resized == image


def test_a_size_is_needed() -> None:
    assert refusal(Resize) == "Value error, give 'width', 'height' or both"
    assert refusal(Resize, width=3, fit="cover") == (
        "Value error, fit: cover needs 'width' and 'height'"
    )


# -- Crop ----------------------------------------------------------------------------------------


@given(SIZES, st.lists(st.floats(0, 50), min_size=4, max_size=4), st.booleans())
@settings(max_examples=30, deadline=None)
def test_what_is_cut_is_the_pixels_of_the_box(
    size: tuple[int, int], edges: list[float], is_parts: bool
) -> None:
    width, height = size
    box = [min(edges[::2]), min(edges[1::2]), max(edges[::2]), max(edges[1::2])]
    if is_parts:
        box = [edge / 50 for edge in box]
    if not (box[0] < box[2] and box[1] < box[3]):
        return
    pixels = [box[0] * width, box[1] * height, box[2] * width, box[3] * height]
    in_pixels = pixels if is_parts else box
    config = {"box": box, "unit": "parts" if is_parts else "pixels"}
    image = picture(*size, frame_id=3, pixel_aspect=1.5, tov_ns=8)
    if not is_parts and (box[0] >= width or box[1] >= height):
        with pytest.raises(ValueError, match="is outside the picture, which has"):
            one(Crop, {"image": image}, **config)
        return
    made = one(Crop, {"image": image}, **config).cropped
    left, top = made.pixels[0, 0, :2].tolist()
    right, bottom = (made.pixels[-1, -1, :2].astype(int) + 1).tolist()
    assert np.array_equal(made.pixels, image.pixels[top:bottom, left:right])
    assert (made.frame_id, made.pixel_aspect, made.tov_ns) == (3, 1.5, 8)
    if in_pixels[0] < width - 1 and in_pixels[1] < height - 1:
        assert (left, top) == (math.floor(in_pixels[0]), math.floor(in_pixels[1]))
    assert right <= width
    assert bottom <= height


def test_the_surest_object_is_cut_out_with_its_margin() -> None:
    image = picture(40, 20)  # twice the size that the detector saw
    boxes = [[2.0, 2, 4, 4], [5, 5, 15, 9], [6, 1, 8, 3]]
    detections = found(*boxes, labels="aba", scores=[0.4, 0.9, 0.6])
    inputs = {"image": image, "detections": detections}

    def edges(**config: Any) -> list[int]:
        made = one(Crop, inputs, **config).cropped
        return [*made.pixels[0, 0, :2].tolist(), made.width, made.height]

    assert edges(margin=0) == [10, 10, 20, 8]
    assert edges(margin=0.5) == [0, 6, 40, 14]
    assert edges(labels=["a"], margin=0) == [12, 2, 4, 4]
    assert edges(pick="largest", margin=0) == [10, 10, 20, 8]
    assert one(Crop, inputs, labels=["c"]) == {}
    assert one(Crop, {"image": image}) == {}


def test_objects_are_used_until_they_are_too_old() -> None:
    later = picture(20, 10, tov_ns=1 + 3_000_000_000)
    inputs = [
        {"detections": found([0, 0, 5, 5])},
        {"image": picture(20, 10, tov_ns=2)},
        {"image": later},
    ]
    assert [len(it) for it in run_task(Crop, inputs=inputs)] == [0, 1, 0]
    assert [len(it) for it in run_task(Crop, inputs=inputs, config={"max_age_s": None})] == [
        0,
        1,
        1,
    ]


def test_a_box_needs_an_area() -> None:
    assert refusal(Crop, box=[5, 0, 5, 3]) == (
        "Value error, 'box' must be left, top, right and bottom, with 0 <= left < right and 0 <= top < "
        "bottom; got [5.0, 0.0, 5.0, 3.0]"
    )
    assert refusal(Crop, box=[0, 0, 5, 3], unit="parts").endswith("unit: pixels?")


# -- Mosaic --------------------------------------------------------------------------------------


@given(st.integers(1, 7), SIZES, st.integers(0, 3), st.none() | st.integers(1, 8), st.data())
@settings(max_examples=30, deadline=None)
def test_each_camera_has_its_part_and_the_parts_fill_the_picture(
    count: int, size: tuple[int, int], gap: int, columns: int | None, data: st.DataObject
) -> None:
    names = [f"c{k}" for k in range(count)]
    config = {"inputs": names, "gap_px": gap, "columns": columns, "labels": False}
    config |= {"width": size[0], "height": size[1], "color": [1, 2, 3]}
    across = min(columns or math.ceil(math.sqrt(count)), count)
    down = math.ceil(count / across)
    if size[0] < across + (across - 1) * gap or size[1] < down + (down - 1) * gap:
        assert "need at least" in refusal(Mosaic, **config)
        return
    came = data.draw(st.sets(st.sampled_from(names), min_size=1))
    images = {}
    for k, name in enumerate(names):
        if name in came:
            images[name] = ImageRgb8Msg()
            images[name].allocate_pixels(size[1] * 2, size[0] * 2)[...] = 100 + k
    made = one(Mosaic, images, **config).mosaic.pixels
    assert made.shape == (size[1], size[0], 3)
    areas = {k: np.argwhere((made == 100 + k).all(2)) for k in range(count)}
    corners = {}
    for k in range(count):
        if names[k] in came:
            corners[k] = areas[k].min(0), areas[k].max(0) + 1
            assert len(areas[k]) == np.prod(corners[k][1] - corners[k][0])
        else:
            assert not len(areas[k])
    for a in corners:
        for b in corners:
            if a // across == b // across and a < b:
                assert corners[a][1][1] <= corners[b][0][1]
            if a // across < b // across:
                assert corners[a][1][0] <= corners[b][0][0]


def test_an_absent_camera_stays_for_a_while() -> None:
    def shows(**config: Any) -> list[list[int]]:
        inputs = [
            {"a": picture(4, 4, tov_ns=1), "b": picture(4, 4, tov_ns=1)},
            {"a": picture(4, 4, tov_ns=10**9)},
            {"a": picture(4, 4, tov_ns=5 * 10**9)},
            {},
        ]
        more = {"inputs": ["a", "b"], "width": 8, "height": 4, "gap_px": 0, "labels": False}
        made = run_task(Mosaic, inputs=inputs, config=config | more)
        assert made[3] == {}
        assert [it.mosaic.frame_id for it in made[:3]] == [0, 1, 2]
        assert [it.mosaic.tov_ns for it in made[:3]] == [1, 10**9, 5 * 10**9]
        return [it.mosaic.pixels[0, ::4, 2].tolist() for it in made[:3]]

    assert shows() == [[9, 9], [9, 9], [9, 0]]
    assert shows(max_age_s=0.5) == [[9, 9], [9, 0], [9, 0]]
    assert shows(max_age_s=None) == [[9, 9], [9, 9], [9, 9]]


def test_names_are_written_on_the_pictures() -> None:
    images = {"a": picture(40, 40)}
    plain = one(Mosaic, images, inputs=["a"], width=80, height=80, labels=False).mosaic.pixels
    named = one(Mosaic, images, inputs=["a"], width=80, height=80).mosaic.pixels
    changed = np.argwhere((plain != named).any(2))
    assert changed.min(0).tolist() == [0, 0]
    assert changed.max() < 40
    # A part that is smaller than its label.
    assert one(Mosaic, images, inputs=["a"], width=3, height=2).mosaic.pixels.shape == (2, 3, 3)


# -- Throttle ------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 3000), max_size=60).map(sorted),
    st.sampled_from([0.5, 1, 3, 10, 29.97]),
)
@settings(max_examples=30, deadline=None)
def test_no_more_messages_pass_than_the_rate_allows(times_ms: list[int], rate_hz: float) -> None:
    inputs = [{"message": number(k, at * MS)} for k, at in enumerate(times_ms)]
    made = run_task(Throttle, inputs=inputs, config={"rate_hz": rate_hz})
    kept = [it.throttled.tov_ns / 1e9 for it in made if it]
    assert [it.throttled.value for it in made if it] == [k for k, it in enumerate(made) if it]
    assert bool(kept) == bool(times_ms)
    span = (times_ms[-1] - times_ms[0]) / 1000 if times_ms else 0
    assert len(kept) <= span * rate_hz + 1.5
    for k in range(len(kept) - 2):  # two may be near each other, at the end of one piece of time
        assert kept[k + 2] - kept[k] >= 1 / rate_hz - 0.011
    gaps = pairwise(times_ms)
    if all(second - first >= 1000 / rate_hz for first, second in gaps):
        assert len(kept) >= len(times_ms) - 1


@given(st.integers(0, 30), st.integers(1, 7))
def test_every_nth_message_passes(count: int, every: int) -> None:
    inputs = [{"message": TextMsg(value=str(k))} for k in range(count)]
    made = run_task(Throttle, inputs=inputs, config={"every": every})
    assert [k for k, it in enumerate(made) if it] == list(range(0, count, every))


def test_a_throttle_has_one_measure() -> None:
    for config in ({}, {"every": 2, "rate_hz": 1}):
        assert refusal(Throttle, **config) == "Value error, give 'rate_hz' or 'every'"


# -- Join ----------------------------------------------------------------------------------------

TIMES = st.lists(st.integers(1, 60), max_size=12).map(sorted)


def joined(
    streams: list[list[int]], order: list[int], *, names: str = "abc", **config: Any
) -> list[dict[str, int]]:
    """The times (ms) of each set that a Join publishes.

    streams: the times of each input.
    order: of which input the next message comes, cycle after cycle; -1: of none.
    """
    left = [list(times) for times in streams]
    inputs = []
    for at in order:
        if at < 0 or not left[at]:
            inputs.append({})
            continue
        time_ms = left[at].pop(0)
        inputs.append({names[at]: number(time_ms, time_ms * MS)})
    config |= {"inputs": list(names[: len(streams)])}
    made = run_task(Join, inputs=inputs, config=config)
    sets = [{name: message.tov_ns // MS for name, message in it.items()} for it in made if it]
    return [{name.removesuffix("_joined"): time for name, time in it.items()} for it in sets]


def reference(
    streams: list[list[int]], tolerance: float, *, unmatched: str
) -> list[dict[str, int]]:
    leading, *others = streams
    sets = []
    for time in leading:
        if not all(other and other[-1] >= time for other in others):
            break
        made = {"a": time}
        for name, other in zip("bc", others, strict=False):
            nearest = min(other, key=lambda it: (abs(it - time), it))
            if abs(nearest - time) <= tolerance:
                made[name] = nearest
        if unmatched == "pass" or len(made) == len(streams):
            sets.append(made)
    return sets


@given(
    st.lists(TIMES, min_size=2, max_size=3),
    st.sampled_from([0, 1, 4, 20]),
    st.sampled_from(["drop", "pass"]),
    st.randoms(use_true_random=False),
)
@settings(max_examples=40, deadline=None)
def test_a_join_is_the_nearest_in_whatever_order_messages_come(
    streams: list[list[int]], tolerance: int, unmatched: str, chance: Any
) -> None:
    order = [at for at, times in enumerate(streams) for _ in times]
    chance.shuffle(order)
    order += [-1] * len(streams[0])
    made = joined(streams, order, tolerance_ms=tolerance, unmatched=unmatched, buffer=100)
    assert made == reference(streams, tolerance, unmatched=unmatched)


@given(
    st.lists(st.lists(st.integers(1, 60), max_size=12), min_size=2, max_size=3),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
    st.integers(0, 60),
)
@settings(max_examples=30, deadline=None)
def test_a_join_is_bounded_and_goes_on_from_a_keyframe_for_any_times(
    streams: list[list[int]], buffer: int, chance: Any, cut: int
) -> None:
    order = [at for at, times in enumerate(streams) for _ in times]
    chance.shuffle(order)
    config = Join.Config(
        inputs=list("abc"[: len(streams)]), tolerance_ms=7, buffer=buffer, unmatched="pass"
    )
    given = dict.fromkeys(config.inputs, IntMsg)
    ports = with_types(ports_for(Join, config), given)
    assert {port.message_type for port in ports} == {IntMsg}
    alone, again = (Alone(Join, config, messages=given, graph_dir=Path(), seed=0) for _ in range(2))
    left = [list(times) for times in streams]
    for cycle, at in enumerate(order):
        arrived = {"abc"[at]: number(cycle, left[at].pop(0) * MS)}
        if cycle == cut:
            again._made.task.thaw(alone._made.task.freeze())
        made = alone.run(arrived, cycle=cycle, now_ns=cycle)
        if cycle >= cut:
            assert again.run(arrived, cycle=cycle, now_ns=cycle) == made
        if made:
            time = made["a_joined"].tov_ns
            assert all(abs(it.tov_ns - time) <= 7 * MS for it in made.values())
        waiting = alone._made.task._waiting
        assert all(len(it.kept) <= buffer + (it is waiting[0]) for it in waiting)


def test_an_input_that_starts_over_is_joined_again() -> None:
    streams = [[100, 200, 5, 15], [100, 200, 4, 16]]
    assert joined(streams, [0, 1] * 4, tolerance_ms=2) == [
        {"a": 100, "b": 100},
        {"a": 200, "b": 200},
        {"a": 15, "b": 16},
    ]


def test_a_join_of_two_needs_two_names() -> None:
    assert refusal(Join, inputs=["a"]).startswith("inputs: Value should have at least 2 items")
    assert (
        refusal(Join, inputs=["a", "a"])
        == "inputs: Value error, 'a' is there twice; got ['a', 'a']"
    )


# -- PythonCallable ------------------------------------------------------------------------------

OWN = """\
import numpy as np


def bright(pixels, above=100):
    return {"bright": bool(pixels.mean() > above), "size": list(pixels.shape)}


def many(pixels):
    return "seen", np.float32(2.5), pixels[:1], None


def wrong(pixels):
    return [1]


class Counting:
    def __init__(self, first=0):
        self.count = first

    def __call__(self, image):
        self.count += 1
        return f"{type(image).__name__} {self.count}"


number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("own_callables.py").write_text(OWN)
    return tmp_path


def test_a_callable_says_by_its_type_what_is_published(own: Path) -> None:
    inputs = {"image": picture(4, 3, frame_id=5, tov_ns=7)}
    made = one(PythonCallable, inputs, callable="own_callables:bright", arguments={"above": 1})
    assert made.result.value == {"bright": True, "size": [3, 4, 3]}
    made = one(PythonCallable, inputs, callable="own_callables.many")
    assert sorted(made) == ["number", "picture", "text"]
    assert (made.text.value, made.number.value, made.picture.pixels.shape) == (
        "seen",
        2.5,
        (1, 4, 3),
    )
    assert (made.picture.frame_id, made.text.tov_ns) == (5, 7)
    with pytest.raises(WrongReturnError) as caught:
        one(PythonCallable, inputs, callable="own_callables:wrong")
    assert str(caught.value).startswith(
        "own_callables:wrong returned a list; it may return a dict, "
    )


def test_a_function_of_opencv_gets_and_returns_its_order_of_colours(own: Path) -> None:
    own.joinpath("own_bgr.py").write_text("""\
def draw(pixels):
    assert pixels.flags.c_contiguous
    pixels[0, 0] = 255, 0, 0  # blue
    return float(pixels[0, 1, 0]), pixels
""")
    image = picture(2, 2)
    red, green, blue = (int(it) for it in image.pixels[0, 1])
    made = one(PythonCallable, {"image": image}, callable="own_bgr:draw", takes="bgr")
    assert made.number.value == blue
    assert made.picture.pixels[0].tolist() == [[0, 0, 255], [red, green, blue]]
    assert image.pixels[0, 0].tolist() != [0, 0, 255]


def test_an_object_is_made_once(own: Path) -> None:
    made = run_task(
        PythonCallable,
        inputs=[{"image": picture(2, 2)}] * 2,
        config={
            "callable": "own_callables:Counting",
            "arguments": {"first": 5},
            "takes": "message",
        },
    )
    assert [it.text.value for it in made] == ["ImageRgb8Msg 6", "ImageRgb8Msg 7"]


def test_a_callable_that_is_not_there_is_reported_before_the_run(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("g.yaml").write_text("""\
tasks:
  - {id: cam, type: VideoCapture, config: {source_type: test}}
  - {id: a, type: PythonCallable, config: {callable: "own_callables:brigth"}}
  - {id: b, type: PythonCallable, config: {callable: "own_callables:number"}}
  - {id: c, type: PythonCallable, config: {callable: bright}}
  - {id: d, type: PythonCallable, config: {callable: "nowhere:f"}}
  - {id: e, type: PythonCallable, config: {callable: "own_callables:bright", arguments: {abve: 3}}}
cnx:
  - {src: cam, dst: a, msg: ImageRgb8Msg}
  - {src: cam, dst: b, msg: ImageRgb8Msg}
  - {src: cam, dst: c, msg: ImageRgb8Msg}
  - {src: cam, dst: d, msg: ImageRgb8Msg}
  - {src: cam, dst: e, msg: ImageRgb8Msg}
""")
    assert main(["check", "g.yaml"]) != 0
    assert [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()[:5]] == [
        "module 'own_callables' has no 'brigth'; it has Counting, bright, many, wrong (did you mean "
        "'bright'?)",
        "'own_callables:number' is an int, and cannot be called; it has Counting, bright, many, wrong",
        "'bright' names no function; write module:name, such as my_module:infer",
        "no module named 'nowhere'; looked in the graph's folder . and on Python's module path",
        "'own_callables:bright' cannot be called with a picture: got an unexpected keyword argument "
        "'abve'",
    ]


def test_its_code_is_in_the_log(own: Path) -> None:
    Path("g.yaml").write_text("""\
tasks:
  - {id: cam, type: VideoCapture, config: {source_type: test, width: 32, height: 32}}
  - {id: a, type: PythonCallable, config: {callable: "own_callables:bright"}}
cnx: [{src: cam, dst: a, msg: ImageRgb8Msg}]
""")
    assert main(["g.yaml", "--plain", "--cycles", "2"]) == 0
    [run] = Path("runs").glob("g-*")
    assert main(["replay", str(run)]) == 0
    with Log(run) as log:
        assert "code_own_callables" in log.metadata
