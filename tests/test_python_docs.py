"""What docs/python.md and the README say of graphs in Python is true: their scripts run as shown."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")

pytestmark = [pytest.mark.slow, pytest.mark.long]


def scripts(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def run(folder: Path, script: str, name: str = "my_script.py") -> str:
    (folder / name).write_text(script)
    done = subprocess.run(
        [sys.executable, name],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "graphs").symlink_to(ROOT / "graphs")
    return tmp_path


def replayed(folder: Path, pattern: str) -> str:
    [directory] = (folder / "runs").glob(pattern)
    command = [sys.executable, "-m", "flowrun", "replay", directory]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_five_lines_run_and_replay(folder: Path) -> None:
    said = run(folder, scripts(PAGE)[0]).splitlines()
    assert len(said) == 3
    assert all(line.startswith("Result(value={'brightness': ") for line in said)
    assert "on_frame 3" in replayed(folder, "pipeline-*")


def test_a_graph_runs_and_replays(folder: Path) -> None:
    assert run(folder, scripts(PAGE)[1]) == "the limit of 4 cycles\n"
    replayed(folder, "inference-*")


def test_a_run_is_read_while_it_goes_on_and_then_as_a_log(folder: Path) -> None:
    pytest.importorskip("pandas")
    assert run(folder, scripts(PAGE)[2]) == "0\n3\n6\n9\n12\nend of sources\n"
    replayed(folder, "doubles-*")
    [directory] = (folder / "runs").glob("doubles-*")
    for script in scripts(PAGE)[3:]:
        shown = script.replace("doubles-20260301T081502Z", directory.name)
        shown = shown.replace("[120]", "[3]").replace(".identical", ".identical or 1 / 0")
        run(folder, shown, "later.py")


def test_the_five_lines_of_the_readme_run(folder: Path) -> None:
    section = README.split("\n## In Python\n", 1)[1].split("\n## ", 1)[0]
    [script] = scripts(section)
    assert len(script.strip().splitlines()) <= 12
    said = run(folder, script)
    assert said.count("Result(value=") == 3
