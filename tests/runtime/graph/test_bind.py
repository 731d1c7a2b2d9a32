"""GraphSpec -> BoundGraph, and everything that may not exist or not fit."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from flowrun.msgs import BoolMsg, IntMsg, TextMsg
from flowrun.runtime.errors import GraphError
from flowrun.runtime.graph.bind import BoundConnection, BoundGraph, bind, live_keys
from flowrun.runtime.graph.find import message_types, task_types
from flowrun.runtime.graph.read import load_graph

PARTS = '''
from typing import Annotated, Literal

from pydantic import BaseModel, Field, PositiveFloat, field_validator, model_validator

from flowrun.msgs import BoolMsg, IntMsg, Message, TextMsg
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig


class BigIntMsg(IntMsg):
    """An IntMsg that says more."""

    note: str


class Source(Task):
    def process(self, ctx: Context, number: Output[IntMsg], text: Output[TextMsg]) -> None: ...


class BigSource(Task):
    def process(self, ctx: Context, number: Output[BigIntMsg]) -> None: ...


class Pass(Task):
    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None: ...


class Add(Task):
    def process(
        self,
        ctx: Context,
        left: Input[IntMsg],
        right: Input[IntMsg],
        label: Input[TextMsg] | None,
        total: Output[IntMsg],
    ) -> None: ...


class Sink(Task):
    def process(self, ctx: Context, number: Input[IntMsg]) -> None: ...


class TextSink(Task):
    def process(self, ctx: Context, text: Input[TextMsg]) -> None: ...


class Reconnect(BaseModel, extra="forbid"):
    delay_s: float = 1


class Aged(BaseModel, extra="forbid"):
    age_ms: PositiveFloat


class Configured(Task):
    class Config(TaskConfig):
        radius_px: PositiveFloat
        mode: Literal["fast", "good"] = "fast"
        policy: Literal["latest"] | Annotated[int, Field(ge=1)] | Aged = "latest"
        tags: list[str] = []
        reconnect: Reconnect | None = None
        prompt: Live[str] = "Describe."
        uri: str = ""

        @field_validator("uri")
        @classmethod
        def _check_uri(cls, uri: str) -> str:
            if uri.startswith("ftp:"):
                raise ValueError(f"cannot open {uri}")
            if uri.startswith("bug:"):
                raise KeyError("oops")
            return uri

        @model_validator(mode="after")
        def _check(self) -> "Configured.Config":
            if self.mode == "good" and self.tags == ["x"]:
                raise ValueError("tag x is only for mode fast")
            return self

    def process(self, ctx: Context, number: Output[IntMsg]) -> None: ...


class NoPort(Task):
    def process(self, ctx: Context, number: int) -> None: ...


class OddAnnotation(Task):
    def process(self, ctx: Context, number: "Input[1/0]") -> None: ...


class OddConfig(Task):
    Config = dict

    def process(self, ctx: Context, number: Output[IntMsg]) -> None: ...


class Freezes(Task):
    def freeze(self) -> int:
        return 0

    def process(self, ctx: Context, number: Output[IntMsg]) -> None: ...


class Plain: ...


def function() -> None: ...
'''


@pytest.fixture(autouse=True)
def _parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bind_parts.py").write_text(PARTS)


def bound(text: str, **env: str) -> BoundGraph:
    path = Path("g.yaml")
    path.write_text(textwrap.dedent(text).replace("parts.", "bind_parts."))
    return bind(load_graph(path, env=env))


def problems(text: str, **env: str) -> list[str]:
    with pytest.raises(GraphError) as caught:
        bound(text, **env)
    return str(caught.value).splitlines()


def test_connections_find_their_ports_by_message() -> None:
    graph = bound("""\
        tasks:
          - {id: src, type: parts.Source}
          - {id: add, type: parts.Add}
          - {id: sink, type: parts.Sink}
        cnx:
          - {src: src, dst: add.left, msg: IntMsg}
          - {src: src, dst: add.right, msg: IntMsg}
          - {src: src, dst: add, msg: TextMsg}
          - {src: add, dst: sink, msg: IntMsg}
        """)
    assert [task.id for task in graph.tasks] == ["src", "add", "sink"]
    assert [task.is_source for task in graph.tasks] == [True, False, False]
    assert graph.connections == (
        BoundConnection("src", "number", "add", "left", IntMsg),
        BoundConnection("src", "number", "add", "right", IntMsg),
        BoundConnection("src", "text", "add", "label", TextMsg),
        BoundConnection("add", "total", "sink", "number", IntMsg),
    )


def test_an_output_fits_an_input_of_its_base() -> None:
    graph = bound("""\
        tasks: [{id: a, type: parts.BigSource}, {id: b, type: parts.Sink}]
        cnx: [{src: a, dst: b, msg: parts.BigIntMsg}]
        """)
    assert graph.connections[0].message_type.__name__ == "BigIntMsg"


def test_built_in_types_have_short_names() -> None:
    graph = bound("""\
        tasks: [{id: a, type: BoolSource}, {id: b, type: BoolSink}]
        cnx: [{src: a, dst: b, msg: BoolMsg}]
        """)
    assert graph.tasks[0].task_class.__module__ == "flowrun.tasks.basic"
    assert graph.connections[0].message_type is BoolMsg


def test_live_keys_are_those_declared_so() -> None:
    graph = bound("tasks: [{id: a, type: parts.Configured, config: {radius_px: 1}}]")
    assert live_keys(graph.tasks[0].task_class) == ("prompt",)


def test_the_graphs_folder_leaves_no_trace_on_the_module_path() -> None:
    before = list(sys.path)
    bound("tasks: [{id: a, type: parts.Source}]")
    assert sys.path == before


def test_each_graph_means_the_module_next_to_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bind_twin.py").write_text(
            PARTS.replace("class Source", f"class {name.title()}")
        )
        path = tmp_path / name / "g.yaml"
        path.write_text(f"tasks: [{{id: a, type: bind_twin.{name.title()}}}]")
        assert bind(load_graph(path, env={})).tasks[0].task_class.__name__ == name.title()


# -- types -------------------------------------------------------------------------------------


def test_unknown_types_name_the_nearest() -> None:
    types = ", ".join(sorted(task_types()))
    assert problems("""\
        tasks:
          - {id: a, type: VideoCaptur}
          - {id: b, type: parts.Sorce}
          - {id: c, type: nowhere.Task}
          - {id: d, type: flowrun.nowhere.Task}
        """) == [
        f"g.yaml:2:19: unknown task type 'VideoCaptur'; types: {types}, "
        "or a dotted path such as my_module.MyTask (did you mean 'VideoCapture'?)",
        "g.yaml:3:19: module 'bind_parts' has no 'Sorce'; its tasks: Add, BigSource, "
        "Configured, Freezes, NoPort, OddAnnotation, OddConfig, Pass, Sink, Source, TextSink "
        "(did you mean 'Source'?)",
        "g.yaml:4:19: no module named 'nowhere'; looked in the graph's folder . and on Python's "
        "module path",
        "g.yaml:5:19: no module named 'flowrun.nowhere'; looked in the graph's folder . and on "
        "Python's module path",
    ]


def test_what_is_not_a_task_is_refused() -> None:
    Path("bind_few.py").write_text(
        "from flowrun.runtime.task import Task\nfrom bind_parts import *\nx = 1\n"
        "def function() -> None: ..."
    )
    assert problems("""\
        tasks:
          - {id: a, type: bind_few.Plain}
          - {id: b, type: bind_few.function}
          - {id: c, type: bind_few.x}
          - {id: d, type: bind_few.Task}
        """) == [
        "g.yaml:2:19: 'bind_few.Plain' is not a task but a class that does not derive from "
        "Task; its tasks: none",
        "g.yaml:3:19: function neither takes nor returns a message, so it is no task; e.g. def "
        "double(number: IntMsg, *, factor: int = 2) -> IntMsg (at bind_few.py:4: def function() "
        "-> None: ...)",
        "g.yaml:4:19: 'bind_few.x' is not a task but an int; its tasks: none",
        "g.yaml:5:19: 'bind_few.Task' is not a task but the base class itself; its tasks: none",
    ]


def test_a_module_that_raises_is_named_with_its_exception() -> None:
    Path("bind_raises.py").write_text("raise ValueError('no camera')")
    Path("bind_exits.py").write_text("raise SystemExit")
    Path("bind_lacks.py").write_text("import bind_not_installed")
    assert problems("""\
        tasks:
          - {id: a, type: bind_raises.A}
          - {id: b, type: bind_exits.A}
          - {id: c, type: bind_lacks.A}
        """) == [
        "g.yaml:2:19: module 'bind_raises' cannot be imported: ValueError: no camera "
        "(at bind_raises.py:1: raise ValueError('no camera'))",
        "g.yaml:3:19: module 'bind_exits' cannot be imported: SystemExit "
        "(at bind_exits.py:1: raise SystemExit)",
        "g.yaml:4:19: module 'bind_lacks' cannot be imported: "
        "ModuleNotFoundError: No module named 'bind_not_installed' "
        "(at bind_lacks.py:1: import bind_not_installed)",
    ]


def test_bad_task_classes_say_what_is_wrong() -> None:
    assert problems("""\
        tasks:
          - {id: a, type: parts.NoPort}
          - {id: b, type: parts.OddAnnotation}
          - {id: c, type: parts.OddConfig}
          - {id: d, type: parts.Source, background: true}
          - {id: e, type: parts.Freezes}
        """) == [
        "g.yaml:2:19: NoPort.process: parameter 'number' must be Input[M], Input[M] | None or "
        "Output[M] of a Message class M; got int; e.g. def process(self, ctx: Context, "
        "image: Input[ImageRgb8Msg], out: Output[TextMsg]) -> None (at bind_parts.py:84: def "
        "process(self, ctx: Context, number: int) -> None: ...)",
        "g.yaml:3:19: OddAnnotation.process: its annotations raised ZeroDivisionError: "
        "division by zero (at bind_parts.py:88: def process(self, ctx: Context, number: "
        '"Input[1/0]") -> None: ...)',
        "g.yaml:4:19: OddConfig.Config must be a subclass of TaskConfig; write `class "
        "Config(TaskConfig):` (at bind_parts.py:91: class OddConfig(Task):)",
        "g.yaml:5:50: task 'd' is a source, and a source cannot run in the background; "
        "leave 'background' out",
        "g.yaml:6:19: Freezes: freeze and thaw belong together; define both, or neither (at "
        "bind_parts.py:97: class Freezes(Task):)",
    ]


# -- connections -------------------------------------------------------------------------------


def test_wrong_ends_list_the_right_ones() -> None:
    assert problems("""\
        tasks:
          - {id: src, type: parts.Source}
          - {id: add, type: parts.Add}
          - {id: sink, type: parts.Sink}
          - {id: broken, type: parts.Nothing}
        cnx:
          - {src: srk, dst: sink, msg: IntMsg}
          - {src: src.nmber, dst: add.total, msg: IntMsg}
          - {src: sink, dst: src, msg: IntMsg}
          - {src: src, dst: add, msg: IntMsg}
          - {src: src, dst: add.label, msg: BoolMsg}
          - {src: src, dst: broken.x, msg: IntMesg}
          - {src: src, dst: broken, msg: nowhere.Msg}
        """)[1:] == [
        "g.yaml:7:11: unknown task 'srk' in 'src'; task ids: src, add, sink, broken "
        "(did you mean 'src'?)",
        "g.yaml:8:11: task 'src' has no output 'nmber'; its outputs: src.number (IntMsg), "
        "src.text (TextMsg) (did you mean 'number'?)",
        "g.yaml:8:27: task 'add' has no input 'total' (that is an output); its inputs: "
        "add.left (IntMsg), add.right (IntMsg), add.label (TextMsg)",
        "g.yaml:9:11: task 'sink' is a sink: it has no outputs",
        "g.yaml:9:22: task 'src' is a source: it has no inputs",
        "g.yaml:10:21: task 'add' has several inputs of IntMsg; name one: add.left, add.right",
        "g.yaml:11:11: task 'src' has no output of BoolMsg; its outputs: src.number (IntMsg), "
        "src.text (TextMsg)",
        f"g.yaml:12:36: unknown message 'IntMesg'; messages: {', '.join(sorted(message_types()))}, or a "
        "dotted path such as my_module.MyMsg (did you mean 'IntMsg'?)",
        "g.yaml:13:34: no module named 'nowhere'; looked in the graph's folder . and on Python's "
        "module path",
    ]


def test_a_mismatch_says_what_each_end_declares() -> None:
    assert problems("""\
        tasks:
          - {id: src, type: parts.Source}
          - {id: a, type: parts.Sink}
          - {id: b, type: parts.TextSink}
        cnx:
          - {src: src.number, dst: a, msg: BoolMsg}
          - {src: src.number, dst: b, msg: IntMsg}
        """) == [
        "g.yaml:6:36: message mismatch: 'msg' is BoolMsg, output 'src.number' publishes IntMsg, "
        "input 'a.number' takes IntMsg; write msg: IntMsg",
        "g.yaml:7:36: message mismatch: 'msg' is IntMsg, output 'src.number' publishes IntMsg, "
        "input 'b.text' takes TextMsg",
    ]


def test_an_input_takes_one_connection_and_needs_it_if_required() -> None:
    assert problems("""\
        tasks:
          - {id: src, type: parts.Source}
          - {id: add, type: parts.Add}
          - {id: sink, type: parts.TextSink}
        cnx:
          - {src: src, dst: add.left, msg: IntMsg}
          - {src: src.number, dst: add.left, msg: IntMsg}
        """) == [
        "g.yaml:3:10: input 'add.right' (IntMsg) is not connected; outputs that fit: src.number",
        "g.yaml:4:10: input 'sink.text' (TextMsg) is not connected; outputs that fit: src.text",
        "g.yaml:7:28: input 'add.left' already has a source, 'src' on line 6; "
        "an input takes one connection",
    ]


# -- config ------------------------------------------------------------------------------------


def test_bad_config_values_are_said_in_plain_words_at_their_keys() -> None:
    assert problems("""\
        tasks:
          - id: a
            type: parts.Configured
            config:
              radus_px: 3
              mode: god
              policy: 0
              tags: [x, 5]
              reconnect:
                delay: 3
                delay_s: soon
              prompt: true
          - {id: b, type: parts.Configured, config: {radius_px: -1, mode: good, tags: x}}
          - {id: c, type: parts.Configured}
        """) == [
        "g.yaml:5:7: the config of task 'a' lacks 'radius_px'",
        "g.yaml:5:7: unknown key 'radus_px' in the config of task 'a'; valid keys: radius_px, "
        "mode, policy, tags, reconnect, prompt, uri (did you mean 'radius_px'?)",
        "g.yaml:6:7: 'mode' of task 'a' must be 'fast' or 'good'; got 'god' (did you mean 'good'?)",
        "g.yaml:7:7: 'policy' of task 'a' must be 'latest', or at least 1, or a mapping; got 0",
        "g.yaml:8:17: 'tags[1]' of task 'a' must be a text; got 5",
        "g.yaml:10:9: unknown key 'delay' in 'reconnect' of the config of task 'a'; "
        "valid keys: delay_s (did you mean 'delay_s'?)",
        "g.yaml:11:9: 'reconnect.delay_s' of task 'a' must be a number; got 'soon'",
        "g.yaml:12:7: 'prompt' of task 'a' must be a text; got true",
        "g.yaml:13:51: 'radius_px' of task 'b' must be greater than 0; got -1",
        "g.yaml:13:78: 'tags' of task 'b' must be a list; got 'x'",
        "g.yaml:14:5: the config of task 'c' lacks 'radius_px'",
    ]


def test_a_mistake_inside_a_mapping_is_reported_alone_where_texts_are_taken_too() -> None:
    assert problems("""\
        tasks:
          - {id: a, type: parts.Configured, config: {radius_px: 1, policy: {age_ms: 0}}}
          - {id: b, type: parts.Configured, config: {radius_px: 1, policy: {}}}
          - {id: c, type: parts.Configured, config: {radius_px: 1, policy: [1]}}
        """) == [
        "g.yaml:2:74: 'policy.age_ms' of task 'a' must be greater than 0; got 0",
        "g.yaml:3:65: the config of task 'b' lacks 'policy.age_ms'",
        "g.yaml:4:65: 'policy' of task 'c' must be 'latest', or a whole number, or a mapping; "
        "got a list",
    ]


def test_true_is_no_number() -> None:
    Path("bind_numbers.py").write_text(
        "from pydantic import BaseModel, Field\n"
        "from bind_parts import *\n"
        "class Plain(BaseModel):\n"
        "    n: int = 1\n"
        "class Numbers(Source):\n"
        "    class Config(TaskConfig):\n"
        "        n: int = 1\n"
        "        x: float | None = None\n"
        "        either: bool | int = 0\n"
        "        many: list[int] = []\n"
        "        named: dict[str, float] = {}\n"
        "        below: Plain = Plain()\n"
        "        called: int = Field(0, alias='as')\n"
    )
    assert problems("""\
        tasks:
          - id: a
            type: bind_numbers.Numbers
            config:
              n: true
              x: false
              either: true
              many: [1, true]
              named: {a: 1, b: true}
              below: {n: true}
              as: true
        """) == [
        "g.yaml:5:7: 'n' of task 'a' must be a whole number; got true",
        "g.yaml:6:7: 'x' of task 'a' must be a number; got false",
        "g.yaml:8:17: 'many[1]' of task 'a' must be a whole number; got true",
        "g.yaml:9:21: 'named.b' of task 'a' must be a number; got true",
        "g.yaml:10:15: 'below.n' of task 'a' must be a whole number; got true",
        "g.yaml:11:7: 'as' of task 'a' must be a whole number; got true",
    ]


def test_an_authors_own_checks_speak_for_themselves_without_secrets() -> None:
    text = """\
        tasks:
          - {id: a, type: parts.Configured, config: {radius_px: 1, uri: "ftp://${PW}"}}
          - {id: b, type: parts.Configured, config: {radius_px: 1, uri: "bug:${PW}"}}
          - {id: c, type: parts.Configured, config: {radius_px: 1, mode: good, tags: [x]}}
          - {id: d, type: parts.Configured, config: {radius_px: "${PW}"}}
        """
    assert problems(text, PW="s3cret") == [
        "g.yaml:2:65: 'uri' of task 'a': cannot open ftp://***",
        "g.yaml:3:50: config of task 'b': its check raised KeyError: 'oops'",
        "g.yaml:4:50: the config of task 'c': tag x is only for mode fast",
        "g.yaml:5:51: 'radius_px' of task 'd' must be a number; got '***'",
    ]


def test_a_config_that_pydantic_cannot_use_is_said_without_its_links() -> None:
    Path("bind_late.py").write_text(
        "from __future__ import annotations\n"
        "from typing import TYPE_CHECKING\n"
        "from flowrun.msgs import IntMsg\n"
        "from flowrun.runtime.task import Context, Output, Task, TaskConfig\n"
        "if TYPE_CHECKING:\n"
        "    from pathlib import Path\n"
        "class Late(Task):\n"
        "    class Config(TaskConfig):\n"
        "        path: Path\n"
        "    def process(self, ctx: Context, number: Output[IntMsg]) -> None: ...\n"
    )
    assert problems("tasks: [{id: a, type: bind_late.Late, config: {path: x}}]") == [
        "g.yaml:1:47: config of task 'a': its check raised PydanticUserError: `Config` is not "
        "fully defined; you should define `Path`, then call `Config.model_rebuild()`."
    ]
