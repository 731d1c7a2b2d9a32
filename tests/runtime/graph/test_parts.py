"""The graph of one process of a partition: its own tasks, and what comes from others."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowrun.runtime.errors import GraphError
from flowrun.runtime.graph import parts
from flowrun.runtime.graph.plan import Plan, load_plan, load_plans
from flowrun.runtime.graph.spec import PartId

THREE = """\
partitions:
  dock: {DOCK}
  gpu: {GPU}
  desk: {}
tasks:
  - {id: n, type: Counter, partition: dock}
  - {id: show, type: Print, partition: dock}
  - {id: square, type: Square, partition: gpu}
  - {id: again, type: Square, partition: gpu}
  - {id: board, type: Print, partition: desk}
cnx:
  - {src: n, dst: square, msg: IntMsg}
  - {src: square, dst: again, msg: IntMsg}
  - {src: square, dst: show, msg: IntMsg}
  - {src: again, dst: board, msg: IntMsg}
"""


@pytest.fixture(autouse=True)
def _a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SOURCE_TYPE", "support.link_tasks.FromElsewhere")


def write(folder: Path, dock: str = "", gpu: str = "") -> Path:
    path = folder / "g.yaml"
    path.write_text(THREE.replace("DOCK", dock).replace("GPU", gpu))
    return path


def steps(plan: Plan) -> list[str]:
    return [step.task.id for step in plan.steps]


def wires(plan: Plan) -> list[str]:
    return [
        f"{it.src_task}.{it.src_port} -> {it.dst_task}.{it.dst_port}"
        for it in plan.graph.connections
    ]


def test_a_part_has_one_source_for_each_process_that_sends_to_it_then_its_tasks(
    tmp_path: Path,
) -> None:
    plan = load_plan(write(tmp_path), env={}, partition="gpu")
    assert steps(plan) == ["from_dock", "square", "again"]
    assert wires(plan) == [
        "from_dock.n_count -> square.number",
        "square.square -> again.number",
    ]
    [receives] = plan.graph.receives
    assert (receives.peer, receives.source) == (PartId("dock"), "from_dock")
    assert [(it.topic, it.name) for it in receives.streams] == [("/n/count", "n_count")]
    assert {str(it.peer): [s.topic for s in it.streams] for it in plan.graph.sends} == {
        "dock/0": ["/square/square"],
        "desk/0": ["/again/square"],
    }
    assert plan.slots[0].topic == "/from_dock/origin"
    assert plan.slots[1].topic == "/from_dock/n_count"


def test_tasks_that_follow_several_instances_are_made_once_for_each(tmp_path: Path) -> None:
    path = write(tmp_path, dock="instances: {a: {}, b-1: {}}")
    gpu = load_plan(path, env={}, partition="gpu")
    assert steps(gpu) == [
        "from_dock_a",
        "from_dock_b_1",
        "square_a",
        "square_b_1",
        "again_a",
        "again_b_1",
    ]
    desk = load_plan(path, env={}, partition="desk")
    assert steps(desk) == ["from_gpu", "board_a", "board_b_1"]
    assert wires(desk) == [
        "from_gpu.again_a_square -> board_a.number",
        "from_gpu.again_b_1_square -> board_b_1.number",
    ]


def test_what_goes_back_to_a_partition_goes_to_its_own_instance(tmp_path: Path) -> None:
    path = write(tmp_path, dock="instances: {a: {}, b: {}}")
    for name in ("a", "b"):
        plan = load_plan(path, env={}, partition=f"dock/{name}")
        assert steps(plan) == ["from_gpu", "n", "show"]
        [receives] = plan.graph.receives
        assert [(it.topic, it.name) for it in receives.streams] == [
            (f"/square_{name}/square", "square_square")
        ]


def test_replicas_of_a_sender_are_sources_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path, gpu="replicas: 2")
    plan = load_plan(path, env={}, partition="desk")
    assert steps(plan) == ["from_gpu_0", "from_gpu_1", "board_0", "board_1"]


def test_a_task_cannot_follow_two_partitions_of_several_processes(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(
        """\
partitions:
  a: {replicas: 2}
  b: {instances: {x: {}, y: {}}}
  c: {}
tasks:
  - {id: m, type: Counter, partition: a}
  - {id: n, type: Counter, partition: b}
  - {id: both, type: support.engine_tasks.Both, partition: c}
cnx:
  - {src: m, dst: both.a, msg: IntMsg}
  - {src: n, dst: both.b, msg: IntMsg}
"""
    )
    with pytest.raises(GraphError) as caught:
        load_plan(path, env={})
    assert str(caught.value) == (
        f"{path}:11:5: task 'both' is made once for each of 0, 1, since 'm' is, and 'n' for each of x, "
        "y; a task cannot follow both"
    )


def test_a_name_that_is_taken_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(THREE.replace("DOCK", "").replace("GPU", "").replace("again", "from_dock"))
    with pytest.raises(GraphError) as caught:
        load_plan(path, env={}, partition="gpu")
    assert str(caught.value) == (
        f"{path}:12:5: partition 'gpu' has a task 'from_dock', which is the name of what comes from "
        "partition 'dock'; rename it"
    )


IDS = st.sampled_from(["a", "a_b", "b", "from_a", "x", "x_a"])
SEVERAL = st.sampled_from([[], ["b", "c"], ["b_c", "b-c"], ["a_b", "c"]])


@given(
    partitions=st.dictionaries(
        st.sampled_from(["a", "a_b", "b"]), st.tuples(IDS, SEVERAL), min_size=1
    ),
    takers=st.lists(IDS, min_size=3, max_size=3, unique=True),
    crossed=st.booleans(),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_passes_as_a_whole_has_parts_that_load(
    tmp_path: Path, partitions: dict[str, tuple[str, list[str]]], takers: list[str], crossed: bool
) -> None:
    text, tasks, cnx = "partitions:\n  q: {}\n", "tasks:\n", "cnx:\n"
    for (name, (task, instances)), taker in zip(partitions.items(), takers, strict=False):
        named = ", ".join(f"{it}: {{}}" for it in instances)
        text += f"  {name}: {{{f'instances: {{{named}}}' if instances else ''}}}\n"
        tasks += f"  - {{id: {task}, type: Counter, partition: {name}}}\n"
        tasks += f"  - {{id: {taker}, type: Square, partition: q}}\n"
        cnx += f"  - {{src: {task}, dst: {taker}, msg: IntMsg}}\n"
        if crossed:
            tasks += f"  - {{id: back_{taker}, type: Print, partition: {name}}}\n"
            cnx += f"  - {{src: {taker}, dst: back_{taker}, msg: IntMsg}}\n"
    path = tmp_path / "g.yaml"
    path.write_text(text + tasks + cnx)
    try:
        whole = load_plan(path, env={})
    except GraphError:
        return
    for partition in whole.graph.spec.partitions:
        for part in partition.parts:
            plan = load_plan(path, env={}, partition=str(part))
            sources = [it.source for it in plan.graph.receives]
            assert len(set(sources)) == len(sources)


def test_two_senders_whose_tasks_would_have_one_name_are_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(
        """\
partitions:
  a: {instances: {b: {}, c: {}}}
  a_b: {}
  q: {}
tasks:
  - {id: n, type: Counter, partition: a}
  - {id: m, type: Counter, partition: a_b}
  - {id: x, type: Print, partition: q}
  - {id: y, type: Print, partition: q}
cnx:
  - {src: n, dst: x, msg: IntMsg}
  - {src: m, dst: y, msg: IntMsg}
"""
    )
    with pytest.raises(GraphError) as caught:
        load_plan(path, env={})
    assert str(caught.value) == (
        f"{path}:12:5: what comes from a_b/0 and from a/b would both be the task 'from_a_b' in "
        "partition 'q'; rename one of the two"
    )


def test_two_tasks_that_make_one_name_are_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(
        """\
partitions:
  p: {instances: {a_b: {}, c: {}}}
  r: {instances: {b: {}, d: {}}}
  q: {}
tasks:
  - {id: n, type: Counter, partition: p}
  - {id: m, type: Counter, partition: r}
  - {id: x, type: Print, partition: q}
  - {id: x_a, type: Print, partition: q}
cnx:
  - {src: n, dst: x, msg: IntMsg}
  - {src: m, dst: x_a, msg: IntMsg}
"""
    )
    with pytest.raises(GraphError) as caught:
        load_plan(path, env={})
    assert str(caught.value) == (
        f"{path}:9:5: tasks 'x' and 'x_a' both make 'x_a_b'; rename one of the two"
    )


@pytest.mark.parametrize(
    ("partition", "part", "where"),
    [("{}: {{}}", "{}/0", "2:3"), ("p: {{instances: {{{}: {{}}}}}}", "p/{}", "2:19")],
)
def test_names_that_make_no_folder_are_a_mistake(
    tmp_path: Path, partition: str, part: str, where: str
) -> None:
    path, most = tmp_path / "g.yaml", 255 - len("g--0-20260101T000000Z-9999")

    def write_with(size: int) -> str:
        name = "n" * size
        declared = partition.format(name)
        task = f"{{id: n, type: Counter, partition: {declared.partition(':')[0]}}}"
        path.write_text(f"partitions:\n  {declared}\ntasks: [{task}]\n")
        return part.format(name)

    write_with(most)
    load_plan(path, env={})
    named = write_with(most + 1)
    with pytest.raises(GraphError) as caught:
        load_plan(path, env={})
    assert str(caught.value) == (
        f"{path}:{where}: the folder of a run of {named} would have a name of 256 bytes, with that of "
        "the graph, 'g', in it; a file system takes at most 255: shorten the names"
    )


@pytest.mark.parametrize(
    ("partitions", "where", "what"),
    [
        ("{gpu: {}, Gpu: {}}", "1:23", "partition 'Gpu' differs only in case from 'gpu' on line 1"),
        (
            "{gpu: {instances: {n-a: {}, N-a: {}}}}",
            "1:41",
            "instance of partition 'gpu': 'N-a' differs only in case from 'n-a' on line 1",
        ),
    ],
)
def test_names_that_are_one_where_case_is_ignored_are_a_mistake(
    tmp_path: Path, partitions: str, where: str, what: str
) -> None:
    path = tmp_path / "g.yaml"
    tasks = "{id: n, type: Counter, partition: gpu}"
    if "Gpu" in partitions:
        tasks += ", {id: m, type: Counter, partition: Gpu}"
    path.write_text(f"partitions: {partitions}\ntasks: [{tasks}]\n")
    with pytest.raises(GraphError) as caught:
        load_plan(path, env={})
    assert str(caught.value) == (
        f"{path}:{where}: {what}; on a disk that ignores case their runs would be in one folder: "
        "rename one of the two"
    )


@given(docks=st.integers(1, 4), gpus=st.integers(1, 3), named=st.booleans(), seed=st.integers(0, 3))
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_both_ends_know_the_same_streams_in_the_same_order(
    tmp_path: Path, docks: int, gpus: int, named: bool, seed: int
) -> None:
    del seed
    many = ", ".join(f"d{i}: {{}}" for i in range(docks))
    path = write(
        tmp_path,
        dock=f"instances: {{{many}}}" if named else f"replicas: {docks}",
        gpu=f"replicas: {gpus}",
    )
    whole = load_plan(path, env={}).graph.spec
    plans = {
        part: load_plan(path, env={}, partition=str(part))
        for partition in whole.partitions
        for part in partition.parts
    }
    sent = {
        (part, it.peer): (it.source, it.streams)
        for part, plan in plans.items()
        for it in plan.graph.sends
    }
    received = {
        (it.peer, part): (it.source, it.streams)
        for part, plan in plans.items()
        for it in plan.graph.receives
    }
    assert sent == received
    for part, plan in plans.items():
        topics = {slot.topic for slot in plan.slots}
        assert all(it.topic in topics for b in plan.graph.sends for it in b.streams), part
        for boundary in plan.graph.receives:
            assert {f"/{boundary.source}/{it.name}" for it in boundary.streams} <= topics
        fed = [(it.dst_task, it.dst_port) for it in plan.graph.connections]
        assert len(fed) == len(set(fed)), "an input takes one connection"


CAMERAS = """\
partitions:
  dock: {instances: {east: {cam.source_uri: "${EAST}"}, west: {cam.source_uri: "${WEST}"}}}
  desk: {}
tasks:
  - {id: cam, type: VideoCapture, partition: dock, config: {options: {user_agent: "${AGENT}"}}}
  - {id: show, type: BroadcastImage, partition: desk}
cnx:
  - {src: cam, dst: show, msg: ImageRgb8Msg}
"""


def test_a_task_may_have_its_values_from_the_instances_alone(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(CAMERAS)
    env = {"EAST": "http://east/live.ts", "WEST": "http://west/live.ts", "AGENT": "a"}
    [plan] = load_plans(path, env=env, ready=False).values()
    assert plan.graph.tasks[0].config.model_dump()["source_uri"] == env["EAST"]
    west = load_plan(path, env=env, ready=False, partition="dock/west")
    assert west.graph.tasks[0].config.model_dump()["source_uri"] == env["WEST"]


def test_a_process_needs_no_variables_of_tasks_that_run_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(CAMERAS)
    desk = load_plan(path, env={}, partition="desk")
    assert steps(desk) == ["from_dock_east", "from_dock_west", "show_east", "show_west"]
    assert desk.graph.spec.environment == {}
    with pytest.raises(GraphError) as refused:
        load_plan(path, env={"AGENT": "a"}, partition="dock/west")
    assert "environment variable 'WEST' is not set" in str(refused.value)
    assert "EAST" not in str(refused.value)


ELSEWHERE = """\
partitions:
  a: {connect: ["${HUB}"]}
  b: {listen: ["tls/0.0.0.0:${PORT}"], recover: "${HOW}"}
network: {tls: {ca: ca.pem, cert: a.pem, key: a.key}}
tasks:
  - id: n
    type: Counter
    partition: b
    every: 1
    rate_hz: ${RATE}
    background: ${BACK}
    logging: {enabled: "${LOGS}", payload: "${LOAD}"}
    config:
      limit: ${LIMIT}
      rate_hz: "${HZ}"
  - id: cam
    type: VideoCapture
    partition: b
    config:
      source_uri: x.mp4
      max_fps: ${FPS}
      reconnect: {delay_s: "${DELAY}", max_delay_s: 1}
  - {id: p, type: Print, partition: a}
  - {id: s, type: Print, partition: b}
cnx:
  - {src: n, dst: p, msg: IntMsg}
  - {src: n, dst: s, msg: IntMsg}
"""


def test_what_another_partitions_machine_alone_knows_is_no_mistake_here(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(ELSEWHERE)
    plan = load_plan(path, env={"HUB": "tls/hub:1"}, ready=False, partition="a")
    assert steps(plan) == ["from_b", "p"]
    with pytest.raises(GraphError) as refused:
        load_plan(path, env={}, ready=False, partition="b")
    names = ("PORT", "HOW", "RATE", "BACK", "LOGS", "LOAD", "LIMIT", "HZ", "FPS", "DELAY")
    for name in names:
        assert f"environment variable {name!r} is not set" in str(refused.value), name
    assert "HUB" not in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("source_uri: x.mp4", "source_url: x.mp4", "unknown key 'source_url'"),
        ("max_delay_s: 1", "max_delay_s: fast", "must be a number"),
        ('"${HZ}"', "fast", "must be a number"),
        ("${RATE}", "fast", "must be a number"),
        ("type: VideoCapture", "type: ${TYPE}", "environment variable 'TYPE' is not set"),
        ("id: n", "id: ${NAME}", "environment variable 'NAME' is not set"),
        ("recover: ", "replicas: ", "environment variable 'HOW' is not set"),
    ],
)
def test_what_can_be_known_of_another_partition_is_checked(
    old: str, new: str, error: str, tmp_path: Path
) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(ELSEWHERE.replace(old, new, 1))
    with pytest.raises(GraphError) as refused:
        load_plan(path, env={"HUB": "tls/hub:1"}, ready=False, partition="a")
    assert error in str(refused.value)


def test_a_value_that_two_partitions_share_is_read_for_each(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    shared = ELSEWHERE.replace(
        "type: Print, partition: a", "type: Print, partition: a, rate_hz: *r"
    )
    path.write_text(shared.replace("${RATE}", "&r ${RATE}"))
    with pytest.raises(GraphError) as refused:
        load_plan(path, env={"HUB": "tls/hub:1"}, ready=False, partition="a")
    assert str(refused.value).count("environment variable 'RATE' is not set") == 1
    load_plan(path, env={"HUB": "tls/hub:1", "RATE": "5"}, ready=False, partition="a")
