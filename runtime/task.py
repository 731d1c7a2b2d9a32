"""All that the author of a task needs to read.

A task is a class with a `process` method whose signature declares its ports::

    class Blur(Task):
        \"\"\"Blur each frame.\"\"\"

        class Config(TaskConfig):
            radius_px: PositiveFloat = 2.0

        def process(
            self, ctx: Context, image: Input[ImageRgb8Msg], blurred: Output[ImageRgb8Msg]
        ) -> None:
            pixels = blurred.allocate_pixels(image.height, image.width)
            cv2.GaussianBlur(image.pixels, (0, 0), self.config.radius_px, dst=pixels)
            blurred.publish(tov_ns=image.tov_ns)

`Input[M]` is a required input: `process` is called only in cycles in which it is present.
`Input[M] | None` is an optional one: it is None if absent or unconnected. `Output[M]` is an output:
it is absent in a cycle unless `publish()` is called. A task without inputs is a source, one without
outputs a sink.

A last parameter `*answer: Input[M] | Output[N]` stands for any number of pairs: for each name in the
config's `inputs: list[str]`, an optional input of that name and the output `<name>_answer`. They come
in the order of the names, each input (or None) before its output. `*image: Input[M] | None` is any
number of optional inputs alone.

A type variable in place of a message's class (`M = TypeVar("M", bound=Message)`) makes a port that takes
any message: all ports with that variable have the class of their connections. In a `*` parameter each
pair has a class of its own.

A function is a task too; see `task`.

The runtime calls `__init__(config)`, then `start(ctx)` once, then `process(ctx, ...)` at most once a
cycle, then `stop(ctx)` once, also after an error. It calls all on one thread, except `process` of a task
with `background: true`, which runs on a worker, never twice at once, `process` where the graph has
`executor: parallel`, which runs on any of its threads, also never twice at once, and the restart of a
source after an error (`on_error: restart`), which has a thread of its own.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    Protocol,
    Self,
    TypeVar,
    overload,
)

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from flowrun.msgs.message import Message
from flowrun.runtime.broadcast import Broadcast, Shows
from flowrun.runtime.errors import UsageError
from flowrun.runtime.wording import listed, nearest

if TYPE_CHECKING:
    import numpy as np
    from structlog.typing import FilteringBoundLogger

    from flowrun.msgs.image import UnseenPacket

__all__ = [
    "ActorFunctions",
    "Backends",
    "Context",
    "CycleTime",
    "Health",
    "HealthState",
    "Input",
    "Live",
    "Message",
    "Output",
    "Playback",
    "ServerHealth",
    "SourceFunctions",
    "State",
    "Task",
    "TaskConfig",
    "is_external_function",
    "task",
]

M = TypeVar("M", bound=Message)
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])


class _InputMarker:
    """Marks a parameter of `process` as an input port."""


class _OutputMarker:
    """Marks a parameter of `process` as an output port."""


class LiveMarker:
    """Marks a configuration value that may change while the graph runs."""


Input = Annotated[M, _InputMarker]
"""A port that reads: a read-only view of the message, valid until `process` returns. Keep a `copy()` of
it for later."""

Output = Annotated[M, _OutputMarker]
"""A port that writes: set the message's fields, then `publish()` it, before `process` returns. Others
see the fields as they are at that moment."""

Live = Annotated[T, LiveMarker]
"""A configuration value that may change while the graph runs; see `Task.configure`."""


class TaskConfig(BaseModel):
    """Base of a task's `Config`: a frozen pydantic model that accepts no keys but its own, and no
    true or false where a number is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    if not TYPE_CHECKING:  # a checker would take every name for a key

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError:
                keys = list(type(self).model_fields)
                raise AttributeError(
                    f"the config has no key {name!r}; keys: {listed(keys)}{nearest(name, keys)}"
                ) from None

    @model_validator(mode="wrap")
    @classmethod
    def _no_flag_is_a_number(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        made = handler(data)
        wrong = list(_flags_as_numbers(data, made, ()))
        if wrong:
            raise ValidationError.from_exception_data(
                cls.__name__,
                [{"type": kind, "loc": path, "input": given} for path, kind, given in wrong],
            )
        return made


def _flags_as_numbers(
    given: Any, made: Any, path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], Literal["int_type", "float_type"], bool]]:
    """Each true and false of `given` that pydantic has made a number of: where, which kind of number,
    and what it was."""
    if isinstance(given, bool):
        if isinstance(made, (int, float)) and not isinstance(made, bool):
            yield path, "int_type" if isinstance(made, int) else "float_type", given
    elif isinstance(given, Mapping):
        for key, item in given.items():
            if isinstance(made, BaseModel):
                below = _field_of(made, key)
            else:
                below = made.get(key) if isinstance(made, Mapping) else None
            yield from _flags_as_numbers(item, below, (*path, key))
    elif isinstance(given, (list, tuple)) and isinstance(made, Sequence):
        for i, (item, below) in enumerate(zip(given, made, strict=False)):
            yield from _flags_as_numbers(item, below, (*path, i))


def _field_of(made: BaseModel, key: str) -> Any:
    """The field that `key`, its name or its alias, sets."""
    for name, info in type(made).model_fields.items():
        if key in (name, info.alias, info.validation_alias):
            return getattr(made, name)
    return None


C = TypeVar("C", bound=TaskConfig)
C_co = TypeVar("C_co", bound=TaskConfig, covariant=True)


class _Configured(Protocol[C_co]):
    """An object whose class names its configuration's class."""

    @property
    def Config(self) -> type[C_co]: ...  # noqa: N802


class _ConfigOfTask:
    """`Task.config`, typed as each class's own `Config`: type checkers and editors find the nested
    class, so that no task has to declare it."""

    @overload
    def __get__(self, task: None, owner: type[Task]) -> Self: ...
    @overload
    def __get__(self, task: _Configured[C], owner: type[Task]) -> C: ...
    def __get__(self, task: Any, owner: type[Task]) -> Any:
        if task is None:
            return self
        raise AttributeError  # `Task.__getattr__` says what is wrong

    if TYPE_CHECKING:
        # Not defined at run time: Python then looks into the task's own __dict__ first, and reading
        # `self.config` costs no call.
        def __set__(self, task: Task, config: TaskConfig) -> None: ...


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


Playback = Literal["running", "paused", "muted"]
"""What somebody asks of a source while the graph runs:

| playback | meaning                                                                         |
|----------|---------------------------------------------------------------------------------|
| running  | its `process` is called, and what it publishes is seen                          |
| paused   | its `process` is not called: a file waits, a live source drops what comes       |
| muted    | its `process` is called, and what it publishes is dropped: a file plays on      |
"""


HealthState = Literal["unused", "loading", "ok", "failing"]
"""How a backend is doing:

| state   | meaning                                                                          |
|---------|----------------------------------------------------------------------------------|
| unused  | it was not needed yet, and nobody has asked it                                   |
| loading | it gets ready                                                                    |
| ok      | it answered when it was last asked                                               |
| failing | it did not                                                                       |
"""


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """How a server of a farm is doing.

    state, for_s, seen_s, detail: as of `Health`.
    outstanding: how many questions of this task it has now.
    answers: how many it has answered.
    failures: how many it was asked, and did not answer.
    """

    state: HealthState
    for_s: float
    seen_s: float
    detail: str
    outstanding: int
    answers: int
    failures: int


@dataclass(frozen=True, slots=True)
class Health:
    """How one of those is doing that a task asks for its answers: a model, or a server.

    for_s: how long it has been in this state, in seconds.
    seen_s: how long ago it was last seen to be, in seconds.
    detail: what it does while it loads, or what was wrong when it last failed.
    used: whether it is the one in force, or one of its fallbacks.
    servers: of a farm, how each server is doing, by its address without secrets.
    """

    state: HealthState
    for_s: float
    seen_s: float
    detail: str
    used: bool
    servers: Mapping[str, ServerHealth] = field(default_factory=dict)


class Backends(Protocol):
    """Those that a task asks for its answers. Both methods are called on any thread, also after the end,
    and return at once."""

    def health(self) -> Mapping[str, Health]:
        """By name, how each is doing."""

    def ask(self) -> None:
        """Somebody looks at the run: those may be asked of which nothing new is known. Called once a
        second and more often; what costs somebody something must be done less often than that."""


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
        keeps it, and the run's report shows it. Until a source reports otherwise it is running, and from
        `finish` on it has ended.

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
        """Only for tasks that `acts_outside`: whether a source of the run is live, such as a camera, so
        that whoever makes a cycle wait makes others miss something."""
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


class Task:
    """Base class of tasks: define `process`, and the other methods as needed."""

    Config: type[TaskConfig] = TaskConfig  # a ClassVar would not match `_Configured`
    """The class of the task's configuration; define it within yours."""

    config = _ConfigOfTask()
    """The task's configuration, typed as your `Config`. The runtime sets it."""

    picture_codecs: ClassVar[tuple[str, ...]] = ("raw", "zstd", "ffv1")
    """How the log can store the task's pictures, the default first. "packets" is for sources that set
    `ImageRgb8Msg.video` if `Context.logs_packets`."""

    example_config: ClassVar[Mapping[str, Any]] = {}
    """The config of an example of the task, as `flowrun tasks` shows one: for a class whose defaults are
    not enough."""

    several: ClassVar[str | None] = None
    """The key of the config of which a graph file may give a list: it makes one task for each item."""

    several_configs: ClassVar[str | None] = None
    """The key of the config of which a graph file may give a list of mappings, each with keys of the
    config and an `id`: it makes one task for each. Its field in `Config` is for the documentation."""

    shadow_type: ClassVar[str | None] = None
    """For a class whose config may describe a shadow, `shadow: {...}`: the class of the task that is
    made of it, as `type:` names it. It gets the same inputs, in the background, after the task has
    answered about them, and what it publishes goes to the log alone."""

    shows: ClassVar[Shows | None] = None
    """What the task offers in `ctx.broadcast` to clients outside the run: "picture" or "answer", by
    which the page and the HTTP API find it, or "partial answer"."""

    acts_outside: ClassVar[bool] = False
    """Whether the task does something outside the run that MUST NOT be done again, such as sending a
    message or writing a file. A replay neither starts nor calls it; what it published, if anything, and
    what it raised come from the log."""

    leaves_out: ClassVar[bool] = False
    """Whether the task leaves out some of its inputs, and says so by `ctx.dropped`. What it says MUST
    NOT decide about a message: a replay takes it from the log."""

    conceals: ClassVar[str | None] = None
    """The input in whose pictures the task makes something unrecognizable, for privacy. `flowrun check`,
    and a run at its start, warn where the log keeps these pictures, or somebody else gets them."""

    process: ClassVar[Callable[..., None]]
    """`process(self, ctx, <ports>) -> None`. An exception ends the run, with an error that names task
    and cycle, unless `on_error` says otherwise."""

    if not TYPE_CHECKING:  # a checker would take every name for an attribute

        def __getattr__(self, name: str) -> Any:
            found = getattr(type(self), name, None)
            if isinstance(found, property):  # it has raised an AttributeError of its own
                return found.__get__(self)
            text = f"{type(self).__name__!r} object has no attribute {name!r}"
            if name.startswith("__"):
                raise AttributeError(text)
            if name == "config":
                text = (
                    f"{type(self).__name__} has no config yet; call super().__init__(config) first"
                )
                raise AttributeError(text)
            raise AttributeError(f"{text}; set what the task remembers in start() or __init__()")

    def __init__(self, config: TaskConfig) -> None:
        """Keep it cheap: open nothing, load nothing. A replay makes tasks that it never starts."""
        # Not `self.config = ...`, which pyright takes for a second declaration of another type.
        self.__dict__["config"] = config

    @classmethod
    def check(cls, config: TaskConfig, graph_dir: Path) -> Iterable[tuple[str, str]]:  # noqa: ARG003
        """What is wrong with a config that is valid in itself, such as a file that is missing: pairs
        of a key ("key", or "key.inner" below another one) and a text, which is reported at the key's
        place in the graph file.

        Called before anything starts; opens and loads nothing. Not called for a replay.

        config: the task's config.
        graph_dir: where relative paths start.
        """
        return ()

    @classmethod
    def check_inputs(
        cls,
        config: TaskConfig,  # noqa: ARG003
        inputs: Mapping[str, type[Message]],  # noqa: ARG003
    ) -> Iterable[tuple[str, str]]:
        """What is wrong with what a graph connects to the task, though the types fit: pairs of a key of
        the config, "" for none, and a text, which is reported at the key's place in the graph file.

        Called before anything starts, also before a replay.

        config: the task's config.
        inputs: of the inputs that are connected, the class of message that the output at the other end
            declares, which may be a subclass of the input's.
        """
        return ()

    @classmethod
    def shadow_config(cls, config: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
        """The config of a shadow, of a class that may have one (`shadow_type`).

        config: the task's, without `shadow`, as the graph file has it.
        own: what `shadow` says.
        """
        return {**config, **own}

    @classmethod
    def code(cls, config: TaskConfig) -> Iterable[str]:  # noqa: ARG003
        """The modules besides the task's own whose code decides what it publishes, because its config
        names them. The log keeps a hash of each; a replay notes which has changed since."""
        return ()

    @classmethod
    def is_external(cls, config: TaskConfig) -> bool:  # noqa: ARG003
        """Whether what the task publishes comes from outside the run, such as a server's answers. It
        may then differ the next time, and a replay takes it from the log without starting the task.
        Not called for sources: what they publish always comes from outside."""
        return False

    def start(self, ctx: Context) -> None:
        """Open devices, load models. Called once, before the first cycle; may block."""

    def stop(self, ctx: Context) -> None:
        """Release what `start` took. Called once for every task whose `start` was called."""

    def interrupt(self, ctx: Context) -> None:
        """The run ends while `process` of this background task still works, or while this source is
        started again after an error: make it return soon, with an error if need be. What it publishes
        is no longer used.

        Called before `stop`, on another thread than `process`, perhaps more than once. A run waits at
        most 8 s for a call that goes on nevertheless.
        """

    def configure(self, ctx: Context, changed: frozenset[str]) -> None:
        """`self.config` has new values for the `Live` keys in `changed`.

        Called between two cycles (for a background task: between two calls of `process`). If it raises,
        the task keeps the values that it had, and `on_error` says what follows. The change is in the
        log, and comes at the same cycle in a replay.
        """

    def freeze(self) -> Any:
        """What the task remembers from one call of `process` to the next, as values that msgpack can
        hold, and NumPy arrays; tuples come back as lists.

        Called every `logging: {keyframe_interval}` cycles, between two of them (for a background
        task: after each of its calls, on its worker), so that a replay can begin there. Define it
        together with `thaw`, or neither: a class without them is taken to remember nothing besides
        its config and `ctx.rng`, which the runtime keeps. `flowrun replay --verify-keyframes` finds a
        task that forgets something. An exception is logged, and the run goes on.
        """
        return None

    def thaw(self, state: Any) -> None:
        """Restore a state that `freeze` gave, in place of the present one. Called in a replay that
        goes to a keyframe: after `start`, and with the config of that moment."""


@overload
def task(function: F, /) -> F: ...
@overload
def task(*, external: bool = False) -> Callable[[F], F]: ...
def task(function: F | None = None, /, *, external: bool = False) -> F | Callable[[F], F]:
    """Mark a function as a task: a graph file names it as `type: my_module.double`. It stays the
    function that it is, to be called in tests.

    Its signature declares the ports and the config::

        @task
        def bright(
            ctx: Context, image: ImageRgb8Msg, mask: MaskMsg | None, *, threshold: Live[int] = 128
        ) -> BoolMsg | None:
            \"\"\"Whether a picture is bright.\"\"\"

    - A parameter annotated with a message class is a required input of its name, with `M | None` an
      optional one. Without inputs it is a source.
    - A parameter named `ctx`, or annotated `Context`, gets the context. It may be left out.
    - Any other parameter is a key of the config, checked as the fields of a `TaskConfig` are. Write
      them after a `*`; one that has a default may come without it.
    - What it returns is published on the output `out`. A NamedTuple or a dataclass of messages is
      several outputs, one for each field, of its name. `-> None` is a sink.
    - Nothing is published where it returns None, or a field is None.
    - What is published has the time of the first input that is present; from a source, the cycle's
      time. A message that was published already, such as an input, keeps its own.

    A function without this mark is a task too, if a graph names it. What must remember something from
    one call to the next is a class.

    external: whether what it returns comes from outside the run, such as a server's answer; see
        `Task.is_external`.
    """

    def mark(function: F) -> F:
        vars(function)[_MARK] = external
        return function

    return mark if function is None else mark(function)


_MARK = "__flowrun_external__"


def is_external_function(function: Callable[..., object]) -> bool | None:
    """For the runtime: what `task` was given as `external`; None if the function has no such mark."""
    return vars(function).get(_MARK)
