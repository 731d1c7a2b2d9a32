"""Each rule of FORMAT.md that a slab may break, to the byte: what a reader says, and what it keeps."""

from __future__ import annotations

import os
import struct
import zlib

import pytest

from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.bytes import Damage, SlabBytes
from flowrun.runtime.log.slab.cycles import CycleReader
from support.fuzz.mutations import reseal
from support.log_bytes import TRAILER, Builder, pad, record, small

END = {"reason": "end of sources", "cycles": "5", "ended_ns": "99"}
TIME = 77


def message(*, channel=1, sequence=1, time_ns=TIME, data=b"\x80"):
    return record(5, struct.pack("<HIQQ", channel, sequence, time_ns, 900) + data)


def add_cycle(builder, body, *, number=1, count=1, opcode=0x81, length=32, size=None, reserved=0):
    """A cycle with these bytes after its head; its crc is right, whatever else is not."""
    if builder.records_start is None:
        builder.open_chunk()
    size = len(body) if size is None else size
    head = struct.pack("<QQII", number, TIME, count, size)
    crc = zlib.crc32(body, zlib.crc32(head, zlib.crc32(b"\x83") if opcode == 0x83 else 0))
    builder.data += struct.pack("<BQ", opcode, length) + head + struct.pack("<II", crc, reserved)
    builder.data += body
    builder.ends.append(len(builder.data))


def slab_with(body=b"", **fields):
    """A slab whose second cycle, at `ends[0]`, has these bytes; cycle 2 follows it."""
    builder = Builder()
    builder.cycle(0, 10, [(1, 1, b"\x80")])
    add_cycle(builder, body, **fields)
    builder.cycle(2, TIME + 1, [(2, 1, b"\x81")])
    return builder


def read(tmp_path, data, *, verify=True):
    """Numbers and payloads of the cycles, and the loss without the name of the file."""
    path = tmp_path / "x.mcap"
    path.write_bytes(data)
    with Log(path, verify=verify) as log:
        found = [(it.cycle, [bytes(data) for _, _, data in it.entries]) for it in log.cycles()]
        assert len(log) >= len(found)
        loss = log.loss
    return found, loss and loss.removeprefix(f"{path}: ")


# -- a cycle -------------------------------------------------------------------------------------

GOOD = {
    "without messages": (b"", {"count": 0}, []),
    "an empty message": (message(data=b""), {}, [b""]),
    "only a PAD": (pad(9), {"count": 0}, []),
    "a PAD after a message": (message() + pad(30), {}, [b"\x80"]),
    "a PAD before and after": (
        pad(9) + message() + message(channel=2, data=b"xy") + pad(9),
        {"count": 2},
        [b"\x80", b"xy"],
    ),
}


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("kind", GOOD)
def test_a_cycle_holds_messages_and_pads(tmp_path, monkeypatch, kind, verify):
    body, fields, payloads = GOOD[kind]
    data = slab_with(body, **fields).leave_open().data
    expected = [(0, [b"\x80"]), (1, payloads), (2, [b"\x81"])]
    assert read(tmp_path, data, verify=verify) == (expected, None)
    # Those who need only the messages of some cycles get them by `entries`, as recovery does.
    with Log(tmp_path / "x.mcap", verify=verify) as log:
        cycles = log.slabs[0].cycles
        assert [
            (head.cycle, [bytes(data) for _, _, data in cycles.entries(head)])
            for head in cycles.heads(0)
        ] == expected


@pytest.mark.parametrize("kind", GOOD)
def test_good_cycles_are_read_in_one_go(tmp_path, monkeypatch, kind):
    """`entries` is for what is wrong with a cycle: it takes twice the time."""
    body, fields, _ = GOOD[kind]
    builder = slab_with(body, **fields)
    add_cycle(builder, b"", number=3, count=0)
    monkeypatch.setattr(CycleReader, "entries", None)
    builder.close_chunk()
    found, loss = read(tmp_path, builder.leave_open().data)
    assert ([cycle for cycle, _ in found], loss) == ([0, 1, 2, 3], None)


def at_body(offset, text):
    return lambda builder: f"byte {builder.ends[0] + 41 + offset}: {text}"


def at_head(text):
    return lambda builder: f"byte {builder.ends[0]}: {text}"


def of(channel, sequence, time_ns):
    return (
        f"Message of channel {channel}, sequence {sequence}, time {time_ns} in cycle 1, time {TIME}"
    )


def record_of(opcode, length, most):
    return (
        f"record of opcode {opcode:#04x} and {length} bytes in cycle 1: "
        f"expected a Message or PAD of at most {most}"
    )


HALF = struct.pack("<BQHIQQ", 5, 21, 1, 1, TIME, 900)[:-1]
WRONG = {
    "sequence": (message(sequence=2), {}, at_body(0, of(1, 2, TIME))),
    "time": (message(time_ns=TIME + 1), {}, at_body(0, of(1, 1, TIME + 1))),
    "channel": (message(channel=4), {}, at_body(0, of(4, 1, TIME))),
    "opcode": (record(4, bytes(22)), {}, at_body(0, record_of(4, 22, 22))),
    "opcode of a short record": (record(4, b""), {}, at_body(0, record_of(4, 0, 0))),
    "a message too short for its head": (HALF, {}, at_body(0, record_of(5, 21, 21))),
    "a short message before another": (
        HALF + message(), {}, at_body(0, record_of(5, 21, 53)),
    ),
    "a message that reaches beyond": (
        struct.pack("<BQHIQQ", 5, 23, 1, 1, TIME, 900), {}, at_body(0, record_of(5, 23, 22)),
    ),
    "a PAD that reaches beyond": (
        message() + struct.pack("<BQ", 0x80, 1), {}, at_body(32, record_of(0x80, 1, 0)),
    ),
    "a long PAD that reaches beyond": (
        message() + struct.pack("<BQ", 0x80, 32) + bytes(31), {},
        at_body(32, record_of(0x80, 32, 31)),
    ),
    "8 bytes too many": (
        message() + bytes(8), {}, at_body(32, "cycle 1 ends inside a record's head"),
    ),
    "a byte too many": (
        message() + b"\x80", {}, at_body(32, "cycle 1 ends inside a record's head"),
    ),
    "fewer messages": (message(), {"count": 2}, at_head("cycle 1 has 1 messages; expected 2")),
    "more messages": (message() * 2, {}, at_head("cycle 1 has 2 messages; expected 1")),
    "no messages": (pad(9), {}, at_head("cycle 1 has 0 messages; expected 1")),
    "length": (
        message(), {"length": 33},
        lambda builder: at_head(
            f"CYCLE of 33 bytes, 32 bytes of messages and reserved 0, {rest(builder)} bytes before "
            "the end of its chunk"
        )(builder),
    ),
    "reserved": (
        message(), {"reserved": 1},
        lambda builder: at_head(
            f"CYCLE of 32 bytes, 32 bytes of messages and reserved 1, {rest(builder)} bytes before "
            "the end of its chunk"
        )(builder),
    ),
    "a cycle that reaches beyond its chunk": (
        message(), {"size": 1000},
        lambda builder: at_head(
            f"CYCLE of 32 bytes, 1000 bytes of messages and reserved 0, {rest(builder)} bytes before "
            "the end of its chunk"
        )(builder),
    ),
}  # fmt: skip


def rest(builder):
    return len(builder.data) - len(TRAILER) - builder.ends[0]


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("kind", WRONG)
def test_a_cycle_that_breaks_a_rule_ends_the_slab_before_it(tmp_path, kind, verify):
    body, fields, says = WRONG[kind]
    builder = slab_with(body, **fields)
    builder.leave_open()
    found, loss = read(tmp_path, builder.data, verify=verify)
    assert found == [(0, [b"\x80"])]
    assert loss == says(builder)


def test_a_cycle_with_another_crc_ends_the_slab_before_it(tmp_path):
    builder = slab_with(message())
    builder.data[builder.ends[1] - 1] ^= 1
    builder.leave_open()
    at = builder.ends[0]
    actual = zlib.crc32(builder.data[at + 41 : at + 73], zlib.crc32(builder.data[at + 9 : at + 33]))
    (given,) = struct.unpack_from("<I", builder.data, at + 33)
    found, loss = read(tmp_path, builder.data)
    assert found == [(0, [b"\x80"])]
    assert loss == f"byte {at}: cycle 1 has CRC {actual:#010x}; expected {given:#010x}"
    found, loss = read(tmp_path, builder.data, verify=False)
    assert ([cycle for cycle, _ in found], loss) == ([0, 1, 2], None)


def test_a_cycle_may_end_with_its_chunk(tmp_path):
    """Closed, without a PAD after it: with messages, and without."""
    for body, count in ((message(), 1), (b"", 0), (pad(9), 0)):
        builder = Builder()
        builder.cycle(0, 10, [(1, 1, b"\x80")])
        add_cycle(builder, body, count=count)
        builder.close_chunk()
        found, loss = read(tmp_path, builder.leave_open().data)
        assert ([cycle for cycle, _ in found], loss) == ([0, 1], None)


def test_numbers_of_cycles_are_longer_than_those_of_messages(tmp_path):
    number = (7 << 32) + 5
    builder = Builder()
    add_cycle(builder, message(sequence=5), number=number)
    add_cycle(builder, message(sequence=7), number=number + 1)
    found, loss = read(tmp_path, builder.leave_open().data)
    assert found == [(number, [b"\x80"])]
    assert loss == (
        f"byte {builder.ends[0] + 41}: Message of channel 1, sequence 7, time {TIME} "
        f"in cycle {number + 1}, time {TIME}"
    )


# -- after the last cycle ------------------------------------------------------------------------


def closed_with(rest):
    """A chunk, closed, with these bytes after its one cycle; another follows it."""
    builder = Builder()
    builder.cycle(0, 10, [(1, 1, b"\x80")])
    builder.data += rest
    builder.close_chunk(index=False)
    builder.cycle(2, 20, [(1, 1, b"\x80")])
    return builder.leave_open()


@pytest.mark.parametrize("size", [1, 8, 9, 40])
def test_a_closed_chunk_ends_with_its_last_cycle(tmp_path, size):
    builder = closed_with(b"\x81" * size if size < 9 else pad(size))
    opcode = "0x81" if size < 9 else "0x80"
    found, loss = read(tmp_path, builder.data)
    assert found == [(0, [b"\x80"])]
    assert loss == f"byte {builder.ends[0]}: unexpected record of opcode {opcode}: expected CYCLE"


@pytest.mark.parametrize("opcode", [0, 5, 6, 0x7F, 0x82, 0xFF])
def test_nothing_but_cycles_and_a_pad_is_in_a_chunk(tmp_path, opcode):
    builder = Builder()
    builder.cycle(0, 10, [(1, 1, b"\x80")])
    builder.data += record(opcode, bytes(40))
    found, loss = read(tmp_path, builder.leave_open().data)
    assert found == [(0, [b"\x80"])]
    assert loss == (
        f"byte {builder.ends[0]}: unexpected record of opcode {opcode:#04x}: expected CYCLE"
    )


UNUSED = {
    "a PAD": (pad(60), None),
    "a PAD and 8 bytes": (pad(60) + b"\x81" * 8, None),
    "a PAD and a CYCLE": (pad(60) + struct.pack("<BQ", 0x81, 0), 0x81),
    "a PAD and LINES": (pad(60) + struct.pack("<BQ", 0x83, 0), 0x83),
    "a PAD and a Chunk": (pad(60) + struct.pack("<BQ", 6, 0), 6),
    "a cycle that is being committed": (pad(41) + message() + pad(19), None),
    "that, and a CYCLE": (pad(41) + message() + pad(19) + struct.pack("<BQ", 0x81, 0), 0x81),
}


@pytest.mark.parametrize("kind", UNUSED)
def test_the_unused_rest_of_an_open_chunk_holds_no_cycle(tmp_path, kind):
    unused, opcode = UNUSED[kind]
    builder = Builder()
    builder.cycle(0, 10, [(1, 1, b"\x80")])
    builder.data += unused
    size = len(builder.data) - builder.records_start
    for at, value in ((1, size + 40), (25, size), (41, size)):
        builder.set(builder.chunk_start + at, value)
    found, loss = read(tmp_path, builder.data + TRAILER)
    assert found == [(0, [b"\x80"])]
    after = builder.ends[0] + len(unused) - 9
    assert loss == (
        opcode
        and f"byte {builder.ends[0]}: a PAD with a record of opcode {opcode:#04x} after it, at {after}"
    )


# -- chunks --------------------------------------------------------------------------------------


def two_chunks(between=b"", *, finished=False, index=True):
    builder = Builder()
    builder.cycle(0, 10, [(1, 1, b"\x80")])
    builder.close_chunk(index=index)
    builder.data += between
    builder.cycle(1, 20, [(1, 1, b"\x80")])
    return builder.finish(END) if finished else builder.leave_open()


CHUNK_FIELDS = {
    "a damaged opcode": (0, 0x06 ^ 0x80, "not the Chunk that the summary lists here"),
    "length": (1, 1, "not the Chunk that the summary lists here"),
    "compression": (37, 1, "not the Chunk that the summary lists here"),
    "size": (25, 1, "a Chunk of another size than the summary lists"),
    "records": (41, 1, "a Chunk of another size than the summary lists"),
}


@pytest.mark.parametrize("kind", CHUNK_FIELDS)
def test_a_finished_slabs_chunk_is_as_the_summary_says(tmp_path, kind):
    at, change, says = CHUNK_FIELDS[kind]
    builder = two_chunks(finished=True)
    builder.data[builder.chunks[1][0] + at] ^= change
    assert read(tmp_path, builder.data) == (
        [(0, [b"\x80"])],
        f"byte {builder.chunks[1][0]}: {says}",
    )


@pytest.mark.parametrize("more", [-1, 1])
def test_a_finished_slabs_chunk_has_the_size_that_the_summary_says(tmp_path, more):
    builder = two_chunks(finished=True)
    start = builder.chunks[1][0]
    for at in (start + 25, start + 41):
        (size,) = struct.unpack_from("<Q", builder.data, at)
        struct.pack_into("<Q", builder.data, at, size + more)
    says = "a Chunk of another size than the summary lists"
    assert read(tmp_path, builder.data) == ([(0, [b"\x80"])], f"byte {start}: {says}")


@pytest.mark.parametrize("at", [1, 25, 41])
def test_the_three_sizes_of_a_closed_chunk_agree(tmp_path, at):
    builder = two_chunks()
    start, size = builder.chunks[0][:2]
    sizes = {1: size + 40, 25: size, 41: size}
    sizes[at] -= 1 if at == 41 else -1
    builder.data[start + at : start + at + 8] = struct.pack("<Q", sizes[at])
    _, loss = read(tmp_path, builder.data)
    if at == 1:  # the walk goes on a byte too late
        assert loss is not None
    else:
        assert loss == (
            f"byte {start}: sizes of a closed chunk differ: {sizes[1]}, {sizes[25]}, {sizes[41]}"
        )


def test_a_chunk_holds_its_records(tmp_path):
    builder = two_chunks(index=False)
    start, size = builder.chunks[0][:2]
    builder.set(start + 41, size + 1)
    _, loss = read(tmp_path, builder.data)
    assert (
        loss
        == f"byte {start}: chunk of {size + 40} bytes: its {size + 1} bytes of records do not fit"
    )


def test_no_chunk_is_compressed(tmp_path):
    builder = two_chunks()
    builder.data[builder.chunks[0][0] + 37] = 1
    assert read(tmp_path, builder.data) == (
        [], f"byte {builder.chunks[0][0]}: a compressed chunk",
    )  # fmt: skip


def with_pads(total, *, first=False, committed=True):
    """A chunk after PADs of `total` bytes, in two pieces; before them another chunk, unless `first`."""
    for front in range(9, 40):
        builder = Builder("r" * front)
        if not first:
            builder.cycle(0, 10, [(1, 1, b"\x80" * front)])
            builder.close_chunk(index=False)
        if (len(builder.data) + total) % 8 == 7:
            break
    builder.data += pad(9) + pad(total - 9)
    assert len(builder.data) % 8 == 7
    if committed:
        builder.cycle(1, 20, [(1, 1, b"\x80")])
    return builder.leave_open()


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("total", [63, 64, 65, 80])
def test_pads_before_a_chunk_with_a_cycle_are_short(tmp_path, total, first):
    builder = with_pads(total, first=first)
    found, loss = read(tmp_path, builder.data)
    if total <= 64:
        assert ([cycle for cycle, _ in found], loss) == ([1] if first else [0, 1], None)
    else:
        assert [cycle for cycle, _ in found] == ([] if first else [0])
        assert loss == (
            f"byte {builder.chunk_start}: {total} bytes of PADs before a Chunk: expected at most 64"
        )


def test_pads_before_a_chunk_that_was_just_begun_may_be_long(tmp_path):
    found, loss = read(tmp_path, with_pads(80, committed=False).data)
    assert ([cycle for cycle, _ in found], loss) == ([0], None)


def test_short_pads_count_again_after_each_chunk(tmp_path):
    builder = Builder()
    for cycle in range(12):
        builder.data += pad(15)
        builder.cycle(cycle, 10 + cycle, [(1, 1, b"\x80")])
        builder.close_chunk(index=False)
    found, loss = read(tmp_path, builder.leave_open().data)
    assert ([cycle for cycle, _ in found], loss) == (list(range(12)), None)


INDEXES = {
    "4 bytes": (record(7, bytes(4)), 4),
    "5 bytes": (record(7, bytes(5)), 5),
    "a half entry": (record(7, bytes(6 + 8)), 14),
    "a byte too many": (record(7, bytes(6 + 17)), 23),
    "no entry": (record(7, bytes(6)), None),
    "an entry": (record(7, bytes(6 + 16)), None),
}


@pytest.mark.parametrize("kind", INDEXES)
def test_a_message_index_has_whole_entries(tmp_path, kind):
    between, size = INDEXES[kind]
    builder = two_chunks(between)
    at = builder.chunks[0][0] + builder.chunks[0][1] + 49 + builder.chunks[0][4]
    _, loss = read(tmp_path, builder.data)
    assert loss == (size and f"byte {at}: unexpected MessageIndex of {size} bytes")


def test_a_message_index_follows_a_chunk(tmp_path):
    builder = Builder()
    builder.data += record(7, bytes(6))
    builder.cycle(0, 10, [])
    _, loss = read(tmp_path, builder.leave_open().data)
    assert loss == f"byte {builder.preamble_size}: unexpected MessageIndex of 6 bytes"


@pytest.mark.parametrize("opcode", [0x03, 0x04, 0x0B])
def test_a_summary_comes_after_data_end_only(tmp_path, opcode):
    """A PAD of the size of DataEnd is one that is about to be committed; any other is none."""
    for size in (12, 13, 14):
        builder = two_chunks()
        data = builder.data[: -len(TRAILER) - 300]
        size_open = len(data) - builder.records_start
        for at, value in ((1, size_open + 40), (25, size_open), (41, size_open)):
            struct.pack_into("<Q", data, builder.chunk_start + at, value)
        at = len(data) + size
        data += pad(size) + record(opcode, bytes(30)) + TRAILER
        _, loss = read(tmp_path, data)
        if size == 13:
            assert loss.startswith(f"byte {at}: a summary that is damaged or in a wrong place (")
        else:
            assert loss == f"byte {at}: unexpected record of opcode {opcode:#04x}"


def test_what_reaches_beyond_the_file_is_cut_off(tmp_path):
    data = two_chunks().data[: -len(TRAILER)]
    at = len(data)
    _, loss = read(tmp_path, data + struct.pack("<BQ", 0x80, 6) + bytes(5))
    assert loss == f"byte {at}: truncated record: expected 6 bytes, got 5"
    _, loss = read(tmp_path, data + struct.pack("<BQ", 0x80, 5) + bytes(5))
    assert loss == f"byte {at + 14}: truncated record: expected 9 bytes, got 0"
    _, loss = read(tmp_path, data + bytes(8))
    assert loss == f"byte {at}: truncated record: expected 9 bytes, got 8"


@pytest.mark.parametrize("cut", [1, 8, 30, 37, 38, 41, 42, 49])
def test_a_trailer_that_is_cut_off_is_a_loss(tmp_path, cut):
    builder = two_chunks()
    at = len(builder.data) - len(TRAILER)
    found, loss = read(tmp_path, builder.data[:-cut])
    assert [cycle for cycle, _ in found] == [0, 1]
    if cut < 42:
        assert loss == f"byte {at}: the trailer is damaged or cut off"
    else:
        assert loss == f"byte {at}: truncated record: expected 9 bytes, got {50 - cut}"


# -- a PAD over a chunk --------------------------------------------------------------------------


def hidden(tmp_path, change=lambda data, at: None):
    """The loss of a slab whose second chunk has the opcode of a PAD; `change` gets its first cycle."""
    builder = two_chunks()
    start = builder.chunk_start
    builder.data[start] = 0x80
    change(builder.data, start + 49)
    found, loss = read(tmp_path, builder.data)
    assert [cycle for cycle, _ in found] == [0]
    return loss and loss.removeprefix(f"byte {start}: "), start + 49


def test_a_pad_over_a_cycle_is_a_damaged_chunk(tmp_path):
    loss, at = hidden(tmp_path)
    assert loss == f"a PAD over a cycle, at {at}: expected a Chunk"


def test_a_pad_over_lines_is_a_damaged_chunk(tmp_path):
    def to_lines(data, at):
        data[at] = 0x83
        (size,) = struct.unpack_from("<I", data, at + 9 + 20)
        crc = zlib.crc32(data[at + 9 : at + 33], zlib.crc32(b"\x83"))
        struct.pack_into("<I", data, at + 33, zlib.crc32(data[at + 41 : at + 41 + size], crc))

    loss, at = hidden(tmp_path, to_lines)
    assert loss == f"a PAD over a cycle, at {at}: expected a Chunk"


@pytest.mark.parametrize("at", [0, 1, 9, 17, 25, 29, 33, 37, 50])
def test_a_pad_over_anything_else_is_a_pad(tmp_path, at):
    """Opcode, length, number, time, counts, crc, reserved, a message: what is no cycle is unused."""

    def change(data, cycle):
        data[cycle + at] ^= 1

    assert hidden(tmp_path, change)[0] is None


def test_a_pad_that_ends_with_its_cycle_hides_it(tmp_path):
    builder = Builder()
    builder.cycle(0, 10, [(1, 1, b"\x80")])
    builder.close_chunk(index=False)
    builder.data[builder.chunks[0][0]] = 0x80
    found, loss = read(tmp_path, builder.data + TRAILER)
    start = builder.chunks[0][0]
    assert (found, loss) == (
        [], f"byte {start}: a PAD over a cycle, at {start + 49}: expected a Chunk",
    )  # fmt: skip


@pytest.mark.parametrize("messages", [[], [(1, 1, b"\x80")]])
def test_a_pad_that_ends_within_a_cycle_hides_none(tmp_path, messages):
    builder = Builder()
    builder.cycle(0, 10, messages)
    builder.close_chunk(index=False)
    start, size = builder.chunks[0][:2]
    builder.data[start] = 0x80
    builder.set(start + 1, size + 39)
    data = builder.data[:-1] + TRAILER
    assert read(tmp_path, data) == ([], None)
    _, loss = read(tmp_path, builder.data + TRAILER)
    assert loss.startswith(f"byte {len(data) - 50}: ")


def test_what_is_read_at_once_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(fmt, "MAX_HELD_SIZE", 20)
    path = tmp_path / "x"
    path.write_bytes(b"0123456789" * 4)
    with path.open("rb") as file:
        data = SlabBytes(file.fileno(), 40)
        assert data.read(7, 20) == b"78901234567890123456"
        assert data.read(38, 2) == b"89"
        assert data.read(40, 0) == b""
        for at, size, says in (
            (7, 21, "byte 7: 21 bytes; expected at most 20"),
            (38, 3, "byte 38: truncated record: expected 3 bytes, got 2"),
            (41, 0, "byte 41: truncated record: expected 0 bytes, got 0"),
            (5, -1, "byte 5: truncated record: expected -1 bytes, got 35"),
        ):
            with pytest.raises(Damage) as caught:
                data.read(at, size)
            assert (str(caught.value), caught.value.offset) == (says, at)
        os.truncate(path, 10)
        with pytest.raises(Damage) as caught:
            data.read(5, 10)
        assert str(caught.value) == "byte 5: truncated record: expected 10 bytes, got 5"


# -- the end and the summary ---------------------------------------------------------------------


def finished():
    return small(chunk_cycles=2, cycles=5).finish(END)


def end_at(builder):
    return builder.metadata_places[1][1:]


def test_the_end_is_followed_by_its_check(tmp_path):
    builder = finished()
    at, length = end_at(builder)
    builder.data[at + length] = 0x80
    found, loss = read(tmp_path, builder.data)
    assert found != []
    # Found twice: from the summary, and then from the records before it.
    assert loss == f"byte {at + length}: opcode 0x80: expected CHECK"


@pytest.mark.parametrize("by", [-1, 1])
def test_the_check_of_the_end_covers_it_alone(tmp_path, by):
    builder = finished()
    at, length = end_at(builder)
    builder.set(at + length + 9, at + by)
    _, loss = read(tmp_path, builder.data)
    assert loss == f"byte {at + length}: CHECK from byte {at + by}: expected from byte {at}"


def test_the_end_is_checked(tmp_path):
    builder = finished()
    at, length = end_at(builder)
    builder.data[at + length - 1] ^= 1
    _, loss = read(tmp_path, builder.data)
    actual = zlib.crc32(builder.data[at : at + length])
    (given,) = struct.unpack_from("<I", builder.data, at + length + 17)
    assert loss == (
        f"byte {at}: bytes up to {at + length} have CRC {actual:#010x}; expected {given:#010x}"
    )


def test_metadata_of_another_name_is_no_end(tmp_path):
    builder = finished()
    at, _ = end_at(builder)
    builder.data[at + 9 + 4] ^= 1
    reseal(builder.data)
    path = tmp_path / "x.mcap"
    path.write_bytes(builder.data)
    with Log(path) as log:
        assert (log.end, log.finished, log.loss) == (None, False, None)


def summary_start(builder):
    return struct.unpack_from("<Q", builder.data, len(builder.data) - 8 - 20)[0]


def with_footer(builder, start):
    struct.pack_into("<Q", builder.data, len(builder.data) - 8 - 20, start)
    return builder.data


def test_a_summary_is_between_the_preamble_and_the_footer(tmp_path):
    builder = finished()
    footer = len(builder.data) - 8 - 29
    for start in (1, builder.preamble_size, footer + 1):
        _, loss = read(tmp_path, with_footer(builder, start))
        assert loss == (
            f"byte {footer}: the summary is damaged (byte {footer}: summary at byte {start})"
        )


def test_a_summary_has_the_crc_of_its_footer(tmp_path):
    builder = finished()
    start = summary_start(builder)
    builder.data[start + 30] ^= 1
    actual = zlib.crc32(builder.data[start : len(builder.data) - 12])
    (given,) = struct.unpack_from("<I", builder.data, len(builder.data) - 12)
    found, loss = read(tmp_path, builder.data)
    assert len(found) == 5
    assert loss == (
        f"byte {start}: the summary is damaged (byte {start}: its CRC is {actual:#010x}; "
        f"expected {given:#010x})"
    )


def resummed(builder, place, value, layout="<Q"):
    struct.pack_into(layout, builder.data, place, value)
    reseal(builder.data)
    return builder.data


def chunk_index_at(builder, number):
    at = summary_start(builder)
    while builder.data[at] != 8 or number:
        number -= builder.data[at] == 8
        at += 9 + struct.unpack_from("<Q", builder.data, at + 1)[0]
    return at + 9


def test_chunks_of_a_summary_are_in_order_and_before_it(tmp_path):
    builder = finished()
    data_end = summary_start(builder)
    first, second = builder.chunks[0], builder.chunks[1]
    for number, start, least in (
        (0, builder.preamble_size - 1, builder.preamble_size),
        (0, data_end, builder.preamble_size),
        (1, first[0] + first[1] + 48, first[0] + first[1] + 49),
    ):
        changed = finished()
        size = builder.chunks[number][1] + 49
        place = chunk_index_at(changed, number) + 16
        _, loss = read(tmp_path, resummed(changed, place, start))
        assert loss == (
            f"byte {start}: the summary is damaged (byte {start}: the summary puts a chunk at "
            f"{start}-{start + size}; expected it between {least} and {data_end})"
        )
    assert second[0] >= first[0] + first[1] + 49


def test_a_chunk_of_a_summary_is_as_long_as_its_records(tmp_path):
    builder = finished()
    start, size = builder.chunks[0][:2]
    place = chunk_index_at(builder, 0)
    (offsets,) = struct.unpack_from("<I", builder.data, place + 32)
    sizes = place + 36 + offsets + 12
    struct.pack_into("<Q", builder.data, sizes, size + 1)
    _, loss = read(tmp_path, resummed(builder, sizes + 8, size + 1))
    assert loss == (
        f"byte {start}: the summary is damaged (byte {start}: the summary gives a chunk of "
        f"{size + 49} bytes {size + 1} bytes of records; expected {size})"
    )


def test_a_record_of_a_summary_ends_within_it(tmp_path):
    builder = finished()
    at = summary_start(builder)
    last = len(builder.data) - 8 - 29 - 26  # a SummaryOffset
    assert builder.data[last] == 14
    _, loss = read(tmp_path, resummed(builder, last + 1, 18))
    assert loss == (
        f"byte {last}: the summary is damaged (byte {last}: a record reaches beyond the summary)"
    )
    assert at < last


def test_the_summary_counts_the_messages(tmp_path):
    builder = finished()
    at = summary_start(builder)
    while builder.data[at] != 11:
        at += 9 + struct.unpack_from("<Q", builder.data, at + 1)[0]
    (count,) = struct.unpack_from("<Q", builder.data, at + 9)
    found, loss = read(tmp_path, resummed(builder, at + 9, count + 1))
    assert len(found) == 5
    assert loss == (
        f"byte {builder.preamble_size}: {count} messages; the summary counts {count + 1}"
    )


def test_the_end_of_a_summary_is_metadata(tmp_path):
    builder = finished()
    at, _ = end_at(builder)
    place = builder.data.rindex(struct.pack("<Q", at))
    _, loss = read(tmp_path, resummed(builder, place, builder.chunks[0][0]))
    start = builder.chunks[0][0]
    assert loss == (
        f"byte {start}: the summary is damaged (byte {start}: opcode 0x06: expected Metadata)"
    )


# -- the preamble --------------------------------------------------------------------------------


def test_the_preamble_has_its_own_records_only(tmp_path):
    """The Header first and once, and no record that comes later in a slab."""
    header = record(1, b"\x07\0\0\0flowrun\0\0\0\0")
    magic = Builder().data[:8]
    for records, at, opcode, expected in (
        (record(0x0C, b""), 8, 0x0C, "Header"),
        (header + header, 8 + len(header), 1, "Metadata, Attachment, Schema, Channel or CHECK"),
        (header + record(6, b""), 8 + len(header), 6,
         "Metadata, Attachment, Schema, Channel or CHECK"),
    ):  # fmt: skip
        path = tmp_path / "x.mcap"
        path.write_bytes(magic + records + bytes(40))
        with pytest.raises(Exception, match="preamble") as caught:
            Log(path)
        assert str(caught.value) == (
            f"{path}: byte {at}: unexpected record of opcode {opcode:#04x}: expected {expected}; "
            "the preamble is needed to read a slab"
        )


def preamble_with(*records):
    builder = Builder()
    data = bytearray(builder.data[: builder.preamble_size - 21])
    for it in records:
        data += it
    return data + record(0x82, struct.pack("<QI", 0, zlib.crc32(data)))


SECOND = {
    "a second Schema of id 1": record(3, struct.pack("<HIII", 1, 0, 0, 0)),
    "a second Channel of id 2": record(4, struct.pack("<HHI", 2, 1, 1) + b"x" + bytes(8)),
    "a second Channel of topic '/vlm/answer'": record(
        4, struct.pack("<HHI", 9, 1, 11) + b"/vlm/answer" + bytes(8)
    ),
}


@pytest.mark.parametrize("says", SECOND)
def test_schemas_and_channels_are_there_once(tmp_path, says):
    path = tmp_path / "x.mcap"
    at = Builder().preamble_size - 21
    path.write_bytes(preamble_with(SECOND[says]) + TRAILER)
    with pytest.raises(Exception, match="preamble") as caught:
        Log(path)
    assert str(caught.value) == f"{path}: byte {at}: {says}; the preamble is needed to read a slab"


def test_the_check_of_a_preamble_covers_all_before_it(tmp_path):
    builder = Builder()
    at = builder.preamble_size - 21
    path = tmp_path / "x.mcap"
    for change, says in (
        (struct.pack("<Q", 1), "CHECK from byte 1: expected from byte 0"),
        (None, "CHECK: content of 13 bytes is too long: expected 12"),
    ):
        data = bytearray(builder.data)
        if change:
            data[at + 9 : at + 17] = change
        else:
            data[at + 1] = 13
        path.write_bytes(data + bytes(1) + TRAILER)
        with pytest.raises(Exception, match="preamble") as caught:
            Log(path)
        assert str(caught.value) == (
            f"{path}: byte {at}: {says}; the preamble is needed to read a slab"
        )
