"""Values and methods of another kind in the place of a task's methods."""

from __future__ import annotations

from typing import Any

import pytest

from flowrun.msgs import IntMsg
from flowrun.runtime.errors import TaskDefinitionError
from flowrun.runtime.graph.ports import ports_of
from flowrun.runtime.task import Context, Input, Task, TaskConfig

IS_EXTERNAL = "@classmethod def is_external(cls, config: TaskConfig) -> bool"


class Sound(Task):
    def process(self, ctx: Context, number: Input[IntMsg]) -> None: ...


def of_an_instance(self, config):
    return True


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        (
            "is_external",
            True,
            "Odd.is_external is true, where a method is expected; write external = True",
        ),
        (
            "is_external",
            of_an_instance,
            f"Odd.is_external is called before there is an instance of the class; write {IS_EXTERNAL}",
        ),
        (
            "start",
            None,
            "Odd.start is nothing, where a method is expected; write def start(self, ctx: Context) -> "
            "None",
        ),
        (
            "freeze",
            {"n": 1},
            "Odd.freeze is a mapping, where a method is expected; write def freeze(self) -> Any",
        ),
    ],
)
def test_what_cannot_be_called_as_a_method_is_refused(name: str, value: Any, text: str) -> None:
    with pytest.raises(TaskDefinitionError) as error:
        ports_of(type("Odd", (Sound,), {name: value}))
    assert str(error.value) == text


@pytest.mark.parametrize(
    "value", [classmethod(of_an_instance), staticmethod(lambda config: config is None)]
)
def test_methods_of_the_class_are_taken_as_they_are(value: Any) -> None:
    assert ports_of(type("Even", (Sound,), {"is_external": value}))


def test_a_class_says_in_a_word_that_its_messages_come_from_outside() -> None:
    class Asks(Sound):
        external = True

    assert Asks.is_external(TaskConfig())
    assert not Sound.is_external(TaskConfig())
