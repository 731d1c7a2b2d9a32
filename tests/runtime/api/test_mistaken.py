"""What a program takes for a run, and what is no argument, is an error that says what to write."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys

import pytest

import flowrun
from flowrun.msgs import IntMsg
from flowrun.runtime.api.graph import Graph
from flowrun.runtime.errors import TaskError, UsageError
from flowrun.runtime.task import Context, Input, Output, Task
from flowrun.tasks.basic import Counter, Square

NO_GRAPH = "a graph is no run: start() gives one; write: "
NO_RESULT = "run() and wait() return when the run has ended, and say how; write: "


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def graph():
    g = Graph("squares")
    g.connect(g.add(Counter, limit=3), g.add(Square))
    return g


async def awaits(it):
    await it


async def enters(it):
    async with it:
        pass


async def reads(it):
    async for _ in it:
        pass


@pytest.mark.parametrize(
    ("use", "instead"),
    [
        (lambda it: asyncio.run(awaits(it)), "result = await graph.start()"),
        (lambda it: asyncio.run(enters(it)), "async with graph.start() as run: ..."),
        (
            lambda it: asyncio.run(reads(it)),
            "run = graph.start(); async for message in run.messages('task.port'): ...",
        ),
        (lambda it: it.__enter__(), "with graph.start() as run: ..."),
    ],
    ids=["await", "async with", "async for", "with"],
)
def test_a_graph_and_a_result_are_no_runs(graph, use, instead):
    for it, said in (graph, NO_GRAPH), (graph.run(), NO_RESULT):
        with pytest.raises(TypeError) as raised:
            use(it)
        assert str(raised.value) == said + instead


def test_a_result_has_no_messages(graph):
    with pytest.raises(TypeError) as raised:
        list(graph.run())
    instead = "run = graph.start(); for message in run.messages('task.port'): ..."
    assert str(raised.value) == NO_RESULT + instead


def test_what_a_run_does_a_graph_does_not(graph):
    for name in ("wait", "stop", "messages", "log"):
        with pytest.raises(AttributeError) as raised:
            getattr(graph, name)
        assert str(raised.value) == f"{NO_GRAPH}run = graph.start(); run.{name}"
    with pytest.raises(AttributeError, match="^'Graph' object has no attribute 'nothing'$"):
        graph.nothing  # noqa: B018


def test_a_run_is_not_iterated_over(graph):
    with graph.start() as run, pytest.raises(TypeError) as raised:
        list(run)
    assert str(raised.value) == (
        "a run has no messages of its own; iterate over one of its outputs: "
        "run.messages('square.square'); outputs: counter.count, square.square"
    )


def test_a_run_is_not_sent_to_another_process(graph):
    with graph.start() as run, pytest.raises(TypeError) as raised:
        pickle.dumps(run)
    assert str(raised.value) == (
        "a run stays in the process that has started it; its log can be read anywhere"
    )


def test_tasks_and_ports_of_the_graph_name_those_of_its_run(graph):
    counter, square = graph
    with graph.start() as run:
        values = [it.value for it in run.messages(square)]
        assert values == [it.value for it in run.messages(square.square)] == [0, 1, 4]
        assert values == [it.value for it in run.messages("/square/square")]
        said = "<messages of 'square.square', one after the other>"
        assert repr(run.messages(square)) == said
        assert run.latest(counter.count).value == 2
        found = []
        run.on_message(square, found.append)
        run.wait()
        assert [it.value for it in found] == values
        for change in (lambda: run.pause(counter), lambda: run.set(counter, rate_hz=5)):
            with pytest.raises(UsageError, match="^the run has ended$"):
                change()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda run: run.messages(3),
            "unknown output '3'; outputs: counter.count, square.square",
        ),
        (
            lambda run: run.on_message("square", None),
            "expected a function that is called with each message; got None",
        ),
    ],
)
def test_other_arguments_are_refused(graph, call, said):
    with graph.start() as run, pytest.raises(UsageError) as raised:
        call(run)
    assert str(raised.value) == said


def test_a_function_is_added_before_it_is_connected(graph):
    def double(number: flowrun.IntMsg) -> flowrun.IntMsg:
        return number

    with pytest.raises(UsageError) as raised:
        graph.connect("counter", double)
    assert str(raised.value) == (
        "expected what add() returned, a port of it, or a text such as 'cam.image'; got the function "
        "double: write it = g.add(double), and connect that"
    )


def test_a_task_is_made_by_its_graph():
    with pytest.raises(TypeError) as raised:
        Counter(limit=5)
    assert str(raised.value) == "a graph makes its tasks: write graph.add(Counter, limit=5)"


def test_a_task_that_ships_is_in_its_own_module():
    with pytest.raises(AttributeError) as raised:
        flowrun.VideoCapture  # noqa: B018
    assert str(raised.value) == (
        "module 'flowrun' has no attribute 'VideoCapture'; write: from flowrun.tasks.video.capture "
        "import VideoCapture"
    )


@pytest.mark.slow
def test_a_spawned_process_does_not_run_its_parents_graph_again(tmp_path):
    (tmp_path / "script.py").write_text("""\
import multiprocessing
from flowrun import Graph
from flowrun.runtime.task import Context, Input, Output, Task
from flowrun.tasks.basic import Counter

g = Graph("g")
g.add(Counter, limit=3)
g.run()
child = multiprocessing.get_context("spawn").Process(target=print)
child.start()
child.join()
""")
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr.splitlines()[-1] == (
        "flowrun.runtime.errors.UsageError: this child process imports the script that has started it, "
        "which would run its graph again; put what runs a graph below `if __name__ == '__main__':`"
    )
    assert len(list((tmp_path / "runs").glob("g-*"))) == 1


class PublishesAValue(Task):
    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        out.publish(value=number.value)


def test_a_task_that_publishes_a_value_is_told_to_set_it(graph):
    graph.connect("counter", graph.add(PublishesAValue))
    with pytest.raises(TaskError) as raised:
        graph.run()
    assert str(raised.value) == (
        "task 'publishes_a_value' failed in process, cycle 0: TypeError: Message.publish() got an "
        "unexpected keyword argument 'value'; set the fields, then publish: out.value = ..., "
        "out.publish()"
    )
