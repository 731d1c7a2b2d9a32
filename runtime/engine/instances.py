"""A plan's tasks as objects: made, started, changed and stopped, in live runs and in replays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from flowrun.runtime.broadcast import Broadcast
from flowrun.runtime.context import ActorFunctions, CycleTime, SourceFunctions
from flowrun.runtime.errors import FlowrunError, TaskDefinitionError, TaskError, UsageError, worded
from flowrun.runtime.graph.bind import BoundTask, live_keys
from flowrun.runtime.graph.config import changed_keys, check_values
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.interrupts import is_users
from flowrun.runtime.task import Context, Task, TaskConfig

__all__ = [
    "COMPUTES_ON",
    "Instance",
    "changed_config",
    "interrupt_task",
    "make_instances",
    "start_all",
    "stop_all",
]

COMPUTES_ON = "computes on"
"""Message of the log line that holds a started task's `Context.computes_on`, in "where"."""


@dataclass(slots=True)
class Instance:
    """One task of a run: its object, its context, and the time that the context shows.

    time: the cycle's time; for a background task, the time of the job that its worker runs.
    freeze_error: what its last `freeze` raised; None if it did not.
    """

    bound: BoundTask
    task: Task
    ctx: Context
    time: CycleTime
    freeze_error: BaseException | None = None

    @property
    def id(self) -> str:
        return self.bound.id


def make_instances(
    plan: Plan,
    time: CycleTime,
    *,
    broadcasts: Mapping[str, Broadcast] | None = None,
    source: Callable[[str], SourceFunctions] | None = None,
    actor: Callable[[str], ActorFunctions] | None = None,
    run_id: str = "",
) -> dict[str, Instance]:
    """An instance of every task, by id, in the plan's order. Nothing is started.

    broadcasts: the `ctx.broadcast` of each sink, by task id; a task that is missing gets a new one.
    source: gives what the context of a source calls; None if sources do not run.
    actor: the same of a task that acts outside the run, or leaves out inputs.
    run_id: see `Context.run_id`.
    """
    graph = plan.graph.spec
    log = structlog.get_logger()
    instances = {}
    for step in plan.steps:
        bound = step.task
        own = CycleTime() if bound.spec.background else time
        ctx = Context(
            bound.id,
            time=own,
            log=log.bind(task=bound.id),
            graph_dir=graph.path.parent.absolute(),
            seed=graph.runtime.seed,
            broadcast=(broadcasts or {}).get(bound.id) or Broadcast(),
            source=source(bound.id) if source is not None and bound.is_source else None,
            actor=actor(bound.id) if actor is not None and bound.task_class.acts_outside else None,
            dropped=_dropped_of(bound, actor),
            run_id=run_id,
            fed_by={
                argument.port.name: f"{slot.task_id}.{slot.port}"
                for argument in step.arguments
                if argument.port.is_input and argument.slot is not None
                for slot in [plan.slots[argument.slot]]
            },
        )
        try:
            task = bound.task_class(bound.config)
        except FlowrunError:
            raise
        except BaseException as error:
            if is_users(error):
                raise
            raise TaskError(bound.id, cycle=None, phase="__init__", cause=error) from error
        _check_config(task)
        instances[bound.id] = Instance(bound, task, ctx, own)
    return instances


def _check_config(task: Task) -> None:
    name, config = type(task).__name__, task.__dict__.get("config")
    if config is None:
        raise TaskDefinitionError(
            f"{name}.__init__ does not call super().__init__(config)", type(task).__init__
        )
    if not isinstance(config, TaskConfig):
        raise TaskDefinitionError(
            f"{name}.__init__ makes self.config a {type(config).__name__}; leave it to "
            "super().__init__(config), and give what you keep another name"
        )


def _dropped_of(
    bound: BoundTask, actor: Callable[[str], ActorFunctions] | None
) -> Callable[[int, str], None] | None:
    """What the context of a task that leaves out inputs calls; nothing in a replay, whose log has it."""
    if not bound.task_class.leaves_out:
        return None
    return (lambda _count, _cause: None) if actor is None else actor(bound.id).dropped


def start_all(
    instances: list[Instance], *, on_start: Callable[[str | None], None] = lambda _: None
) -> None:
    """Start every task in order.

    on_start: called with each task's id before it starts, and with None when starting is over, well
        or not.

    If a task or `on_start` raises, all tasks that were started are stopped, including the one that
    failed. A `FlowrunError` passes unchanged; any other error of a task becomes a `TaskError`.
    """
    begun: list[Instance] = []
    try:
        for made in instances:
            on_start(made.id)
            begun.append(made)
            made.task.start(made.ctx)
            if made.ctx.computes_on:
                made.ctx.log.info(COMPUTES_ON, where=made.ctx.computes_on)
        on_start(None)
    except BaseException as error:
        on_start(None)
        stop_all(begun)
        if isinstance(error, FlowrunError) or is_users(error):
            raise
        raise TaskError(begun[-1].id, cycle=None, phase="start", cause=error) from error


def stop_all(instances: list[Instance]) -> list[TaskError]:
    """Stop every task, the last one first. An error of one is logged; the others are stopped too.

    Returns the errors of tasks that act outside the run, where `on_error` is `stop`: something that the
    run was to do has not been done.
    """
    failed = []
    for made in reversed(instances):
        try:
            made.task.stop(made.ctx)
        except BaseException as error:  # the other tasks must be stopped too
            if is_users(error):
                raise
            made.ctx.log.error(  # noqa: TRY400  # one line; the run's own error matters more
                "stop failed", error=worded(error), raised=error
            )
            if made.bound.task_class.acts_outside and made.bound.spec.on_error == "stop":
                failed.append(TaskError(made.id, cycle=None, phase="stop", cause=error))
                failed[-1].__cause__ = error
    return failed


def interrupt_task(made: Instance) -> None:
    """Let a task know that nobody waits for what it does. An error of it is logged."""
    try:
        made.task.interrupt(made.ctx)
    except BaseException as error:  # the other tasks must get their turn
        if is_users(error):
            raise
        made.ctx.log.error(  # noqa: TRY400  # one line, as of a `stop` that fails
            "interrupt failed", error=worded(error), raised=error
        )


def changed_config(bound: BoundTask, config: TaskConfig, values: Mapping[str, Any]) -> TaskConfig:
    """`config` with `values` for its live keys; `UsageError` names a bad key and the valid ones."""
    live = live_keys(bound.task_class)
    for key in values:
        if key not in live:
            known = key in type(config).model_fields
            what = "cannot change while the graph runs" if known else "unknown key"
            raise UsageError(
                f"{bound.id}.{key}: {what}; keys that can change: {', '.join(live) or 'none'}"
            )
    new = check_values(bound.spec, config, values)
    return new if changed_keys(config, new) else config
