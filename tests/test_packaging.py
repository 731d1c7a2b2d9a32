"""What is installed is what is in the tree."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from support.paths import ROOT

FOLDERS = ("msgs", "runtime", "tasks")


def test_links_lead_to_the_folders() -> None:
    links = ROOT / ".src" / "flowrun"
    assert {link.name: link.resolve() for link in links.iterdir()} == {
        folder: ROOT / folder for folder in FOLDERS
    }


def test_torch_is_pinned_by_the_constraints() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all("==" in pin for pin in pins)
    assert any(pin.startswith("torch==") for pin in pins)


def test_command_is_installed() -> None:
    [command] = entry_points(group="console_scripts", name="flowrun")
    assert command.value == "flowrun.runtime.cli:main"
    assert callable(command.load())


@pytest.mark.parametrize("group", ["flowrun.tasks", "flowrun.commands"])
def test_tasks_and_commands_are_offered_by_the_installation(group: str) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    offered = {
        point.name: point
        for point in entry_points(group=group)
        if point.dist is not None and point.dist.name == "flowrun"
    }
    assert {name: point.value for name, point in offered.items()} == declared[group]
    for point in offered.values():
        point.load()


@pytest.mark.slow
def test_wheel_holds_everything(tmp_path: Path) -> None:
    copy = tmp_path / "project"
    for folder in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    shutil.copytree(ROOT / ".src" / "flowrun", copy / ".src" / "flowrun", symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    done = subprocess.run(
        [sys.executable, "-c", "from setuptools.build_meta import build_wheel as b; b('dist')"],
        cwd=copy,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    [wheel] = (copy / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tree = {
        f"flowrun/{path.relative_to(copy).as_posix()}"
        for folder in FOLDERS
        for path in (copy / folder).rglob("*")
        if path.is_file() and "training" not in path.parts
    }
    assert {name for name in names if name.startswith("flowrun/")} == tree
    assert {f"flowrun/{folder}/py.typed" for folder in FOLDERS} <= names
    assert "flowrun/runtime/server/page/index.html" in names
    assert "flowrun/tasks/embedded/model/model.safetensors" in names
    assert "flowrun/tasks/embedded/model/config.json" in names
