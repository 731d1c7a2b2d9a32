"""What tasks do with the messages that they read and have published, in runs and in replays."""

from __future__ import annotations

import gc

import pytest

from flowrun.msgs import IntMsg, envelope
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.errors import TaskError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from support.helpers import START_NS, plan_of
from support.message_tasks import BagMsg, Late

ARRAYS = "b=message_tasks.Bag(allocates: true)"
WRITTEN_TO = (
    "MessageMisused: process changed 'row' of its input 'bag', which is read-only; torch.from_numpy and "
    "ctypes write to its memory: copy() it before"
)


def run(tmp_path, tasks, cnx, *, debug=False, more="", cycles=None):
    plan = plan_of(tmp_path, tasks, with_types(cnx), more)
    live = Run(
        plan,
        clock=ManualClock(START_NS, step_ns=1000),
        directory=tmp_path / "run",
        debug_messages=debug,
    )
    return live.run(cycles=cycles)


def with_types(cnx):
    return "; ".join(
        f"{item}: message_tasks.BagMsg" if item[:3] in ("b >", "p >", "w >") else item
        for item in cnx.split("; ")
    )


def values(tmp_path, topic):
    with Log(tmp_path / "run") as log:
        return [message.fields for message in log.messages(topic)]


def replayed(tmp_path, **options):
    with Log(tmp_path / "run") as log:
        return Replay(log, env={}, **options).run()


@pytest.mark.parametrize("background", ["", "!"])
def test_consumers_and_log_get_what_was_published(tmp_path, background):
    """Though the task goes on with its list, its array and a view of that."""
    result = run(
        tmp_path,
        f"n=Numbers(limit: 3); b=message_tasks.Bag{background}; s=message_tasks.Sees",
        "n > b; b > s",
    )
    assert result.error is None
    bags, seen = values(tmp_path, "/b/bag"), values(tmp_path, "/s/out")
    assert bags
    for bag, text in zip(bags, seen, strict=True):
        number = bag["items"][-1]
        assert bag["items"] == sorted(bag["items"])
        assert (bag["things"], bag["row"].tolist()) == ({"n": [number, 0.5]}, [number] * 3)
        assert text["value"] == (
            f"{bag['items']} {bag['things']} ['int', 'float'] {bag['row'].tolist()}"
        )
    assert replayed(tmp_path).first is None
    assert replayed(tmp_path, feed=["b"]).first is None


def test_a_task_that_changes_a_list_of_its_input_is_named(tmp_path):
    result = run(
        tmp_path,
        "n=Numbers(limit: 3); b=message_tasks.Bag; a=message_tasks.Appends; s=message_tasks.Sees",
        "n > b; b > a; b > s",
    )
    text = (
        "TypeError: inputs are read-only: cannot append to a list of a message; copy.deepcopy() the "
        "list, or publish the new value on an output"
    )
    assert str(result.error) == f"task 'a' failed in process, cycle 0: {text}"
    assert [bag["items"] for bag in values(tmp_path, "/b/bag")] == [[0]]
    assert replayed(tmp_path).recorded_error == f"task 'a', cycle 0: {text}"


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_what_c_code_changes_in_an_input_is_found_and_put_back(tmp_path, policy):
    result = run(
        tmp_path,
        f"n=Numbers(limit: 2); b=message_tasks.Bag; p=message_tasks.Pushes@on_error: {policy}; "
        "s=message_tasks.Sees",
        "n > b; b > p; b > s",
    )
    error = "MessageMisused: process changed 'items' of its input 'bag', which is read-only"
    with Log(tmp_path / "run") as log:
        [first, *_] = [m.fields for m in log.messages("/flowrun/control")]
    assert (first["task"], first["value"]) == ("p", error)
    if policy == "stop":
        assert str(result.error) == f"task 'p' failed in process, cycle 0: {error}"
    else:
        assert [it["value"][:3] for it in values(tmp_path, "/s/out")] == ["[0]", "[0,"]
        assert values(tmp_path, "/p/out") == []
    assert values(tmp_path, "/b/bag")[0]["items"] == [0]
    assert replayed(tmp_path).first is None


@pytest.mark.parametrize("background", ["", "!"])
def test_a_task_that_writes_to_the_memory_of_an_array_is_named(tmp_path, background):
    result = run(
        tmp_path,
        f"n=Numbers(limit: 3); b=message_tasks.Bag; t=message_tasks.Torches{background}",
        "n > b; b > t",
    )
    assert str(result.error).endswith(WRITTEN_TO)
    assert str(result.error).startswith("task 't' failed in process, cycle ")


def test_a_task_that_publishes_after_its_call_ends_the_run(tmp_path):
    Late.errors.clear()
    result = run(tmp_path, "n=Numbers(limit: 9); l=message_tasks.Late; x=Scale", "n > l; l > x")
    text = (
        "task 'l', port 'out': IntMsg.publish() was called outside process, on thread 'its own'; "
        "publish before process returns, or keep the value and publish it in a later call"
    )
    assert Late.errors == [text]
    assert str(result.error) == (
        f"task 'l' failed in use of messages, cycle 3: LatePublishError: {text}"
    )
    assert values(tmp_path, "/l/out") == values(tmp_path, "/x/scaled") == []
    assert len(values(tmp_path, "/n/number")) == 3
    assert (
        replayed(tmp_path, feed=["l"]).recorded_error
        == f"task 'l', cycle 3: LatePublishError: {text}"
    )


def test_with_another_policy_a_late_message_is_only_logged(tmp_path):
    result = run(tmp_path, "n=Numbers(limit: 4); l=message_tasks.Late@on_error: skip", "n > l")
    assert result.error is None
    lines = [it for it in values(tmp_path, "/flowrun/log") if it["message"] == "task failed"]
    assert [line["name"] for line in lines] == ["l"]
    assert values(tmp_path, "/l/out") == []
    assert replayed(tmp_path).first is None


def test_an_absent_optional_input_is_none_and_no_view(tmp_path):
    run(
        tmp_path, "n=Numbers(limit: 3); e=Evens; a=message_tasks.Absent",
        "n > a.a; n > e; e > a.b",
    )  # fmt: skip
    assert [it["value"] for it in values(tmp_path, "/a/out")] == ["0", "absent", "2"]


def test_a_task_that_ran_and_never_published_is_mentioned(tmp_path):
    run(
        tmp_path,
        "n=Numbers(limit: 3); m=message_tasks.Mute; w=message_tasks.Mute!; after=Scale; c=Collect",
        "n > m; n > w; m > after; n > c",
    )
    lines = values(tmp_path, "/flowrun/log")
    silent = [it["name"] for it in lines if it["message"] == "ran, and never published a message"]
    assert silent == ["m", "w"]  # `after` did not run


def test_jobs_of_background_tasks_are_freed_without_the_collector(tmp_path):
    gc.collect()
    gc.disable()
    try:
        before = _messages_alive()
        run(tmp_path, "n=Numbers(limit: 60); b=message_tasks.Bag!", "n > b")
        grown = _messages_alive() - before
    finally:
        gc.enable()
    assert grown < 40, f"{grown} messages are left of 60 jobs"


def _messages_alive():
    return sum(isinstance(it, (BagMsg, IntMsg)) for it in gc.get_objects())


# -- --debug-messages --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (
            "KeepsArray",
            "failed in use of messages, cycle 0: MessageMisused: keeps 'row' of its input 'bag' after "
            "process has returned, when its memory is used again; keep a copy() instead",
        ),
        (
            "KeepsMessage",
            "failed in process, cycle 1: MessageMisused: reads 'items' of its input 'bag' after the "
            "call of process that had it; the slot may hold another message then: keep a copy() instead",
        ),
        (
            "Torches",
            f"failed in process, cycle 0: {WRITTEN_TO}",
        ),
    ],
)
def test_a_task_that_misuses_its_input_is_found(tmp_path, task, text):
    tasks = (
        f"n=Numbers(limit: 3); {ARRAYS}; ok=message_tasks.Sees; t=message_tasks.{task}; "
        "p=message_tasks.Passes"
    )
    result = run(tmp_path, tasks, "n > b; b > ok; b > t; b > p", debug=True)
    assert str(result.error) == f"task 't' {text}"


@pytest.mark.parametrize("debug", [False, True])
def test_a_change_that_samples_do_not_show_is_found(tmp_path, monkeypatch, debug):
    monkeypatch.setattr(envelope, "sampled", lambda _array: b"")
    result = run(
        tmp_path,
        f"n=Numbers(limit: 3); {ARRAYS}; t=message_tasks.Torches",
        "n > b; b > t",
        debug=debug,
    )
    found = (
        "task 't' failed in process, cycle 0: MessageMisused: process changed its input 'bag', which is "
        "read-only"
    )
    assert str(result.error) == (found if debug else "None")


@pytest.mark.parametrize("reader", ["", "; s=message_tasks.Sees"])
def test_a_task_that_writes_to_what_it_published_is_found(tmp_path, reader):
    tasks = f"n=Numbers(limit: 3); {ARRAYS}; o=message_tasks.Pokes{reader}"
    result = run(tmp_path, tasks, "n > b; n > o" + ("; b > s" if reader else ""), debug=True)
    where = "failed in process" if reader else "failed in use of messages"
    assert str(result.error) == (
        f"task 'b' {where}, cycle 1: MessageMisused: its message on port 'bag' changed after it was "
        "published: the task still writes to it, or to memory that it shares"
    )


def test_tasks_that_keep_the_rules_pass_the_checks(tmp_path):
    tasks = (
        f"n=Numbers(limit: 8); {ARRAYS}; c=message_tasks.KeepsCopy; p=message_tasks.Passes; "
        "s=message_tasks.Sees; w=message_tasks.Passes!; e=message_tasks.Sees"
    )
    cnx = "n > b; b > c; b > p; p > s; p > w; w > e"
    assert run(tmp_path, tasks, cnx, debug=True, more="runtime: {ring_size: 2}").error is None
    assert replayed(tmp_path, debug_messages=True).first is None


def test_a_difference_of_a_task_that_keeps_an_input_has_a_hint(tmp_path):
    """In the run its source's slots were used again; in the replay the log's bytes stay."""
    tasks = f"n=Numbers(limit: 6); {ARRAYS}; k=message_tasks.KeepsArray"
    run(tmp_path, tasks, "n > b; b > k", more="runtime: {ring_size: 2}")
    assert replayed(tmp_path).first is None
    first = replayed(tmp_path, feed=["b"]).first
    assert (first.cycle, first.task) == (2, "k")
    assert str(first).endswith(
        "\n  hint: keeps 'row' of its input 'bag' after process has returned, when its memory is used "
        "again; keep a copy() instead"
    )
    with pytest.raises(TaskError, match="MessageMisused: keeps 'row' of its input 'bag'"):
        replayed(tmp_path, feed=["b"], debug_messages=True)


def test_a_difference_for_another_reason_has_no_hint(tmp_path):
    tasks = f"n=Numbers(limit: 3); {ARRAYS}; c=message_tasks.KeepsCopy; x=Scale"
    run(tmp_path, tasks, "n > b; b > c; n > x")
    first = replayed(tmp_path, config={"x.factor": 3}).first
    assert (first.task, first.hint) == ("x", "")


def test_an_error_of_a_task_counts_more_than_a_message_that_another_changed(tmp_path):
    tasks = f"n=Numbers(limit: 3); {ARRAYS}; o=message_tasks.Pokes; x=Boom(at: 1)"
    result = run(tmp_path, tasks, "n > b; n > o; n > x", debug=True)
    assert str(result.error) == "task 'x' failed in process, cycle 1: ValueError: cannot stand 1"


def test_what_a_task_changes_before_it_fails_is_put_back(tmp_path):
    result = run(
        tmp_path,
        "n=Numbers(limit: 1); b=message_tasks.Bag; p=message_tasks.PushesAndLeaves@on_error: skip; "
        "s=message_tasks.Sees",
        "n > b; b > p; b > s",
    )
    assert result.error is None
    assert values(tmp_path, "/b/bag")[0]["items"] == [0]
    assert values(tmp_path, "/s/out")[0]["value"].startswith("[0] ")


def test_two_tasks_that_keep_the_same_array_are_both_named(tmp_path):
    tasks = f"n=Numbers(limit: 3); {ARRAYS}; t=message_tasks.KeepsArray; u=message_tasks.KeepsArray"
    result = run(tmp_path, tasks, "n > b; b > t; b > u", debug=True)
    assert "keeps 'row' of its input 'bag'" in str(result.error)
    assert "used again (or u does); keep a copy() instead" in str(result.error)
