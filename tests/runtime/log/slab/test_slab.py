"""A slab by itself, and what is below it: its file, its room, its pages and the disk."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
import struct
import threading
import zlib
from array import array

import pytest

from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab import disk, pages
from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab import writer as log_slab
from flowrun.runtime.log.slab.ends import build_summary
from flowrun.runtime.log.slab.index import message_places
from flowrun.runtime.log.slab.pages import PagePopulator, page_faults
from flowrun.runtime.log.slab.writer import Slab
from support.log_bytes import TRAILER, Builder

MIB = 1 << 20
PAGE = mmap.PAGESIZE
HEAD = bytes(Builder().data)


def slab_of(tmp_path, *, capacity=2 * MIB, section=MIB, head=HEAD, **options):
    path = tmp_path / "log_0000.mcap"
    return Slab(
        path,
        ahead=path.with_suffix(".next"),
        capacity=capacity,
        section=section,
        head=head,
        **options,
    )


def commit(slab, number, size=100, *, channel=1):
    """A cycle of one message, as the writer of a log stores it."""
    builder = Builder()
    builder.open_chunk()
    at = len(builder.data)
    builder.cycle(number, 1000 + number, [(channel, 7, bytes([number % 256]) * size)])
    records = bytes(builder.data[at:])
    position = slab.position
    end = position + len(records)
    assert slab.reserve(end)
    slab.mapping[position + 9 : end] = records[9:]
    slab.mapping[end : end + 9] = struct.pack("<BQ", 0x80, slab.trailer_at - end - 9)
    slab.mapping[position : position + 9] = records[:9]
    slab.cycles.append(position)
    slab.position = end


def tail_of(slab):
    """What ends a slab without schemas and channels of its own."""

    def tail(offset, chunks):
        return build_summary(
            offset=offset, schemas=[], channels=[], chunks=chunks, attachments=[], metadata=[]
        )

    return tail


def descriptors():
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - numbers


# -- its file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capacity", "section", "held", "size"),
    [
        (80, 1, 88, 32), (64, 1, 72, 32), (48, 40, 54, 40), (16, 1, 18, 16), (2, 1, 2.25, 2),
        (1, 4, 4.5, 4),
    ],
)  # fmt: skip
def test_a_slab_holds_its_room_and_an_eighth_for_its_end(tmp_path, capacity, section, held, size):
    """In MiB. As far as it is looked ahead the file is long; the rest is held, and not yet in it."""
    slab = slab_of(tmp_path, capacity=capacity * MIB, section=section * MIB)
    found = (tmp_path / "log_0000.next").stat()
    head = -(-len(HEAD) // PAGE) * PAGE if size == 32 else 0
    assert found.st_size == size * MIB + head
    assert held * MIB <= 512 * found.st_blocks < held * MIB + (64 << 10)
    assert slab.capacity == max(capacity, section) * MIB
    assert slab.trailer_at == found.st_size - 50
    assert (tmp_path / "log_0000.next").read_bytes()[-50:] == TRAILER
    slab.discard()
    assert list(tmp_path.iterdir()) == []


def test_sizes_are_whole_pages(tmp_path):
    slab = slab_of(tmp_path, capacity=5 * PAGE + 1, section=PAGE + 1)
    assert slab.capacity == 6 * PAGE
    assert slab.prepare_at == 6 * PAGE * 3 // 4
    slab.discard()


def test_a_slab_has_room_for_what_it_begins_with(tmp_path):
    head = HEAD + bytes(3 * PAGE)
    slab = slab_of(tmp_path, capacity=PAGE, section=PAGE, head=head)
    assert slab.capacity >= len(head) + 49 + 9 + 50
    assert slab.head_size == len(head)
    assert slab.records_at - 49 - len(head) in range(17)
    assert slab.records_at % 8 == 0
    slab.discard()


def test_a_slab_is_there_once_it_is_begun(tmp_path):
    slab = slab_of(tmp_path)
    assert [it.name for it in tmp_path.iterdir()] == ["log_0000.next"]
    slab.begin()
    assert [it.name for it in tmp_path.iterdir()] == ["log_0000.mcap"]
    found = slab.path.stat()
    assert slab.identity == (found.st_dev, found.st_ino)
    assert not slab.is_removed
    os.close(slab._file.number)  # as what makes a daemon of a process does
    assert not slab.is_removed
    slab.path.unlink()
    assert slab.is_removed
    os.close(slab._file.number)
    assert slab.is_removed
    slab.close()


def test_a_slab_that_cannot_be_made_leaves_no_file_and_no_descriptor(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "full")

    for name in ("preallocate", "write_all"):
        before = descriptors()
        with monkeypatch.context() as patch:
            patch.setattr(disk if name == "preallocate" else log_slab, name, refuse)
            with pytest.raises(OSError, match="full"):
                slab_of(tmp_path)
        assert list(tmp_path.iterdir()) == []
        assert descriptors() == before


def test_a_slab_is_first_written_as_one_pad(tmp_path, monkeypatch):
    """In one piece, before the head of a chunk goes into it: what a kill leaves is known."""
    written = []
    monkeypatch.setattr(log_slab, "write_all", lambda _, data, at: written.append((at, data)))
    slab = slab_of(tmp_path)
    assert written == [
        (2 * MIB - 50, TRAILER),
        (0, HEAD + struct.pack("<BQ", 0x80, 2 * MIB - 50 - len(HEAD) - 9)),
    ]
    slab.discard()


def test_an_open_chunk_reaches_to_the_trailer_and_has_no_times_yet(tmp_path):
    slab = slab_of(tmp_path)
    at, room = slab.records_at, slab.trailer_at - slab.records_at
    head = struct.pack("<BQQQQIIQ", 6, 40 + room, 0, 0, room, 0, 0, room)
    assert slab.mapping[at - 49 : at + 9] == head + struct.pack("<BQ", 0x80, room - 9)
    slab.discard()


def test_a_slab_takes_the_place_of_no_file(tmp_path):
    (tmp_path / "log_0000.next").write_text("mine")
    with pytest.raises(FileExistsError):
        slab_of(tmp_path)
    assert (tmp_path / "log_0000.next").read_text() == "mine"


# -- its room ------------------------------------------------------------------------------------


@pytest.mark.parametrize("preallocates", [True, False])
def test_room_ends_where_the_trailer_and_a_pad_still_fit(tmp_path, monkeypatch, preallocates):
    if not preallocates:
        monkeypatch.setattr(disk, "preallocate", lambda *_: False)
    slab = slab_of(tmp_path, capacity=16 * MIB)
    kept = 0 if preallocates else 2 * MIB  # an eighth, for what ends the slab
    last = 16 * MIB - 50 - 9 - kept
    assert slab.room_ends_at == slab.trailer_at - 9 - kept
    assert slab.reserve(last)
    assert slab.trailer_at == 16 * MIB - 50
    assert slab.room_ends_at == last
    assert not slab.reserve(last + 1)
    slab.discard()


def test_a_file_whose_blocks_are_written_grows_in_small_steps(tmp_path, monkeypatch):
    written = []

    def write_zeros(fd, start, end):
        written.append((start, end))
        real(fd, start, end)

    real = disk.write_zeros
    monkeypatch.setattr(disk, "preallocate", lambda *_: False)
    monkeypatch.setattr(disk, "write_zeros", write_zeros)
    slab = slab_of(tmp_path, capacity=80 * MIB, section=50 * MIB)
    size = 8 * MIB + PAGE
    assert written == [(0, size)]
    assert (tmp_path / "log_0000.next").stat().st_size == size
    assert slab.room_ends_at == size - 50 - 9 - 8 * MIB
    assert slab.reserve(slab.room_ends_at)
    assert len(written) == 1
    assert slab.reserve(slab.room_ends_at + 1)
    assert written[1:] == [(size, size + 4 * MIB)]
    assert slab.trailer_at == size + 4 * MIB - 50
    slab.discard()


def test_a_file_that_cannot_grow_is_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(log_slab, "_LOOK_AHEAD", 0)
    slab = slab_of(tmp_path, capacity=4 * MIB, section=MIB)
    path = tmp_path / "log_0000.next"
    before = path.read_bytes()
    assert len(before) == MIB

    def half(fd, data, at):
        os.pwrite(fd, data[:20], at)
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(log_slab, "write_all", half)
        with pytest.raises(OSError, match="full"):
            slab.reserve(MIB)
    assert path.read_bytes() == before
    assert slab.reserve(MIB)
    assert path.stat().st_size == 2 * MIB
    slab.discard()


def read(path):
    with Log(path) as log:
        found = [it.cycle for it in log.cycles()]
        assert log.loss is None
        return found


def test_each_store_of_growing_closing_and_finishing_leaves_a_log(tmp_path, monkeypatch):
    monkeypatch.setattr(log_slab, "_LOOK_AHEAD", 0)
    monkeypatch.setattr(log_slab, "CHUNK_SIZE", 6000)
    slab = slab_of(tmp_path, capacity=10 * PAGE, section=PAGE)
    slab.begin()
    states = []

    def copied(call):
        def copying(*args):
            states.append((slab.path.read_bytes(), number))
            call(*args)
            states.append((slab.path.read_bytes(), number))

        return copying

    number = 0
    monkeypatch.setattr(Slab, "_store", copied(Slab._store))
    monkeypatch.setattr(log_slab, "write_all", copied(log_slab.write_all))
    monkeypatch.setattr(Slab, "commit_records", copied(Slab.commit_records))
    for number in range(17):
        commit(slab, number, 1500)
        slab.attend()
    number = 17
    assert len(slab.chunks) == 4
    slab.finish(tail_of(slab))
    assert len(states) > 80
    copy = tmp_path / "copy.mcap"
    for data, count in dict.fromkeys(states):
        copy.write_bytes(data)
        found = read(copy)
        assert found in (list(range(count)), list(range(count + 1)))
    assert read(slab.path) == list(range(17))


def test_a_chunk_is_closed_when_its_records_pass_its_size(tmp_path, monkeypatch):
    slab = slab_of(tmp_path)
    commit(slab, 0)
    monkeypatch.setattr(log_slab, "CHUNK_SIZE", slab.position - slab.records_at)
    slab.attend()
    assert slab.chunks == []
    assert slab.attention_at == slab.position
    monkeypatch.setattr(log_slab, "CHUNK_SIZE", slab.position - slab.records_at - 1)
    slab.attend()
    [chunk] = slab.chunks
    assert (chunk.start_time_ns, chunk.end_time_ns, chunk.message_counts) == (1000, 1000, {1: 1})
    slab.discard()


def test_a_chunk_stays_open_where_the_slab_has_no_room_for_another(tmp_path, monkeypatch):
    monkeypatch.setattr(log_slab, "CHUNK_SIZE", 10)
    slab = slab_of(tmp_path, capacity=4 * PAGE, section=PAGE)
    slab.begin()
    number = 0
    while slab.reserve(slab.position + 300):  # of which a cycle takes less
        commit(slab, number, 100)
        number += 1
    slab.attend()
    assert slab.chunks == []
    slab.finish(tail_of(slab))
    assert read(slab.path) == list(range(number))


def test_a_slab_asks_for_attention_before_it_is_full(tmp_path):
    slab = slab_of(tmp_path, capacity=16 * MIB, section=MIB, look_ahead=32 * MIB)
    assert slab.attention_at == slab.records_at + 8 * MIB  # the size of a chunk
    slab.position += 8 * MIB + 1
    del slab.cycles[:]
    slab._next_chunk = lambda: None  # nothing of it is written here
    slab.attend()
    assert slab.attention_at == 8 * MIB + slab.records_at
    slab.discard()


def test_a_chunk_begins_where_its_head_just_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(log_slab, "_LOOK_AHEAD", 0)
    left = []
    for number, size in enumerate(range(7250, 7450)):
        (tmp_path / str(number)).mkdir()
        slab = slab_of(tmp_path / str(number), capacity=PAGE, section=PAGE)
        commit(slab, 0, size)
        slab._next_chunk()
        assert slab.is_whole  # the trailer is where it was
        if slab.chunks:
            left.append(slab.room_ends_at - slab.position)
        slab.discard()
    assert 0 < len(left) < 200
    assert 0 <= min(left) < 8  # chunks begin at every eighth byte


@pytest.mark.parametrize("least", [-100, 0, 1, PAGE])
def test_the_end_may_need_more_room_than_there_is(tmp_path, monkeypatch, least):
    """Up to the trailer, beyond it, and beyond what was mapped."""
    monkeypatch.setattr(log_slab, "_LOOK_AHEAD", 0)
    slab = slab_of(tmp_path, capacity=PAGE, section=PAGE)
    slab.begin()
    commit(slab, 0)
    room = slab.trailer_at - slab.position
    synced = []
    monkeypatch.setattr(disk, "sync_pages", lambda _, start, end: synced.append((start, end)))
    monkeypatch.setattr(disk, "sync_file", lambda fd: synced.append(os.fstat(fd).st_size))

    def tail(offset, chunks):
        made = tail_of(slab)(offset, chunks)
        fill = room - 9 + least - (offset - slab.position) - len(made)
        return (
            struct.pack("<BQ", 0x80, fill - 9)
            + bytes(fill - 9)
            + tail_of(slab)(offset + fill, chunks)
        )

    at, states = slab.position, []

    def write_and_copy(*args):
        states.append(slab.path.read_bytes())
        disk.write_all(*args)
        states.append(slab.path.read_bytes())

    monkeypatch.setattr(log_slab, "write_all", write_and_copy)
    slab.finish(tail)
    assert len(states) == (2 if least <= 0 else 4)  # the end, and before it a trailer if need be
    for data in states:
        (tmp_path / "copy.mcap").write_bytes(data)
        assert read(tmp_path / "copy.mcap") == [0]
    size = at + room - 9 + least
    assert slab.path.stat().st_size == size
    if least < PAGE:
        assert synced == [(0, size), size]
    else:
        assert synced[1:] == [size]  # through the file: first all of it, then its new size
        assert synced[0] > size
    assert read(slab.path) == [0]


def test_what_is_committed_is_synced_once(tmp_path, monkeypatch):
    slab = slab_of(tmp_path)
    synced = []
    monkeypatch.setattr(disk, "sync_pages", lambda _, start, end: synced.append((start, end)))
    slab.sync()
    assert synced == [(slab.trailer_at, slab.trailer_at + 50), (0, slab.position + 9)]
    slab.sync()
    assert len(synced) == 2
    commit(slab, 0)
    slab.sync()
    assert synced[3] == (0, slab.position + 9)
    slab.close()
    commit_after_close = len(synced)
    slab._synced = None
    slab.sync()  # the helper thread may come too late
    assert len(synced) == commit_after_close


# -- the places of its messages ------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 10, 40])
def test_message_places_are_those_of_the_records(count):
    rng = random.Random(count)
    builder = Builder(topics=tuple(f"/t/{number}" for number in range(700)))
    builder.open_chunk()
    starts = array("Q")
    for number in range(count):
        messages = [
            (rng.choice([1, 2, 300, 700]), 5, bytes(rng.choice([0, 1, 4096, 5000])))
            for _ in range(rng.choice([0, 1, 2, 3, 30]))
        ]
        starts.append(len(builder.data))
        builder.cycle(number, 1000 + number, messages)
    with mmap.mmap(-1, len(builder.data) + 60) as mapping:
        mapping[: len(builder.data)] = bytes(builder.data)
        found = message_places(mapping, starts, records_at=builder.records_start)
        assert list(found) == sorted(builder.index)
        listed = {channel: [tuple(it) for it in of.tolist()] for channel, of in found.items()}
        assert listed == builder.index
        del found


# -- pages ---------------------------------------------------------------------------------------


class Kernel:
    """Notes what is asked of it, and lets the test go on."""

    def __init__(self, result=0):
        self.asked = []
        self.result = result
        self.came = threading.Semaphore(0)

    def madvise(self, address, size, advice):
        self.asked.append((address, size, advice))
        self.came.release()
        return self.result


@pytest.fixture
def mapping():
    with mmap.mmap(-1, 16 * MIB) as made:
        yield made


def address_of(mapping):
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))


def wait_until(condition):
    waiting = threading.Event()
    for _ in range(3000):
        if condition():
            return
        waiting.wait(0.005)
    raise AssertionError("it did not come")


def test_pages_are_populated_in_steps_as_far_as_they_are_asked_for(mapping, monkeypatch):
    kernel = Kernel()
    monkeypatch.setattr(pages, "_libc", kernel)
    populator = PagePopulator(address_of(mapping))
    base = address_of(mapping)
    assert populator.ready_to == 0
    populator.stop()  # nothing was begun
    populator = PagePopulator(address_of(mapping))
    populator.populate(PAGE + 5, 9 * MIB + 7)
    wait_until(lambda: populator.ready_to == 9 * MIB)
    step = 4 * MIB
    assert kernel.asked == [
        (base + PAGE, step, 23),
        (base + PAGE + step, step, 23),
        (base + PAGE + 2 * step, MIB - PAGE, 23),
    ]
    populator.populate(2 * MIB, 10 * MIB)  # on from what was asked before
    wait_until(lambda: populator.ready_to == 10 * MIB)
    assert kernel.asked[3:] == [(base + 9 * MIB, MIB, 23)]
    populator.populate_again(8 * MIB + 1)
    wait_until(lambda: len(kernel.asked) == 5)
    assert kernel.asked[4] == (base + 8 * MIB + PAGE, 2 * MIB - PAGE, 23)
    populator.drop()
    populator.populate(12 * MIB, 13 * MIB)  # what is between was skipped
    wait_until(lambda: populator.ready_to == 13 * MIB)
    assert kernel.asked[5:] == [(base + 12 * MIB, MIB, 23)]
    populator.stop()
    populator.stop()


def test_a_kernel_that_populates_nothing_is_asked_once(mapping, monkeypatch):
    kernel = Kernel(-1)
    monkeypatch.setattr(pages, "_libc", kernel)
    populator = PagePopulator(address_of(mapping))
    populator.populate(0, 16 * MIB)
    wait_until(lambda: not populator._thread.is_alive())
    populator.populate(0, 16 * MIB)
    assert (len(kernel.asked), populator.ready_to) == (1, 0)
    populator.stop()


def test_populated_pages_do_not_fault(tmp_path):
    with (tmp_path / "file").open("w+b") as file:
        file.truncate(4 * MIB)
        with mmap.mmap(file.fileno(), 4 * MIB) as mapping:
            populator = PagePopulator(address_of(mapping))
            populator.populate(0, 4 * MIB)
            wait_until(lambda: populator.ready_to == 4 * MIB or not populator._thread.is_alive())
            populator.stop()
            if populator.ready_to == 0:
                pytest.skip("this kernel populates no pages")
            before = page_faults()
            for at in range(0, 4 * MIB, PAGE):
                mapping[at] = 1
            assert page_faults() - before < 200  # of 1,024 pages


# -- the disk ------------------------------------------------------------------------------------


def refusing(code):
    def call(*_):
        ctypes.set_errno(code)
        return -1

    return call


class Libc:
    def __init__(self, code):
        self.fallocate = self.msync = refusing(code)


def test_preallocation_leaves_the_size_and_takes_the_blocks(tmp_path):
    with (tmp_path / "file").open("w+b") as file:
        file.write(b"x" * 10)
        file.flush()
        assert disk.preallocate(file.fileno(), MIB)
        found = os.fstat(file.fileno())
        assert found.st_size == 10
        assert MIB <= 512 * found.st_blocks < MIB + PAGE


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOSPC, errno.EIO])
def test_preallocation_that_a_file_system_lacks_is_no_error(monkeypatch, code):
    monkeypatch.setattr(disk, "_libc", Libc(code))
    if code in (errno.EOPNOTSUPP, errno.ENOSYS):
        assert disk.preallocate(0, 1) is False
        return
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        disk.preallocate(0, 1)
    assert caught.value.errno == code


def test_pages_are_synced_from_the_beginning_of_the_first(mapping, monkeypatch):
    asked = []

    class Noting:
        @staticmethod
        def msync(address, size, flags):
            asked.append((address, size, flags))
            return 0

    base = address_of(mapping)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "_libc", Noting)
        disk.sync_pages(base, PAGE + 77, 5 * PAGE + 3)
    assert asked == [(base + PAGE, 4 * PAGE + 3, 4)]
    disk.sync_pages(base, 0, MIB)
    monkeypatch.setattr(disk, "_libc", Libc(errno.EIO))
    with pytest.raises(OSError, match="Input/output error") as caught:
        disk.sync_pages(base, 0, 1)
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO])
def test_a_directory_that_needs_no_sync_is_no_error(monkeypatch, code):
    def fsync(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    if code == errno.EINVAL:
        disk.sync_directory(0)
    else:
        with pytest.raises(OSError, match="Input/output"):
            disk.sync_directory(0)
    with pytest.raises(OSError, match=os.strerror(code)):
        disk.sync_file(0)


def test_all_is_written_where_the_system_takes_pieces(tmp_path, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda fd, data, at: real(fd, data[: max(1, len(data) // 2)], at)
    )
    with (tmp_path / "file").open("w+b") as file:
        file.write(b"\xff" * 3 * MIB)
        file.flush()
        disk.write_all(file.fileno(), b"0123456789", 5)
        disk.write_zeros(file.fileno(), 100, 2 * MIB + 7)
        disk.write_zeros(file.fileno(), 3 * MIB, 3 * MIB)
    data = (tmp_path / "file").read_bytes()
    assert data[:100] == b"\xff" * 5 + b"0123456789" + b"\xff" * 85
    assert data[100 : 2 * MIB + 7] == bytes(2 * MIB - 93)
    assert data[2 * MIB + 7 :] == b"\xff" * (MIB - 7)


# -- pages ahead, and large payloads -------------------------------------------------------------


class Ahead:
    """A populator that notes what it is asked."""

    def __init__(self):
        self.asked = []
        self.ready_to = 0

    def populate(self, start, end):
        self.asked.append((start, end))

    def populate_again(self, start):
        self.asked.append(("again", start))

    def drop(self):
        self.asked.append("drop")

    def stop(self):
        pass


@pytest.fixture
def ahead(monkeypatch):
    made = Ahead()
    monkeypatch.setattr(log_slab, "PagePopulator", lambda _mapping: made)
    return made


def test_a_faster_writer_has_more_pages_ahead(tmp_path, monkeypatch, ahead):
    """As many as it fills in 0.1 s, at least those of the beginning."""
    first, now = log_slab.FIRST_LOOK_AHEAD, [10**9]
    monkeypatch.setattr(log_slab, "CHUNK_SIZE", 1 << 40)
    monkeypatch.setattr(log_slab, "ticks_ns", lambda: now[0])
    slab = slab_of(tmp_path, capacity=200 * MIB, section=MIB)
    assert ahead.asked[-1][1] - slab.position == first

    def ahead_after(size, took_ns):
        assert slab.reserve(slab.position + size)
        slab.position += size
        now[0] += took_ns
        slab.attend()
        return ahead.asked[-1][1] - slab.position

    assert ahead_after(first // 2, 50_000_000) == first
    assert ahead_after(first // 2, 49_999_999) == 2 * first
    assert ahead_after(first, 3_600_000_000_000) == 2 * first
    assert ahead_after(20 * first, 200_000_000) == log_slab._LOOK_AHEAD
    assert slab.look_ahead == log_slab._LOOK_AHEAD


def test_pages_are_asked_for_ahead_of_a_writer_that_is_not_too_fast(tmp_path, monkeypatch, ahead):
    """As far as it is looked ahead, when half of that is used; at 1.5 ns a byte they come too late."""
    look, now = 1 << 18, [10**9]
    monkeypatch.setattr(log_slab, "_LOOK_AHEAD", look)
    monkeypatch.setattr(log_slab, "CHUNK_SIZE", 1 << 40)
    monkeypatch.setattr(log_slab, "ticks_ns", lambda: now[0])
    slab = slab_of(tmp_path, capacity=2 * MIB, section=PAGE)
    begin = slab.position
    assert ahead.asked == [(begin, begin + look)]
    assert slab.attention_at == begin + look // 2

    def go_on(size, took_ns):
        ahead.asked.clear()
        slab.position += size
        now[0] += took_ns
        slab.attend()
        return ahead.asked

    half = look // 2
    assert go_on(half - 1, 1) == []
    slow = half * 3 // 2
    assert go_on(1, slow - 1) == [(begin + half, begin + half + look)]
    assert slab.attention_at == begin + 2 * half
    assert go_on(half, slow) == [(begin + look, begin + 2 * look)]
    assert go_on(half, slow - 1) == ["drop"]
    assert slab.attention_at == begin + 4 * half  # it is looked at again there
    assert go_on(half, slow) == [(begin + 2 * look, begin + 3 * look)]
    assert slab.trailer_at + 50 >= begin + 3 * look
    end = 2 * MIB
    assert slab.reserve(end - 59)
    rest = end - look - slab.position
    assert go_on(rest, 10**9) == [(end - look, end)]
    assert go_on(look // 2, 10**9) == []  # all that there is was asked for
    assert slab.attention_at == max(slab.position, end + look // 2)
    slab.position = begin
    slab.attend()
    assert slab.attention_at == slab.prepare_at
    slab.discard()


@pytest.mark.parametrize(
    ("ready", "faults", "first", "size"),
    [(True, 0, 128, 128), (True, 16, 128, 128), (True, 17, 128, 1024), (False, 0, 1024, 1024)],
)
def test_a_large_payload_is_written_and_checked_block_by_block(
    tmp_path, monkeypatch, ahead, ready, faults, first, size
):
    """In KiB: what the processor holds, or what the kernel takes at once where pages are missing."""
    slab = slab_of(tmp_path, capacity=8 * MIB)
    data = bytes(range(251)) * 13_000
    at = slab.position + 1000
    assert slab.reserve(at + len(data))
    ahead.ready_to = at + len(data) - (not ready)
    ahead.asked.clear()
    counted = iter([100, 100 + faults])
    monkeypatch.setattr(log_slab, "page_faults", lambda: next(counted))
    blocks = []

    def crc32(block, start=0):
        blocks.append(len(block))
        return zlib.crc32(block, start)

    monkeypatch.setattr(fmt, "crc32", crc32)
    assert slab.write_large(at, data) == zlib.crc32(data)
    assert slab.mapping[at : at + len(data)] == data
    rest = len(data) - (first << 10)
    expected = [first << 10, *[size << 10] * (rest // (size << 10)), rest % (size << 10)]
    assert blocks == expected
    assert ahead.asked == ([("again", at + len(data))] if faults > 16 else [])
    assert slab._checked == [(at, at + len(data), zlib.crc32(data))]
    slab.forget_uncommitted()
    assert slab._checked == []
    slab.write_large(at, data[:MIB]) if not ready else None
    slab.position = at + 1
    slab.forget_uncommitted()
    assert len(slab._checked) == (not ready)
    slab.discard()
