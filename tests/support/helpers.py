"""Task classes and graphs for the runtime's tests: every test builds a graph file of these."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs import IntMsg, Message, Shape, TextMsg
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import Plan, plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run, RunResult
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig

START_NS = 1_700_000_000_000_000_000


class GridMsg(Message):
    """A small array and a note."""

    grid: Annotated[NDArray[np.float32], Shape("N 2")]
    note: str


class Numbers(Task):
    """0, 1, 2, ... up to `limit`."""

    class Config(TaskConfig):
        limit: int = 5

    def start(self, ctx: Context) -> None:
        self.next = 0

    def process(self, ctx: Context, number: Output[IntMsg]) -> None:
        if self.next == self.config.limit:
            ctx.finish()
            return
        number.value = self.next
        number.publish(tov_ns=ctx.now_ns - 5)
        self.next += 1


class Hooked(Numbers):
    """Numbers, with a call of the test's before each."""

    hook: ClassVar[Callable[[int], None]] = staticmethod(lambda _number: None)

    def process(self, ctx: Context, number: Output[IntMsg]) -> None:
        type(self).hook(self.next)
        super().process(ctx, number)


class Early(Numbers):
    """Speaks before the first cycle."""

    def start(self, ctx: Context) -> None:
        super().start(ctx)
        ctx.log.info("opened")


class Idle(Task):
    """A source that has nothing and does not end; counts how often it is asked."""

    def start(self, ctx: Context) -> None:
        self.asked = 0

    def process(self, ctx: Context, number: Output[IntMsg]) -> None:
        self.asked += 1


class Evens(Task):
    """Publishes only even numbers."""

    def process(self, ctx: Context, number: Input[IntMsg], even: Output[IntMsg]) -> None:
        if number.value % 2 == 0:
            even.value = number.value
            even.publish(tov_ns=number.tov_ns)


class Scale(Task):
    class Config(TaskConfig):
        factor: Live[int] = 10

    def start(self, ctx: Context) -> None:
        self.changes: list[frozenset[str]] = []

    def configure(self, ctx: Context, changed: frozenset[str]) -> None:
        self.changes.append(changed)

    def process(self, ctx: Context, number: Input[IntMsg], scaled: Output[IntMsg]) -> None:
        scaled.value = number.value * self.config.factor
        scaled.publish(tov_ns=number.tov_ns)


class Picky(Scale):
    """Refuses some factors."""

    class Config(TaskConfig):
        factor: Live[int] = 10
        refuses: list[int]

    config: Config  # type: ignore[assignment]

    def configure(self, ctx: Context, changed: frozenset[str]) -> None:
        super().configure(ctx, changed)
        if self.config.factor in self.config.refuses:
            raise ValueError(f"no factor of {self.config.factor}")


class Sum(Task):
    """State: the sum of all that came; two ports, one of them optional."""

    def start(self, ctx: Context) -> None:
        self.total = 0

    def process(
        self, ctx: Context, a: Input[IntMsg], b: Input[IntMsg] | None, total: Output[IntMsg]
    ) -> None:
        self.total += a.value + (b.value if b is not None else 0)
        total.value = self.total
        total.publish()

    def freeze(self) -> int:
        return self.total

    def thaw(self, state: int) -> None:
        self.total = state


class Noise(Task):
    """Seeded noise into a slot-owned array."""

    def process(self, ctx: Context, number: Input[IntMsg], noise: Output[GridMsg]) -> None:
        grid = noise.allocate("grid", (number.value % 3, 2))
        grid[...] = ctx.rng.random(grid.shape)
        noise.note = f"cycle {ctx.cycle}"
        noise.publish()


class Keeps(Task):
    """Noise of a generator that it keeps."""

    def start(self, ctx: Context) -> None:
        self.rng = ctx.rng

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        out.value = int(self.rng.integers(1_000_000))
        out.publish()


class Collect(Task):
    """Keeps what came, as (cycle, value), for the test to look at."""

    def start(self, ctx: Context) -> None:
        self.seen: list[tuple[int, int]] = []

    def process(self, ctx: Context, number: Input[IntMsg]) -> None:
        self.seen.append((ctx.cycle, number.value))


class Slow(Task):
    """For `background: true`: answers when the test opens the gate."""

    gate: ClassVar[threading.Semaphore] = threading.Semaphore(0)
    began: ClassVar[threading.Semaphore] = threading.Semaphore(0)

    class Config(TaskConfig):
        word: Live[str] = "seen"

    def process(self, ctx: Context, number: Input[IntMsg], text: Output[TextMsg]) -> None:
        type(self).began.release()
        assert type(self).gate.acquire(timeout=30)
        text.value = f"{self.config.word} {number.value} of cycle {ctx.cycle}"
        text.publish(tov_ns=number.tov_ns)


class Free(Task):
    """For `background: true`: answers at once."""

    def process(self, ctx: Context, number: Input[IntMsg], text: Output[TextMsg]) -> None:
        text.value = f"{number.value} of cycle {ctx.cycle} {ctx.rng.random()}"
        text.publish(tov_ns=number.tov_ns)


class Boom(Task):
    class Config(TaskConfig):
        at: int = 2

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        if number.value == self.config.at:
            raise ValueError(f"cannot stand {number.value}")
        out.value = number.value
        out.publish()


class Exits(Task):
    """Calls `sys.exit` at a number, or elsewhere, as some libraries do."""

    class Config(TaskConfig):
        at: int = -1
        where: str = "process"

    def start(self, ctx: Context) -> None:
        self._exit_in("start")

    def stop(self, ctx: Context) -> None:
        self._exit_in("stop")

    def freeze(self) -> None:
        self._exit_in("freeze")

    def thaw(self, state: None) -> None: ...

    def _exit_in(self, where: str) -> None:
        if self.config.where == where:
            sys.exit(3)

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        if number.value == self.config.at:
            sys.exit(3)
        out.value = number.value
        out.publish()


class Flaky(Task):
    """State, and an error at certain numbers; counts its starts over all its lives."""

    starts: ClassVar[int] = 0

    class Config(TaskConfig):
        at: list[int]
        start_fails: int = 0
        """How many restarts fail before one works."""

    def start(self, ctx: Context) -> None:
        type(self).starts += 1
        if 2 <= type(self).starts <= 1 + self.config.start_fails:
            raise OSError("not yet")
        self.total = 0

    def process(self, ctx: Context, number: Input[IntMsg], total: Output[IntMsg]) -> None:
        self.total += number.value
        total.value = self.total
        total.publish()
        if number.value in self.config.at:
            raise ValueError(f"cannot stand {number.value}")

    def freeze(self) -> int:
        return self.total

    def thaw(self, state: int) -> None:
        self.total = state


class Wrong(Task):
    """State, and a message at certain numbers that the log refuses: `value` in place of the sum."""

    class Config(TaskConfig):
        at: list[int]
        value: Any = "a text"

    def start(self, ctx: Context) -> None:
        self.total = 0

    def process(
        self, ctx: Context, number: Input[IntMsg], total: Output[IntMsg], text: Output[TextMsg]
    ) -> None:
        self.total += number.value
        total.value = self.config.value if number.value in self.config.at else self.total
        total.publish()
        text.value = f"a good message of cycle {ctx.cycle}"
        text.publish()

    def freeze(self) -> int:
        return self.total

    def thaw(self, state: int) -> None:
        self.total = state


class Says(Task):
    """A source that publishes one text."""

    class Config(TaskConfig):
        text: str

    def process(self, ctx: Context, text: Output[TextMsg]) -> None:
        text.value = self.config.text
        text.publish()
        ctx.finish()


class WrongSource(Numbers):
    """A source that publishes what the log refuses at 2."""

    def process(self, ctx: Context, number: Output[IntMsg]) -> None:
        super().process(ctx, number)
        if number.value == 2:
            number.value = 2**70
            number.publish()


class Sees(Task):
    """Tells what came, of whatever type."""

    def process(self, ctx: Context, number: Input[IntMsg], text: Output[TextMsg]) -> None:
        text.value = repr(number.value)
        text.publish()


class RoughNumbers(Numbers):
    """Numbers that changes live values of other tasks, and fails, if its config says so."""

    class Config(TaskConfig):
        limit: int = 5
        fails_at: list[int]
        set_at: dict[int, int]
        """Number -> factor that every Scale gets."""
        publish_at: dict[int, int] | None = None
        """Number -> what somebody publishes then, on one of the ports that have numbers."""

    run: ClassVar[Any] = None

    def process(self, ctx: Context, number: Output[IntMsg]) -> None:
        value = self.next
        if value in self.config.set_at:
            for id_, made in type(self).run.executor.instances.items():
                if isinstance(made.task, Scale):
                    type(self).run.set_live(id_, {"factor": self.config.set_at[value]})
        if value in (self.config.publish_at or ()):
            given = self.config.publish_at[value]
            ports = [p for p, kind in type(self).run.ports().items() if kind is IntMsg]
            assert type(self).run.publish(ports[given % len(ports)], {"value": given})
        if value in self.config.fails_at and getattr(self, "failed", None) != value:
            self.failed = value
            ctx.report("lost", "refused")
            raise OSError("the cable is out")
        ctx.report("running")
        super().process(ctx, number)


class Jobs(Free):
    """For `background: true`: remembers its calls, and fails at some."""

    class Config(TaskConfig):
        word: Live[str] = "seen"

    def start(self, ctx: Context) -> None:
        self.calls: list[int] = []

    def process(self, ctx: Context, number: Input[IntMsg], text: Output[TextMsg]) -> None:
        self.calls.append(number.value)
        if len(self.calls) % 7 == 5:
            raise ValueError(f"cannot stand call {len(self.calls)}")
        text.value = f"{self.config.word} {self.calls} {ctx.rng.random()} in {ctx.cycle}"
        text.publish(tov_ns=number.tov_ns)

    def freeze(self) -> list[int]:
        return self.calls

    def thaw(self, state: list[int]) -> None:
        self.calls = state


class FlakySource(Numbers):
    """Fails once, at 3."""

    failed: ClassVar[bool] = False

    def start(self, ctx: Context) -> None:
        self.next = 4 if type(self).failed else 0

    def process(self, ctx: Context, number: Output[IntMsg]) -> None:
        if self.next == 3 and not type(self).failed:
            type(self).failed = True
            raise OSError("the cable is out")
        super().process(ctx, number)


class Tells(Task):
    """Cannot keep a secret."""

    class Config(TaskConfig):
        password: str

    def process(self, ctx: Context, number: Input[IntMsg]) -> None:
        ctx.log.info("tells", word=self.config.password)
        raise OSError(f"cannot log in with {self.config.password}")


class Mistyped(Task):
    def process(self, ctx: Context, number: Input[IntMsg], text: Output[TextMsg]) -> None:
        text.valeu = "not a field"  # type: ignore[attr-defined]
        text.publish()


class Total(Task):
    """Remembers a sum, a list of arrays, and says so."""

    class Config(TaskConfig):
        factor: Live[int] = 1

    def start(self, ctx: Context) -> None:
        self.total, self.last = 0, np.zeros(2)

    def process(self, ctx: Context, number: Input[IntMsg], total: Output[IntMsg]) -> None:
        self.total += number.value * self.config.factor + int(ctx.rng.integers(100))
        self.last[:] = number.value, self.total
        total.value = self.total
        total.publish()

    def freeze(self):
        return {"total": self.total, "last": self.last}

    def thaw(self, state) -> None:
        self.total, self.last = state["total"], state["last"]


class Forgetful(Total):
    """Says that it remembers nothing."""

    def freeze(self):
        return {}

    def thaw(self, state) -> None: ...


class Patient(Slow):
    """Waits until it is interrupted, or, if it is `deaf`, until the gate opens."""

    deaf = False
    threads: ClassVar[list[str]] = []

    def interrupt(self, ctx):
        self.threads.append(threading.current_thread().name)
        if self.deaf:
            raise ValueError("not now")
        self.gate.release()


def plan_of(tmp_path: Path, tasks: str, cnx: str = "", more: str = "") -> Plan:
    """tasks: "a=Numbers(limit: 3); b=Scale; c=Free!@every: 2": id=Class(config), a "!" after it for
    background, "@" before other keys of the task. A class is one of this module, or module.Class of
    another of `support`."""
    lines = ["tasks:"]
    for item in tasks.split("; "):
        task, _, keys = item.strip().partition("@")
        id_, _, kind = task.partition("=")
        kind, _, config = kind.partition("(")
        background = kind.endswith("!") or config.endswith("!")
        config = config.rstrip("!").removesuffix(")")
        lines.append(f"  - id: {id_}\n    type: {_type(kind.rstrip('!'))}")
        if config:
            lines.append(f"    config: {{{config}}}")
        if background:
            lines.append("    background: true")
        lines += [f"    {key}" for key in keys.split(", ") if keys]
    lines.append("cnx:" if cnx else "cnx: []")
    for item in cnx.split("; ") if cnx else []:
        ends, _, msg = item.partition(":")
        src, dst = ends.split(">")
        lines.append(f"  - {{src: {src.strip()}, dst: {dst.strip()}, msg: {_msg(msg.strip())}}}")
    lines.append(more or "logging: {slab_size_mib: 4, section_size_mib: 1}")
    return plan_graph(bind(parse_graph("\n".join(lines), path=tmp_path / "g.yaml", env={})))


_ELSEWHERE = {
    "VideoCapture": "VideoCapture",
    "Zones": "flowrun.tasks.zones.Zones",
    "Digest": "support.packets.Digest",
    "Glance": "support.packets.Glance",
    "Shades": "support.packets.Shades",
    **{
        name: f"support.pictures.{name}"
        for name in ("Answer", "Camera", "Darken", "Find", "Mean", "Read")
    },
}


def _type(name: str) -> str:
    if "." in name:
        return f"support.{name}"
    return _ELSEWHERE.get(name, f"{__name__}.{name}")


def _msg(name: str) -> str:
    if "." in name:
        return f"support.{name}"
    return f"{__name__}.GridMsg" if name == "GridMsg" else name or "IntMsg"


def record(
    plan: Plan, directory: Path | None, *, step_ns: int = 1000, **run_options: Any
) -> tuple[Run, RunResult]:
    """Run `plan`. step_ns: from one reading of its clock to the next."""
    clock = ManualClock(START_NS, step_ns=step_ns)
    run = Run(plan, clock=clock, directory=directory)
    RoughNumbers.run = run
    return run, run.run(**run_options)


def until(condition: Callable[[], bool]) -> None:
    """Let the workers have the interpreter until `condition` holds."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < 60, "the workers did not get there"
        time.sleep(0.0005)


def run_hooked(
    plan: Plan, directory: Path, hook: Callable[[Run, int], None], *, step_ns: int = 1000
) -> RunResult:
    """Run `plan`, with a call of `hook` before each number of a `Hooked`, also before its end."""
    live = Run(plan, clock=ManualClock(START_NS, step_ns=step_ns), directory=directory)
    Hooked.hook = lambda number: hook(live, number)
    return live.run()


def replay_from_everywhere(directory: Path) -> tuple[list[int], list[str]]:
    """Replay from the start and from each keyframe, with tasks made again, and find no difference; the
    cycles of the keyframes, and what was noted."""
    with Log(directory) as log, Replay(log, env={}) as replay:
        first = replay.cycle
        keyframes = replay.keyframes
        for begin in [first, *keyframes]:
            replay.seek(begin, fresh=True)
            while replay.next_cycle():
                pass
            assert replay.report.first is None, f"from {begin}: {replay.report.first}"
        return keyframes, replay.notes


def controls(directory: Path, *kinds: str) -> list[tuple[int, str, str, Any]]:
    """(cycle, kind, task, value) of the control records, of all kinds or of those named."""
    with Log(directory) as log:
        return [
            (m.cycle, m.fields["kind"], m.fields["task"], m.fields["value"])
            for m in log.messages("/flowrun/control")
            if not kinds or m.fields["kind"] in kinds
        ]


def values(directory: Path, topic: str) -> list[tuple[int, Any]]:
    """(cycle, value) of the messages of a topic."""
    with Log(directory) as log:
        return [(m.cycle, m.fields["value"]) for m in log.messages(topic)]
