"""What the page keeps of what comes, without a browser: known.js in Node.js."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.paths import ROOT

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js"),
]

PAGE = ROOT / "runtime" / "server" / "page"
SETTING = """
globalThis.location = {search: ""};
globalThis.document = {baseURI: "http://localhost/", hidden: true};
const {Known} = await import("./known.js");
const known = new Known();
known.changed = () => {};
const line = (at, message) =>
  known.take("log", {timestamp_nanos: at, level: "info", task: "a", message, fields: {}});
const answer = cycle => known.take("result", {task: "vlm", cycle, timestamp_nanos: cycle * 1e8,
  response: "yes", prompt: "Is it?", latency_ms: 1, backend: "own"});
const alert = cycle =>
  known.take("alert", {task: "a", cycle, timestamp_nanos: cycle, text: "!", severity: "info"});
"""


@pytest.fixture
def shows(tmp_path: Path):
    """What an expression is after some statements."""
    page = tmp_path / "page"
    shutil.copytree(PAGE, page)
    (page / "package.json").write_text('{"type": "module"}')

    def run(statements: str, expression: str) -> Any:
        told = f"console.log(JSON.stringify({expression}));"
        (page / "test.js").write_text(f"{SETTING}{statements}\n{told}\n")
        done = subprocess.run(
            ["node", page / "test.js"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_every_line_is_kept_whatever_the_clock_says(shows) -> None:
    lines = 'line(2e18, "one"); line(2e18, "two"); line(1e18, "set back");'
    assert shows(lines, "known.lines.map(it => it.message)") == ["set back", "two", "one"]
    assert shows(lines + lines + 'line(1e18, "new");', "known.lines.map(it => it.message)") == [
        "new", "set back", "two", "one"
    ]  # fmt: skip


def test_what_has_come_is_known_again_and_costs_no_more_with_time(shows) -> None:
    few = 'line(1, "one"); alert(1);'
    many = f"{few} for (let n = 0; n < 9000; n++) answer(n); answer(8999); {few}"
    shown = "[known.answers[0].count, known.alerts.length, known.lines.length]"
    assert shows(many, shown) == [9000, 1, 1]
    assert shows(many, "known.came.answers.keys.size") == 500
