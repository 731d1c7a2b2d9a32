"""The secrets of a graph -> the graph as it may be stored and shown.

A value is secret if the name of its key or of its environment variable says so, if it is written
`${secret:NAME}`, if a URL holds it as a password, or if the task's class declares it as `SecretStr`,
which is known only when the class is.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr

from flowrun.runtime.graph import keys
from flowrun.runtime.graph.keys import plain_section
from flowrun.runtime.graph.spec import ConnectionSpec, GraphSpec, LoggingSpec, RuntimeSpec, TaskSpec
from flowrun.runtime.graph.values import VARIABLE, is_secret_place
from flowrun.runtime.task import TaskConfig
from flowrun.runtime.wording import MASK, mask_secrets, mask_urls, mask_within, says_secret

__all__ = ["declares_secret", "masked_graph", "with_secrets_masked"]

_Path = tuple[str | int, ...]

_SHORTEST_ELSEWHERE = 12
"""Length of the shortest secret that is masked elsewhere in the graph too, as in a server's command.
Shorter ones are mostly stand-ins (`api_key: ollama`) that are also the names of other things."""

_NODE = re.compile(r"(?s)((?:[&!]\S*\s+)*)(.*?)(\s*)")
"""Anchors and tags, the scalar, and the white space after a block scalar."""


def with_secrets_masked(graph: GraphSpec, configs: Mapping[str, TaskConfig]) -> GraphSpec:
    """`graph` with the secrets of `configs` added to those of its tasks, and masked in `masked_config`
    and `stored_text`.

    configs: task id -> the task's validated config.
    """
    found = {task.id: dict(_secrets_in(configs[task.id], ())) for task in graph.tasks}
    named = {
        task.scalars[path]
        for task in graph.tasks
        for path in task.scalars
        if is_secret_place(path, _get(task.config, path))
    }
    declared = {place for task in graph.tasks for place in _places(task, found[task.id])}
    others = {place for task in graph.tasks for place in task.scalars.values()}
    named |= _places_of_instances(graph, found)
    places = named | declared
    secrets = frozenset(secret for of_task in found.values() for secret in of_task.values())
    tasks = []
    for task in graph.tasks:
        shown: Any = task.masked_config
        for path, place in task.scalars.items():
            if place in declared:  # the place of an alias is that of its anchor
                shown = _put(shown, path)
        tasks.append(
            replace(
                task,
                masked_config=mask_within(shown, secrets, shortest=_SHORTEST_ELSEWHERE),
                secrets=task.secrets.union(found[task.id].values()),
            )
        )
    written = frozenset(text for task in graph.tasks for text in task.secrets) | secrets
    text = graph.text
    for start, end in sorted(places | others, reverse=True):
        node = text[start:end]
        node = _masked_node(node) if (start, end) in places else _shown_node(node, written)
        text = text[:start] + node + text[end:]
    graph = replace(graph, tasks=tuple(tasks))
    return replace(
        graph,
        stored_text=mask_secrets(text, written, shortest=_SHORTEST_ELSEWHERE),
        environment={
            name: value
            for name, value in graph.environment.items()
            if value not in secrets and mask_secrets(value, graph.secrets) == value
        },
    )


def masked_graph(graph: GraphSpec) -> dict[str, Any]:
    """`graph` as plain data with every default filled in, as it may be shown: values from the
    environment, secrets, and `user:password` in URLs are `***`."""
    return {
        **({} if graph.mission is None else {"missions": [graph.mission]}),
        "tasks": [_plain_task(task) for task in graph.tasks],
        "cnx": [_plain_connection(cnx) for cnx in graph.connections],
        "logging": _plain_logging(graph.logging),
        "runtime": _plain_runtime(graph.runtime),
        **_plain_partitions(graph),
    }


def declares_secret(name: str, annotation: Any) -> bool:
    """Whether a config's field is a secret by its name, being a text, or by its type."""
    types = [annotation, *typing.get_args(annotation)]
    return SecretStr in types or SecretBytes in types or (str in types and says_secret(name))


def _plain_task(task: TaskSpec) -> dict[str, Any]:
    said = plain_section(keys.TASK, task) | {"config": task.masked_config}
    del said["missions"]  # the graph is that of one mission
    if task.partition is None:
        del said["partition"]
    return said


def _plain_connection(cnx: ConnectionSpec) -> dict[str, Any]:
    said: dict[str, Any] = {"src": str(cnx.src), "dst": str(cnx.dst), "msg": cnx.msg}
    return said | ({"link": plain_section(keys.LINK, cnx.link)} if "link" in cnx.key_where else {})


def _plain_partitions(graph: GraphSpec) -> dict[str, Any]:
    """The partitions, without the values of their instances: the tasks have them."""
    if not graph.partitions:
        return {}
    made = {
        it.id: {
            **({"instances": {name: {} for name in it.processes}} if it.instances else {}),
            **({"replicas": it.replicas} if not it.instances else {}),
            "listen": [mask_urls(text) for text in it.listen],
            "connect": [mask_urls(text) for text in it.connect],
            "on_error": it.on_error,
            "recover": it.recover,
        }
        for it in graph.partitions
    }
    return {"partitions": made, "network": plain_section(keys.NETWORK, graph.network)}


def _plain_runtime(runtime: RuntimeSpec) -> dict[str, Any]:
    said = plain_section(keys.RUNTIME, runtime)
    background = {name: value for name, value in said["background"].items() if value is not None}
    said = {name: value for name, value in said.items() if value is not None or name == "rate_hz"}
    return said | {"background": background} if background else _without(said, "background")


def _without(said: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in said.items() if key != name}


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


def _places_of_instances(
    graph: GraphSpec, found: Mapping[str, Mapping[_Path, str]]
) -> set[tuple[int, int]]:
    """The places of secrets among the values of all instances, also of those that run elsewhere."""
    declared = {path for of_task in found.values() for path in of_task}
    return {
        place
        for partition in graph.partitions
        for instance in partition.instances
        for path, place in instance.scalars.items()
        if path in declared or any(isinstance(key, str) and says_secret(key) for key in path)
    }


def _masked_node(node: str) -> str:
    """The text of a secret scalar as the log keeps it. Variables stay: a replay may have them."""
    match = _NODE.fullmatch(node)
    assert match is not None
    before, scalar, after = match.groups()
    variables = [found for found in VARIABLE.finditer(scalar) if found["name"]]
    if not variables:
        return f"{before}'{MASK}'{after}"
    written, end = [], 0
    for found in variables:
        written.append(scalar[end : found.start()])
        end = found.end()
    written.append(scalar[end:])
    if not any(text.strip("'\" \n") for text in written):
        return f"{before}{VARIABLE.sub(_masked_default, scalar)}{after}"
    parts = [MASK if written[0].strip("'\" \n") else ""]
    for found, text in zip(variables, written[1:], strict=True):
        parts += [_masked_default(found), MASK if text.strip("'\" \n") else ""]
    return f"{before}'{''.join(parts)}'{after}"


def _masked_default(found: re.Match[str]) -> str:
    if not found["default"]:
        return found[0]
    return f"${{{found['mark'] or ''}{found['name']}:-{MASK}}}"


def _shown_node(node: str, secrets: frozenset[str]) -> str:
    """The text of a scalar that is no secret itself, without the secrets in it: longer ones, and the
    defaults of secret variables."""
    shown = VARIABLE.sub(
        lambda found: (
            _masked_default(found)
            if found["mark"] or says_secret(found["name"] or "")
            else found[0]
        ),
        node,
    )
    masked = mask_secrets(shown, secrets, shortest=_SHORTEST_ELSEWHERE)
    match = _NODE.fullmatch(masked)
    assert match is not None
    before, scalar, after = match.groups()
    if not scalar.startswith(MASK):
        return masked
    quoted = scalar.replace("'", "''")  # in YAML an asterisk begins an alias
    return f"{before}'{quoted}'{after}"


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
