"""A function as a task: what its signature declares, and what its run publishes."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from flowrun.msgs import FloatMsg, ImageRgb8Msg, IntMsg, TextMsg
from flowrun.runtime.cli import main
from flowrun.runtime.errors import TaskDefinitionError, UsageError, WrongReturnError
from flowrun.runtime.graph.bind import live_keys
from flowrun.runtime.graph.find import find_task_class, task_types
from flowrun.runtime.graph.functions import is_task_function, task_class_of
from flowrun.runtime.graph.ports import ports_of
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig, task
from flowrun.runtime.testing import run_task
from support.helpers import values


@task
def double(number: IntMsg, *, factor: Live[int] = 2) -> IntMsg:
    """Twice the number."""
    return IntMsg(value=number.value * factor)


class Halves(NamedTuple):
    half: FloatMsg
    note: TextMsg | None = None


@dataclass(frozen=True)
class Facts:
    half: FloatMsg
    note: TextMsg | None


def halves(number: IntMsg) -> Halves:
    note = TextMsg(value="odd") if number.value % 2 else None
    return Halves(FloatMsg(value=number.value / 2), note)


def facts(number: Input[IntMsg]) -> Facts | None:
    return None if number.value == 0 else Facts(*halves(number))


@task(external=True)
def asked(ctx: Context, first: IntMsg | None, second: Input[TextMsg] | None) -> TextMsg:
    return TextMsg(value=f"{ctx.cycle} {first is None} {second is None}")


def ports(function: Callable[..., object]) -> list[tuple[str, str, str, bool]]:
    return [
        (it.name, it.direction, it.message_type.__name__, it.required)
        for it in ports_of(task_class_of(function))
    ]


def refusal(function: Callable[..., object]) -> str:
    with pytest.raises(TaskDefinitionError) as caught:
        task_class_of(function)
    return str(caught.value)


def test_the_signature_declares_the_ports() -> None:
    assert ports(double) == [
        ("number", "input", "IntMsg", True),
        ("out", "output", "IntMsg", True),
    ]
    assert (
        ports(halves)
        == ports(facts)
        == [
            ("number", "input", "IntMsg", True),
            ("half", "output", "FloatMsg", True),
            ("note", "output", "TextMsg", True),
        ]
    )
    assert ports(asked) == [
        ("first", "input", "IntMsg", False),
        ("second", "input", "TextMsg", False),
        ("out", "output", "TextMsg", True),
    ]


def test_a_marked_function_is_the_function_that_it_was() -> None:
    assert double(IntMsg(value=3), factor=5) == IntMsg(value=15)
    assert pickle.loads(pickle.dumps(double)) is double
    made = task_class_of(double)
    assert (made.__name__, made.__module__, made.__doc__) == (
        "double",
        __name__,
        "Twice the number.",
    )
    assert task_class_of(double) is made


def test_what_comes_from_outside_is_marked() -> None:
    assert task_class_of(asked).is_external(TaskConfig())
    assert not task_class_of(double).is_external(TaskConfig())


def test_it_publishes_what_it_returns_at_the_time_of_its_first_input() -> None:
    number = IntMsg(value=4)
    number.publish(tov_ns=77)
    [first] = run_task(double, inputs=[{"number": number}], config={"factor": 3})
    assert (first.out.value, first.out.tov_ns) == (12, 77)
    published = run_task(halves, inputs=[{"number": IntMsg(value=v)} for v in (4, 5)])
    assert [sorted(it) for it in published] == [["half"], ["half", "note"]]
    assert run_task(facts, inputs=[{"number": IntMsg(value=0)}]) == [{}]
    said = run_task(asked, inputs=[{"first": IntMsg()}, {"second": TextMsg()}])
    assert [it.out.value for it in said] == ["0 False True", "1 True False"]


def test_a_published_message_keeps_its_own_time() -> None:
    def later(number: IntMsg, other: IntMsg) -> IntMsg:
        return other

    messages = {"number": IntMsg(value=1), "other": IntMsg(value=2)}
    messages["number"].publish(tov_ns=5)
    messages["other"].publish(tov_ns=9)
    [first] = run_task(later, inputs=[messages])
    assert (first.out.value, first.out.tov_ns) == (2, 9)


def test_a_picture_that_is_passed_on_is_not_copied() -> None:
    def same(image: ImageRgb8Msg) -> ImageRgb8Msg:
        return image

    def cut(image: ImageRgb8Msg) -> ImageRgb8Msg:
        made = ImageRgb8Msg(source="cut")
        made.allocate_pixels(1, 2)[...] = image.pixels[:1, :2]
        return made

    image = ImageRgb8Msg(frame_id=4)
    image.allocate_pixels(2, 2)[...] = 7
    [first] = run_task(same, inputs=[{"image": image}])
    assert first.out == image
    [first] = run_task(cut, inputs=[{"image": image}])
    assert first.out.pixels.tolist() == [[[7, 7, 7], [7, 7, 7]]]


def test_a_function_without_inputs_is_a_source() -> None:
    def three(ctx: Context) -> IntMsg:
        if ctx.cycle == 2:
            ctx.finish()
        return IntMsg(value=ctx.cycle)

    assert [it.out.value for it in run_task(three)] == [0, 1, 2]


def test_values_that_are_no_messages_are_the_config() -> None:
    def scaled(
        number: IntMsg,
        offset: int = 1,
        *,
        factor: Annotated[int, Field(ge=1, description="How much larger.")],
        name: Live[str] = "x",
    ) -> IntMsg | None:
        return IntMsg(value=number.value * factor + offset)

    made = task_class_of(scaled)
    assert list(made.Config.model_fields) == ["offset", "factor", "name"]
    assert made.Config.model_fields["factor"].description == "How much larger."
    assert live_keys(made) == ("name",)
    [first] = run_task(scaled, inputs=[{"number": IntMsg(value=2)}], config={"factor": 10})
    assert first.out.value == 21
    with pytest.raises(UsageError, match="factor: .* greater than or equal to 1; got 0"):
        run_task(scaled, inputs=[], config={"factor": 0})


def test_a_parameter_may_be_given_by_place_alone() -> None:
    def less(first: IntMsg, second: IntMsg, /, *, by: int = 1) -> IntMsg:
        return IntMsg(value=first.value - second.value - by)

    messages = {"first": IntMsg(value=9), "second": IntMsg(value=4)}
    [first] = run_task(less, inputs=[messages])
    assert first.out.value == 4


@given(st.lists(st.integers(-(2**31), 2**31)), st.integers(-9, 9))
@settings(max_examples=20)
def test_it_does_what_a_class_does(numbers: list[int], factor: int) -> None:
    class Doubles(Task):
        class Config(TaskConfig):
            factor: int = 2

        def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
            out.value = number.value * self.config.factor
            out.publish(tov_ns=number.tov_ns)

    inputs = [{"number": IntMsg(value=value)} for value in numbers]
    by_class, by_function = (
        [(it.out.value, it.out.tov_ns) for it in run_task(made, inputs=inputs, config=config)]
        for config in [{"factor": factor}]
        for made in (Doubles, double)
    )
    assert by_class == by_function


# -- what is refused -----------------------------------------------------------------------------


def bare(number, *, factor=2):
    return number


def untyped(number) -> None: ...


def no_message(number: int) -> IntMsg: ...


def no_default(number: IntMsg, factor: int) -> IntMsg: ...


def returns_a_number(number: IntMsg) -> int: ...


def returns_a_pair(number: IntMsg) -> tuple[IntMsg, IntMsg]: ...


class Odd(NamedTuple):
    number: IntMsg
    size: int


def returns_odd(number: IntMsg) -> Odd: ...


def same_name(out: IntMsg) -> IntMsg: ...


def any_number(*numbers: IntMsg) -> IntMsg: ...


def hidden_key(number: IntMsg, *, _factor: int = 2) -> IntMsg: ...


def nothing(ctx: Context) -> None: ...


def odd_annotation(number: 1 / 0) -> IntMsg: ...


async def waits(number: IntMsg) -> IntMsg: ...


def yields(number: IntMsg) -> IntMsg:
    yield number


def unknown(number: Nothing) -> IntMsg: ...  # noqa: F821


_EXAMPLE = "e.g. def double(number: IntMsg, *, factor: int = 2) -> IntMsg"
_INPUT = (
    "an input is annotated with a message class, such as IntMsg or IntMsg | None, a key of the config "
    f"with its type, after a `*`, {_EXAMPLE}"
)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (bare, f"bare: parameter 'number' has no annotation; {_INPUT}"),
        (untyped, f"untyped: parameter 'number' has no annotation; {_INPUT}"),
        (
            no_message,
            f"no_message: parameter 'number' is declared int, which is no message; {_INPUT}",
        ),
        (
            no_default,
            f"no_default: parameter 'factor' is declared int, which is no message; {_INPUT}",
        ),
        (
            returns_a_number,
            f"returns_a_number returns int; it must return a message, {_EXAMPLE}, a NamedTuple or a "
            "dataclass of messages for several outputs, or None",
        ),
        (
            returns_a_pair,
            "returns_a_pair returns tuple[flowrun.msgs.basic.IntMsg, flowrun.msgs.basic.IntMsg]; it "
            f"must return a message, {_EXAMPLE}, a NamedTuple or a dataclass of messages for several "
            "outputs, or None",
        ),
        (
            same_name,
            "same_name: 'out' is the name of an input and of an output; give the parameter another "
            "name",
        ),
        (
            any_number,
            "any_number: parameter '*numbers' stands for any number of them; name each input "
            f"and each key of the config, {_EXAMPLE}",
        ),
        (
            hidden_key,
            "hidden_key: no key of a config begins with '_'; give '_factor' another name",
        ),
        (
            nothing,
            f"nothing neither takes nor returns a message, so it is no task; {_EXAMPLE}",
        ),
        (
            odd_annotation,
            "odd_annotation: its annotations raised ZeroDivisionError: division by zero",
        ),
        (
            waits,
            "waits is an `async def`: calling it only makes an object that nobody runs; write a plain "
            "`def waits`, without `yield`, that has done its work when it returns (slow work: "
            "`background: true`)",
        ),
        (
            yields,
            "yields is a generator: calling it only makes an object that nobody runs; write a plain "
            "`def yields`, without `yield`, that has done its work when it returns (slow work: "
            "`background: true`)",
        ),
        (
            unknown,
            "unknown: name 'Nothing' is not defined; import the types of its ports at module level, "
            "not only under TYPE_CHECKING",
        ),
    ],
)
def test_a_signature_that_says_too_little_is_refused(
    function: Callable[..., object], text: str
) -> None:
    assert refusal(function) == text


def test_what_is_no_plain_function_is_refused() -> None:
    said = refusal(partial(double, factor=3))
    assert said.endswith(f" is no plain function; write one, {_EXAMPLE}")


def test_what_a_field_of_several_outputs_must_be() -> None:
    assert ", whose field 'size' is no message; it must return" in refusal(returns_odd)


def test_pydantic_refuses_some_names_of_keys() -> None:
    def shadows(number: IntMsg, *, model_config: int = 2) -> IntMsg: ...

    assert refusal(shadows).startswith(
        "shadows: its parameters model_config cannot be the keys of a config: "
    )


def test_a_function_that_returns_another_type_is_an_error() -> None:
    def wrong(number: IntMsg) -> IntMsg:
        return number.value  # type: ignore[return-value]

    def quiet(number: IntMsg) -> None:
        return number  # type: ignore[return-value]

    def pair(number: IntMsg) -> Halves:
        return Halves(number)  # type: ignore[arg-type]

    def single(number: IntMsg) -> Halves:
        return FloatMsg()  # type: ignore[return-value]

    def unfit(number: IntMsg) -> IntMsg:
        return IntMsg(value="three")  # type: ignore[arg-type]

    texts = []
    for function in (wrong, quiet, pair, single, unfit):
        with pytest.raises(WrongReturnError) as caught:
            run_task(function, inputs=[{"number": IntMsg(value=3)}])
        texts.append(str(caught.value))
    assert texts == [
        "wrong returned 3 (int); it is declared to return IntMsg",
        "quiet returned an IntMsg, and is declared to return nothing (-> None)",
        "pair returned an IntMsg as 'half'; it is declared to return Halves, whose fields are half "
        "(FloatMsg), note (TextMsg)",
        "single returned a FloatMsg; it is declared to return Halves, whose fields are half (FloatMsg), "
        "note (TextMsg)",
        "unfit returned a message that does not fit: IntMsg.value: expected int, got str 'three'",
    ]


def test_functions_of_other_kinds_are_no_tasks() -> None:
    @wraps(double)
    def around(*args: object, **kwargs: object) -> object:
        return double(*args, **kwargs)  # type: ignore[arg-type]

    assert is_task_function(around)
    assert not is_task_function(refusal)
    assert not is_task_function(Halves)


# -- from a graph --------------------------------------------------------------------------------

MINE = """\
from flowrun.msgs import IntMsg
from flowrun.runtime.task import task


@task
def double(number: IntMsg, *, factor: int = 2) -> IntMsg:
    return IntMsg(value=number.value * factor)


def helper(text: str) -> str:
    return text


def wrong(number: IntMsg) -> IntMsg:
    return "three"
"""

GRAPH = """\
tasks:
  - {id: n, type: Counter, config: {limit: 3}}
  - {id: a, type: function_parts.double, config: {factor: 5}}
  - {id: b, type: "function_parts:double"}
cnx:
  - {src: n, dst: a, msg: IntMsg}
  - {src: a, dst: b, msg: IntMsg}
"""


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("function_parts.py").write_text(MINE)
    path = Path("g.yaml")
    path.write_text(GRAPH)
    return path


def test_a_graph_names_a_function_in_two_ways_and_replays_it(graph: Path) -> None:
    assert main([str(graph), "--plain"]) == 0
    [run] = Path("runs").glob("g-*")
    assert [value for _, value in values(run, "/b/out")] == [0, 10, 20]
    assert main(["replay", str(run)]) == 0


def test_a_mistake_in_it_is_reported_with_both_places(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = MINE.replace("*, factor: int", "factor")
    Path("function_parts.py").write_text(source)
    assert main(["check", str(graph)]) != 0
    text = capsys.readouterr().err
    assert "g.yaml:3:19: double: parameter 'factor' has no annotation; " in text
    assert "(at function_parts.py:6: def double(number: IntMsg, factor = 2) -> IntMsg:)" in text


def test_the_console_shows_where_a_wrong_value_was_returned(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph.write_text(GRAPH.replace("parts.double, config: {factor: 5}", "parts.wrong"))
    assert main([str(graph), "--plain", "--no-log"]) != 0
    assert (
        "WrongReturnError: wrong returned a str; it is declared to return IntMsg\n"
        "  at function_parts.py:14: def wrong(number: IntMsg) -> IntMsg:"
    ) in capsys.readouterr().err


def test_an_unknown_function_lists_those_that_are_tasks(graph: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_task_class("function_parts.doubel", folder=graph.parent, types=task_types())
    assert str(caught.value) == (
        "module 'function_parts' has no 'doubel'; its tasks: double, wrong (did you mean 'double'?)"
    )
