"""`Zones` and `LineCounter`: who counts where, against plain references, and from any keyframe."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.msgs import DetectionsMsg, LinesMsg, MessageTypeError, TracksMsg, ZonesMsg
from flowrun.runtime.errors import GraphError
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.task import Task
from flowrun.runtime.testing import run_task
from flowrun.tasks.zones import LineCounter, Zones, contains, crosses

S = 1_000_000_000
SQUARE = [[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]]


def tracks(
    at_s: float,
    *places: tuple[float, float],
    ids: list[int] | None = None,
    labels: list[str] | None = None,
    size: tuple[int, int] = (100, 100),
    message: type[DetectionsMsg] = TracksMsg,
    half: float = 4,
) -> DetectionsMsg:
    """Objects whose boxes have their lower middle there, numbered from 1."""
    count = len(places)
    made = message(
        boxes=np.array(
            [(x - half, y - 2 * half, x + half, y) for x, y in places], np.float32
        ).reshape(-1, 4),
        scores=np.ones(count, np.float32),
        labels=labels or ["cat"] * count,
        class_ids=np.zeros(count, np.int32),
        width=size[0],
        height=size[1],
        frame_id=7,
        frame_cycle=3,
    )
    if message is TracksMsg:
        made.tracker_ids = np.array(range(1, count + 1) if ids is None else ids, np.int64)
    made.publish(tov_ns=10 * S + round(at_s * S))
    return made


def zones(*messages: DetectionsMsg, **config: Any) -> list[ZonesMsg]:
    given = {"zones": [{"name": "door", "polygon": SQUARE}], **config}
    outs = run_task(Zones, inputs=[{"detections": it} for it in messages], config=given)
    return [it["zones"] for it in outs]


def lines(*messages: DetectionsMsg, **config: Any) -> list[LinesMsg]:
    given = {"lines": [{"name": "gate", "start": [0.5, 0.8], "end": [0.5, 0.2]}], **config}
    outs = run_task(LineCounter, inputs=[{"detections": it} for it in messages], config=given)
    return [it["lines"] for it in outs]


IN, OUT = (50, 50), (10, 10)


# -- geometry ----------------------------------------------------------------------------------

COORDINATE = st.integers(0, 6)
POINT = st.tuples(COORDINATE, COORDINATE)


def inside(polygon: list[tuple[int, int]], x: Fraction, y: Fraction) -> bool:
    """On a side, or the ray to the right crosses an odd number of sides: with fractions, exactly."""
    sides = list(zip(polygon, polygon[1:] + polygon[:1], strict=True))
    for (x1, y1), (x2, y2) in sides:
        along = (x - x1) * (y2 - y1) == (y - y1) * (x2 - x1)
        if along and min(x1, x2) <= x <= max(x1, x2) and min(y1, y2) <= y <= max(y1, y2):
            return True
    crossed = 0
    for (x1, y1), (x2, y2) in sides:
        if min(y1, y2) <= y < max(y1, y2):
            crossed += x1 + Fraction(x2 - x1) * (y - y1) / (y2 - y1) > x
    return crossed % 2 == 1


@settings(max_examples=50)
@given(polygon=st.lists(POINT, min_size=3, max_size=7, unique=True), data=st.data())
def test_a_point_is_in_a_polygon_as_an_exact_reference_says(
    polygon: list[tuple[int, int]], data: st.DataObject
) -> None:
    x, y = data.draw(st.tuples(*[st.integers(-2, 14)] * 2))  # in halves: on corners and sides too
    expected = inside(polygon, Fraction(x, 2), Fraction(y, 2))
    assert contains(polygon, (x / 2, y / 2)) == expected
    assert contains(polygon[::-1], (x / 2, y / 2)) == expected


@settings(max_examples=50)
@given(a=POINT, b=POINT, start=POINT, end=POINT)
def test_a_way_crosses_a_line_as_an_exact_reference_says(
    a: Any, b: Any, start: Any, end: Any
) -> None:
    """Some point of one is a point of the other: with fractions, tried at all that can be the first."""

    def at(p: Any, q: Any, t: Fraction) -> tuple[Fraction, Fraction]:
        return p[0] + (q[0] - p[0]) * t, p[1] + (q[1] - p[1]) * t

    def lies_on(point: Any, p: Any, q: Any) -> bool:
        turn = (q[0] - p[0]) * (point[1] - p[1]) - (q[1] - p[1]) * (point[0] - p[0])
        return turn == 0 and all(
            min(m, n) <= it <= max(m, n) for it, m, n in zip(point, p, q, strict=True)
        )

    slope = (b[0] - a[0]) * (end[1] - start[1]) - (b[1] - a[1]) * (end[0] - start[0])
    if slope:
        t = Fraction(
            (start[0] - a[0]) * (end[1] - start[1]) - (start[1] - a[1]) * (end[0] - start[0]), slope
        )
        expected = 0 <= t <= 1 and lies_on(at(a, b, t), start, end)
    else:
        expected = lies_on(a, start, end) or lies_on(b, start, end)
        expected |= lies_on(start, a, b) or lies_on(end, a, b)
    assert crosses(a, b, start, end) == expected


# -- zones -------------------------------------------------------------------------------------


def test_who_comes_in_and_leaves_is_said() -> None:
    first, second, third = zones(
        tracks(0, IN, OUT), tracks(1, IN, IN), tracks(1.5, OUT, IN), lost_s=5
    )
    assert (first.names, first.polygons) == (
        ["door"],
        [[[25, 25], [75, 25], [75, 75], [25, 75]]],
    )
    assert (first.inside, first.entered, first.left) == ([[1]], [[1]], [[]])
    assert (second.inside, second.inside_s, second.entered) == ([[1, 2]], [[1, 0]], [[2]])
    assert (third.inside, third.inside_s, third.left) == ([[2]], [[0.5]], [[1]])
    assert [it.counts for it in (first, second, third)] == [[1], [2], [1]]
    assert [it.totals for it in (first, second, third)] == [[1], [2], [2]]
    assert (first.width, first.height, first.frame_id, first.frame_cycle) == (100, 100, 7, 3)
    assert first.tov_ns == 10 * S


def test_a_track_that_is_not_found_stays_for_a_while() -> None:
    found = zones(tracks(0, IN), tracks(0.5), tracks(1.0), tracks(1.1), tracks(1.2, IN))
    assert [it.inside[0] for it in found] == [[1], [1], [1], [], [1]]
    assert [it.left[0] for it in found] == [[], [], [], [1], []]
    assert [it.entered[0] for it in found] == [[1], [], [], [], [1]]
    assert found[-1].totals == [2]


def test_who_stays_for_long_enough_counts() -> None:
    zone = {"name": "door", "polygon": SQUARE, "min_time_s": 1}
    found = zones(
        tracks(0, IN), tracks(0.9, IN), tracks(1.0, IN), tracks(1.1, OUT), tracks(1.2, IN),
        tracks(1.3, OUT), zones=[zone],
    )  # fmt: skip
    assert [it.inside[0] for it in found] == [[], [], [1], [], [], []]
    assert [it.entered[0] for it in found] == [[], [], [1], [], [], []]
    assert [it.left[0] for it in found] == [[], [], [], [1], [], []]
    assert found[2].inside_s == [[1.0]]


def test_only_some_labels_count_and_each_for_itself() -> None:
    zone = {"name": "door", "polygon": SQUARE}
    [found] = zones(
        tracks(0, IN, IN, IN, ids=[3, 1, 2], labels=["cat", "dog", "cat"]),
        zones=[zone, {**zone, "name": "cats", "labels": ["cat"]}],
    )
    assert (found.counts, found.inside) == ([3, 2], [[1, 2, 3], [2, 3]])
    assert found.labels == [{"cat": 2, "dog": 1}, {"cat": 2}]


def test_objects_without_a_number_yet_do_not_count() -> None:
    assert zones(tracks(0, IN, IN, ids=[-1, 4]))[0].counts == [1]


def test_without_tracks_objects_are_counted() -> None:
    found = zones(*[tracks(k, IN, IN, OUT, message=DetectionsMsg) for k in range(2)])
    assert [(it.counts, it.labels, it.inside, it.totals) for it in found] == [
        ([2], [{"cat": 2}], [[]], [0])
    ] * 2


@pytest.mark.parametrize(
    ("anchor", "x", "y"), [("center", 50, 54), ("top_left", 54, 58), ("bottom_right", 46, 50)]
)
def test_the_anchor_says_where_an_object_is(anchor: str, x: float, y: float) -> None:
    spot = [[49, 49], [51, 49], [51, 51], [49, 51]]
    config = {"unit": "pixels", "zones": [{"name": "spot", "polygon": spot}]}
    assert zones(tracks(0, (x, y)), anchor=anchor, **config)[0].counts == [1]
    assert zones(tracks(0, (x, y)), anchor="top_right", **config)[0].counts == [0]


def test_a_border_belongs_to_its_zone_and_a_box_may_have_no_size() -> None:
    corner = {"name": "corner", "polygon": [[0, 0], [0.1, 0], [0.1, 1], [0, 1]]}
    places = [(0.0, 0.0), (10.0, 50.0), (10.5, 50.0), (0.0, 100.0), (-1.0, 50.0)]
    [found] = zones(tracks(0, *places, half=0), zones=[corner])
    assert found.inside == [[1, 2, 4]]


def test_relative_zones_follow_the_size_of_the_picture() -> None:
    found = zones(tracks(0, (50, 50)), tracks(1, (100, 100), size=(200, 200)))
    assert [it.counts for it in found] == [[1], [1]]
    assert found[1].polygons[0][0] == [50, 50]


def test_a_frame_without_a_size_has_no_fractions() -> None:
    with pytest.raises(ValueError, match="0x100") as caught:
        zones(tracks(0, IN, size=(0, 100)))
    assert str(caught.value) == (
        "objects of a frame of 0x100 pixels: the task that finds them must set width and height, or "
        "the coordinates be pixels (unit: pixels)"
    )


# -- lines -------------------------------------------------------------------------------------

LEFT, RIGHT, AROUND = (20, 50), (80, 50), (80, 95)


def test_who_crosses_a_line_is_counted_by_direction() -> None:
    """The line goes up: its right is the picture's right."""
    found = lines(tracks(0, LEFT, RIGHT), tracks(1, RIGHT, LEFT), tracks(2, LEFT, LEFT))
    assert [(it.ins, it.outs) for it in found] == [([0], [0]), ([1], [1]), ([1], [2])]
    assert [(it.went_in, it.went_out) for it in found] == [
        ([[]], [[]]), ([[1]], [[2]]), ([[]], [[1]])
    ]  # fmt: skip
    assert (found[-1].in_labels, found[-1].out_labels) == ([{"cat": 1}], [{"cat": 2}])
    assert (found[0].names, found[0].lines) == (["gate"], [[50, 80, 50, 20]])


def test_a_way_around_the_ends_does_not_cross() -> None:
    below = (20, 95)
    found = lines(*[tracks(k, it) for k, it in enumerate([LEFT, below, AROUND, RIGHT, LEFT])])
    assert [(it.ins[0], it.outs[0]) for it in found] == [(0, 0)] * 4 + [(0, 1)]


def test_on_the_line_nobody_has_crossed_it_yet() -> None:
    on = (50, 50)
    found = lines(*[tracks(k, it) for k, it in enumerate([LEFT, on, LEFT, on, RIGHT, on, on])])
    assert [it.ins[0] for it in found] == [0, 0, 0, 0, 1, 1, 1]
    assert lines(tracks(0, on), tracks(1, RIGHT))[-1].ins == [0]


def test_who_trembles_on_the_line_is_not_counted_each_time() -> None:
    ways = [LEFT, RIGHT, LEFT, RIGHT, RIGHT, LEFT, RIGHT, RIGHT]
    messages = [tracks(k, it) for k, it in enumerate(ways)]
    assert lines(*messages)[-1].ins == [3]
    found = lines(*messages, minimum_crossing_threshold=2)
    assert [it.ins[0] for it in found] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert found[-1].outs == [0]


def test_a_track_that_is_lost_for_a_while_has_crossed_all_the_same() -> None:
    assert lines(tracks(0, LEFT), tracks(5), tracks(9, RIGHT))[-1].ins == [1]
    assert lines(tracks(0, LEFT), tracks(11), tracks(12, RIGHT))[-1].ins == [0]


def test_a_change_of_size_is_no_crossing() -> None:
    found = lines(tracks(0, (40, 50)), tracks(1, (80, 100), size=(200, 200)), tracks(2, RIGHT))
    assert [it.ins[0] for it in found] == [0, 0, 1]


def test_objects_without_tracks_are_refused() -> None:
    with pytest.raises(ValueError, match="tracker_ids") as caught:
        lines(tracks(0, LEFT, message=DetectionsMsg))
    assert str(caught.value) == "the objects have no tracker_ids: a line is crossed by tracks"
    assert lines(tracks(0, message=DetectionsMsg))[0].ins == [0]


# -- both --------------------------------------------------------------------------------------

SCENES = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 0.5, 2.0, 20.0, -1.0]),  # seconds since the one before
        st.dictionaries(
            st.integers(-1, 4), st.tuples(*[st.sampled_from([-5, 20, 25, 49, 50, 51, 95])] * 2)
        ),
        st.sampled_from([(100, 100), (200, 50)]),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=25)
@given(scenes=SCENES, cut=st.integers(0, 8), kind=st.sampled_from([Zones, LineCounter]))
def test_a_thawed_task_goes_on_as_the_frozen_one(
    scenes: list[Any], cut: int, kind: type[Task]
) -> None:
    messages, at_s = [], 0.0
    for passed_s, places, size in scenes:
        at_s += passed_s
        messages.append(tracks(at_s, *places.values(), ids=list(places), size=size))
    config: dict[str, Any] = {
        Zones: {
            "zones": [
                {"name": "a", "polygon": SQUARE, "min_time_s": 0.2},
                {"name": "b", "polygon": [[0, 0], [1, 0], [0, 1]]},
            ]
        },
        LineCounter: {
            "lines": [{"name": "a", "start": [0.5, 0], "end": [0.5, 1]}],
            "minimum_crossing_threshold": 2,
        },
    }[kind]

    def step(task: Task, message: DetectionsMsg) -> list[Any]:
        out = ZonesMsg() if kind is Zones else LinesMsg()
        task.process(None, message, out)  # type: ignore[arg-type]
        return list(out.encode())

    whole, before, after = (kind(kind.Config(**config)) for _ in range(3))
    expected = [step(whole, it) for it in messages]
    assert [step(before, it) for it in messages[:cut]] == expected[:cut]
    step(after, tracks(0, IN, LEFT))
    after.thaw(msgpack.unpackb(msgpack.packb(before.freeze()), strict_map_key=False))
    assert [step(after, it) for it in messages[cut:]] == expected[cut:]
    assert after.freeze() == whole.freeze()


def problems(tmp_path: Path, tasks: str, cnx: str = "") -> list[str]:
    text = (
        "tasks:\n- {id: cam, type: support.pictures.Camera}\n"
        f"- {{id: find, type: support.pictures.Find}}\n{tasks}\n"
        f"cnx: [{{src: cam, dst: find, msg: ImageRgb8Msg}}, {cnx}]\n"
    )
    with pytest.raises(GraphError) as caught:
        bind(parse_graph(text, path=tmp_path / "g.yaml", env={}))
    return [f"{it.where.line}: {it.message}" for it in caught.value.problems]


def test_what_needs_tracks_says_so_before_the_run(tmp_path: Path) -> None:
    assert problems(
        tmp_path,
        "- id: z\n  type: flowrun.tasks.zones.Zones\n  config:\n"
        "    zones: [{name: a, polygon: [[0, 0], [1, 0], [0, 1]], min_time_s: 1}]\n"
        "- id: l\n  type: flowrun.tasks.zones.LineCounter\n  config:\n"
        "    lines: [{name: a, start: [0, 0], end: [1, 0]}]",
        "{src: find, dst: z, msg: DetectionsMsg}, {src: find, dst: l, msg: DetectionsMsg}",
    ) == [
        "7: min_time_s needs tracks: connect its input to a Track task, or to another whose output is "
        "declared as TracksMsg",
        "11: LineCounter needs tracks: connect its input to a Track task, or to another whose output "
        "is declared as TracksMsg",
    ]


@pytest.mark.parametrize(
    ("polygon", "said"),
    [
        (
            "[[0, 0], [1, 1], [1, 0], [0, 1]]",
            "the sides of zone 'a' cross: give its corners in the order in which one walks around it",
        ),
        ("[[0, 0], [1, 1], [0.5, 0.5]]", "zone 'a' has no area: its corners are on one line"),
        ("[[0, 0], [0, 0], [1, 1]]", "zone 'a' has the point [0, 0] twice in a row"),
        (
            "[[0, 0], [1, 0], [0.5, 0], [0.5, 1]]",
            "the sides of zone 'a' cross: give its corners in the order in which one walks around it",
        ),
    ],
)
def test_a_polygon_that_is_none_is_refused(tmp_path: Path, polygon: str, said: str) -> None:
    zone = f"{{name: a, polygon: {polygon}}}"
    task = f"- {{id: z, type: flowrun.tasks.zones.Zones, config: {{zones: [{zone}]}}}}"
    assert problems(tmp_path, task, "{src: find, dst: z, msg: DetectionsMsg}") == [
        f"4: 'zones[0]' of task 'z': {said}"
    ]


def test_pixels_that_pass_for_fractions_are_refused(tmp_path: Path) -> None:
    zone = "{name: a, polygon: [[0, 0], [640, 0], [0, 480]]}"
    task = f"- {{id: z, type: flowrun.tasks.zones.Zones, config: {{zones: [{zone}]}}}}"
    [said] = problems(tmp_path, task, "{src: find, dst: z, msg: DetectionsMsg}")
    assert said.endswith(
        "zone 'a' has a point [640, 0], and the picture ends at [1, 1]; if these are pixels, write "
        "unit: pixels"
    )


def test_each_region_needs_an_entry_in_each_list() -> None:
    message = LinesMsg(names=["a"], ins=[1])
    with pytest.raises(MessageTypeError) as caught:
        message.publish()
    assert str(caught.value) == (
        "LinesMsg: every list has one entry for each name; got names 1, lines 0, ins 1, outs 0, "
        "in_labels 0, out_labels 0, went_in 0, went_out 0"
    )


def test_who_was_there_before_a_source_started_again_is_lost() -> None:
    found = zones(tracks(100, IN, ids=[1]), tracks(10, IN, ids=[2]), tracks(11, IN, ids=[2]))
    assert [it.counts for it in found] == [[1], [1], [1]]


def test_tracks_may_come_and_go_with_detections_that_have_none() -> None:
    found = zones(tracks(1, IN, ids=[1]), tracks(1.5, IN, message=DetectionsMsg))
    assert [it.counts for it in found] == [[1], [1]]
