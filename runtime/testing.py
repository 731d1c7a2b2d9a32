"""For testing tasks: run one task alone, give a graph a source and a sink made of lists, and hold a
recorded run to its answers.

[first, second] = run_task(Blur, inputs=[{"image": sharp}, {"image": other}])
assert first.blurred.pixels.max() < 200

assert_replays("runs/porch-20260301T081502Z")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationError
from structlog.testing import capture_logs

from flowrun.msgs.message import Message
from flowrun.runtime.broadcast import Broadcast
from flowrun.runtime.errors import ReplayError, UsageError
from flowrun.runtime.graph.ports import Port, ports_for
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig
from flowrun.runtime.wording import listed, nearest

if TYPE_CHECKING:
    from flowrun.runtime.engine.alone import Alone

__all__ = ["Collect", "Published", "assert_replays", "collector_of", "run_task", "source_of"]

_IDLE_S = 0.01
"""Seconds that an idle source waits for its `wake` before it is called again, as in a run."""


class Published(Mapping[str, Any]):
    """The messages that a task published in one cycle, by output port: `first.mean` is the message of
    the port `mean`. It lacks the ports on which nothing was published.

    `first["mean"]` is the same, and works for a port named like a method too: keys, values, items, get.
    """

    __slots__ = ("_messages",)

    def __init__(self, messages: Mapping[str, Message]) -> None:
        self._messages = messages

    def __getattr__(self, port: str) -> Any:
        if port.startswith("_"):  # Python asks for such names, even before `_messages` is set
            raise AttributeError(port)
        if port not in self._messages:
            raise AttributeError(f"{port!r} was not published; published: {listed(self)}")
        return self._messages[port]

    def __getitem__(self, port: str) -> Any:
        return self._messages[port]

    def __iter__(self) -> Iterator[str]:
        return iter(self._messages)

    def __len__(self) -> int:
        return len(self._messages)

    def __repr__(self) -> str:
        return f"Published({self._messages!r})"

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self})


def run_task(
    task: type[Task] | Callable[..., object],
    *,
    inputs: Sequence[Mapping[str, Message]] | None = None,
    config: Mapping[str, Any] | None = None,
    cycles: int | None = None,
    graph_dir: Path | None = None,
    period_ns: int = 10_000_000,
    seed: int = 0,
    broadcast: Broadcast | None = None,
    timeout_s: float = 30.0,
) -> list[Published]:
    """Run one task alone, from `start` to `stop`, and return copies of what it published, cycle by
    cycle.

    task: its class, or a function.
    inputs: for each cycle, the messages by input port. In a cycle without a required input `process`
        is not called. A message without a `tov_ns` is valid at its cycle's time.
    config: the task's config, as a graph file would give it.
    cycles: the most cycles to run. A source runs until it calls `ctx.finish()` or this is reached;
        one of the two must happen.
    graph_dir: where relative paths of the config start; the current folder if not given.
    period_ns: cycle k takes place at `k * period_ns`. No clock is read: a source that asks for
        `wake_at` moves the time forward, so that nothing waits.
    seed: the seed of `ctx.rng`.
    broadcast: the `ctx.broadcast` of a sink, to look at what it offers.
    timeout_s: how long a source may publish nothing before `UsageError` is raised.

    As in a run, a call of a source that publishes nothing is not a cycle: the source is called again
    when its thread calls `wake`. What is published is checked against the message's declared types.
    An exception of the task passes unchanged, with a note that names the cycle.
    """
    from flowrun.runtime.engine.alone import Alone  # slow to import: only who runs a task pays

    if isinstance(task, type):
        task_class = task
    else:
        from flowrun.runtime.graph.functions import task_class_of

        task_class = task_class_of(task)
    checked = _config(task_class, config or {})
    ports = ports_for(task_class, checked)
    arrivals = _arrivals(task_class.__name__, ports, inputs, cycles)
    alone = Alone(
        task_class,
        checked,
        graph_dir=graph_dir if graph_dir is not None else Path.cwd(),
        seed=seed,
        broadcast=broadcast,
        messages=None if arrivals is None else _classes(arrivals),
    )
    try:
        alone.start()
        if arrivals is None:
            return _run_source(alone, task_class.__name__, cycles, period_ns, timeout_s)
        return [
            Published(alone.run(arrived, cycle=cycle, now_ns=cycle * period_ns))
            for cycle, arrived in enumerate(arrivals)
        ]
    finally:
        alone.stop()


def _classes(arrivals: Sequence[Mapping[str, Message]]) -> dict[str, type[Message]]:
    """The class of the messages that each port gets; of several classes, their nearest base."""
    found: dict[str, type[Message]] = {}
    for arrived in arrivals:
        for port, message in arrived.items():
            bases = found.get(port, message.own_class).__mro__
            found[port] = next(base for base in bases if isinstance(message, base))
    return found


def _run_source(
    alone: Alone, name: str, cycles: int | None, period_ns: int, timeout_s: float
) -> list[Published]:
    published: list[Published] = []
    ends, now_ns, idle_s = alone.ends, 0, 0.0
    while not ends.finished and (cycles is None or len(published) < cycles):
        ends.woken.clear()
        ends.due_ns = None
        result = Published(alone.run({}, cycle=len(published), now_ns=now_ns))
        if result:
            published.append(result)
            now_ns = max(now_ns, len(published) * period_ns)
            idle_s = 0.0
        elif ends.due_ns is not None:
            now_ns = max(now_ns, ends.due_ns)
        elif not ends.finished and not ends.woken.wait(_IDLE_S):
            idle_s += _IDLE_S
            if idle_s >= timeout_s:
                raise UsageError(
                    f"source {name} has neither published nor called ctx.finish() for {timeout_s:g} s"
                    f" after {len(published)} cycles"
                )
            if not ends.ever_woken:  # it may be waiting for the time to pass
                now_ns += period_ns
    return published


def _config(task_class: type[Task], given: Mapping[str, Any]) -> TaskConfig:
    try:
        return task_class.Config(**given)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}; got {item['input']!r}"
            if item["loc"]
            else item["msg"]  # without the input: the whole config may hold a password
            for item in error.errors()
        ]
        raise UsageError(f"config of {task_class.__name__}: " + "\n".join(lines)) from error


def _arrivals(
    name: str,
    ports: tuple[Port, ...],
    inputs: Sequence[Mapping[str, Message]] | None,
    cycles: int | None,
) -> Sequence[Mapping[str, Message]] | None:
    """`inputs`, checked and cut to `cycles`; None for a source."""
    declared = {port.name: port for port in ports if port.is_input}
    if not declared:
        if inputs is not None:
            raise UsageError(f"{name} is a source: it takes no inputs")
        return None
    if inputs is None:
        raise UsageError(f"{name} needs inputs=[{{port: message}}, ...]; ports: {list(declared)}")
    for cycle, arrived in enumerate(inputs):
        for port_name, message in arrived.items():
            port = declared.get(port_name)
            if port is None:
                raise UsageError(
                    f"inputs[{cycle}]: {name} has no input {port_name!r}; "
                    f"inputs: {list(declared)}{nearest(port_name, declared)}"
                )
            if not isinstance(message, port.message_type):
                raise UsageError(
                    f"inputs[{cycle}]: input {port_name!r} of {name} takes "
                    f"{port.message_type.__name__}, got {type(message).__name__}"
                )
            if not message.is_view:
                message.encode()  # as publishing does, checks it
    return inputs if cycles is None else inputs[:cycles]


def source_of(messages: Iterable[Message | None]) -> type[Task]:
    """A source class whose output `out` publishes copies of `messages`, one a cycle, and ends.

    For a None, the source is called and publishes nothing. All messages must be of one type; one
    without a `tov_ns` is valid at its cycle's time. Assign the class to a name in a module that the
    graph can import, and use that as a task's `type`::

        Numbers = source_of([IntMsg(value=1), IntMsg(value=2)])
    """
    listed = [message if message is None else message.copy() for message in messages]
    types = {type(message) for message in listed if message is not None}
    if len(types) != 1:
        names = sorted(message_type.__name__ for message_type in types)
        raise UsageError(f"source_of needs messages of exactly one type; got {names}")
    message_type = types.pop()

    class ListSource(Task):
        """Publishes the messages of a list."""

        def start(self, ctx: Context) -> None:  # noqa: ARG002
            self._next = 0

        def process(self, ctx: Context, out: Output[Message]) -> None:
            if self._next >= len(listed):
                ctx.finish()
                return
            message = listed[self._next]
            self._next += 1
            if message is not None:
                out.fill(message)
                out.publish(tov_ns=message.tov_ns or None)
            else:
                ctx.wake()
            if self._next == len(listed):
                ctx.finish()

        def freeze(self) -> int:
            return self._next

        def thaw(self, state: int) -> None:
            self._next = state

    # The port's type is known only here; the annotation in the signature cannot name it.
    ListSource.process.__annotations__["out"] = Output[message_type]  # type: ignore[misc,valid-type]
    return ListSource


class Collect(Task):
    """Base of the sinks that `collector_of` makes: `messages` holds copies of all inputs."""

    messages: ClassVar[list[Any]] = []

    def start(self, ctx: Context) -> None:  # noqa: ARG002
        self.messages.clear()


def collector_of(message_type: type[Message]) -> type[Collect]:
    """A sink class whose input `item` is a `message_type`, and whose class attribute `messages`
    collects copies; each `start` empties it. Use it in a graph like `source_of`.
    """

    class ListSink(Collect):
        """Collects its inputs."""

        messages: ClassVar[list[Any]] = []

        def process(self, ctx: Context, item: Input[Message]) -> None:  # noqa: ARG002
            self.messages.append(item.copy())

    ListSink.process.__annotations__["item"] = Input[message_type]  # type: ignore[misc,valid-type]
    return ListSink


def assert_replays(
    run: Path | str,
    *,
    graph: Path | str | None = None,
    config: Mapping[str, Any] | None = None,
    feed: Collection[str] = (),
    start: int | None = None,
    to: int | None = None,
    tolerance: Mapping[str, float | None] | None = None,
    trust: bool = False,
) -> None:
    """Replay a recorded run with the present code, and assert that every message is as recorded.

    run: the run's directory, or a slab of it.
    graph: another graph file than the recorded one. A run that is checked in needs it if the graph's
        tasks are files next to it, because the recorded path is that of the recording machine.
        It needs it, or `trust`, wherever another user runs the test.
    config: "task.key" -> value in place of the recorded one.
    feed: tasks that do not run, such as a model that is not bit-exact; their messages come from the
        log.
    start: the first cycle to compare; what the tasks remember comes from the keyframe before it.
    to: the last cycle to compare.
    tolerance: message class, or "Class.field" -> the greatest distance of two numbers; None allows
        any value of a field.
    trust: whether the recorded graph may run, which names code and commands, though another user
        has recorded it.

    Raises `AssertionError` with the first difference, for a damaged log, and if nothing was compared,
    because such a test would check nothing. Raises `TaskError` for an error of a task that the
    recording does not have. Lines that tasks log are not shown.
    """
    __tracebackhide__ = True
    from flowrun.runtime.graph.find import importable  # a test of one task does without these
    from flowrun.runtime.log.reader import Log
    from flowrun.runtime.replay.replay import Replay, Tolerance

    try:
        with Log(Path(run)) as log, capture_logs():
            replay = Replay(
                log,
                graph=None if graph is None else Path(graph),
                feed=feed,
                config=config,
                tolerance=Tolerance(tolerance),
                env=os.environ,
                trust=trust,
            )
            with importable(replay.plan.graph.spec.path.parent):
                report = replay.run(start=start, to=to)
            loss = log.loss
    except ReplayError as error:
        raise AssertionError(f"{run}: {error}") from None
    if report.first is not None:
        raise AssertionError(
            f"{run}: {report.differing:,} of {report.compared:,} messages differ; the first:\n"
            f"{report.first}"
        )
    if loss is not None:
        raise AssertionError(f"{run}: not all could be read: {loss}")
    if report.missing:
        lost = "\n".join(note for note in replay.notes if note.startswith("not given back"))
        raise AssertionError(f"{run}: {report.missing:,} pictures are not given back:\n{lost}")
    if report.compared == 0:
        raise AssertionError(
            f"{run}: nothing was compared in {report.cycles:,} cycles: all messages come from sources "
            "or `feed`, or were not logged"
        )
