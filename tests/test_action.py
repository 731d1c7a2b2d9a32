"""The GitHub Action: its steps run as GitHub runs them, in a repository that a pull request changes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from flowrun.runtime.cli import main

ACTION = Path(__file__).parent.parent / "action.yml"
CODE = """
from flowrun.msgs import BoolMsg, IntMsg
from flowrun.runtime.task import Context, Output, Task, task


class Counted(Task):
    def start(self, ctx: Context) -> None:
        self.count = 0

    def process(self, ctx: Context, number: Output[IntMsg]) -> None:
        self.count += 1
        number.value = self.count
        number.publish()


@task
def is_busy(number: IntMsg) -> BoolMsg:
    return BoolMsg(value=number.value >= 3)
"""
GRAPH = """
tasks: [{id: n, type: counts.Counted}, {id: busy, type: counts.is_busy}]
cnx: [{src: n, dst: busy, msg: IntMsg}]
"""


def steps(**inputs: str) -> list[dict[str, Any]]:
    """The steps that run commands, with GitHub's expressions replaced."""
    text = ACTION.read_text()
    action = yaml.safe_load(text)
    values = {name: it.get("default", "") for name, it in action["inputs"].items()} | inputs
    known = {f"inputs.{name}": value for name, value in values.items()} | {
        "github.server_url": "https://github.example",
        "github.repository": "ann/yard",
        "github.run_id": "7",
        "github.token": "t",
        "github.event.pull_request.number": "12",
    }

    def filled(value: str) -> str:
        found = re.sub(r"\$\{\{ ([\w.]+) \}\}", lambda it: known.get(it[1], it[0]), value)
        return known["github.token"] if found == "${{ github.token }}" else found

    return [
        {**step, "env": {name: filled(value) for name, value in step.get("env", {}).items()}}
        for step in action["runs"]["steps"]
        if "run" in step
    ]


def run(step: dict[str, Any], folder: Path, **outputs: str) -> subprocess.CompletedProcess[str]:
    env = {name: outputs.get(value, value) for name, value in step["env"].items()}
    own = {
        "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "GITHUB_OUTPUT": str(folder / "output"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary"),
    }
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=folder,
        env={**os.environ, **env, **own},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.long
def test_a_pull_request_that_flips_an_answer_gets_its_comment(tmp_path, monkeypatch):
    (tmp_path / "counts.py").write_text(CODE)
    (tmp_path / "g.yaml").write_text(GRAPH)
    monkeypatch.chdir(tmp_path)
    assert main(["g.yaml", "--plain", "--cycles", "4", "--log-dir", "golden"]) == 0
    [recorded] = (tmp_path / "golden").glob("g-*")
    recorded.rename(tmp_path / "golden" / "yard")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gh").write_text('#!/bin/sh\necho "$@" > asked\ncat "$7" > said\n')
    (tmp_path / "bin" / "gh").chmod(0o755)

    install, replay, comment, verdict = steps(install="touch installed")
    assert run(install, tmp_path).returncode == 0
    assert (tmp_path / "installed").exists()
    assert run(replay, tmp_path).returncode == 0
    assert "identical=true" in (tmp_path / "output").read_text()

    (tmp_path / "counts.py").write_text(CODE.replace(">= 3", ">= 4"))
    (tmp_path / "output").unlink()
    assert run(replay, tmp_path).returncode == 0
    outputs = dict(line.split("=") for line in (tmp_path / "output").read_text().splitlines())
    assert outputs == {"identical": "false", "status": "1"}
    assert run(comment, tmp_path).returncode == 0
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith("pr comment 12 --repo ann/yard --body-file flowrun-ci/comment.md")
    said = (tmp_path / "said").read_text()
    assert said.startswith("### flowrun: 1 recorded run: 1 changed")
    assert "| 2 |  | busy.out | value | True | False |" in said
    assert "https://github.example/ann/yard/actions/runs/7" in said
    assert said in (tmp_path / "summary").read_text()
    done = run(verdict, tmp_path, **{"${{ steps.replay.outputs.status }}": outputs["status"]})
    assert done.returncode == 1


def test_every_input_is_used_and_described():
    action = yaml.safe_load(ACTION.read_text())
    text = ACTION.read_text()
    for name, it in action["inputs"].items():
        assert it["description"]
        assert f"inputs.{name}" in text
