import contextlib
import io
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader

from flowrun.runtime.log.lines import LEVELS, LOG_SCHEMA, pack_log, unpack_log
from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.ends import build_end, build_preamble, build_summary
from flowrun.runtime.log.slab.records import (
    TRAILER,
    gap_before,
    pack_attachment,
    pack_channel,
    pack_chunk_index,
    pack_message_index,
    pack_metadata,
    pack_pad,
    pack_schema,
    pack_statistics,
    unpack_attachment,
    unpack_channel,
    unpack_check,
    unpack_chunk_index,
    unpack_header,
    unpack_message_index,
    unpack_metadata,
    unpack_metadata_index,
    unpack_schema,
    unpack_statistics,
)
from support import log_bytes

u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
texts = st.text(max_size=20)
quick = settings(max_examples=30)
maps = st.dictionaries(texts, texts, max_size=4)


def content(record):
    opcode, length = fmt.RECORD_HEAD.unpack_from(record)
    assert length == len(record) - fmt.HEAD_SIZE
    return opcode, record[fmt.HEAD_SIZE :]


def our_parts(builder):
    schemas = [fmt.Schema(1, "Any", "jsonschema", b'{"title":"Any"}')]
    channels = [
        fmt.Channel(
            number,
            1,
            topic,
            "msgpack",
            {"task": topic.split("/")[1], "port": topic.split("/")[2]},
        )
        for number, topic in enumerate(builder.topics, 1)
    ]
    attachment = fmt.Attachment("graph.yaml", "application/yaml", log_bytes.GRAPH, 5, 5)
    return schemas, channels, attachment


def test_trailer_is_50_bytes_of_mcap():
    assert log_bytes.TRAILER == TRAILER
    assert len(TRAILER) == 50


def test_preamble_is_what_the_table_says():
    builder = log_bytes.Builder()
    schemas, channels, attachment = our_parts(builder)
    preamble, metadata, attachments = build_preamble(
        "flowrun test",
        {"run_id": "run-1", "slab": "0", "graph": "g"},
        attachments=[attachment],
        schemas=schemas,
        channels=channels,
    )
    assert preamble == bytes(builder.data)
    assert [(p.offset, p.length) for p in metadata] == [builder.metadata_places[0][1:]]
    assert attachments == [fmt.Placed(builder.attachment_at, builder.attachment_length)]


def test_summary_is_what_the_table_says():
    builder = log_bytes.small(big=5000)
    builder.close_chunk()
    closed = len(builder.data)
    end = {"reason": "done"}
    builder.finish(end)
    schemas, channels, attachment = our_parts(builder)
    ending, placed = build_end(end, offset=closed)
    chunks = [
        fmt.ChunkInfo(start, size + 49, size, *times, places, length, counts)
        for start, size, times, places, length, counts in builder.chunks
    ]
    name, offset, length = builder.metadata_places[0]
    summary = build_summary(
        offset=closed + len(ending),
        schemas=schemas,
        channels=channels,
        chunks=chunks,
        attachments=[(attachment, fmt.Placed(builder.attachment_at, builder.attachment_length))],
        metadata=[(name, fmt.Placed(offset, length)), (fmt.END_NAME, placed)],
    )
    assert ending + summary == bytes(builder.data[closed:])


def test_summary_is_read_by_the_mcap_package():
    builder = log_bytes.small().finish({"reason": "done"})
    reader = make_reader(io.BytesIO(bytes(builder.data)), validate_crcs=True)
    summary = reader.get_summary()
    assert summary.statistics.message_count == sum(len(m) for _, _, m in builder.written)
    assert [chunk.chunk_start_offset for chunk in summary.chunk_indexes] == [
        chunk[0] for chunk in builder.chunks
    ]
    assert {item.name for item in reader.iter_metadata()} == {"flowrun", "flowrun.end"}
    assert [item.data for item in reader.iter_attachments()] == [log_bytes.GRAPH]


@quick
@given(st.integers(0, 2**40), st.sampled_from([(8, 7), (64, 0), (64, 33)]))
def test_gap_is_nothing_or_a_whole_pad(offset, alignment):
    gap = gap_before(offset, alignment=alignment[0], remainder=alignment[1])
    assert (offset + gap) % alignment[0] == alignment[1]
    assert gap == 0 or 9 <= gap <= 9 + alignment[0]
    assert gap == 0 or len(pack_pad(gap)) == gap


@quick
@given(maps, texts)
def test_metadata_round_trip(values, name):
    opcode, data = content(pack_metadata(name, values))
    assert opcode == 0x0C
    assert unpack_metadata(data) == (name, values)


@quick
@given(texts, texts, st.binary(max_size=50), u64, u64)
def test_attachment_round_trip(name, media_type, data, log_time, create_time):
    attachment = fmt.Attachment(name, media_type, data, log_time, create_time)
    assert unpack_attachment(content(pack_attachment(attachment))[1]) == attachment


@quick
@given(u16, u16, texts, texts, maps, st.binary(max_size=50))
def test_schema_and_channel_round_trip(number, other, name, encoding, values, data):
    schema = fmt.Schema(number, name, encoding, data)
    channel = fmt.Channel(number, other, name, encoding, values)
    assert unpack_schema(content(pack_schema(schema))[1]) == schema
    assert unpack_channel(content(pack_channel(channel))[1]) == channel


@quick
@given(u16, st.lists(st.tuples(u64, u64), max_size=5))
def test_message_index_round_trip(channel, entries):
    joined = b"".join(fmt.INDEX_ENTRY.pack(*entry) for entry in entries)
    packed = content(pack_message_index(channel, joined))[1]
    assert unpack_message_index(packed) == (channel, entries)


@quick
@given(st.lists(u64, min_size=6, max_size=6), st.dictionaries(u16, u64, max_size=3))
def test_chunk_index_and_statistics_round_trip(numbers, by_channel):
    start, length, size, first, last, index_length = numbers
    chunk = fmt.ChunkInfo(start, length, size, first, last, by_channel, index_length)
    assert unpack_chunk_index(content(pack_chunk_index(chunk))[1]) == chunk
    statistics = fmt.Statistics(start, 3, 4, 5, 6, 7, first, last, by_channel)
    assert unpack_statistics(content(pack_statistics(statistics))[1]) == statistics


UNPACKERS = [
    unpack_header,
    unpack_metadata,
    unpack_check,
    unpack_attachment,
    unpack_schema,
    unpack_channel,
    unpack_message_index,
    unpack_statistics,
    unpack_chunk_index,
    unpack_metadata_index,
    unpack_log,
]


@pytest.mark.parametrize("unpack", UNPACKERS, ids=lambda unpack: unpack.__name__)
@quick
@given(data=st.binary(max_size=60))
def test_unpack_of_any_bytes_gives_a_record_or_value_error(unpack, data):
    with contextlib.suppress(ValueError):
        unpack(data)


def test_attachment_with_a_flipped_byte_is_refused():
    data = bytearray(content(pack_attachment(fmt.Attachment("a", "b", b"contents", 1, 2)))[1])
    data[-8] ^= 1
    with pytest.raises(ValueError, match=r"^attachment 'a' does not match its CRC$"):
        unpack_attachment(data)


@quick
@given(
    u64.filter(lambda t: t < 2**63),
    st.sampled_from(LEVELS),
    texts,
    texts,
    st.dictionaries(texts, st.integers(-9, 9) | texts | st.none(), max_size=3),
)
def test_log_record_round_trip(time_ns, level, message, name, fields):
    assert unpack_log(pack_log(time_ns, level, message, name, fields)) == {
        "time_ns": time_ns,
        "level": level,
        "message": message,
        "name": name,
        "fields": fields,
    }


@pytest.mark.parametrize(
    ("given_level", "level"),
    [
        ("info", "INFO"),
        ("critical", "FATAL"),
        ("warn", "WARNING"),
        ("exception", "ERROR"),
        ("loud", "UNKNOWN"),
    ],
)
def test_log_record_levels_of_the_logging_methods(given_level, level):
    assert unpack_log(pack_log(0, given_level, "", "", {}))["level"] == level


def test_log_record_keeps_what_msgpack_cannot_pack_as_text():
    packed = unpack_log(pack_log(0, "info", "\ud800", "cam", {"path": Path("x"), "big": 2**70}))
    assert packed["message"] == "\\ud800"
    assert packed["fields"] == {"path": "PosixPath('x')", "big": str(2**70)}
    assert unpack_log(pack_log(0, "info", "", "", {"n": [{1: float}]}))["fields"] == {
        "n": [{1: "<class 'float'>"}]
    }


def test_log_schema_names_the_enum_and_all_fields():
    for word in (b"foxglove", b"Log", b"Level", b"FATAL", b"timestamp", b"message", b"line"):
        assert word in LOG_SCHEMA


def test_message_head_is_31_bytes():
    assert fmt.MESSAGE_HEAD.pack(5, 22, 1, 2, 3, 4) == log_bytes.record(
        5, struct.pack("<HIQQ", 1, 2, 3, 4)
    )


def test_contents_are_not_shown_where_a_record_is():
    for record in (
        fmt.Schema(1, "name", "b", b"hidden"),
        fmt.Attachment("name", "b", b"hidden", 1, 2),
    ):
        assert "name" in repr(record)
        assert "hidden" not in repr(record)
