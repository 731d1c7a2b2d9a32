"""Methods of a task that the runtime would call in vain."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from flowrun.msgs import IntMsg
from flowrun.runtime.errors import GraphError, TaskDefinitionError
from flowrun.runtime.graph.plan import load_plan
from flowrun.runtime.graph.ports import ports_of
from flowrun.runtime.task import Context, Input, Task

METHODS = [
    "process", "start", "stop", "interrupt", "configure", "freeze", "thaw", "is_external", "check",
    "code",
]  # fmt: skip


def logged(function):
    """A decorator, as people write them."""

    @functools.wraps(function)
    def call(*args):
        return function(*args)

    return call


class Sound(Task):
    def process(self, ctx: Context, number: Input[IntMsg]) -> None: ...

    def freeze(self): ...

    def thaw(self, state): ...


async def coroutine(self, ctx: Context, number: Input[IntMsg]) -> None: ...


def generator(self, ctx: Context, number: Input[IntMsg]):
    yield


async def asynchronous(self, ctx: Context, number: Input[IntMsg]):
    yield


async def of_more(self, ctx, number, more): ...


class Object:
    async def __call__(self, task, ctx: Context, number: Input[IntMsg]) -> None: ...


def made(name, method):
    return type("Waits", (Sound,), {name: method})


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        (coroutine, "an `async def`"),
        (generator, "a generator"),
        (asynchronous, "an asynchronous generator"),
        (staticmethod(coroutine), "an `async def`"),
        (classmethod(generator), "a generator"),
        (logged(logged(coroutine)), "an `async def`"),
        (functools.partial(logged(generator)), "a generator"),
        (functools.partialmethod(of_more, more=1), "an `async def`"),
        (Object(), "an `async def`"),
    ],
)
@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_only_makes_what_nobody_runs_is_refused(name, method, kind):
    if name in ("check", "code") and kind == "a generator":
        ports_of(made(name, classmethod(generator)))
        return
    task = made(name, method)
    with pytest.raises(TaskDefinitionError) as caught:
        ports_of(task)
    assert str(caught.value) == (
        f"Waits.{name} is {kind}: calling it only makes an object that nobody runs; write a plain "
        f"`def {name}`, without `yield`, that has done its work when it returns"
        + (" (slow work: `background: true`)" if name == "process" else "")
    )


class Driver:
    """As of a library that runs a coroutine to its end."""

    def __init__(self, function):
        functools.update_wrapper(self, function)

    def __call__(self, task, ctx, number): ...


@pytest.mark.parametrize("method", [logged(Sound.process), Driver(coroutine)])
def test_a_decorator_that_runs_what_it_decorates_is_none_of_that(method):
    [port] = ports_of(made("process", method))
    assert port.name == "number"


def hidden(function):
    """A decorator without `functools.wraps`."""

    def call(*args, **options):
        return function(*args, **options)

    return call


EXAMPLE = (
    "e.g. def process(self, ctx: Context, image: Input[ImageRgb8Msg], out: Output[TextMsg]) -> None"
)


def no_context(self, number: Input[IntMsg]) -> None: ...


@pytest.mark.parametrize(
    ("process", "text"),
    [
        (staticmethod(Sound.process), f" is a staticmethod; write a plain method, {EXAMPLE}"),
        (classmethod(Sound.process), f" is a classmethod; write a plain method, {EXAMPLE}"),
        (functools.partial(Sound.process), f" is a partial; write a plain method, {EXAMPLE}"),
        (
            functools.partialmethod(Sound.process),
            f" is a partialmethod; write a plain method, {EXAMPLE}",
        ),
        (
            hidden(Sound.process),
            " shows no ports, only *args, **options: a decorator hides them; use functools.wraps in it",
        ),
        (
            no_context,
            ": 'number' is in the place of the context, which comes before the ports; " + EXAMPLE,
        ),
        (
            lambda self, ctx, number: None,
            ": parameter 'number' must be Input[M], Input[M] | None or Output[M] of a Message class M; "
            f"got no annotation; {EXAMPLE}",
        ),
        (lambda self: None, f" must take (self, ctx, ...); {EXAMPLE}"),
    ],
)
def test_a_process_whose_ports_cannot_be_seen_is_refused(process, text):
    with pytest.raises(TaskDefinitionError) as caught:
        ports_of(made("process", process))
    assert str(caught.value) == f"Waits.process{text}"


# -- ports of any class --------------------------------------------------------------------------

ANY = """\
from typing import TypeVar

from flowrun.msgs.message import Message
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig

A = TypeVar("A", bound=Message)
B = TypeVar("B", bound=Message)


class Swap(Task):
    def process(
        self, ctx: Context, a: Input[A], b: Input[B], b2: Output[B], a2: Output[A]
    ) -> None:
        a2.fill(a)
        a2.publish()


class Each(Task):
    class Config(TaskConfig):
        inputs: list[str]

    def process(self, ctx: Context, *same: Input[A] | Output[A]) -> None:
        for given, made in zip(same[::2], same[1::2]):
            if given is not None:
                made.fill(given)
                made.publish()
"""


@pytest.fixture
def any_message(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("any_parts.py").write_text(ANY)
    tasks = """\
  - {id: n, type: Counter, config: {limit: 2}}
  - {id: t, type: BoolSource, config: {limit: 2}}
"""

    def write(task, *cnx):
        lines = "".join(f"  - {{src: {src}, dst: {dst}, msg: {msg}}}\n" for src, dst, msg in cnx)
        Path("g.yaml").write_text(f"tasks:\n{tasks}  - {task}\ncnx:\n{lines}")
        return load_plan(Path("g.yaml"), env={})

    return write


def test_a_type_variable_is_what_its_connections_say(any_message):
    plan = any_message(
        "{id: x, type: any_parts.Swap}", ("n", "x.a", "IntMsg"), ("t", "x.b", "BoolMsg")
    )
    [swap] = [task for task in plan.graph.tasks if task.id == "x"]
    kinds = {port.name: port.message_type.__name__ for port in swap.ports}
    assert kinds == {"a": "IntMsg", "b": "BoolMsg", "b2": "BoolMsg", "a2": "IntMsg"}


def test_each_pair_of_a_family_has_a_class_of_its_own(any_message):
    plan = any_message(
        "{id: x, type: any_parts.Each, config: {inputs: [p, q]}}",
        ("n", "x.p", "IntMsg"),
        ("t", "x.q", "BoolMsg"),
    )
    [each] = [task for task in plan.graph.tasks if task.id == "x"]
    kinds = {port.name: port.message_type.__name__ for port in each.ports}
    assert kinds == {"p": "IntMsg", "p_same": "IntMsg", "q": "BoolMsg", "q_same": "BoolMsg"}


def test_what_does_not_fit_a_type_variable_is_refused(any_message):
    with pytest.raises(GraphError) as caught:
        any_message(
            "{id: x, type: any_parts.Each, config: {inputs: [p, q]}}",
            ("n", "x.p", "IntMsg"),
            ("t", "x.p", "BoolMsg"),
        )
    assert [str(it) for it in caught.value.problems] == [
        "g.yaml:4:10: input 'x.q' (Message) is not connected; outputs that fit: n.count, t.out",
        "g.yaml:7:19: input 'x.p' already has a source, 'n' on line 6; an input takes one connection",
        "g.yaml:7:29: message mismatch: 'msg' is BoolMsg, output 't.out' publishes BoolMsg, input "
        "'x.p' takes IntMsg",
    ]
