"""A task class -> its ports, read from the signature of `process`."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

from flowrun.msgs.message import Message
from flowrun.runtime.errors import TaskDefinitionError
from flowrun.runtime.graph.overridden import refuse_other_kinds
from flowrun.runtime.task import Context, M, Task, TaskConfig, _InputMarker, _OutputMarker

__all__ = [
    "Port",
    "asynchronous",
    "has_more_ports",
    "is_source",
    "not_run",
    "ports_for",
    "ports_of",
    "with_types",
]

_EXAMPLE = (
    "def process(self, ctx: Context, image: Input[ImageRgb8Msg], out: Output[TextMsg]) -> None"
)


_NONE = type(None)
_PLAIN = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NO_METHODS = (staticmethod, classmethod, functools.partial, functools.partialmethod)


@dataclass(frozen=True, slots=True)
class Port:
    """One parameter of `process`.

    required: for an input, whether `process` is called only in cycles in which it is present.
    variable: the name of the type variable that is declared in place of the message's class: all ports
        of a task with that name have one class, that of their connections. "" if there is none.
    named: whether the task's config names it; an input that nobody feeds is then a mistake.
    """

    name: str
    direction: Literal["input", "output"]
    message_type: type[Message]
    required: bool
    variable: str = ""
    named: bool = False

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
    `*name` there are more: for each of `config.inputs`, an optional input of that name and, where it
    declares one, its output, `<input>_<name>`.

    config: None where it is not valid; it then has no such inputs.
    """
    ports = ports_of(task_class)  # type: ignore[arg-type]  # a class is hashable
    family = _family_of(task_class)  # type: ignore[arg-type]
    if family is None:
        return ports
    suffix, taken, made = family
    names: list[str] = getattr(config, "inputs", [])
    more = []
    for name in names:
        taking = _port_of(name, "input", taken, required=False, variable=name)
        more.append(replace(taking, named=True))
        if made is not None:
            more.append(_port_of(f"{name}_{suffix}", "output", made, required=True, variable=name))
    return (*ports, *more)


def with_types(ports: Iterable[Port], given: Mapping[str, type[Message]]) -> tuple[Port, ...]:
    """The ports with the message classes of their connections in place of type variables. An output
    that none decides can publish nothing, and gets the class of a message without fields.

    given: the classes of connections, by port; an input's decides before an output's.
    """
    ports = tuple(ports)
    types: dict[str, type[Message]] = {}
    for port in sorted(ports, key=lambda it: it.is_output):
        kind = given.get(port.name)
        if port.variable and kind is not None and issubclass(kind, port.message_type):
            types.setdefault(port.variable, kind)
    found = []
    for port in ports:
        kind = types.get(port.variable)
        if kind is None and port.is_output and port.message_type is Message:
            kind = _Nothing
        found.append(port if kind is None else replace(port, message_type=kind))
    return tuple(found)


class _Nothing(Message):
    """What an output is that nothing can be published on."""


def _port_of(
    name: str,
    direction: Literal["input", "output"],
    declared: Any,
    *,
    required: bool,
    variable: str = "",
) -> Port:
    """variable: in place of the declared one's own name, if there is one."""
    if isinstance(declared, TypeVar):
        bound = declared.__bound__ or Message
        return Port(name, direction, bound, required, variable or declared.__name__)
    return Port(name, direction, declared, required)


def has_more_ports(task_class: type[Task]) -> bool:
    """Whether the ports of a task also depend on its config; see `ports_for`."""
    return _family_of(task_class) is not None  # type: ignore[arg-type]


@functools.cache
def _family_of(task_class: type[Task]) -> tuple[str, Any, Any] | None:
    """Of a signature with `*name: Input[A] | Output[B]` or `*name: Input[A] | None`: name, A, and B or
    None."""
    parameters = list(inspect.signature(task_class.process).parameters.values())
    last = parameters[-1]
    if last.kind is not inspect.Parameter.VAR_POSITIONAL:
        return None
    declared = typing.get_type_hints(task_class.process, include_extras=True).get(last.name)
    ends = {_direction(item): item for item in typing.get_args(declared) if item is not _NONE}
    if "inputs" not in task_class.Config.model_fields or None in ends or "input" not in ends:
        return None
    made = ends["output"].__origin__ if "output" in ends else None
    return last.name, ends["input"].__origin__, made


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
    refuse_other_kinds(task_class)
    _refuse_other_parameters(task_class)
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
    if hints.get(parameters[0].name) is Context:
        raise TaskDefinitionError(
            f"{name}.process: 'self' is missing before the context; e.g. {_EXAMPLE}"
        )
    if _direction(hints.get(parameters[1].name)) is not None:
        raise TaskDefinitionError(
            f"{name}.process: {parameters[1].name!r} is in the place of the context, which comes before "
            f"the ports; e.g. {_EXAMPLE}"
        )
    ports = []
    for parameter in parameters[2:]:
        if parameter is parameters[-1] and _family_of(task_class) is not None:  # type: ignore[arg-type]
            continue
        if parameter is parameters[-1] and getattr(task_class, "streams_are_outputs", False):
            continue  # `parts` makes them
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
    "simulates",
    "check",
    "check_inputs",
    "code",
)


_ITERABLE = ("check", "check_inputs", "code")
"""Those that return an iterable."""


def _refuse_asynchronous(task_class: type[Task]) -> None:
    for name in _METHODS:
        method = getattr(task_class, name, None)
        kind = asynchronous(method)
        if kind is None or (name in _ITERABLE and kind == "a generator"):
            continue
        said = not_run(name, is_process=name == "process")
        raise TaskDefinitionError(f"{task_class.__name__}.{name} is {kind}: {said}", method)


_CALLED = {
    "__init__": (("config",), "def __init__(self, config: TaskConfig) -> None"),
    "start": (("ctx",), "def start(self, ctx: Context) -> None"),
    "stop": (("ctx",), "def stop(self, ctx: Context) -> None"),
    "interrupt": (("ctx",), "def interrupt(self, ctx: Context) -> None"),
    "configure": (
        ("ctx", "changed"),
        "def configure(self, ctx: Context, changed: frozenset[str]) -> None",
    ),
    "freeze": ((), "def freeze(self) -> Any"),
    "thaw": (("state",), "def thaw(self, state: Any) -> None"),
}
"""What the runtime gives to a method besides the task, and how it is written."""


def _refuse_other_parameters(task_class: type[Task]) -> None:
    for name, (given, written) in _CALLED.items():
        method = inspect.getattr_static(task_class, name, None)
        if not inspect.isfunction(method) or method is inspect.getattr_static(Task, name):
            continue
        try:
            inspect.signature(method).bind(None, *given)
        except TypeError as error:
            raise TaskDefinitionError(
                f"{task_class.__name__}.{name} is called with ({', '.join(('self', *given))}), and does "
                f"not take that: {error}; write {written}",
                method,
            ) from None


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
        bound = message_type.__bound__ if isinstance(message_type, TypeVar) else message_type
        if message_type is M:  # a bare `Input`
            declared = "Input" if direction == "input" else "Output"
        elif bound is None or (isinstance(bound, type) and issubclass(bound, Message)):
            if bound is not None and dataclasses.is_dataclass(bound):
                raise TaskDefinitionError(
                    f"{bound.__name__} is a message, and no dataclass: remove @dataclass"
                )
            return _port_of(name, direction, message_type, required=required)
    raise TaskDefinitionError(
        f"{task_name}.process: parameter {name!r} must be Input[M], Input[M] | None or Output[M] "
        f"of a Message class M; got {_written(declared)}; e.g. {_EXAMPLE}"
    )


def _written(declared: Any) -> str:
    """An annotation as it is written."""
    direction = _direction(declared)
    if direction is not None and not isinstance(declared.__origin__, TypeVar):
        return f"{direction.title()}[{inspect.formatannotation(declared.__origin__)}]"
    if isinstance(declared, type):
        name = declared.__name__
        ports = (
            f" (write Input[{name}], or Output[{name}])" if issubclass(declared, Message) else ""
        )
        return f"{name}{ports}"
    return "no annotation" if declared is None else str(declared)


def _direction(declared: Any) -> Literal["input", "output"] | None:
    """What a parameter's annotation makes it; None if it makes it no port."""
    if typing.get_origin(declared) is not Annotated:
        return None
    markers = declared.__metadata__
    return "input" if _InputMarker in markers else "output" if _OutputMarker in markers else None
