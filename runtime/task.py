"""All that the author of a task needs. What `ctx` offers is in context.py.

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

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, Self, TypeVar, overload

from flowrun.msgs.message import Message
from flowrun.runtime.broadcast import Shows
from flowrun.runtime.context import Context, Playback, ShownState, State
from flowrun.runtime.errors import TaskDefinitionError
from flowrun.runtime.health import Backends, Health, HealthState, ServerHealth
from flowrun.runtime.task_config import Live, TaskConfig

__all__ = [
    "Backends",
    "Context",
    "Health",
    "HealthState",
    "Input",
    "Live",
    "Message",
    "Output",
    "Playback",
    "ServerHealth",
    "ShownState",
    "State",
    "Task",
    "TaskConfig",
    "is_external_function",
    "task",
]

M = TypeVar("M", bound=Message)
F = TypeVar("F", bound=Callable[..., object])


class _InputMarker:
    """Marks a parameter of `process` as an input port."""


class _OutputMarker:
    """Marks a parameter of `process` as an output port."""


Input = Annotated[M, _InputMarker]
"""A port that reads: a read-only view of the message, valid until `process` returns. Keep a `copy()` of
it for later."""

Output = Annotated[M, _OutputMarker]
"""A port that writes: set the message's fields, then `publish()` it, before `process` returns. Others
see the fields as they are at that moment."""


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

    external: ClassVar[bool] = False
    """Whether what the task publishes comes from outside the run; where its config decides that, define
    `is_external` instead."""

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

    def __new__(cls, *_: Any, **settings: Any) -> Self:
        keys = getattr(cls.Config, "model_fields", {}).keys()
        if settings and settings.keys() <= keys - {"config"}:
            said = ", ".join(f"{key}={value!r:.40}" for key, value in settings.items())
            raise TypeError(f"a graph makes its tasks: write graph.add({cls.__name__}, {said})")
        return super().__new__(cls)

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
        Not called for sources: what they publish always comes from outside. As `external` says, unless
        a class defines it."""
        return cls.external

    @classmethod
    def simulates(cls, config: TaskConfig) -> str | None:
        """Why `flowrun simulate` cannot run the task, and what to use instead, for the end of a
        sentence: "asks a server: use ..."; None if it can. It needs tasks that make the same messages
        each time, and wait for nobody. Not called for tasks that `acts_outside`, which are left out.

        config: the task's config.
        """
        if cls.is_external(config):
            return "gets what it publishes from outside the run: use a task that makes it itself"
        return None

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
        if inspect.isclass(function):
            raise TaskDefinitionError(
                f"@task is for functions, and {function.__name__} is a class; remove it: a class that "
                "derives from Task is a task"
            )
        vars(function)[_MARK] = external
        return function

    return mark if function is None else mark(function)


_MARK = "__flowrun_external__"


def is_external_function(function: Callable[..., object]) -> bool | None:
    """For the runtime: what `task` was given as `external`; None if the function has no such mark."""
    return vars(function).get(_MARK)
