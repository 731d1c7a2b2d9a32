"""Every graph of the cookbook runs as its user would run it, without a network, a camera or a model of
the internet, and replays."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from flowrun.runtime.cli import main
from flowrun.runtime.graph.plan import load_plan
from flowrun.runtime.graph.unlogged import without_inputs
from flowrun.runtime.replay.graph import external_tasks
from support.paths import GRAPHS

COOKBOOK = sorted((GRAPHS / "cookbook").glob("*.yaml"))
CYCLES = 8
QUICK = {"boxes.yaml"}
"""Those that `make test` runs; `make test-all` runs all."""


@pytest.fixture
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the graphs' folder, so that what they write stays out of the repository."""
    graphs = tmp_path / "graphs"
    shutil.copytree(GRAPHS, graphs, ignore=shutil.ignore_patterns("__pycache__", "runs"))
    monkeypatch.chdir(tmp_path)
    return graphs / "cookbook"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(path.name, marks=() if path.name in QUICK else pytest.mark.long)
        for path in COOKBOOK
    ],
)
def test_a_graph_of_the_cookbook_runs_and_replays(
    name: str, kitchen: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    graph = kitchen / name
    words = [str(graph), "--plain", "--port", "-1", "--cycles", str(CYCLES), "--log-dir", "runs"]
    status = main(words)
    said = capfd.readouterr()
    skip_without_an_extra(said.err)
    assert status == 0, said.err
    assert f"{graph.stem}: {CYCLES} cycles in " in said.out
    [run] = Path("runs").glob("[!.]*")

    assert main(["replay", str(run)]) == 0, capfd.readouterr()
    said = capfd.readouterr()
    plan = load_plan(graph, env={})
    left = {task.id for task in plan.graph.tasks}
    left = left.difference(without_inputs(plan), external_tasks(plan))
    tasks = [task for task in plan.graph.tasks if task.id in left]
    if any({port.is_input for port in task.ports} == {True, False} for task in tasks):
        assert " identical" in said.out
    else:  # sources and sinks alone, and what is fed or has no inputs in a replay
        assert "nothing to compare" in said.out


@pytest.mark.parametrize("path", COOKBOOK, ids=lambda path: path.name)
def test_a_graph_of_the_cookbook_is_right_and_says_at_its_top_what_it_shows(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert path.read_text().startswith("# ")
    status = main(["check", str(path)])
    said = capfd.readouterr()
    skip_without_an_extra(said.err)
    assert status == 0, said.err


def skip_without_an_extra(said: str) -> None:
    """Skip the test where a package is missing that an extra of flowrun brings, or a display."""
    absent = re.search(r"needs .*: (pip|apt) install .*|no display", said)
    if absent is not None:
        pytest.skip(absent[0])
