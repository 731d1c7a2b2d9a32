"""Tasks for the tests of the engine and of replays: each does one thing that the engine must stand."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from flowrun.msgs import BytesMsg, FloatMsg, ImageRgb8Msg, IntMsg
from flowrun.msgs.message import LatePublishError
from flowrun.runtime.errors import UsageError
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.run.live import Run, RunResult
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig
from support.helpers import Numbers, run_hooked


class Held(Task):
    """For `background: true`: passes a number on once the test lets it; remembers nothing."""

    class Config(TaskConfig):
        fails_at: tuple[int, ...] = ()

    config: Config
    hold: ClassVar[Callable[[str, int], object] | None] = None
    """Called on the worker with the task's id and the number; set by `run_held` for its run."""

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        if Held.hold is not None:
            Held.hold(ctx.task_id, number.value)
        if number.value in self.config.fails_at:
            raise ValueError(f"cannot stand {number.value}")
        out.value = number.value
        out.publish(tov_ns=number.tov_ns)


class HeldCount(Held):
    """Publishes how often it was called, which it remembers."""

    def start(self, ctx: Context) -> None:
        self.calls = 0

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        self.calls += 1
        super().process(ctx, number, out)
        out.value = self.calls
        out.publish(tov_ns=number.tov_ns)

    def freeze(self) -> int:
        return self.calls

    def thaw(self, state: int) -> None:
        self.calls = state


class HeldPicky(Held):
    """Refuses a gain of 2."""

    class Config(Held.Config):
        gain: Live[int] = 1

    def configure(self, ctx: Context, changed: frozenset[str]) -> None:
        if self.config.gain == 2:  # type: ignore[attr-defined]
            raise ValueError("no gain of 2")


class HeldDraw(Held):
    """Publishes a random number."""

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        super().process(ctx, number, out)
        out.value = int(ctx.rng.integers(1_000_000))
        out.publish(tov_ns=number.tov_ns)


class Cancelled(HeldCount):
    """Its `freeze` is cancelled after the second and the third call, as by a library's event loop."""

    def freeze(self) -> int:
        if self.calls in (2, 3):
            raise asyncio.CancelledError("from a library")
        return super().freeze()


class Panic(BaseException):
    """As a library in Rust raises it."""


class MuteError(Exception):
    """Cannot give its text."""

    def __str__(self) -> str:
        raise asyncio.CancelledError

    __repr__ = __str__


class Raises(Task):
    """Raises at a number, or elsewhere, what is no `Exception`, or is one that has no text. "signal" is
    what the user sends with Ctrl-C."""

    kinds: ClassVar[dict[str, BaseException]] = {
        "cancelled": asyncio.CancelledError("by a library"),
        "panic": Panic("index out of bounds"),
        "exit": GeneratorExit(),
        "leave": SystemExit(3),
        "interrupt": KeyboardInterrupt("by a library"),
        "group": BaseExceptionGroup("several", [Panic("one")]),
        "mute": MuteError(),
    }

    class Config(TaskConfig):
        what: str
        at: int = -1
        where: str = "process"
        gain: Live[int] = 1

    config: Config

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._raise_in("__init__")

    def _raise_in(self, where: str) -> None:
        if self.config.where == where:
            if self.config.what == "signal":
                signal.raise_signal(signal.SIGINT)
            raise self.kinds[self.config.what]

    def start(self, ctx: Context) -> None:
        self._raise_in("start")

    def stop(self, ctx: Context) -> None:
        self._raise_in("stop")

    def configure(self, ctx: Context, changed: frozenset[str]) -> None:
        self._raise_in("configure")

    def freeze(self) -> None:
        self._raise_in("freeze")

    def thaw(self, state: None) -> None: ...

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        if number.value == self.config.at:
            self._raise_in("process")
        out.value = number.value
        out.publish()


class Addressed(Task):
    """Fails, with a text that holds an address: another one each time."""

    error: ClassVar[type[Exception]] = ValueError
    says: ClassVar[str] = "cannot use"
    used: ClassVar[list[object]] = []

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        self.used.append(object())
        raise self.error(f"{self.says} {self.used[-1]}")


class Promise:
    """Something to await."""

    def __await__(self) -> Any: ...


class Caused(Task):
    """Raises an error that was caused by another."""

    def process(self, ctx: Context, number: Input[IntMsg]) -> None:
        raise ValueError("no answer") from OSError("no line")


class Late(Task):
    """In its second call, a thread publishes what the first call kept."""

    kept: Any = None

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        if number.value == 0:
            self.kept = out
        elif number.value == 1:
            thread = threading.Thread(target=self._publish, name="helper")
            thread.start()
            thread.join()

    def _publish(self) -> None:
        with contextlib.suppress(LatePublishError):
            self.kept.value = 7
            self.kept.publish()


class HandsBack(Task):
    """Returns something from `process`."""

    class Config(TaskConfig):
        kind: str

    config: Config

    def process(self, ctx: Context, number: Input[IntMsg]) -> Any:
        async def coroutine() -> None: ...

        async def agen() -> Any:
            yield

        made: dict[str, Callable[[], Any]] = {
            "coroutine": coroutine,
            "generator": lambda: (it for it in ()),
            "async_generator": agen,
            "Promise": Promise,
            "int": lambda: 3,
        }
        return made[self.config.kind]()


class SlowSource(Numbers):
    """A source that fails at 1, and whose next `start` waits until the test lets it go on; that fails
    too if the test says so. It publishes its `gain` after that."""

    go_on: ClassVar[threading.Event] = threading.Event()
    starts: ClassVar[list[int]] = []
    fails: ClassVar[bool] = False

    class Config(TaskConfig):
        limit: int = 3
        gain: Live[int] = 1

    config: Config  # type: ignore[assignment]

    def start(self, ctx: Context) -> None:
        super().start(ctx)
        gain = self.config.gain
        self.starts.append(gain)
        if len(self.starts) > 1:
            assert self.go_on.wait(30)
            self.next = 2
        if len(self.starts) == 2 and self.fails:
            raise OSError("the camera does not answer")

    def process(self, ctx: Context, number: Output[IntMsg]) -> None:
        if self.next == 1:
            raise OSError("the cable is out")
        if self.next == self.config.limit:
            ctx.finish()
            return
        self.next += 1
        number.value = self.config.gain
        number.publish()


class Hangs(Task):
    """Waits once, in one of its methods, until the test lets it go on."""

    go_on: ClassVar[threading.Event] = threading.Event()
    began: ClassVar[threading.Event] = threading.Event()

    class Config(TaskConfig):
        where: str = "process"
        gain: Live[int] = 1

    config: Config

    def _hang_in(self, where: str) -> None:
        if self.config.where == where:
            self.began.set()
            assert self.go_on.wait(30)

    def configure(self, ctx: Context, changed: frozenset[str]) -> None:
        self._hang_in("configure")

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        self._hang_in("process")
        out.publish()

    def freeze(self) -> None:
        self._hang_in("freeze")

    def thaw(self, state: None) -> None: ...


class Both(Task):
    """Needs two inputs."""

    def process(
        self, ctx: Context, a: Input[IntMsg], b: Input[IntMsg], both: Output[IntMsg]
    ) -> None:
        both.value = a.value + b.value
        both.publish()


class Broken(Task):
    """Fails always, in the same words; otherwise in cycle 30."""

    def process(self, ctx: Context, number: Input[IntMsg]) -> None:
        raise OSError("another fault" if number.value == 30 else "out of order")


class Leaves(Task):
    """In cycle 1, leaves something on outputs that it does not publish."""

    def process(
        self,
        ctx: Context,
        number: Input[IntMsg],
        out: Output[IntMsg],
        image: Output[ImageRgb8Msg],
        found: Output[IntMsg],
    ) -> None:
        found.value = int(image.video is not None)
        found.publish()
        if ctx.cycle == 1:
            out.extra = 5
            image.video = "packets"
            return
        out.value = number.value
        out.publish()


class Big(Task):
    """Fills a log quickly."""

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[BytesMsg]) -> None:
        out.value = bytes([number.value]) * 100_000
        out.publish()


class Zero(Task):
    """Publishes 0.0."""

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[FloatMsg]) -> None:
        out.value = 0.0
        out.publish()


class Drops(Numbers):
    """Says before each number that it left out `count`, of the named type."""

    class Config(TaskConfig):
        limit: int = 1
        count: float = 3
        type: str = "int"

    config: Config  # type: ignore[assignment]

    def process(self, ctx: Context, number: Output[IntMsg]) -> None:
        types: dict[str, Any] = {"int": int, "int64": np.int64, "float": float}
        ctx.dropped(types[self.config.type](self.config.count))
        super().process(ctx, number)


class WakesInThePast(Task):
    """A source that has nothing, and asked once to be called at a time that has passed."""

    def start(self, ctx: Context) -> None:
        self.asked = 0

    def process(self, ctx: Context, number: Output[IntMsg]) -> None:
        if not self.asked:
            ctx.wake_at(1)
        self.asked += 1


class WakesLater(Task):
    """A source that gives a time of a wrong type."""

    def process(self, ctx: Context, number: Output[IntMsg]) -> None:
        ctx.wake_at(1e18)  # type: ignore[arg-type]


def run_held(
    plan: Plan,
    directory: Path,
    hook: Callable[[Run, int], None],
    hold: Callable[[str, int], object],
    *,
    step_ns: int = 1000,
) -> RunResult:
    """`run_hooked`, with `hold` in each call of a `Held`; afterwards, in replays, nothing holds them."""
    Held.hold = staticmethod(hold)
    try:
        return run_hooked(plan, directory, hook, step_ns=step_ns)
    finally:
        Held.hold = None


class Unmade(Task):
    """Cannot be made."""

    class Config(TaskConfig):
        by: str

    config: Config

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        raise {
            "error": ValueError("no"),
            "user": KeyboardInterrupt(),
            "usage": UsageError("use it otherwise"),
        }[self.config.by]

    def process(self, ctx: Context) -> None: ...


class Looks(Task):
    """Calls the test in each of its methods; fails in its second call, or `waits` in the first until it
    is interrupted."""

    look: ClassVar[Callable[[str], None]] = staticmethod(lambda _method: None)

    class Config(TaskConfig):
        gain: Live[int] = 1
        waits: bool = False

    config: Config

    def start(self, ctx: Context) -> None:
        self.calls, self.interrupted = 0, threading.Event()
        type(self).look("start")

    def stop(self, ctx: Context) -> None:
        type(self).look("stop")

    def configure(self, ctx: Context, changed: frozenset[str]) -> None:
        type(self).look("configure")

    def freeze(self) -> int:
        type(self).look("freeze")
        return self.calls

    def thaw(self, state: int) -> None:
        self.calls = state

    def interrupt(self, ctx: Context) -> None:
        type(self).look("interrupt")
        self.interrupted.set()

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        self.calls += 1
        type(self).look("process")
        if self.config.waits:
            assert self.interrupted.wait(30)
        if self.calls == 2:
            raise ValueError("no second call")
        out.publish()


class Either(Task):
    """Runs on either of two inputs."""

    def process(
        self, ctx: Context, a: Input[IntMsg] | None, b: Input[IntMsg] | None, out: Output[IntMsg]
    ) -> None:
        out.value = sum(it.value for it in (a, b) if it is not None)
        out.publish()


class KeepsOutput(Task):
    """Keeps its output, and the input of its first call."""

    def start(self, ctx: Context) -> None:
        self.number: Any = None

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        self.number, self.out = self.number or number, out
        out.value = self.number.value
        out.publish()


class Once(Task):
    """Publishes in its first call alone."""

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        if number.value == 0:
            out.publish()


class DropsAndFails(Task):
    """A source that left something out, says that it is over, and fails."""

    def process(self, ctx: Context, number: Output[IntMsg]) -> None:
        ctx.dropped(2)
        ctx.finish()
        raise OSError("no more")


class Ticks(Task):
    """A live source that publishes the number of the newest of its moments, as a camera does."""

    class Config(TaskConfig):
        period_ms: int
        offset_ms: int = 0
        count: int = 30
        """After how many moments it ends."""
        silent_after: int | None = None
        """After how many moments it says nothing, and does not end until `count`."""

    def start(self, ctx: Context) -> None:
        ctx.live()
        self.next = 0
        self.begin_ns = ctx.clock_ns() + 1_000_000 * self.config.offset_ms
        ctx.wake_at(self.begin_ns)

    def process(self, ctx: Context, number: Output[IntMsg]) -> None:
        period_ns = 1_000_000 * self.config.period_ms
        newest = (ctx.now_ns - self.begin_ns) // period_ns
        last = self.config.count if self.config.silent_after is None else self.config.silent_after
        if self.next <= min(newest, last - 1):
            number.value = min(newest, last - 1)
            number.publish(tov_ns=self.begin_ns + number.value * period_ns)
            self.next = number.value + 1
        if newest >= self.config.count - 1:
            ctx.finish()
        next_at = self.next if self.next < last else self.config.count - 1
        ctx.wake_at(self.begin_ns + next_at * period_ns)
