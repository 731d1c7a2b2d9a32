"""What a writer holds: files, room on the disk, locks, and the names of its slabs."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from flowrun.msgs import BytesMsg, IntMsg
from flowrun.runtime.errors import LogError, LogInUse
from flowrun.runtime.graph.spec import LoggingSpec
from flowrun.runtime.log import rolling
from flowrun.runtime.log import writer as log_writer
from flowrun.runtime.log.check import check_log
from flowrun.runtime.log.lock import is_locked
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab import disk
from flowrun.runtime.log.writer import LogWriter
from support.log_writing import (
    check_all_by_us,
    commit,
    fill_until_next_is_made,
    payload,
    write,
    writer_of,
)


def open_files(directory):
    """Descriptors of this process: what each is of, for those that the log may have opened."""
    found = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - as a number
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
            if target.startswith(str(directory)) or target == os.devnull:
                found[int(name)] = target
    return found


def test_a_log_keeps_its_descriptors_from_child_processes_and_gives_all_back(tmp_path):
    before = open_files(tmp_path)
    writer, _ = fill_until_next_is_made(tmp_path / "run")
    held = {fd: it for fd, it in open_files(tmp_path).items() if fd not in before}
    run = str(tmp_path / "run")
    names = sorted(it for it in set(held.values()) if it.startswith(run))
    assert names == [run, *(f"{run}/{it}" for it in (".lock", "log_0000.mcap", "log_0001.next"))]
    assert list(held.values()).count(run) == 1 + 8  # its own, and spare ones
    assert not any(map(os.get_inheritable, held))
    assert is_locked(tmp_path / "run")
    writer.finish({"reason": "test"})
    assert open_files(tmp_path) == before
    assert not is_locked(tmp_path / "run")


def test_a_log_that_cannot_be_finished_gives_all_back_too(tmp_path, monkeypatch):
    before = open_files(tmp_path)
    writer = writer_of(tmp_path / "run", IntMsg)

    def refuse(_):
        raise RuntimeError("a fault of our own")

    monkeypatch.setattr(disk, "sync_file", refuse)
    with pytest.raises(RuntimeError, match="a fault of our own"):
        writer.finish({"reason": "test"})
    assert open_files(tmp_path) == before
    assert not is_locked(tmp_path / "run")


def test_room_is_made_for_each_slab_and_what_the_run_takes_already(tmp_path):
    """With the bytes so far, and those of the slab that comes; a flight recorder's are bounded."""
    for keep in (None, 2):
        asked = []
        run = tmp_path / f"run{keep}"
        message = BytesMsg()
        writer = writer_of(
            run, BytesMsg, slab_size_mib=1, keep_slabs=keep, make_room=asked.append, sync_s=None
        )
        bound = writer.bind([message])
        sizes = []
        for cycle in range(45):
            message.value = payload(cycle, 100_000)
            message.publish(tov_ns=cycle)
            commit(writer, bound, cycle)
            if writer._slabs._next is not None:
                writer._slabs._next.result()
            if len(asked) > len(sizes):
                sizes.append(writer.size)
        writer.finish({"reason": "test"})
        mib = 1 << 20
        assert len(asked) >= 5
        assert asked[0] == mib
        assert asked[1:] == [
            (size if keep is None else min(size, 2 * mib)) + mib for size in sizes[1:]
        ]


def test_the_next_slab_is_made_when_three_quarters_are_used(tmp_path):
    writer, _ = fill_until_next_is_made(tmp_path / "run", size=3000)
    assert 3 << 18 <= writer.size < (3 << 18) + 4000
    writer.finish({"reason": "test"})


def test_chunks_have_8_mib_and_a_cycle_at_most(tmp_path):
    write(tmp_path / "run", 180, size=100_000, slab_size_mib=32)
    with Log(tmp_path / "run") as log:
        *closed, last = [it.records_end - it.records_start for it in log.slabs[0].structure.chunks]
        assert [8 << 20 < size < (8 << 20) + 101_000 for size in closed] == [True, True]
        assert 0 < last < 2 << 20
        assert check_log(log)[2] == []


def test_a_payload_of_4096_bytes_is_aligned_to_64(tmp_path):
    """Packed: a map of "value" and its bytes takes ten more than they have."""
    pads = []
    for size in (4096 - 10, 4095 - 10):
        run = tmp_path / str(size)
        write(run, 70, size=size)
        with Log(run) as log:
            view = log.slabs[0].view
            heads = log.slabs[0].cycles.heads(0)
            pads += [view[head.offset + 41] == 0x80 for head in heads]
            for message in log.messages("/t0/out"):
                at = np.frombuffer(message.payload, np.uint8).ctypes.data
                assert len(message.payload) == size + 10
                assert at % 64 == 0 or size == 4095 - 10
    assert sum(pads[:70]) > 60
    assert not any(pads[70:])


def test_a_slab_larger_than_asked_for_is_one_for_its_cycle(tmp_path):
    """Not for those that follow: they get slabs of the size that the graph says."""
    message = BytesMsg()
    writer = writer_of(tmp_path / "run", BytesMsg, slab_size_mib=1)
    bound = writer.bind([message])
    sizes = [10, 5 << 20, 700_000, 700_000, 700_000]
    capacities = []
    for cycle, size in enumerate(sizes):
        message.value = payload(cycle, size)
        message.publish(tov_ns=cycle)
        commit(writer, bound, cycle)
        capacities.append(writer._slabs.slab.capacity)
    writer.finish({"reason": "test"})
    # The cycle, what a slab begins with, and a section; an eighth of it is for the end.
    assert 0 <= capacities[1] - (6 << 20) * 8 // 7 < 8192
    assert capacities == [1 << 20, *capacities[1:2] * 3, 1 << 20]
    with Log(tmp_path / "run") as log:
        assert [len(m.fields["value"]) for m in log.messages("/t0/out")] == sizes
        assert check_log(log)[2] == []


def test_a_log_without_a_graph_is_as_one_whose_graph_says_nothing():
    said = LoggingSpec()
    parameters = inspect.signature(LogWriter).parameters
    for name in ("slab_size_mib", "section_size_mib", "sync_s"):
        assert parameters[name].default == getattr(said, name)


@pytest.mark.parametrize("steps", [0, 1, 40])
def test_a_step_table_has_the_ticks_of_its_cycle(tmp_path, steps):
    writer = LogWriter(tmp_path / "run", outputs=[], steps=steps, metadata={"run_id": "x"})
    bound = writer.bind([])
    ticks = [7, *range(2**63, 2**63 + steps)]
    for cycle in (0, 2**32 + 3):
        writer.commit(cycle, 1000, bound, start_ns=7, ends_ns=ticks[1:], events=[])
    writer.finish({"reason": "test"})
    with Log(tmp_path / "run") as log:
        for message in log.messages("/flowrun/steps"):
            assert message.fields == {"ticks_ns": struct.pack(f"<{steps + 1}Q", *ticks)}
            assert (message.time_ns, message.tov_ns) == (1000, 1000)
        assert check_log(log) == (2, 2, [])


def test_a_discarded_log_leaves_what_is_not_its_own(tmp_path):
    writer = writer_of(tmp_path / "run", IntMsg)
    writer.discard()
    assert not (tmp_path / "run").exists()
    writer, _ = fill_until_next_is_made(tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    writer.discard()
    assert [it.name for it in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_a_directory_is_asked_for_its_lock_a_hundred_times(tmp_path, monkeypatch):
    tries = []
    monkeypatch.setattr(log_writer, "take_lock", tries.append)
    with pytest.raises(LogInUse, match="another process is writing this run"):
        writer_of(tmp_path / "run", IntMsg)
    assert len(tries) == 100
    tries.clear()
    (tmp_path / "run" / "log_0000.next").touch()  # no start of another run: its files are there
    with pytest.raises(LogInUse, match="another process is writing this run"):
        writer_of(tmp_path / "run", IntMsg)
    assert len(tries) == 1


def test_a_refused_log_keeps_no_lock(tmp_path):
    write(tmp_path / "run", 1)
    with pytest.raises(LogInUse, match="holds a run already"):
        writer_of(tmp_path / "run", IntMsg)
    assert not is_locked(tmp_path / "run")


def test_a_child_process_does_not_hold_the_log(tmp_path):
    writer = writer_of(tmp_path / "run", IntMsg)
    writer.let_go()
    assert not is_locked(tmp_path / "run")
    writer.finish({"reason": "test"})


def test_a_slab_that_a_flight_recorder_cannot_remove_is_an_error(tmp_path):
    message = BytesMsg(value=payload(0, 100_000))
    writer = writer_of(tmp_path / "run", BytesMsg, slab_size_mib=1, keep_slabs=1, sync_s=None)
    bound = writer.bind([message])
    (tmp_path / "run" / "log_0000.mcap").rename(tmp_path / "moved")
    (tmp_path / "run" / "log_0000.mcap").mkdir()

    def commit_for_ever():
        for cycle in itertools.count():
            message.publish(tov_ns=cycle)
            commit(writer, bound, cycle)

    with pytest.raises(LogError) as caught:
        commit_for_ever()
    assert str(caught.value) == (f"{tmp_path}/run/log_0000.mcap: cannot be removed: Is a directory")
    writer.finish({"reason": "test"})


@pytest.mark.parametrize("what", ["removed", "replaced", "directory"])
def test_a_look_finds_the_file_of_the_run_gone(tmp_path, what):
    writer = writer_of(tmp_path / "run", IntMsg, sync_s=None)
    slabs = writer._slabs
    slabs.look(writer._lock)
    path = tmp_path / "run" / "log_0000.mcap"
    path.rename(tmp_path / "moved")
    if what == "replaced":
        path.write_text("another")
    elif what == "directory":
        (tmp_path / "run").rename(tmp_path / "other")
        (tmp_path / "run").write_text("")
    with pytest.raises(LogError) as caught:
        slabs.look(writer._lock)
    assert str(caught.value) == f"{path}: the log was removed while it was written"
    with contextlib.suppress(LogError):
        writer.finish({"reason": "test"})


def test_a_file_of_which_nobody_can_say_is_not_gone(tmp_path, monkeypatch):
    writer = writer_of(tmp_path / "run", IntMsg, sync_s=None)

    def refuse(_):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", refuse)
        writer._slabs.look(writer._lock)
    writer.finish({"reason": "test"})


@pytest.mark.parametrize(("keep", "seen"), [(None, [0, 1, 2, 3]), (2, [2, 3]), (9, [0, 1, 2, 3])])
def test_a_look_misses_those_slabs_that_are_to_be_there(tmp_path, monkeypatch, keep, seen):
    message = BytesMsg(value=payload(0, 300_000))
    writer = writer_of(tmp_path / "run", BytesMsg, slab_size_mib=1, keep_slabs=keep, sync_s=None)
    bound = writer.bind([message])
    for cycle in itertools.count():
        message.publish(tov_ns=cycle)
        commit(writer, bound, cycle)
        if (tmp_path / "run" / "log_0003.mcap").exists():
            break
    asked = []
    monkeypatch.setattr(
        rolling, "_look_at_finished", lambda path, size: asked.append((path.name, size))
    )
    monkeypatch.setattr(
        rolling, "_is_gone", lambda path, identity: asked.append((path.name, identity))
    )
    writer._slabs.look(writer._lock)
    names = [f"log_{number:04}.mcap" for number in seen]
    assert [name for name, _ in asked] == names
    assert asked[-1] == (names[-1], writer._slabs.slab.identity)
    for name, size in asked[:-2]:  # the last may not be finished yet
        assert size == (tmp_path / "run" / name).stat().st_size
    monkeypatch.undo()
    writer.finish({"reason": "test"})


def test_names_are_brought_to_the_disk_once_for_each_slab(tmp_path, monkeypatch):
    message = BytesMsg()
    writer = writer_of(tmp_path / "run", BytesMsg, slab_size_mib=1, sync_s=None)
    bound = writer.bind([message])
    names, full = [], []
    cycle = 0

    def fill():
        nonlocal cycle
        present = writer._slabs.slab
        while writer._slabs.slab is present:
            message.value = payload(cycle, 50_000)
            message.publish(tov_ns=cycle)
            commit(writer, bound, cycle)
            cycle += 1
        writer._slabs._finishing.result()
        full.append(present.position)
        assert writer.size == sum(full) + writer._slabs.slab.position

    writer.sync()
    monkeypatch.setattr(disk, "sync_directory", names.append)
    writer.sync()
    assert names == []
    for count in (1, 2):
        fill()
        names.clear()  # those of the slab that was made ahead
        writer.sync()
        writer.sync()
        assert len(names) == 1, count
    monkeypatch.undo()
    writer.finish({"reason": "test"})


def test_what_the_disk_did_not_take_of_a_full_slab_is_told_by_the_next_sync(tmp_path, monkeypatch):
    message = BytesMsg()
    writer = writer_of(tmp_path / "run", BytesMsg, slab_size_mib=1, sync_s=None)
    bound = writer.bind([message])

    def refuse(_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "sync_file", refuse)
        for cycle in range(25):
            message.value = payload(cycle, 50_000)
            message.publish(tov_ns=cycle)
            commit(writer, bound, cycle)
        with contextlib.suppress(LogError):
            writer._slabs._finishing.result()
        with pytest.raises(LogError) as caught:
            writer.sync()
    slab = tmp_path / "run" / "log_0000.mcap"
    assert str(caught.value) == f"{slab}: cannot finish the log: Input/output error"
    with pytest.raises(LogError, match="cannot finish the log"):
        writer.finish({"reason": "test"})
    check_all_by_us(tmp_path / "run", 25, 50_000)
