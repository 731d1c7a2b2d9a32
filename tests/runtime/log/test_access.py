"""A cycle found by number or time, through the indexes of the chunks, also where those are damaged."""

from __future__ import annotations

import os

import numpy as np
import pytest

from flowrun.runtime.errors import LogError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.recover import recover
from flowrun.runtime.log.slab.cycles import CycleReader
from flowrun.runtime.log.slab.reader import SlabReader
from support.log_bytes import TRAILER, Builder, pad, small

END = {"reason": "end of sources", "cycles": "5", "ended_ns": "99"}


@pytest.fixture
def heads_read(monkeypatch):
    """How many CYCLE records have been looked at."""
    count = [0]
    original = CycleReader.heads

    def heads(self, index, start=None):
        for head in original(self, index, start):
            count[0] += 1
            yield head

    monkeypatch.setattr(CycleReader, "heads", heads)
    return count


def slab(tmp_path, builder):
    path = tmp_path / "log_0000.mcap"
    path.write_bytes(builder.data)
    return path


def long_log(first=0):
    builder = Builder()
    for number in range(first, first + 2000):
        builder.cycle(number, 1000 + 10 * number, [(1, 900 + number, b"\x80")])
    return builder


@pytest.mark.parametrize("first", [0, 2**32 - 1000])
def test_access_reads_no_more_than_a_few_cycles(tmp_path, heads_read, first):
    """The numbers of the second log pass the 32 bits of a message's sequence."""
    with Log(slab(tmp_path, long_log(first).finish(END))) as log:
        for number in range(first, first + 2000, 77):
            assert log[number].cycle == number
            found = next(log.cycles(start_ns=1000 + 10 * number - 5))
            assert found.cycle == number
        assert heads_read[0] < 200


def test_gaps_and_cycles_without_messages_are_found(tmp_path):
    builder = Builder()
    numbers = [0, 1, 5, 6, 7, 20, 21, 40]
    for number in numbers:
        messages = [(1, 1, b"\x80")] if number % 2 else []
        builder.cycle(number, 1000 + 10 * number, messages)
    with Log(slab(tmp_path, builder.finish(END))) as log:
        for number in range(45):
            later = [item for item in numbers if item >= number]
            assert [record.cycle for record in log.cycles(number)] == later
            found = log.cycles(start_ns=1000 + 10 * number)
            assert [record.cycle for record in found] == later
            if number in numbers:
                assert log[number].cycle == number


def test_cycles_of_one_time_are_all_found(tmp_path):
    builder = Builder()
    for number in range(12):
        builder.cycle(number, 1000 + 10 * (number // 4), [(1, 1, b"\x80")])
    with Log(slab(tmp_path, builder.finish(END))) as log:
        for time_ns, numbers in ((1000, range(4)), (1010, range(4, 8)), (1020, range(8, 12))):
            found = log.cycles(start_ns=time_ns, end_ns=time_ns + 1)
            assert [record.cycle for record in found] == list(numbers)


@pytest.mark.slow
def test_no_flipped_byte_gives_another_cycle(tmp_path):
    builder = small(chunk_cycles=6, cycles=10).finish(END)
    written = {number: (time_ns, found) for number, time_ns, found in builder.written}
    path = tmp_path / "log_0000.mcap"
    start, end = builder.preamble_size, builder.chunks[-1][0]
    for offset in range(start, end):
        data = bytearray(builder.data)
        data[offset] ^= 0x15
        path.write_bytes(data)
        with Log(path) as log:
            for number, (time_ns, messages) in written.items():
                try:
                    record = log[number]
                except LogError:
                    assert log.loss is not None, (offset, number)
                else:
                    found = [(topic, tov_ns, bytes(data)) for topic, tov_ns, data in record.entries]
                    assert (record.time_ns, found) == (time_ns, messages), (offset, number)
                first = next(log.cycles(start_ns=time_ns), None)
                if first is None or first.cycle != number:
                    assert log.loss is not None, (offset, number)


@pytest.mark.parametrize("wrong", [1.5, b"a", slice(1, 3), None])
def test_a_cycle_is_found_by_a_whole_number_only(tmp_path, wrong):
    with Log(slab(tmp_path, long_log().leave_open())) as log:
        with pytest.raises(TypeError) as caught:
            log[wrong]
        assert log[np.int64(7)].cycle == 7
    assert str(caught.value) == (
        f"log[{wrong!r}]: a cycle is found by its number; for a range: log.cycles(start, end)"
    )


@pytest.mark.parametrize("follow", [False, True])
def test_a_closed_log_says_so(tmp_path, follow):
    log = Log(slab(tmp_path, long_log().leave_open()), follow=follow)
    topic = next(iter(log.topics))
    cycles, messages = log.cycles(), log.messages()
    next(cycles)
    payload = next(messages).payload
    log.close()
    assert bytes(payload) == b"\x80"  # what is held stays
    assert topic in log.topics
    reads = [
        lambda: log[0],
        lambda: len(log),
        lambda: log.start_ns,
        lambda: log.end_ns,
        lambda: log.messages(topic),
        lambda: log.table(topic),
        lambda: list(log.cycles()),
        lambda: next(cycles),
        lambda: next(messages),
    ]
    for read in reads:
        with pytest.raises(LogError) as caught:
            read()
        assert str(caught.value) == f"{log.path}: the log is closed"


def test_access_gives_out_no_cycle_before_the_one_that_is_sought(tmp_path, monkeypatch):
    """By `records`, which checks and unpacks each: not from the beginning of a chunk on."""
    given = [0]
    original = CycleReader.records

    def records(self, index, start=None):
        for found in original(self, index, start):
            given[0] += 1
            yield found

    monkeypatch.setattr(CycleReader, "records", records)
    with Log(slab(tmp_path, long_log().finish(END))) as log:
        for number in range(0, 2000, 77):
            assert log[number].cycle == number
            assert next(log.cycles(start_ns=1000 + 10 * number)).cycle == number
    assert given[0] == 2 * len(range(0, 2000, 77))


def test_the_last_chunk_of_a_recovered_slab_is_searched_by_its_index(tmp_path, heads_read):
    path = slab(tmp_path, long_log().leave_open())
    recover(path)
    heads_read[0] = 0
    with Log(path) as log:
        assert log[1500].cycle == 1500
    assert heads_read[0] < 10


# -- where a slab begins to read -----------------------------------------------------------------


def chunked(first=0, *, cycles=20, chunk=3, channels=(1,)):
    """Chunks of some cycles, each with a message of every channel; two cycles share each time."""
    builder = Builder()
    for number in range(first, first + cycles):
        if number > first and (number - first) % chunk == 0:
            builder.close_chunk()
        builder.cycle(number, 1000 + 10 * (number // 2), [(it, 1, b"\x80") for it in channels])
    return builder


@pytest.mark.parametrize("finished", [True, False])
def test_a_chunk_and_a_place_in_it_are_found_for_each_number_and_time(tmp_path, finished):
    builder = chunked()
    starts = [builder.ends[number] - 41 - 32 for number in range(20)]
    times = [1000 + 10 * (number // 2) for number in range(20)]
    reader = SlabReader(slab(tmp_path, builder.finish(END) if finished else builder.leave_open()))
    assert reader.chunk_of() == 0
    for number in range(22):
        index = reader.chunk_of(cycle=number)
        assert index == min(number, 19) // 3
        assert reader.offset_of(index, cycle=number) == [*starts, builder.ends[19]][min(number, 20)]
    for time_ns in range(995, 1105, 5):
        sought = next((it for it, at in enumerate(times) if at >= time_ns), 20)
        index = reader.chunk_of(time_ns=time_ns)
        assert index == max(0, sought - 1) // 3  # the one before it may be the last of its chunk
        last = min(3 * index + 3, 20)
        expected = builder.ends[last - 1] if sought >= last else starts[sought]
        assert reader.offset_of(index, time_ns=time_ns) == expected
    for number, time_ns in ((4, 1000), (4, 1055), (13, 1055), (0, 995)):
        sought = max(number, next(it for it, at in enumerate(times) if at >= time_ns))
        index = reader.chunk_of(cycle=number, time_ns=time_ns)
        assert 3 * index <= sought
        last = min(3 * index + 3, 20)
        expected = builder.ends[last - 1] if sought >= last else starts[sought]
        assert reader.offset_of(index, cycle=number, time_ns=time_ns) == expected
    reader.close()


@pytest.mark.parametrize("number", range(9, 20))
def test_a_chunk_with_a_damaged_first_cycle_is_not_passed_over(tmp_path, number):
    """It is in the middle, where every search looks first."""
    builder = chunked().finish(END)
    builder.data[builder.ends[9] - 1] ^= 4
    with Log(slab(tmp_path, builder)) as log:
        assert list(log.cycles(number)) == []
        assert "cycle 9 has CRC" in log.loss


def test_a_closed_chunk_of_a_log_that_grows_is_searched_by_its_index(tmp_path, heads_read):
    builder = long_log()
    builder.close_chunk()
    builder.cycle(2000, 30_000, [(1, 900, b"\x80")])
    with Log(slab(tmp_path, builder.leave_open())) as log:
        heads_read[0] = 0
        assert log[1500].cycle == 1500
    assert heads_read[0] < 10


@pytest.mark.parametrize("start", [{"start": 25}, {"start_ns": 1250}])
def test_slabs_that_end_before_the_start_are_not_searched(tmp_path, monkeypatch, start):
    for number in range(3):
        builder = Builder(slab=number)
        for cycle in range(10 * number, 10 * number + 10):
            builder.cycle(cycle, 1000 + 10 * cycle, [(1, 900, b"\x80")])
        (tmp_path / f"log_{number:04}.mcap").write_bytes(builder.finish(END).data)
    searched = []
    original = SlabReader.chunk_of

    def chunk_of(self, **place):
        searched.append(self.path.name)
        return original(self, **place)

    monkeypatch.setattr(SlabReader, "chunk_of", chunk_of)
    with Log(tmp_path) as log:
        assert [it.cycle for it in log.cycles(**start)] == list(range(25, 30))
    assert searched == ["log_0002.mcap"]


def test_heads_of_a_chunk_without_an_index_are_read_once(tmp_path, heads_read):
    builder = long_log()
    path = slab(tmp_path, builder.leave_open(5000))
    reader = SlabReader(path)
    starts = [builder.ends[number] - 41 - 32 for number in range(2000)]
    for number in (1500, 3, 1999, 0):
        assert reader.offset_of(0, cycle=number) == starts[number]
    assert 2000 <= heads_read[0] < 2010
    # A cycle that is committed meanwhile is read, and no other.
    builder = long_log()
    builder.cycle(2000, 1000 + 10 * 2000, [(1, 1, b"\x80")])
    with path.open("r+b") as file:
        file.write(builder.leave_open(5000 - 73).data)
    assert reader.offset_of(0, cycle=2000) == builder.ends[1999]
    assert 2001 <= heads_read[0] < 2015
    reader.close()


def test_heads_of_two_chunks_are_not_mixed(tmp_path):
    builder = Builder()
    for number in range(20):
        if number == 10:
            builder.close_chunk(index=False)
        builder.cycle(number, 1000 + number, [(1, 1, b"\x80")])
    reader = SlabReader(slab(tmp_path, builder.leave_open()))
    for number in (3, 13, 4, 19, 14, 0):
        expected = builder.ends[number] - 41 - 32
        assert reader.offset_of(number // 10, cycle=number) == expected
    reader.close()


@pytest.mark.parametrize("dense", [1, 2, 3])
def test_the_longest_index_of_a_chunk_is_searched(tmp_path, heads_read, dense):
    """Others would leave many cycles to be looked at."""
    builder = Builder()
    for number in range(300):
        messages = [(it, 1, b"\x80") for it in (1, 2, 3) if it == dense or number in (0, 299)]
        builder.cycle(number, 1000 + 10 * number, messages)
    with Log(slab(tmp_path, builder.finish(END))) as log:
        heads_read[0] = 0
        assert log[150].cycle == 150
        assert heads_read[0] < 10


def test_a_cycle_is_sought_in_its_slab_only(tmp_path, monkeypatch):
    for number in range(3):
        builder = small(first=20 * number, cycles=20, chunk_cycles=3, slab=number)
        (tmp_path / f"log_{number:04}.mcap").write_bytes(
            builder.finish(END if number == 2 else None).data
        )
    read = []
    original = CycleReader.records

    def records(self, index, start=None):
        for found in original(self, index, start):
            read.append(found[2])
            yield found

    monkeypatch.setattr(CycleReader, "records", records)
    with Log(tmp_path) as log:
        for number in range(60):
            read.clear()
            assert log[number].cycle == number
            assert read == [number]
            read.clear()
            found = log.cycles(start_ns=1000 + 10 * number, end_ns=1000 + 10 * number + 1)
            assert [it.cycle for it in found] == [number]
            assert read == [number, *([number + 1] if number < 59 else [])]
        read.clear()
        assert [it.cycle for it in log.cycles(19, 21)] == [19, 20]
        assert read == [19, 20, 21]
        read.clear()
        assert list(log.cycles(end=0)) == []
        assert read == [0]
        assert list(log.cycles(60)) == []
        assert list(log.cycles(start_ns=1591)) == []


# -- what a writer changes -----------------------------------------------------------------------


def test_a_reader_is_outdated_by_what_its_writer_does_at_the_end(tmp_path):
    whole = SlabReader(slab(tmp_path, small().finish(END)))
    whole.path.unlink()
    assert not whole.is_outdated()  # nothing will come

    path = slab(tmp_path, small().leave_open())
    reader = SlabReader(path)
    assert not reader.is_outdated()
    with path.open("ab") as file:
        file.write(b"x")
    assert reader.is_outdated()
    os.truncate(path, len(reader.view))
    assert not reader.is_outdated()
    path.rename(tmp_path / "moved")
    assert reader.is_outdated()
    (tmp_path / "moved").rename(path)
    assert not reader.is_outdated()
    chunk = reader.structure.chunks[-1]
    with path.open("r+b") as file:
        file.seek(chunk.start + 41)
        file.write((chunk.records_end - chunk.records_start - 9).to_bytes(8, "little"))
    assert reader.is_outdated()

    bare, closed, damaged = Builder(), small(), small().leave_open()
    bare.data += TRAILER
    closed.close_chunk()
    closed.data += pad(20) + TRAILER
    damaged.data[-50] ^= 1
    for builder in (bare, closed, damaged):
        assert SlabReader(slab(tmp_path, builder)).is_outdated()


def test_the_first_cycle_of_a_chunk_is_remembered_once_it_is_there(tmp_path):
    """Of a live slab: a chunk may be without one when it is looked at first."""
    builder = small(cycles=2, chunk_cycles=1)
    builder.close_chunk()
    builder.open_chunk()
    path = slab(tmp_path, builder.leave_open(200))
    reader = SlabReader(path)
    assert [reader.first(index) and reader.first(index).cycle for index in range(3)] == [0, 1, None]
    more = small(cycles=2, chunk_cycles=1)
    more.close_chunk()
    more.cycle(2, 1020, [(1, 1, b"\x80")])
    with path.open("r+b") as file:
        file.write(more.leave_open(200 - 73).data)
    assert reader.first(2).cycle == 2
    reader.close()


def test_a_first_cycle_that_is_damaged_is_none(tmp_path):
    builder = small(cycles=4, chunk_cycles=2)
    data = builder.finish(END).data
    data[builder.ends[2] - 1] ^= 1
    path = slab(tmp_path, builder)
    reader, careless = SlabReader(path), SlabReader(path, verify=False)
    assert (reader.first(0).cycle, reader.first(1)) == (0, None)
    assert careless.first(1).cycle == 2
