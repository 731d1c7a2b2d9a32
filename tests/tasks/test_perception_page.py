"""docs/perception.md: each task is configured as it may be, and each graph that is named is there."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module

import pytest
import yaml

from support.paths import ROOT

PAGE = (ROOT / "docs" / "perception.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
TASKS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][
    "flowrun.tasks"
]


@pytest.mark.parametrize("text", BLOCKS)
def test_tasks_are_configured_as_shown(text: str) -> None:
    for task in yaml.safe_load(text)["tasks"]:
        module, _, name = TASKS[task["type"]].partition(":")
        config = getattr(import_module(module), name).Config(**task.get("config", {}))
        assert config.model_fields_set == set(task.get("config", {}))


def test_the_graphs_that_are_named_are_there() -> None:
    named = re.findall(r"\]\(\.\./(graphs/[^)]*)\)", PAGE)
    assert len(named) > 3
    assert all((ROOT / path).exists() for path in named)
