"""One task by itself, in cycles of its own: what the tests of a task and `flowrun ask` run.

The task is the last step of a graph of two. The first step takes the place of all that would feed it,
and publishes what each cycle is given. The cycle is the engine's own.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from flowrun.msgs.fields import MessageTypeError
from flowrun.msgs.message import Message
from flowrun.runtime.broadcast import Broadcast
from flowrun.runtime.context import ActorFunctions, CycleTime, SourceFunctions
from flowrun.runtime.engine.background import BackgroundTask
from flowrun.runtime.engine.cycle import Cycle
from flowrun.runtime.engine.instances import Instance, make_instances
from flowrun.runtime.engine.policy import restart_task
from flowrun.runtime.engine.record import ALWAYS, Gate, StepCall
from flowrun.runtime.engine.watch import set_in_vain
from flowrun.runtime.errors import Location
from flowrun.runtime.events import Event, Set
from flowrun.runtime.graph.bind import BoundConnection, BoundGraph, BoundTask
from flowrun.runtime.graph.plan import Plan, Step, plan_graph
from flowrun.runtime.graph.ports import Port, is_source, ports_for, with_types
from flowrun.runtime.graph.spec import (
    ConnectionSpec,
    Endpoint,
    GraphSpec,
    LoggingSpec,
    RuntimeSpec,
    TaskSpec,
)
from flowrun.runtime.task import State, Task, TaskConfig

__all__ = ["Alone", "SourceEnds"]

_FEEDER = "inputs"


class SourceEnds:
    """Keeps what a source says through its context, for a clock that is moved by hand."""

    def __init__(self) -> None:
        self.woken = threading.Event()
        self.ever_woken = False
        self.due_ns: int | None = None
        self.states: list[tuple[State, str]] = []
        """What it reported."""
        self.finished = False
        self.ended_by: list[str] = []
        """Why it asked the run to end."""

    def functions(self, time: CycleTime) -> SourceFunctions:
        """The functions for the source's context; `clock_ns` gives the time of the running cycle."""
        return SourceFunctions(
            clock_ns=lambda: time.now_ns,
            wake=self._wake,
            wake_at=self._wake_at,
            finish=self._finish,
            keep_packets=lambda _: None,
            dropped=self._dropped,
            report=self._report,
            live=lambda: None,
            playback=lambda: "running",
            paused_ns=lambda: 0,
        )

    def of_actor(self) -> ActorFunctions:
        """The functions for the context of a task that acts outside the run."""
        return ActorFunctions(
            dropped=self._dropped, follows_live=lambda: False, end_run=self.ended_by.append
        )

    def _wake(self) -> None:
        self.ever_woken = True
        self.woken.set()

    def _wake_at(self, time_ns: int) -> None:
        self.due_ns = time_ns

    def _dropped(self, count: int, cause: str) -> None:  # noqa: ARG002
        operator.index(count)

    def _report(self, state: State, code: str) -> None:
        self.states.append((state, code))

    def _finish(self) -> None:
        self.finished = True


class Alone:
    """A task that runs alone. The methods `start` and `stop` call the task's own.

    config: the task's own, checked.
    graph_dir: where relative paths of the config start.
    seed: the seed of `ctx.rng`.
    broadcast: what `ctx.broadcast` is.
    messages: the class of the messages that each input port gets; an optional one that is not in it is
        not connected. None: what the task declares, and all are connected.
    """

    def __init__(
        self,
        task_class: type[Task],
        config: TaskConfig,
        *,
        graph_dir: Path,
        seed: int,
        broadcast: Broadcast | None = None,
        messages: Mapping[str, type[Message]] | None = None,
    ) -> None:
        self.time = CycleTime()
        self.ends = SourceEnds()
        name = task_class.__name__
        plan = _plan(task_class, config, messages, graph_dir=graph_dir, seed=seed)
        broadcasts = {} if broadcast is None else {name: broadcast}
        instances = make_instances(
            plan,
            self.time,
            broadcasts=broadcasts,
            source=lambda _task: self.ends.functions(self.time),
            actor=lambda _task: self.ends.of_actor(),
            run_id=name,
        )
        self._made = instances[name]
        self._outside = _Given()
        self._cycle = Cycle(
            plan,
            self._outside,
            instances=instances,
            running=frozenset({name}),
            time=self.time,
        )
        self.inputs = [port.name for port in self._made.bound.ports if port.is_input]
        """The names of the task's input ports."""
        self._outputs = [slot for slot in plan.slots if slot.task_id == name]

    def start(self) -> None:
        """Start the task. What it raises passes unchanged."""
        self._made.task.start(self._made.ctx)

    def stop(self) -> None:
        """Stop the task."""
        self._made.task.stop(self._made.ctx)

    def set(self, values: dict[str, Any]) -> None:
        """Set live values at the beginning of the next cycle."""
        self._outside.sets.append(Set(self._made.id, values))

    def run(self, arrived: Mapping[str, Message], *, cycle: int, now_ns: int) -> dict[str, Message]:
        """Run one cycle, and return copies of what the task published, by output port.

        arrived: the cycle's inputs, by input port. A message without a `tov_ns` is valid at the
            cycle's time. If a required input is missing, `process` is not called.

        Passes on what the task raises, with a note that names the cycle. Raises `MessageTypeError`,
        noted in the same way, for a message that a log would refuse.
        """
        self.time.cycle = cycle
        self._outside.now_ns, self._outside.arrived = now_ns, arrived
        self._cycle.begin()
        while self._cycle.step() is not None:
            pass
        published = {}
        for slot in self._outputs:
            message = self._cycle.messages[slot.index]
            if message.present:
                published[slot.port] = message.view().copy()
        error = None if self._cycle.failure is None else self._cycle.failure.cause
        for slot in self._outputs:
            envelope = self._cycle.messages[slot.index].envelope
            field = envelope.set_since() if envelope.present and error is None else None
            if field is not None:
                error = MessageTypeError(set_in_vain(slot.port, field))
        if error is not None:
            error.add_note(f"raised in cycle {cycle} of {self._made.id}")
            raise error
        return published


class _Given:
    """The outside of a task that runs alone: the inputs and the time that the caller gives."""

    now_ns: int
    arrived: Mapping[str, Message]

    def __init__(self) -> None:
        self.background: dict[str, BackgroundTask] = {}
        self.reported: Sequence[Event] = ()
        self.sets: list[Set] = []
        """Live values that were set, and are not in force yet."""

    def begin(self, time: CycleTime, start_ns: int) -> Sequence[Event]:  # noqa: ARG002
        time.now_ns = self.now_ns
        sets, self.sets = self.sets, []
        return sets

    def after_sources(self, runs: bool) -> Sequence[Event]:  # noqa: ARG002, FBT001
        return ()

    def bind(self, step: Step, messages: Sequence[Message]) -> StepCall | None:
        if step.task.id != _FEEDER:
            return None
        slots = [(argument.port.name, argument.slot) for argument in step.arguments]
        outputs = {name: messages[slot] for name, slot in slots if slot is not None}
        return ALWAYS, partial(self._feed, outputs)

    def gate(self, task_id: str) -> Gate:  # noqa: ARG002
        return ALWAYS

    def restart(self, made: Instance) -> bool:
        restart_task(made)
        return True

    def _feed(self, outputs: Mapping[str, Message]) -> None:
        for name, message in self.arrived.items():
            outputs[name].fill(message)
            outputs[name].publish(tov_ns=message.tov_ns or None)


class _Feeder(Task):
    """Takes the place of the tasks that would feed one that runs alone; it is never called."""


def _plan(
    task_class: type[Task],
    config: TaskConfig,
    messages: Mapping[str, type[Message]] | None,
    *,
    graph_dir: Path,
    seed: int,
) -> Plan:
    name = task_class.__name__
    ports = with_types(ports_for(task_class, config), messages or {})
    tasks = []
    connections: list[BoundConnection] = []
    specs: list[ConnectionSpec] = []
    if not is_source(ports):
        inputs = [
            port
            for port in ports
            if port.is_input and (messages is None or port.required or port.name in messages)
        ]
        made = (
            replace(
                port,
                direction="output",
                message_type=(messages or {}).get(port.name, port.message_type),
            )
            for port in inputs
        )
        outputs = with_types(made, {})
        tasks.append(_bound(_FEEDER, _Feeder, TaskConfig(), outputs))
        for port in outputs:
            ends = Endpoint(_FEEDER, port.name), Endpoint(name, port.name)
            message_type = port.message_type
            specs.append(ConnectionSpec(*ends, message_type.__name__, _NOWHERE))
            connections.append(BoundConnection(_FEEDER, port.name, name, port.name, message_type))
    tasks.append(_bound(name, task_class, config, ports))
    graph = GraphSpec(
        name,
        graph_dir / "alone.yaml",
        "",
        tuple(task.spec for task in tasks),
        tuple(specs),
        LoggingSpec(),
        RuntimeSpec(ring_size=1, seed=seed),
    )
    return plan_graph(BoundGraph(graph, tuple(tasks), tuple(connections)))


_NOWHERE = Location("", 0, 0)


def _bound(
    name: str, task_class: type[Task], config: TaskConfig, ports: tuple[Port, ...]
) -> BoundTask:
    spec = TaskSpec(
        id=name,
        type=name,
        config={},
        where=_NOWHERE,
        config_where={},
        secrets=frozenset(),
    )
    return BoundTask(spec, task_class, config, ports)
