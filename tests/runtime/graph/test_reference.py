"""The reference pages, docs/graph.md and docs/task-config.md."""

from __future__ import annotations

import pytest

from flowrun.runtime.cli import main
from flowrun.runtime.graph.find import task_types
from flowrun.runtime.graph.reference import graph_reference, tasks_reference
from flowrun.runtime.wording import listed
from support.paths import ROOT

DOCS = ROOT / "docs"


def test_the_pages_say_what_the_code_does() -> None:
    own = {
        name: points
        for name, points in task_types().items()
        if points[0].value.startswith("flowrun.")
    }
    pages = {"graph.md": graph_reference(), "task-config.md": tasks_reference(own)}
    for name, text in pages.items():
        assert text == (DOCS / name).read_text(encoding="utf-8"), "run: make reference"


def test_the_command_prints_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "flowrun.runtime.cli.schema.tasks_reference", lambda types: f"{listed(types)}\n"
    )
    for words, text in (
        ([], graph_reference()),
        (["graph"], graph_reference()),
        (["tasks"], f"{listed(task_types())}\n"),
    ):
        assert main(["schema", "--markdown", *words]) == 0
        assert capsys.readouterr().out == text
