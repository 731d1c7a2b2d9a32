"""What the index of a slab says of its chunks, against the `mcap` package and the records themselves."""

from __future__ import annotations

import io
import os
import stat

import pytest
from mcap.reader import make_reader
from mcap.records import Chunk, MessageIndex
from mcap.stream_reader import StreamReader, breakup_chunk

from flowrun.runtime.log.files import slab_paths
from support.helpers import plan_of, record


@pytest.fixture
def slab(tmp_path):
    plan = plan_of(
        tmp_path, "n=Numbers(limit: 300); x=Scale", "n > x",
        "logging: {slab_size_mib: 4, section_size_mib: 1}",
    )  # fmt: skip
    record(plan, tmp_path / "run")
    return slab_paths(tmp_path / "run")[0]


def test_a_chunk_index_has_the_times_counts_and_places_of_its_chunk(slab):
    data = slab.read_bytes()
    with slab.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    assert summary.chunk_indexes
    for index in summary.chunk_indexes:
        records = record_at(data, index.chunk_start_offset)
        assert isinstance(records, Chunk)
        times: dict[int, list[int]] = {}
        for message in breakup_chunk(records):
            if type(message).__name__ == "Message":
                times.setdefault(message.channel_id, []).append(message.log_time)
        every = [time for of_channel in times.values() for time in of_channel]
        assert (index.message_start_time, index.message_end_time) == (min(every), max(every))
        assert (records.message_start_time, records.message_end_time) == (min(every), max(every))
        assert index.message_index_offsets.keys() == times.keys()
        for channel, offset in index.message_index_offsets.items():
            found = record_at(data, offset)
            assert isinstance(found, MessageIndex)
            assert found.channel_id == channel
            assert sorted(time for time, _ in found.records) == sorted(times[channel])


def record_at(data: bytes, offset: int):
    file = io.BytesIO(data[offset:])
    return next(iter(StreamReader(file, skip_magic=True, emit_chunks=True).records))


def test_a_slab_may_be_read_by_all_and_written_by_its_user(slab):
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(slab.stat().st_mode) == 0o644 & ~mask
