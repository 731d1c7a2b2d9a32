"""The site of the documentation: a page for each thing that there is, and no link that leads nowhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from flowrun.runtime import cli
from flowrun.runtime.graph.find import message_types, task_types
from support.paths import ROOT

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    """The generated pages."""
    code = "import json, reference; print(json.dumps(reference.pages()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "docs", capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_everything_has_its_place(reference):
    names = {path.removesuffix(".md") for path in reference}
    assert {f"tasks/{name}" for name in task_types()} <= names
    assert {f"messages/{name}" for name in message_types()} <= names
    verbs = set(re.findall(r"^## flowrun (\S+)$", reference["commands.md"], re.MULTILINE))
    assert verbs == {*cli._VERBS}
    assert "### flowrun log export" in reference["commands.md"]
    for path in ("/api/v0/report", "/api/v0/publish/{port}", "/api/v0/pipeline/restart"):
        assert f" {path}\n" in reference["http-api.md"]
    api = reference["python.md"]
    for name in ("Graph.add", "LiveRun.messages", "Context.now_ns", "run_task", "Log.frames"):
        assert f"# {name}\n" in api
    assert "    log_dir: str | Path | None = 'runs',\n" in api
    assert "- `mission`: the mission to run; None for the first one.\n" in api
    assert "```python\nwith graph.start() as run:\n" in api
    page = reference["tasks/VideoCapture.md"]
    assert "| `timeout_s` | number (above 0 and at most 1000000000) |" in page
    assert "[ImageRgb8Msg](../messages/ImageRgb8Msg.md)" in page
    assert "{source_uri: test}" in page


@pytest.mark.parametrize(
    ("wrong", "status", "said"),
    [
        ("", 0, "Documentation built"),
        (
            "[a](nowhere.md) [b](cameras.md#nowhere) [c](../runtime/nowhere.py)\n",
            1,
            "Aborted with 3 warnings in strict mode!",
        ),
    ],
)
def test_every_link_leads_somewhere(tmp_path, wrong, status, said):
    pytest.importorskip("mkdocs")
    for path in ROOT.iterdir():
        if path.name == "docs":
            shutil.copytree(path, tmp_path / "docs")
        elif not path.name.startswith("."):
            (tmp_path / path.name).symlink_to(path)
    subprocess.run([sys.executable, "docs/reference.py"], cwd=tmp_path, check=True)
    with (tmp_path / "docs" / "labels.md").open("a") as file:
        file.write(wrong)
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "built"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert (done.returncode, said in done.stdout + done.stderr) == (status, True), done.stderr
    if not status:
        page = (
            tmp_path / "built" / "reference" / "tasks" / "VideoCapture" / "index.html"
        ).read_text()
        assert "source_uri" in page
        assert '<script src="http' not in page  # it asks no other server for anything
