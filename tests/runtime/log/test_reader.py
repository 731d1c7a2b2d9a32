import io
import os
import shutil
import struct
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader

from flowrun.msgs import ImageRgb8Msg, IntMsg
from flowrun.runtime.errors import LogDamaged, LogError
from flowrun.runtime.log.bound import Remembered
from flowrun.runtime.log.channels import LoggedOutput, channels_of
from flowrun.runtime.log.lines import pack_log
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab import opening
from flowrun.runtime.log.slab.mapping import MappedFile
from flowrun.runtime.log.upkeep import Periodic
from flowrun.runtime.log.writer import LogWriter
from support import independent_reader, log_bytes
from support.log_bytes import TRAILER, Builder, small
from support.log_reading import END, read, run_of_three_slabs


def read_with_mcap(data):
    reader = make_reader(io.BytesIO(bytes(data)), validate_crcs=True)
    return [
        (message.sequence, message.log_time, channel.topic, message.publish_time, message.data)
        for _, channel, message in reader.iter_messages(log_time_order=False)
    ]


def flat(written):
    return [
        (cycle % 2**32, time_ns, topic, tov_ns, data)
        for cycle, time_ns, messages in written
        for topic, tov_ns, data in messages
    ]


# -- every state that a writer leaves ------------------------------------------------------------


def open_with_two_pads():
    """Grown: the PAD before has not swallowed the one after it yet."""
    builder = small()
    builder.data += log_bytes.pad(40)
    return builder.leave_open(60)


def grown_trailer_only():
    builder = small().leave_open()
    builder.data += bytes(500) + TRAILER
    return builder


def grown_length():
    builder = grown_trailer_only()
    builder.set(builder.chunk_start + 1, len(builder.data) - 50 - builder.chunk_start - 9)
    return builder


def grown_second_pad():
    builder = grown_length()
    at = len(builder.data) - 500 - 100
    builder.data[at : at + 9] = struct.pack("<BQ", 0x80, len(builder.data) - 50 - at - 9)
    return builder


def grown_pad_too_long():
    """A PAD that reaches beyond the records' end."""
    builder = grown_length()
    builder.set(builder.ends[-1] + 1, len(builder.data) - 50 - builder.ends[-1] - 9)
    return builder


def closing(fields):
    builder = small().leave_open()
    size = builder.ends[-1] - builder.chunk_start - 49
    for at, value in ((41, size), (25, size), (1, size + 40))[:fields]:
        builder.set(builder.chunk_start + at, value)
    return builder


def committing():
    """The old PAD has length 32; the cycle's messages come after it, the new PAD after them."""
    builder = small()
    builder.cycle(99, 5000, [(1, 1, b"\x80"), (2, 1, b"\x80")])
    builder.data[builder.ends[-2]] = 0x80
    builder.written.pop()
    return builder.leave_open()


def next_chunk_uncommitted():
    """MessageIndex and a Chunk are written; the first of them is still a PAD of its length."""
    builder = small()
    builder.cycle(50, 5000, [(1, 1, b"\x80")] * 9)
    builder.close_chunk()
    builder.data[builder.ends[-1]] = 0x80
    return builder.leave_open()


def data_end_uncommitted():
    builder = small()
    builder.close_chunk()
    at = len(builder.data)
    builder.finish()
    builder.data[at] = 0x80
    builder.data += bytes(300) + TRAILER
    return builder


def unpatched():
    builder = small(chunk_cycles=9)
    builder.close_chunk(index=False, patched=False)
    return builder.leave_open()


def finished_with_rest():
    builder = small().finish(END, truncated=False)
    builder.data += bytes(300) + TRAILER
    return builder


STATES = {
    "open": lambda: small().leave_open(),
    "no room left": lambda: small().leave_open(9),
    "only a preamble": lambda: Builder().leave_open(),
    "two pads": open_with_two_pads,
    "grown: new trailer": grown_trailer_only,
    "grown: length": grown_length,
    "grown: second pad": grown_second_pad,
    "grown: pad first": grown_pad_too_long,
    "closing 1": lambda: closing(1),
    "closing 2": lambda: closing(2),
    "closing 3": lambda: closing(3),
    "committing": committing,
    "next chunk": next_chunk_uncommitted,
    "data end": data_end_uncommitted,
    "unpatched": unpatched,
    "aligned": lambda: small(big=5000).leave_open(),
    "finished": lambda: small(big=5000).finish(END),
    "finished, not cut": lambda: small().finish(END, truncated=False),
    "finished, old trailer after it": finished_with_rest,
    "finished without a cycle": lambda: Builder().finish(END),
}


@pytest.mark.parametrize("state", STATES)
def test_every_state_of_a_writer_is_read_whole(state, write):
    builder = STATES[state]()
    assert read(write(builder.data)) == (builder.written, None)


@pytest.mark.parametrize("state", STATES)
def test_reader_from_the_document_agrees(state):
    builder = STATES[state]()
    assert independent_reader.read(bytes(builder.data)) == (builder.written, None)


FOREIGN = set(STATES) - {"grown: pad first", "committing"}


@pytest.mark.parametrize("state", sorted(FOREIGN))
def test_mcap_package_agrees(state):
    builder = STATES[state]()
    assert read_with_mcap(builder.data) == flat(builder.written)


def test_log_says_what_it_is(write):
    path = write(small().finish(END).data)
    with Log(path) as log:
        assert log.metadata["run_id"] == "run-1"
        assert log.attachments == {"graph.yaml": log_bytes.GRAPH}
        assert list(log.topics) == list(log_bytes.TOPICS)
        topic = log.topics["/cam/image"]
        assert (topic.message_encoding, topic.schema_name, topic.schema_encoding) == (
            "msgpack",
            "Any",
            "jsonschema",
        )
        assert topic.schema == b'{"title":"Any"}'
        assert topic.metadata == {"task": "cam", "port": "image"}
        assert log.finished
        assert log.end == END
        assert (log.start_ns, log.end_ns, len(log)) == (1000, 1040, 5)
        assert bool(log)


def test_unfinished_log_has_no_end(write):
    with Log(write(small().leave_open().data)) as log:
        assert not log.finished
        assert log.end is None
        assert (log.start_ns, log.end_ns, len(log)) == (1000, 1040, 5)


def test_log_without_a_cycle(write):
    with Log(write(Builder().leave_open().data)) as log:
        assert (log.start_ns, log.end_ns, len(log), list(log)) == (None, None, 0, [])
        assert list(log.cycles(3)) == []


def test_large_payloads_are_aligned_views_of_the_file(write):
    with Log(write(small(big=5000).leave_open().data)) as log:
        payloads = [m.payload for m in log.messages() if len(m.payload) == 5000]
        assert len(payloads) == 2
        for payload in payloads:
            assert payload.readonly
            assert np.frombuffer(payload, np.uint8).ctypes.data % 64 == 0


def test_payloads_outlive_the_log(write):
    log = Log(write(small(big=5000).leave_open().data))
    payload = log[1].entries[-1][2]
    log.close()
    assert bytes(payload) == bytes([1]) * 5000


# -- access --------------------------------------------------------------------------------------


def test_run_directory_is_read_in_order(tmp_path):
    written = run_of_three_slabs(tmp_path)
    (tmp_path / "log_0003.next").touch()  # made ahead, not begun
    (tmp_path / "log_0004.next").write_bytes(bytes(5000))
    assert read(tmp_path) == (written, None)
    with Log(tmp_path) as log:
        assert log.finished
        assert len(log) == 60


@pytest.mark.parametrize("finished", [True, False])
def test_each_cycle_is_found_by_number_and_time(tmp_path, finished):
    written = run_of_three_slabs(tmp_path)
    if not finished:
        for slab in range(3):
            builder = small(chunk_cycles=3, cycles=20, first=20 * slab, slab=slab)
            (tmp_path / f"log_{slab:04}.mcap").write_bytes(builder.leave_open().data)
    with Log(tmp_path) as log:
        for cycle, time_ns, messages in written:
            assert log[cycle].time_ns == time_ns
            assert len(log[cycle].entries) == len(messages)
            found = [r.cycle for r in log.cycles(start_ns=time_ns - 5, end_ns=time_ns + 6)]
            assert found == [cycle]
            assert [r.cycle for r in log.cycles(cycle, cycle + 3)] == list(
                range(cycle, min(cycle + 3, 60))
            )
        assert len(list(log.cycles(start_ns=1100))) == 50
        assert log.loss is None


def test_cycle_that_is_not_there(write):
    path = write(small().leave_open().data)
    with Log(path) as log, pytest.raises(LogError) as caught:
        log[7]
    assert str(caught.value) == f"{path}: cycle 7 is not in the log"


def test_messages_of_one_topic(write):
    builder = small(cycles=9)
    with Log(write(builder.leave_open().data)) as log:
        found = [
            (m.cycle, m.time_ns, m.tov_ns, bytes(m.payload)) for m in log.messages("/vlm/answer")
        ]
        both = list(log.messages(["/cam/image", "/vlm/answer"], 2, 4))
    assert found == [
        (cycle, time_ns, tov_ns, data)
        for cycle, time_ns, messages in builder.written
        for topic, tov_ns, data in messages
        if topic == "/vlm/answer"
    ]
    assert [(m.cycle, m.topic) for m in both] == [
        (2, "/cam/image"),
        (2, "/vlm/answer"),
        (3, "/cam/image"),
        (3, "/vlm/answer"),
    ]
    assert repr(both[0]) == ("LogMessage('/cam/image', cycle=2, time_ns=1020, tov_ns=902, 4 bytes)")


def test_unknown_topic_lists_those_there_are(write):
    path = write(small().leave_open().data)
    with Log(path) as log, pytest.raises(LogError) as caught:
        log.messages("/cam/imag")
    assert str(caught.value) == (
        f"{path}: no topic '/cam/imag'; topics: /cam/image, /vlm/answer, /flowrun/log "
        "(did you mean '/cam/image'?)"
    )


def fields_of(write, data, *, encoding="msgpack", schema="Any"):
    builder = Builder()
    builder.cycle(0, 1, [(1, 1, data)])
    log_file = bytes(builder.leave_open().data)
    with Log(write(log_file)) as log:
        found = log.slabs[0].preamble
        channel = found.channels[1]
        found.channel_of[channel.topic] = type(channel)(1, 1, channel.topic, encoding, {})
        found.schemas[1] = type(found.schemas[1])(1, schema, "", b"")
        return next(log.messages()).fields


def test_fields_of_msgpack_with_an_array(write):
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    packed = {"dtype": "<f4", "shape": [2, 3], "data": array.tobytes()}
    fields = fields_of(write, msgpack.packb({"a": 1, "b": packed}))
    assert fields["a"] == 1
    assert np.array_equal(fields["b"], array)


def test_fields_of_a_picture_and_a_log_line(write):
    image = ImageRgb8Msg()
    image.allocate_pixels(2, 3)[:] = 7
    image.publish(tov_ns=1)
    fields = fields_of(
        write, b"".join(image.encode()), encoding="protobuf", schema="foxglove.RawImage"
    )
    assert fields["pixels"].shape == (2, 3, 3)
    line = pack_log(5, "info", "hello", "cam", {"n": 1})
    assert fields_of(write, line, encoding="protobuf", schema="foxglove.Log")["message"] == "hello"


def test_fields_of_other_encodings(write):
    assert bytes(fields_of(write, b"abc", encoding="json")["data"]) == b"abc"
    assert fields_of(write, b"\x08\x07", encoding="protobuf", schema="other") == {"1": 7}


@pytest.mark.parametrize("data", [b"\xc1", b"\x93", b"\x01", b"", b"\x80\x80"])
def test_payload_that_is_not_of_its_encoding(write, data):
    with pytest.raises(LogError, match=f"cycle 0: /cam/image: the payload of {len(data)} bytes is"):
        fields_of(write, data)


# -- what our writer wrote ------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    cycles=st.lists(
        st.lists(
            st.tuples(
                st.integers(1, 3),
                st.integers(0, 2**64 - 1),
                st.binary(max_size=9) | st.just(b"x" * 5000),
            ),
            max_size=3,
        ),
        max_size=8,
    ),
    closes=st.sets(st.integers(0, 8)),
    finished=st.booleans(),
)
def test_what_was_written_is_read(cycles, closes, finished, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "law.mcap"
    builder = Builder()
    for number, messages in enumerate(cycles):
        if number in closes and builder.records_start is not None:
            builder.close_chunk()
        builder.cycle(number, 1000 + number, messages)
    builder = builder.finish(END) if finished else builder.leave_open()
    path.write_bytes(builder.data)
    assert read(path) == (builder.written, None)
    assert independent_reader.read(bytes(builder.data)) == (builder.written, None)
    assert read_with_mcap(builder.data) == flat(builder.written)


def test_cycles_committed_after_opening_are_seen(write):
    before = small(chunk_cycles=9)
    grown = small(chunk_cycles=9, cycles=7)
    size = len(grown.leave_open().data)
    path = write(before.leave_open(size - 50 - len(before.data)).data)
    with Log(path) as log:
        assert len(log) == 5
        path_bytes = grown.data
        with path.open("r+b") as file:
            file.write(path_bytes)
        assert len(log) == 7
        assert [r.cycle for r in log.cycles(4)] == [4, 5, 6]
        assert log.loss is None


def test_chunk_closed_by_its_writer_after_opening_ends_in_order(write):
    builder = small(chunk_cycles=9).leave_open(900)
    path = write(builder.data)
    closed = small(chunk_cycles=9)
    closed.close_chunk()
    closed.leave_open(100)
    with Log(path) as log:
        with path.open("r+b") as file:
            file.write(closed.data[:-50])
        assert len(log) == 5
        assert log.loss is None


def test_run_is_copied_and_read_elsewhere(tmp_path):
    (tmp_path / "a").mkdir()
    written = run_of_three_slabs(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert read(tmp_path / "b") == (written, None)


# -- pictures that a codec stored ----------------------------------------------------------------


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_a_stored_picture_is_what_was_published(tmp_path, codec):
    output = LoggedOutput("cam", "image", "/cam/image", ImageRgb8Msg, codec=codec)
    number = LoggedOutput("n", "out", "/n/out", IntMsg)
    writer = LogWriter(
        tmp_path / "run", outputs=[output, number], steps=1, metadata={"run_id": "x"}
    )
    image, value = ImageRgb8Msg(), IntMsg(value=4)
    bound = writer.bind([image, value])
    image.allocate_pixels(4, 6)[...] = np.arange(72).reshape(4, 6, 3)
    image.source, image.frame_id = "cam", 7
    image.publish(tov_ns=55)
    expected = b"".join(image.encode())
    value.publish(tov_ns=100)
    writer.commit(0, 100, bound, start_ns=0, ends_ns=[1], events=[])
    writer.finish({"reason": "test"})
    with Log(tmp_path / "run") as log:
        [cycle] = log
        stored, other = cycle.entries[:2]
        assert (bytes(stored[2]) == expected) == (codec == "raw")
        assert bytes(log.raw_payload(cycle, stored)) == expected
        assert bytes(log.raw_payload(cycle, other)) == bytes(other[2])
        message = log.message(cycle, stored)
        assert (message.cycle, message.time_ns, message.tov_ns) == (0, 100, 55)
        assert message.topic == "/cam/image"
        assert message.fields["pixels"].tolist() == np.arange(72).reshape(4, 6, 3).tolist()
        outline = message.outline
        assert outline["pixels"].shape == (4, 6, 3)
        assert (outline["pixels"].any(), outline["frame_id"]) == (codec == "raw", 7)
        assert [(it.cycle, it.tov_ns) for it in log.frames("/cam/image")] == [(0, 55)]
        assert log.topics["/cam/image"].is_picture


def test_a_stored_picture_that_is_none_says_so(write):
    builder = Builder(channel={"codec": "zstd"})
    for cycle, payload in enumerate((b"x", b"")):
        builder.cycle(cycle, 1000 + cycle, [(1, 1, payload)])
    path = write(builder.leave_open().data)
    with Log(path) as log:
        for message in log.messages("/cam/image"):
            for ask in ("fields", "outline"):
                with pytest.raises(LogDamaged) as caught:
                    getattr(message, ask)
                assert str(caught.value).startswith(
                    f"{path}: cycle {message.cycle}: /cam/image: the picture cannot be decoded: "
                )


# -- what is opened ------------------------------------------------------------------------------


def test_a_slab_that_is_cut_at_each_look_is_an_error(write, monkeypatch):
    path = write(small().leave_open().data)
    tries = []

    def cutting(fd, size):
        tries.append(size)
        os.truncate(path, size - 1)
        return memoryview(bytes(size))

    monkeypatch.setattr(opening, "MappedFile", cutting)
    with pytest.raises(LogError) as caught:
        Log(path)
    assert str(caught.value) == f"{path}: cannot be read: it is cut again and again"
    assert len(tries) == 20


@pytest.mark.parametrize("grows", [True, False])
def test_what_looks_damaged_in_a_file_that_grew_is_read_again(write, monkeypatch, grows):
    whole = bytes(small().leave_open().data)
    path = write(whole[:-60])
    real, tries = opening.MappedFile, []

    def growing(fd, size):
        tries.append(size)
        return real(fd, size)

    def structure_of(data, preamble_size):
        found = real_structure(data, preamble_size)
        if grows:
            path.write_bytes(whole)
        return found

    real_structure = opening._read_structure
    monkeypatch.setattr(opening, "MappedFile", growing)
    monkeypatch.setattr(opening, "_read_structure", structure_of)
    with Log(path) as log:
        assert (log.loss is None) == grows
        assert len(log) == 5
        assert log.slabs[0].size == (len(whole) if grows else len(whole) - 60)
    assert len(tries) == (2 if grows else 1)


def test_a_view_of_a_file_is_read_only_and_lets_it_go(tmp_path):
    path = tmp_path / "mapped"
    path.write_bytes(b"0123456789" * 500)

    def maps():
        return Path("/proc/self/maps").read_text().count(str(path))

    with path.open("rb") as file:
        view = MappedFile(file.fileno(), 4999).view
    assert (len(view), view.readonly, view.format, bytes(view[4990:])) == (
        4999,
        True,
        "B",
        b"012345678",
    )
    part = view[10:20]
    view.release()
    assert maps() == 1
    assert bytes(part) == b"0123456789"
    del view, part
    assert maps() == 0
    with path.open("wb") as file, pytest.raises(PermissionError):
        MappedFile(file.fileno(), 10)


# -- channels and what is bound ------------------------------------------------------------------


def test_channels_are_numbered_and_share_their_schemas():
    outputs = [
        LoggedOutput("a", "out", "/a/out", IntMsg),
        LoggedOutput("b", "out", "/b/out", IntMsg, logged=False),
        LoggedOutput("c", "out", "/c/out", ImageRgb8Msg),
        LoggedOutput("d", "out", "/d/out", IntMsg, payload=False),
        LoggedOutput("e", "out", "/e/out", IntMsg),
        LoggedOutput("f", "out", "/f/out", ImageRgb8Msg, codec="zstd"),
        LoggedOutput("g", "out", "/g/out", ImageRgb8Msg, codec="zstd", payload=False),
    ]
    schemas, channels, placed = channels_of(outputs)
    assert [(it.id, it.name) for it in schemas] == [
        (1, "IntMsg"), (2, "foxglove.RawImage"), (3, "foxglove.CompressedVideo"),
        (4, "flowrun.Steps"), (5, "flowrun.Control"), (6, "flowrun.Keyframe"), (7, "foxglove.Log"),
    ]  # fmt: skip
    assert [(it.id, it.schema_id, it.topic, it.message_encoding) for it in channels] == [
        (1, 1, "/a/out", "msgpack"), (2, 2, "/c/out", "protobuf"), (3, 0, "/d/out", ""),
        (4, 1, "/e/out", "msgpack"), (5, 3, "/f/out", "protobuf"), (6, 0, "/g/out", ""),
        (7, 4, "/flowrun/steps", "msgpack"), (8, 5, "/flowrun/control", "msgpack"),
        (9, 6, "/flowrun/keyframe", "msgpack"), (10, 7, "/flowrun/log", "protobuf"),
    ]  # fmt: skip
    assert [it.metadata.get("codec") for it in channels[:6]] == [None] * 4 + ["zstd", None]
    assert [it.metadata.get("payload") for it in channels[:6]] == [
        None, None, "none", None, None, "none",
    ]  # fmt: skip
    assert channels[0].metadata == {"task": "a", "port": "out"}
    assert placed == list(zip(outputs, [1, 0, 2, 3, 4, 5, 6], strict=True))


def test_what_is_made_for_a_size_is_remembered_for_small_ones():
    made = []
    sizes = Remembered(lambda size: made.append(size) or str(size))
    for size in (3, 1024, 1025, 3, 1024, 1025):
        assert sizes[size] == str(size)
    assert made == [3, 1024, 1025, 1025]


# -- at intervals --------------------------------------------------------------------------------


class Worker:
    def __init__(self, answers):
        self.answers = answers
        self.calls = 0

    def work(self):
        self.calls += 1
        return self.calls < self.answers


def test_periodic_work_ends_when_it_says_so_or_its_object_is_gone():
    worker = Worker(3)
    periodic = Periodic(worker.work, period_s=0.001, name="flowrun-test")
    periodic._thread.join(30)
    assert worker.calls == 3
    periodic.stop()
    periodic.stop()
    worker = Worker(10**9)
    periodic = Periodic(worker.work, period_s=0.001, name="flowrun-test")
    assert (periodic._thread.name, periodic._thread.daemon) == ("flowrun-test", True)
    del worker
    periodic._thread.join(30)
    assert not periodic._thread.is_alive()
    worker = Worker(10**9)
    periodic = Periodic(worker.work, period_s=1000, name="flowrun-test")
    periodic.stop()
    assert (worker.calls, periodic._thread.is_alive()) == (0, False)
