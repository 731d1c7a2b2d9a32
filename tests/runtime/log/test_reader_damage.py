import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.runtime.errors import LogDamaged, LogError, LogNotFound
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.cycles import CycleReader
from support import independent_reader, log_bytes
from support.log_bytes import Builder, record, small
from support.log_reading import END, read, run_of_three_slabs


def assert_prefix(path, written, *, data):
    """The law: a `LogError`, or a prefix of what was written, as the document's reader sees it."""
    path.write_bytes(data)
    try:
        cycles, loss = read(path)
    except LogError as error:
        if str(path) not in str(error):
            raise
        return
    assert cycles == written[: len(cycles)]
    independent, stop = independent_reader.read(bytes(data))
    assert independent == written[: len(independent)]
    if stop is None:
        # Nothing is lost but, at most, the last cycle, or the chunk with it, turned to a PAD.
        assert cycles == independent
    elif len(cycles) < len(written):
        assert loss is not None


DAMAGED = {
    "open": lambda: small(chunk_cycles=1, cycles=3).leave_open(20),
    "finished": lambda: small(chunk_cycles=2, cycles=3).finish(END),
}


@pytest.mark.parametrize("state", DAMAGED)
def test_every_truncation_gives_an_error_or_a_prefix(state, tmp_path):
    builder = DAMAGED[state]()
    for size in range(0 if state == "open" else builder.preamble_size, len(builder.data)):
        assert_prefix(tmp_path / "x.mcap", builder.written, data=builder.data[:size])


@pytest.mark.parametrize(
    ("state", "change"),
    [("open", "bit"), ("open", "sign"), ("open", "all"), ("open", "pad"), ("finished", "bit")],
)
def test_every_flipped_byte_gives_an_error_or_a_prefix(state, change, tmp_path):
    builder = DAMAGED[state]()
    # The preamble is under one CRC: one kind of change is enough there.
    first = 0 if (state, change) == ("open", "bit") else builder.preamble_size
    for offset in range(first, len(builder.data)):
        data = bytearray(builder.data)
        flipped = data[offset] ^ {"bit": 1, "sign": 0x80, "all": 0xFF, "pad": 0}[change]
        data[offset] = 0x80 if change == "pad" else flipped
        assert_prefix(tmp_path / "x.mcap", builder.written, data=data)


def test_flipped_payload_ends_the_slab_there_and_says_so(write):
    builder = small(cycles=9)
    data = builder.leave_open().data
    data[builder.ends[5] - 1] ^= 4
    path = write(data)
    cycles, loss = read(path)
    assert cycles == builder.written[:5]
    at = builder.ends[4]
    # A chunk begins with cycle 4, so cycle 5 comes directly after it.
    assert loss.startswith(f"{path}: byte {at}: cycle 5 has CRC 0x")
    with Log(path, verify=False) as log:
        assert len(list(log.cycles())) == 9


def test_damage_of_one_slab_leaves_the_others(tmp_path):
    written = run_of_three_slabs(tmp_path)
    path = tmp_path / "log_0001.mcap"
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    cycles, loss = read(tmp_path)
    assert cycles == written[:20] + written[40:]
    assert loss.startswith(f"{path}: byte ")


def test_missing_slab_is_a_loss(tmp_path):
    written = run_of_three_slabs(tmp_path)
    (tmp_path / "log_0001.mcap").unlink()
    cycles, loss = read(tmp_path)
    assert cycles == written[:20] + written[40:]
    assert loss == f"{tmp_path}/log_0002.mcap: follows log_0000.mcap: the slabs between are missing"


def test_damaged_summary_loses_nothing_but_is_reported(write):
    builder = small().finish(END)
    builder.data[-60] ^= 1
    path = write(builder.data)
    cycles, loss = read(path)
    assert cycles == builder.written
    assert ": the summary is damaged (byte " in loss


def test_summary_before_cycles_is_damage(write):
    data = small().finish(END).data
    preamble = Builder().preamble_size
    end = data.rindex(record(0x0F, bytes(4)))
    begun, start = data[end : end + 13 + 51], preamble + 13
    why = {
        bytes(begun): f"byte {start + 51}: opcode 0x80: expected Footer",
        bytes(data[end:]): f"byte {preamble + len(data) - end - 37}: "
        f"Footer of a summary at byte {end + 13}",
    }
    for moved, reason in why.items():
        path = write(data[:preamble] + moved + data[preamble:end])
        assert read(path) == (
            [],
            f"{path}: byte {start}: a summary that is damaged or in a wrong place ({reason})",
        )


def test_cycle_with_a_good_crc_but_a_wrong_message_is_damage(write):
    builder = Builder()
    builder.cycle(0, 10, [(1, 1, b"\x80")])
    builder.topics = (*builder.topics, "/no/such")
    builder.cycle(1, 11, [(4, 1, b"\x80")])
    path = write(builder.leave_open().data)
    cycles, loss = read(path)
    assert cycles == builder.written[:1]
    assert loss == (
        f"{path}: byte {builder.ends[0] + 41}: Message of channel 4, sequence 1, time 11 "
        "in cycle 1, time 11"
    )


def test_cycle_numbers_that_go_back_are_damage(write):
    builder = Builder()
    builder.cycle(5, 10, [])
    builder.cycle(5, 11, [])
    path = write(builder.leave_open().data)
    cycles, loss = read(path)
    assert cycles == builder.written[:1]
    assert loss == f"{path}: byte {builder.ends[0]}: cycle 5 after cycle 5"


def test_sequence_wraps_after_32_bits(write):
    builder = Builder()
    for cycle in (2**32 - 1, 2**32, 2**32 + 1):
        builder.cycle(cycle, 10, [(1, 1, b"\x80")])
    assert read(write(builder.leave_open().data)) == (builder.written, None)


# -- what is not a log ---------------------------------------------------------------------------


def error_of(path, kind=LogError):
    with pytest.raises(kind) as caught:
        Log(path)
    return str(caught.value)


def test_no_such_path(tmp_path):
    path = tmp_path / "none"
    assert error_of(path, LogNotFound) == f"{path}: cannot be read: No such file or directory"


def test_a_graph_file_is_no_run(tmp_path):
    path = tmp_path / "g.yaml"
    path.write_text("tasks: []")
    assert error_of(path, LogNotFound) == (
        f"{path} is a graph file; give a recorded run: `flowrun {path}` makes one in runs/"
    )


def test_directory_without_slabs(tmp_path):
    expected = f"{tmp_path}: not a run: it holds no slab (log_0000.mcap)"
    assert error_of(tmp_path, LogNotFound) == expected


def test_directory_of_runs(tmp_path):
    for number, name in enumerate(["old", "new", "older"]):
        (tmp_path / name).mkdir()
        slab = tmp_path / name / "log_0000.mcap"
        slab.write_bytes(b"")
        os.utime(slab, (100 - (number - 1) ** 2,) * 2)
    (tmp_path / "other").mkdir()
    (tmp_path / "notes").write_text("mine")
    assert error_of(tmp_path) == (
        f"{tmp_path}: not a run: it holds no slab (log_0000.mcap); "
        f"it holds runs, the newest: {tmp_path / 'new'}"
    )


def test_directory_of_a_fleet(tmp_path):
    run = tmp_path / "camera-0" / "fleet-camera-0-1"
    run.mkdir(parents=True)
    (run / "log_0000.mcap").write_bytes(b"")
    assert error_of(tmp_path) == (
        f"{tmp_path}: not a run: it holds no slab (log_0000.mcap); it holds folders of runs, as a "
        f"fleet's does: name one run, such as {run}"
    )


def test_not_mcap(write):
    path = write(b"GIF89a..")
    expected = f"{path}: byte 0: not an MCAP file: it begins with b'GIF89a..'"
    assert error_of(path, LogDamaged) == expected


def test_mcap_of_others(write):
    path = write(log_bytes.MAGIC + record(1, log_bytes.text("ros2") + log_bytes.text("x")))
    assert error_of(path) == f"{path}: an MCAP file of profile 'ros2', not a log of flowrun"


def test_damaged_preamble(write):
    data = Builder().leave_open().data
    end = data.index(b"/cam/image")
    data[end] ^= 1
    path = write(data)
    message = error_of(path)
    assert message.startswith(f"{path}: byte 0: bytes up to ")
    assert message.endswith("; the preamble is needed to read a slab")


def test_truncated_preamble(write):
    path = write(Builder().data[:100])
    assert error_of(path) == (
        f"{path}: byte 44: truncated record: expected 76 bytes, got 47; "
        "the preamble is needed to read a slab"
    )


def test_huge_preamble_is_refused_without_reading_it(tmp_path):
    path = tmp_path / "huge.mcap"
    builder = Builder()
    with path.open("wb") as file:
        file.write(builder.data[: builder.attachment_at])
        file.write(struct.pack("<BQ", 9, 1 << 40))
        file.truncate((1 << 40) + (1 << 20))
        file.seek((1 << 40) + builder.attachment_at + 9)
        file.write(record(0x82, bytes(12)))
    assert error_of(path) == (
        f"{path}: byte 0: {(1 << 40) + builder.attachment_at + 9} bytes; "
        "expected at most 268435456; the preamble is needed to read a slab"
    )


def test_other_format_version(write):
    builder = Builder()
    data = builder.data[: builder.data.rindex(b"\x82" + struct.pack("<Q", 12))]
    at = data.index(b"format") + 10
    data[at : at + 1] = b"7"
    builder.data = data
    builder.add_check(0)
    path = write(builder.leave_open().data)
    assert error_of(path) == f"{path}: log format '7'; this flowrun reads format '1'"


def test_slabs_of_two_runs(tmp_path):
    run_of_three_slabs(tmp_path)
    other = small(run_id="run-2", slab=2).finish(END)
    (tmp_path / "log_0002.mcap").write_bytes(other.data)
    assert error_of(tmp_path) == (
        f"{tmp_path}/log_0002.mcap: belongs to run 'run-2'; log_0000.mcap to run 'run-1'"
    )


@settings(max_examples=60)
@given(data=st.data())
def test_any_bytes_give_an_error_or_checked_cycles(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.mcap"
    builder = small(cycles=4).leave_open(20)
    kept = data.draw(st.integers(0, len(builder.data)))
    junk = data.draw(st.binary(max_size=200))
    assert_prefix(path, builder.written, data=bytes(builder.data[:kept]) + junk)


# -- times and numbers of damaged logs -----------------------------------------------------------


def three_chunks(slab, *, damaged):
    """Three chunks of two cycles; the CYCLE of each of these numbers is damaged."""
    builder = Builder(slab=slab)
    first = 6 * slab
    for number in range(first, first + 6):
        if number > first and number % 2 == 0:
            builder.close_chunk(index=False)
        builder.cycle(number, 1000 + 10 * number, [(1, 1, b"\x80")])
    builder.leave_open()
    for number in damaged:
        builder.data[builder.ends[number - first] - 73 + 1] ^= 1  # its length
    return bytes(builder.data)


@pytest.mark.parametrize(
    ("damaged", "start", "end", "count"),
    [
        ((), 0, 11, 12),
        ((0,), 6, 11, 6),
        ((1,), 0, 11, 7),
        ((0, 6), None, 11, 0),
        ((0, 7), 6, 11, 1),
        ((11,), 0, 10, 11),
        ((10,), 0, 9, 10),
        ((10, 8, 6), 0, 5, 6),
        ((10, 8, 6, 4, 2, 0), None, None, 0),
    ],
)
def test_times_and_number_of_what_can_be_read(tmp_path, damaged, start, end, count):
    for slab in range(2):
        mine = [it for it in damaged if it // 6 == slab]
        (tmp_path / f"log_{slab:04}.mcap").write_bytes(three_chunks(slab, damaged=mine))

    def time(number):
        return None if number is None else 1000 + 10 * number

    for ask in ("start_ns", "end_ns", "__len__"):
        with Log(tmp_path) as log:
            found = len(log) if ask == "__len__" else getattr(log, ask)
            expected = {"start_ns": time(start), "end_ns": time(end), "__len__": count}
            assert found == expected[ask]
            read = {"start_ns": min, "end_ns": max}.get(ask)
            if read is None or read(damaged, default=5) in (0, 1, 10, 11):
                seen = ask == "__len__" or (0 in damaged if ask == "start_ns" else damaged[0] > 9)
                assert (log.loss is not None) == (bool(damaged) and seen)


def test_the_number_of_cycles_of_a_finished_log_is_counted_once(write, monkeypatch):
    counted = []
    original = CycleReader.heads

    def heads(self, index, start=None):
        counted.append(index)
        return original(self, index, start)

    monkeypatch.setattr(CycleReader, "heads", heads)
    for builder, again in ((small().finish(END), 3), (small().leave_open(), 6)):
        counted.clear()
        with Log(write(builder.data)) as log:
            assert (len(log), len(log)) == (5, 5)
        assert len(counted) == again
