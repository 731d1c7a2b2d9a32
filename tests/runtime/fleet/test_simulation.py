"""All partitions in one process, on a network that fails by a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowrun.runtime.cli import main
from flowrun.runtime.errors import UsageError
from flowrun.runtime.fleet.simulation import FAULTS, Simulation, chosen_faults, simulated
from flowrun.runtime.graph.read import load_graph
from flowrun.runtime.graph.spec import PartId
from flowrun.runtime.links.receiver import Receiver

GRAPH = """\
partitions:
  a: {}
  b: {}
tasks:
  - {id: n, type: Counter, config: {limit: 60, rate_hz: 50}, partition: a}
  - {id: square, type: Square, partition: b}
cnx:
  - {src: n, dst: square, msg: IntMsg}
"""
pytestmark = pytest.mark.slow


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "g.yaml"
    path.write_text(GRAPH)
    return Path("g.yaml")


def executed(graph: Path, folder: Path, seed: int, faults: str) -> Simulation:
    parts = [PartId("a"), PartId("b")]
    graphs = {it: simulated(load_graph(graph, env={}, partition=str(it))) for it in parts}
    simulation = Simulation(graphs, folder, seed, chosen_faults(faults), 3_000_000_000)
    folder.mkdir()
    simulation.run()
    return simulation


def test_a_seed_gives_the_same_again(graph: Path, tmp_path: Path) -> None:
    one = executed(graph, tmp_path / "one", 5, "drop,dup,delay,flip,cut,kill")
    other = executed(graph, tmp_path / "other", 5, "drop,dup,delay,flip,cut,kill")
    assert one.happened
    assert (one.happened, one.digest, one.cycles) == (other.happened, other.digest, other.cycles)


def test_whatever_goes_wrong_each_message_comes_once(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = ",".join(FAULTS)
    assert main(["simulate", str(graph), "--seeds", "6", "--for", "3s", "--faults", faults]) == 0
    said = capsys.readouterr().out
    assert said.startswith("6 seeds, ")
    assert said.endswith("each message came once and in order, and all fleets replay identically\n")


def test_a_bug_is_found_and_its_seed_reproduces_it(
    graph: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that takes what comes twice, twice."""
    right = Receiver._offer

    def careless(self: Receiver, head: Any, payload: bytes, **options: Any) -> bool:
        is_last = (head.run, head.cycle) == (self.cursor.run, self.cursor.cycle - 1)
        if is_last and not options.get("repaired"):
            return self._append(head, payload)
        return right(self, head, payload, **options)

    monkeypatch.setattr(Receiver, "_offer", careless)
    assert main(["simulate", str(graph), "--seeds", "20", "--for", "3s", "--faults", "dup"]) == 1
    lines = capsys.readouterr().out.splitlines()
    seed = lines[0].removeprefix("seed ").removesuffix(" fails:")
    assert lines[1].startswith("  link a/0 -> b/0: cycle ")
    assert lines[1].endswith(" came twice")
    again = f"flowrun simulate g.yaml --seed {seed} --faults dup --for 3s"
    assert lines[-1] == f"  again: {again}"
    assert main(again.split()[1:]) == 1
    repeated = capsys.readouterr().out.splitlines()
    assert repeated[repeated.index(lines[0]) :] == lines
    assert Path("runs", f"simulated-g-{seed}", "fleet.json").is_file()


def test_an_unknown_fault_lists_those_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        chosen_faults("drop,kil")
    assert str(caught.value) == (
        "there is no fault 'kil'; faults: drop, dup, delay, flip, cut, kill (did you mean 'kill'?)"
    )


def test_a_graph_without_partitions_has_no_network(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph.write_text("tasks:\n  - {id: n, type: Counter}\n")
    assert main(["simulate", str(graph)]) == 2
    assert capsys.readouterr().err == (
        "g.yaml has no partitions: there is no network to simulate\n"
    )
