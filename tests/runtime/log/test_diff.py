from __future__ import annotations

import json

import msgpack
import pytest

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.links.fake import FakeNetwork
from flowrun.runtime.log.diff import LogDifference, _measured, compare_logs
from flowrun.runtime.log.message import Topic
from flowrun.runtime.log.reader import Log
from flowrun.runtime.run.live import Run
from support.helpers import plan_of, record
from support.link_processes import Pair
from support.log_bytes import Builder
from support.pictures import record_pictures


def compare(first, second, **options):
    with Log(first) as one, Log(second) as other:
        return compare_logs(one, other, **options)


def run_of(tmp_path, name, tasks="n=Numbers(limit: 6); x=Scale; z=Noise", cnx="n > x; n > z"):
    record(plan_of(tmp_path, tasks, cnx), tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("times", [False, True])
def test_two_runs_of_the_same_are_identical(tmp_path, times):
    found = compare(run_of(tmp_path, "a"), run_of(tmp_path, "b"), times=times)
    assert found.difference is None
    assert found.identical == 19  # 6 of each task, and the end of the source


def test_the_first_difference_has_cycle_task_field_and_both_values(tmp_path):
    other = "n=Numbers(limit: 6); x=Scale(factor: 11); z=Noise"
    found = compare(run_of(tmp_path, "a"), run_of(tmp_path, "b", other))
    assert found.identical == 4  # the cycle 0 of all, where 0 * 11 is 0 * 10; the number of cycle 1
    assert found.difference.text(first="runs/a", second="runs/b") == (
        "cycle 1, task 'x', port 'scaled', field 'value':\n  runs/a: 10\n  runs/b: 11"
    )


def test_a_run_that_ends_earlier_lacks_a_message(tmp_path):
    shorter = run_of(tmp_path, "b", "n=Numbers(limit: 4); x=Scale; z=Noise")
    found = compare(run_of(tmp_path, "a"), shorter)
    assert found.difference.text() == (
        "cycle 4, task 'n', port 'number':\n  first: a message of 8 bytes\n  second: no message"
    )
    found = compare(shorter, tmp_path / "a")
    assert found.difference.text() == (
        "cycle 4, topic /flowrun/control:\n  first: a message of 52 bytes\n  second: no message"
    )


def test_measured_fields_are_not_compared(tmp_path):
    first = record_pictures(tmp_path, run="a", reading="took_ms: 1.0")
    second = record_pictures(tmp_path, run="b", reading="took_ms: 2.0")
    found = compare(first, second, times=True)
    assert (found.difference, found.identical) == (None, 11)


def received(folder, *, clock_ns=0, quiet=0):
    """The log of a partition that got one message.

    clock_ns: by how much its sender's clock is wrong. quiet: cycles of the sender before it.
    """
    pair = Pair(FakeNetwork(), folder)
    pair.sender.begin(clock_ns=clock_ns)
    pair.receiver.begin()
    for _ in range(quiet):
        pair.sender.make(())
    pair.sender.make((0,))
    for _ in range(5):
        pair.step(500)
    pair.sender.kill()
    pair.receiver.kill()
    assert len(pair.receiver.got()) == 1
    return pair.receiver.path


def test_the_run_that_sent_is_compared_with_the_times(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
    first = received(tmp_path / "a")
    second = received(tmp_path / "b", clock_ns=7)
    third = received(tmp_path / "c", quiet=2)
    assert compare(first, second).difference is None
    assert compare(first, second, times=True).difference is not None
    assert compare(first, third).difference.topic.name == "/from_dock/origin"


def test_arrays_are_described(tmp_path):
    first = record_pictures(tmp_path, run="a")
    second = record_pictures(tmp_path, "changes_at: 2", run="b")
    assert compare(first, second).difference.text() == (
        "cycle 2, task 'c', port 'image', field 'pixels':\n"
        "  first: uint8 [48, 64, 3]\n  second: uint8 [48, 32, 3]"
    )


def test_times_are_compared_when_asked(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers(limit: 3)")
    Run(plan, clock=ManualClock(1000, step_ns=10), directory=tmp_path / "a").run()
    Run(plan, clock=ManualClock(1000, step_ns=20), directory=tmp_path / "b").run()
    assert compare(tmp_path / "a", tmp_path / "b").difference is None
    with Log(tmp_path / "a") as one, Log(tmp_path / "b") as other:
        times = one[0].time_ns, other[0].time_ns
        assert compare_logs(one, other, times=True).difference.text() == (
            f"cycle 0, task 'n', port 'number', field 'time_ns':\n"
            f"  first: {times[0]}\n  second: {times[1]}"
        )


def built(path, *cycles):
    """A log of these cycles: of each its number, time and (channel, tov_ns, payload)."""
    builder = Builder()
    for number, time_ns, messages in cycles:
        builder.cycle(number, time_ns, messages)
    path.write_bytes(builder.leave_open().data)
    return path


def packed(**fields):
    return msgpack.packb(fields)


def test_topics_of_a_cycle_are_compared_by_name(tmp_path):
    one = (1, 5, packed(a=1))
    other = (2, 5, packed(b=1))
    first = built(tmp_path / "a", (0, 10, [one, other]), (1, 11, [one, other, one]))
    second = built(tmp_path / "b", (0, 10, [other, one]), (1, 11, [one, one, other]))
    found = compare(first, second, times=True)
    assert (found.difference, found.identical) == (None, 5)


def text_of(first, second, **options):
    found = compare(first, second, **options)
    return found.identical, found.difference and found.difference.text()


def test_a_message_more_or_less_is_a_difference(tmp_path):
    one, long = (1, 5, packed(a=1)), (1, 5, packed(a=100_000))
    first = built(tmp_path / "a", (0, 10, [one]), (2, 12, [one, one]))
    second = built(tmp_path / "b", (0, 10, [one]), (2, 12, [one, one, long]))
    assert text_of(first, second) == (
        3, "cycle 2, task 'cam', port 'image':\n  first: no message\n  second: a message of 8 bytes",
    )  # fmt: skip
    assert text_of(second, first) == (
        3, "cycle 2, task 'cam', port 'image':\n  first: a message of 8 bytes\n  second: no message",
    )  # fmt: skip


def test_a_cycle_that_one_log_lacks_is_a_difference(tmp_path):
    one = (1, 5, packed(a=1))
    first = built(tmp_path / "a", (0, 10, [one]), (1, 11, [one]), (2, 12, [one]))
    second = built(tmp_path / "b", (0, 10, [one]), (2, 12, [one]))
    third = built(tmp_path / "c", (1, 11, [one]))
    missing = "task 'cam', port 'image':\n  first: {}\n  second: {}"
    there = "a message of 4 bytes", "no message"
    assert text_of(first, second) == (1, f"cycle 1, {missing.format(*there)}")
    assert text_of(second, first) == (1, f"cycle 1, {missing.format(*there[::-1])}")
    assert text_of(third, second) == (0, f"cycle 0, {missing.format(*there[::-1])}")
    assert text_of(second, third) == (0, f"cycle 0, {missing.format(*there)}")


def test_cycles_without_messages_are_no_difference(tmp_path):
    one = (1, 5, packed(a=1))
    first = built(tmp_path / "a", (0, 10, []), (1, 11, [one]), (2, 12, []))
    second = built(tmp_path / "b", (1, 11, [one]))
    assert text_of(first, second, times=True) == (1, None)


def test_times_differ_by_cycle_or_by_message(tmp_path):
    first = built(tmp_path / "a", (0, 10, [(1, 5, packed(a=1))]))
    later = built(tmp_path / "b", (0, 11, [(1, 5, packed(a=1))]))
    valid = built(tmp_path / "c", (0, 10, [(1, 6, packed(a=1))]))
    where = "cycle 0, task 'cam', port 'image', field"
    assert text_of(first, later, times=True) == (
        0,
        f"{where} 'time_ns':\n  first: 10\n  second: 11",
    )
    assert text_of(first, valid, times=True) == (0, f"{where} 'tov_ns':\n  first: 5\n  second: 6")
    assert text_of(first, later) == text_of(first, valid) == (1, None)


def test_payloads_that_cannot_be_decoded_differ_by_their_bytes(tmp_path):
    first = built(tmp_path / "a", (0, 10, [(1, 5, b"\xc1")]))
    second = built(tmp_path / "b", (0, 10, [(1, 5, b"\xc1\xc1")]))
    assert text_of(first, first) == (1, None)
    assert text_of(first, second) == (
        0, "cycle 0, task 'cam', port 'image':\n  first: 1 bytes\n  second: 2 other bytes",
    )  # fmt: skip


def test_what_has_been_compared_is_shown(tmp_path):
    first = built(tmp_path / "a", *((it, 10 + it, [(1, 5, packed(a=it))]) for it in range(3)))
    shown = []
    assert compare(first, first, progress=shown.append).identical == 3
    assert shown == [10, 11, 12]


@pytest.mark.parametrize(
    ("encoding", "schema", "measured"),
    [
        (
            "jsonschema",
            {"properties": {"a": {"description": "A measurement of the run, in ms"}}},
            "a",
        ),
        ("jsonschema", {"properties": {"a": {"description": "A number"}, "b": {}}}, ""),
        ("other", {"properties": {"a": {"description": "A measurement of the run"}}}, ""),
        ("jsonschema", {"properties": {"a": 3}}, ""),
        ("jsonschema", {"properties": 3}, ""),
        ("jsonschema", {}, ""),
        ("jsonschema", 3, ""),
    ],
)
def test_measured_fields_are_those_that_the_schema_calls_so(encoding, schema, measured):
    topic = Topic("/a/b", "msgpack", "Any", encoding, json.dumps(schema).encode(), {})
    assert _measured(topic) == frozenset(measured)


def test_a_topic_of_no_task_is_named_by_itself():
    for metadata, where in (
        ({"task": "t", "port": "p"}, "task 't', port 'p'"), ({"task": "t"}, "topic /a/b"),
        ({"port": "p"}, "topic /a/b"), ({}, "topic /a/b"),
    ):  # fmt: skip
        topic = Topic("/a/b", "msgpack", "Any", "jsonschema", b"", metadata)
        text = LogDifference(7, topic, "f", "1", "2").text(first="x", second="y")
        assert text == f"cycle 7, {where}, field 'f':\n  x: 1\n  y: 2"
