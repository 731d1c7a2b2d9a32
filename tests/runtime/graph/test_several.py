"""A list of sources -> one task for each, and one of each that follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowrun.runtime.errors import GraphError
from flowrun.runtime.graph.bind import BoundGraph, bind
from flowrun.runtime.graph.masking import masked_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.graph.several import separated
from flowrun.runtime.replay.graph import with_config

GRAPH = """\
tasks:
  - id: cam
    type: VideoCapture
    config: {{source_uri: {uris}, max_fps: 5}}
  - {{id: boxes, type: RenderBoxes}}
  - {{id: shown, type: BroadcastImage}}
cnx:
  - {{src: cam, dst: boxes.image, msg: ImageRgb8Msg}}
  - {{src: boxes, dst: shown, msg: ImageRgb8Msg}}
{more}"""


def bound(uris: str, more: str = "") -> BoundGraph:
    graph = parse_graph(GRAPH.format(uris=uris, more=more), path=Path("g.yaml"), env={})
    return bind(graph, ready=False)


def problems(uris: str, more: str = "") -> list[str]:
    with pytest.raises(GraphError) as caught:
        bound(uris, more)
    return str(caught.value).splitlines()


def connections(graph: BoundGraph) -> list[tuple[str, str]]:
    return [(it.src_task, it.dst_task) for it in graph.connections]


def test_a_list_makes_a_task_of_each_and_of_those_that_follow() -> None:
    graph = bound("[a.mp4, 0]")
    assert [task.id for task in graph.tasks] == [
        *("cam_0", "cam_1", "boxes_0", "boxes_1", "shown_0", "shown_1"),
    ]
    assert connections(graph) == [
        *(
            ("cam_0", "boxes_0"),
            ("cam_1", "boxes_1"),
            ("boxes_0", "shown_0"),
            ("boxes_1", "shown_1"),
        ),
    ]
    assert [task.spec.config["source_uri"] for task in graph.tasks[:2]] == ["a.mp4", 0]
    assert [task.spec.config["max_fps"] for task in graph.tasks[:2]] == [5, 5]


def test_one_address_makes_one_task_of_its_own_name() -> None:
    assert [task.id for task in bound("a.mp4").tasks] == ["cam", "boxes", "shown"]
    assert [task.id for task in bound("[a.mp4]").tasks] == ["cam_0", "boxes_0", "shown_0"]


def test_a_task_made_of_a_list_can_be_named_in_a_connection() -> None:
    more = "  - {src: cam_1, dst: only, msg: ImageRgb8Msg}\n"
    text = GRAPH.format(uris="[a.mp4, b.mp4]", more=more).replace(
        "cnx:", "  - {id: only, type: BroadcastImage}\ncnx:"
    )
    graph = bind(parse_graph(text, path=Path("g.yaml"), env={}), ready=False)
    assert ("cam_1", "only") in connections(graph)
    assert [task.id for task in graph.tasks].count("only") == 1


def test_a_mistake_in_a_list_is_reported_at_its_item() -> None:
    assert problems("[a.mp4, rstp://host/a, '']") == [
        "g.yaml:4:34: 'source_uri' of task 'cam_1': unknown protocol 'rstp' (did you mean 'rtsp'?)",
        "g.yaml:4:49: 'source_uri' of task 'cam_2': an empty address; write a path, rtsp://..., "
        "http://..., a device's number, webcam, screen or test",
    ]
    assert problems("[]") == ["g.yaml:4:14: 'source_uri' of task 'cam' is an empty list"]
    assert problems("[a.mp4, [b.mp4]]")[0].startswith(
        "g.yaml:4:34: 'source_uri' of task 'cam_1': a list"
    )


def test_lists_of_two_lengths_do_not_meet() -> None:
    other = "  - {id: other, type: VideoCapture, config: {source_uri: [a, b, c]}}"
    text = GRAPH.format(uris="[a.mp4, b.mp4]", more="")
    text = text.replace("  - {id: boxes", f"{other}\n  - {{id: boxes")
    text += "  - {src: other, dst: shown, msg: ImageRgb8Msg}\n"
    _, found = separated(parse_graph(text, path=Path("g.yaml"), env={}))
    assert [str(it) for it in found] == [
        "g.yaml:11:5: task 'shown' is made 2 times, and 'other' 3 times; connect those that belong "
        "together, such as src: other_0"
    ]


def test_a_name_that_is_taken_is_reported() -> None:
    text = GRAPH.format(uris="[a.mp4, b.mp4]", more="").replace("id: shown", "id: cam_1")
    text = text.replace("dst: shown", "dst: cam_1")
    _, found = separated(parse_graph(text, path=Path("g.yaml"), env={}))
    assert [str(it) for it in found] == [
        "g.yaml:2:5: task 'cam' makes cam_1, and there is one already; rename it"
    ]


def test_passwords_in_a_list_are_masked_everywhere() -> None:
    graph = bound("['rtsp://me:geheim1@host/a', 'rtsp://me:geheim2@host/b']")
    shown = str(masked_graph(graph.spec)) + str(graph.spec.stored_text)
    assert "geheim" not in shown
    assert shown.count("rtsp://***@host/") >= 2
    assert graph.tasks[1].config.model_dump()["source_uri"] == "rtsp://me:geheim2@host/b"


def test_a_replay_may_set_a_value_of_one_of_them() -> None:
    graph = parse_graph(GRAPH.format(uris="[a.mp4, b.mp4]", more=""), path=Path("g.yaml"), env={})
    made = bind(with_config(graph, {"cam_1.max_fps": 2}), ready=False)
    assert [task.spec.config["max_fps"] for task in made.tasks[:2]] == [5, 2]
