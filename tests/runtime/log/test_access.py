"""A cycle found by number or time, through the indexes of the chunks, also where those are damaged."""

from __future__ import annotations

import numpy as np
import pytest

from flowrun.runtime.errors import LogError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.recover import recover
from flowrun.runtime.log.slab.cycles import CycleReader
from support.log_bytes import Builder, small

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


@pytest.mark.parametrize("wrong", [1.5, "a", slice(1, 3), None])
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
