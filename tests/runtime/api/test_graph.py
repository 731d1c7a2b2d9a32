"""A graph in Python is the one that a graph file would be, with the same mistakes, at its own lines."""

from __future__ import annotations

import importlib
import runpy
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flowrun.msgs import IntMsg
from flowrun.runtime.api.graph import Graph
from flowrun.runtime.errors import GraphError, UsageError
from flowrun.runtime.graph.file import compose
from flowrun.runtime.graph.find import find_task_class, task_types
from flowrun.runtime.graph.masking import masked_graph
from flowrun.runtime.graph.plan import load_plan
from flowrun.runtime.graph.values import ValueReader
from flowrun.runtime.graph.writing import plain, read_back, written
from flowrun.runtime.log.reader import Log
from flowrun.tasks.basic import Counter, Print, Square
from flowrun.tasks.inference import Inference, InferenceBatch
from flowrun.tasks.video.capture import VideoCapture
from support.determinism import graphs, messages_of, rough_graphs
from support.helpers import Numbers, Sum, plan_of, record
from support.paths import ROOT


def mistakes_of(folder, source):
    """The lines of the `GraphError` that a script raises, below its path."""
    script = folder / "script.py"
    script.write_text(textwrap.dedent(source))
    with pytest.raises(GraphError) as caught:
        runpy.run_path(str(script))
    return str(caught.value).replace(f"{script}:", "").splitlines()


def test_settings_are_values_of_one_run(tmp_path):
    graph = Graph("doubles")
    counter = graph.add(Counter, limit=5)
    graph.connect(counter, graph.add(Square))
    result = graph.run(settings={"counter.limit": np.int64(3)}, log_dir=tmp_path)
    assert result.cycles == 3
    assert graph.plan().graph.spec.tasks[0].config == {"limit": 5}
    with Log(next(tmp_path.glob("doubles-*"))) as log:
        assert log.metadata["settings"] == '["counter.limit=3"]'
    changed = {"counter.limit": None, "logging.keep": {"runs": 3}}
    spec = graph.plan(settings=changed).graph.spec
    assert (spec.tasks[0].config, spec.logging.keep.runs) == ({"limit": None}, 3)


def test_mistakes_in_settings_are_reported_at_the_call(tmp_path):
    assert mistakes_of(
        tmp_path,
        """
        from flowrun import Graph
        from flowrun.tasks.basic import Counter

        g = Graph("numbers")
        g.add(Counter)
        g.run(cycles=1, settings={"counter.limt": 3, "runtime.seed": "x", "limit": 3})
        """,
    ) == [
        "7:17: settings: counter.limt: unknown key 'limt' in the config of task 'counter'; valid keys: "
        "limit, rate_hz (did you mean 'limit'?)",
        "7:17: settings: limit: expected TASK.KEY=VALUE, such as cam.max_fps=5 or runtime.seed=7",
        "7:17: settings: runtime.seed: 'seed' must be a whole number of at least 0; got 'x'",
    ]


def test_a_config_that_is_none_is_reported_with_all_else(tmp_path):
    [mistake] = mistakes_of(
        tmp_path,
        """
        from flowrun import Context, Graph, IntMsg, Output, Task


        class Own(Task):
            class Config:
                first: int = 3

            def process(self, ctx: Context, number: Output[IntMsg]) -> None: ...


        g = Graph("own")
        g.add(Own, first=3)
        g.plan()
        """,
    )
    assert mistake.startswith(
        "13:7: Own.Config must be a subclass of TaskConfig; write `class Config("
    )


def test_all_mistakes_are_reported_at_their_arguments(tmp_path):
    assert mistakes_of(
        tmp_path,
        """
        from flowrun import Graph
        from flowrun.tasks.basic import Counter, Print, Square
        from flowrun.tasks.inference import Inference

        g = Graph("inference", logging={"sync": 1})
        n = g.add(Counter, limit=-3)
        square = g.add(
            Square, every=0,
            promt="cap en",
        )
        g.add("Prnt")
        again = g.add(Print, id="square", config={"a": object()})
        cap = g.add(Inference, prompt=object(), max_new_tokens="many")
        g.connect(n["cuont"], square); g.connect("cuonter", again)
        g.connect(n, cap)
        g.plan()
        """,
    ) == [
        "6:24: unknown key 'sync' in 'logging'; valid keys: slab_size_mib, section_size_mib, "
        "enable_task_logging, on_error, keep, mode, keyframe_interval, sync_s, keep_slabs "
        "(did you mean 'sync_s'?)",
        "7:20: 'limit' of task 'counter' must be at least 0; got -3",
        "9:13: 'every' must be a whole number of at least 1; got 0",
        "10:5: unknown key 'promt' in the config of task 'square'; valid keys: none",
        "12:7: unknown task type 'Prnt'; types: "
        + ", ".join(sorted(task_types()))
        + ", or a dotted path such as my_module.MyTask (did you mean 'Print'?)",
        "13:22: duplicate task id 'square'; first on line 8",
        "13:35: 'a': a graph holds texts, numbers, True, False, None, and lists and dicts of these; "
        "got an object of type object",
        "14:24: 'prompt': a graph holds texts, numbers, True, False, None, and lists and dicts of "
        "these; got an object of type object",
        "14:41: 'max_new_tokens' of task 'inference' must be a whole number; got 'many'",
        "15:11: task 'counter' has no output 'cuont'; its outputs: counter.count (IntMsg) "
        "(did you mean 'count'?)",
        "15:42: unknown task 'cuonter' in 'src'; task ids: counter, square, prnt, inference "
        "(did you mean 'counter'?)",
        "15:53: input 'square.number' already has a source, 'counter.cuont' on line 15; an input "
        "takes one connection",
        "16:1: message mismatch: 'msg' is IntMsg, output 'counter.count' publishes IntMsg, input "
        "'inference.image' takes ImageRgb8Msg",
    ]


def test_a_graph_without_tasks_is_refused_where_it_is_made(tmp_path):
    assert mistakes_of(tmp_path, "from flowrun import Graph\nGraph('g').plan()") == [
        "2:1: 'tasks' is empty; a graph needs at least one task"
    ]


def test_a_graph_without_a_source_is_refused_where_it_is_made(tmp_path):
    assert mistakes_of(
        tmp_path,
        """
        from flowrun import Graph
        from support.helpers import Sum
        g = Graph()
        a, b = g.add(Sum, id="a"), g.add(Sum, id="b")
        g.connect(a, b.a)
        g.connect(b, a.a)
        g.plan()
        """,
    ) == [
        "6:1: cycle: a -> b -> a; a task cannot feed itself in a cycle: leave one of these connections "
        "out (what a task needs of earlier cycles, it keeps itself)"
    ]


def test_a_mistake_that_another_line_has_made_names_both(tmp_path):
    (tmp_path / "g.yaml").write_text("tasks:\n- {id: a, type: Counter}\n- {id: p, type: Print}\n")
    found = mistakes_of(
        tmp_path,
        f"""
        from flowrun import Graph
        g = Graph.load({str(tmp_path / "g.yaml")!r})
        g.add("Counter", id="a")
        g.plan()
        """,
    )
    file = tmp_path / "g.yaml"
    assert found == [f"4:18: duplicate task id 'a'; first at {file}:2:8"]


def test_several_ports_are_told_apart(tmp_path):
    g = Graph()
    n, total = g.add(Numbers), g.add(Sum)
    g.connect(n, total.a)
    g.connect(n.number, total["b"])
    assert [str(cnx.dst) for cnx in g.plan().graph.spec.connections] == ["sum.a", "sum.b"]
    assert "b" in dir(total)
    with pytest.raises(
        AttributeError,
        match=r"^task 'sum' has no port 'totl'; its ports: a, b, total \(did you mean 'total'\?\)$",
    ):
        total.totl  # noqa: B018


def test_ports_that_take_any_message_have_the_class_of_their_connections():
    g = Graph()
    thin = [
        g.add("flowrun.tasks.shaping.throttle.Throttle", id=f"t{i}", config={"rate_hz": 5})
        for i in (0, 1)
    ]
    g.connect(thin[1], g.add(Print))
    g.connect(*thin)
    g.connect(g.add(Counter), thin[0])
    assert [cnx.msg for cnx in g.plan().graph.spec.connections] == ["IntMsg"] * 3


def test_ends_that_are_not_clear_are_told(tmp_path):
    found = mistakes_of(
        tmp_path,
        """
        from flowrun import Graph
        g = Graph()
        thin = [g.add("flowrun.tasks.shaping.throttle.Throttle", config={"rate_hz": 5}) for _ in "ab"]
        g.connect(*thin)
        g.plan()
        """,
    )
    assert found[-1] == (
        "5:1: it is not clear what flows from 'throttle' to 'throttle_2': name an output, an input, or "
        "the message; outputs: throttle.throttled; inputs: throttle_2.message"
    )


def test_two_inputs_that_fit_must_be_told_apart(tmp_path):
    assert mistakes_of(
        tmp_path,
        """
        from flowrun import Graph
        from support.helpers import Numbers, Sum
        g = Graph()
        g.connect(g.add(Numbers), g.add(Sum))
        g.plan()
        """,
    ) == ["5:27: task 'sum' has several inputs of IntMsg; name one: sum.a, sum.b"]


def test_ports_that_a_config_makes_are_known():
    g = Graph()
    cam = g.add(VideoCapture, source_type="test")
    batch = g.add(InferenceBatch, inputs=["gate", "yard"])
    g.connect(cam, batch.gate)
    assert {"gate_answer", "yard_answer"} <= set(dir(batch))


def test_a_key_of_a_task_that_its_config_has_too_must_be_said_as_one(tmp_path):
    assert mistakes_of(
        tmp_path,
        """
        from flowrun import Graph
        from flowrun.tasks.basic import Counter
        g = Graph()
        g.add(Counter, rate_hz=3)
        g.plan()
        """,
    ) == [
        "5:16: 'rate_hz' is a key of a task and of the config of Counter: write "
        "config={'rate_hz': ...} for the latter, config={} for the former"
    ]
    g = Graph()
    g.add(Counter, rate_hz=3, config={"rate_hz": 4})
    [task] = g.plan().graph.tasks
    assert (task.spec.rate_hz, task.config.rate_hz) == (3, 4)


def test_ids_are_those_of_the_classes():
    g = Graph()
    made = [g.add(VideoCapture), g.add(Counter), g.add(Counter), g.add("flowrun.tasks.basic.Print")]
    assert [node.id for node in made] == ["video_capture", "counter", "counter_2", "print"]


def test_values_of_numpy_and_paths_are_what_a_file_would_say(tmp_path):
    g = Graph()
    g.add(Counter, limit=np.int64(3))
    g.add(VideoCapture, source_uri=tmp_path / "a.mp4", fps=np.float32(0.5))
    configs = [task.config for task in g.plan(ready=False).graph.tasks]
    assert (configs[0].limit, configs[1].source_uri) == (3, str(tmp_path / "a.mp4"))


def test_variables_are_resolved_when_it_runs_and_secrets_are_in_no_log(tmp_path, monkeypatch):
    monkeypatch.setenv("CAM_PASSWORD", "sesame-open")
    monkeypatch.setenv("LIMIT", "2")
    g = Graph()
    g.add(Counter, limit="${LIMIT}")
    cam = g.add(VideoCapture, source_uri="rtsp://me:${CAM_PASSWORD}@gate/1")
    plan = g.plan()
    assert plan.graph.tasks[0].config.limit == 2
    assert "sesame-open" not in str(masked_graph(plan.graph.spec))
    cam.update(source_uri="rtsp://me:open-sesame@gate/1")
    assert "open-sesame" not in g.plan().graph.spec.stored_text


def test_what_was_changed_is_checked_at_the_line_of_the_change(tmp_path):
    assert mistakes_of(
        tmp_path,
        """
        from flowrun import Graph
        from flowrun.tasks.basic import Counter
        g = Graph(logging={"sync_s": 2})
        n = g.add(Counter, limit=3)
        n.update(limit="x",
                 every=-1)
        g.update(runtime={"seed": "y"}, logging={"sync_s": 3})
        g.plan()
        """,
    ) == [
        "6:10: 'limit' of task 'counter' must be a whole number; got 'x'",
        "7:10: 'every' must be a whole number of at least 1; got -1",
        "8:10: 'seed' must be a whole number of at least 0; got 'y'",
    ]


def test_a_mistake_is_mended_where_the_graph_is():
    g = Graph("g", runtime={"seed": object()})
    n = g.add(Counter, limit=object(), rate_hz=3)
    g.connect(n, g.add(Print, id="p", config={"x": object()}))
    with pytest.raises(GraphError) as caught:
        g.plan()
    assert len(caught.value.problems) == 4
    g.update(runtime={"seed": 3})
    n.update(limit=4, config={"rate_hz": 2})
    g.remove("p")
    assert g.plan().graph.tasks[0].config.limit == 4


def test_tasks_and_connections_are_removed():
    g = Graph()
    n, square, sink = g.add(Counter), g.add(Square), g.add(Print)
    g.connect(n, square)
    g.connect(square, sink)
    g.disconnect(square, "print")
    g.connect(n, sink)
    g.remove(square)
    assert [task.id for task in g.plan().graph.tasks] == ["counter", "print"]
    with pytest.raises(UsageError, match=r"^print is not connected to counter$"):
        g.disconnect(sink, n)
    with pytest.raises(UsageError, match=r"^unknown task 'square'; tasks: counter, print$"):
        g["square"]


FILES = sorted((ROOT / "graphs").glob("*.yaml"))


@pytest.mark.parametrize(
    "file",
    [it if it.stem == "two-cameras" else pytest.param(it, marks=pytest.mark.long) for it in FILES],
    ids=lambda it: it.stem,
)
def test_a_file_loaded_changed_and_saved_has_the_same_plan(file, tmp_path, monkeypatch):
    monkeypatch.setenv("CAMERA", "0")
    loaded = Graph.load(file)
    assert loaded.text == file.read_text()
    assert loaded.plan(ready=False) == load_plan(file, env={"CAMERA": "0"}, ready=False)
    loaded.update(runtime={"seed": 0})
    copy = tmp_path / "graph.yaml"
    (tmp_path / "media").symlink_to(ROOT / "graphs" / "media")
    loaded.save(copy)
    assert said(load_plan(copy, env={"CAMERA": "0"}, ready=False)) == said(
        load_plan(file, env={"CAMERA": "0"}, ready=False)
    )


def said(plan):
    """All of a plan but the places, and the name of its file."""
    steps = [(step.task.task_class, step.task.config, step.arguments) for step in plan.steps]
    return masked_graph(plan.graph.spec), steps, plan.slots, plan.source_count


def built(text, name):
    """The graph of a file, declared call by call."""
    data = yaml.safe_load(text)
    sections = {key: value for key, value in data.items() if key not in ("tasks", "cnx")}
    g = Graph(name, **sections)
    nodes = {}
    for i, task in enumerate(data["tasks"]):
        config = task.pop("config", {})
        kind = task.pop("type")
        if i % 2 and "." in kind:
            kind = find_task_class(kind, folder=Path(), types={})
        nodes[task["id"]] = g.add(kind, **task, config=config)
    for i, cnx in enumerate(data["cnx"] or ()):
        ends = []
        for end in (cnx["src"], cnx["dst"]):
            task, _, port = end.partition(".")
            ends.append(end if i % 3 == 0 else getattr(nodes[task], port) if port else nodes[task])
        g.connect(*ends)
    return g


def check_plan(graph):
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_of(Path(folder), *graph)
        g = built(plan.graph.spec.text, "g")
        assert said(g.plan(env={})) == said(plan)
        saved = Path(folder) / "saved.yaml"
        g.save(saved)
        assert said(load_plan(saved, env={})) == said(plan)


@given(st.one_of(graphs(), rough_graphs()))
@settings(max_examples=2)
def test_a_graph_in_python_has_the_plan_of_its_file(graph):
    check_plan(graph)


@pytest.mark.long
@given(st.one_of(graphs(), rough_graphs()))
@settings(max_examples=60)
def test_any_graph_in_python_has_the_plan_of_its_file(graph):
    check_plan(graph)


@pytest.mark.long
@given(graphs())
@settings(max_examples=20)
def test_a_graph_in_python_records_the_bytes_of_its_file(graph):
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_of(Path(folder), *graph)
        # When a background task is done, and reads the clock for its log lines, differs anyway.
        assume(not any(task.spec.background for task in plan.graph.tasks))
        record(plan, Path(folder) / "a")
        record(built(plan.graph.spec.text, "g").plan(env={}), Path(folder) / "b")
        assert messages_of(Path(folder) / "a") == messages_of(Path(folder) / "b")


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), values, max_size=4))
@settings(max_examples=15)
def test_a_file_says_the_values_that_python_does(said):
    text = written(plain(said))
    reader = ValueReader(file="g.yaml", env={})
    assert repr(read_back(reader, compose(text, "g.yaml"))) == repr(said)
    assert not reader.problems


def test_a_class_inside_a_function_runs_and_cannot_be_saved(tmp_path):
    class Local(Square):
        pass

    g = Graph()
    g.connect(g.add(Counter, limit=3), g.add(Local))
    assert g.plan().graph.tasks[1].task_class is Local
    with pytest.raises(
        GraphError,
        match=r"test_graph\.py:\d+:46: no graph file can name this class: "
        r"test_a_class_inside_a_function_runs_and_cannot_be_saved\.<locals>\.Local is defined inside "
        r"a function; define it at the top of a module$",
    ):
        g.save(tmp_path / "g.yaml")
    assert not (tmp_path / "g.yaml").exists()


def test_missions_includes_and_constants_are_as_in_a_file(tmp_path):
    (tmp_path / "part.yaml").write_text(
        "tasks:\n- {id: n, type: Counter, config: {limit: '{{most}}'}}\n"
    )
    g = Graph.load(tmp_path / "part.yaml")
    with pytest.raises(GraphError):
        g.plan()
    g.update(constants={"most": 4}, missions=["test", "night"])
    sink = g.add(Print, missions=["test"])
    g.connect("n", sink)
    [n, _] = g.plan(mission="test").graph.tasks
    assert n.config.limit == 4
    assert [task.id for task in g.plan(mission="night").graph.tasks] == ["n"]
    g.save(tmp_path / "all.yaml")
    assert said(load_plan(tmp_path / "all.yaml", env={})) == said(g.plan())
    whole = Graph("whole", includes=[{"path": str(tmp_path / "part.yaml"), "params": {"most": 3}}])
    whole.connect("n", whole.add(Print), msg="IntMsg")
    assert whole.start(log_dir=None).wait().cycles == 3


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("tasks: [a, {id: b}]", "1:9: a task must be a mapping {id: n, type: Counter}; got 'a'"),
        ("[]", "1:1: the graph must be a mapping (key: value); got a list"),
        ("tasks:\n- {id: a, id: b, type: Counter}", "2:11: duplicate key 'id'; first on line 2"),
        ("tasks: [", "1:9: not valid YAML: expected a value"),
    ],
)
def test_a_file_that_is_no_graph_is_refused_when_it_is_loaded(tmp_path, text, mistake):
    (tmp_path / "g.yaml").write_text(text)
    with pytest.raises(GraphError) as caught:
        Graph.load(tmp_path / "g.yaml")
    assert f"{tmp_path}/g.yaml:{mistake}" in str(caught.value).splitlines()


def test_what_is_no_task_is_refused(tmp_path):
    assert mistakes_of(
        tmp_path, "from flowrun import Graph\ng = Graph()\ng.add(3, id='a')\ng.plan()"
    )[0].startswith("3:7: a task is a class that derives from Task, a function, or a name; got 3")


def test_a_class_that_has_changed_on_the_disk_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "own_square.py"
    source = "from flowrun.tasks.basic import Square\nclass Own(Square):\n    number = 1\n"
    module.write_text(source)
    own = importlib.import_module("own_square").Own
    g = Graph()
    g.connect(g.add(Counter, limit=3), g.add(own))
    assert g.not_replayed == []
    g.plan()
    module.write_text(source.replace("1", "22"))
    assert g.not_replayed == ["own_square has changed since it was imported; import it again"]
    del sys.modules["own_square"]


def test_a_function_that_is_no_task_is_told_as_in_a_file(tmp_path):
    [found] = mistakes_of(
        tmp_path,
        """
        from flowrun import Graph
        def halve(number):
            return number / 2
        g = Graph()
        g.add(halve)
        g.plan()
        """,
    )
    assert found.startswith("6:7: halve: parameter 'number' has no annotation;")


def test_the_message_of_a_connection_may_be_named():
    g = Graph()
    g.connect(g.add(Counter, limit=3), g.add(Print), msg=IntMsg)
    g.connect("counter", g.add(Square), msg="IntMsg")
    assert len(g.plan().graph.connections) == 2
    g.connect("counter", g.add(Inference), msg=IntMsg)
    with pytest.raises(GraphError, match="message mismatch"):
        g.plan()


def test_what_no_connection_can_have_as_an_end_is_refused_at_once() -> None:
    g, other = Graph("g"), Graph("other")
    numbers, alien = g.add("Counter"), other.add("Square")
    expected = "expected what add() returned, a port of it, or a text such as 'cam.image'"
    ends = {
        alien: "task 'square' is not in graph 'g': it was removed, or added to another",
        Square: f"{expected}; got the class Square: write it = g.add(Square), and connect that",
        3: f"{expected}; got an int",
    }
    for end, text in ends.items():
        with pytest.raises(UsageError) as error:
            g.connect(numbers, end)  # type: ignore[arg-type]
        assert str(error.value) == text
    g.remove(numbers)
    with pytest.raises(UsageError, match="task 'counter' is not in graph 'g'"):
        g.connect(numbers, "square")
