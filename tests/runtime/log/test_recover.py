import contextlib
import errno
import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import pytest
from mcap.reader import make_reader

from flowrun.runtime.errors import LogDamaged, LogError, LogFull, LogInUse
from flowrun.runtime.log import recover as log_recover
from flowrun.runtime.log.check import check_log
from flowrun.runtime.log.lock import locked
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.recover import RecoveryReport, SlabReport, recover
from flowrun.runtime.log.slab import disk
from flowrun.runtime.log.slab.writer import Slab
from support import independent_reader, log_bytes
from support.log_bytes import TRAILER, Builder, pad, small


def read(path):
    with Log(path) as log:
        return [
            (cycle, time_ns, [(topic, tov_ns, bytes(data)) for topic, tov_ns, data in entries])
            for cycle, time_ns, entries in log.cycles()
        ]


def assert_finished(path, written):
    """Whole for us, for the document's reader and for the mcap package, and indexed right."""
    data = path.read_bytes()
    with Log(path) as log:
        assert log.finished
        cycles, messages, problems = check_log(log)
    assert problems == []
    assert (cycles, messages) == (len(written), sum(len(m) for _, _, m in written))
    assert read(path) == written
    assert independent_reader.read(data) == (written, None)
    reader = make_reader(io.BytesIO(data), validate_crcs=True)
    summary = reader.get_summary()
    assert summary.statistics.message_count == messages
    found = [
        (message.log_time, channel.topic, message.data)
        for _, channel, message in reader.iter_messages(log_time_order=True)
    ]
    assert found == [(time_ns, topic, d) for _, time_ns, m in written for topic, _, d in m]


@pytest.fixture
def no_fsync(monkeypatch):
    """These recover hundreds of files; that fsync is called does not matter to what is tested."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def closed_then_empty():
    builder = small()
    builder.close_chunk()
    return builder.leave_open()


def without_index():
    builder = small(cycles=4)
    builder.close_chunk(index=False, patched=False)
    for number in (4, 5):
        builder.cycle(number, 2000 + number, [(1, 1, b"\x80")])
    return builder.leave_open()


STATES = {
    "open": lambda: small().leave_open(),
    "large": lambda: small(big=5000, cycles=9).leave_open(5000),
    "little room": lambda: small().leave_open(9),
    "only a preamble": lambda: Builder().leave_open(),
    "closed, then empty": closed_then_empty,
    "without an index": without_index,
    "finished, not cut": lambda: small().finish({"reason": "done"}, truncated=False),
}


@pytest.mark.parametrize("state", STATES)
def test_unfinished_slab_is_finished_in_place(state, tmp_path):
    builder = STATES[state]()
    path = tmp_path / "log_0000.mcap"
    path.write_bytes(builder.data + (b"\0" * 99 if "not cut" in state else b""))
    report = recover(path)
    assert report.lost is None
    assert report.cycles == len(builder.written)
    assert_finished(path, builder.written)
    with Log(path) as log:
        last = builder.written[-1][1] if builder.written else 0
        assert log.end == {
            "reason": "recovered",
            "cycles": str(len(builder.written)),
            "ended_ns": str(last),
        }
        assert log.attachments == {"graph.yaml": b"tasks: []\n"}


def test_report_says_what_was_kept_and_lost(tmp_path):
    builder = small(chunk_cycles=9)
    data = builder.leave_open().data
    data[builder.ends[3] - 1] ^= 1
    path = tmp_path / "log_0000.mcap"
    path.write_bytes(data)
    report = recover(tmp_path)
    size = path.stat().st_size
    assert str(report).startswith(
        f"{path}: kept 3 cycles with 3 messages, {size} bytes; "
        f"lost: what came after byte {builder.ends[2]}: cycle 3 has CRC 0x"
    )
    assert_finished(path, builder.written[:3])
    with Log(path) as log:
        assert log.end["error"].startswith("lost what came after byte ")
    again = recover(tmp_path)
    assert str(again) == f"{path}: was finished already"
    assert path.stat().st_size == size


def test_every_truncation_is_recovered_or_refused(tmp_path, no_fsync):
    builder = small(chunk_cycles=2, cycles=3)
    data = bytes(builder.leave_open(20).data)
    path = tmp_path / "log_0000.mcap"
    for size in range(8, len(data), 3):
        path.write_bytes(data[:size])
        if size < builder.preamble_size:
            with pytest.raises(LogError):
                recover(path)
            assert path.read_bytes() == data[:size]
            continue
        report = recover(path)
        kept = sum(end <= size for end in builder.ends)
        assert report.cycles == kept
        assert_finished(path, builder.written[:kept])


def test_every_flipped_byte_is_recovered_to_a_prefix(tmp_path, no_fsync):
    builder = small(chunk_cycles=1, cycles=3)
    data = builder.leave_open(20).data
    path = tmp_path / "log_0000.mcap"
    for offset in range(builder.preamble_size, len(data), 2):
        flipped = bytearray(data)
        flipped[offset] ^= 0x01 + offset % 255
        path.write_bytes(flipped)
        cycles = recover(path).cycles
        assert_finished(path, builder.written[:cycles])


@pytest.mark.parametrize("state", ["open", "large", "without an index", "only a preamble"])
@pytest.mark.parametrize("damage", [False, True])
def test_recovery_interrupted_at_any_step_is_recovered_again(state, damage, tmp_path, monkeypatch):
    builder = STATES[state]()
    data = bytearray(builder.data)
    written = builder.written
    if damage and written:
        data[builder.ends[-1] - 1] ^= 1
        written = written[:-1]
    path = tmp_path / "log_0000.mcap"
    path.write_bytes(data)
    states = []
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    real_pwrite, real_truncate = os.pwrite, os.ftruncate

    def pwrite(fd, data, offset):
        half = len(data) // 2
        if half:  # torn in the middle
            real_pwrite(fd, data[:half], offset)
            states.append(path.read_bytes())
        size = real_pwrite(fd, data, offset)
        states.append(path.read_bytes())
        return size

    def ftruncate(fd, size):
        real_truncate(fd, size)
        states.append(path.read_bytes())

    monkeypatch.setattr(log_recover.os, "pwrite", pwrite)
    monkeypatch.setattr(log_recover.os, "ftruncate", ftruncate)
    recover(path)
    monkeypatch.undo()
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    assert len(states) > 5
    for number, state_bytes in enumerate(states):
        path.write_bytes(state_bytes)
        assert read(path) == written, f"step {number}"
        recover(path)
        assert_finished(path, written)


def test_a_link_that_leads_nowhere_is_called_a_link(tmp_path):
    (tmp_path / "log_0000.mcap").symlink_to("nowhere")
    with pytest.raises(LogError, match="it is a symbolic link"):
        recover(tmp_path / "log_0000.mcap")
    assert not (tmp_path / "nowhere").exists()


def test_run_of_several_slabs(tmp_path):
    written = []
    for slab in range(3):
        builder = small(chunk_cycles=3, cycles=10, first=10 * slab, slab=slab)
        data = builder.finish().data if slab == 0 else builder.leave_open().data
        (tmp_path / f"log_{slab:04}.mcap").write_bytes(data)
        written += builder.written
    (tmp_path / "log_0003.next").write_bytes(bytes(4096))  # made ahead, not begun
    report = recover(tmp_path)
    assert [slab.recovered for slab in report.slabs] == [False, True, True]
    with Log(tmp_path) as log:
        assert log.finished
        assert log.end["cycles"] == "30"
        assert log.slabs[1].structure.end is None
        assert check_log(log) == (30, sum(len(m) for _, _, m in written), [])
    assert read(tmp_path) == written


def test_slab_that_cannot_be_read_is_left_as_it_is(tmp_path):
    for slab in range(2):
        builder = small(first=10 * slab, slab=slab).leave_open()
        (tmp_path / f"log_{slab:04}.mcap").write_bytes(builder.data)
    broken = tmp_path / "log_0000.mcap"
    broken.write_bytes(b"\x89MCAP0\r\n" + bytes(300))
    report = recover(tmp_path)
    left = report.slabs[0]
    assert (left.recovered, left.cycles, left.messages, left.size) == (False, 0, 0, 0)
    assert broken.stat().st_size == 308
    assert (
        str(report).splitlines()[0].startswith(f"{broken}: left as it is; lost: {broken}: byte 8")
    )
    assert report.slabs[1].recovered


def test_run_that_is_being_written_is_refused(tmp_path):
    path = tmp_path / "log_0000.mcap"
    path.write_bytes(small().leave_open().data)
    before = path.read_bytes()
    with locked(tmp_path):
        for target in (tmp_path, path):
            with pytest.raises(LogInUse) as caught:
                recover(target)
            assert str(caught.value) == (
                f"{tmp_path}: the run is being written; stop it first, it then needs no recovery"
            )
    assert path.read_bytes() == before
    assert recover(tmp_path).cycles == 5


# -- with the writer -----------------------------------------------------------------------------

WRITER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from flowrun.msgs import ImageRgb8Msg, TextMsg
    from flowrun.runtime.events import Set
    from flowrun.runtime.log.channels import LoggedOutput
    from flowrun.runtime.log.writer import LogWriter

    outputs = [
        LoggedOutput("cam", "image", "/cam/image", ImageRgb8Msg),
        LoggedOutput("vlm", "answer", "/vlm/answer", TextMsg),
    ]
    writer = LogWriter(
        Path(sys.argv[1]), outputs=outputs, steps=2, metadata={"run_id": "r", "graph": "g"},
        slab_size_mib=16, section_size_mib=4,
    )
    image, text = ImageRgb8Msg(), TextMsg()
    bound = writer.bind([image, text])
    last = int(sys.argv[2])
    for cycle in range(10**9):
        image.clear()
        text.clear()
        image.allocate_pixels(120, 160)[:] = cycle % 251
        image.frame_id = cycle
        image.publish(tov_ns=cycle)
        text.value = f"answer {cycle}"
        text.publish(tov_ns=cycle)
        writer.commit(
            cycle, 1000 + cycle, bound, start_ns=0, ends_ns=[1, 2],
            events=[Set("vlm", {"k": 1})] if cycle == 3 else [],
        )
        if cycle == last:
            if sys.argv[3] == "finish":
                writer.log_record(5, "info", "done", "run", {})
                writer.finish({"reason": "done", "cycles": str(cycle + 1)})
                break
            print("there", flush=True)
""")


def check_written(path, last):
    with Log(path) as log:
        cycles = [record.cycle for record in log.cycles()]
        assert cycles[: last + 1] == list(range(last + 1))
        for cycle in (0, 3, last):
            images = list(log.messages("/cam/image", cycle, cycle + 1))
            assert [image.fields["frame_id"] for image in images] == [cycle]
            assert (images[0].fields["pixels"] == cycle % 251).all()
            (answer,) = log.messages("/vlm/answer", cycle, cycle + 1)
            assert (answer.tov_ns, answer.fields) == (cycle, {"value": f"answer {cycle}"})
        assert log.loss is None


def test_what_the_writer_writes_is_read(tmp_path):
    run = tmp_path / "run"
    subprocess.run([sys.executable, "-c", WRITER, run, "700", "finish"], check=True, timeout=240)
    check_written(run, 700)
    with Log(run) as log:
        assert log.finished
        assert log.end["reason"] == "done"
        assert len(log.slabs) == 3
        assert check_log(log)[2] == []
        records = [message.fields["message"] for message in log.messages("/flowrun/log")]
        assert records == ["done"]
        messages = sum(1 for _ in log.messages())
    found = 0
    for slab in sorted(run.glob("*.mcap")):
        with slab.open("rb") as file:
            found += sum(1 for _ in make_reader(file, validate_crcs=True).iter_messages())
        assert independent_reader.read(slab.read_bytes())[1] is None
    assert found == messages


def test_killed_writer_loses_no_committed_cycle(tmp_path):
    run = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, run, "500", "run on"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "there\n"
        with Log(run) as live:
            assert [record.cycle for record in live.cycles()][:501] == list(range(501))
            assert live.loss is None
        with pytest.raises(LogError, match="is being written"):
            recover(run)
        process.send_signal(signal.SIGKILL)
    check_written(run, 500)
    before = read(run)
    report = recover(run)
    assert report.lost is None
    assert read(run) == before
    check_written(run, 500)
    with Log(run) as log:
        assert log.finished
        assert check_log(log)[2] == []


def test_a_recovered_chunk_has_the_times_of_its_messages(tmp_path):
    builder = Builder()
    for number, messages in enumerate(([], [(1, 1, b"\x80")], [(2, 1, b"\x80")], [])):
        builder.cycle(number, 1000 + 10 * number, messages)
    path = tmp_path / "log_0000.mcap"
    path.write_bytes(builder.leave_open().data)
    recover(path)
    with path.open("rb") as file:
        [chunk] = make_reader(file).get_summary().chunk_indexes
    assert (chunk.message_start_time, chunk.message_end_time) == (1010, 1020)


def test_the_report_counts_the_cycles_of_the_slabs_that_were_recovered(tmp_path):
    (tmp_path / "log_0000.mcap").write_bytes(small(cycles=3).finish().data)
    (tmp_path / "log_0001.mcap").write_bytes(small(cycles=4, first=3, slab=1).leave_open().data)
    report = recover(tmp_path)
    assert [slab.cycles for slab in report.slabs] == [3, 4]
    assert report.cycles == 4


def test_a_cycle_with_fewer_messages_than_it_says_is_damaged(tmp_path):
    builder = small(cycles=2)
    builder.cycle(2, 1020, [(1, 1, b"\x80")])
    data = builder.leave_open().data
    at = builder.ends[1]
    struct.pack_into("<I", data, at + 9 + 16, 2)
    size = builder.ends[2] - at - 41
    crc = zlib.crc32(data[at + 41 : at + 41 + size], zlib.crc32(data[at + 9 : at + 33]))
    struct.pack_into("<I", data, at + 33, crc)
    path = tmp_path / "log_0000.mcap"
    path.write_bytes(data)
    with Log(path) as log:
        assert [cycle.cycle for cycle in log.cycles()] == [0, 1]
        assert log.loss == f"{path}: byte {at}: cycle 2 has 1 messages; expected 2"


# -- what is done to which slab ------------------------------------------------------------------

END = {"reason": "end of sources", "cycles": "5", "ended_ns": "99"}


def put(directory, number, builder):
    path = directory / f"log_{number:04}.mcap"
    path.write_bytes(builder.data)
    return path


@pytest.mark.parametrize("ends", [True, False])
def test_a_run_that_lost_its_last_slab_gets_an_end(tmp_path, ends):
    """Its slabs are finished, but the last one does not say how the run ended."""
    put(tmp_path, 0, small(cycles=3).finish())
    last = put(tmp_path, 1, small(cycles=4, first=3, slab=1).finish(END if ends else None))
    before = last.read_bytes()
    report = recover(tmp_path)
    assert [slab.recovered for slab in report.slabs] == [False, not ends]
    assert report.lost is None
    with Log(tmp_path) as log:
        assert log.end == (
            END if ends else {"reason": "recovered", "cycles": "7", "ended_ns": "1060"}
        )
        assert check_log(log) == (7, 9, [])
    assert (last.read_bytes() == before) == ends


def test_the_progress_of_a_recovery_goes_from_slab_to_slab_and_chunk_to_chunk(tmp_path):
    put(tmp_path, 0, small(cycles=4, chunk_cycles=2).finish())
    put(tmp_path, 1, small(cycles=6, chunk_cycles=2, first=4, slab=1).leave_open())
    shown = []
    recover(tmp_path, progress=shown.append)
    assert shown == pytest.approx([0, 1 / 2, 1 / 2, 1 / 2 + 1 / 6, 1 / 2 + 2 / 6])


def test_a_report_as_text():
    for slab, text in (
        (SlabReport(Path("a"), True, 3, 9, 100), "a: kept 3 cycles with 9 messages, 100 bytes"),
        (SlabReport(Path("a"), True, 1, 1, 100), "a: kept 1 cycle with 1 message, 100 bytes"),
        (
            SlabReport(Path("a"), True, 3, 9, 100, "it"),
            "a: kept 3 cycles with 9 messages, 100 bytes; lost: it",
        ),
        (SlabReport(Path("a"), False, 3), "a: was finished already"),
        (SlabReport(Path("a"), False, 3, lost="it"), "a: left as it is; lost: it"),
    ):
        assert str(slab) == text
    report = RecoveryReport(
        (SlabReport(Path("a"), False, 3), SlabReport(Path("b"), True, 4, lost="it"),
         SlabReport(Path("c"), False, lost="that"), SlabReport(Path("d"), True, 5)),
    )  # fmt: skip
    assert (report.cycles, report.lost) == (9, "b: it; c: that")
    assert str(report).count("\n") == 3
    assert RecoveryReport(report.slabs[:1]).lost is None


def test_where_nothing_can_be_recovered_that_is_an_error(tmp_path):
    whole = small(cycles=3).finish(END)
    damaged = bytearray(whole.data)
    damaged[whole.chunks[0][0] + 49] = 0  # the first cycle of the first chunk
    path = tmp_path / "log_0000.mcap"
    path.write_bytes(damaged)
    with pytest.raises(LogDamaged) as caught:
        recover(tmp_path)
    assert str(caught.value) == (
        f"what came after byte {whole.chunks[0][0] + 49}: unexpected record of opcode 0x00: "
        "expected CYCLE"
    )
    assert path.read_bytes() == damaged
    damaged = bytearray(whole.data)
    damaged[whole.chunks[1][0] + 49] = 0  # of the second: two cycles are there
    path.write_bytes(damaged)
    report = recover(tmp_path)
    assert [(slab.recovered, slab.cycles) for slab in report.slabs] == [(False, 2)]
    empty = tmp_path / "empty"
    empty.mkdir()
    put(empty, 0, Builder().finish(END))
    assert str(recover(empty)) == f"{empty}/log_0000.mcap: was finished already"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_slab_that_cannot_be_written_is_said(tmp_path, monkeypatch, code):
    path = put(tmp_path, 0, small().leave_open())

    def refuse(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(disk, "sync_file", refuse)
    with pytest.raises(LogError) as caught:
        recover(tmp_path)
    assert str(caught.value) == (
        f"{path}: cannot be recovered: {os.strerror(code)}; free some space or make it writable, "
        "and recover again"
    )
    assert isinstance(caught.value, LogFull) == (code == errno.ENOSPC)
    monkeypatch.undo()
    assert recover(tmp_path).cycles == 5


def test_names_that_were_changed_are_brought_to_the_disk(tmp_path, monkeypatch):
    put(tmp_path, 0, small().leave_open())
    synced = []
    monkeypatch.setattr(disk, "sync_directory", lambda fd: synced.append(os.fstat(fd).st_ino))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as a number
    recover(tmp_path)
    assert synced == [tmp_path.stat().st_ino]
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


def test_a_directory_that_may_not_be_read_is_left_to_the_system(tmp_path, monkeypatch):
    put(tmp_path, 0, small().leave_open())
    real = os.open

    def refuse(path, *rest):
        if path == tmp_path:
            raise PermissionError(errno.EACCES, "no")
        return real(path, *rest)

    monkeypatch.setattr(os, "open", refuse)
    assert recover(tmp_path).cycles == 5


def ahead(tmp_path):
    """A slab as its writer makes it ahead, and where what was written to it ends."""
    path = tmp_path / "log_0007.next"
    made = Slab(
        tmp_path / "log_0007.mcap", ahead=path, capacity=3 << 20, section=1 << 20,
        head=bytes(Builder(slab=7).data),
    )  # fmt: skip
    end = made.records_at + 9  # the head of the PAD
    made.close()
    return path, end


def test_a_slab_with_a_byte_after_its_beginning_was_begun(tmp_path):
    path, end = ahead(tmp_path)
    whole = path.read_bytes()
    put(tmp_path, 0, small().leave_open())
    for at in (None, end - 1, end, end + 1, 1 << 20, (1 << 20) + end, len(whole) - 51):
        data = bytearray(whole)
        if at is not None:
            data[at] ^= 1
        path.write_bytes(data)
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path, copy, ignore=shutil.ignore_patterns("copy"))
        with contextlib.suppress(LogError):
            recover(copy)
        removed = at is None or at < end
        names = sorted(it.name for it in copy.glob("log_*"))
        assert names == ["log_0000.mcap", *([] if removed else ["log_0007.mcap"])], at
        shutil.rmtree(copy)


@pytest.mark.parametrize("at", [9, 120, 185, 186, 187, 250])
def test_a_slab_whose_first_pad_is_not_yet_committed_holds_what_is_after_it(tmp_path, at):
    """A PAD of at most 64 bytes, the heads of a chunk and of its PAD may have been written there."""
    path = tmp_path / "log_0000.next"
    preamble = bytes(Builder().data)
    room = 5000
    data = bytearray(preamble + struct.pack("<BQ", 0x80, room) + bytes(room) + TRAILER)
    data[len(preamble) + at] = 1
    path.write_bytes(data)
    with path.open("rb") as file:
        assert log_recover._holds_nothing(file.fileno()) == (at < 2 * 64 + 49)
    short = bytearray(preamble + pad(64 + 9) + bytes(room) + TRAILER)
    path.write_bytes(short)
    with path.open("rb") as file:
        assert log_recover._holds_nothing(file.fileno())
    short[len(preamble) + 64 + 9 + 9] = 1
    path.write_bytes(short)
    with path.open("rb") as file:
        assert not log_recover._holds_nothing(file.fileno())


def test_a_magic_is_written_only_where_it_is_known_to_be_lost(tmp_path):
    builder = small().finish(END)
    path = tmp_path / "log_0000.mcap"
    for beginning, mended in (
        (bytes(8) + b"\x01", True), (bytes(8) + b"\x02", False), (b"\x89" + bytes(7) + b"\x01", False),
    ):  # fmt: skip
        path.write_bytes(beginning + builder.data[9:])
        with contextlib.suppress(LogError):
            recover(tmp_path)
        assert (path.read_bytes() == builder.data) == mended


# -- what is put right in a slab -----------------------------------------------------------------


def test_indexes_of_earlier_chunks_are_kept_put_right_or_left_out(tmp_path):
    """Put right where they have their size; otherwise the summary lists none of that chunk."""
    for change in ("none", "entry", "channel", "size", "more"):
        builder = Builder()
        for number in range(6):
            if number in (2, 4):
                builder.close_chunk(index=change != "size" or number == 4)
                if change == "more" and number == 2:
                    builder.data += log_bytes.record(7, struct.pack("<HI", 3, 0))
            builder.cycle(number, 1000 + number, [(1, 1, b"\x80"), (2, 1, b"\x81")])
        data = bytearray(builder.leave_open().data)
        index = min(builder.chunks[0][3].values(), default=0)
        if change == "entry":
            data[index + 9 + 6] ^= 1
        elif change == "channel":
            data[index + 9] ^= 8
        path = tmp_path / "log_0000.mcap"
        path.write_bytes(data)
        report = recover(tmp_path)
        assert (report.lost, report.cycles, report.slabs[0].messages) == (None, 6, 12)
        assert report.slabs[0].size == path.stat().st_size
        with Log(path) as log:
            assert check_log(log) == (6, 12, [])
            infos = [span.info for span in log.slabs[0].structure.chunks]
        listed = [(len(it.message_index_offsets), it.message_index_length > 0) for it in infos]
        none = change in ("size", "more")
        assert listed == [(0, False) if none else (2, True), (2, True), (2, True)]
        if change in ("entry", "channel"):
            at = builder.chunks[0][0] + builder.chunks[0][1] + 49
            length = builder.chunks[0][4]
            assert path.read_bytes()[at : at + length] == builder.data[at : at + length]


def test_a_cycle_that_goes_back_ends_a_recovered_slab(tmp_path):
    builder = Builder()
    for number in (3, 5, 5, 6):
        builder.cycle(number, 1000 + number, [(1, 1, b"\x80")])
    path = put(tmp_path, 0, builder.leave_open())
    report = recover(tmp_path)
    at = builder.ends[1]
    assert report.lost == f"{path}: what came after byte {at}: cycle 5 after cycle 5"
    with Log(tmp_path) as log:
        assert [it.cycle for it in log] == [3, 5]
        assert log.end == {
            "reason": "recovered", "cycles": "2", "ended_ns": "1005",
            "error": f"lost what came after byte {at}: cycle 5 after cycle 5",
        }  # fmt: skip


def test_a_copy_is_made_whole_by_pieces_and_keeps_its_mode(tmp_path, monkeypatch):
    real = os.sendfile
    monkeypatch.setattr(os, "sendfile", lambda out, src, at, n: real(out, src, at, min(n, 100)))
    builder = small(cycles=9)
    data = builder.leave_open().data
    data[builder.ends[6] - 1] ^= 1
    path = tmp_path / "log_0000.mcap"
    path.write_bytes(data)
    path.chmod(0o641)
    inode = path.stat().st_ino
    (tmp_path / "log_0000.mcap.part").write_text("of an earlier recovery")
    assert recover(path).cycles == 6
    assert_finished(path, builder.written[:6])
    assert path.stat().st_mode & 0o777 == 0o641
    assert path.stat().st_ino != inode
    assert sorted(it.name for it in tmp_path.iterdir()) == [".lock", "log_0000.mcap"]


def test_lines_are_kept_and_are_no_cycles(tmp_path):
    builder = Builder()
    builder.cycle(0, 1000, [(1, 1, b"\x80")])
    at = len(builder.data)
    builder.cycle(1, 1000, [(3, 7, b"\x80")])
    builder.data[at] = 0x83
    crc = zlib.crc32(builder.data[at + 9 : at + 33], zlib.crc32(b"\x83"))
    struct.pack_into("<I", builder.data, at + 33, zlib.crc32(builder.data[at + 41 :], crc))
    path = put(tmp_path, 0, builder.leave_open())
    report = recover(tmp_path)
    assert (report.lost, report.cycles, report.slabs[0].messages) == (None, 1, 2)
    with Log(path) as log:
        assert check_log(log) == (1, 2, [])
        assert (log.end["cycles"], log.end["ended_ns"]) == ("1", "1000")
    again = recover(tmp_path)
    assert [slab.cycles for slab in again.slabs] == [1]
