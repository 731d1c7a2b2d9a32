"""Which tasks have run, and how long a source is silent."""

from __future__ import annotations

from flowrun.msgs import IntMsg
from flowrun.runtime.engine.published import Published
from support.helpers import plan_of


def watched(tmp_path):
    """Two sources, a task that needs one of them, and one that needs both; `note` takes the sources that
    published in a cycle."""
    plan = plan_of(
        tmp_path,
        "n=Numbers; m=Numbers; one=Sum; both=engine_tasks.Both",
        "n > one.a; m > one.b; n > both.a; m > both.b",
    )
    published = Published(plan)

    def note(*sources):
        messages = [slot.message_type() for slot in plan.slots]
        for slot, message in zip(plan.slots, messages, strict=True):
            if slot.task_id in sources:
                message.publish(tov_ns=1)
        assert all(isinstance(message, IntMsg) for message in messages)
        published.note(messages)

    return published, note


def ids(published):
    return {it.step.task.id for it in published.pending}


def test_a_task_has_run_once_all_came_that_it_needs(tmp_path):
    published, note = watched(tmp_path)
    assert published.never_ran == ["one", "both"]
    note("m")
    assert published.never_ran == ["one", "both"]
    note("n")
    assert published.never_ran == ["both"]
    note()
    note("n", "m")
    assert published.never_ran == []


def test_only_tasks_of_which_nothing_was_seen_are_looked_at(tmp_path):
    published, note = watched(tmp_path)
    assert ids(published) == {"n", "m", "one", "both"}
    note("n")
    assert ids(published) == {"m", "both"}  # m ran, and published nothing
    note("n", "m")
    assert published.pending == []


def test_a_source_is_silent_since_it_was_last_heard(tmp_path):
    published, note = watched(tmp_path)
    assert published.silent_s(10.0) == {"n": 0.0, "m": 0.0}
    note("n")
    assert published.silent_s(12.0) == {"n": 0.0, "m": 2.0}
    assert ids(published) == {"n", "m", "both"}  # n again: has it published since?
    assert published.silent_s(15.0) == {"n": 3.0, "m": 5.0}
    note("n", "m")
    assert published.silent_s(16.0) == {"n": 0.0, "m": 0.0}
    note()
    assert published.silent_s(20.0) == {"n": 4.0, "m": 4.0}
