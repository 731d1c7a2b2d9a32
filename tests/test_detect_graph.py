"""graphs/detect.yaml, end to end: the boxes it draws on the demo video are those of its scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from flowrun.runtime import Log
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.replay.verify import verify_keyframes
from flowrun.runtime.run.live import Run
from flowrun.runtime.testing import assert_replays
from flowrun.tasks.drawing import color_of
from flowrun.tasks.embedded.training import scenes as sc
from flowrun.tasks.embedded.training.demo_video import FPS, SCENE_S, pick_scenes, scene_at
from support.paths import GRAPHS

pytestmark = pytest.mark.slow

Box = tuple[float, float, float, float]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of the graph with four frames of each scene, every second one answered; the pictures are
    logged."""
    graph = yaml.safe_load((GRAPHS / "detect.yaml").read_text())
    tasks = {task["id"]: task for task in graph["tasks"]}
    tasks["cam0"]["config"] |= {"realtime": False, "max_fps": 2}
    tasks["inference"] |= {"background": False, "every": 2}
    tasks["boxes"]["logging"] = {"codec": "zstd"}
    graph["logging"] = {"slab_size_mib": 4, "section_size_mib": 1, "keyframe_interval": 7}
    text = yaml.safe_dump(graph, sort_keys=False)
    plan = plan_graph(bind(parse_graph(text, path=GRAPHS / "detect.yaml", env={})))
    directory = tmp_path_factory.mktemp("runs") / "detect"
    result = Run(plan, clock=ManualClock(10**18, step_ns=1000), directory=directory).run()
    assert result.error is None
    return directory


def truth(frame_id: int) -> dict[str, Box]:
    """Name -> left, top, right, bottom in pixels, of the objects in a frame of the demo video."""
    number, index = divmod(frame_id, SCENE_S * FPS)
    scene = scene_at(pick_scenes()[number], index)
    boxes = {}
    for item in scene.objects:
        top, left, bottom, right = sc.box(scene, item)
        boxes[item.name] = (left * 640, top * 480, right * 640, bottom * 480)
    assert len(boxes) == len(scene.objects)
    return boxes


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (area(a) + area(b) - shared)


def area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def messages(run: Path, topic: str) -> list[dict[str, Any]]:
    with Log(run) as log:
        return [dict(message.fields) for message in log.messages(topic)]


def test_every_object_of_every_scene_is_found_where_it_is(run: Path) -> None:
    overlaps = []
    found = messages(run, "/parse/detections")
    assert [fields["frame_id"] for fields in found] == list(range(0, 220, 10))
    for fields in found:
        expected = truth(fields["frame_id"])
        assert sorted(fields["labels"]) == sorted(expected), fields["frame_id"]
        for label, box in zip(fields["labels"], fields["boxes"].tolist(), strict=True):
            overlaps.append(overlap(tuple(box), expected[label]))
    assert len(overlaps) == 2 * sum(len(scene.objects) for scene in pick_scenes())
    assert min(overlaps) > 0.75
    assert np.mean(overlaps) > 0.9


def test_the_boxes_are_drawn_on_the_pictures(run: Path) -> None:
    pictures = messages(run, "/boxes/rendered")
    found = messages(run, "/parse/detections")
    assert [picture["frame_id"] for picture in pictures] == list(range(0, 220, 5))
    for number, picture in enumerate(pictures):
        pixels = picture["pixels"]
        fields = found[number // 2]  # the newest
        for label, box in zip(fields["labels"], np.rint(fields["boxes"]).astype(int), strict=True):
            left, top, right, bottom = box
            color = color_of(label, -1)
            for line in (pixels[top + 20 : bottom, left], pixels[bottom - 1, left:right]):
                assert (line == color).all()
            assert (
                not (pixels[top + 10 : bottom - 10, left + 10 : right - 10] == color).all(-1).all()
            )


def test_the_run_replays(run: Path) -> None:
    assert_replays(run)


def test_the_newest_boxes_are_part_of_the_keyframes(run: Path) -> None:
    with Log(run) as log:
        found = verify_keyframes(Replay(log, env={}, feed=["inference"]), count=100)
    assert len(found.verified) == 7
    assert any(cycle % 2 for cycle in found.verified)  # between two answers
    assert (found.forgetful, found.unsteady) == ({}, {})
