"""BoundGraph -> Plan: any acyclic graph plans legally and stably; cycles are named."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.msgs import IntMsg, TextMsg
from flowrun.runtime.errors import GraphError, InternalError, Location
from flowrun.runtime.graph.bind import BoundConnection, BoundGraph, BoundTask, bind
from flowrun.runtime.graph.plan import _check_order, load_plan, plan_graph
from flowrun.runtime.graph.ports import Port
from flowrun.runtime.graph.read import load_graph
from flowrun.runtime.graph.spec import (
    ConnectionSpec,
    Endpoint,
    GraphSpec,
    LoggingSpec,
    RuntimeSpec,
    TaskLogging,
    TaskSpec,
)
from flowrun.runtime.task import Task, TaskConfig
from support.paths import GRAPHS


def graph_of(
    edges: list[tuple[str, str]],
    tasks: str | None = None,
    *,
    unlogged: str = "",
    logging: bool = True,
) -> BoundGraph:
    """A bound graph of one-letter tasks; each edge has an input of its own, named by its source."""
    ids = tasks or "".join(sorted({letter for edge in edges for letter in edge}))
    where = Location("g.yaml", 1, 1)
    bound = tuple(
        BoundTask(
            TaskSpec(
                task_id,
                "T",
                {},
                where,
                {},
                frozenset(),
                logging=TaskLogging(task_id not in unlogged),
            ),
            Task,
            TaskConfig(),
            (
                *(Port(src, "input", IntMsg, True) for src, dst in edges if dst == task_id),
                Port("out", "output", IntMsg, True),
                Port("text", "output", TextMsg, True),
            ),
        )
        for task_id in ids
    )
    specs = tuple(
        ConnectionSpec(Endpoint(src, "out"), Endpoint(dst, src), "IntMsg", Location("g.yaml", n, 5))
        for n, (src, dst) in enumerate(edges, 10)
    )
    connections = tuple(BoundConnection(src, "out", dst, src, IntMsg) for src, dst in edges)
    spec = GraphSpec(
        "g",
        Path("g.yaml"),
        "",
        tuple(task.spec for task in bound),
        specs,
        LoggingSpec(enable_task_logging=logging),
        RuntimeSpec(),
    )
    return BoundGraph(spec, bound, connections)


def order(bound: BoundGraph) -> str:
    return "".join(step.task.id for step in plan_graph(bound).steps)


def problems(bound: BoundGraph) -> list[str]:
    with pytest.raises(GraphError) as caught:
        plan_graph(bound)
    return str(caught.value).splitlines()


def test_sources_come_first_then_declaration_order_decides() -> None:
    assert order(graph_of([("a", "b"), ("c", "d")], "abcd")) == "acbd"
    assert order(graph_of([("a", "b"), ("c", "d")], "dcba")) == "cadb"
    assert order(graph_of([("a", "c"), ("a", "b"), ("b", "d"), ("c", "d")], "acbd")) == "acbd"


def test_every_output_has_a_slot_in_the_order_of_the_steps() -> None:
    plan = plan_graph(graph_of([("b", "a")], "ab", unlogged="a"))
    assert [
        (s.index, s.task_id, s.port, s.topic, s.message_type, s.logged) for s in plan.slots
    ] == [
        (0, "b", "out", "/b/out", IntMsg, True),
        (1, "b", "text", "/b/text", TextMsg, True),
        (2, "a", "out", "/a/out", IntMsg, False),
        (3, "a", "text", "/a/text", TextMsg, False),
    ]
    assert plan.source_count == 1
    assert [[(a.port.name, a.slot) for a in step.arguments] for step in plan.steps] == [
        [("out", 0), ("text", 1)],
        [("b", 0), ("out", 2), ("text", 3)],
    ]


def test_a_graph_that_does_not_log_has_no_logged_slot() -> None:
    assert not any(slot.logged for slot in plan_graph(graph_of([("a", "b")], logging=False)).slots)


def test_an_unconnected_optional_input_has_no_slot() -> None:
    bound = graph_of([("a", "b")])
    [a, b] = bound.tasks
    b = BoundTask(b.spec, Task, b.config, (*b.ports, Port("more", "input", IntMsg, False)))
    plan = plan_graph(BoundGraph(bound.spec, (a, b), bound.connections))
    assert plan.steps[1].arguments[-1].slot is None


def test_cycles_are_named_task_by_task_where_they_stand() -> None:
    loop = (
        "a task cannot feed itself in a cycle: leave one of these connections out (what a task needs of "
        "earlier cycles, it keeps itself)"
    )
    assert problems(graph_of([("s", "a"), ("a", "b"), ("b", "a")], "sab")) == [
        f"g.yaml:11:5: cycle: a -> b -> a; {loop}"
    ]
    assert problems(graph_of([("a", "a")])) == [f"g.yaml:10:5: cycle: a -> a; {loop}"]


def test_each_knot_of_cycles_is_named_once_by_its_shortest_loop() -> None:
    loop = "a task cannot feed itself in a cycle: leave one of these connections out (what a task needs"
    loop += " of earlier cycles, it keeps itself)"
    edges = ["ab", "bc", "ca", "ba", "xy", "yx", "cx"]
    assert problems(graph_of([(e[0], e[1]) for e in edges])) == [
        f"g.yaml:10:5: cycle: a -> b -> a; {loop}",
        f"g.yaml:14:5: cycle: x -> y -> x; {loop}",
    ]


def test_a_graph_without_a_source_would_do_nothing() -> None:
    bound = graph_of([], "a")
    [a] = bound.tasks
    lonely = BoundTask(a.spec, Task, a.config, (Port("x", "input", IntMsg, False),))
    assert problems(BoundGraph(bound.spec, (lonely,), ())) == [
        "g.yaml:1:1: no task is a source (a task without inputs): nothing would run"
    ]


def test_an_illegal_order_is_a_defect_of_ours() -> None:
    with pytest.raises(InternalError) as caught:
        _check_order(graph_of([("a", "b")]), ["b", "a"])
    assert str(caught.value) == "plan of g.yaml: b before a in ['b', 'a']"
    with pytest.raises(InternalError) as caught:
        _check_order(graph_of([("a", "b")]), ["a"])
    assert str(caught.value) == "plan of g.yaml: not every task once: ['a']"


@st.composite
def acyclic(draw: st.DrawFn) -> BoundGraph:
    ids = "abcdefghij"[: draw(st.integers(1, 10))]
    edges = (
        draw(st.lists(st.sampled_from(list(itertools.combinations(ids, 2))), unique=True))
        if (len(ids) > 1)
        else []
    )
    return graph_of(edges, "".join(draw(st.permutations(ids))))


@given(acyclic())
def test_any_acyclic_graph_plans_legally_and_stably(bound: BoundGraph) -> None:
    plan = plan_graph(bound)
    steps = [step.task for step in plan.steps]
    place = {task.id: i for i, task in enumerate(steps)}
    declared = {task.id: i for i, task in enumerate(bound.tasks)}
    assert sorted(place) == sorted(declared)
    assert all(place[cnx.src_task] < place[cnx.dst_task] for cnx in bound.connections)
    sources = [task for task in bound.tasks if task.is_source]
    assert steps[: plan.source_count] == sources
    # Stable: a task that runs before one declared earlier was not free to run later.
    feeding = {
        task.id: {cnx.src_task for cnx in bound.connections if cnx.dst_task == task.id}
        for task in steps
    }
    for i, task in enumerate(steps[plan.source_count :], plan.source_count):
        done = {before.id for before in steps[:i]}
        ready = [t.id for t in steps[i:] if feeding[t.id] <= done]
        assert task.id == min(ready, key=declared.__getitem__)
    for step in plan.steps:
        for argument in step.arguments:
            slot = plan.slots[argument.slot]  # type: ignore[index]
            expected = (step.task.id, argument.port.name)
            if argument.port.is_input:
                expected = (argument.port.name, "out")
            assert (slot.task_id, slot.port) == expected
    assert [slot.index for slot in plan.slots] == list(range(len(plan.slots)))


@pytest.mark.parametrize("name", ["minimal", "caterpillar"])
def test_the_small_graphs_that_ship_plan(name: str) -> None:
    plan = plan_graph(bind(load_graph(GRAPHS / f"{name}.yaml", env={})))
    assert plan.source_count == 1
    assert len(plan.steps) == {"minimal": 3, "caterpillar": 17}[name]


MISTAKES = """\
tasks:
  - {id: cam0, type: VideoCaptur, config: {source_uri: x.mp4}}
  - {id: cam1, type: VideoCapture, config: {source_uri: shaps.mp4}}
  - {id: a, type: Square, backgroud: true}
  - {id: b, type: Square}
  - {id: c, type: BroadcastImage}
  - {id: n, type: Counter, config: {limitt: 3}}
cnx:
  - {src: a, dst: b, msg: IntMsg}
  - {src: b, dst: a, msg: IntMsg}
  - {src: n, dst: c, msg: ImageRgb8Msg}
"""


def test_mistakes_of_every_kind_are_reported_at_once(tmp_path):
    (tmp_path / "shapes.mp4").touch()
    path = tmp_path / "bad.yaml"
    path.write_text(MISTAKES)
    with pytest.raises(GraphError) as caught:
        load_plan(path, env={})
    assert [
        (problem.where.line, problem.where.column, problem.message.partition(";")[0])
        for problem in caught.value.problems
    ] == [
        (2, 22, "unknown task type 'VideoCaptur'"),
        (3, 45, f"no such video file: 'shaps.mp4' (looked for {tmp_path / 'shaps.mp4'})"),
        (4, 27, "unknown key 'backgroud' in a task"),
        (7, 37, "unknown key 'limitt' in the config of task 'n'"),
        (9, 5, "cycle: a -> b -> a"),
        (
            11,
            27,
            "message mismatch: 'msg' is ImageRgb8Msg, output 'n.count' publishes IntMsg, input "
            "'c.image' takes ImageRgb8Msg",
        ),
    ]


def test_a_part_that_cannot_be_read_is_not_missed_elsewhere(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "tasks: [{id: n, typ: Counter}, {id: a, type: Square}]\n"
        "cnx: [{src: n, dst: a, msg: IntMsg}]\n"
    )
    with pytest.raises(GraphError) as caught:
        load_plan(path, env={})
    assert [problem.message.partition(";")[0] for problem in caught.value.problems] == [
        "a task lacks 'type'",
        "unknown key 'typ' in a task",
    ]
