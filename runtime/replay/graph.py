"""The graph that a recorded run ran, read again from its log."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowrun.runtime.engine.instances import COMPUTES_ON, Instance
from flowrun.runtime.errors import FlowrunError, GraphError, ReplayError, UntrustedRun, UsageError
from flowrun.runtime.graph.file import read_text
from flowrun.runtime.graph.find import dotted
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.graph.read import load_graph, parse_graph, read_graph
from flowrun.runtime.graph.several import separated
from flowrun.runtime.graph.shadows import with_shadows
from flowrun.runtime.graph.spec import GraphSpec
from flowrun.runtime.graph.values import is_secret_place
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import (
    ENVIRONMENT,
    GRAPH_SOURCE,
    LOG_TOPIC,
    MISSION,
    PARTITION,
    SETTINGS,
)
from flowrun.runtime.run.trust import why_not_own
from flowrun.runtime.wording import MASK

__all__ = [
    "REPLAY_FED",
    "REPLAY_SET",
    "acting_tasks",
    "computed_elsewhere",
    "external_tasks",
    "graph_in_place_of",
    "is_recorded_graph",
    "masked_values",
    "recorded_feed",
    "recorded_graph",
    "with_config",
]

_MASKED = re.compile(rf"'{re.escape(MASK)}'|{re.escape(MASK)}")
"""A scalar that was masked, or a part of one."""
_ALIAS = re.compile(r"(?s)([^=]*=)(\*.*)")
"""A setting that was masked, whose value YAML would take for an alias."""
REPLAY_FED = "replay_fed"
"""Metadata key in a log that a replay wrote: the tasks that it did not run."""
REPLAY_SET = "replay_set"
"""Metadata key in such a log: the config values that it changed, as JSON."""


class _RecordedEnvironment(dict[str, str]):
    """The environment for a recorded graph: as it was when the run was recorded. Variables that gave
    secrets are not recorded, and have their present values; if one is no longer set, it is empty.
    Usually that is the password of a source, which a replay does not open; `${NAME:-default}` gives its
    default."""

    def __contains__(self, name: object) -> bool:
        return True


def recorded_graph(log: Log, env: Mapping[str, str], *, trust: bool = False) -> GraphSpec:
    """The graph that made `log`, as it was when it ran.

    env: the environment variables that it may name.
    trust: whether the code and the commands that it names may run though somebody else, or nobody
        known, has recorded it. `UntrustedRun` is raised without; nothing of the graph is looked up then.
    """
    text = log.attachments.get(GRAPH_SOURCE)
    if text is None:
        raise ReplayError(f"{log.path}: the log holds no graph; give one to replay it with")
    path = Path(log.metadata.get("graph_path", "graph.yaml"))
    why = None if trust else why_not_own(log.metadata, text, os.environ)
    if why is not None:
        raise UntrustedRun(str(log.path), why, _would_run(text, path))
    recorded = json.loads(log.metadata.get(ENVIRONMENT, "{}"))
    settings = json.loads(log.metadata.get(SETTINGS, "[]"))
    partition = log.metadata.get(PARTITION)
    written = _as_written(text.decode(), path, settings, partition)
    known = _RecordedEnvironment({**env, **recorded})
    spec = parse_graph(
        written, path=path, env=known, mission=log.metadata.get(MISSION), partition=partition
    )
    return with_config(spec, json.loads(log.metadata.get(REPLAY_SET, "{}")))


def graph_in_place_of(log: Log, path: Path, env: Mapping[str, str]) -> GraphSpec:
    """The graph in the file at `path`, to run on what `log` recorded: the recorded mission, and the
    recorded part, if the graph has them. `UsageError` and `GraphError` as `load_graph`."""
    spec = load_graph(path, env=env)
    mission = log.metadata.get(MISSION)
    mission = mission if mission in spec.missions else None
    partition = log.metadata.get(PARTITION) if spec.partitions else None
    if mission in (None, spec.mission) and partition is None:
        return spec
    return load_graph(path, env=env, mission=mission, partition=partition)


def _would_run(text: bytes, path: Path) -> list[str]:
    """The code and the commands that a graph names, without looking anything up."""
    try:
        spec = read_graph(text.decode(), path=path, env=_RecordedEnvironment({})).graph
    except (GraphError, UnicodeDecodeError):
        return []
    found = [
        f"code: {task.type}, from {path.parent}, the module path or a package"
        for task in spec.tasks
        if "." in dotted(task.type) and not task.type.startswith("flowrun.")
    ]
    found += [
        f"code: {name}, from {path.parent}, the module path or a package"
        for task in spec.tasks
        if isinstance(name := task.masked_config.get("callable"), str)
    ]
    for task in spec.tasks:
        found += [f"command: {command}" for command in _commands(task.masked_config)]
    return list(dict.fromkeys(found))


def _commands(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        for key, value in config.items():
            if key == "command":
                yield value if isinstance(value, str) else shlex.join(map(str, value or ()))
            else:
                yield from _commands(value)
    elif isinstance(config, list):
        for item in config:
            yield from _commands(item)


def is_recorded_graph(log: Log, spec: GraphSpec) -> bool:
    """Whether `spec` has the text of the graph that made `log`, apart from the secrets in it."""
    stored = log.attachments.get(GRAPH_SOURCE)
    return stored is not None and _hides(stored.decode(errors="replace"), spec.text)


def _as_written(stored: str, path: Path, settings: Collection[str], partition: str | None) -> str:
    """The text of the graph file at `path` if it is the one that the log holds: the secrets are there.
    Otherwise `stored`, which has masks in their places.

    settings: those of the recorded run, without their secrets.
    partition: the process that ran.
    """
    if MASK not in stored:
        return stored
    quoted = [_ALIAS.sub(r"\1'\2'", text) for text in settings]
    try:
        read = read_graph(
            read_text(path),
            path=path,
            env=_RecordedEnvironment(),
            partition=partition,
            settings=quoted,
        )
    except FlowrunError:
        return stored
    text = read.graph.text
    return text if _hides(stored, text) else stored


def _hides(stored: str, text: str) -> bool:
    """Whether `stored` is `text` with masks in some places."""
    first, *others = _MASKED.split(stored)
    if not others:
        return stored == text
    if not text.startswith(first):
        return False
    end = len(first)
    for part in others[:-1]:
        end = text.find(part, end) + len(part)
        if end < len(part):
            return False
    return len(text) - end >= len(others[-1]) and text.endswith(others[-1])


def masked_values(spec: GraphSpec, tasks: Collection[str]) -> list[str]:
    """A sentence on each of `tasks` whose config has a mask where the recorded run had a secret."""
    return [
        f"task {task.id!r} is run with {MASK} for a secret in its config: the log keeps none, and "
        f"{spec.path} is gone or has changed"
        for task in spec.tasks
        if task.id in tasks and MASK in json.dumps(task.config, default=str)
    ]


def recorded_feed(log: Log, tasks: Collection[str]) -> list[str]:
    """The `tasks` that a replay, if one wrote `log`, did not run either."""
    return [task for task in log.metadata.get(REPLAY_FED, "").split() if task in tasks]


def _with_followers(values: Mapping[str, Any], spec: GraphSpec) -> dict[str, Any]:
    """`values`, and those that shadows have from their tasks."""
    found = {}
    for name, value in values.items():
        task_id, _, key = name.partition(".")
        for task in spec.tasks:
            if task.shadow_of == task_id and key in task.follows:
                found[f"{task.id}.{key}"] = value
    return found | dict(values)


def with_config(spec: GraphSpec, values: Mapping[str, Any]) -> GraphSpec:
    """`spec` with other config values, which are checked when it is bound."""
    if values:
        spec, _ = separated(spec)
        spec, _ = with_shadows(spec)
    tasks = {task.id: task for task in spec.tasks}
    for name, value in _with_followers(values, spec).items():
        task_id, dot, key = name.partition(".")
        if not dot or not key:
            raise UsageError(f"{name!r}: expected task.key=value")
        task = tasks.get(task_id)
        if task is None:
            raise UsageError(f"unknown task {task_id!r}; tasks: {', '.join(tasks)}")
        is_secret = is_secret_place((key,), value)
        tasks[task_id] = replace(
            task,
            config={**task.config, key: value},
            masked_config={**task.masked_config, key: MASK if is_secret else value},
            secrets=task.secrets | ({str(value)} if is_secret else set()),
        )
    return replace(spec, tasks=tuple(tasks.values()))


def external_tasks(plan: Plan) -> set[str]:
    """The tasks whose config says that their outputs come from outside."""
    tasks = [step.task for step in plan.steps]
    return {task.id for task in tasks if task.task_class.is_external(task.config)}


def acting_tasks(plan: Plan) -> set[str]:
    """The tasks that act outside the run."""
    return {step.task.id for step in plan.steps if step.task.task_class.acts_outside}


def computed_elsewhere(log: Log, running: Collection[Instance]) -> list[str]:
    """A sentence on each task that computed on another device, or in another type, when `log` was
    recorded.

    running: the tasks that run, which have been started.
    """
    now = {made.id: made.ctx.computes_on for made in running if made.ctx.computes_on}
    if not now or LOG_TOPIC not in log.topics:
        return []
    lines = [line.fields for line in log.messages(LOG_TOPIC, end=1)]
    before = {
        line["name"]: line["fields"].get("where")
        for line in lines
        if line["message"] == COMPUTES_ON
    }
    return [
        f"task {task!r} was recorded on {before[task]}, and is replayed on {where}"
        for task, where in now.items()
        if before.get(task, where) != where
    ]
