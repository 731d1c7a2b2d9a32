"""`missions`: named subsets of a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.runtime.errors import GraphError, UsageError
from flowrun.runtime.graph.plan import load_plan, load_plans
from flowrun.runtime.graph.read import parse_graph
from support.plans import shape

GRAPH = """\
missions: [day, night]
tasks:
  - {id: count, type: Counter, config: {limit: 3}}
  - {id: square, type: Square, missions: [day]}
  - {id: show, type: Print, missions: [day]}
  - {id: show, type: Print, missions: [night]}
cnx:
  - {src: count, dst: square, msg: IntMsg}
  - {src: square, dst: show, msg: IntMsg}
  - {src: count, dst: show, msg: IntMsg, missions: [night]}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "g.yaml"
    path.write_text(text)
    return path


def mistakes(path: Path) -> list[str]:
    with pytest.raises(GraphError) as caught:
        load_plans(path, env={})
    return str(caught.value).replace(f"{path.parent}/", "").splitlines()


def test_a_run_has_the_tasks_of_one_mission_the_first_if_none_is_chosen(tmp_path: Path) -> None:
    path = write(tmp_path, GRAPH)
    plans = load_plans(path, env={})
    steps = {name: [step.task.id for step in plan.steps] for name, plan in plans.items()}
    assert steps == {"day": ["count", "square", "show"], "night": ["count", "show"]}
    assert shape(load_plan(path, env={})) == shape(plans["day"])
    assert shape(load_plan(path, env={}, mission="night")) == shape(plans["night"])
    assert len(plans["night"].graph.connections) == 1


def test_an_unknown_mission_lists_those_of_the_graph(tmp_path: Path) -> None:
    path = write(tmp_path, GRAPH)
    with pytest.raises(UsageError) as caught:
        load_plan(path, env={}, mission="nigth")
    assert str(caught.value) == (
        f"unknown mission 'nigth'; missions of {path}: day, night (did you mean 'night'?)"
    )
    path = write(tmp_path, "tasks: [{id: a, type: Counter}]")
    with pytest.raises(UsageError) as caught:
        load_plan(path, env={}, mission="day")
    assert str(caught.value) == f"unknown mission 'day': {path} has no missions"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "- {id: show, type: Print, missions: [day]}\n  - {id: show, type: Print, missions: [night]}",
            "- {id: show, type: Print}",
            [],
        ),
        (
            "dst: show, msg: IntMsg, missions: [night]",
            "dst: show, msg: IntMsg, missions: [day]",
            [
                "g.yaml:6:10: input 'show.number' (IntMsg) is not connected in mission 'night', which "
                "lacks square; outputs that fit: count.count",
                "g.yaml:10:23: input 'show.number' already has a source, 'square' on line 9; an input "
                "takes one connection (in mission day)",
            ],
        ),
        (
            "dst: square, msg: IntMsg",
            "dst: square, msg: IntMsg, missions: [day, night]",
            [
                "g.yaml:8:23: mission 'night' has no task 'square', which is part of day; leave "
                "'missions' of the connection out, and it is part of all that have both tasks"
            ],
        ),
        (
            "type: Square, missions: [day]",
            "type: Square, missions: [dya]",
            [
                "g.yaml:4:42: unknown mission 'dya'; missions: day, night (did you mean 'day'?)",
                "g.yaml:5:10: input 'show.number' (IntMsg) is not connected in mission 'day', which "
                "lacks square; outputs that fit: count.count",
            ],
        ),
        (
            "missions: [night]}\ncnx",
            "missions: [day, night]}\ncnx",
            ["g.yaml:6:10: duplicate task id 'show'; first on line 5"],
        ),
        ("missions: [day, night]\n", "missions: [day, night, noon]\n", []),
        (
            "missions: [day, night]\n",
            "",
            ["g.yaml:3:42: mission 'day' is not declared; write missions: [day] in the graph"],
        ),
        (
            "missions: [day, night]\n",
            "missions: day\n",
            ["g.yaml:1:11: 'missions' must be a list (- ...); got 'day'"],
        ),
        (
            "type: Square, missions: [day]",
            "type: Square, missions: []",
            ["g.yaml:4:42: 'missions' is empty; leave it out, or name at least one"],
        ),
        (
            "type: Counter, config: {limit: 3}}",
            "type: Counter, config: {limit: -1}, missions: [day]}",
            ["g.yaml:3:41: 'limit' of task 'count' must be at least 0; got -1 (in mission day)"],
        ),
    ],
)
def test_each_mistake_has_an_answer(tmp_path: Path, old: str, new: str, said: list[str]) -> None:
    assert old in GRAPH
    path = write(tmp_path, GRAPH.replace(old, new, 1))
    if said:
        assert set(said) <= set(mistakes(path))
    else:
        load_plans(path, env={})


def test_a_mission_without_tasks_is_a_mistake(tmp_path: Path) -> None:
    path = write(tmp_path, "missions: [a, b]\ntasks: [{id: c, type: Counter, missions: [a]}]\n")
    assert mistakes(path) == ["g.yaml:1:1: no task is part of mission 'b'"]


def test_what_a_file_includes_may_be_part_of_some_missions(tmp_path: Path) -> None:
    (tmp_path / "part.yaml").write_text(
        "tasks: [{id: s, type: Square}, {id: p, type: Print, missions: [night]}]\n"
        "cnx: [{src: c, dst: s, msg: IntMsg}, {src: s, dst: p, msg: IntMsg}]\n"
    )
    path = write(
        tmp_path,
        "missions: [day, night, noon]\n"
        "includes: [{path: part.yaml, missions: [day, night]}]\n"
        "tasks: [{id: c, type: Counter}]\n",
    )
    plans = load_plans(path, env={})
    assert {name: len(plan.steps) for name, plan in plans.items()} == {
        "day": 2,
        "night": 3,
        "noon": 1,
    }
    path.write_text(path.read_text().replace("[day, night]}]", "[day]}]"))
    assert mistakes(path)[1:] == [
        f"part.yaml:1:53: {tmp_path}/part.yaml is included in missions day, and this is in none of "
        "them (included at g.yaml:2:12)".replace(f"{tmp_path}/", "")
    ]


@st.composite
def mission_graphs(draw: st.DrawFn) -> tuple[dict[str, Any], str]:
    """A graph with missions, and the name of one."""
    names = ["a", "b", "c"]
    tasks: list[dict[str, Any]] = []
    cnx = []
    for i in range(draw(st.integers(1, 6))):
        missions = draw(st.lists(st.sampled_from(names), unique=True))
        feeding = None
        if tasks:
            wider = [
                task
                for task in tasks
                if not task["missions"] or (missions and set(missions) <= set(task["missions"]))
            ]
            feeding = draw(st.sampled_from([None, *(task["id"] for task in wider)]))
        tasks.append(
            {
                "id": f"t{i}",
                "type": "Counter" if feeding is None else "Square",
                "missions": missions,
            }
        )
        if feeding is not None:
            cnx.append({"src": feeding, "dst": f"t{i}", "msg": "IntMsg"})
    return {"missions": names, "tasks": tasks, "cnx": cnx}, draw(st.sampled_from(names))


@settings(max_examples=15, deadline=None)
@given(mission_graphs())
def test_a_mission_is_the_file_without_the_other_tasks(graph_and_name: tuple[Any, str]) -> None:
    graph, mission = graph_and_name
    tasks = [
        {key: it for key, it in task.items() if key != "missions"}
        for task in graph["tasks"]
        if mission in task["missions"] or not task["missions"]
    ]
    ids = {task["id"] for task in tasks}
    cnx = [it for it in graph["cnx"] if it["src"] in ids and it["dst"] in ids]
    text = yaml.safe_dump(
        graph
        | {
            "tasks": [
                {key: it for key, it in task.items() if key != "missions" or it}
                for task in graph["tasks"]
            ]
        }
    )
    if not tasks:
        with pytest.raises(GraphError):
            parse_graph(text, path=Path("g.yaml"), env={}, mission=mission)
        return
    chosen = parse_graph(text, path=Path("g.yaml"), env={}, mission=mission)
    alone = parse_graph(yaml.safe_dump({"tasks": tasks, "cnx": cnx}), path=Path("g.yaml"), env={})
    assert [(it.id, it.type) for it in chosen.tasks] == [(it.id, it.type) for it in alone.tasks]
    assert [(it.src, it.dst) for it in chosen.connections] == [
        (it.src, it.dst) for it in alone.connections
    ]
