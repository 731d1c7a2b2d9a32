"""A task of a graph that a program declares, and its ports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from flowrun.runtime.callers import Caller, caller
from flowrun.runtime.errors import FlowrunError
from flowrun.runtime.graph.declared import Item
from flowrun.runtime.graph.ports import Port, has_more_ports, ports_for
from flowrun.runtime.task import Task
from flowrun.runtime.wording import listed, nearest

__all__ = ["Added", "End", "Node"]

Change = Callable[["Added", Mapping[str, Any] | None, Mapping[str, Any], Caller], None]
"""Sets keys of a task's config, and of the task, at the places of a call."""


class End:
    """A port of a task: one end of a connection, as `task.port` gives it."""

    def __init__(self, node: Node, port: str) -> None:
        self.node = node
        self.port = port

    def __repr__(self) -> str:
        return f"<port {self}>"

    def __str__(self) -> str:
        return f"{self.node.id}.{self.port}"


@dataclass(frozen=True, slots=True, eq=False)
class Added:
    """What a graph knows of one of its tasks.

    found: its class; None where there is none, which is reported with all else.
    """

    item: Item
    found: type[Task] | None

    @property
    def id(self) -> str:
        return str(self.item.said["id"])

    @property
    def ports(self) -> tuple[Port, ...] | None:
        """None where they cannot be known."""
        if self.found is None:
            return None
        try:
            config = None
            if has_more_ports(self.found):
                with suppress(ValidationError):
                    config = self.found.Config.model_validate(self.item.said.get("config", {}))
            return ports_for(self.found, config)
        except FlowrunError:
            return None


class Node:
    """A task of a graph. Its ports are its attributes: `node.answer`; also `node["answer"]`, which works
    for a port that is called like a method.

    id: the task's id.
    """

    def __init__(self, added: Added, change: Change) -> None:
        self._added = added
        self._change = change

    @property
    def id(self) -> str:
        return self._added.id

    def update(self, *, config: Mapping[str, Any] | None = None, **keys: Any) -> None:
        """Change what `Graph.add` was given, key by key: of the task, and of its config."""
        self._change(self._added, config, keys, caller())

    def __getattr__(self, name: str) -> End:
        if name.startswith("_"):  # Python, and notebooks, ask for such names
            raise AttributeError(name)
        ports = self._added.ports
        if ports is not None and name not in (names := [port.name for port in ports]):
            raise AttributeError(
                f"task {self.id!r} has no port {name!r}; its ports: {listed(names)}"
                + nearest(name, names)
            )
        return End(self, name)

    def __getitem__(self, port: str) -> End:
        return End(self, port)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(port.name for port in self._added.ports or ())})

    def __repr__(self) -> str:
        ports = self._added.ports or ()
        ends = (f"{port.name}: {port.direction} {port.message_type.__name__}" for port in ports)
        return f"<task {self.id!r}, {self._added.item.said['type']}: {listed(ends)}>"
