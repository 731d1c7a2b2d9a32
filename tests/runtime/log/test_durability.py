"""What is brought to the disk and when, and what is noticed while no cycle comes."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import ClassVar

import pytest

from flowrun.msgs import BytesMsg, IntMsg
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.errors import LogError, LogFull, LogInUse, LogNotFound
from flowrun.runtime.log import writer as log_writer
from flowrun.runtime.log.check import check_log
from flowrun.runtime.log.lock import ahead_path, is_locked, take_lock
from flowrun.runtime.log.message import LateLines
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.recover import recover
from flowrun.runtime.log.slab import disk
from flowrun.runtime.log.slab.writer import Slab
from flowrun.runtime.log.writer import LogWriter
from flowrun.runtime.run.live import Run
from support import independent_reader, torture
from support.helpers import START_NS, plan_of
from support.log_writing import commit, payload, writer_of
from support.paths import TESTS

SMALL = "logging: {{slab_size_mib: 1, section_size_mib: 1, sync_s: 0.02, on_error: {}}}"


def failing(code):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    return fail


def wait_for(condition):
    """Until `condition` holds; a look of the log's own threads comes at every 0.4 s."""
    waiting = threading.Event()
    for _ in range(3000):
        if condition():
            return
        waiting.wait(0.01)
    raise AssertionError("it did not come")


def fill(cycles):
    while True:
        cycles.commit()


# -- in which order ------------------------------------------------------------------------------


def test_a_log_is_on_the_disk_before_its_first_cycle_and_after_its_last(tmp_path, monkeypatch):
    asked = []
    run = tmp_path / "runs" / "run"

    def noted(name, real):
        def call(first, *rest):
            where = str(Path(f"/proc/self/fd/{first}").readlink()) if not rest else None
            asked.append((name, where, *rest))
            real(first, *rest)

        return call

    for name in ("sync_pages", "sync_file", "sync_directory"):
        monkeypatch.setattr(disk, name, noted(name, getattr(disk, name)))
    message = IntMsg(value=1)
    writer = writer_of(run, IntMsg, sync_s=None)
    parents = [("sync_directory", str(path)) for path in (tmp_path, tmp_path / "runs")]
    assert asked[:2] == parents
    made = [("sync_directory", str(run))] * 2  # with the slab's first name, and its last
    assert [it for it in asked[2:] if it[0] != "sync_pages"] == made
    pages = [it[2:] for it in asked if it[0] == "sync_pages"]
    assert (pages[0][1] - pages[0][0], pages[1][0]) == (50, 0)  # the trailer, what comes first
    asked.clear()
    bound = writer.bind([message])
    message.publish(tov_ns=1)
    commit(writer, bound, 0)
    assert asked == []
    writer.finish({"reason": "test"})
    names = [it[:2] for it in asked]
    slab = str(run / "log_0000.mcap")
    assert names == [
        ("sync_pages", None), ("sync_file", slab), ("sync_directory", str(run)),
    ]  # fmt: skip


def test_a_sync_writes_what_is_committed_and_not_what_is_prepared(tmp_path, monkeypatch):
    message = BytesMsg(value=payload(0, 5000))
    writer = writer_of(tmp_path / "run", BytesMsg, sync_s=None)
    bound = writer.bind([message])
    message.publish(tov_ns=0)
    commit(writer, bound, 0)
    asked = []
    monkeypatch.setattr(disk, "sync_pages", lambda _, start, end: asked.append((start, end)))
    writer.sync()
    writer.sync()  # nothing has come since
    assert len(asked) == 2
    assert asked[1] == (0, writer._slabs.slab.position + 9)
    writer.finish({"reason": "test"})


# -- what the disk did not take ------------------------------------------------------------------


def sync_and_finish(writer):
    writer.sync()
    writer.finish({"reason": "test"})


@pytest.mark.parametrize("name", ["sync_pages", "sync_directory", "sync_file"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_what_the_disk_does_not_take_is_an_error_of_the_log(tmp_path, monkeypatch, name, code):
    cycles = torture.Cycles(tmp_path / "run", largest=3000, sync_s=None)
    while not (tmp_path / "run" / "log_0001.mcap").exists():
        cycles.commit()
    cycles.commit()
    with monkeypatch.context() as patch:
        patch.setattr(disk, name, failing(code))
        with pytest.raises(LogError) as caught:
            sync_and_finish(cycles.writer)
    assert os.strerror(code) in str(caught.value)
    assert isinstance(caught.value, LogFull) == (code == errno.ENOSPC)
    assert torture.read(tmp_path / "run", 3000)[0] == list(range(cycles.next))


def silent_run(tmp_path, on_error):
    """A run whose sources give three messages, then nothing, until it is stopped."""
    plan = plan_of(
        tmp_path, "n=Numbers(limit: 3); i=Idle; x=Scale", "n > x", SMALL.format(on_error)
    )
    return Run(plan, clock=ManualClock(START_NS), directory=tmp_path / "runs" / "run")


@pytest.mark.parametrize("on_error", ["stop", "continue"])
@pytest.mark.parametrize("fault", ["disk", "directory", "slab", "cut"])
def test_a_run_whose_source_is_silent_notices_what_becomes_of_its_log(
    tmp_path, monkeypatch, on_error, fault
):
    running = silent_run(tmp_path, on_error)
    slab = tmp_path / "runs" / "run" / "log_0000.mcap"
    results = []
    thread = threading.Thread(target=lambda: results.append(running.run()))
    thread.start()
    wait_for(lambda: running.executor.cycles >= 3)
    if fault == "disk":
        monkeypatch.setattr(disk, "sync_pages", failing(errno.EIO))
        running.writer.log_record(1, "info", "something to sync", "t", {})
        running.writer.write_lines()
        expected = f"{slab}: the disk did not take what was written to the log: Input/output error"
    elif fault == "cut":
        os.truncate(slab, 0)
        expected = (
            f"{slab}: another program cut it to 0 bytes while it was written: what came after is "
            "lost"
        )
    else:
        shutil.rmtree(slab.parent) if fault == "directory" else slab.unlink()
        expected = f"{slab}: the log was removed while it was written"
    if on_error == "continue":
        wait_for(lambda: running._recording.error is not None)
        running.stop("the test")
    thread.join(30)
    [result] = results
    assert str(result.error if on_error == "stop" else result.log_error) == expected
    assert result.reason == ("error" if on_error == "stop" else "the test")


def test_a_removed_earlier_slab_is_noticed(tmp_path):
    cycles = torture.Cycles(tmp_path / "run", largest=3000, sync_s=None)
    while not (tmp_path / "run" / "log_0002.mcap").exists():
        cycles.commit()
    (tmp_path / "run" / "log_0000.mcap").unlink()
    wait_for(lambda: cycles.writer._failure is not None)
    with pytest.raises(LogError) as caught:
        cycles.commit()
    assert str(caught.value) == (
        f"{tmp_path}/run/log_0000.mcap: was removed while the run was logged"
    )
    cycles.writer.finish({"reason": "test"})


def test_a_next_slab_that_is_removed_before_it_begins_is_reported(tmp_path, monkeypatch):
    run = tmp_path / "run"
    begin = Slab.begin

    def removed(slab):
        if slab.path.name == "log_0001.mcap":
            ahead_path(slab.path).unlink()
        begin(slab)

    monkeypatch.setattr(Slab, "begin", removed)
    cycles = torture.Cycles(run, largest=3000, sync_s=None)
    with pytest.raises(LogError) as caught:
        fill(cycles)
    expected = f"{run}/log_0001.mcap: cannot create the log: No such file or directory"
    assert str(caught.value) == expected
    cycles.writer.finish({"reason": "test"})


def test_a_process_ends_though_nobody_closed_its_log(tmp_path):
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(TESTS)!r})
from support import torture
cycles = torture.Cycles(Path({str(tmp_path / "run")!r}), largest=3000)
for _ in range(20):
    cycles.commit()
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=240)
    assert done.returncode == 0
    with Log(tmp_path / "run") as log:
        assert len(list(log.cycles())) == 20


def test_a_disk_that_is_too_slow_is_reported(tmp_path, monkeypatch):
    took = []
    slow = threading.Event()
    monkeypatch.setattr(disk, "sync_pages", lambda *_: slow.wait(0.02))
    cycles = torture.Cycles(tmp_path / "run", largest=40, sync_s=0.01, on_slow_sync=took.append)
    wait_for(lambda: cycles.commit() or took)
    cycles.writer.finish({"reason": "test"})
    assert took[0] >= 0.04


def test_a_slab_is_finished_while_somebody_keeps_a_view_of_it(tmp_path):
    """As a watchdog does that looks at the frames of all threads while one of them closes a chunk."""
    cycles = torture.Cycles(tmp_path / "run", largest=3000, sync_s=None)
    cycles.commit()
    view = memoryview(cycles.writer._slabs.slab.mapping)
    cycles.writer.finish({"reason": "test"})
    assert view[:8] == b"\x89MCAP0\r\n"
    assert torture.read(tmp_path / "run", 3000) == ([0], None)


# -- at intervals --------------------------------------------------------------------------------


class ByHand:
    """What a `Periodic` would do, when the test says so."""

    made: ClassVar[dict[str, ByHand]] = {}

    def __init__(self, work, *, period_s, name):
        self.work, self.period_s = work, period_s
        self.stopped = 0
        self.made[name] = self

    def stop(self):
        self.stopped += 1


@pytest.fixture
def upkeep(monkeypatch):
    monkeypatch.setattr(log_writer, "Periodic", ByHand)
    ByHand.made = {}
    return ByHand.made


def test_a_log_is_looked_at_twice_a_second_and_synced_twice_in_its_time(tmp_path, upkeep):
    writer = writer_of(tmp_path / "run", sync_s=3.0)
    assert {name: it.period_s for name, it in upkeep.items()} == {
        "flowrun-log": 0.4,  # lines wait for two looks at most, so less than a second
        "flowrun-sync": 1.5,
    }
    writer.finish({"reason": "test"})
    assert [it.stopped for it in upkeep.values()] == [1, 1]
    upkeep.clear()
    writer_of(tmp_path / "other", sync_s=None).finish({"reason": "test"})
    assert list(upkeep) == ["flowrun-log"]


def test_lines_are_written_at_the_second_look_that_finds_them(tmp_path, upkeep):
    writer = writer_of(tmp_path / "run", sync_s=None)
    look = upkeep["flowrun-log"].work
    bound = writer.bind([])
    size = writer.size
    assert look()
    writer.log_record(5, "info", "first", "t", {})
    assert look()
    assert writer.size == size
    writer.log_record(6, "info", "second", "t", {})
    assert look()
    assert lines_of(tmp_path / "run") == [(0, "first"), (0, "second")]
    size = writer.size
    writer.log_record(7, "info", "third", "t", {})
    assert look()
    commit(writer, bound, 0)
    writer.log_record(8, "info", "fourth", "t", {})
    assert look()  # it has waited for no look before
    assert lines_of(tmp_path / "run")[2:] == [(0, "third")]
    assert look()
    assert lines_of(tmp_path / "run")[3:] == [(1, "fourth")]
    writer.finish({"reason": "test"})


def test_lines_that_a_cycle_takes_during_a_look_are_no_failure(tmp_path, upkeep):
    class Taken(deque):
        def __getitem__(self, _):
            self.clear()
            return super().__getitem__(0)

    writer = writer_of(tmp_path / "run", sync_s=None)
    writer._records = Taken(["a line"])
    assert upkeep["flowrun-log"].work()
    writer.check()
    writer.finish({"reason": "test"})


def test_the_third_late_sync_in_a_row_is_reported_once(tmp_path, monkeypatch, upkeep):
    """Late is one that ends more than `sync_s` after the one before has begun: what was committed right
    after that has waited for it."""
    times, waited = iter([0.0]), []
    monkeypatch.setattr(log_writer, "monotonic_s", lambda: next(times))
    writer = writer_of(tmp_path / "run", sync_s=2.0, on_slow_sync=waited.append)
    sync = upkeep["flowrun-sync"].work
    said, began = [], 0.0
    for until_s, took_s in [
        (1.0, 1.5), (1.5, 0.75), (1.0, 1.0), (1.0, 1.5), (1.5, 1.0), (1.5, 1.25), (2.5, 0.0), (1.0, 0.5),
        (1.0, 1.25), (2.25, 0.0), (2.0, 0.5),
    ]:  # fmt: skip
        began += until_s
        times = iter([began, began + took_s])
        assert sync()
        said.append(list(waited))
    assert said == [[]] * 5 + [[2.75]] * 4 + [[2.75]] + [[2.75, 2.5]]
    writer.finish({"reason": "test"})


def test_the_first_failure_ends_the_upkeep_and_stays(tmp_path, monkeypatch, upkeep):
    writer = writer_of(tmp_path / "run", sync_s=1.0)
    bound = writer.bind([])
    commit(writer, bound, 0)
    writer.check()
    with monkeypatch.context() as patch:
        patch.setattr(disk, "sync_pages", failing(errno.EIO))
        assert not upkeep["flowrun-sync"].work()
    (tmp_path / "run" / "log_0000.mcap").rename(tmp_path / "gone")
    assert not upkeep["flowrun-log"].work()
    for call in (writer.check, lambda: commit(writer, bound, 1)):
        with pytest.raises(LogError, match="Input/output error"):
            call()
    (tmp_path / "gone").rename(tmp_path / "run" / "log_0000.mcap")
    assert not upkeep["flowrun-log"].work()
    writer.finish({"reason": "test"})
    with Log(tmp_path / "run") as log:
        assert (len(log), log.end) == (1, {"reason": "test"})


def test_lines_that_fill_a_slab_go_on_in_the_next(tmp_path, upkeep):
    writer = writer_of(tmp_path / "run", slab_size_mib=1, sync_s=None)
    text = "x" * 100_000
    for number in range(15):
        writer.log_record(number, "info", text, str(number), {})
        writer.write_lines()
    writer.finish({"reason": "test"})
    with Log(tmp_path / "run") as log:
        found = [(m.tov_ns, m.fields["name"]) for m in log.messages()]
        assert found == [(number, str(number)) for number in range(15)]
        assert (len(log.slabs), len(log), log.loss) == (2, 0, None)
        assert check_log(log) == (0, 15, [])
        assert (log.start_ns, log.end_ns) == (None, None)


@pytest.mark.parametrize("started", [None, "123"])
def test_lines_before_the_first_cycle_have_the_time_of_the_start(tmp_path, upkeep, started):
    metadata = {"run_id": "x"} if started is None else {"run_id": "x", "started_ns": started}
    writer = LogWriter(
        tmp_path / "run",
        outputs=[],
        steps=0,
        metadata=metadata,
        slab_size_mib=1,
        section_size_mib=1,
    )
    bound = writer.bind([])
    writer.log_record(999, "info", "early", "t", {})
    writer.write_lines()
    writer.commit(7, 200, bound, start_ns=1, ends_ns=[], events=[])
    writer.log_record(999, "info", "late", "t", {})
    writer.write_lines()
    writer.finish({"reason": "test"})
    with Log(tmp_path / "run") as log:
        heads = list(log.slabs[0].cycles.heads(0))
    assert [(it.opcode, it.cycle, it.time_ns, it.message_count) for it in heads] == [
        (0x83, 0, int(started or 0), 1), (0x81, 7, 200, 1), (0x83, 8, 200, 1),
    ]  # fmt: skip


# -- a file system that does not preallocate -----------------------------------------------------


def test_without_preallocation_a_full_disk_is_an_error_and_the_log_is_finished(
    tmp_path, monkeypatch
):
    room = [40 << 20]

    def write_zeros(fd, start, end):
        room[0] -= end - start
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd, start, end)

    real = disk.write_zeros
    monkeypatch.setattr(disk, "preallocate", lambda *_: False)
    monkeypatch.setattr(disk, "write_zeros", write_zeros)
    cycles = torture.Cycles(tmp_path / "run", largest=90_000, slab_size_mib=64)

    def commit_for_ever():
        while True:
            cycles.commit()

    with pytest.raises(LogFull) as caught:
        commit_for_ever()
    slab = tmp_path / "run" / "log_0000.mcap"
    assert str(caught.value) == f"{slab}: the log cannot grow: No space left on device"
    # What was written is within the blocks that were taken, and so is what ends the slab.
    held = 512 * slab.stat().st_blocks
    assert 24 << 20 < cycles.writer.size < (40 << 20) - (7 << 20)
    cycles.writer.finish({"reason": "full"})
    assert slab.stat().st_size <= held
    assert torture.read(tmp_path / "run", 90_000) == (list(range(cycles.next)), None)


def test_without_preallocation_a_cycle_larger_than_a_slab_gets_one_of_its_own(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(disk, "preallocate", lambda *_: False)
    message = BytesMsg(value=payload(0, 9 << 20))
    writer = writer_of(tmp_path / "run", BytesMsg)
    bound = writer.bind([message])
    message.publish(tov_ns=0)
    commit(writer, bound, 0)
    writer.finish({"reason": "test"})
    with Log(tmp_path / "run") as log:
        assert [len(m.fields["value"]) for m in log.messages("/t0/out")] == [9 << 20]
        assert check_log(log)[2] == []


def test_a_sync_waits_until_the_slab_before_is_finished(tmp_path, monkeypatch):
    """Which brings the rest of that slab to the disk."""
    may_end = threading.Event()
    finish = Slab.finish

    def slow(slab, tail):
        assert may_end.wait(60)
        return finish(slab, tail)

    monkeypatch.setattr(Slab, "finish", slow)
    message = BytesMsg(value=payload(0, 200_000))
    writer = writer_of(tmp_path / "run", BytesMsg, sync_s=None)
    bound = writer.bind([message])
    message.publish(tov_ns=0)
    cycle = 0
    while not (tmp_path / "run" / "log_0001.mcap").exists():
        commit(writer, bound, cycle)
        cycle += 1
    syncing = threading.Thread(target=writer.sync)
    syncing.start()
    syncing.join(timeout=0.1)
    assert syncing.is_alive()
    may_end.set()
    syncing.join(timeout=240)
    assert not syncing.is_alive()
    writer.finish({"reason": "test"})


# -- log lines without a cycle -------------------------------------------------------------------


def lines_of(path):
    with Log(path) as log:
        assert log.loss is None
        return [(m.cycle, m.fields["message"]) for m in log.messages("/flowrun/log")]


def test_log_lines_are_in_the_file_though_no_cycle_comes(tmp_path):
    writer = writer_of(tmp_path / "run", IntMsg)
    for number in range(151):
        writer.log_record(number, "info", f"line {number}", "t", {})
    wait_for(lambda: not writer._records)
    with writer._lock:  # taken until they are written
        shutil.copytree(tmp_path / "run", tmp_path / "killed")
    expected = [(0, f"line {number}") for number in range(151)]
    assert lines_of(tmp_path / "killed") == expected
    report = recover(tmp_path / "killed")
    assert (report.lost, report.cycles) == (None, 0)
    assert lines_of(tmp_path / "killed") == expected
    writer.finish({"reason": "test"})


def test_log_lines_that_were_written_before_their_cycle_are_read_with_it(tmp_path):
    message = IntMsg(value=1)
    writer = writer_of(tmp_path / "run", IntMsg, sync_s=None)
    bound = writer.bind([message])
    message.publish(tov_ns=1)
    for cycle in range(3):
        for place in range(2):
            writer.log_record(cycle, "info", f"{cycle}.{place}", "t", {})
            writer.write_lines()
        writer.log_record(cycle, "info", f"{cycle}.2", "t", {})
        commit(writer, bound, cycle)
    writer.log_record(9, "info", "after", "t", {})
    writer.write_lines()
    writer.log_record(10, "info", "last", "t", {})
    writer.finish({"reason": "test"})
    path = tmp_path / "run"
    assert lines_of(path) == [
        *((cycle, f"{cycle}.{place}") for cycle in range(3) for place in range(3)),
        (3, "after"), (3, "last"),
    ]  # fmt: skip
    with Log(path) as log:
        assert len(log) == len(list(log)) == check_log(log)[0] == 3
        assert [it.cycle for it in log.records()] == [0, 1, 2, 3]
        assert [isinstance(it, LateLines) for it in log.records()] == [False] * 3 + [True]
        assert log.end_ns == log[2].time_ns
        with pytest.raises(LogNotFound, match="cycle 3 is not in the log"):
            _ = log[3]
        assert [cycle.cycle for cycle in log.cycles(1, 3)] == [1, 2]
        assert [topic for topic, _, _ in log[1].entries].count("/flowrun/log") == 3
        assert check_log(log)[2] == []
        [slab] = log.slabs
        expected = [
            (it.cycle, it.time_ns, [(topic, tov, bytes(data)) for topic, tov, data in it.entries])
            for it in log.records()
        ]
    found, damage = independent_reader.read(slab.path.read_bytes())
    assert damage is None
    assert [number for number, _, _ in found] == [0, 1, 2, 3]
    assert [(number, messages) for number, _, messages in found] == [
        (number, messages) for number, _, messages in expected
    ]


def test_a_follower_passes_over_no_cycle_whose_lines_came_before_it(tmp_path):
    message = IntMsg(value=1)
    writer = writer_of(tmp_path / "run", IntMsg, sync_s=None)
    bound = writer.bind([message])
    message.publish(tov_ns=1)
    commit(writer, bound, 0)
    writer.log_record(1, "info", "early", "t", {})
    writer.write_lines()
    with Log(tmp_path / "run", follow=True) as log:
        cycles = log.cycles()
        assert next(cycles).cycle == 0
        commit(writer, bound, 1)
        found = next(cycles)
        assert (found.cycle, len(found.entries)) == (1, 3)
        writer.finish({"reason": "test"})
        assert list(cycles) == []


def test_a_damaged_opcode_makes_no_lines_of_a_cycle(tmp_path):
    message = IntMsg(value=1)
    writer = writer_of(tmp_path / "run", IntMsg, sync_s=None)
    bound = writer.bind([message])
    message.publish(tov_ns=1)
    commit(writer, bound, 0)
    at = writer._slabs.slab.cycles[0]
    commit(writer, bound, 1)
    writer.finish({"reason": "test"})
    [path] = Path(tmp_path / "run").glob("*.mcap")
    data = bytearray(path.read_bytes())
    assert data[at] == 0x81
    data[at] = 0x83
    path.write_bytes(data)
    with Log(path) as log:
        assert list(log.cycles()) == []
        assert "has CRC" in log.loss


def test_too_many_waiting_log_lines_are_counted(tmp_path):
    writer = writer_of(tmp_path / "run", IntMsg, sync_s=None)
    with writer._lock:  # as a cycle does that takes long
        for number in range(10_007):
            writer.log_record(number, "info", f"line {number}", "t", {})
    writer.finish({"reason": "test"})
    found = [text for _, text in lines_of(tmp_path / "run")]
    assert found[:10_000] == [f"line {number}" for number in range(10_000)]
    assert found[10_000:] == ["7 log lines were left out: 10000 were waiting already"]
    with Log(tmp_path / "run") as log:
        *_, last = log.messages("/flowrun/log")
        assert last.fields == {
            "time_ns": 9999,
            "level": "WARNING",
            "message": found[-1],
            "name": "flowrun",
            "fields": {},
        }


def test_what_was_left_out_is_said_once(tmp_path, monkeypatch):
    monkeypatch.setattr(log_writer, "_MOST_LINES", 2)
    writer = writer_of(tmp_path / "run", sync_s=None)
    with writer._lock:
        for number in range(3):
            writer.log_record(number, "info", f"line {number}", "t", {})
    writer.write_lines()
    writer.log_record(5, "info", "line 5", "t", {})
    writer.finish({"reason": "test"})
    writer.log_record(6, "info", "too late", "t", {})
    assert [text for _, text in lines_of(tmp_path / "run")] == [
        "line 0", "line 1", "1 log lines were left out: 2 were waiting already", "line 5",
    ]  # fmt: skip


# -- what a task does to the process -------------------------------------------------------------


def test_a_log_whose_descriptors_were_closed_is_whole_and_writes_to_no_other_file(tmp_path):
    """As by a library that makes a daemon of the process; the numbers then go to other files."""
    run = tmp_path / "run"
    message = BytesMsg(value=bytes(3000))
    writer = writer_of(run, BytesMsg, slab_size_mib=1, sync_s=None)
    bound = writer.bind([message])
    message.publish(tov_ns=1)
    others = []
    for cycle in range(600):
        if cycle in (10, 400):
            found = [int(it.name) for it in Path("/proc/self/fd").iterdir() if _leads_to(it, run)]
            assert found
            for number in found:
                os.close(number)
            flags = os.O_RDWR | os.O_CREAT
            others += [os.open(tmp_path / f"other{cycle}-{it}", flags, 0o644) for it in found]
        commit(writer, bound, cycle)
    writer.sync()
    writer.finish({"reason": "test"})
    assert {path.stat().st_size for path in tmp_path.glob("other*")} == {0}
    with Log(run) as log:
        assert (log.finished, len(log)) == (True, 600)
        assert len(log.slabs) > 1
        assert check_log(log)[2] == []
    for number in others:
        os.close(number)  # it is still open


def test_a_lock_that_was_closed_is_taken_again_and_the_log_says_so(tmp_path, upkeep):
    run = tmp_path / "run"
    writer = writer_of(run, sync_s=None)
    os.close(writer._run_lock.number)
    assert not is_locked(run)
    assert upkeep["flowrun-log"].work()
    assert is_locked(run)
    assert upkeep["flowrun-log"].work()
    writer.finish({"reason": "test"})
    text = "a task, or a library, closed file descriptors of the log; they were opened again"
    assert lines_of(run) == [(0, text)]


def test_a_lock_that_was_closed_and_that_another_process_took_ends_the_log(tmp_path, upkeep):
    run = tmp_path / "run"
    writer = writer_of(run, sync_s=None)
    number = writer._run_lock.number
    os.dup2(0, number)
    other = take_lock(run)
    assert not upkeep["flowrun-log"].work()
    with pytest.raises(LogInUse) as caught:
        writer.check()
    assert str(caught.value) == f"{run}: a task closed its lock, which another process took"
    writer.finish({"reason": "test"})
    assert is_locked(run)
    os.close(other)
    os.close(number)


def test_a_lock_that_was_closed_and_cannot_be_opened_ends_the_log(tmp_path, upkeep):
    run = tmp_path / "run"
    writer = writer_of(run, sync_s=None)
    os.close(writer._run_lock.number)
    (run / ".lock").unlink()
    (run / ".lock").symlink_to("elsewhere")
    assert not upkeep["flowrun-log"].work()
    with pytest.raises(LogError) as caught:
        writer.check()
    assert str(caught.value) == (
        f"{run}: a task closed its lock, which cannot be taken again: "
        "Too many levels of symbolic links"
    )
    writer.finish({"reason": "test"})


def _leads_to(link, folder):
    return str(folder) in os.path.realpath(link)
