"""`flowrun schema`."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from typing import Any

import jsonschema
import pytest
import yaml

from flowrun.runtime.cli import main
from flowrun.runtime.graph.find import task_types
from flowrun.runtime.graph.schema import graph_schema
from support.paths import GRAPHS


@cache
def schema() -> Any:
    return graph_schema()


def mistakes(text: str) -> list[str]:
    validator = jsonschema.Draft202012Validator(schema())
    return [error.message for error in validator.iter_errors(yaml.safe_load(text))]


def test_it_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(printed)
    assert printed["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("name", ["minimal", "caterpillar"])
def test_the_graphs_that_ship_are_valid(name: str) -> None:
    assert mistakes((GRAPHS / f"{name}.yaml").read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "tasks: [{id: a, type: Counter, config: {limit: '${N}'}}]",
        "tasks: [{id: a, type: Counter, config: }]",
        "tasks: [{id: a, type: my.Own, config: {any: thing}}]",
        "tasks: [{id: a, type: Counter}]\ncnx:\nlogging:\nruntime:",
    ],
)
def test_what_the_runtime_takes_is_valid(text: str) -> None:
    assert mistakes(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "cnx: []",
        "tasks: []",
        "tasks: [{id: a, type: Counter, config: {limt: 5}}]",
        "tasks: [{id: a, type: Counter, config: {limit: -5}}]",
        "tasks: [{id: a, type: Countr}]",
        "tasks: [{id: 1a, type: Counter}]",
        "tasks: [{id: a, type: Counter}]\ncnx: [{src: a, dst: b, msg: IntMesg}]",
        "tasks: [{id: a, type: Counter}]\nruntime: {ring_size: 0}",
    ],
)
def test_what_the_runtime_refuses_is_invalid(text: str) -> None:
    assert mistakes(text)


def undescribed(schema: Any, path: str = "") -> list[str]:
    """The keys without a description, at any depth; "allOf" only picks the config for a type."""
    if isinstance(schema, list):
        return [name for item in schema for name in undescribed(item, path)]
    if not isinstance(schema, dict):
        return []
    properties = schema.get("properties", {})
    lacking = [f"{path}.{key}" for key, inner in properties.items() if not inner.get("description")]
    for name, inner in schema.items():
        if name != "allOf":
            lacking += undescribed(inner, f"{path}.{name}")
    return lacking


def test_every_key_is_described() -> None:
    assert undescribed(schema()) == []


def test_it_describes_the_config_of_every_task_type() -> None:
    assert task_types().keys() <= schema()["$defs"].keys()


@pytest.mark.slow
def test_it_loads_no_model_library() -> None:
    code = (
        "import sys; from flowrun.runtime.cli import main; main(['schema']); "
        "print(*{'torch', 'transformers'} & set(sys.modules), file=sys.stderr)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stderr.strip() == ""
