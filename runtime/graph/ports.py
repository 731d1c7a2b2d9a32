"""A task class -> its ports, read from the signature of `process`."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from flowrun.msgs.message import Message
from flowrun.runtime.errors import TaskDefinitionError
from flowrun.runtime.task import Task, TaskConfig, _InputMarker, _OutputMarker

__all__ = [
    "Port",
    "asynchronous",
    "has_more_ports",
    "is_source",
    "not_run",
    "ports_for",
    "ports_of",
]

_EXAMPLE = (
    "def process(self, ctx: Context, image: Input[ImageRgb8Msg], out: Output[TextMsg]) -> None"
)


_PLAIN = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NO_METHODS = (staticmethod, classmethod, functools.partial, functools.partialmethod)


@dataclass(frozen=True, slots=True)
class Port:
    """One parameter of `process`.

    required: for an input, whether `process` is called only in cycles in which it is present.
    """

    name: str
    direction: Literal["input", "output"]
    message_type: type[Message]
    required: bool

    @property
    def is_input(self) -> bool:
        return self.direction == "input"

    @property
    def is_output(self) -> bool:
        return self.direction == "output"


def is_source(ports: tuple[Port, ...]) -> bool:
    return not any(port.is_input for port in ports)


def ports_for(task_class: type[Task], config: TaskConfig | None) -> tuple[Port, ...]:
    """The ports of a task of `task_class` with `config`: those that `ports_of` gives. For a parameter
    `*name` there are more: for each of `config.inputs`, an optional input of that name and its output,
    `<input>_<name>`.

    config: None where it is not valid; it then has no such inputs.
    """
    ports = ports_of(task_class)  # type: ignore[arg-type]  # a class is hashable
    family = _family_of(task_class)  # type: ignore[arg-type]
    if family is None:
        return ports
    suffix, taken, made = family
    names: list[str] = getattr(config, "inputs", [])
    pairs = [
        (Port(name, "input", taken, False), Port(f"{name}_{suffix}", "output", made, True))
        for name in names
    ]
    return (*ports, *(port for pair in pairs for port in pair))


def has_more_ports(task_class: type[Task]) -> bool:
    """Whether the ports of a task also depend on its config; see `ports_for`."""
    return _family_of(task_class) is not None  # type: ignore[arg-type]


@functools.cache
def _family_of(task_class: type[Task]) -> tuple[str, type[Message], type[Message]] | None:
    """Of a signature with `*name: Input[A] | Output[B]`: name, A and B."""
    parameters = list(inspect.signature(task_class.process).parameters.values())
    last = parameters[-1]
    if last.kind is not inspect.Parameter.VAR_POSITIONAL:
        return None
    declared = typing.get_type_hints(task_class.process, include_extras=True).get(last.name)
    ends = {_direction(item): item for item in typing.get_args(declared)}
    if ends.keys() != {"input", "output"} or "inputs" not in task_class.Config.model_fields:
        return None
    return last.name, ends["input"].__origin__, ends["output"].__origin__


@functools.cache
def ports_of(task_class: type[Task]) -> tuple[Port, ...]:
    """The ports of `task_class`, in the order of its signature. `TaskDefinitionError` says what is
    wrong with the signature and shows a valid one, or names a method that the runtime would call in
    vain, because it only makes a coroutine or a generator."""
    try:
        return _ports_of(task_class)
    except TaskDefinitionError as error:
        error.of = error.of or getattr(task_class, "process", task_class)
        raise


def _ports_of(task_class: type[Task]) -> tuple[Port, ...]:
    _refuse_asynchronous(task_class)
    name = task_class.__name__
    process = getattr(task_class, "process", None)
    if not callable(process):
        raise TaskDefinitionError(f"task class {name} has no `process` method; e.g. {_EXAMPLE}")
    made_by = inspect.getattr_static(task_class, "process")
    if isinstance(made_by, _NO_METHODS):
        raise TaskDefinitionError(
            f"{name}.process is a {type(made_by).__name__}; write a plain method, e.g. {_EXAMPLE}"
        )
    parameters = list(inspect.signature(process).parameters.values())
    hides = [it for it in parameters[:2] if it.kind not in _PLAIN]
    if hides:
        raise TaskDefinitionError(
            f"{name}.process shows no ports, only {', '.join(map(str, parameters))}: a decorator hides "
            "them; use functools.wraps in it"
        )
    if len(parameters) < 2:
        raise TaskDefinitionError(f"{name}.process must take (self, ctx, ...); e.g. {_EXAMPLE}")
    try:
        hints = typing.get_type_hints(process, include_extras=True)
    except NameError as error:
        raise TaskDefinitionError(
            f"{name}.process: {error}; import the types of its ports at module level, not only "
            "under TYPE_CHECKING"
        ) from error
    if _direction(hints.get(parameters[1].name)) is not None:
        raise TaskDefinitionError(
            f"{name}.process: {parameters[1].name!r} is in the place of the context, which comes before "
            f"the ports; e.g. {_EXAMPLE}"
        )
    ports = []
    for parameter in parameters[2:]:
        if parameter is parameters[-1] and _family_of(task_class) is not None:  # type: ignore[arg-type]
            continue
        if parameter.kind not in _PLAIN:
            raise TaskDefinitionError(f"{name}.process: parameter {parameter} is not a plain port")
        ports.append(_port(name, parameter.name, hints.get(parameter.name)))
    return tuple(ports)


_METHODS = (
    "process",
    "__init__",
    "start",
    "stop",
    "interrupt",
    "configure",
    "freeze",
    "thaw",
    "is_external",
    "check",
    "check_inputs",
)


def _refuse_asynchronous(task_class: type[Task]) -> None:
    for name in _METHODS:
        method = getattr(task_class, name, None)
        kind = asynchronous(method)
        if kind is None or (name.startswith("check") and kind == "a generator"):  # an iterable
            continue
        said = not_run(name, is_process=name == "process")
        raise TaskDefinitionError(f"{task_class.__name__}.{name} is {kind}: {said}", method)


def not_run(name: str, *, is_process: bool) -> str:
    """What to do about a function `name` of which nobody runs what it makes."""
    return (
        f"calling it only makes an object that nobody runs; write a plain `def {name}`, without "
        "`yield`, that has done its work when it returns"
        + (" (slow work: `background: true`)" if is_process else "")
    )


def asynchronous(method: Any) -> str | None:
    """What `method` is if calling it does not run it; None for a plain function. Looks through
    `functools.partial` and decorators that use `functools.wraps`."""
    while method is not None:
        if isinstance(method, (functools.partial, functools.partialmethod)):
            method = method.func
        elif partial := getattr(method, "_partialmethod", None):
            method = partial
        elif not (inspect.isroutine(method) or isinstance(method, type)):
            method = type(method).__call__ if callable(method) else None
        elif inspect.iscoroutinefunction(method):
            return "an `async def`"
        elif inspect.isasyncgenfunction(method):
            return "an asynchronous generator"
        elif inspect.isgeneratorfunction(method):
            return "a generator"
        else:
            method = getattr(method, "__wrapped__", None)
    return None


def _port(task_name: str, name: str, declared: Any) -> Port:
    required = True
    if typing.get_origin(declared) in (typing.Union, types.UnionType):
        options = [item for item in typing.get_args(declared) if item is not type(None)]
        required = len(options) == len(typing.get_args(declared))
        declared = options[0] if len(options) == 1 else None
    direction = _direction(declared)
    if direction is not None:
        message_type = declared.__origin__
        if direction == "output" and not required:
            raise TaskDefinitionError(
                f"{task_name}.process: output {name!r} is declared optional; "
                "write Output[M]: an output that is not published is absent anyway"
            )
        if isinstance(message_type, type) and issubclass(message_type, Message):
            return Port(name, direction, message_type, required)
    raise TaskDefinitionError(
        f"{task_name}.process: parameter {name!r} must be Input[M], Input[M] | None or Output[M] "
        f"of a Message class M; got {'no annotation' if declared is None else declared}; e.g. {_EXAMPLE}"
    )


def _direction(declared: Any) -> Literal["input", "output"] | None:
    """What a parameter's annotation makes it; None if it makes it no port."""
    if typing.get_origin(declared) is not Annotated:
        return None
    markers = declared.__metadata__
    return "input" if _InputMarker in markers else "output" if _OutputMarker in markers else None
