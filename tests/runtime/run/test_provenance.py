"""What a log says of the code of its tasks."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from flowrun.runtime.graph.plan import load_plan
from flowrun.runtime.run import provenance as module
from flowrun.runtime.run.provenance import provenance

TASK = (
    "from flowrun.msgs import IntMsg\n"
    "from flowrun.runtime.task import Context, Output, Task\n"
    "class Dice(Task):\n"
    "    def process(self, ctx: Context, out: Output[IntMsg]) -> None: ...\n"
)


def said(folder: Path, task_type: str) -> dict[str, str]:
    """What is said of the code of a graph of one task."""
    (folder / "g.yaml").write_text(f"tasks: [{{id: n, type: {task_type}}}]\n")
    found = provenance(load_plan(folder / "g.yaml", env={}))
    return {key: text for key, text in found.items() if "dice" in key}


def test_a_task_in_the_graphs_folder_has_a_hash_and_nothing_installed_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dice_here.py").write_text(TASK)
    monkeypatch.setattr(module, "packages_distributions", pytest.fail)
    module._packages.cache_clear()
    digest = hashlib.sha256(TASK.encode()).hexdigest()
    assert said(tmp_path, "dice_here.Dice") == {"code_dice_here": digest}


def test_a_task_of_an_installed_package_has_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "packages"
    info = packages / "more_dice-2.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: more-dice\nVersion: 2.5\n")
    (info / "top_level.txt").write_text("dice_installed\n")
    (packages / "dice_installed.py").write_text(TASK)
    monkeypatch.syspath_prepend(packages)
    module._packages.cache_clear()
    assert said(tmp_path, "dice_installed.Dice") == {"version_more-dice": "2.5"}
    module._packages.cache_clear()
