"""A long-lived process binds a graph with the code that is on the disk now."""

from __future__ import annotations

import os
import sys

import pytest

from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import load_graph
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from support.helpers import record

TASK = """
from flowrun.msgs import IntMsg
from flowrun.runtime.task import Context, Input, Output, Task
{imports}

class Adds(Task):
    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        out.value = number.value + {more}
        out.publish()
"""
GRAPH = """
tasks: [{{id: n, type: Counter, config: {{limit: 2}}}}, {{id: a, type: {0}.Adds}}]
cnx: [{{src: n, dst: a, msg: IntMsg}}]
logging: {{slab_size_mib: 1, section_size_mib: 1}}
"""


@pytest.fixture
def graph(tmp_path, request):
    """The path of a graph of a task in module `stale_NAME`, which imports `stale_NAME_by`."""
    name = f"stale_{request.node.name.partition('[')[0][-20:]}"
    (tmp_path / f"{name}.py").write_text(
        TASK.format(imports=f"from {name}_by import BY", more="BY")
    )
    (tmp_path / f"{name}_by.py").write_text("BY = 10\n")
    (tmp_path / "g.yaml").write_text(GRAPH.format(name))
    yield tmp_path / "g.yaml"
    for module in [key for key in sys.modules if key.startswith(name)]:
        del sys.modules[module]


def plan(graph):
    return plan_graph(bind(load_graph(graph, env={})))


def sums(graph, directory):
    record(plan(graph), directory)
    with Log(directory) as log:
        return [m.fields["value"] for m in log.messages("/a/out")]


def write_within_the_second(path, text):
    """Write a text of the same size without changing the time of the file."""
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_module_that_a_tasks_module_takes_a_value_from_is_loaded_again(graph):
    name = graph.read_text().partition("type: stale")[2].partition(".")[0]
    by = graph.parent / f"stale{name}_by.py"
    assert sums(graph, graph.parent / "a") == [10, 11]
    write_within_the_second(by, "BY = 20\n")
    assert sums(graph, graph.parent / "b") == [20, 21]
    with Log(graph.parent / "a") as log:
        report = Replay(log, env={}).run()
    assert (report.first.recorded, report.first.replayed) == ("10", "20")


def test_a_module_that_is_as_it_was_is_the_same_object(graph):
    first, again = plan(graph), plan(graph)
    assert first.steps[1].task.task_class is again.steps[1].task.task_class


def test_a_module_of_a_package_is_loaded_again_with_those_that_import_it(tmp_path):
    package = tmp_path / "stale_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "by.py").write_text("BY = 10\n")
    (package / "other.py").write_text("")
    (package / "task.py").write_text(TASK.format(imports="from . import by, other", more="by.BY"))
    graph = tmp_path / "g.yaml"
    graph.write_text(GRAPH.format("stale_package.task"))
    assert sums(graph, tmp_path / "a") == [10, 11]
    other = sys.modules["stale_package.other"]
    (package / "by.py").write_text("BY = 20\n")
    assert sums(graph, tmp_path / "b") == [20, 21]
    assert sys.modules["stale_package.other"] is other


def test_a_module_that_was_imported_before_the_first_graph_is_loaded_again(graph, monkeypatch):
    monkeypatch.syspath_prepend(graph.parent)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)  # the cached file says what was loaded
    name = f"stale{graph.read_text().partition('type: stale')[2].partition('.')[0]}_by"
    __import__(name)
    (graph.parent / f"{name}.py").write_text("BY = 1000\n")
    assert sums(graph, graph.parent / "a") == [1000, 1001]


def test_a_replay_that_was_made_before_the_change_says_so(graph):
    sums(graph, graph.parent / "a")
    name = f"stale{graph.read_text().partition('type: stale')[2].partition('.')[0]}_by"
    with Log(graph.parent / "a") as log:
        replay = Replay(log, env={})
        (graph.parent / f"{name}.py").write_text("BY = 20\n")
        report = replay.run()
    assert report.first is None
    assert replay.notes == [
        f"{name} has changed since this replay was made, and is replayed as it was then; make "
        "another `Replay` to run it as it is now"
    ]


def test_a_change_that_is_no_python_is_a_mistake_of_the_graph(graph):
    plan(graph)
    name = f"stale{graph.read_text().partition('type: stale')[2].partition('.')[0]}_by"
    (graph.parent / f"{name}.py").write_text("BY = \n")
    with pytest.raises(Exception, match="cannot be imported: SyntaxError"):
        plan(graph)
