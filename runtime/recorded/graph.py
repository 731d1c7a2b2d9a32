"""The graph of a recorded run, as its log says it: nothing of it is loaded, or run."""

from __future__ import annotations

import json
from typing import Any

from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import GRAPH_RESOLVED

__all__ = ["graph_of", "map_in", "maps_in", "processes_of"]

_MOST_REPLICAS = 10_000
"""A log of somebody else may say any number."""


def graph_of(log: Log) -> dict[str, list[dict[str, Any]]]:
    """The resolved graph that a log holds, secrets masked: its `tasks`, each with an `id`, `type` and
    `config`, and its connections `cnx` with `src` and `dst`. What a log of somebody else holds besides
    is left out; empty where it holds none."""
    found = _resolved(log)
    tasks = [
        {**task, "type": str(task.get("type", "")), "config": map_in(task.get("config"))}
        for task in maps_in(found.get("tasks"))
        if isinstance(task.get("id"), str)
    ]
    ends = ("src", "dst")
    cnx = [
        it for it in maps_in(found.get("cnx")) if all(isinstance(it.get(end), str) for end in ends)
    ]
    return {"tasks": tasks, "cnx": cnx}


def processes_of(log: Log) -> dict[str, tuple[list[str], bool]]:
    """By partition of the resolved graph, the names of the processes that run it, and whether they are
    replicas, which share what is sent to it."""
    found = {}
    for name, said in map_in(_resolved(log).get("partitions")).items():
        instances, replicas = map_in(map_in(said).get("instances")), map_in(said).get("replicas")
        number = min(replicas, _MOST_REPLICAS) if isinstance(replicas, int) else 1
        found[name] = (list(instances or map(str, range(number))), not instances and number > 1)
    return found


def _resolved(log: Log) -> dict[str, Any]:
    try:
        return map_in(json.loads(log.attachments.get(GRAPH_RESOLVED, b"{}")))
    except (ValueError, RecursionError):
        return {}


def maps_in(value: Any) -> list[dict[str, Any]]:
    """The objects of a list that came from JSON; none where it is no list."""
    return [it for it in value if isinstance(it, dict)] if isinstance(value, list) else []


def map_in(value: Any) -> dict[str, Any]:
    """An object that came from JSON; an empty one where it is none."""
    return value if isinstance(value, dict) else {}
