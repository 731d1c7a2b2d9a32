from __future__ import annotations

import contextlib
import inspect
import itertools
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader

from flowrun.msgs import BytesMsg, ImageRgb8Msg, IntMsg
from flowrun.msgs.fields import MessageTypeError
from flowrun.runtime.errors import LogError, LogInUse
from flowrun.runtime.events import Set
from flowrun.runtime.graph.spec import LoggingSpec
from flowrun.runtime.log import rolling
from flowrun.runtime.log import writer as log_writer
from flowrun.runtime.log.channels import LoggedOutput
from flowrun.runtime.log.check import check_log
from flowrun.runtime.log.files import slab_paths
from flowrun.runtime.log.lock import is_locked
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.recover import recover
from flowrun.runtime.log.slab import disk
from flowrun.runtime.log.slab import writer as log_slab
from flowrun.runtime.log.slab.format import Attachment
from flowrun.runtime.log.writer import LogWriter
from support.log_writing import T0, commit, payload, writer_of
from support.paths import TESTS


def write(directory, count, *, size=100, finish=True, **options):
    """`count` cycles of one message of `size` bytes that tells its cycle."""
    message = BytesMsg()
    writer = writer_of(directory, BytesMsg, **options)
    bound = writer.bind([message])
    for cycle in range(count):
        message.value = payload(cycle, size)
        message.publish(tov_ns=cycle)
        commit(writer, bound, cycle)
    if finish:
        writer.finish({"reason": "test"})
    return writer


def check_all_by_us(directory, count, size):
    with Log(directory) as log:
        assert log.loss is None
        ours = [(m.cycle, m.tov_ns, m.fields["value"]) for m in log.messages("/t0/out")]
    assert ours == [(cycle, cycle, payload(cycle, size)) for cycle in range(count)]
    return ours


def check_all(directory, count, size):
    """Our reader and the mcap package agree that all is there."""
    ours = check_all_by_us(directory, count, size)
    theirs = []
    for path in sorted(directory.glob("*.mcap")):
        with path.open("rb") as file:
            for _schema, channel, message in make_reader(file, validate_crcs=True).iter_messages():
                if channel.topic == "/t0/out":
                    theirs.append((message.sequence, message.publish_time, message.data))
    assert [(a, b) for a, b, _ in theirs] == [(a, b) for a, b, _ in ours]


@pytest.mark.parametrize(
    ("count", "size"), [(0, 10), (1, 10), (5000, 100), (60, 100_000), (9, 3_000_000)]
)
def test_what_is_written_is_read(tmp_path, count, size):
    write(tmp_path / "run", count, size=size)
    check_all(tmp_path / "run", count, size)


def test_slabs_roll_and_each_can_be_read_alone(tmp_path):
    write(tmp_path / "run", 300, size=30_000)
    slabs = sorted((tmp_path / "run").glob("*.mcap"))
    assert [path.name for path in slabs] == [f"log_{i:04}.mcap" for i in range(len(slabs))]
    assert len(slabs) > 3
    read = []
    for path in slabs:
        with path.open("rb") as file:
            reader = make_reader(file, validate_crcs=True)
            assert reader.get_summary().statistics.chunk_count >= 1
            read += [m.sequence for _, c, m in reader.iter_messages() if c.topic == "/t0/out"]
    assert read == list(range(300))


def test_chunks_are_closed_and_indexed(tmp_path, monkeypatch):
    monkeypatch.setattr(log_slab, "CHUNK_SIZE", 10_000)
    write(tmp_path / "run", 2000)
    check_all(tmp_path / "run", 2000, 100)
    with (tmp_path / "run" / "log_0000.mcap").open("rb") as file:
        summary = make_reader(file, validate_crcs=True).get_summary()
    assert len(summary.chunk_indexes) > 20
    counts = summary.statistics.channel_message_counts
    assert counts == {1: 2000, 2: 2000}
    assert all(len(index.message_index_offsets) == 2 for index in summary.chunk_indexes)


def test_a_slab_holds_all_its_blocks_from_the_beginning(tmp_path):
    writer = writer_of(tmp_path / "run", IntMsg, slab_size_mib=64)
    slab = tmp_path / "run" / "log_0000.mcap"
    assert slab.stat().st_size < 40 << 20
    assert 512 * slab.stat().st_blocks >= 72 << 20
    writer.finish({"reason": "test"})


def test_a_finished_slab_keeps_nothing_preallocated(tmp_path):
    writer = write(tmp_path / "run", 10, slab_size_mib=64)
    path = tmp_path / "run" / "log_0000.mcap"
    assert path.stat().st_size < 10_000
    assert path.stat().st_blocks * 512 < 100_000
    assert writer.messages == 10


def test_large_pictures_are_aligned_and_views_of_the_file(tmp_path):
    image = ImageRgb8Msg()
    writer = writer_of(tmp_path / "run", IntMsg, ImageRgb8Msg, slab_size_mib=16)
    bound = writer.bind([IntMsg(), image])
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (121, 203, 3), np.uint8) for _ in range(20)]
    for cycle, pixels in enumerate(pictures):
        image.allocate_pixels(121, 203)[...] = pixels
        image.source = "s" * cycle  # moves the pixels about
        image.publish(tov_ns=1)
        commit(writer, bound, cycle)
    writer.finish({"reason": "test"})
    with Log(tmp_path / "run") as log:
        for pixels, message in zip(pictures, log.messages("/t1/out"), strict=True):
            read = message.fields["pixels"]
            np.testing.assert_array_equal(read, pixels)
            assert read.ctypes.data % 64 == 0
            assert not read.flags.writeable


@pytest.mark.parametrize("kind", [int, np.int32, np.int64, np.uint64])
@pytest.mark.parametrize(
    ("message_type", "codec"),
    [(IntMsg, "raw"), (ImageRgb8Msg, "raw"), (ImageRgb8Msg, "zstd"), (ImageRgb8Msg, "ffv1")],
)
def test_a_time_of_validity_may_be_of_any_integer_type(tmp_path, kind, message_type, codec):
    message = message_type()
    output = LoggedOutput("t", "out", "/t/out", message_type, codec=codec)
    writer = LogWriter(tmp_path / "run", outputs=[output], steps=1, metadata={"run_id": "x"})
    bound = writer.bind([message])
    if message_type is ImageRgb8Msg:
        message.allocate_pixels(4, 6)[...] = 7
    message.publish(tov_ns=kind(2**31 - 1))
    commit(writer, bound, 0)
    writer.finish({"reason": "test"})
    with Log(tmp_path / "run") as log:
        [read] = log.messages("/t/out")
        assert read.tov_ns == 2**31 - 1
        assert set(read.fields) == set(message.defaults)


def test_log_records_and_events_are_messages_of_the_cycle(tmp_path):
    message = IntMsg(value=1)
    writer = writer_of(tmp_path / "run", IntMsg)
    bound = writer.bind([message])
    writer.log_record(T0, "info", "hello", "cam0", {"n": 3})
    commit(writer, bound, 0, [Set("a", {"k": [1]})])
    writer.log_record(T0 + 9, "error", "after", "flowrun", {})
    writer.finish({"reason": "test"})
    with Log(tmp_path / "run") as log:
        records = [(m.cycle, m.fields) for m in log.messages("/flowrun/log")]
        assert [m.fields["kind"] for m in log.messages("/flowrun/control")] == ["set"]
        assert list(log.messages("/t0/out")) == []
    assert [(cycle, r["level"], r["message"], r["name"], r["fields"]) for cycle, r in records] == [
        (0, "INFO", "hello", "cam0", {"n": 3}),
        (1, "ERROR", "after", "flowrun", {}),
    ]


def test_without_payload_a_message_keeps_its_time_and_cycle(tmp_path):
    outputs = [
        LoggedOutput("a", "out", "/a/out", IntMsg, payload=False),
        LoggedOutput("b", "out", "/b/out", ImageRgb8Msg, payload=False),
        LoggedOutput("c", "out", "/c/out", IntMsg),
    ]
    writer = LogWriter(
        tmp_path / "run",
        outputs=outputs,
        steps=1,
        metadata={"run_id": "x"},
        slab_size_mib=1,
        section_size_mib=1,
    )
    number, image, other = IntMsg(value=7), ImageRgb8Msg(), IntMsg(value=8)
    bound = writer.bind([number, image, other])
    for cycle in range(3):
        number.publish(tov_ns=cycle)
        image.clear()
        image.allocate_pixels(700, 900)
        if cycle == 1:
            image.publish(tov_ns=5)
        other.publish(tov_ns=0)
        commit(writer, bound, cycle)
    writer.finish({"reason": "test"})
    with Log(tmp_path / "run") as log:
        read = [
            (m.topic, m.cycle, m.tov_ns, bytes(m.payload))
            for m in log.messages(["/a/out", "/b/out"])
        ]
        assert read == [
            ("/a/out", 0, 0, b""),
            ("/a/out", 1, 1, b""),
            ("/b/out", 1, 5, b""),
            ("/a/out", 2, 2, b""),
        ]
        assert [m.fields["value"] for m in log.messages("/c/out")] == [8, 8, 8]
        topic = log.topics["/a/out"]
        assert topic.metadata == {"task": "a", "port": "out", "payload": "none"}
        assert (topic.message_encoding, topic.schema_name) == ("", "")
        assert check_log(log)[2] == []
    [path] = (tmp_path / "run").glob("*.mcap")
    with path.open("rb") as file:
        theirs = list(make_reader(file, validate_crcs=True).iter_messages(topics=["/a/out"]))
    assert [(m.log_time, m.data, schema) for schema, _, m in theirs] == [
        (T0 + cycle, b"", None) for cycle in range(3)
    ]


def fill_until_next_is_made(directory, *, size=3000):
    """A writer whose next slab is made already, its slab not yet full; the cycles committed."""
    message = BytesMsg()
    writer = writer_of(directory, BytesMsg, slab_size_mib=1)
    bound = writer.bind([message])
    cycle = 0
    while writer._slabs._next is None:
        message.value = payload(cycle, size)
        message.publish(tov_ns=cycle)
        commit(writer, bound, cycle)
        cycle += 1
    writer._slabs._next.result()
    return writer, cycle


def test_the_next_slab_is_made_ahead_and_passed_over_by_readers(tmp_path):
    writer, count = fill_until_next_is_made(tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run").glob("log_*"))
    assert names == ["log_0000.mcap", "log_0001.next"]
    check_all_by_us(tmp_path / "run", count, 3000)
    writer.finish({"reason": "test"})
    assert [path.name for path in (tmp_path / "run").glob("log_*")] == ["log_0000.mcap"]
    check_all(tmp_path / "run", count, 3000)


@pytest.mark.parametrize(("ready", "faults"), [(True, 0), (False, 0), (True, 1000)])
def test_large_payloads_are_the_same_whether_their_pages_are_ready_or_not(
    tmp_path, monkeypatch, ready, faults
):
    """Through the mapping or through the file; a chunk's CRC is put together from its payloads'.
    Pages that were ready and fault nevertheless are populated again."""
    always = property(lambda _: ready << 40, lambda *_: None)
    monkeypatch.setattr(log_slab.PagePopulator, "ready_to", always, raising=False)
    again = []
    monkeypatch.setattr(log_slab.PagePopulator, "populate_again", lambda _, at: again.append(at))
    seen = itertools.count(0, faults) if faults else itertools.repeat(0)
    monkeypatch.setattr(log_slab, "page_faults", lambda: next(seen))
    sizes = [200_000, 10, 3_000_001, 64 << 10, (64 << 10) + 1, 6_000_000, 5_000_000, 1]
    message = BytesMsg()
    writer = writer_of(tmp_path / "run", BytesMsg, slab_size_mib=32)
    bound = writer.bind([message])
    for cycle, size in enumerate(sizes):
        message.value = payload(cycle, size)
        message.publish(tov_ns=cycle)
        commit(writer, bound, cycle)
    writer.finish({"reason": "test"})
    assert len(again) == (6 if faults else 0)
    with Log(tmp_path / "run") as log:
        assert check_log(log)[2] == []
        read = [message.fields["value"] for message in log.messages("/t0/out")]
        assert sum(len(slab.structure.chunks) for slab in log.slabs) >= 2
    assert read == [payload(cycle, size) for cycle, size in enumerate(sizes)]
    with (tmp_path / "run" / "log_0000.mcap").open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        assert len(list(reader.iter_messages("/t0/out"))) == len(sizes)


def test_a_payload_that_the_file_system_refuses_leaves_the_cycles_before_it(tmp_path, monkeypatch):
    """As a file system without preallocation does when the disk is full."""
    never = property(lambda _: 0, lambda *_: None)
    monkeypatch.setattr(log_slab.PagePopulator, "ready_to", never, raising=False)
    message = BytesMsg(value=payload(0, 100_000))
    writer = writer_of(tmp_path / "run", BytesMsg, slab_size_mib=32)
    bound = writer.bind([message])
    message.publish(tov_ns=0)
    commit(writer, bound, 0)

    def refuse(fd, data, at):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(log_slab, "write_all", refuse)
        with pytest.raises(LogError, match="the log cannot grow: No space left on device"):
            commit(writer, bound, 1)
    writer.finish({"reason": "full"})
    with Log(tmp_path / "run") as log:
        assert check_log(log)[2] == []
        assert [message.cycle for message in log.messages("/t0/out")] == [0]


def test_recovery_removes_a_slab_that_was_never_begun(tmp_path):
    writer, count = fill_until_next_is_made(tmp_path / "run")
    copy = shutil.copytree(tmp_path / "run", tmp_path / "copy")
    writer.finish({"reason": "test"})
    assert recover(copy).lost is None
    assert [path.name for path in copy.glob("log_*")] == ["log_0000.mcap"]
    check_all(copy, count, 3000)


def test_recovery_removes_a_slab_that_was_killed_while_it_was_made(tmp_path, monkeypatch):
    """Whatever of its beginning was written when the process died."""
    states = []
    path = tmp_path / "run" / "log_0000.next"
    write_all = log_slab.write_all

    def write_and_copy(fd, data, at):
        states.append(path.read_bytes())
        for size in {1, 8, 9, len(data) // 2, len(data) - 1}:
            write_all(fd, data[:size], at)
            states.append(path.read_bytes())
        write_all(fd, data, at)
        states.append(path.read_bytes())

    def commit_and_copy(slab, records):
        at, mapping = slab.position, slab.mapping
        states.append(path.read_bytes())
        mapping[at + 9 : at + len(records)] = records[9:]
        states.append(path.read_bytes())
        mapping[at + 1 : at + 9] = records[1:9]
        states.append(path.read_bytes())
        mapping[at] = records[0]
        states.append(path.read_bytes())

    begin = log_slab.Slab.begin

    def copy_and_begin(slab):
        states.append(path.read_bytes())
        begin(slab)

    with monkeypatch.context() as patch:
        patch.setattr(log_slab, "write_all", write_and_copy)
        patch.setattr(log_slab.Slab, "commit_records", commit_and_copy)
        patch.setattr(log_slab.Slab, "begin", copy_and_begin)
        writer = writer_of(tmp_path / "run", IntMsg)
    writer.finish({"reason": "test"})
    assert len(states) > 15
    copy = tmp_path / "copy"
    write(copy, 3)
    for state in states:
        (copy / "log_0001.next").write_bytes(state)
        assert recover(copy).lost is None
        assert [path.name for path in copy.glob("log_*")] == ["log_0000.mcap"]
    check_all(copy, 3, 100)


def test_a_slab_whose_name_did_not_reach_the_disk_is_read_and_gets_it(tmp_path):
    """What a power cut leaves of the renaming that begins a slab, after cycles in it were flushed."""
    run = tmp_path / "run"
    writer, count = fill_until_next_is_made(run)
    message = BytesMsg()
    bound = writer.bind([message])
    while len(list(run.glob("*.mcap"))) < 2:
        message.value = payload(count, 3000)
        message.publish(tov_ns=count)
        commit(writer, bound, count)
        count += 1
    writer._slabs._wait_for_finished()  # a slab that is finished while it is copied is torn
    copy = shutil.copytree(run, tmp_path / "copy")
    writer.finish({"reason": "test"})
    (copy / "log_0001.mcap").rename(copy / "log_0001.next")
    check_all_by_us(copy, count, 3000)
    assert recover(copy).lost is None
    assert sorted(path.name for path in copy.glob("log_*")) == ["log_0000.mcap", "log_0001.mcap"]
    check_all(copy, count, 3000)


def test_a_slab_that_begins_with_zeros_is_a_stated_loss(tmp_path):
    run = tmp_path / "run"
    writer, _ = fill_until_next_is_made(run)
    writer.finish({"reason": "test"})
    (run / "log_0001.mcap").write_bytes(bytes(8) + (run / "log_0000.mcap").read_bytes()[8:])
    with Log(run) as log:
        assert log.loss == f"{run}/log_0001.mcap: byte 0: its beginning was never written"


@pytest.mark.parametrize(("lost", "kept"), [(8, True), (4096, False)])
def test_recovery_keeps_a_slab_whose_first_bytes_did_not_reach_the_disk(tmp_path, lost, kept):
    write(tmp_path / "run", 400, finish=False).finish({"reason": "test"})
    path = tmp_path / "run" / "log_0000.mcap"
    data = bytearray(path.read_bytes())
    data[:lost] = bytes(lost)
    path.write_bytes(data)
    if kept:
        assert recover(tmp_path / "run").lost is None
        check_all(tmp_path / "run", 400, 100)
    else:
        with pytest.raises(LogError) as caught:
            recover(tmp_path / "run")
        assert str(caught.value) == f"{path}: byte 0: its beginning was never written"
        assert path.read_bytes() == data


def test_a_cycle_larger_than_a_slab_gets_one_of_its_own(tmp_path):
    writer, count = fill_until_next_is_made(tmp_path / "run")
    message = BytesMsg(value=payload(count, 3_000_000))
    message.publish(tov_ns=count)
    commit(writer, writer.bind([message]), count)
    writer.finish({"reason": "test"})
    with Log(tmp_path / "run") as log:
        assert [m.cycle for m in log.messages("/t0/out")] == list(range(count + 1))
        assert log.loss is None
        assert len(log.slabs) == 2


def test_a_flight_recorder_keeps_the_last_slabs(tmp_path):
    message = BytesMsg()
    writer = writer_of(tmp_path / "run", BytesMsg, slab_size_mib=1, keep_slabs=3)
    bound = writer.bind([message])
    most = 0
    for cycle in range(1000):
        message.value = payload(cycle, 10_000)
        message.publish(tov_ns=cycle)
        commit(writer, bound, cycle)
        most = max(most, len(list((tmp_path / "run").glob("*.mcap"))))
    # The one made ahead, and the oldest while the one that was filled last is being finished.
    assert most <= 3 + 2
    writer.finish({"reason": "test"})
    names = sorted(path.name for path in (tmp_path / "run").glob("*.mcap"))
    last = int(names[-1][4:8])
    assert names == [f"log_{number:04}.mcap" for number in range(last - 2, last + 1)]
    assert last > 6
    with Log(tmp_path / "run") as log:
        read = [(m.cycle, m.fields["value"]) for m in log.messages("/t0/out")]
        assert log.finished
        assert log.loss is None
        assert log.metadata["keep_slabs"] == "3"
        assert check_log(log)[2] == []
    assert read == [(c, payload(c, 10_000)) for c in range(read[0][0], 1000)]
    assert 200 < len(read) < 320


def test_two_writers_on_one_directory_are_refused(tmp_path):
    writer = writer_of(tmp_path / "run", IntMsg)
    with pytest.raises(LogInUse) as caught:
        writer_of(tmp_path / "run", IntMsg)
    assert str(caught.value) == f"{tmp_path / 'run'}: another process is writing this run"
    writer.finish({"reason": "test"})


def test_a_log_is_never_written_over(tmp_path):
    write(tmp_path / "run", 1)
    with pytest.raises(LogInUse, match="holds a run already; a log is never written over$"):
        writer_of(tmp_path / "run", IntMsg)


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError) as caught:
        writer_of(tmp_path / "file" / "run", IntMsg)
    assert str(caught.value) == (
        f"{tmp_path / 'file' / 'run'}: cannot create the run's directory: Not a directory"
    )


def test_a_slab_that_cannot_be_preallocated_is_said_before_the_run(tmp_path):
    with pytest.raises(LogError) as caught:
        writer_of(tmp_path / "run", IntMsg, slab_size_mib=1 << 33)
    assert re.fullmatch(
        r".*log_0000\.mcap: (cannot preallocate \d+ MiB: the disk is full; .*|"
        r"cannot create the log: .*)",
        str(caught.value),
    )
    assert list((tmp_path / "run").glob("*.mcap")) == []


def test_a_line_waits_for_the_next_cycle_where_one_cannot_be_encoded(tmp_path, monkeypatch):
    writer = writer_of(tmp_path / "run", IntMsg)
    bound = writer.bind([IntMsg()])
    writer.log_record(5, "info", "waits", "t", {})

    def encode(*_):
        raise MessageTypeError("cannot be encoded")

    with monkeypatch.context() as patched:
        patched.setattr(type(bound), "encode", encode)
        with pytest.raises(MessageTypeError):
            commit(writer, bound, 0)
    commit(writer, bound, 0)
    with Log(tmp_path / "run") as log:
        found = [(it.cycle, it.fields["message"]) for it in log.messages("/flowrun/log")]
    assert found == [(0, "waits")]
    writer.finish({"reason": "test"})


def test_an_unfinished_log_is_read_by_us_and_by_the_mcap_package(tmp_path):
    writer = write(tmp_path / "run", 500, finish=False)
    with Log(tmp_path / "run") as log:
        assert not log.finished
    check_all(tmp_path / "run", 500, 100)
    writer.finish({"reason": "test"})


def test_a_copy_at_any_moment_of_writing_is_valid(tmp_path, monkeypatch):
    """Between any two cycles, with chunks closing, sections growing and slabs rolling."""
    monkeypatch.setattr(log_slab, "CHUNK_SIZE", 40_000)
    monkeypatch.setattr(log_slab, "_LOOK_AHEAD", 100_000)
    message = BytesMsg()
    writer = writer_of(tmp_path / "run", BytesMsg, slab_size_mib=1)
    bound = writer.bind([message])
    rng = random.Random(1)
    for cycle in range(600):
        message.value = payload(cycle, rng.choice([1, 50, 3000, 9000]))
        message.publish(tov_ns=cycle)
        commit(writer, bound, cycle)
        if cycle % 7 == 0:
            path = slab_paths(tmp_path / "run")[-1]
            copy = tmp_path / "copy.mcap"
            copy.write_bytes(path.read_bytes())
            with Log(copy) as log:
                assert log.loss is None
                cycles = [m.cycle for m in log.messages("/t0/out")]
            with copy.open("rb") as file:
                messages = make_reader(file).iter_messages(topics=["/t0/out"])
                assert [m.sequence for _, _, m in messages] == cycles
            assert not cycles or cycles[-1] == cycle
    writer.finish({"reason": "test"})


KILLED = """
    import sys
    from pathlib import Path
    sys.path.insert(0, "{tests}")
    from flowrun.msgs import BytesMsg
    from support.log_writing import commit, payload, writer_of

    message = BytesMsg()
    writer = writer_of(Path({run!r}), BytesMsg, slab_size_mib=1)
    bound = writer.bind([message])
    cycle = 0
    while True:
        message.value = payload(cycle, 100 + cycle * 37 % 5000)
        message.publish(tov_ns=cycle)
        commit(writer, bound, cycle)
        sys.stdout.buffer.write(b"%d\\n" % cycle)
        sys.stdout.buffer.flush()
        cycle += 1
"""


@pytest.mark.slow
def test_a_killed_writer_loses_nothing_that_was_committed(tmp_path):
    rng = random.Random(2)
    for trial in range(3):
        run = tmp_path / f"run{trial}"
        code = textwrap.dedent(KILLED).format(tests=TESTS, run=str(run))
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        until = rng.randrange(200, 4000)
        said = -1
        for line in writer.stdout:
            said = int(line)
            if said >= until:
                break
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().split(b"\n")
        said = max([said, *(int(line) for line in rest[:-1])])
        writer.stdout.close()
        writer.wait()
        with Log(run) as log:
            assert not log.finished
            assert log.loss is None
            read = [(m.cycle, m.fields["value"]) for m in log.messages("/t0/out")]
        assert read == [(c, payload(c, 100 + c * 37 % 5000)) for c in range(len(read))]
        assert len(read) in (said + 1, said + 2)  # it may have died before it said so
        seen = 0
        for path in slab_paths(run):
            with path.open("rb") as file:
                seen += len(list(make_reader(file).iter_messages(topics=["/t0/out"])))
        assert seen == len(read)


def test_a_preamble_larger_than_a_section_fits(tmp_path):
    message = IntMsg(value=5)
    large = Attachment("graph.yaml", "application/yaml", bytes(3 << 20), 1, 1)
    writer = writer_of(
        tmp_path / "run", IntMsg, slab_size_mib=1, section_size_mib=1, attachments=[large]
    )
    bound = writer.bind([message])
    message.publish(tov_ns=1)
    for cycle in range(3):
        commit(writer, bound, cycle)
    writer.finish({"reason": "test"})
    with Log(tmp_path / "run") as log:
        assert [m.fields["value"] for m in log.messages("/t0/out")] == [5, 5, 5]
        assert len(log.attachments["graph.yaml"]) == 3 << 20
        assert check_log(log)[2] == []


@pytest.mark.parametrize(("logged_ns", "expected_ns"), [(5, T0 + 1), (T0 + 77, T0 + 77)])
def test_lines_after_the_last_cycle_are_not_before_it(tmp_path, logged_ns, expected_ns):
    message = IntMsg(value=5)
    writer = writer_of(tmp_path / "run", IntMsg)
    bound = writer.bind([message])
    message.publish(tov_ns=1)
    commit(writer, bound, 0)
    commit(writer, bound, 1)
    writer.log_record(logged_ns, "info", "the end", "t", {})
    writer.finish({"reason": "test"})
    with Log(tmp_path / "run") as log:
        *_, last = log.records()
        assert (last.cycle, last.time_ns, log.end_ns) == (2, expected_ns, T0 + 1)
        [line] = log.messages("/flowrun/log")
        assert (line.tov_ns, line.fields["time_ns"]) == (logged_ns, logged_ns)


# -- a writer and what it holds ------------------------------------------------------------------


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
