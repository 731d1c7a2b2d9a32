"""No cycle waits, what is dropped is counted, and what waits at the end is delivered."""

from __future__ import annotations

import threading

import pytest
from structlog.testing import capture_logs

from flowrun.runtime.context import ActorFunctions, CycleTime
from flowrun.runtime.task import Context
from flowrun.tasks.sinks.outbox import Complaints, Outbox


class Deliveries:
    """Takes items while the gate is open."""

    def __init__(self):
        self.gate = threading.Event()
        self.taken = []
        self.reached = threading.Event()

    def __call__(self, item):
        self.reached.set()
        self.gate.wait(30)
        if isinstance(item, Exception):
            raise item
        self.taken.append(item)


@pytest.fixture
def dropped():
    return []


@pytest.fixture
def ctx(tmp_path, dropped):
    import structlog

    return Context(
        "out",
        time=CycleTime(),
        log=structlog.get_logger(),
        graph_dir=tmp_path,
        seed=0,
        broadcast=None,
        actor=ActorFunctions(
            dropped=lambda count, cause: dropped.append((count, cause)),
            follows_live=lambda: True,
            end_run=lambda _: None,
        ),
    )


def test_the_oldest_is_dropped_counted_and_logged_once(ctx, dropped):
    takes = Deliveries()
    with capture_logs() as logs:
        outbox = Outbox(ctx, takes, most=2)
        outbox.put(0)
        assert takes.reached.wait(30)
        for item in range(1, 6):
            outbox.put(item)
        takes.gate.set()
        outbox.close(30)
        assert not outbox.is_alive
    assert takes.taken == [0, 4, 5]
    assert dropped == [(1, "queue full")] * 3
    assert [it["event"] for it in logs] == ["dropped: too many wait to be delivered"]


def test_where_it_may_wait_nothing_is_dropped(ctx, dropped):
    takes = Deliveries()
    takes.gate.set()
    outbox = Outbox(ctx, takes, most=1, waits=lambda: True)
    for item in range(50):
        outbox.put(item)
    outbox.close(30)
    assert takes.taken == list(range(50))
    assert dropped == []


def test_what_is_left_at_the_end_is_counted(ctx, dropped):
    takes = Deliveries()
    with capture_logs() as logs:
        outbox = Outbox(ctx, takes, most=9)
        for item in range(3):
            outbox.put(item)
        assert takes.reached.wait(30)
        outbox.close(0.01)
        assert outbox.is_alive
        takes.gate.set()
    assert dropped == [(3, "end of the run")]
    assert logs[0]["event"] == "not delivered before the end of the run"


def test_an_error_is_raised_by_the_next_put_once_and_others_are_delivered(ctx):
    takes = Deliveries()
    takes.gate.set()
    outbox = Outbox(ctx, takes, most=9)
    outbox.put(OSError("full"))
    while outbox._error is None:
        threading.Event().wait(0.001)
    with pytest.raises(OSError, match="full"):
        outbox.put(1)
    outbox.put(2)
    outbox.close(30)
    assert takes.taken == [1, 2]


def test_of_several_errors_the_first_is_raised_and_others_are_logged(ctx):
    takes = Deliveries()
    with capture_logs() as logs:
        outbox = Outbox(ctx, takes, most=9)
        outbox.put(OSError("first"))
        outbox.put(OSError("second"))
        takes.gate.set()
        with pytest.raises(OSError, match="first"):
            outbox.close(30)
    assert [(it["event"], it["error"]) for it in logs] == [
        ("failed again before the next cycle", "OSError: second")
    ]


def test_an_error_of_the_last_is_raised_at_the_end(ctx):
    takes = Deliveries()
    takes.gate.set()
    outbox = Outbox(ctx, takes, most=9)
    outbox.put(OSError("full"))
    with pytest.raises(OSError, match="full"):
        outbox.close(30)


def test_the_same_complaint_is_logged_once_in_ten_seconds(ctx, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("flowrun.tasks.sinks.outbox.monotonic_s", lambda: now[0])
    with capture_logs() as logs:
        said = Complaints(ctx)
        for _ in range(4):
            said.say("gone", host="a")
        said.say("other")
        now[0] += 10
        said.say("gone", host="a")
    assert [(it["event"], it.get("times")) for it in logs] == [
        ("gone", None),
        ("other", None),
        ("gone", 4),
    ]
