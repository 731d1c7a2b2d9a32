"""`flowrun up --ray`, on a real Ray of this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowrun.runtime.cli import main
from flowrun.runtime.errors import UsageError
from flowrun.runtime.fleet.ray import RayPlacement
from flowrun.runtime.fleet.record import fleet_runs
from flowrun.runtime.graph.read import parse_graph
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
    from flowrun.runtime.fleet.ray import RayPlacement

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
    monkeypatch.setattr(ray, "get", lambda asked, **more: (next(hosts), real_get(asked, **more)[1]))
    spec = parse_graph(graph(network="insecure: true"), path=Path("g.yaml"), env={})
    places = placement.places(spec)
    assert [it.address.rpartition(":")[0] for it in places.values()] == [
        "tcp/10.0.0.1",
        "tcp/10.0.0.2",
    ]
    assert {tuple(it.settings) for it in places.values()} == {()}
    with pytest.raises(UsageError, match="its partitions are on several nodes; say network: "):
        placement.places(parse_graph(graph(), path=Path("g.yaml"), env={}))
