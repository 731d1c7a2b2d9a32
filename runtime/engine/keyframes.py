"""Keyframes: what the tasks of a run remember before a cycle, so that a replay can begin there.

The record of `/flowrun/keyframe` in cycle k is a msgpack map, taken before anything of that cycle
runs::

    {"tasks": {id: {
        "state": what `freeze` gave, arrays as {"__ndarray__": their .npy file}; missing if the class
            does not define it
        "rng": the state of `ctx.rng`, as JSON; missing while nothing was drawn
        "live": {key: value}: live config values that differ from the graph file's
        "due_ns": when `rate_hz` admits the task next, or nil
        "failures", "until_ns": for a task with `on_error`: errors in a row, and the end of its pause
        "error": why `freeze` failed; no replay can begin at this keyframe then
        "config": for a background task: "live" for the jobs to come; its own "live" and all else
            are as they were after the last job whose result has appeared
        "jobs": [[cycle, live, taken, restarts]]: for a background task: the jobs in flight, whose
            results appear later; "taken" ones were waiting for their step; "restarts" ones begin with
            a restart
    }}}

A background task whose next job begins with a restart has no "state": it starts from nothing.
Sources are not in it: a replay takes their messages from the log.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgpack
import numpy as np

from flowrun.msgs.message import Message
from flowrun.runtime.engine.background import BackgroundTask, Job, JobState
from flowrun.runtime.engine.instances import Instance, changed_config
from flowrun.runtime.engine.policy import ErrorPolicy, error_text, restart_task
from flowrun.runtime.engine.rates import Rate
from flowrun.runtime.errors import TaskError, WrongReturnError
from flowrun.runtime.graph.bind import BoundTask
from flowrun.runtime.graph.config import changed_keys
from flowrun.runtime.interrupts import is_users
from flowrun.runtime.task import Task, TaskConfig
from flowrun.runtime.wording import MASK, mask_urls, spellings, with_article

__all__ = [
    "THAW",
    "Keyframes",
    "changed_values",
    "freeze_after",
    "freeze_task",
    "is_frozen",
    "restored_config",
    "thaw_task",
    "unpack_keyframe",
]

THAW = "thaw"
_ARRAY = "__ndarray__"
_HELD = "numbers, texts, bytes, NumPy arrays, None, and lists and dicts of these"
_SHORTEST_SECRET, _SHORTEST_WORD = 4, 7
"""Length of the shortest secret that is masked in a state, and of the shortest one of letters alone that
is masked within a text: the task goes on from there in a replay, and a mere word must stay."""


def is_frozen(task_class: type[Task]) -> bool:
    """Whether the class defines `freeze`, and so says what it remembers."""
    return task_class.freeze is not Task.freeze


def freeze_task(
    made: Instance, config: TaskConfig, *, secrets: frozenset[str], with_state: bool = True
) -> dict[str, Any]:
    """What the task remembers now: its part of a keyframe.

    config: the config that the task has.
    secrets: masked in "state", and in "error", which says why no replay can begin there.
    with_state: False for a task that is down, and has nothing to remember.
    """
    task, frozen = made.task, dict[str, Any]()
    rng = made.ctx.freeze_rng()
    if rng is not None:
        frozen["rng"] = rng
    try:
        frozen["live"] = changed_values(made.bound, config)
        if with_state and is_frozen(type(task)):
            # Packed and unpacked at once: what the task changes later does not reach it.
            frozen["state"] = _without(_packed_once(task), secrets)
    except BaseException as error:  # whatever a library raises: the run goes on
        if is_users(error):
            raise
        made.freeze_error = error
        frozen["error"] = error_text(error, secrets)
    return frozen


def _packed_once(task: Task) -> Any:
    given = task.freeze()
    try:
        return _unpack(_pack(given))
    except TypeError as error:
        raise WrongReturnError(task.freeze, str(error)) from None


def thaw_task(made: Instance, config: TaskConfig, frozen: Mapping[str, Any]) -> None:
    """Give a started task what it remembered. Passes on what `start` raises; what `thaw` raises is the
    cause of a `TaskError` of phase `THAW`.

    A task that refuses `config` in `configure` was given it by a restart: it is started with it.
    """
    task = made.task
    changed = changed_keys(task.config, config)
    task.config = config
    if changed:
        try:
            task.configure(made.ctx, changed)
        except BaseException as error:
            if is_users(error):
                raise
            restart_task(made)
    made.ctx.thaw_rng(frozen.get("rng"))
    if "state" not in frozen:
        return
    try:
        # A copy each time: the task may change what it is given.
        task.thaw(msgpack.unpackb(_pack(frozen["state"]), object_hook=_hook, strict_map_key=False))
    except BaseException as error:
        if is_users(error):
            raise
        raise TaskError(made.id, cycle=None, phase=THAW, cause=error) from error


def changed_values(bound: BoundTask, config: TaskConfig) -> dict[str, Any]:
    """The live values of `config` that differ from the graph file's, as plain data.

    Raises `ValueError` for values that do not survive the way through JSON and back.
    """
    if config is bound.config:
        return {}
    keys = set(changed_keys(bound.config, config))
    if not keys:
        return {}
    values: dict[str, Any] = config.model_dump(mode="json", include=keys)
    if restored_config(bound, values) != config:
        raise ValueError(f"live values that JSON does not give back: {', '.join(sorted(keys))}")
    return values


def restored_config(bound: BoundTask, values: Mapping[str, Any]) -> TaskConfig:
    """The graph file's config of a task, with `values` for the keys that had been changed."""
    return changed_config(bound, bound.config, values) if values else bound.config


class Keyframes:
    """Takes the keyframes of a run.

    instances: the tasks that run, without sources.
    policies: the error policy of each task that has one, by id.
    rates: the rate of each task, by id.
    background: the tasks with `background: true`, by id.
    secrets: masked in what `freeze` gives, and in its error if it fails.
    """

    def __init__(
        self,
        instances: Iterable[Instance],
        *,
        policies: Mapping[str, ErrorPolicy],
        rates: Mapping[str, Rate],
        background: Mapping[str, BackgroundTask],
        secrets: frozenset[str],
    ) -> None:
        self._secrets = secrets
        self._instances = list(instances)
        self._policies = policies
        self._rates = rates
        self._background = background
        self._failing: set[str] = set()

    def begin(self) -> None:
        """Note the beginning: all tasks have been started, and no worker has."""
        for made in self._instances:
            task = self._background.get(made.id)
            if task is not None:
                task.jobs.frozen = freeze_task(made, made.task.config, secrets=self._secrets)

    def take(self) -> bytes:
        """What all tasks remember now, between two cycles. If a `freeze` fails, only the first
        failure in a row is logged."""
        tasks = {}
        for made in self._instances:
            policy = self._policies.get(made.id)
            task = self._background.get(made.id)
            if task is None:
                is_up = policy is None or not policy.is_down
                config = made.task.config
                frozen = freeze_task(made, config, secrets=self._secrets, with_state=is_up)
            else:
                frozen = self._background_part(made, task, policy)
            if self._rates[made.id].due_ns is not None:
                frozen["due_ns"] = self._rates[made.id].due_ns
            if policy is not None:
                frozen |= policy.freeze()
            self._log_error(made, frozen.get("error"))
            tasks[made.id] = frozen
        return _pack({"tasks": tasks})

    def _background_part(
        self, made: Instance, task: BackgroundTask, policy: ErrorPolicy | None
    ) -> dict[str, Any]:
        frozen = dict(task.jobs.frozen or {})
        in_flight = task.jobs.in_flight
        restarts_next = policy is not None and policy.is_down
        if in_flight[0].restarts if in_flight else restarts_next:
            frozen.pop("state", None)
            frozen.pop("error", None)
        try:
            frozen["config"] = changed_values(made.bound, task.jobs.config)
            frozen["jobs"] = [
                [
                    job.cycle,
                    changed_values(made.bound, job.config),
                    job.state is JobState.TAKEN,
                    job.restarts,
                ]
                for job in in_flight
            ]
        except BaseException as error:  # of a user's config
            if is_users(error):
                raise
            frozen["error"] = error_text(error, self._secrets)
        return frozen

    def _log_error(self, made: Instance, error: str | None) -> None:
        if error is None:
            self._failing.discard(made.id)
        elif made.id not in self._failing:
            self._failing.add(made.id)
            made.ctx.log.error(
                "freeze failed: no replay can begin at this keyframe",
                error=error,
                raised=made.freeze_error,
            )


def freeze_after(made: Instance, job: Job, *, secrets: frozenset[str]) -> dict[str, Any]:
    """What a background task remembers after `job`, also if it failed: the next job goes on from
    there."""
    return freeze_task(made, job.accepted or job.config, secrets=secrets)


def unpack_keyframe(data: bytes | memoryview) -> dict[str, dict[str, Any]]:
    """The parts of a keyframe's record, by task id. Raises `ValueError` for other bytes."""
    try:
        found = msgpack.unpackb(data, strict_map_key=False)
    except TypeError as error:  # a map or a list as a key
        raise ValueError(f"not a keyframe: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("tasks"), dict):
        raise ValueError("not a keyframe")  # noqa: TRY004  # the bytes are wrong, not a type
    return cast("dict[str, dict[str, Any]]", found["tasks"])


def _without(value: Any, secrets: frozenset[str]) -> Any:
    """What `freeze` gave, with `secrets` masked in its texts and bytes; arrays stay as they are."""
    if not secrets:
        return value
    found = [text for text in spellings(secrets) if len(text) >= _SHORTEST_SECRET]
    sure = [text for text in found if not text.isalpha() or len(text) >= _SHORTEST_WORD]
    exact = {text for text in secrets if len(text) >= _SHORTEST_SECRET}

    def masked(item: Any) -> Any:
        if isinstance(item, dict) and item.keys() != {_ARRAY}:
            return {masked(key): masked(below) for key, below in item.items()}
        if isinstance(item, list):
            return [masked(below) for below in item]
        if isinstance(item, str):
            if any(text in item for text in found):
                item = mask_urls(item)
            for text in sure:
                item = item.replace(text, MASK)
            return MASK if item in exact else item
        if isinstance(item, bytes):
            for text in sure:
                item = item.replace(text.encode(errors="surrogateescape"), MASK.encode())
            return MASK.encode() if item.decode(errors="replace") in exact else item
        return item

    return masked(value)


def _pack(value: Any) -> bytes:
    return cast("bytes", msgpack.packb(value, default=_default))


def _unpack(data: bytes) -> Any:
    try:
        return msgpack.unpackb(data, strict_map_key=False)
    except TypeError:
        raise TypeError("freeze gave a dict whose keys are not texts or numbers") from None


def _default(value: Any) -> Any:
    if type(value) is np.ndarray and not value.dtype.hasobject:  # a subclass may hold more
        file = io.BytesIO()
        np.lib.format.write_array(file, value, allow_pickle=False)
        return {_ARRAY: file.getvalue()}
    if isinstance(value, np.generic):
        return value.item()
    what = with_article(type(value).__name__)
    of = "; of a message, give its fields" if isinstance(value, Message) else ""
    raise TypeError(f"freeze gave {what}, which a keyframe cannot hold: {_HELD}{of}")


def _hook(value: dict[Any, Any]) -> Any:
    if value.keys() != {_ARRAY}:
        return value
    return np.lib.format.read_array(io.BytesIO(value[_ARRAY]), allow_pickle=False)
