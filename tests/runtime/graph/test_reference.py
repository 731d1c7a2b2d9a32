"""The reference page of graph files, docs/graph.md."""

from __future__ import annotations

import pytest

from flowrun.runtime.cli import main
from flowrun.runtime.graph.find import task_types
from flowrun.runtime.graph.reference import graph_reference
from flowrun.runtime.wording import listed
from support.paths import ROOT

PAGE = ROOT / "docs" / "graph.md"


def test_the_page_says_what_the_code_does() -> None:
    own = {
        name: points
        for name, points in task_types().items()
        if points[0].value.startswith("flowrun.")
    }
    assert graph_reference(own) == PAGE.read_text(encoding="utf-8"), "run: make reference"


def test_the_command_prints_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "flowrun.runtime.cli.schema.graph_reference", lambda types: f"{listed(types)}\n"
    )
    assert main(["schema", "--markdown"]) == 0
    assert capsys.readouterr().out == f"{listed(task_types())}\n"
