"""What a log says, or is made to say, of itself and of what is missing of it."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest
from mcap.reader import make_reader

from flowrun.msgs import IntMsg
from flowrun.runtime.cli import main
from flowrun.runtime.log import check
from flowrun.runtime.log.channels import LoggedOutput
from flowrun.runtime.log.check import check_log
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.recover import recover
from flowrun.runtime.log.slab import writer as log_slab
from flowrun.runtime.log.writer import LogWriter
from support import torture
from support.fuzz.mutations import reseal
from support.log_bytes import Builder, small


def several_slabs(run: Path, **options: int) -> None:
    cycles = torture.Cycles(run, largest=90_000, **options)
    for _ in range(60):
        cycles.commit()
    cycles.writer.finish({"reason": "test", "cycles": "60", "ended_ns": "1"})


def test_a_run_without_its_first_slab_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    several_slabs(run)
    with Log(run) as log:
        assert log.loss is None
    (run / "log_0000.mcap").unlink()
    loss = f"{run}/log_0001.mcap: the slabs before it are missing"
    with Log(run) as log:
        assert log.loss == loss
        assert check_log(log)[2] == [loss]
    with Log(run / "log_0001.mcap") as log:
        assert log.loss is None  # what was asked for is there
    assert main(["log", "info", str(run)]) == 0
    assert loss in capsys.readouterr().out


def test_a_flight_recorder_without_slabs_that_it_keeps_says_so(tmp_path: Path) -> None:
    run = tmp_path / "run"
    several_slabs(run, keep_slabs=2)
    first, last = sorted(run.glob("*.mcap"))
    assert first.name > "log_0000.mcap"
    with Log(run) as log:
        assert log.loss is None
    first.unlink()
    with Log(run) as log:
        assert log.loss == f"{last}: the slabs before it are missing"


def test_check_finds_payloads_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LogWriter, "_encoder", lambda *_: lambda _cycle: (b"secret",))
    writer = LogWriter(
        tmp_path / "run",
        steps=1,
        metadata={"run_id": "r"},
        outputs=[LoggedOutput("t", "out", "/t/out", IntMsg, payload=False)],
    )
    message = IntMsg(value=3)
    bound = writer.bind([message])
    for cycle in range(3):
        message.publish()
        writer.commit(cycle, cycle, bound, start_ns=0, ends_ns=[1], events=[])
    writer.finish({"reason": "test"})
    with Log(tmp_path / "run") as log:
        assert check_log(log)[2] == [
            f"{tmp_path}/run: cycle 0: /t/out: a payload of 6 bytes; expected none, as its channel says"
        ]


def test_a_chunk_whose_opcode_became_a_pad_is_found_also_where_it_is_the_only_one(
    tmp_path: Path,
) -> None:
    cycles = torture.Cycles(tmp_path / "run", largest=200)
    for _ in range(20):
        cycles.commit()
    copy = shutil.copytree(tmp_path / "run", tmp_path / "copy")
    cycles.writer.finish({"reason": "test"})
    with Log(copy) as log:
        [chunk] = log.slabs[0].structure.chunks
    with (copy / "log_0000.mcap").open("r+b") as file:
        file.seek(chunk.start)
        file.write(b"\x80")
    with Log(copy) as log:
        assert list(log.cycles()) == []
        assert log.loss == (
            f"{copy}/log_0000.mcap: byte {chunk.start}: a PAD over a cycle, at {chunk.records_start}: "
            "expected a Chunk"
        )


def test_recover_leaves_a_finished_slab_with_a_damaged_cycle_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_slab, "CHUNK_SIZE", 20_000)
    run = tmp_path / "run"
    several_slabs(run)
    slab = run / "log_0000.mcap"
    with Log(run) as log:
        at = log.slabs[0].structure.chunks[1].records_start
    before = slab.read_bytes()
    damaged = before[:at] + b"\x00" + before[at + 1 :]
    slab.write_bytes(damaged)
    report = recover(run)
    assert [it.recovered for it in report.slabs] == [False] * len(report.slabs)
    assert report.lost is not None
    assert report.lost.startswith(f"{slab}: what came after byte {at}: unexpected record")
    assert slab.read_bytes() == damaged


def indexed(run: Path) -> Path:
    """A slab of two chunks with messages of two channels, and its path."""
    cycles = torture.Cycles(run, largest=3000, sync_s=None)
    for _ in range(60):
        cycles.commit()
    cycles.writer.finish({"reason": "test", "cycles": "60", "ended_ns": "1"})
    [path] = run.glob("*.mcap")
    return path


def test_the_summary_says_where_each_message_index_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_slab, "CHUNK_SIZE", 20_000)
    path = indexed(tmp_path / "run")
    data = path.read_bytes()
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    assert len(summary.chunk_indexes) > 2
    for chunk in summary.chunk_indexes:
        assert len(chunk.message_index_offsets) == 2
        for channel, offset in chunk.message_index_offsets.items():
            assert (data[offset], data[offset + 9]) == (0x07, channel)
        end = chunk.chunk_start_offset + chunk.chunk_length
        assert min(chunk.message_index_offsets.values()) == end
        last = max(chunk.message_index_offsets.values())
        (size,) = struct.unpack_from("<Q", data, last + 1)
        assert last + 9 + size == end + chunk.message_index_length


@pytest.mark.parametrize(
    ("at", "says"),
    [
        (9, "its messages are of (1, 60); the summary says"),
        (17, "its messages are of (1, 60); the summary says"),
        (9 + 32 + 4 + 2, "the summary puts its message indexes at"),
        (9 + 32 + 4 + 12, "the summary puts its message indexes at"),
        (9 + 32 + 4 + 20, "the summary puts its message indexes at"),
    ],
)
def test_check_compares_the_summary_with_the_chunks(tmp_path: Path, at: int, says: str) -> None:
    """at: of a number in a ChunkIndex: times, the two offsets, the length."""
    path = indexed(tmp_path / "run")
    data = bytearray(path.read_bytes())
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    [chunk] = summary.chunk_indexes
    place = data.rindex(
        struct.pack("<QQ", chunk.message_start_time, chunk.message_end_time)
        + struct.pack("<QQ", chunk.chunk_start_offset, chunk.chunk_length)
    )
    data[place - 9 + at] ^= 1
    reseal(data)
    path.write_bytes(data)
    with Log(path) as log:
        _, _, problems = check_log(log)
    assert len(problems) == 1
    assert says in problems[0]


def problems_of(tmp_path: Path, data: bytes) -> list[str]:
    path = tmp_path / "log_0000.mcap"
    path.write_bytes(data)
    with Log(path) as log:
        return [it.removeprefix(f"{path}: ") for it in check_log(log)[2]]


def whole() -> Builder:
    return small(chunk_cycles=3, cycles=6).finish({"reason": "done"})


def test_check_finds_what_only_other_programs_read(tmp_path: Path) -> None:
    """The CRC of a chunk and its message indexes: reading the cycles needs neither."""
    builder = whole()
    assert problems_of(tmp_path, builder.data) == []
    start, size, _, places, _, _ = builder.chunks[1]
    first, second = list(places.values())[:2]
    chunk = f"byte {start}: "

    def changed(at: int, layout: str, value: int) -> list[str]:
        data = bytearray(builder.data)
        struct.pack_into(layout, data, at, value)
        return problems_of(tmp_path, data)

    (crc,) = struct.unpack_from("<I", builder.data, start + 33)
    assert changed(start + 33, "<I", 5) == [
        f"{chunk}chunk has CRC {crc:#010x}; expected 0x00000005"
    ]
    assert changed(start + 33, "<I", 0) == []  # it has none
    # An index: opcode, length, channel, size, then times and offsets.
    (time_ns, offset) = struct.unpack_from("<QQ", builder.data, first + 15)
    place = start + 49 + offset
    none = f"{chunk}message index at byte {first} points to byte {{}}: no such message"
    assert changed(first + 15, "<Q", time_ns + 1) == [none.format(place)]
    assert changed(first + 23, "<Q", offset + 1) == [none.format(place + 1)]
    assert changed(first + 9, "<H", 2) == [none.format(place)]
    last = size - 31
    assert changed(first + 23, "<Q", last) == [none.format(start + 49 + last)]
    assert changed(first + 23, "<Q", last + 1) == [
        f"{chunk}message index at byte {first} points past the end of the chunk"
    ]
    assert changed(first + 11, "<I", 15) == [
        f"{chunk}message index at byte {first}: message index of 15 bytes; expected a multiple of 16"
    ]
    length = builder.chunks[1][4]
    offsets = dict(places)
    found = dict(list(offsets.items())[:1])
    assert changed(second, "<B", 0x80) == [
        f"{chunk}the summary puts its message indexes at {(offsets, length)}; "
        f"they are at {(found, second - first)}"
    ]


@pytest.mark.parametrize("rest", [0, 1, 8])
def test_check_reads_a_slab_that_was_cut_after_a_chunk(tmp_path: Path, rest: int) -> None:
    builder = whole()
    start, length, *_ = builder.chunks[0]
    end = start + 9 + 40 + length
    assert problems_of(tmp_path, bytes(builder.data[: end + rest])) == [
        f"byte {end}: truncated record: expected 9 bytes, got {rest}"
    ]


def test_check_counts_and_shows_what_it_reads(tmp_path: Path) -> None:
    path = tmp_path / "log_0000.mcap"
    path.write_bytes(whole().data)
    shown: list[int] = []
    with Log(path) as log:
        assert check_log(log, progress=shown.append) == (6, 7, [])
    assert shown == [1000, 1010, 1020, 1030, 1040, 1050]


def test_check_does_not_compare_the_chunks_of_what_is_damaged(tmp_path: Path) -> None:
    """Its loss says it all: what comes after is not read."""
    builder = whole()
    data = bytearray(builder.data)
    data[-60] ^= 1  # of the summary
    start = builder.chunks[1][0]
    struct.pack_into("<I", data, start + 33, 5)
    [problem] = problems_of(tmp_path, data)
    assert "the summary is damaged" in problem


def test_check_says_once_for_each_channel_what_it_should_not_hold(tmp_path: Path) -> None:
    builder = Builder(channel={"payload": "none"})
    for cycle, data in enumerate([b"", b"ab", b"abc"]):
        builder.cycle(cycle, 1000 + cycle, [(1, 1, data), (2, 1, b"\x80")])
    path = tmp_path / "log_0000.mcap"
    path.write_bytes(builder.leave_open().data)
    with Log(path) as log:
        assert next(log.messages("/cam/image")).fields == {}
        assert check_log(log) == (
            3, 6,
            [
                f"{path}: cycle 1: /cam/image: a payload of 2 bytes; expected none, as its channel "
                "says",
                f"{path}: /cam/image: has an encoding or a schema, and no payloads",
            ],
        )  # fmt: skip


class Parsed:
    """A stored picture whose payload is the cycle of its key frame, or no number."""

    def __init__(self, payload: memoryview) -> None:
        text = bytes(payload).decode()
        codec = "zstd" if text.startswith("z") else "packets"
        self.own = {"codec": codec, "key": int(text.removeprefix("z"))}

    parse = classmethod(lambda cls, payload: cls(payload))


def test_pictures_before_the_first_key_frame_are_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a flight recorder's log: what they need was removed. Others that are not decoded are wrong."""
    monkeypatch.setattr(check, "StoredPicture", Parsed)
    builder = Builder(channel={"codec": "packets"})
    for cycle, payload in enumerate((b"4", b"4", b"5", b"x", b"z4"), 5):
        builder.cycle(cycle, 1000, [(1, 1, payload), (2, 1, b"\x80")])
    path = tmp_path / "log_0000.mcap"
    path.write_bytes(builder.leave_open().data)
    notes: list[str] = []
    with Log(path) as log:
        cycles, messages, problems = check_log(log, note=notes.append)
        assert (cycles, messages, len(problems)) == (5, 10, 3)
        for cycle, problem in zip((7, 8, 9), problems, strict=True):
            assert problem.startswith(f"{path}: cycle {cycle}: /cam/image: the picture cannot be ")
        assert check_log(log)[2] == problems
        assert check_log(log, pictures=False)[2] == []
    assert notes == ["/cam/image: the first 2 pictures come before the first key frame in the log"]
