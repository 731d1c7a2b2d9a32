"""A log read while it is written: what a reader that follows it sees, and when it ends."""

from __future__ import annotations

import itertools
import threading

import pytest

from flowrun.msgs import BytesMsg, IntMsg
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.log import scan as log_scan
from flowrun.runtime.log.channels import LoggedOutput
from flowrun.runtime.log.files import LogFiles
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.writer import LogWriter
from flowrun.runtime.run.live import Run
from support import torture
from support.helpers import Hooked, plan_of

META = {"format": "1", "run_id": "run", "graph": "g"}
END = {"reason": "end of sources", "cycles": "0", "ended_ns": "1"}


class Writer:
    """A run's writer that commits a cycle at a time."""

    def __init__(self, directory, **sizes):
        outputs = [
            LoggedOutput("n", "number", "/n/number", IntMsg),
            LoggedOutput("b", "data", "/b/data", BytesMsg),
        ]
        self.number, self.data = IntMsg(), BytesMsg()
        self.log = LogWriter(directory, outputs=outputs, steps=2, metadata=META, **sizes)
        self.bound = self.log.bind([self.number, self.data])
        self.cycle = 0

    def commit(self, *, size=0):
        self.number.value = self.cycle
        self.number.publish(tov_ns=self.cycle)
        self.data.clear()
        if size:
            self.data.value = bytes([self.cycle % 256]) * size
            self.data.publish(tov_ns=self.cycle)
        now_ns = 1000 + 10 * self.cycle
        self.log.commit(self.cycle, now_ns, self.bound, start_ns=0, ends_ns=[1, 2], events=[])
        self.cycle += 1


@pytest.fixture
def writer(tmp_path):
    made = Writer(tmp_path / "run", slab_size_mib=24, section_size_mib=1)
    made.commit()
    yield made
    made.log.finish(END)


def test_cycles_committed_since_are_given_one_by_one(writer, tmp_path):
    with Log(tmp_path / "run", follow=True, timeout_s=30) as log:
        cycles = iter(log)
        assert next(cycles).cycle == 0
        for number in range(1, 200):
            writer.commit()
            assert next(cycles).cycle == number


def test_new_chunks_sections_and_slabs_are_seen(writer, tmp_path):
    """Each cycle of 1.5 MiB makes a section; six a chunk of 8 MiB; sixteen a slab."""
    with Log(tmp_path / "run", follow=True, timeout_s=30) as log:
        messages = log.messages("/b/data")
        for number in range(1, 41):
            writer.commit(size=3 << 19)
            message = next(messages)
            assert (message.cycle, len(message.payload)) == (number, (3 << 19) + 12)
            assert message.fields["value"][-1] == number
        assert len(log.slabs) > 2
        assert log.loss is None


def test_a_reader_keeps_up_with_a_flight_recorder(tmp_path):
    writer = Writer(tmp_path / "run", slab_size_mib=2, section_size_mib=1, keep_slabs=2)
    writer.commit()
    with Log(tmp_path / "run", follow=True, timeout_s=30) as log:
        cycles = iter(log)
        assert next(cycles).cycle == 0
        for number in range(1, 60):
            writer.commit(size=1 << 18)
            assert next(cycles).cycle == number
        assert not (tmp_path / "run" / "log_0000.mcap").exists()
        assert len(log.slabs) < 5
        assert log.loss is None
        last = len(log.slabs)
        for _ in range(60):
            writer.commit(size=1 << 18)
        rest = [next(cycles).cycle]
        while rest[-1] < 119:
            rest.append(next(cycles).cycle)
        assert len(rest) < 59
        assert rest == sorted(set(rest))
        assert "was removed before it was read" in log.loss
        assert len(log.slabs) <= last + 3
    writer.log.finish(END)


def test_it_ends_with_the_run(tmp_path):
    writer = Writer(tmp_path / "run")
    for _ in range(3):
        writer.commit()
    with Log(tmp_path / "run", follow=True) as log:
        cycles = iter(log)
        assert [next(cycles).cycle for _ in range(3)] == [0, 1, 2]
        writer.commit()
        writer.log.finish(END)
        assert [record.cycle for record in cycles] == [3]
        assert log.finished
        assert log.end == END
        assert log.loss is None


def test_it_ends_when_its_writer_is_dead(writer, tmp_path):
    copy = tmp_path / "copy"  # unfinished, and nobody holds its lock
    copy.mkdir()
    (copy / "log_0000.mcap").write_bytes((tmp_path / "run" / "log_0000.mcap").read_bytes())
    (copy / ".lock").touch()
    with Log(copy, follow=True) as log:
        assert [record.cycle for record in log] == [0]
        assert not log.finished


def test_it_ends_when_nothing_comes_for_timeout_s(writer, tmp_path):
    with Log(tmp_path / "run", follow=True, timeout_s=0.05) as log:
        assert [record.cycle for record in log] == [0]
        writer.commit()
        assert [record.cycle for record in log] == [0, 1]


def test_bounds_end_it_too(writer, tmp_path):
    writer.commit()
    writer.commit()
    with Log(tmp_path / "run", follow=True) as log:
        assert [record.cycle for record in log.cycles(0, 3)] == [0, 1, 2]
        assert [record.cycle for record in log.cycles(1, 2)] == [1]
        assert [record.cycle for record in log.cycles(start_ns=1010, end_ns=1020)] == [1]


def test_access_by_number_and_tables_wait_for_nothing(writer, tmp_path):
    with Log(tmp_path / "run", follow=True) as log:
        writer.commit()
        assert log[1].cycle == 1
        assert log.table("/n/number")["value"].tolist() == [0, 1]


def test_without_follow_a_log_ends_where_it_is(writer, tmp_path):
    with Log(tmp_path / "run") as log:
        assert [record.cycle for record in log] == [0]


def test_a_live_run_is_followed_whole(tmp_path):
    plan = plan_of(tmp_path, "n=Hooked(limit: 300); x=Scale", "n > x")
    begun, go = threading.Event(), threading.Event()

    def hook(number):
        if number == 10:
            begun.set()
            assert go.wait(30)

    Hooked.hook = hook
    run = Run(plan, clock=ManualClock(1, step_ns=10), directory=tmp_path / "run")
    thread = threading.Thread(target=run.run)
    thread.start()
    try:
        assert begun.wait(30)
        with Log(tmp_path / "run", follow=True, timeout_s=30) as log:
            messages = log.messages("/x/scaled")
            first = [next(messages).fields["value"] for _ in range(5)]
            go.set()
            rest = [message.fields["value"] for message in messages]
            assert first + rest == list(range(0, 3000, 10))
            assert log.loss is None
    finally:
        go.set()
        thread.join()


def test_the_time_without_anything_new_begins_again_with_each_cycle(tmp_path, monkeypatch):
    """A clock of the test's: a second goes by whenever it is read, and after five a cycle comes."""
    cycles = torture.Cycles(tmp_path / "run", largest=40)
    cycles.commit()
    seconds, looks = itertools.count(), itertools.count(1)
    monkeypatch.setattr(log_scan, "ticks_ns", lambda: next(seconds) * 10**9)

    def lives(_files):
        if next(looks) % 5 == 0 and cycles.next < 4:
            cycles.commit()
        return True

    monkeypatch.setattr(LogFiles, "writer_lives", lives)
    with Log(tmp_path / "run", follow=True, timeout_s=9) as log:
        assert [cycle.cycle for cycle in log.cycles()] == [0, 1, 2, 3]
    cycles.writer.finish({"reason": "test"})


def followed(tmp_path, monkeypatch, *, ticks, **options):
    """What a follower gets of one cycle, how often it looks, and waits, by a clock of these ticks."""
    cycles = torture.Cycles(tmp_path / "run", largest=40, sync_s=None)
    cycles.commit()
    seen = iter(ticks)
    looks, waits = [], []
    monkeypatch.setattr(log_scan, "ticks_ns", lambda: next(seen))

    def lives(_files):
        looks.append(1)
        return len(looks) < 5

    monkeypatch.setattr(LogFiles, "writer_lives", lives)
    monkeypatch.setattr(threading.Event, "wait", lambda _, seconds: waits.append(seconds))
    with Log(tmp_path / "run", follow=True, **options) as log:
        found = [cycle.cycle for cycle in log.cycles()]
    monkeypatch.undo()
    cycles.writer.finish({"reason": "test"})
    return found, len(looks), waits


@pytest.mark.parametrize(
    ("passed", "looks"), [([2_000_000_000], 0), ([1_999_999_999, 2_000_000_000], 1)]
)
def test_it_ends_when_the_time_without_anything_new_has_passed(
    tmp_path, monkeypatch, passed, looks
):
    ticks = [0, 1000, *(1000 + it for it in passed)]
    found = followed(tmp_path, monkeypatch, ticks=ticks, timeout_s=2)
    assert found == ([0], looks, [0.02] * looks)


def test_it_reads_once_more_when_its_writer_has_died(tmp_path, monkeypatch):
    """And asks no clock where it waits for ever."""
    found = followed(tmp_path, monkeypatch, ticks=[0, 1])
    assert found == ([0], 5, [0.02] * 4)


def test_bounds_by_time_end_it_at_the_first_cycle_after_them(writer, tmp_path):
    for _ in range(4):
        writer.commit()
    with Log(tmp_path / "run", follow=True) as log:
        assert [it.cycle for it in log.cycles(end_ns=1030)] == [0, 1, 2]
        assert [it.cycle for it in log.cycles(start_ns=1010, end_ns=1031)] == [1, 2, 3]
        assert [it.cycle for it in log.cycles(2, 4)] == [2, 3]
        assert list(log.cycles(3, 3)) == []


def test_a_slab_that_vanished_when_all_of_it_was_read_is_no_loss(tmp_path):
    writer = Writer(tmp_path / "run")
    writer.commit()
    with Log(tmp_path / "run", follow=True, timeout_s=30) as log:
        cycles = iter(log)
        for number in range(1, 4):
            assert next(cycles).cycle == number - 1
            log._files.vanished = tmp_path / "run" / "log_0009.mcap"
            writer.commit()
        assert next(cycles).cycle == 3
        assert log._files.vanished is None
        assert log.loss is None
