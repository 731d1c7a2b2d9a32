"""docs/ci.md: its commands print what it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.paths import ROOT

PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.long
def test_the_page_goes_as_it_says(tmp_path):
    (tmp_path / "light.py").write_text(blocks("python")[0])
    (tmp_path / "light.yaml").write_text(blocks("yaml")[0])
    for block in blocks("console"):
        for step in block.removeprefix("$ ").split("\n$ "):
            command, *shown = step.rstrip().split("\n")
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=tmp_path,
                env={**os.environ, "PATH": PATH},
                capture_output=True,
                text=True,
                check=False,
            )
            pattern = "\n".join(re.escape(line).replace("…", ".*") for line in shown)
            assert re.fullmatch(f"(?s){pattern}\n?", done.stdout) or not shown, done
            assert done.returncode == int("1 changed" in pattern.replace("\\", "")), done


def test_the_workflow_gives_the_action_what_it_takes():
    [workflow] = [it for it in map(yaml.safe_load, blocks("yaml")) if "jobs" in it]
    given = workflow["jobs"]["recorded"]["steps"][-1]["with"]
    assert given.keys() <= yaml.safe_load((ROOT / "action.yml").read_text())["inputs"].keys()
