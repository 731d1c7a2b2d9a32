"""`flowrun plan`."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowrun.runtime.cli import main
from support.paths import ROOT

PARTS = """
from flowrun.msgs import IntMsg, TextMsg
from flowrun.runtime.task import Context, Input, Output, Task


class Add(Task):
    def process(
        self,
        ctx: Context,
        left: Input[IntMsg],
        label: Input[TextMsg] | None,
        total: Output[IntMsg],
    ) -> None: ...
"""


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_the_table_shows_steps_ports_and_where_inputs_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plan_parts.py").write_text(PARTS)
    Path("g.yaml").write_text(
        "tasks:\n"
        "  - {id: show, type: Print, logging: {enabled: false}}\n"
        "  - {id: sum, type: plan_parts.Add, background: true}\n"
        "  - {id: counter, type: Counter}\n"
        "cnx:\n"
        "  - {src: counter, dst: sum, msg: IntMsg}\n"
        "  - {src: sum, dst: show, msg: IntMsg}\n"
    )
    assert main(["plan", "g.yaml"]) == 0
    assert capsys.readouterr().out == (
        "g.yaml: 3 tasks, 2 connections\n"
        "\n"
        "step  task     type               reads                        writes\n"
        "1     counter  Counter                                         count: IntMsg\n"
        "2     sum      Add, background    left <- counter.count        total: IntMsg\n"
        "                                  label <- nothing (optional)\n"
        "3     show     Print, not logged  number <- sum.total\n"
    )


def test_a_picture_can_go_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "minimal.svg"
    assert main(["plan", "graphs/minimal.yaml", "--format", "svg", "-o", str(path)]) == 0
    assert path.read_text().startswith("<svg ")
    assert main(["plan", "graphs/minimal.yaml", "--format", "mermaid"]) == 0
    assert capsys.readouterr().out.startswith("flowchart LR\n")


def test_a_file_that_cannot_be_written_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none" / "minimal.svg"
    assert main(["plan", "graphs/minimal.yaml", "-o", str(path)]) == 2
    assert capsys.readouterr().err == f"cannot write {path}: No such file or directory\n"


def test_each_mission_has_a_plan_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("part.yaml").write_text("tasks: [{id: count, type: Counter}]\n")
    Path("g.yaml").write_text(
        "missions: [day, night]\n"
        "includes: [{path: part.yaml}]\n"
        "tasks: [{id: show, type: Print, missions: [day]}]\n"
        "cnx: [{src: count, dst: show, msg: IntMsg}]\n"
    )
    assert main(["plan", "g.yaml", "--set", "count.limit=3"]) == 0
    assert capsys.readouterr().out == (
        "g.yaml, mission day: 2 tasks, 1 connection\n"
        "\n"
        "step  task   type                     reads                  writes\n"
        "1     count  Counter, from part.yaml                         count: IntMsg\n"
        "2     show   Print                    number <- count.count\n"
        "\n"
        "g.yaml, mission night: 1 task, 0 connections\n"
        "\n"
        "step  task   type                     reads  writes\n"
        "1     count  Counter, from part.yaml         count: IntMsg\n"
    )
    assert main(["plan", "g.yaml", "--format", "mermaid"]) == 0
    assert capsys.readouterr().out == (
        "flowchart LR\n"
        '    subgraph m0["mission day"]\n'
        '        m0t0(["count<br/>Counter, part.yaml"])\n'
        '        m0t1["show<br/>Print"]\n'
        '        m0t0 -- "count: IntMsg" --> m0t1\n'
        "    end\n"
        '    subgraph m1["mission night"]\n'
        '        m1t0(["count<br/>Counter, part.yaml"])\n'
        "    end\n"
    )
    assert main(["plan", "g.yaml", "--format", "svg"]) == 0
    assert ">mission night</text>" in capsys.readouterr().out
    assert main(["plan", "g.yaml", "--mission", "night"]) == 0
    assert "mission day" not in capsys.readouterr().out
    assert main(["plan", "g.yaml", "--mission", "dya"]) == 2
    assert "did you mean 'day'?" in capsys.readouterr().err


def test_partitions_are_a_column_and_links_are_listed(tmp_path, capsys):
    path = tmp_path / "g.yaml"
    path.write_text(
        "partitions: {one: {}, two: {}}\n"
        "tasks:\n"
        "  - {id: n, type: Counter, partition: one}\n"
        "  - {id: show, type: Print, partition: two}\n"
        "cnx: [{src: n, dst: show, msg: IntMsg, link: {deliver: latest, max_age_ms: 50}}]\n"
    )
    assert main(["plan", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "step  task  partition  type     reads              writes",
        "1     n     one        Counter                     count: IntMsg",
        "2     show  two        Print    number <- n.count",
        "",
        "link  one -> two: n.count (IntMsg), latest, at most 50 ms old",
    ]
