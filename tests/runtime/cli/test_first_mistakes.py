"""First mistakes: what somebody reads who writes a task, or a graph, for the first time. Each is tried
as they would, and the answer says what is wrong, where, and what to write instead."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flowrun.msgs import IntMsg
from flowrun.runtime.cli import main
from flowrun.runtime.run import report
from flowrun.runtime.run.report import TaskReport
from support.helpers import plan_of

HEAD = """\
from flowrun.msgs import FloatMsg, ImageRgb8Msg, IntMsg, TextMsg
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig, task


"""
PORTS = "self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]"
PROCESS = f"    def process({PORTS}) -> None:\n"
EXAMPLE = (
    "e.g. def process(self, ctx: Context, image: Input[ImageRgb8Msg], out: Output[TextMsg]) -> None"
)


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Runs a graph with a task of the given code, and gives what the command says."""
    monkeypatch.chdir(tmp_path)
    number = iter(range(100))

    def run(code: str, task: str = "", *, name: str = "", cnx: str = "") -> str:
        module = name or f"mine_{next(number)}"
        Path(f"{module}.py").write_text(HEAD + code)
        entry = task or f"{{id: a, type: {module}.A}}"
        Path("g.yaml").write_text(
            f"tasks:\n  - {{id: n, type: Counter, config: {{limit: 5}}}}\n  - {entry}\n"
            f"cnx:\n  - {cnx or '{src: n, dst: a, msg: IntMsg}'}\n"
        )
        main(["g.yaml", "--plain", "--no-log"])
        out = capfd.readouterr()
        return re.sub(r"mine_\d+", "mine", out.out + out.err)

    return run


def a(*lines: str, process: str = PROCESS) -> str:
    return "class A(Task):\n" + process + "".join(f"        {line}\n" for line in lines)


def test_a_method_that_cannot_be_called_is_refused_with_its_place(said) -> None:
    methods = {
        "def start(self) -> None: ...": (
            "A.start is called with (self, ctx), and does not take that: too many positional arguments; "
            "write def start(self, ctx: Context) -> None"
        ),
        "def stop(self) -> None: ...": (
            "A.stop is called with (self, ctx), and does not take that: too many positional arguments; "
            "write def stop(self, ctx: Context) -> None"
        ),
        "def configure(self, changed) -> None: ...": (
            "A.configure is called with (self, ctx, changed), and does not take that: too many "
            "positional arguments; write def configure(self, ctx: Context, changed: frozenset[str]) -> "
            "None"
        ),
        "def __init__(self) -> None: ...": (
            "A.__init__ is called with (self, config), and does not take that: too many positional "
            "arguments; write def __init__(self, config: TaskConfig) -> None"
        ),
    }
    for method, text in methods.items():
        code = f"class A(Task):\n    {method}\n\n{PROCESS}        out.publish()\n"
        assert said(code) == f"g.yaml:3:19: {text} (at mine.py:6: {method})\n"


def test_a_class_that_keeps_no_config_is_named_with_its_place(said) -> None:
    code = "class A(Task):\n    def __init__(self, config: TaskConfig) -> None:\n        self.x = 1\n\n"
    assert said(f"{code}{PROCESS}        out.publish()\n") == (
        "error: A.__init__ does not call super().__init__(config)\n"
        "  at mine.py:6: def __init__(self, config: TaskConfig) -> None:\n"
    )


def test_a_process_without_self_or_ctx_is_refused(said) -> None:
    without_ctx = "    def process(self, number: Input[IntMsg], out: Output[IntMsg]) -> None:\n"
    assert said(a("...", process=without_ctx)) == (
        "g.yaml:3:19: A.process: 'number' is in the place of the context, which comes before the "
        f"ports; {EXAMPLE} (at mine.py:6: {without_ctx.strip()})\n"
    )
    without_self = PROCESS.replace("self, ", "")
    assert said(a("...", process=without_self)) == (
        f"g.yaml:3:19: A.process: 'self' is missing before the context; {EXAMPLE} (at mine.py:6: "
        f"{without_self.strip()})\n"
    )


def test_an_annotation_that_is_no_port_is_shown_as_it_was_written(said) -> None:
    for written, shown in {
        "Input[int]": "Input[int]",
        "Input": "Input",
        "IntMsg": "IntMsg (write Input[IntMsg], or Output[IntMsg])",
        "int": "int",
    }.items():
        process = PROCESS.replace("Input[IntMsg]", written)
        assert f"or Output[M] of a Message class M; got {shown}; e.g. " in said(
            a("...", process=process)
        )


def test_what_is_used_before_it_is_set_says_where_to_set_it(said) -> None:
    out = said(a("self.count += 1", "out.publish()"))
    assert (
        "AttributeError: 'A' object has no attribute 'count'; set what the task remembers in start() or "
        "__init__()\n  at mine.py:7, in process: self.count += 1\n"
    ) in out
    assert "never published" not in out  # it has raised, which says more


def test_a_key_of_the_config_that_is_not_there_lists_those_that_are(said) -> None:
    code = "class A(Task):\n    class Config(TaskConfig):\n        size: int = 3\n\n"
    out = said(f"{code}{PROCESS}        out.value = self.config.sise\n")
    assert (
        "AttributeError: the config has no key 'sise'; keys: size (did you mean 'size'?)\n"
        "  at mine.py:10, in process: out.value = self.config.sise\n"
    ) in out
    code = code.replace("(TaskConfig)", "")
    assert said(f"{code}{PROCESS}        out.publish()\n") == (
        "g.yaml:3:19: A.Config must be a subclass of TaskConfig; write `class Config(TaskConfig):` (at "
        "mine.py:5: class A(Task):)\n"
    )


def test_a_field_that_is_not_there_lists_those_that_are(said) -> None:
    assert (
        "AttributeError: 'IntMsg' object has no attribute 'tov'; fields: value, tov_ns\n"
        "  at mine.py:7, in process: out.publish(tov_ns=number.tov)\n"
    ) in said(a("out.publish(tov_ns=number.tov)"))


def test_an_error_in_a_property_is_shown_as_it_is(said) -> None:
    code = a("out.value = self.half", "out.publish()")
    code += "\n    @property\n    def half(self) -> int:\n        return self.wohle // 2\n"
    assert "AttributeError: 'A' object has no attribute 'wohle'; set what" in said(code)

    class Halved(IntMsg):
        @property
        def half(self) -> int:
            return self.vaule // 2  # type: ignore[attr-defined]

    with pytest.raises(AttributeError, match="has no attribute 'vaule'; fields: value, tov_ns"):
        _ = Halved().half


def test_a_forgotten_publish_is_mentioned_at_the_end(said) -> None:
    hint = "hint='publish() shows an output to others; a function returns its message'"
    assert f"ran, and never published a message {hint} task=a\n" in said(a("out.value = 3"))
    code = "def f(number: IntMsg) -> IntMsg:\n    IntMsg(value=3)\n"
    assert hint in said(code, "{id: a, type: mine_f.f}", name="mine_f")


def test_an_input_that_is_kept_is_mentioned_at_the_end(said) -> None:
    assert (
        "keeps its input 'number' after process has returned, when its memory is used again; keep a "
        "copy() instead task=a\n"
    ) in said(a("out.publish()", "self.last = number"))
    assert "keeps" not in said(a("out.publish()", "self.last = number.copy()"))


def test_a_class_that_is_no_task_says_what_to_derive_it_from(said) -> None:
    assert said(a("...").replace("(Task)", "")) == (
        "g.yaml:3:19: 'mine.A' is not a task but a class that does not derive from Task (write `class "
        "A(Task):`); its tasks: none\n"
    )


def test_a_class_marked_as_a_function_is_refused(said) -> None:
    text = (
        "@task is for functions, and A is a class; remove it: a class that derives from Task is a task "
        "(at mine.py:"
    )
    assert text in said(
        "from flowrun import task\n" + a("...").replace("class A", "@task\nclass A")
    )


def test_a_message_that_is_a_dataclass_is_refused(said) -> None:
    code = (
        "import dataclasses\n\n\n@dataclasses.dataclass\nclass NewMsg(Message):\n    x: int\n\n\n"
    )
    process = PROCESS.replace("Output[IntMsg]", "Output[NewMsg]")
    text = "NewMsg is a message, and no dataclass: remove @dataclass (at mine.py:"
    assert text in said(f"from flowrun.msgs import Message\n{code}" + a("...", process=process))


@pytest.mark.parametrize("written", ["__main__.double", "__main__.main.<locals>.double"])
def test_a_name_of_a_program_that_is_over_says_what_to_do(said, written: str) -> None:
    assert said("", f"{{id: a, type: {written}}}") == (
        f"g.yaml:3:19: '{written}' was defined in a script or a session that cannot be imported: put it "
        "at the top of a module next to the graph, and name that; the log of its run says why, on its "
        "first lines\n"
    )


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("f", "or a dotted path such as my_module.MyTask (did you mean 'mine_own.f'?)"),
        ("mine_own.py:f", "'mine_own.py:f' is a path; name module and task: mine_own.f"),
        ("./mine_own.f", "'./mine_own.f' is a path; name module and task: mine_own.f"),
        ("mine_own.py", "'mine_own.py' names a file; name a task in it, such as mine_own.MyTask"),
        ("mine_wn.f", "module path (did you mean 'mine_own'?)"),
        ("mine_own.g", "module 'mine_own' has no 'g'; its tasks: f"),
    ],
)
def test_a_task_that_is_not_found_says_what_to_type(said, written: str, text: str) -> None:
    code = "def f(number: IntMsg) -> IntMsg:\n    return number\n"
    assert text in said(code, f"{{id: a, type: '{written}'}}", name="mine_own")


@pytest.mark.parametrize(
    ("task", "cnx", "text"),
    [
        (
            "{id: my task, type: Square}",
            "",
            "g.yaml:3:10: task id 'my task' is not an identifier; use letters, digits and '_', not "
            "beginning with a digit (did you mean 'my_task'?)",
        ),
        (
            "{name: a, type: Square}",
            "",
            "g.yaml:3:6: unknown key 'name' in a task; valid keys: id, type, config, background, "
            "on_error, every, rate_hz, deadline_ms, logging, missions, partition (did you mean 'id'?)",
        ),
        (
            "{id: a, type: Square, limit: 5}",
            "",
            "g.yaml:3:27: unknown key 'limit' in a task; valid keys: id, type, config, background, "
            "on_error, every, rate_hz, deadline_ms, logging, missions, partition; those of its type "
            "belong under config: {...}",
        ),
        (
            "{id: a, type: Square}",
            "{from: n, to: a, msg: IntMsg}",
            "g.yaml:5:6: unknown key 'from' in a connection; valid keys: src, dst, msg, missions, "
            "link (did you mean 'src'?)",
        ),
        (
            "{id: a, type: Square}",
            "{src: a, dst: a, msg: IntMsg}",
            "g.yaml:5:5: cycle: a -> a; a task cannot feed itself in a cycle: leave one of these "
            "connections out (what a task needs of earlier cycles, it keeps itself)",
        ),
    ],
)
def test_a_mistake_in_the_graph_says_what_to_write(said, task: str, cnx: str, text: str) -> None:
    assert text in said("", task, cnx=cnx).splitlines()


@pytest.mark.parametrize(
    ("p50_ms", "rate_hz", "found"),
    [(300, 3.2, [("a", 300.0)]), (300, 1.0, []), (40, 24.0, []), (None, 3.0, [])],
)
def test_a_task_that_all_cycles_wait_for_is_mentioned(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    p50_ms: float | None,
    rate_hz: float,
    found: list[tuple[str, float]],
) -> None:
    plan = plan_of(tmp_path, "n=Numbers; a=Scale; b=Scale!", "n > a; n > b")
    p50_us = None if p50_ms is None else p50_ms * 1000
    reports = {id_: TaskReport(id_, p50_us=p50_us) for id_ in "nab"}
    monkeypatch.setattr(report, "task_reports", lambda _: (reports, rate_hz))
    executor: Any = SimpleNamespace(plan=plan, has_own_speed=True)
    assert report.busiest(executor) == found
    executor.has_own_speed = False
    assert report.busiest(executor) == []


def test_a_name_that_is_not_there_says_which_one_may_be_meant(said) -> None:
    imported = "g.yaml:3:19: module 'mine' cannot be imported: "
    assert said(a("...", process=PROCESS.replace("Input[IntMsg]", "Input[InMsg]"))).startswith(
        f"{imported}NameError: name 'InMsg' is not defined (at mine.py:6, in A: "
    )
    for written, hint in {
        "Input[InMsg]": " (did you mean 'IntMsg'?)\n",
        "Input[BoolMsg]": "; write from flowrun.msgs import BoolMsg\n",
        "Live[int]": "; write from flowrun.runtime.task import Live\n",
        "Nothing": ")\n",
    }.items():
        assert said(a("...", process=PROCESS.replace("Input[IntMsg]", written))).endswith(hint)
    assert said("from flowrun.msgs import FloatMsgg\n").endswith(" (did you mean 'FloatMsg'?)\n")


def test_a_key_of_a_config_without_a_type_is_said_in_plain_words(said) -> None:
    code = "class A(Task):\n    class Config(TaskConfig):\n        factor = 2\n"
    assert said(code) == (
        "g.yaml:3:19: module 'mine' cannot be imported: factor = 2 needs a type in a Config: factor: "
        "TYPE = 2 (at mine.py:6, in A: class Config(TaskConfig):)\n"
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["."],
            "'.' is a folder: flowrun GRAPH.yaml runs a graph in it, and flowrun serve . serves all of "
            "them",
        ),
        (
            ["g.yaml", "--cycles", "3x"],
            "flowrun run: --cycles: expected a whole number, got '3x'; flowrun run --help lists all",
        ),
        (
            ["replay", "runs", "--token"],
            "flowrun replay: argument --token: expected one argument; flowrun replay --help lists all",
        ),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with suppress(SystemExit):
        assert main(words) == 2
    assert capsys.readouterr().err == f"{text}\n"
