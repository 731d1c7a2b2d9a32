"""Methods of `Task` that a class overrides by something that cannot be called in their way."""

from __future__ import annotations

import inspect
from typing import Any

from flowrun.runtime.errors import TaskDefinitionError
from flowrun.runtime.task import Task
from flowrun.runtime.wording import described

__all__ = ["refuse_other_kinds"]

_WRITTEN = {
    "start": "def start(self, ctx: Context) -> None",
    "stop": "def stop(self, ctx: Context) -> None",
    "interrupt": "def interrupt(self, ctx: Context) -> None",
    "configure": "def configure(self, ctx: Context, changed: frozenset[str]) -> None",
    "freeze": "def freeze(self) -> Any",
    "thaw": "def thaw(self, state: Any) -> None",
    "is_external": "@classmethod def is_external(cls, config: TaskConfig) -> bool",
    "code": "@classmethod def code(cls, config: TaskConfig) -> Iterable[str]",
    "check": "@classmethod def check(cls, config: TaskConfig, graph_dir: Path) "
    "-> Iterable[tuple[str, str]]",
    "check_inputs": "@classmethod def check_inputs(cls, config: TaskConfig, "
    "inputs: Mapping[str, type[Message]]) -> Iterable[tuple[str, str]]",
}


def refuse_other_kinds(task_class: type[Task]) -> None:
    """`TaskDefinitionError` where the class has a value in place of a method, or a method of its
    instances in place of one of the class."""
    for name, written in _WRITTEN.items():
        found = inspect.getattr_static(task_class, name, None)
        of_task = inspect.getattr_static(Task, name)
        if found is of_task:
            continue
        where = f"{task_class.__name__}.{name}"
        if not callable(getattr(task_class, name)):
            raise TaskDefinitionError(_in_place_of_a_method(where, name, found, written))
        if isinstance(of_task, classmethod) and inspect.isfunction(found):
            raise TaskDefinitionError(
                f"{where} is called before there is an instance of the class; write {written}",
                found,
            )


def _in_place_of_a_method(where: str, name: str, value: Any, written: str) -> str:
    text = f"{where} is {described(value)}, where a method is expected"
    if name == "is_external" and isinstance(value, bool):
        return f"{text}; write external = {value}"
    return f"{text}; write {written}"
