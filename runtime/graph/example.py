"""A graph file that uses a task, with tasks before it that make what it reads: `flowrun tasks NAME`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from flowrun.msgs.message import Message
from flowrun.runtime.errors import FlowrunError
from flowrun.runtime.graph.find import TaskTypes, find_task_class, message_name
from flowrun.runtime.graph.ports import Port, ports_for
from flowrun.runtime.graph.schema import config_schema
from flowrun.runtime.task import Task

__all__ = ["Example"]


class Example:
    """Makes graph files: one for a task, with tasks before it that make what it reads."""

    def __init__(self, types: TaskTypes, folder: Path) -> None:
        self._tasks: list[tuple[str, str, dict[str, Any]]] = []
        self._connections: list[tuple[str, str, str]] = []
        self._known: dict[str, tuple[type[Task], tuple[Port, ...]]] = {}
        """The task types that can be imported here, and their ports."""
        for name in types:
            with contextlib.suppress(FlowrunError):
                kind = find_task_class(name, folder=folder, types=types)
                self._known[name] = kind, ports_for(kind, _config_of(kind, kind.example_config))
        self._made: dict[type[Message], str] = {}
        """Which task makes a message, of those that the graph has."""

    def of(self, name: str, kind: type[Task]) -> str:
        id_ = self._id_of(name)
        config = dict(kind.example_config) or _required(kind)
        missing = self._add(name, id_, kind, config, depth=4)
        lines = [f"# {it}" for it in missing]
        lines.append("tasks:")
        for task, type_, values in self._tasks:
            lines.append(f"  - id: {task}")
            lines.append(f"    type: {type_}")
            if values:
                shown = yaml.safe_dump(values, default_flow_style=True, sort_keys=False, width=1000)
                lines.append(f"    config: {shown.rstrip()}")
        if self._connections:
            lines.append("cnx:")
        for src, dst, msg in self._connections:
            lines.append(f"  - {{src: {src}, dst: {dst}, msg: {msg}}}")
        return "\n".join(lines) + "\n"

    def _add(
        self, name: str, id_: str, kind: type[Task], config: dict[str, Any], *, depth: int
    ) -> list[str]:
        """Add a task, and what it needs before it; what nobody makes, in words."""
        missing = []
        ports = ports_for(kind, _config_of(kind, config))
        inputs = [port for port in ports if port.is_input]
        connections = []
        for port in inputs:
            made = self._maker(self._wanted(kind, config, port), depth)
            if made is None:
                if port.required:
                    message = message_name(port.message_type)
                    missing.append(f"{id_} needs a task that publishes {message}")
                continue
            source, message_type = made
            several = sum(issubclass(message_type, it.message_type) for it in inputs) > 1
            dst = f"{id_}.{port.name}" if several else id_
            connections.append((source, dst, message_name(message_type)))
        self._tasks.append((id_, name, config))
        self._connections += connections
        for port in ports:
            if port.is_output:
                several = (
                    sum(it.message_type is port.message_type for it in ports if it.is_output) > 1
                )
                self._made.setdefault(port.message_type, f"{id_}.{port.name}" if several else id_)
        return missing

    def _wanted(self, kind: type[Task], config: Mapping[str, Any], port: Port) -> type[Message]:
        """The message to connect to an input: of its class, or of a narrower one where the task asks for
        that."""
        checked = _config_of(kind, config)
        if checked is None:
            return port.message_type
        published = {
            it.message_type for _, ports in self._known.values() for it in ports if it.is_output
        }
        narrower = sorted(
            (it for it in published if issubclass(it, port.message_type)),
            key=lambda it: it.__name__,
        )
        return next(
            (
                it
                for it in (port.message_type, *narrower)
                if not any(kind.check_inputs(checked, {port.name: it}))
            ),
            port.message_type,
        )

    def _maker(self, message: type[Message], depth: int) -> tuple[str, type[Message]] | None:
        """The task of the graph that publishes `message`, which is added if need be, and what it does
        publish; None: there is none."""
        if (found := self._found(message)) is not None:
            return found
        best: tuple[int, str, type[Task]] | None = None
        for name in self._known:
            cost = self._cost(name, message, depth)
            if cost is not None and (best is None or cost[0] < best[0]):
                best = cost[0], name, cost[1]
        if best is None:
            return None
        _, name, kind = best
        config = dict(kind.example_config) or _required(kind)
        self._add(name, self._id_of(name), kind, config, depth=depth - 1)
        return self._found(message)

    def _found(self, message: type[Message]) -> tuple[str, type[Message]] | None:
        kinds = [message, *(kind for kind in self._made if issubclass(kind, message))]
        return next(((self._made[kind], kind) for kind in kinds if kind in self._made), None)

    def _cost(self, name: str, message: type[Message], depth: int) -> tuple[int, type[Task]] | None:
        """How many tasks it takes to get `message` of a task type; None if that does not give it."""
        if depth == 0:
            return None
        kind, ports = self._known[name]
        if not any(port.is_output and issubclass(port.message_type, message) for port in ports):
            return None
        if any(port.is_input and issubclass(port.message_type, message) for port in ports):
            return None
        cost = 1
        for port in ports:
            if port.is_input and self._found(port.message_type) is None:
                costs = [
                    found[0]
                    for other in self._known
                    if (found := self._cost(other, port.message_type, depth - 1)) is not None
                ]
                if costs:
                    cost += min(costs)
                elif port.required:
                    return None
        return cost, kind

    def _id_of(self, name: str) -> str:
        word = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.rpartition(".")[2]).lower()
        taken = {task for task, *_ in self._tasks}
        return word if word not in taken else f"{word}_{len(taken)}"


def _config_of(kind: type[Task], config: Mapping[str, Any]) -> Any:
    try:
        return kind.Config.model_validate(config)
    except ValueError:
        return None


_OF_TYPE = {
    "string": "example",
    "integer": 1,
    "number": 1,
    "boolean": True,
    "array": [],
    "object": {},
}


def _required(kind: type[Task]) -> dict[str, Any]:
    """A value for each key of the config that must be given."""
    schema = config_schema(kind.Config, "{model}")
    values = {}
    for name in schema.get("required", ()):
        described = schema["properties"][name]
        choices = described.get("examples") or described.get("enum")
        values[name] = choices[0] if choices else _OF_TYPE.get(described.get("type", ""), "example")
    return values
