"""Who keeps an input beyond its call, and who changes a message."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.instances import make_instances
from flowrun.runtime.engine.record import ALWAYS, call_process, make_record
from flowrun.runtime.engine.watch import Kept, KeptInputs, MessageWatch
from flowrun.runtime.errors import MessageMisused
from support.helpers import plan_of

ARRAY = "'row' of its input 'bag'"


def test_what_is_kept_says_who_may_keep_it():
    text = "keeps it after process has returned, when its memory is used again{}; keep a copy() instead"
    assert str(Kept(("a",), "it")) == text.format("")
    assert str(Kept(("a", "b", "c"), "it")) == text.format(" (or b, c does)")


def bag_plan(tmp_path, readers, cnx):
    tasks = f"n=Numbers; b=message_tasks.Bag; {readers}"
    return plan_of(tmp_path, tasks, f"n > b; {cnx}".replace("BAG", "message_tasks.BagMsg"))


def record_of(plan, task="b"):
    """A record of the plan, whose calls do nothing, and the message of a task in it."""
    record = make_record(plan, CycleTime(), lambda *_: (ALWAYS, lambda: None), lambda *_: None)
    [slot] = [slot.index for slot in plan.slots if slot.task_id == task][-1:]
    return record, slot, record.messages[slot]


def publish(message, size=3):
    message.envelope.is_open = True
    message.allocate("row", (size,))[:] = 1
    message.publish(tov_ns=1)


def test_a_view_that_is_kept_is_found(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers; x=Scale; y=Scale", "n > x; n > y")
    made = make_instances(plan, CycleTime(), source=lambda _id: None)
    messages, views = [slot.message_type() for slot in plan.slots], []
    calls = [
        call_process(step, messages, made[step.task.id].task, made[step.task.id].ctx, views=views)
        for step in plan.steps
    ]
    kept = KeptInputs(plan, views)
    assert list(kept.views()) == []
    [held] = [bound.view for bound in views if bound.task_id == "y"]
    assert list(kept.views()) == [Kept(("y",), "its input 'number'")]
    del held
    assert list(kept.views()) == []
    assert len(calls) == 3


def test_an_array_that_is_kept_is_found_and_its_readers_are_named(tmp_path):
    plan = bag_plan(
        tmp_path,
        "s=message_tasks.Sees; t=message_tasks.Sees; w=message_tasks.Sees!",
        "b > s: BAG; b > t: BAG; b > w: BAG",
    )
    kept = KeptInputs(plan, ())
    record, slot, message = record_of(plan)
    publish(message)
    assert kept.arrays(record) == []
    assert not message.present
    publish(message)
    row = message.view().row[1:]
    assert kept.arrays(record) == [Kept(("s", "t"), ARRAY)]  # w has a copy
    publish(message)
    before = kept.references(slot, message)
    rows = [message.view().row]
    now = kept.references(slot, message)
    kept.suspect("s", now, now, {})
    kept.suspect("s", before, now, {(slot, "row"): now[slot, "row"] - before[slot, "row"]})
    kept.suspect("t", before, now, {})
    assert kept.arrays(record) == [Kept(("t",), ARRAY)]
    publish(message)
    rows += [message.view().row]
    assert kept.arrays(record) == [Kept(("s", "t"), ARRAY)]  # of one cycle, not of the one before
    assert len(row) == 2


def test_an_array_that_nobody_can_change_may_be_kept(tmp_path):
    plan = bag_plan(tmp_path, "s=message_tasks.Sees", "b > s: BAG")
    kept = KeptInputs(plan, ())
    record, _, message = record_of(plan)
    publish(message, size=0)
    rows = [message.view().row]
    assert kept.arrays(record) == []
    message.envelope.is_open = True
    message.row = np.array([1, 2], np.float32)  # not the slot's own memory
    message.publish(tov_ns=1)
    rows.append(message.view().row)
    assert kept.arrays(record) == []
    unread = bag_plan(tmp_path, "w=message_tasks.Sees!", "b > w: BAG")
    record, _, message = record_of(unread)
    publish(message)
    rows.append(message.view().row)
    assert KeptInputs(unread, ()).arrays(record) == []
    assert [len(row) for row in rows] == [0, 2, 3]


def test_what_only_a_cycle_of_references_keeps_is_not_kept(tmp_path):
    """As an exception and its frames are."""
    plan = bag_plan(tmp_path, "s=message_tasks.Sees", "b > s: BAG")
    record, _, message = record_of(plan)
    publish(message)
    ring = [message.view().row]
    ring.append(ring)
    gc.disable()
    try:
        del ring
        assert KeptInputs(plan, ()).arrays(record) == []
    finally:
        gc.enable()


class Checked:
    """The steps of a plan as `MessageWatch` calls them, on one record."""

    def __init__(self, plan, task="b"):
        self.watch = MessageWatch(plan)
        self.record, _, self.message = record_of(plan, task)
        made = make_instances(plan, CycleTime(0, 100), source=lambda _id: None)
        for it in made.values():
            it.task.start(it.ctx)
        self.calls = {
            step.task.id: self.watch.call(
                step, self.record.messages, made[step.task.id].task, made[step.task.id].ctx
            )[1]
            for step in plan.steps
        }

    def run(self, *ids):
        for message in self.record.messages:
            message.envelope.is_open = True
        for id_ in ids:
            self.calls[id_]()


def misuse_of(call, *args):
    with pytest.raises(MessageMisused) as caught:
        call(*args)
    return caught.value.task_id, str(caught.value)


def test_a_message_that_changes_is_blamed_once_on_its_publisher(tmp_path):
    plan = bag_plan(tmp_path, "s=message_tasks.Sees", "b > s: BAG")
    made = Checked(plan)
    changed = (
        "b",
        "its message on port 'bag' changed after it was published: the task still writes to it, or to "
        "memory that it shares",
    )
    made.run("n", "b")
    made.watch.check(made.record)
    made.message.envelope.fields["items"] = [5]
    assert misuse_of(made.run, "s") == changed
    made.watch.check(made.record)
    made.message.envelope.tov_ns += 1
    assert misuse_of(made.watch.check, made.record) == changed
    made.watch.check(made.record)
    made.message.envelope.present = False
    made.message.envelope.fields["items"] = [6]
    made.watch.check(made.record)  # nobody can read it


def test_a_field_that_is_set_in_vain_is_found_on_each_output(tmp_path):
    tasks = "n=Numbers; t=message_tasks.SetsInVain"
    made = Checked(plan_of(tmp_path, tasks, "n > t"), "t")
    assert misuse_of(made.run, "n", "t") == (
        "t",
        "'value' of port 'second' was set after publish(), so that nobody sees it: publish() again",
    )


def test_a_message_that_retires_cannot_be_read(tmp_path):
    plan = bag_plan(tmp_path, "s=message_tasks.Sees", "b > s: BAG")
    made = Checked(plan)
    publish(made.message)
    made.watch.retire(made.record)
    publish(made.message)
    row = made.message.view().row
    task, text = misuse_of(made.watch.retire, made.record)
    assert (task, text) == ("s", str(Kept(("s",), ARRAY)))
    assert row.tobytes() == b"\xdb" * row.nbytes


def test_memory_that_was_passed_on_is_one_of_all_its_readers(tmp_path):
    plan = bag_plan(
        tmp_path, "p=message_tasks.Passes; s=message_tasks.Sees", "b > p: BAG; p > s: BAG"
    )
    record, _, message = record_of(plan)
    out = record_of(plan, "p")[1]
    publish(message)
    passed = record.messages[out]
    passed.envelope.is_open = True
    passed.row = message.view().row
    passed.publish(tov_ns=1)
    rows = [passed.view().row]
    assert KeptInputs(plan, ()).arrays(record) == [Kept(("p", "s"), ARRAY)]
    assert len(rows) == 1
