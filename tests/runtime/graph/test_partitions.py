"""`partitions`, `network`, `link`: every mistake with its place, and what of it goes where."""

from __future__ import annotations

from pathlib import Path

import pytest

import flowrun
from flowrun.runtime.errors import GraphError, UsageError
from flowrun.runtime.graph.masking import masked_graph
from flowrun.runtime.graph.plan import load_plan, load_plans
from flowrun.runtime.graph.read import load_graph
from flowrun.runtime.graph.spec import LinkSpec, PartId

HEAD = """\
partitions:
  one: {}
  two: {}
"""
TASKS = """\
tasks:
  - {id: n, type: Counter, partition: one}
  - {id: square, type: Square, partition: two}
cnx:
  - {src: n, dst: square, msg: IntMsg}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "g.yaml"
    path.write_text(text)
    return path


def mistakes(folder: Path, text: str) -> list[str]:
    path = write(folder, text)
    with pytest.raises(GraphError) as caught:
        load_plans(path, env={})
    return [line.replace(f"{folder}/", "") for line in str(caught.value).splitlines()]


def test_the_whole_file_is_planned_as_one_graph(tmp_path: Path) -> None:
    plan = load_plan(write(tmp_path, HEAD + TASKS), env={})
    assert [step.task.id for step in plan.steps] == ["n", "square"]
    assert [it.id for it in plan.graph.spec.partitions] == ["one", "two"]
    assert plan.graph.spec.part is None


def test_all_keys_are_read(tmp_path: Path) -> None:
    spec = load_graph(
        write(
            tmp_path,
            """\
partitions:
  dock: {listen: [tls/0.0.0.0:7447], instances: {d1: {n.limit: "${LIMIT}"}, d2: {}}, on_error: stop}
  gpu: {connect: ["tls/[::1]:7447"], replicas: 4}
network:
  {engine: zenoh, tls: {ca: ca.pem, cert: "${NODE}.pem", key: "${NODE}.key"}, insecure: true,
   allow: {dock: [d1, d2], gpu: [box]}, on_peer_lost: hold}
tasks:
  - {id: n, type: Counter, partition: dock}
  - {id: square, type: Square, partition: gpu}
cnx:
  - src: n
    dst: square
    msg: IntMsg
    link: {deliver: latest, carry: log, spread: instance, max_age_ms: 500, on_gap: stop}
""",
        ),
        env={"LIMIT": "7"},
        partition="dock/d1",
    )
    dock, gpu = spec.partitions
    assert (dock.listen, dock.on_error, dock.processes) == (
        ("tls/0.0.0.0:7447",),
        "stop",
        ("d1", "d2"),
    )
    assert (gpu.connect, gpu.processes) == (("tls/[::1]:7447",), ("0", "1", "2", "3"))
    assert (spec.network.tls.cert, spec.network.on_peer_lost) == ("d1.pem", "hold")
    assert spec.network.allow == {"dock": ("d1", "d2"), "gpu": ("box",)}
    assert spec.connections[0].link == LinkSpec("latest", "log", "instance", 500, "stop")
    assert spec.part == PartId("dock", "d1")
    assert spec.tasks[0].config == {"limit": "7"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            HEAD + TASKS.replace("partition: two", "partition: tow"),
            [
                "g.yaml:3:3: partition 'two' has no task; leave it out",
                "g.yaml:6:43: unknown partition 'tow'; partitions: one, two (did you mean 'two'?)",
            ],
        ),
        (
            HEAD + TASKS.replace(", partition: two", ""),
            [
                "g.yaml:3:3: partition 'two' has no task; leave it out",
                "g.yaml:6:5: task 'square' has no 'partition'; partitions: one, two",
            ],
        ),
        (
            TASKS.replace(", partition: two", ""),
            [
                "g.yaml:2:39: partition 'one' is not declared; write partitions: {one: {}} in the graph",
            ],
        ),
        (
            HEAD
            + TASKS.replace("partition: two", "partition: one").replace(
                "IntMsg}", "IntMsg, link: {deliver: latest}}"
            ),
            [
                "g.yaml:3:3: partition 'two' has no task; leave it out",
                "g.yaml:8:46: 'link' is for connections between partitions; 'n' and 'square' are not: "
                "both are in partition 'one'; leave it out",
            ],
        ),
        (
            "network: {insecure: true}\n"
            + TASKS.replace(", partition: one", "").replace(", partition: two", ""),
            ["g.yaml:1:21: 'network' is for graphs with 'partitions'; leave it out"],
        ),
        (
            HEAD.replace("one: {}", "one: {listen: [tcp/127.0.0.1]}") + TASKS,
            [
                "g.yaml:2:18: 'tcp/127.0.0.1' in 'listen': it lacks a port; write tcp/127.0.0.1:7447",
            ],
        ),
        (
            HEAD.replace("one: {}", "one: {listen: [tpc/127.0.0.1:1]}") + TASKS,
            [
                "g.yaml:2:18: 'tpc/127.0.0.1:1' in 'listen': unknown protocol 'tpc'; protocols: tcp, "
                "tls, quic (did you mean 'tcp'?)",
            ],
        ),
        (
            HEAD.replace("one: {}", "one: {connect: [edge-1:7447]}") + TASKS,
            [
                "g.yaml:2:19: 'edge-1:7447' in 'connect': expected PROTOCOL/HOST:PORT, such as "
                "tls/edge-1:7447",
            ],
        ),
        (
            HEAD.replace("one: {}", "one: {connect: [tcp/127.0.0.1:70000]}") + TASKS,
            [
                "g.yaml:2:19: 'tcp/127.0.0.1:70000' in 'connect': port '70000': expected a number from "
                "1 to 65535",
            ],
        ),
        (
            HEAD.replace("{}", "{listen: [tcp/127.0.0.1:7447]}") + TASKS,
            [
                "g.yaml:3:18: 'tcp/127.0.0.1:7447' is where partition 'one' listens, on line 2; give "
                "each its own",
            ],
        ),
        (
            HEAD.replace("one: {}", "one: {listen: [tcp/0.0.0.0:7447]}") + TASKS,
            [
                "g.yaml:2:18: 'tcp/0.0.0.0:7447' is plain TCP beyond this machine: anybody there can "
                "read and write; use tls/, or say network: {insecure: true}",
            ],
        ),
        (
            HEAD.replace("one: {}", "one: {listen: [tls/0.0.0.0:7447]}") + TASKS,
            [
                "g.yaml:2:18: 'tls/0.0.0.0:7447' needs network: {tls: {ca: ..., cert: ..., key: ...}}",
            ],
        ),
        (
            HEAD.replace("one: {}", "one: {listen: [tls/0.0.0.0:7447]}")
            + "network: {tls: {ca: ca.pem}}\n"
            + TASKS,
            [
                "g.yaml:2:18: 'tls/0.0.0.0:7447' needs 'cert' and 'key' of network: {tls: ...} to "
                "listen",
            ],
        ),
        (
            HEAD + "network: {tls: {ca: ca.pem, cert: a.pem}}\n" + TASKS,
            ["g.yaml:4:16: 'tls' has 'cert' and lacks 'key'; it needs both, or neither"],
        ),
        (
            HEAD + "network: {tls: {ca: ca.pem}, allow: {on: [a]}}\n" + TASKS,
            [
                "g.yaml:4:38: unknown partition 'on' in 'allow'; partitions: one, two (did you mean "
                "'one'?)",
            ],
        ),
        (
            HEAD + "network: {tls: {ca: ca.pem}, allow: {one: [a]}}\n" + TASKS,
            [
                "g.yaml:4:37: 'allow' names no certificate for two: nobody could come as such; add "
                "two: [NAME], the common name of its certificate",
            ],
        ),
        (
            HEAD + "network: {allow: {one: [a]}}\n" + TASKS,
            [
                "g.yaml:4:18: 'allow' names certificates, which nobody shows without 'tls'; say "
                "tls: {ca: ..., ...}",
            ],
        ),
        (
            HEAD.replace("one: {}", "one: {instances: {a: {m.limit: 1}, b: {square.x: 1}}}") + TASKS,
            [
                "g.yaml:2:25: 'm.limit': partition 'one' has no task 'm'; its tasks: n",
                "g.yaml:2:42: 'square.x': partition 'one' has no task 'square', which is in 'two'; its "
                "tasks: n",
            ],
        ),
        (
            HEAD.replace("one: {}", "one: {instances: {a: {n.limt: 1}}}") + TASKS,
            [
                "g.yaml:2:25: unknown key 'limt' in the config of task 'n'; valid keys: limit, "
                "rate_hz (did you mean 'limit'?)",
            ],
        ),
        (
            HEAD.replace("one: {}", "one: {instances: {a: {n: 1}}, replicas: 2}") + TASKS,
            [
                "g.yaml:2:25: 'n': expected TASK.KEY, such as cam.source_uri",
                "g.yaml:2:43: partition 'one' has both 'instances' and 'replicas'; leave one out",
            ],
        ),
        (
            HEAD.replace("one: {}", 'one: {instances: {a: {n.limit: "${LIMIT}"}}}') + TASKS,
            [
                "g.yaml:2:34: environment variable 'LIMIT' is not set; set it, or write "
                "${LIMIT:-default}",
            ],
        ),
        (
            HEAD
            + TASKS.replace("IntMsg}", "IntMsg, link: {deliver: lockstep}}").replace(
                "cnx:", "  - {id: show, type: Print, partition: one}\ncnx:"
            )
            + "  - {src: square, dst: show, msg: IntMsg}\n",
            [
                "g.yaml:9:56: cycle over partitions: one -> two -> one; with 'deliver: lockstep' each "
                "would wait for the other: use 'every' or 'latest'",
            ],
        ),
        (
            HEAD
            + TASKS.replace("cnx:", "  - {id: show, type: Print, partition: two}\ncnx:").replace(
                "IntMsg}", "IntMsg, link: {max_age_ms: 5}}"
            )
            + "  - {src: n, dst: show, msg: IntMsg}\n",
            [
                "g.yaml:10:5: 'n' goes to partition 'two' once, and its 'link' is another on line 9; "
                "say the same",
            ],
        ),
        (
            HEAD
            + TASKS.replace("partition: one", "partition: one, logging: {payload: none}"),
            [
                "g.yaml:8:5: 'n.count' goes to partition 'two' from the log, and 'payload: none' keeps "
                "it out of that; leave that out",
            ],
        ),
        (
            HEAD + TASKS.replace("IntMsg}", "IntMsg, link: {carry: packets}}"),
            ["g.yaml:8:54: 'carry: packets' is for pictures, and 'n.count' gives IntMsg; leave it out"],
        ),
        (
            HEAD + TASKS.replace("IntMsg}", "IntMsg, link: {deliver: newest, spred: one}}"),
            [
                "g.yaml:8:56: 'deliver' must be every or latest or lockstep; got 'newest'",
                "g.yaml:8:64: unknown key 'spred' in 'link'; valid keys: deliver, carry, spread, "
                "max_age_ms, on_gap (did you mean 'spread'?)",
            ],
        ),
        (
            "partitions: {1a: {}, two: {replica: 2}}\n" + TASKS.replace("one", "two"),
            [
                "g.yaml:1:14: partition '1a' is not an identifier; use letters, digits and '_', not "
                "beginning with a digit",
                "g.yaml:1:28: unknown key 'replica' in partition 'two'; valid keys: listen, connect, "
                "instances, replicas, on_error, recover, num_gpus (did you mean 'replicas'?)",
            ],
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_listed_with_its_place(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert sorted(mistakes(tmp_path, text)) == sorted(expected)


@pytest.mark.parametrize(
    ("partition", "expected"),
    [
        ("gpu", "unknown partition 'gpu'; partitions of {path}: one, two"),
        ("one/1", "partition 'one' has no instance '1'; it has one/0"),
        ("two", "partition 'two' has 2 processes; say which: two/a, two/b"),
    ],
)
def test_an_unknown_partition_lists_those_there_are(
    tmp_path: Path, partition: str, expected: str
) -> None:
    path = write(tmp_path, HEAD.replace("two: {}", "two: {instances: {a: {}, b: {}}}") + TASKS)
    with pytest.raises(UsageError) as caught:
        load_graph(path, env={}, partition=partition)
    assert str(caught.value) == expected.format(path=path)


def test_a_graph_without_partitions_has_none_to_run(tmp_path: Path) -> None:
    text = TASKS.replace(", partition: one", "").replace(", partition: two", "")
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_graph(path, env={}, partition="gpu")
    assert str(caught.value) == f"unknown partition 'gpu': {path} has no partitions"


def test_the_variables_of_other_instances_need_not_be_set(tmp_path: Path) -> None:
    text = HEAD.replace("one: {}", 'one: {instances: {a: {n.limit: "${A}"}, b: {n.limit: "${B}"}}}')
    path = write(tmp_path, text + TASKS)
    spec = load_graph(path, env={"A": "3"}, partition="one/a")
    assert spec.tasks[0].config == {"limit": "3"}


def test_secrets_of_all_instances_are_masked_in_what_the_log_keeps(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """\
partitions:
  one: {instances: {a: {ask.password: swordfish-1}, b: {ask.password: swordfish-2}}}
tasks:
  - {id: n, type: Counter, partition: one}
  - {id: ask, type: support.secret_tasks.Names, partition: one}
cnx:
  - {src: n, dst: ask, msg: IntMsg}
""",
    )
    for partition in ("one/a", "one/b"):
        spec = load_plan(path, env={}, partition=partition).graph.spec
        assert "swordfish" not in (spec.stored_text or "")
        assert "swordfish" not in str(masked_graph(spec))


def test_a_graph_in_python_has_them_too(tmp_path: Path) -> None:
    graph = flowrun.Graph("fleet", partitions={"one": {}, "two": {"replicas": 2}})
    n = graph.add("Counter", id="n", partition="one")
    square = graph.add("Square", id="square", partition="two")
    graph.connect(n, square, link={"deliver": "latest"})
    graph.save(tmp_path / "fleet.yaml")
    loaded = flowrun.Graph.load(tmp_path / "fleet.yaml")
    assert loaded.text == graph.text
    spec = loaded.plan().graph.spec
    assert [task.partition for task in spec.tasks] == ["one", "two"]
    assert spec.partitions[1].replicas == 2
    assert spec.connections[0].link.deliver == "latest"
    with pytest.raises(UsageError) as caught:
        loaded.run()
    assert str(caught.value) == (
        f"{tmp_path}/fleet.yaml has the partitions one, two: flowrun up {tmp_path}/fleet.yaml runs all "
        "of them on this machine, --partition one/0 one of them"
    )
