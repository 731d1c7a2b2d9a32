"""What a task may ask of the runtime while it runs: the object `ctx` of each call."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flowrun.runtime.broadcast import Broadcast
from flowrun.runtime.errors import UsageError
from flowrun.runtime.health import Backends

if TYPE_CHECKING:
    import numpy as np
    from structlog.typing import FilteringBoundLogger

    from flowrun.msgs.image import UnseenPacket

__all__ = [
    "ActorFunctions",
    "Context",
    "CycleTime",
    "Playback",
    "ShownState",
    "SourceFunctions",
    "State",
    "shown_state",
]

State = Literal["connecting", "running", "paused", "muted", "lost", "ended", "error"]
"""How a source is doing:

| state      | meaning                                                                       |
|------------|-------------------------------------------------------------------------------|
| connecting | it has not given anything yet, and tries to                                   |
| running    | it gives what it has                                                          |
| paused     | it was asked to give nothing for a while                                      |
| muted      | it goes on, and nothing of it is published for a while                        |
| lost       | it gave something before, gives nothing now, and tries to again               |
| ended      | nothing more comes, as at the end of a file                                   |
| error      | it has failed, and does not try again                                         |
"""


ShownState = Literal["starting", State]
"""A `State`, or "starting" of a source that has not said anything, and that no cycle has called yet."""

Playback = Literal["running", "paused", "muted"]
"""What somebody asks of a source while the graph runs:

| playback | meaning                                                                         |
|----------|---------------------------------------------------------------------------------|
| running  | its `process` is called, and what it publishes is seen                          |
| paused   | its `process` is not called: a file waits, a live source drops what comes       |
| muted    | its `process` is called, and what it publishes is dropped: a file plays on      |
"""


def shown_state(
    said: tuple[State, str], *, asked: Playback, has_ended: bool
) -> tuple[ShownState, str]:
    """How a source is doing, and the code of what keeps it from running, as people see it.

    said: what it last said of itself.
    asked: what was last asked of it.
    has_ended: whether nothing more comes from it.
    """
    state, code = said
    if has_ended and state != "error":
        return "ended", ""
    if state == "running" and asked != "running":
        return asked, ""
    return state, code


class CycleTime:
    """The number and the frozen time of the cycle that is running."""

    __slots__ = ("cycle", "now_ns")

    def __init__(self, cycle: int = 0, now_ns: int = 0) -> None:
        self.cycle = cycle
        self.now_ns = now_ns


@dataclass(frozen=True, slots=True)
class SourceFunctions:
    """What the context of a source calls; see the methods of these names in `Context`.

    logs_packets: see `Context.logs_packets`.
    """

    clock_ns: Callable[[], int]
    wake: Callable[[], None]
    wake_at: Callable[[int], None]
    finish: Callable[[], None]
    keep_packets: Callable[[tuple[UnseenPacket, ...]], None]
    dropped: Callable[[int, str], None]
    report: Callable[[State, str], None]
    live: Callable[[], None]
    playback: Callable[[], Playback]
    paused_ns: Callable[[], int]
    logs_packets: bool = False


@dataclass(frozen=True, slots=True)
class ActorFunctions:
    """What the context of a task that `acts_outside` calls; see the methods of these names in
    `Context`."""

    dropped: Callable[[int, str], None]
    follows_live: Callable[[], bool]
    end_run: Callable[[str], None]


class Context:
    """What a task may ask of the runtime. There is one per task, the same object in every call.

    task_id: the task's id in the graph file.
    graph_dir: the folder of the graph file; relative paths in a task's config start there.
    run_id: name of the run, as of its log's directory; what a task publishes MUST NOT depend on it.
    fed_by: the outputs that the task's inputs are connected to: input port -> "task.port".
    log: a structlog logger; its records go to the console and into the run's log.
    broadcast: what a sink hands to clients outside the run (HTTP); see `Broadcast`.
    progress: set by a `start` that takes long: what it is doing, and the part that is done, from 0 to
        1, or None if that is not known. Shown to people, never logged.
    backends: set by a `start` whose task asks models or servers that may fail: how they are doing. Shown
        to people, never logged.
    computes_on: set by `start` if the bytes of the task's messages depend on it: the device and type
        that its model computes in. The log keeps it, and a replay notes if it has another.
    """

    __slots__ = (
        "__weakref__",
        "_actor",
        "_dropped",
        "_rng",
        "_seed",
        "_source",
        "_time",
        "backends",
        "broadcast",
        "computes_on",
        "fed_by",
        "graph_dir",
        "log",
        "progress",
        "run_id",
        "task_id",
    )

    def __init__(
        self,
        task_id: str,
        *,
        time: CycleTime,
        log: FilteringBoundLogger,
        graph_dir: Path,
        seed: int,
        broadcast: Broadcast,
        source: SourceFunctions | None = None,
        actor: ActorFunctions | None = None,
        dropped: Callable[[int, str], None] | None = None,
        run_id: str = "",
        fed_by: Mapping[str, str] | None = None,
    ) -> None:
        self.task_id = task_id
        self.run_id = run_id
        self.fed_by: Mapping[str, str] = fed_by or {}
        self.graph_dir = graph_dir
        self.log = log
        self.broadcast = broadcast
        self.progress: tuple[str, float | None] | None = None
        self.backends: Backends | None = None
        self.computes_on = ""
        self._time = time
        self._seed = seed
        self._rng: np.random.Generator | None = None
        self._source = source
        self._actor = actor
        self._dropped = dropped

    @property
    def cycle(self) -> int:
        """Number of the running cycle, from 0."""
        return self._time.cycle

    @property
    def now_ns(self) -> int:
        """The cycle's time, nanoseconds since 1970 UTC. It does not move within a cycle, and is the
        same in a replay: never read another clock to compute a message."""
        return self._time.now_ns

    @property
    def rng(self) -> np.random.Generator:
        """Random numbers that replay: their seed is the graph's `runtime: {seed}` and the task's id."""
        if self._rng is None:
            import numpy as np

            self._rng = np.random.default_rng([self._seed, zlib.crc32(self.task_id.encode())])
        return self._rng

    def freeze_rng(self) -> str | None:
        """For the runtime: the state of `rng`, or None while nothing was drawn from it."""
        return None if self._rng is None else json.dumps(self._rng.bit_generator.state)

    def thaw_rng(self, state: str | None) -> None:
        """For the runtime: restore a state that `freeze_rng` gave; None for the state at the start. The
        generator stays the same object, because a task may have kept it."""
        kept, self._rng = self._rng, None
        if kept is not None or state is not None:
            fresh = self.rng.bit_generator.state
            self._rng = kept or self._rng
            self.rng.bit_generator.state = fresh if state is None else json.loads(state)

    # -- for sources only ----------------------------------------------------------------------

    def clock_ns(self) -> int:
        """Sources only: the time of the run's clock, nanoseconds since 1970 UTC."""
        return self._of_source.clock_ns()

    def wake(self) -> None:
        """Sources only, from any thread: something has arrived, call `process` soon."""
        self._of_source.wake()

    def wake_at(self, time_ns: int) -> None:
        """Sources only, from any thread: call `process` again no later than at `time_ns` of `clock_ns`,
        a whole number.

        A source whose `process` publishes nothing is called again when `wake` or `wake_at` say so,
        and otherwise every 10 ms; every 100 ms where no source needs that, as they are `live` or have
        said when they are due.
        """
        self._of_source.wake_at(time_ns)

    def finish(self) -> None:
        """Sources only: report that nothing more will come; `process` is not called again. The run
        ends when all its sources have finished and background work is done.
        """
        self._of_source.finish()

    def keep_packets(self, packets: tuple[UnseenPacket, ...]) -> None:
        """Sources only: hand over, for the log, the compressed packets that came after those of the last
        picture, in decoding order. For `stop`, and before `finish`; nothing happens if there are none.
        The log has them where it takes `ImageRgb8Msg.video` of the task, unless the run ends because it
        has run as many cycles as it was to."""
        self._of_source.keep_packets(packets)

    def dropped(self, count: int, cause: str = "") -> None:
        """Sources, and tasks that `acts_outside` or `leaves_out`, from any thread: report that `count`
        pictures, or whatever the task makes or sends, have been left out for this cause since the last
        call. The log keeps it with the next cycle; no cycle runs for that alone. `TypeError` if it is
        not a whole number.

        cause: why, in a few words that are always the same, such as "too old".
        """
        if self._dropped is not None:
            self._dropped(count, cause)
        else:
            (self._actor or self._of_source).dropped(count, cause)

    def report(self, state: State, code: str = "") -> None:
        """Sources only, from any thread: report how the source is doing, when that has changed. The log
        keeps it, and the run's report shows it. Until a source reports otherwise it is running from the
        first cycle on, and from `finish` on it has ended.

        code: what keeps it from running, in a word that programs can go by, such as "timeout".
        """
        self._of_source.report(state, code)

    def live(self) -> None:
        """Sources only, from any thread: report that what comes does so at a time of its own, as from a
        camera, and that `wake` is called whenever it does. Cycles then wait for it, and for other live
        sources, as `runtime: {collect_timeout_ms}` says. If something is left after `process` has
        published, `wake_at(0)` asks to be called again without waiting for others."""
        self._of_source.live()

    @property
    def playback(self) -> Playback:
        """Sources only, from any thread: what somebody asks of the source. A source need not look: see
        `Playback` for what the runtime does."""
        return self._of_source.playback()

    @property
    def paused_ns(self) -> int:
        """Sources only: for how many nanoseconds of the cycles' time the source was paused so far, for
        one that plays something at its own speed."""
        return self._of_source.paused_ns()

    @property
    def logs_packets(self) -> bool:
        """Whether the log takes `ImageRgb8Msg.video` of this task; if not, there is no need to keep
        compressed packets."""
        return self._source is not None and self._source.logs_packets

    # -- for tasks that act outside only -------------------------------------------------------

    @property
    def follows_live(self) -> bool:
        """Only for tasks that `acts_outside`: whether a source of the run is live, such as a camera: a
        task that delays a cycle then costs it frames."""
        return self._of_actor.follows_live()

    def end_run(self, reason: str) -> None:
        """Only for tasks that `acts_outside`, from any thread: ask the run to end after the running
        cycle.

        reason: why, as the run's report says it.
        """
        self._of_actor.end_run(reason)

    @property
    def _of_actor(self) -> ActorFunctions:
        if self._actor is None:
            raise UsageError(f"task {self.task_id!r} does not declare that it acts_outside")
        return self._actor

    @property
    def _of_source(self) -> SourceFunctions:
        if self._source is None:
            raise UsageError(
                f"task {self.task_id!r} has inputs: only sources may see the outside. "
                "Use ctx.now_ns for the time; it is the same in a replay"
            )
        return self._source
