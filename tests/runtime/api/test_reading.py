"""Messages of a run whose log stops, begins again, keeps its end only, or ends before the run does."""

from __future__ import annotations

import threading
import urllib.request

import pytest

from flowrun.msgs import IntMsg
from flowrun.runtime.api.graph import Graph
from flowrun.runtime.errors import LogError, UsageError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.task import Context, Input, Task
from flowrun.tasks.basic import Counter, Square
from support.helpers import Hooked, until

LIMIT_S = 60


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def hooked(hook, limit, **sections):
    Hooked.hook = hook
    g = Graph("squares", **sections)
    g.connect(g.add(Hooked, limit=limit), g.add(Square))
    return g


@pytest.mark.long
def test_a_reader_goes_on_with_the_log_that_was_begun_again():
    reached, go = [threading.Event() for _ in range(3)], [threading.Event() for _ in range(3)]

    def hook(number):
        if number in (10, 20):
            reached[number // 10 - 1].set()
            go[number // 10 - 1].wait(LIMIT_S)

    with hooked(hook, 30).start() as live:
        found = live.messages("square")
        reached[0].wait(LIMIT_S)
        done = threading.Thread(target=live.record, args=(False,))
        done.start()
        until(lambda: live._run.executor._handover is not None)
        go[0].set()
        done.join(LIMIT_S)
        reached[1].wait(LIMIT_S)
        done = threading.Thread(target=live.record, args=(True,))
        done.start()
        until(lambda: live._run.executor._handover is not None)
        go[1].set()
        done.join(LIMIT_S)
        values = [it.value for it in found]
        live.wait(LIMIT_S)
    assert values[:10] == [n * n for n in range(10)]
    assert values[-5:] == [n * n for n in range(25, 30)]
    assert len(values) < 30


def test_a_reader_of_what_is_not_logged_has_a_queue():
    ready = threading.Event()
    Hooked.hook = lambda _: ready.wait(LIMIT_S)
    g = Graph()
    g.connect(g.add(Hooked, limit=40), g.add(Square, logging={"enabled": False}))
    with g.start() as live:
        found = live.messages("square")
        ready.set()
        assert [it.value for it in found] == [n * n for n in range(40)]
        assert found.left_out == 0
        assert live.latest("square") is None


def test_a_log_that_ends_before_its_run_is_an_error(monkeypatch):
    def hook(number):
        if number == 20:
            monkeypatch.setattr(live._run.writer, "commit", full)

    def full(*args, **kwargs):
        raise LogError("no room")

    ready = threading.Event()
    g = hooked(
        lambda number: (ready.wait(LIMIT_S), hook(number)), 40, logging={"on_error": "continue"}
    )
    live = g.start()
    ready.set()
    with pytest.raises(LogError, match="no room"):
        list(live.messages("square"))
    with pytest.raises(LogError, match="no room"):
        live.wait(LIMIT_S)
    assert live.report().cycles >= 40


class Reads(Task):
    live = None

    def process(self, ctx: Context, number: Input[IntMsg]) -> None:
        assert Reads.live is not None
        for call in (Reads.live.wait, lambda: Reads.live.messages("counter")):
            with pytest.raises(UsageError, match="a task cannot"):
                call()
        Reads.live.stop()


def test_a_task_can_stop_its_run_and_neither_wait_for_it_nor_read_it(monkeypatch):
    g = Graph()
    g.connect(g.add(Counter, config={"rate_hz": 50}), g.add(Reads))
    ready = threading.Event()
    monkeypatch.setattr(Reads, "start", lambda *_: ready.wait(LIMIT_S))
    Reads.live = g.start()
    ready.set()
    assert Reads.live.wait(LIMIT_S).reason == "stop()"


@pytest.mark.long
def test_its_page_is_served_while_it_goes_on():
    g = Graph("squares")
    g.connect(g.add(Counter, config={"rate_hz": 100}), g.add(Square))
    with g.start(port=0) as live:
        live.latest("square", timeout_s=LIMIT_S)
        with urllib.request.urlopen(f"{live.url}api/v0/report") as reply:
            assert b'"cycles"' in reply.read()
    with pytest.raises(OSError), urllib.request.urlopen(live.url):
        pass


@pytest.mark.long
def test_a_late_reader_of_a_flight_recorder_gets_what_that_has_kept():
    section = {"mode": "ring", "keep_slabs": 2, "slab_size_mib": 1, "section_size_mib": 1}
    g = Graph(logging=section)
    size = {"width": 320, "height": 240}
    g.add("VideoCapture", id="cam", source_type="test", logging={"codec": "raw"}, config=size)
    with g.start(cycles=60) as live:
        found = live.messages("cam.image")
        live.wait(LIMIT_S)
        with Log(live.directory) as log:
            kept = [it.tov_ns for it in log["cam"]]
        assert 0 < len(kept) < 60
        assert [it.tov_ns for it in found] == kept
