"""Secrets that a graph's configs declare (`SecretStr`) -> the graph as it may be stored and shown.

What comes from `${ENV}` is masked where it is read. A password that is written in the file itself is
known to be one only when the task's class is known.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr

from flowrun.runtime.graph import keys
from flowrun.runtime.graph.keys import plain_section
from flowrun.runtime.graph.spec import GraphSpec, LoggingSpec, TaskSpec
from flowrun.runtime.task import TaskConfig
from flowrun.runtime.wording import MASK, mask_secrets

__all__ = ["masked_graph", "with_secrets_masked"]

_Path = tuple[str | int, ...]

_SHORTEST_ELSEWHERE = 12
"""Length of the shortest secret that is masked elsewhere in the graph too, as in a server's command.
Shorter ones are mostly stand-ins (`api_key: ollama`) that are also the names of other things."""

_NODE = re.compile(r"(?s)((?:[&!]\S*\s+)*)(.*?)(\s*)")
"""Anchors and tags, the scalar, and the white space after a block scalar."""

_DEFAULT = re.compile(r"(\$\{\w+:-)[^}]+")


def with_secrets_masked(graph: GraphSpec, configs: Mapping[str, TaskConfig]) -> GraphSpec:
    """`graph` with the secrets of `configs` added to those of its tasks, and masked in `masked_config`
    and `stored_text`.

    configs: task id -> the task's validated config.
    """
    found = {task.id: dict(_secrets_in(configs[task.id], ())) for task in graph.tasks}
    places = {place for task in graph.tasks for place in _places(task, found[task.id])}
    secrets = frozenset(secret for of_task in found.values() for secret in of_task.values())
    tasks = []
    for task in graph.tasks:
        shown: Any = task.masked_config
        for path, place in task.scalars.items():
            if place in places:  # the place of an alias is that of its anchor
                shown = _put(shown, path)
        tasks.append(
            replace(
                task,
                masked_config=_without(shown, secrets),
                secrets=task.secrets.union(found[task.id].values()),
            )
        )
    text = graph.text
    for start, end in sorted(places, reverse=True):
        text = text[:start] + _masked_node(text[start:end]) + text[end:]
    return replace(graph, tasks=tuple(tasks), stored_text=_without(text, secrets))


def masked_graph(graph: GraphSpec) -> dict[str, Any]:
    """`graph` as plain data with every default filled in, as it may be shown: values from the
    environment, secrets, and `user:password` in URLs are `***`."""
    return {
        "tasks": [
            {**plain_section(keys.TASK, task), "config": task.masked_config} for task in graph.tasks
        ],
        "cnx": [
            {"src": str(cnx.src), "dst": str(cnx.dst), "msg": cnx.msg} for cnx in graph.connections
        ],
        "logging": _plain_logging(graph.logging),
        "runtime": plain_section(keys.RUNTIME, graph.runtime),
    }


def _plain_logging(logging: LoggingSpec) -> dict[str, Any]:
    said = plain_section(keys.LOGGING, logging)
    said["keep"] = {name: value for name, value in said["keep"].items() if value is not None}
    if logging.mode != "ring":
        del said["keep_slabs"]  # a graph file may not hold it then
    return said


def _secrets_in(value: Any, path: _Path) -> Iterator[tuple[_Path, str]]:
    if isinstance(value, (SecretStr, SecretBytes)):
        secret = value.get_secret_value()
        if secret:
            yield path, secret if isinstance(secret, str) else secret.decode(errors="replace")
    elif isinstance(value, BaseModel):
        for name, info in type(value).model_fields.items():
            alias = info.validation_alias
            key = alias if isinstance(alias, str) else name
            yield from _secrets_in(getattr(value, name), (*path, key))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _secrets_in(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _secrets_in(item, (*path, i))


def _places(task: TaskSpec, found: Mapping[_Path, str]) -> Iterator[tuple[int, int]]:
    """The places of the secrets in the file. Where a validator has moved one, these are the places of
    all equal values in the task's config."""
    for path, secret in found.items():
        if path in task.scalars:
            yield task.scalars[path]
        else:
            for other, place in task.scalars.items():
                if _get(task.config, other) == secret:
                    yield place


def _masked_node(node: str) -> str:
    match = _NODE.fullmatch(node)
    assert match is not None
    before, scalar, after = match.groups()
    # `${NAME` stays: a replay may have the variable.
    masked = _DEFAULT.sub(rf"\1{MASK}", scalar) if "${" in scalar else f"'{MASK}'"
    return f"{before}{masked}{after}"


def _get(value: Any, path: _Path) -> Any:
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _put(value: Any, path: _Path) -> Any:
    """A copy of `value` with the mask at `path`; `value` itself where it holds nothing there."""
    if not path:
        return MASK
    if _get(value, path) is None:
        return value
    made = value.copy()
    made[path[0]] = _put(value[path[0]], path[1:])
    return made


def _without(value: Any, secrets: Collection[str]) -> Any:
    """`value` with the longer ones of `secrets` masked in its texts."""
    if isinstance(value, dict):
        return {key: _without(item, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [_without(item, secrets) for item in value]
    if isinstance(value, str):
        return mask_secrets(value, secrets, shortest=_SHORTEST_ELSEWHERE)
    return value
