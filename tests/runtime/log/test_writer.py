from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from mcap.reader import make_reader

from flowrun.msgs import BytesMsg, ImageRgb8Msg, IntMsg
from flowrun.msgs.fields import MessageTypeError
from flowrun.runtime.errors import LogError, LogInUse
from flowrun.runtime.events import Set
from flowrun.runtime.log.channels import LoggedOutput
from flowrun.runtime.log.check import check_log
from flowrun.runtime.log.files import slab_paths
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.recover import recover
from flowrun.runtime.log.slab import writer as log_slab
from flowrun.runtime.log.slab.format import Attachment
from flowrun.runtime.log.writer import LogWriter
from support.log_writing import (
    T0,
    check_all_by_us,
    commit,
    fill_until_next_is_made,
    payload,
    write,
    writer_of,
)
from support.paths import TESTS


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
