"""A cycle's messages and calls, bound once."""

from __future__ import annotations

import ctypes
import heapq
from types import SimpleNamespace

import numpy as np
import pytest

from flowrun.msgs import IntMsg, LatePublishError
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.instances import make_instances
from flowrun.runtime.engine.record import (
    ALWAYS,
    call_process,
    make_record,
    outputs_of_step,
    refuse_returned,
)
from flowrun.runtime.errors import MessageMisused, WrongReturnError
from support.helpers import plan_of
from support.message_tasks import BagMsg


class Bound:
    """Steps of a plan on messages of their own; `called` is what each call of `process` was given."""

    def __init__(self, plan):
        self.plan, self.called, self.views = plan, [], []
        self.messages = [slot.message_type() for slot in plan.slots]
        self.of = {
            slot.task_id: message for slot, message in zip(plan.slots, self.messages, strict=True)
        }
        made = make_instances(plan, CycleTime(0, 100), source=lambda _id: None)
        for it in made.values():
            it.task.process = lambda _ctx, *given: self.called.append(given)
        self.tasks = {id_: it.task for id_, it in made.items()}
        self.steps = {
            step.task.id: call_process(
                step,
                self.messages,
                made[step.task.id].task,
                made[step.task.id].ctx,
                views=self.views,
            )
            for step in plan.steps
        }

    def is_open(self, task):
        return self.steps[task][0].present

    def call(self, task):
        """What the task was given."""
        self.steps[task][1]()
        return self.called.pop()


def test_a_step_is_open_when_all_is_there_that_it_requires(tmp_path):
    tasks = "a=Numbers; b=Numbers; one=Scale; two=engine_tasks.Both; maybe=engine_tasks.Either"
    it = Bound(plan_of(tmp_path, tasks, "a > one; a > two.a; b > two.b; a > maybe.a; b > maybe.b"))
    ids = ["a", "one", "two", "maybe"]
    assert it.steps["a"][0] is ALWAYS
    assert [it.is_open(id_) for id_ in ids] == [True, False, False, True]
    it.of["b"].publish(tov_ns=1)
    assert [it.is_open(id_) for id_ in ids] == [True, False, False, True]
    it.of["a"].publish(tov_ns=1)
    assert [it.is_open(id_) for id_ in ids] == [True, True, True, True]
    it.of["b"].clear()
    assert [it.is_open(id_) for id_ in ids] == [True, True, False, True]


def test_a_process_gets_views_of_inputs_and_its_own_outputs(tmp_path):
    tasks = "a=Numbers; b=Numbers; s=Sum; maybe=engine_tasks.Either"
    it = Bound(plan_of(tmp_path, tasks, "a > s.a; b > s.b; b > maybe.b"))
    it.of["a"].publish(tov_ns=1)
    a, b, total = it.call("s")
    assert (a.is_view, a.present, b) == (True, True, None)
    assert total is it.of["s"]
    assert it.call("maybe") == (None, None, it.of["maybe"])  # a is not connected, b is absent
    it.of["b"].publish(tov_ns=1)
    assert [type(given) for given in it.call("s")] == [type(a), type(a), IntMsg]
    none, b, _ = it.call("maybe")
    assert (none, b.is_view) == (None, True)
    assert [(view.task_id, view.port) for view in it.views] == [
        ("s", "a"),
        ("s", "b"),
        ("maybe", "b"),
    ]


@pytest.mark.parametrize("raised", [None, ValueError("no"), SystemExit(3)])
def test_what_c_code_does_to_an_input_is_undone(tmp_path, raised):
    tasks = "n=Numbers; b=message_tasks.Bag; s=message_tasks.Sees; t=message_tasks.Sees"
    bag = "message_tasks.BagMsg"
    it = Bound(plan_of(tmp_path, tasks, f"n > b; b > s: {bag}; b > t: {bag}"))
    message = it.of["b"]
    message.items, message.things = [5], {}
    message.publish(tov_ns=1)

    def process(_ctx, view, _out):
        heapq.heappush(view.items, -9)
        if raised is not None:
            raise raised

    it.tasks["s"].process = process
    plan = it.plan
    [step] = [step for step in plan.steps if step.task.id == "s"]
    _, call = call_process(step, it.messages, it.tasks["s"], SimpleNamespace())
    with pytest.raises(MessageMisused if raised is None else type(raised)) as caught:
        call()
    if raised is None:
        assert str(caught.value) == "process changed 'items' of its input 'bag', which is read-only"
    assert isinstance(message, BagMsg)
    assert it.call("t")[0].items == [5]


@pytest.mark.parametrize(("before", "after"), [(1.0, 5.0), (5.0, 1.0)])
def test_what_is_written_to_the_memory_of_an_input_is_found(tmp_path, before, after):
    bag = "message_tasks.BagMsg"
    plan = plan_of(
        tmp_path, "n=Numbers; b=message_tasks.Bag; s=message_tasks.Sees", f"n > b; b > s: {bag}"
    )
    it = Bound(plan)
    message = it.of["b"]
    message.row = np.full(3, before, np.float32)
    message.publish(tov_ns=1)
    assert len(it.call("s")) == 2

    def process(_ctx, view, _out):
        ctypes.c_float.from_address(view.row.ctypes.data).value = after

    it.tasks["s"].process = process
    _, call = call_process(plan.steps[2], it.messages, it.tasks["s"], SimpleNamespace())
    with pytest.raises(MessageMisused) as caught:
        call()
    assert (caught.value.task_id, str(caught.value)) == (
        "s",
        "process changed 'row' of its input 'bag', which is read-only; torch.from_numpy and ctypes "
        "write to its memory: copy() it before",
    )


def test_the_messages_of_a_record_know_whose_they_are_and_are_closed(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers; x=Scale; f=Free!", "n > x; n > f")
    late, bound = [], []

    def bind_step(step, messages):
        bound.append((step.task.id, len(messages)))
        return ALWAYS, lambda: None

    record = make_record(plan, CycleTime(0, 7), bind_step, lambda *what: late.append(what))
    assert bound == [("n", 3), ("x", 3), ("f", 3)]
    assert [it.envelope.is_open for it in record.messages] == [None] * 3
    assert [len(it) for it in record.outputs] == [1, 1, 0]  # a job publishes on messages of its own
    number, scaled, _ = record.messages
    assert record.outputs[1][0] is scaled.envelope
    with pytest.raises(LatePublishError, match="^task 'x', port 'scaled': ") as caught:
        scaled.publish()
    assert late == [("x", caught.value)]
    number.envelope.is_open = True
    number.publish()
    assert (number.tov_ns, number.present) == (7, True)
    record.clear()
    assert not number.present


def test_the_outputs_of_a_step_are_those_of_its_ports(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers; t=message_tasks.SetsInVain; c=Collect", "n > t; n > c")
    messages = [slot.message_type() for slot in plan.slots]
    places = {id(message): at for at, message in enumerate(messages)}
    outputs = {
        step.task.id: [places[id(it)] for it in outputs_of_step(step, messages)]
        for step in plan.steps
    }
    assert outputs == {"n": [0], "t": [1, 2], "c": []}


def test_what_nobody_runs_is_closed_and_refused():
    async def coroutine(): ...

    async def agen():
        yield

    made = [coroutine(), (it for it in ()), agen()]
    for back in made:
        with pytest.raises(WrongReturnError, match="^process returned a .*, which nobody runs"):
            refuse_returned(coroutine, back)
    with pytest.raises(StopIteration):
        next(made[1])
    with pytest.raises(RuntimeError):
        made[0].send(None)
    for back in (3, "text", [1]):
        with pytest.raises(WrongReturnError, match="^process returned an? .*, which nobody sees"):
            refuse_returned(coroutine, back)


def misused(tmp_path, tasks, cnx, publish, process):
    """What is said of a task "s" that does that to a message which "b" has published so."""
    plan = plan_of(tmp_path, f"n=Numbers; {tasks}", f"n > b; {cnx}")
    it = Bound(plan)
    publish(it.of["b"])
    it.of["b"].publish(tov_ns=1)
    it.tasks["s"].process = process
    _, call = call_process(plan.steps[2], it.messages, it.tasks["s"], SimpleNamespace())
    with pytest.raises(MessageMisused, match="^process changed ") as caught:
        call()
    return str(caught.value).partition(",")[0]


def test_a_message_of_lists_alone_or_of_arrays_alone_is_watched_too(tmp_path):
    def set_items(message):
        message.items = [5]

    def set_grid(message):
        message.grid, message.note = np.ones((1, 2), np.float32), ""

    def write(_ctx, view, *_outputs):
        ctypes.c_float.from_address(view.grid.ctypes.data).value = 7

    said = misused(
        tmp_path,
        "b=message_tasks.Lists; s=message_tasks.SeesList",
        "b > s: message_tasks.ListMsg",
        set_items,
        lambda _ctx, view: heapq.heappush(view.items, -9),
    )
    assert said == "process changed 'items' of its input 'items'"
    grids = "b=fault_tasks.Reuses; s=fault_tasks.Holds", "b > s: GridMsg"
    assert (
        misused(tmp_path, *grids, set_grid, write) == "process changed 'grid' of its input 'grid'"
    )
