"""A function -> a task class: its signature declares ports, config and outputs. See `task.task`."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import create_model

from flowrun.msgs.fields import MessageTypeError
from flowrun.msgs.message import Message
from flowrun.runtime.errors import TaskDefinitionError, WrongReturnError, text_of, worded
from flowrun.runtime.graph.ports import asynchronous, not_run
from flowrun.runtime.interrupts import is_users
from flowrun.runtime.task import (
    Context,
    Input,
    Output,
    Task,
    TaskConfig,
    is_external_function,
)
from flowrun.runtime.wording import listed, with_article

__all__ = ["OUT", "is_task_function", "task_class_of"]

OUT = "out"
"""The output of a function that returns one message."""

_EXAMPLE = "def double(number: IntMsg, *, factor: int = 2) -> IntMsg"
_Kinds = inspect.Parameter
_INPUT = typing.get_args(Input[Message])[1:]
_OUTPUT = typing.get_args(Output[Message])[1:]


def is_task_function(value: object) -> bool:
    """Whether `value` is meant as a task: a function that is marked, or whose signature has messages."""
    if not inspect.isfunction(value):
        return False
    if is_external_function(value) is not None:
        return True
    declared = getattr(value, "__annotations__", {})
    try:
        hints = typing.get_type_hints(value, include_extras=True)
    except Exception:  # noqa: BLE001  # an annotation may be any expression, and raise anything
        hints = declared
    return any(_message_in(hint) is not None for hint in hints.values())


@functools.cache
def task_class_of(function: Callable[..., object]) -> type[Task]:
    """The task class whose `process` calls `function`, always the same one for a function. It has the
    function's name, module and text.

    `TaskDefinitionError` says what is wrong with the signature.
    """
    name = getattr(function, "__name__", repr(function))
    if not inspect.isfunction(function):
        raise TaskDefinitionError(f"{name} is no plain function; write one, e.g. {_EXAMPLE}")
    kind = asynchronous(function)
    if kind is not None:
        said = not_run(name, is_process=True)
        raise TaskDefinitionError(f"{name} is {kind}: {said}", function)
    try:
        signature = _read(function)
    except TaskDefinitionError as error:
        error.of = function
        raise
    external = bool(is_external_function(function))

    class FunctionTask(Task):
        """Calls a function."""

        Config = signature.config

        def __init__(self, config: TaskConfig) -> None:
            super().__init__(config)
            self._keywords: tuple[TaskConfig | None, Mapping[str, Any]] = (None, {})

        @classmethod
        def is_external(cls, config: TaskConfig) -> bool:  # noqa: ARG003
            return external

        def process(self, ctx: Context, *ports: Message | None) -> None:
            of_config, keywords = self._keywords
            if of_config is not self.config:
                keywords = {key: getattr(self.config, key) for key in signature.keys}
                self._keywords = self.config, keywords
            signature.call(ctx, ports, keywords)

    process: Any = FunctionTask.process
    process.__signature__ = inspect.Signature(
        [
            _Kinds("self", _Kinds.POSITIONAL_OR_KEYWORD),
            _Kinds("ctx", _Kinds.POSITIONAL_OR_KEYWORD),
            *(_Kinds(port, _Kinds.POSITIONAL_OR_KEYWORD) for port in signature.annotations),
        ]
    )
    process.__annotations__ = dict(signature.annotations)
    for key in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(FunctionTask, key, getattr(function, key))
    return FunctionTask


@dataclass(frozen=True, slots=True)
class _Signature:
    """What the signature of a function declares.

    positional: names of the parameters that must be given by place.
    context: the name of the parameter that gets the context; None if there is none.
    inputs: names of the inputs, in order.
    outputs: the message class of each output, by name.
    returns: the class of what it returns, which has the outputs as attributes; None: it returns the
        message of `OUT`, or nothing.
    keys: names of the keys of the config.
    annotations: of the ports, as `process` declares them: inputs, then outputs.
    """

    function: Callable[..., Any]
    positional: tuple[str, ...]
    context: str | None
    inputs: tuple[str, ...]
    outputs: Mapping[str, type[Message]]
    returns: type | None
    keys: tuple[str, ...]
    config: type[TaskConfig]
    annotations: Mapping[str, Any]

    def call(
        self, ctx: Context, ports: tuple[Message | None, ...], keywords: Mapping[str, Any]
    ) -> None:
        """Call the function on the messages of a cycle, and publish what it returns.

        ports: inputs and outputs, in the order of `annotations`.
        keywords: the values of the config.
        """
        inputs = ports[: len(self.inputs)]
        given: dict[str, Any] = dict(zip(self.inputs, inputs, strict=True))
        given.update(keywords)
        if self.context is not None:
            given[self.context] = ctx
        by_place = [given.pop(name) for name in self.positional]
        returned = self.function(*by_place, **given)
        if returned is None:
            return
        made = self._made(returned)
        tov_ns = next((it.tov_ns for it in inputs if it is not None), None)
        for output, (name, message) in zip(ports[len(inputs) :], made.items(), strict=True):
            if message is None:
                continue
            assert output is not None
            if not isinstance(message, self.outputs[name]):
                raise self._wrong(message, "" if self.returns is None else f" as {name!r}")
            try:
                output.fill(message)
                output.publish(tov_ns=message.tov_ns if message.present else tov_ns)
            except MessageTypeError as error:
                text = f"{self.function.__name__} returned a message that does not fit: {error}"
                raise WrongReturnError(self.function, text) from None

    def _made(self, returned: Any) -> Mapping[str, Any]:
        if self.returns is None and self.outputs:
            return {OUT: returned}
        if self.returns is None or not isinstance(returned, self.returns):
            raise self._wrong(returned, "")
        return {name: getattr(returned, name) for name in self.outputs}

    def _wrong(self, returned: Any, where: str) -> WrongReturnError:
        name = self.function.__name__
        said = f"{name} returned {_shown(returned)}{where}"
        if not self.outputs:
            text = f"{said}, and is declared to return nothing (-> None)"
        elif self.returns is None:
            text = f"{said}; it is declared to return {self.outputs[OUT].__name__}"
        else:
            fields = listed(f"{key} ({kind.__name__})" for key, kind in self.outputs.items())
            text = f"{said}; it is declared to return {self.returns.__name__}, whose fields are {fields}"
        return WrongReturnError(self.function, text)


def _shown(value: object) -> str:
    kind = type(value).__name__
    return f"{value!r} ({kind})" if isinstance(value, (bool, int, float)) else with_article(kind)


def _read(function: Callable[..., Any]) -> _Signature:
    """`TaskDefinitionError` says what is wrong with the signature of `function`."""
    name = function.__name__
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TaskDefinitionError(
            f"{name}: {error}; import the types of its ports at module level, not only under "
            "TYPE_CHECKING"
        ) from error
    except BaseException as error:  # an annotation may be any expression, and raise anything
        if is_users(error):
            raise
        raise TaskDefinitionError(f"{name}: its annotations raised {worded(error)}") from error
    context, inputs, settings = None, {}, {}
    positional = []
    for parameter in inspect.signature(function).parameters.values():
        key, declared = parameter.name, hints.get(parameter.name)
        if parameter.kind in (_Kinds.VAR_POSITIONAL, _Kinds.VAR_KEYWORD):
            raise TaskDefinitionError(
                f"{name}: parameter '{_stars(parameter)}{key}' stands for any number of them; name each "
                f"input and each key of the config, e.g. {_EXAMPLE}"
            )
        if parameter.kind is _Kinds.POSITIONAL_ONLY:
            positional.append(key)
        found = _message_in(declared)
        if key == "ctx" or declared is Context:
            context = key
        elif found is not None:
            inputs[key] = found
        else:
            settings[key] = _setting(name, parameter, declared)
    outputs, returns = _outputs(name, hints, inputs)
    if not inputs and not outputs:
        raise TaskDefinitionError(
            f"{name} neither takes nor returns a message, so it is no task; e.g. {_EXAMPLE}"
        )
    annotations: dict[str, Any] = {
        key: Annotated[kind, *_INPUT] if required else Annotated[kind, *_INPUT] | None
        for key, (kind, required) in inputs.items()
    }
    annotations |= {key: Annotated[kind, *_OUTPUT] for key, kind in outputs.items()}
    return _Signature(
        function=function,
        positional=tuple(positional),
        context=context,
        inputs=tuple(inputs),
        outputs=outputs,
        returns=returns,
        keys=tuple(settings),
        config=_config(function, settings),
        annotations=annotations,
    )


def _stars(parameter: inspect.Parameter) -> str:
    return "*" if parameter.kind is _Kinds.VAR_POSITIONAL else "**"


def _setting(name: str, parameter: inspect.Parameter, declared: Any) -> tuple[Any, Any]:
    """Type and default of a key of the config, as pydantic takes them."""
    if parameter.name.startswith("_"):
        raise TaskDefinitionError(
            f"{name}: no key of a config begins with '_'; give {parameter.name!r} another name"
        )
    default = ... if parameter.default is _Kinds.empty else parameter.default
    if declared is None or (parameter.kind is not _Kinds.KEYWORD_ONLY and default is ...):
        kind = "has no annotation"
        if declared is not None:
            kind = f"is declared {inspect.formatannotation(declared)}, which is no message"
        raise TaskDefinitionError(
            f"{name}: parameter {parameter.name!r} {kind}; an input is annotated with a message "
            "class, such as IntMsg or IntMsg | None, a key of the config with its type, after a `*`, "
            f"e.g. {_EXAMPLE}"
        )
    return declared, default


def _config(
    function: Callable[..., Any], settings: Mapping[str, tuple[Any, Any]]
) -> type[TaskConfig]:
    fields: dict[str, Any] = dict(settings)
    try:
        return create_model(
            f"{function.__name__}.Config",
            __base__=TaskConfig,
            __module__=function.__module__,
            **fields,
        )
    except Exception as error:
        text = text_of(error).partition("\n")[0]
        raise TaskDefinitionError(
            f"{function.__name__}: its parameters {listed(settings)} cannot be the keys of a config: "
            f"{text}"
        ) from error


def _outputs(
    name: str, hints: Mapping[str, Any], inputs: Mapping[str, object]
) -> tuple[Mapping[str, type[Message]], type | None]:
    """The message class of each output, by name; and the class that has them as fields, if there is
    one."""
    if "return" not in hints:
        raise TaskDefinitionError(
            f"{name} does not say what it returns; write the class of its message, e.g. {_EXAMPLE}, or "
            "-> None for one that returns nothing"
        )
    declared = hints["return"]
    if declared is type(None):
        return {}, None
    found = _message_in(declared)
    returns = None
    if found is not None:
        outputs = {OUT: found[0]}
    else:
        returns = _without_none(declared)
        fields = _fields_of(returns)
        messages = {key: _message_in(kind) for key, kind in fields.items()}
        wrong = [key for key, kind in messages.items() if kind is None]
        if not fields or wrong:
            where = f", whose field {wrong[0]!r} is no message" if wrong else ""
            raise TaskDefinitionError(
                f"{name} returns {inspect.formatannotation(declared)}{where}; it must return a message, "
                f"e.g. {_EXAMPLE}, a NamedTuple or a dataclass of messages for several outputs, or None"
            )
        outputs = {key: kind[0] for key, kind in messages.items() if kind is not None}
    same = next((key for key in outputs if key in inputs), None)
    if same is not None:
        raise TaskDefinitionError(
            f"{name}: {same!r} is the name of an input and of an output; give the parameter another name"
        )
    return outputs, returns


def _fields_of(kind: Any) -> Mapping[str, Any]:
    """The fields of a NamedTuple or a dataclass, with their types; empty for anything else."""
    is_tuple = isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")
    if not is_tuple and not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return {}
    hints = typing.get_type_hints(kind, include_extras=True)
    names = kind._fields if is_tuple else [it.name for it in dataclasses.fields(kind)]
    return {name: hints.get(name) for name in names}


def _message_in(declared: Any) -> tuple[type[Message], bool] | None:
    """The message class that an annotation names, and whether it must be there; None if it names
    none."""
    kind = _without_none(declared)
    if typing.get_origin(kind) is Annotated:
        kind = kind.__origin__
    if isinstance(kind, type) and issubclass(kind, Message):
        return kind, kind is declared or typing.get_origin(declared) is Annotated
    return None


def _without_none(declared: Any) -> Any:
    """M of `M | None`; `declared` itself if it is no such union."""
    if typing.get_origin(declared) in (typing.Union, types.UnionType):
        options = [item for item in typing.get_args(declared) if item is not type(None)]
        return options[0] if len(options) == 1 else declared
    return declared
