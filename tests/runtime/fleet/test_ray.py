"""`flowrun up --ray`, on a real Ray of this machine."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowrun.runtime.cli import main
from flowrun.runtime.errors import UsageError
from flowrun.runtime.fleet.placement import PlaceLost
from flowrun.runtime.fleet.ray import RayPlacement, _Node, _Placed, _Runner
from flowrun.runtime.fleet.record import fleet_runs
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.graph.spec import PartId
from flowrun.runtime.log.reader import Log

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'flowrun-runtime[ray]'")
pytestmark = [pytest.mark.slow, pytest.mark.real]

GRAPH = """
partitions:
  one: {MORE}
  two: {}
network: {NETWORK}
tasks:
  - {id: n, type: Counter, config: {limit: 40}, rate_hz: 40, partition: one}
  - {id: show, type: Print, partition: two}
cnx: [{src: n, dst: show, msg: IntMsg}]
logging: {slab_size_mib: 4, section_size_mib: 1}
"""


def graph(more: str = "", network: str = "") -> str:
    return GRAPH.replace("MORE", more).replace("NETWORK", network)


def test_partitions_run_in_actors_and_reach_each_other(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(graph())
    command = [sys.executable, "-m", "flowrun.runtime.cli", "up", "g.yaml", "--ray", "local"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "two/0 | " in done.stdout
    [fleet] = (tmp_path / "runs").iterdir()
    runs = {str(it.part): it.path for it in fleet_runs(fleet)}
    assert runs.keys() == {"one/0", "two/0"}
    with Log(runs["two/0"]) as log:
        came = [it.fields["value"] for it in log.messages("/from_one/n_count")]
    assert came == list(range(40))


def test_where_no_cluster_is_that_is_said(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_options: Any) -> None:  # Ray itself looks for minutes, at an address
        raise ConnectionError("Could not find any running Ray instance. Please specify the one.")

    monkeypatch.setattr(ray, "init", refuse)
    (tmp_path / "g.yaml").write_text(graph())
    assert main(["up", str(tmp_path / "g.yaml"), "--ray", "--log-dir", str(tmp_path / "runs")]) == 2
    assert capsys.readouterr().err.endswith(
        "--ray auto: no cluster is found: Could not find any running Ray instance; ray start --head "
        "starts one\n"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1:9", "no cluster is found: Connection refused; ray start --head starts one"),
        (
            "ray://127.0.0.1:9",
            "no cluster is found: Connection refused; ray start --head starts one",
        ),
        (
            "box:port",
            "expected auto, local, or HOST:PORT: Port could not be cast to integer value as 'port'",
        ),
    ],
)
def test_an_address_at_which_nobody_listens_is_not_tried_for_minutes(
    address: str, why: str
) -> None:
    with pytest.raises(UsageError) as error:
        RayPlacement(address)
    assert str(error.value) == f"--ray {address}: {why}"


@pytest.fixture
def placement() -> Iterator[Any]:
    made = RayPlacement("local")
    yield made
    made.close()


def test_gpus_that_the_cluster_does_not_have_are_not_waited_for_without_end(
    placement: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowrun.runtime.fleet.ray._PLACED_S", 1.0)
    spec = parse_graph(graph("num_gpus: 64"), path=Path("g.yaml"), env={})
    with pytest.raises(UsageError) as caught:
        placement.places(spec)
    assert str(caught.value).startswith(
        "Ray has no place for all partitions within 1 s; they ask for the GPUs {'one': 64.0}, the "
        "cluster has "
    )


def test_nodes_talk_in_plain_only_where_the_graph_says_so(
    placement: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two addresses stand for two nodes: a machine has one."""
    hosts = iter([f"10.0.0.{n}" for n in range(1, 9)])
    real_get = ray.get
    monkeypatch.setattr(
        ray, "get", lambda asked, **more: real_get(asked, **more)._replace(host=next(hosts))
    )
    spec = parse_graph(graph(network="insecure: true"), path=Path("g.yaml"), env={})
    places = placement.places(spec)
    assert [it.address.rpartition(":")[0] for it in places.values()] == [
        "tcp/10.0.0.1",
        "tcp/10.0.0.2",
    ]
    assert {tuple(it.settings) for it in places.values()} == {()}
    with pytest.raises(UsageError, match="its partitions are on several nodes; say network: "):
        placement.places(parse_graph(graph(), path=Path("g.yaml"), env={}))


class Answers:
    """An actor's method, and what Ray gives for each call; the last one for all that follow."""

    def __init__(self, *said: Any) -> None:
        self.said, self.asked = list(said), list[tuple[Any, ...]]()

    def remote(self, *asked: Any) -> Any:
        self.asked.append(asked)
        return self.said.pop(0) if len(self.said) > 1 else self.said[0]


class Cluster:
    """What `_Placed` asks of Ray and of its actor. alive: the ids of the nodes that are there."""

    exceptions = ray.exceptions

    def __init__(self, events: Answers, alive: list[str]) -> None:
        self.events, self.alive = events, alive
        self.start, self.stop = Answers(None), Answers(ray.exceptions.ActorDiedError())

    def get(self, said: Any, **_more: Any) -> Any:
        if isinstance(said, Exception):
            raise said
        return said

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": it, "Alive": it in self.alive} for it in ("one", "two")]


def placed(cluster: Cluster) -> tuple[list[str], list[OSError]]:
    """The lines of a process on node "two", and why it failed."""
    lines: list[str] = []
    failed: list[OSError] = []
    has_failed = threading.Event()

    def on_failure(error: OSError) -> None:
        failed.append(error)
        has_failed.set()

    node = _Node("10.0.0.2", 7447, "two")
    process = _Placed(cluster, cluster, node, PartId("two"), [], lines.append, 0.0)
    process.start()
    process.keep_running(on_end=lambda _status, _pause_s: False, on_failure=on_failure)
    assert has_failed.wait(60)
    process.stop()
    assert process.status == 1
    return lines, failed


def test_a_node_that_is_lost_is_named_once_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowrun.runtime.fleet.ray._WAIT_S", 0.01)
    silent = ray.exceptions.ActorUnavailableError("socket closed", b"1" * 16)
    events = Answers(
        [("line", "a"), ("line", "b")], silent, silent, [("line", "c")], silent,
        ray.exceptions.ActorDiedError(),
    )  # fmt: skip
    lines, [error] = placed(Cluster(events, alive=["one"]))
    silence = "its node 10.0.0.2 does not answer"
    assert lines == ["a", "b", silence, "c", silence]
    assert [it for (it,) in events.asked] == [0, 2, 2, 2, 3, 3]
    assert isinstance(error, PlaceLost)
    assert error.strerror == "its node 10.0.0.2 is lost (Ray's two)"
    assert error.advice == (
        "ray status shows the nodes that are left; the same command starts all again"
    )


def test_an_actor_that_ray_ends_on_a_node_that_is_there_is_told_in_rays_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowrun.runtime.fleet.ray._WAIT_S", 0.01)
    monkeypatch.setattr("flowrun.runtime.fleet.ray._KNOWN_S", 0.05)
    events = Answers(ray.exceptions.ActorDiedError())
    _, [error] = placed(Cluster(events, alive=["one", "two"]))
    assert error.strerror == (
        "Ray has ended it on its node 10.0.0.2: The actor died unexpectedly before finishing this "
        "task."
    )


def test_what_a_runner_tells_is_told_again_until_it_was_seen() -> None:
    runner = _Runner()
    for line in "abc":
        runner._note("line", line)
    assert runner.events(0) == runner.events(0) == [("line", it) for it in "abc"]
    assert runner.events(2) == [("line", "c")]
    runner._note("end", 0)
    assert runner.events(3) == [("end", 0)]


def test_what_ray_says_of_its_nodes_goes_into_a_file(
    placement: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the function that Ray's thread calls, in the place where it looks for it."""
    from ray._private import worker

    before = worker.print_to_stdstream
    try:
        placement.note_into(tmp_path / "ray.log")
        source = Path(worker.__file__).read_text()
        assert "print_to_stdstream(" in source.partition("def listen_error_messages")[2]
        worker.print_to_stdstream({"lines": ["Raylet is terminated."]}, ignore_prefix=False)
    finally:
        worker.print_to_stdstream = before
    assert (tmp_path / "ray.log").read_text() == "Raylet is terminated.\n"
    assert capsys.readouterr().out == ""
