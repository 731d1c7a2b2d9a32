"""How a run is doing: what its terminal, its page and its API show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.ma  # `percentile` would, at the end, when a task may have left no descriptor
from numpy.typing import NDArray

from flowrun.runtime.broadcast import Answer, Broadcast
from flowrun.runtime.clock import monotonic_s, ticks_ns
from flowrun.runtime.engine.policy import Raised
from flowrun.runtime.engine.rates import is_rated
from flowrun.runtime.events import Replaced
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.links.status import LinkStatus, PartStatus  # pydantic reads the annotations
from flowrun.runtime.run.shadows import ShadowReport
from flowrun.runtime.task import Health, ShownState  # pydantic reads the annotations
from flowrun.runtime.wording import mask_secrets, one_line

if TYPE_CHECKING:
    from flowrun.runtime.engine.executor import Executor

__all__ = [
    "LogReport",
    "Progress",
    "RunReport",
    "TaskReport",
    "busiest",
    "newest_answer",
    "part_status",
    "task_reports",
]

_RECENT_NS = 5_000_000_000
_LONGEST_ERROR = 300
"""Characters of an error that the other processes of a fleet get."""


@dataclass(frozen=True, slots=True)
class TaskReport:
    """One task of a run.

    type: its class, as the graph file names it.
    p50_us: median duration of its step in the last 1,024 cycles at most, in microseconds; of a
        background task, of handing over, not of its work. None before the second cycle has ended.
    p99_us: 99th percentile of the same.
    rate_hz: how often it publishes a message, or a task without outputs gets one, per second; over the
        last 5 s, or the last two times if that is longer. 0 if it did not do so twice in the last 1,024
        cycles; None before the second cycle has ended, and of a task without outputs that has an
        `every` or a `rate_hz`.
    background: whether a worker runs it while the cycles go on.
    dropped: number of inputs or pictures that were left out.
    raised: what it has raised so far; None if nothing.
    backends: of a task that asks models or servers, how each of them is doing, by name.
    dropped_by: the same by cause, such as "too old"; of a background task, "replaced": newer inputs
        came before it was free.
    late_s: how long its call has taken so far, in seconds, if that is beyond its `deadline_ms`; None
        if it is not.
    state: of a source, how it is doing: a `ShownState`; None of other tasks.
    code: what keeps a source from running, in a word, such as "timeout"; "" if nothing does.
    shadow: of a shadow, how often it disagrees with its task; None of others.
    """

    type: str
    p50_us: float | None = None
    p99_us: float | None = None
    rate_hz: float | None = None
    background: bool = False
    dropped: int = 0
    late_s: float | None = None
    state: ShownState | None = None
    code: str = ""
    raised: Raised | None = None
    dropped_by: Mapping[str, int] = field(default_factory=dict)
    backends: Mapping[str, Health] = field(default_factory=dict)
    shadow: ShadowReport | None = None


@dataclass(frozen=True, slots=True)
class LogReport:
    """The log of a run.

    path: its directory.
    bytes: how much has been written.
    messages: number of messages of tasks in it.
    on: whether it is being written: somebody may have stopped it for a while.
    """

    path: str
    bytes: int
    messages: int
    on: bool = True


@dataclass(frozen=True, slots=True)
class Progress:
    """What a task that starts says of itself.

    what: what it does.
    fraction: how much of that is done, from 0 to 1; None where that is not known.
    """

    what: str
    fraction: float | None


@dataclass(frozen=True, slots=True)
class RunReport:
    """A run at one moment.

    cycles: number of cycles that have ended.
    cycle_rate_hz: cycles per second, over the last 5 s or the last 1,024 cycles, whichever is less, or
        over the last two if that is longer; 0 before the second has ended, and while a task that the
        cycle waits for is late.
    uptime_s: seconds since the run was made, up to its end.
    at_ns: the run's time at that moment.
    starting: id of the task whose `start` is running; None before and after.
    progress: of that task; None where it says nothing.
    log: None for a run that keeps none.
    tasks: by id, in the order in which they run.
    last_answer: the newest that a sink has shown.
    ended: why the run ended, such as "end of sources", "error" where its state says more; None before.
    part: which process of a partition it is, "gpu/0"; None for a graph without partitions.
    links: how each link to another process is doing; what is received first.
    fleet: how each process of the graph is doing, as far as is known here, this one included; empty for
        a graph of one process.
    """

    cycles: int
    cycle_rate_hz: float
    uptime_s: float
    at_ns: int
    starting: str | None
    progress: Progress | None
    log: LogReport | None
    tasks: Mapping[str, TaskReport]
    last_answer: Answer | None
    ended: str | None = None
    part: str | None = None
    links: Sequence[LinkStatus] = ()
    fleet: Sequence[PartStatus] = ()


def task_reports(executor: Executor) -> tuple[dict[str, TaskReport], float]:
    """The tasks of a live run by id, and its cycles per second."""
    steps, timings = executor.plan.steps, list(executor.timings)
    quantiles: Iterable[tuple[float | None, float | None]] = [(None, None)] * len(steps)
    rate_hz, rates_hz = 0.0, {}
    late, now_s, states = executor.watchdog.late, monotonic_s(), executor.states
    if len(timings) > 1:
        moments = np.array([[start, *ends] for start, ends, _ in timings], np.int64)
        p50, p99 = np.percentile(np.diff(moments, axis=1) / 1e3, [50, 99], axis=0).round(1)
        quantiles = zip(p50.tolist(), p99.tolist(), strict=True)
        starts_ns, now_ns = moments[:, 0], ticks_ns()
        rate_hz = _rate_hz(starts_ns, now_ns)
        shown = _shown(executor.plan, np.array([there for _, _, there in timings], bool))
        rates_hz = {id_: _rate_hz(starts_ns[did], now_ns) for id_, did in shown.items()}
    if any(id_ not in executor.workers for id_ in late):
        rate_hz = 0.0
    tasks = {}
    for step, (p50_us, p99_us) in zip(steps, quantiles, strict=True):
        id_ = step.task.id
        worker = executor.workers.get(id_)
        state, code = states.get(id_, (None, ""))
        dropped_by = dict(executor.left_out.get(id_, {}))
        if worker is not None and worker.jobs.replaced:
            dropped_by[Replaced.kind] = worker.jobs.replaced
        tasks[id_] = TaskReport(
            type=step.task.spec.type,
            p50_us=p50_us,
            p99_us=p99_us,
            rate_hz=rates_hz.get(id_),
            background=worker is not None,
            dropped=sum(dropped_by.values()),
            late_s=round(now_s - late[id_].since_s, 1) if id_ in late else None,
            state=state,
            code=code,
            raised=executor.cycle.raised(id_),
            dropped_by=dropped_by,
            backends=_backends(executor, id_),
        )
    return tasks, rate_hz


def part_status(executor: Executor, *, part: str, ended: str | dict[str, str] | None) -> PartStatus:
    """How a process of a fleet is doing, as its executor knows it. Cheap: the links' thread asks.

    ended: the state of a run that has ended, as `Run.state` gives it.
    """
    raised = [it for step in executor.plan.steps if (it := executor.cycle.raised(step.task.id))]
    last = max(raised, key=lambda it: it.time_ns, default=None)
    error = "" if last is None else last.text
    dropped = sum(sum(dict(it).values()) for it in dict(executor.left_out).values())
    dropped += sum(it.jobs.replaced for it in executor.workers.values())
    late = [id_ for id_ in list(executor.watchdog.late) if id_ not in executor.workers]
    if ended is not None:
        state = "ended" if isinstance(ended, str) else "failed"
        error = error if isinstance(ended, str) else next(iter(ended.values()))
    else:
        state = "stuck" if late else "running" if executor.has_started else "starting"
    rate_hz = 0.0
    if state == "running" and len(timings := list(executor.timings)) > 1:
        rate_hz = _rate_hz(np.array([it[0] for it in timings], np.int64), ticks_ns())
    return PartStatus(
        part,
        state,
        cycles=executor.cycles,
        cycle_rate_hz=rate_hz,
        errors=sum(it.count for it in raised),
        error=one_line(error.partition("\n")[0])[:_LONGEST_ERROR],
        dropped=dropped,
    )


def _backends(executor: Executor, task_id: str) -> dict[str, Health]:
    made = executor.instances.get(task_id)
    if made is None or made.ctx.backends is None:
        return {}
    secrets = executor.plan.graph.spec.secrets
    return {
        name: replace(
            health,
            detail=mask_secrets(health.detail, secrets),
            servers={
                mask_secrets(server, secrets): replace(it, detail=mask_secrets(it.detail, secrets))
                for server, it in health.servers.items()
            },
        )
        for name, health in made.ctx.backends.health().items()
    }


def _rate_hz(at_ns: NDArray[np.int64], now_ns: int) -> float:
    """How often something happens that happened at these moments, in `ticks_ns`."""
    recent = at_ns[-max(2, int(np.count_nonzero(at_ns > now_ns - _RECENT_NS))) :]
    if len(recent) < 2:
        return 0.0
    rate_hz = (len(recent) - 1) * 1e9 / max(1, int(recent[-1] - recent[0]))
    # Of what has ceased to happen, the last moments say nothing of now.
    return round(min(rate_hz, 1e9 / max(1, now_ns - int(recent[-1]))), 2)


def _shown(plan: Plan, there: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """For each task, in which cycles it published a message; if it has no outputs, in which it got what
    it needs. Tasks of which that is not known are left out.

    there: cycle by cycle, which slots have a message.
    """
    shown: dict[str, NDArray[np.bool_]] = {}
    for step in plan.steps:
        slots = [it.slot for it in step.arguments if it.slot is not None and it.port.is_output]
        if slots:
            shown[step.task.id] = np.logical_or.reduce(there[:, slots], axis=1)
        elif not is_rated(step):
            inputs = [it.slot for it in step.arguments if it.slot is not None]
            required = [
                it.slot for it in step.arguments if it.slot is not None and it.port.required
            ]
            came, is_whole = there[:, inputs].any(axis=1), there[:, required].all(axis=1)
            shown[step.task.id] = np.logical_and(came, is_whole)
    return shown


def newest_answer(broadcasts: Iterable[Broadcast]) -> Answer | None:
    """The newest answer that a sink has shown, by the time of its frame."""
    shown = [broadcast.newest for broadcast in broadcasts]
    answers = [item for item in shown if isinstance(item, Answer)]
    return max(answers, key=lambda answer: answer.tov_ns, default=None)


_BUSY = 0.8
"""The part of the time from which on a task is what the cycles wait for."""
_SLOW_MS = 50.0


def busiest(executor: Executor) -> list[tuple[str, float]]:
    """The task that keeps the cycles from following sources that have a speed of their own, and how many
    milliseconds each of its calls takes; empty if there is none."""
    plan = executor.plan
    if not executor.has_own_speed:
        return []
    reports, rate_hz = task_reports(executor)
    found = []
    for step in plan.steps[plan.source_count :]:
        p50_us = reports[step.task.id].p50_us
        if p50_us is None or rate_hz is None or step.task.spec.background:
            continue
        if p50_us / 1000 >= _SLOW_MS and p50_us / 1e6 * rate_hz >= _BUSY:
            found.append((step.task.id, p50_us / 1000))
    return found
