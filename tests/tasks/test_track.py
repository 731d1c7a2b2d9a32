"""`Track`: the numbers of objects, and that a frozen tracker goes on as the one that was not."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.msgs import DetectionsMsg, TracksMsg
from flowrun.msgs.fields import array_from_map, array_to_map
from flowrun.runtime.broadcast import Broadcast
from flowrun.runtime.context import CycleTime
from flowrun.runtime.errors import GraphError
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.task import Context
from flowrun.runtime.testing import run_task
from flowrun.tasks.track import Track

pytest.importorskip("trackers")

S = 1_000_000_000
CTX = Context(
    "track",
    time=CycleTime(),
    log=structlog.get_logger(),
    graph_dir=Path(),
    seed=0,
    broadcast=Broadcast(),
)
Box = tuple[float, float, float, float]


def found(
    at_s: float,
    *boxes: Box,
    scores: list[float] | None = None,
    size: tuple[int, int] = (640, 480),
    labels: list[str] | None = None,
) -> DetectionsMsg:
    message = DetectionsMsg(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array([0.9] * len(boxes) if scores is None else scores, np.float32),
        labels=[f"thing {k}" for k in range(len(boxes))] if labels is None else labels,
        class_ids=np.arange(len(boxes), dtype=np.int32),
        width=size[0],
        height=size[1],
        frame_id=7,
        frame_cycle=3,
        latency_ms=1.5,
    )
    message.publish(tov_ns=10 * S + round(at_s * S))
    return message


def car(x: float, y: float = 100) -> Box:
    return (x, y, x + 60, y + 40)


def track(*messages: DetectionsMsg, **config: Any) -> list[TracksMsg]:
    out = run_task(Track, inputs=[{"detections": it} for it in messages], config=config)
    return [it["tracks"] for it in out]


def ids(*messages: DetectionsMsg, **config: Any) -> list[list[int]]:
    config = {"minimum_consecutive_frames": 1, **config}
    return [it.tracker_ids.tolist() for it in track(*messages, **config)]


def test_objects_keep_their_numbers_whatever_their_order() -> None:
    assert ids(
        found(0.0, car(0), car(300, 300)),
        found(0.1, car(296, 302), car(6)),
        found(0.2, car(12), car(292, 304), car(500)),
    ) == [[1, 2], [2, 1], [1, 2, 3]]


def test_what_is_tracked_is_passed_on() -> None:
    given = found(0.0, car(0), car(9, 300), size=(64, 48))
    [out] = track(given)
    assert isinstance(out, TracksMsg)
    assert out.boxes.tolist() == given.boxes.tolist()
    assert (out.labels, out.class_ids.tolist()) == (["thing 0", "thing 1"], [0, 1])
    assert (out.width, out.height, out.frame_id, out.frame_cycle) == (64, 48, 7, 3)
    assert (out.tov_ns, out.latency_ms) == (given.tov_ns, 1.5)


def test_a_number_comes_after_enough_messages() -> None:
    messages = [found(k / 10, car(5 * k)) for k in range(4)]
    assert ids(*messages, minimum_consecutive_frames=2) == [[-1], [1], [1], [1]]
    assert ids(*messages, minimum_consecutive_frames=3) == [[-1], [-1], [1], [1]]
    assert ids(*messages, minimum_consecutive_frames=3, only_tracked=True) == [[], [], [1], [1]]


def test_a_lost_object_is_waited_for_by_the_time_of_pictures() -> None:
    """At any rate: `lost_track_buffer: 30` is a second."""
    for gone_s, again in ((0.9, 1), (1.1, 2)):
        for step_s in (0.05, 0.3):
            empty = [found(0.1 + k * step_s) for k in range(int(gone_s / step_s))]
            messages = [
                found(0.0, car(50)),
                found(0.1, car(50)),
                *empty,
                found(0.1 + gone_s, car(50)),
            ]
            assert ids(*messages)[-1] == [again], (gone_s, step_s)
    silent = [found(0.0, car(50)), found(2.0, car(50)), found(4.5, car(50))]
    assert ids(*silent, lost_track_buffer_s=2.2) == [[1], [1], [2]]
    assert ids(*silent, lost_track_buffer=0) == [[1], [2], [3]]


def test_a_moving_object_is_awaited_where_it_should_be() -> None:
    """It has moved on by more than its width when it is seen again, and something else is near where it
    was last."""
    seen = [found(k / 10, car(20 * k)) for k in range(10)]
    hidden = [found(1.0 + k / 10) for k in range(5)]
    assert ids(*seen, *hidden, found(1.5, car(160), car(300)))[-1] == [2, 1]


def test_an_unsure_object_continues_a_track_and_begins_none() -> None:
    assert ids(
        found(0.0, car(0), car(300), scores=[0.9, 0.1]),
        found(0.1, car(2), car(300), scores=[0.1, 0.1]),
    ) == [[1, -1], [1, -1]]


def test_objects_without_scores_are_sure() -> None:
    assert ids(found(0.0, car(0), car(300), scores=[np.nan, 0.9])) == [[1, 2]]


def test_boxes_without_an_area_are_not_followed() -> None:
    flat, turned = (10.0, 10.0, 10.0, 50.0), (50.0, 10.0, 40.0, 50.0)
    assert ids(found(0.0, flat, car(300), turned), found(0.1, flat, car(300))) == [
        [-1, 1, -1],
        [-1, 1],
    ]


def test_a_box_over_the_border_is_followed() -> None:
    assert ids(found(0.0, car(-40, -20)), found(0.1, car(-35, -15)), found(0.2, car(630))) == [
        [1],
        [1],
        [2],
    ]


def test_time_that_does_not_move_or_goes_back_loses_no_track() -> None:
    times = [5.0, 5.0, 5.1, 2.0, 2.0, 2.1, 2.2]
    assert ids(*[found(at, car(50)) for at in times]) == [[1]] * len(times)
    # From there the waiting is counted.
    assert ids(*[found(at, car(50)) for at in (5.0, 2.0, 2.9, 4.5)]) == [[1], [1], [1], [2]]


def test_a_camera_that_changes_its_size_keeps_its_tracks() -> None:
    large = [found(k / 10, car(20 * k, 200), car(400)) for k in range(5)]
    small = [
        found(
            0.5 + k / 10,
            (50 + 10.0 * k, 100, 80 + 10.0 * k, 120),
            (200, 50, 230, 70),
            size=(320, 240),
        )
        for k in range(3)
    ]
    assert ids(*large, *small)[-3:] == [[1, 2]] * 3


def test_a_number_stays_with_its_label_where_asked() -> None:
    """A dog and a cat at one place, of which each picture shows one."""
    dog, cat, both = ["dog"], ["cat"], ["cat", "dog"]
    seen = [
        found(0.0, car(0), labels=dog),
        found(0.1, car(4), labels=cat),
        found(0.2, car(8), labels=dog),
        found(0.3, car(10), car(12), labels=both),
        found(9.0, car(10), labels=dog),
    ]
    assert ids(*seen[:3]) == [[1], [1], [1]]
    assert ids(*seen, class_aware=True) == [[1], [2], [1], [2, 1], [3]]


def test_two_tasks_count_for_themselves() -> None:
    first, second = made(), made()
    assert step(first, found(0.0, car(0), car(300))) == [1, 2]
    assert step(second, found(0.0, car(0))) == [1]
    assert step(first, found(0.1, car(0), car(500))) == [1, 3]
    assert step(second, found(0.1, car(500), car(0))) == [2, 1]


def made(**config: Any) -> Track:
    task = Track(Track.Config(**{"minimum_consecutive_frames": 1, **config}))
    task.start(CTX)
    return task


def step(task: Track, message: DetectionsMsg) -> list[int]:
    out = TracksMsg()
    task.process(CTX, message, out)
    return out.tracker_ids.tolist()


def frozen(task: Track) -> Any:
    """The state as a log gives it back."""
    packed = msgpack.packb(task.freeze(), default=array_to_map)
    return msgpack.unpackb(
        packed, object_hook=lambda it: array_from_map(it) if "dtype" in it else it
    )


PLACE = st.integers(-40, 620)
SCENES = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.01, 0.033, 0.1, 0.9, 2.0, -1.0]),  # seconds since the one before
        st.lists(
            st.tuples(PLACE, PLACE, st.sampled_from([0.0, 0.2, 0.6, 1.0, np.nan])), max_size=4
        ),
        st.sampled_from([(640, 480), (640, 480), (320, 240)]),
    ),
    min_size=2,
    max_size=9,
)


@settings(max_examples=20)
@given(scenes=SCENES, cut=st.integers(0, 8), least=st.integers(1, 3), class_aware=st.booleans())
def test_a_thawed_tracker_goes_on_as_the_frozen_one(
    scenes: list[Any], cut: int, least: int, class_aware: bool
) -> None:
    messages, at_s = [], 0.0
    for passed_s, places, size in scenes:
        at_s += passed_s
        boxes = [car(x, y) for x, y, _ in places]
        messages.append(found(at_s, *boxes, scores=[it[2] for it in places], size=size))
    config = {"minimum_consecutive_frames": least, "class_aware": class_aware}
    whole = made(**config)
    expected = [step(whole, message) for message in messages]

    before = made(**config)
    assert [step(before, it) for it in messages[:cut]] == expected[:cut]
    after = made(**config)
    step(after, found(0.0, car(1), car(200)))  # whatever it knew is gone
    after.thaw(frozen(before))
    assert [step(after, it) for it in messages[cut:]] == expected[cut:]
    np.testing.assert_equal(after.freeze(), whole.freeze())
    given = [number for numbers in expected for number in numbers if number >= 0]
    assert set(given) <= set(range(1, len(given) + 1))
    assert all(len({n for n in it if n > 0}) == sum(n > 0 for n in it) for it in expected)


def test_what_is_remembered_does_not_grow() -> None:
    task = made(class_aware=True)
    sizes = []
    for number in range(60):
        labels = [f"thing {number}", "car"]
        boxes = car(number % 7 * 90), car(number % 5 * 100, 300)
        step(task, found(number / 5, *boxes, labels=labels))
        sizes.append(sum(len(it.tracks) for it in task._trackers.values()))
        assert len(task._trackers) <= sizes[-1]
    assert max(sizes[30:]) <= max(sizes[:30])


def test_values_that_are_live_take_effect() -> None:
    task = made()
    assert step(task, found(0.0, car(0), scores=[0.3])) == [1]
    task.__dict__["config"] = Track.Config(
        track_activation_threshold=0.5, minimum_consecutive_frames=1
    )
    task.configure(CTX, frozenset({"track_activation_threshold"}))
    assert step(task, found(0.1, car(0), car(300), scores=[0.3, 0.3])) == [1, -1]


def test_without_its_package_the_graph_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    text = (
        "tasks:\n  - {id: n, type: support.pictures.Camera}\n"
        "  - {id: f, type: support.pictures.Find}\n  - {id: t, type: flowrun.tasks.track.Track}\n"
        "cnx: [{src: n, dst: f, msg: ImageRgb8Msg}, {src: f, dst: t, msg: DetectionsMsg}]\n"
    )
    with pytest.raises(GraphError) as caught:
        bind(parse_graph(text, path=tmp_path / "g.yaml", env={}))
    assert [it.message for it in caught.value.problems] == [
        "Track needs trackers: pip install 'flowrun-runtime[track]'"
    ]
