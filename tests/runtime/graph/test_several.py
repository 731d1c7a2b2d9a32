"""A list of sources -> one task for each, and one of each that follows."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from flowrun.runtime.errors import GraphError
from flowrun.runtime.graph.bind import BoundGraph, bind
from flowrun.runtime.graph.masking import masked_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.graph.several import separated
from flowrun.runtime.graph.spec import GraphSpec
from flowrun.runtime.replay.graph import with_config
from flowrun.tasks.video.capture import VideoCapture

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
        "g.yaml:11:5: task 'shown' is made as shown_0, shown_1, and 'other' as other_0, other_1, "
        "other_2; connect those that belong together, such as src: other_0"
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


SOURCES = """\
tasks:
  - id: cam
    type: VideoCapture
    config:
      max_fps: 5
      reconnect: {delay_s: 3}
      sources:
%s
  - {id: boxes, type: RenderBoxes}
  - {id: shown, type: BroadcastImage}
cnx:
  - {src: cam, dst: boxes.image, msg: ImageRgb8Msg}
  - {src: boxes, dst: shown, msg: ImageRgb8Msg}
"""


def listed(*items: str) -> GraphSpec:
    text = SOURCES % "\n".join(f"        - {item}" for item in items)
    return parse_graph(text, path=Path("g.yaml"), env={"TOKEN": "geheim3"})


def problems_listed(*items: str) -> list[str]:
    with pytest.raises(GraphError) as caught:
        bind(listed(*items), ready=False)
    return str(caught.value).splitlines()


def test_each_mapping_of_a_list_makes_a_task_with_its_own_keys() -> None:
    graph = bind(
        listed("{id: gate, source_uri: a.mp4, max_fps: 2, loop: true}", "{source_uri: 0}"),
        ready=False,
    )
    assert connections(graph) == [
        *(("cam_gate", "boxes_gate"), ("cam_1", "boxes_1")),
        *(("boxes_gate", "shown_gate"), ("boxes_1", "shown_1")),
    ]
    reconnect = {"delay_s": 3}
    assert [task.spec.config for task in graph.tasks[:2]] == [
        {"max_fps": 2, "reconnect": reconnect, "source_uri": "a.mp4", "loop": True},
        {"max_fps": 5, "reconnect": reconnect, "source_uri": 0},
    ]
    assert [task.spec.masked_config for task in graph.tasks[:2]] == [
        task.spec.config for task in graph.tasks[:2]
    ]


def test_an_item_of_a_list_is_what_it_would_be_alone() -> None:
    alone = parse_graph(GRAPH.format(uris="a.mp4", more=""), path=Path("g.yaml"), env={})
    same = bind(listed("{source_uri: a.mp4, reconnect: {}}"), ready=False)
    assert same.tasks[0].config == bind(alone, ready=False).tasks[0].config


def test_a_mistake_in_a_mapping_is_reported_at_its_line() -> None:
    found = problems_listed(
        "{source_uri: a.mp4}",
        "{id: yard, source_uri: 'rstp://host/a'}",
        "{source_uri: a.mp4, max_fps: -1}",
        "{source_uri: a.mp4, sauce: 1}",
        "{max_fps: 1}",
        "{source_uri: b.mp4, sources: [{source_uri: c.mp4}]}",
        "{source_uri: [c.mp4, d.mp4]}",
    )
    assert found[0] == (
        "g.yaml:9:22: 'source_uri' of task 'cam_yard': unknown protocol 'rstp' (did you mean 'rtsp'?)"
    )
    assert found[1] == "g.yaml:10:31: 'max_fps' of task 'cam_2' must be at least 1e-06; got -1"
    assert found[2].startswith("g.yaml:11:31: unknown key 'sauce' in the config of task 'cam_3'; ")
    assert found[3].startswith(
        "g.yaml:12:11: the config of task 'cam_4': no source_uri; write a path"
    )
    assert found[4].startswith(
        "g.yaml:13:31: 'sources' of task 'cam_5': a list, where one source is expected; "
    )
    assert found[5].startswith(
        "g.yaml:14:12: 'source_uri' of task 'cam_6': a list, where one source is expected; "
    )
    assert len(found) == 6


def test_what_is_no_list_of_mappings_is_reported() -> None:
    assert problems_listed("a.mp4", "[b.mp4]") == [
        "g.yaml:8:11: 'sources.0' of task 'cam' must be a mapping, such as {source_uri: ...}; "
        "got 'a.mp4'",
        "g.yaml:9:11: 'sources.1' of task 'cam' must be a mapping, such as {source_uri: ...}; "
        "got a list",
    ]
    text = SOURCES.replace("sources:", "sources: []") % ""
    with pytest.raises(GraphError, match="^g.yaml:7:7: 'sources' of task 'cam' is an empty list$"):
        bind(parse_graph(text, path=Path("g.yaml"), env={}), ready=False)
    text = SOURCES.replace("max_fps: 5", "source_uri: a.mp4") % "        - {source_uri: b.mp4}"
    with pytest.raises(GraphError) as caught:
        bind(parse_graph(text, path=Path("g.yaml"), env={}), ready=False)
    assert str(caught.value) == (
        "g.yaml:5:7: task 'cam' has both 'source_uri' and 'sources'; leave one out"
    )


def test_ids_of_a_list_are_letters_and_differ() -> None:
    a = "source_uri: a.mp4"
    assert problems_listed(
        f"{{id: '1', {a}}}", f"{{{a}}}", f"{{id: a b, {a}}}", f"{{id: 1, {a}}}"
    ) == [
        "g.yaml:9:11: 'sources' of task 'cam' has two items with the id '1'; rename one",
        "g.yaml:10:12: 'sources.2.id' of task 'cam' must be letters, digits and '_'; got 'a b'",
        "g.yaml:11:12: 'sources' of task 'cam' has two items with the id '1'; rename one",
    ]


def test_passwords_and_tokens_in_mappings_are_masked_everywhere() -> None:
    graph = bind(
        listed(
            "{source_uri: 'rtsp://me:geheim1@host/a'}",
            "{id: b, source_uri: 'http://host/b', options: {headers: 'Cookie: geheim2'}}",
            "{id: c, source_uri: 'http://host/c?token=${TOKEN}'}",
        ),
        ready=False,
    )
    shown = str(masked_graph(graph.spec)) + str(graph.spec.stored_text)
    assert "geheim" not in shown
    assert graph.tasks[0].config.model_dump()["source_uri"] == "rtsp://me:geheim1@host/a"
    assert graph.tasks[2].config.model_dump()["source_uri"] == "http://host/c?token=geheim3"


def test_a_log_gives_back_a_list_of_mappings() -> None:
    graph = bind(
        listed("{id: gate, source_uri: a.mp4}", "{source_uri: 'rtsp://u:geheim@h/'}"), ready=False
    )
    again = parse_graph(str(graph.spec.stored_text), path=Path("g.yaml"), env={})
    made = bind(with_config(again, {"cam_gate.max_fps": 2}), ready=False)
    assert [task.id for task in made.tasks] == [task.id for task in graph.tasks]
    assert [task.spec.config["max_fps"] for task in made.tasks[:2]] == [2, 5]


def test_a_list_of_mappings_is_no_config_of_one_task() -> None:
    with pytest.raises(ValidationError, match="a list, where one source is expected"):
        VideoCapture.Config.model_validate({"sources": [{"source_uri": "a.mp4"}]})
