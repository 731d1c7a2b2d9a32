"""Feeds the log's reader with whole runs of which something was changed.

    python tests/runtime/fuzz_runs.py [--minutes 5 | --cases 20000] [--seed 1] [--keep DIR]

Each case is a run of the real writer (finished and not, several slabs, chunks and codecs, a flight
recorder's) in which something was changed: bytes, lengths, counts, records cut, doubled, put in other
places or taken from another log, zeros. In half of the cases all checksums are made right again, so
that what they would have found goes on to what stands behind them. The laws:

- Reading everything (cycles, messages, pictures, tables, random access, check, recover, info, diff)
  raises `FlowrunError` or nothing;
- it ends within `MOST_S` and takes at most `MOST_BYTES` more memory;
- where checksums were left alone, every message that is given out is the one that was written at that
  cycle and topic, before and after `recover`; and what is missing is said by `Log.loss`.

A child process does the work; the parent watches it, and goes on behind a case that ended it. The
number of a case and the seed give the case again: --case N.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from helpers import GridMsg
from zlib_ng.zlib_ng import crc32

from flowrun.msgs import BytesMsg, ImageRgb8Msg, IntMsg, TextMsg
from flowrun.msgs.image import VideoDecoder, VideoPackets
from flowrun.runtime import log_decode, log_slab, log_writer
from flowrun.runtime.cli import main as flowrun
from flowrun.runtime.errors import FlowrunError
from flowrun.runtime.log_check import check_log
from flowrun.runtime.log_diff import compare_logs
from flowrun.runtime.log_reader import Log
from flowrun.runtime.log_recover import recover
from flowrun.runtime.log_writer import LogWriter, Output
from flowrun.runtime.video import PacketDecoder, RgbConverter, set_color

MOST_S = 10.0
MOST_BYTES = 1 << 30
CYCLES = 24
PICTURES = ("raw", "zstd", "ffv1", "packets")


class BrokenLawError(AssertionError):
    """A law that does not hold."""


@dataclass(frozen=True)
class Original:
    """A run as it was written: its files, and what is in them."""

    name: str
    files: dict[str, bytes]
    messages: dict[tuple[int, str], tuple[int, bytes]] = field(repr=False)
    pixels: dict[tuple[int, str], int] = field(repr=False)
    """CRC of each picture."""

    @property
    def run(self) -> str:
        """What the states of one run have in common."""
        return self.name.partition(",")[0]

    @property
    def cycles(self) -> set[int]:
        return {cycle for cycle, _ in self.messages}


# -- runs to begin with --------------------------------------------------------------------------


def originals(folder: Path) -> list[Original]:
    """Runs of the real writer, with slabs and chunks of some KiB."""
    before = log_writer._MIB, log_slab.CHUNK_SIZE, log_slab._LOOK_AHEAD
    made = []
    try:
        log_slab._LOOK_AHEAD = 8 << 10
        for name, outputs, size, chunk, more in (
            ("small", _small_outputs, 64 << 10, 900, {}),
            ("slabs", _small_outputs, 8 << 10, 1500, {}),
            ("ring", _small_outputs, 8 << 10, 1500, {"keep_slabs": 2}),
            ("pictures", _picture_outputs, 256 << 10, 6000, {}),
        ):
            log_writer._MIB, log_slab.CHUNK_SIZE = size, chunk
            made += _written(folder / name, name, outputs(), more)
    finally:
        log_writer._MIB, log_slab.CHUNK_SIZE, log_slab._LOOK_AHEAD = before
    return made


def _written(
    run: Path, name: str, outputs: list[tuple[Output, Callable[[int], Any]]], more: dict[str, Any]
) -> list[Original]:
    """The run as it was left in the middle, and finished."""
    writer = LogWriter(
        run, outputs=[output for output, _ in outputs], steps=2,
        metadata={"run_id": name, "graph": "g"}, slab_size_mib=1, section_size_mib=1, **more,
    )  # fmt: skip
    found = []
    for cycle in range(CYCLES):
        messages = [make(cycle) for _, make in outputs]
        events = (
            [{"kind": "set", "task": "t", "key": "k", "value": cycle}] if cycle % 7 == 3 else []
        )
        if cycle % 5 == 2:
            writer.log_record(1000 + cycle, "info", f"line {cycle}", "t", {"n": cycle, "w": [1.5]})
        writer.commit(
            cycle, 1_000_000 + 1000 * cycle, writer.bind(messages), start_ns=cycle,
            ends_ns=[cycle + 1, cycle + 2], events=events,
        )  # fmt: skip
        if cycle == CYCLES - 5:
            writer._wait_for_finished()
            found.append(_original(run, f"{name}, unfinished"))
    writer.finish({"reason": "end of sources", "cycles": str(CYCLES), "ended_ns": "5"})
    found.append(_original(run, f"{name}, finished"))
    return found


def _original(run: Path, name: str) -> Original:
    files = {path.name: path.read_bytes() for path in sorted(run.glob("*.mcap"))}
    messages, pixels = {}, {}
    with Log(run) as log:
        for message in log.messages():
            key = message.cycle, message.topic
            # Several log lines or events may stand in a cycle; here one does.
            assert key not in messages
            messages[key] = message.tov_ns, bytes(message.payload)
            if log.topics[message.topic].is_picture:
                pixels[key] = crc32(message.fields["pixels"].tobytes())
        assert log.loss is None
    return Original(name, files, messages, pixels)


def _small_outputs() -> list[tuple[Output, Callable[[int], Any]]]:
    def number(cycle: int) -> IntMsg:
        message = IntMsg(value=cycle * cycle)
        message.publish(tov_ns=cycle)
        return message

    def words(cycle: int) -> TextMsg:
        message = TextMsg(value="word " * (cycle % 9))
        if cycle % 3:
            message.publish(tov_ns=cycle + 1)
        return message

    def grid(cycle: int) -> GridMsg:
        message = GridMsg(grid=np.full((cycle % 4, 2), cycle, np.float32), note="n")
        message.publish(tov_ns=cycle + 2)
        return message

    def large(cycle: int) -> BytesMsg:
        message = BytesMsg(value=bytes([cycle]) * (5000 if cycle % 11 == 5 else 3))
        message.publish()
        return message

    return [
        (Output("n", "number", "/n/number", IntMsg), number),
        (Output("w", "words", "/w/words", TextMsg), words),
        (Output("g", "grid", "/g/grid", GridMsg), grid),
        (Output("b", "data", "/b/data", BytesMsg), large),
        (Output("q", "quiet", "/q/quiet", IntMsg, payload=False), number),
    ]


def _picture_outputs() -> list[tuple[Output, Callable[[int], Any]]]:
    film = _film()

    def maker(codec: str) -> Callable[[int], ImageRgb8Msg]:
        def picture(cycle: int) -> ImageRgb8Msg:
            pixels, video = film[cycle]
            message = ImageRgb8Msg(
                pixels=pixels, frame_id=cycle, pts=None if codec == "zstd" else cycle, fps=30.0,
                source="test",
            )  # fmt: skip
            if codec == "packets":
                message.video = video
            message.publish(tov_ns=cycle)
            return message

        return picture

    return [
        (Output(codec, "image", f"/{codec}/image", ImageRgb8Msg, codec=codec), maker(codec))
        for codec in PICTURES
    ]


def _film() -> list[tuple[Any, VideoPackets]]:
    """The pictures of a small film of MPEG-4, with the packets that give them."""
    import av

    encoder: Any = av.CodecContext.create("mpeg4", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 32, 16, "yuv420p"
    encoder.framerate, encoder.gop_size, encoder.max_b_frames = 30, 6, 0
    packets = []
    for cycle in range(CYCLES):
        drawn = np.full((16, 32, 3), 10 * cycle % 256, np.uint8)
        drawn[:, cycle % 32] = 255
        packets += encoder.encode(av.VideoFrame.from_ndarray(drawn, format="rgb24"))
    packets += encoder.encode(None)
    described = VideoDecoder("mpeg4", bytes(encoder.extradata or b""), 32, 16, "yuv420p")
    decoder, converter, made = PacketDecoder(described, ahead=False), RgbConverter(), []
    decoded = []
    for number, packet in enumerate(packets):
        decoded += decoder.decode(number, bytes(packet))
    decoded += decoder.drain()
    assert [number for number, _ in decoded] == list(range(CYCLES))
    for (number, picture), packet in zip(decoded, packets, strict=True):
        color = int(picture.colorspace), int(picture.color_range)
        set_color(picture, color)
        pixels = np.ascontiguousarray(converter.rgb(picture))
        content = ((bytes(packet), bool(packet.is_keyframe)),)
        made.append((pixels, VideoPackets(described, content, number, number, 0, color)))
    return made


# -- what is changed -----------------------------------------------------------------------------

NUMBERS = [0, 1, 2, 8, 9, 16, 31, 32, 40, 41, 49, 127, 128, 255, 256, 4095, 4096, 65535, 65536,
           2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 9,
           2**64 - 1]  # fmt: skip


def records(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Offset, opcode and length of every record that can be found, those inside chunks too."""
    at = 8
    while at + 9 <= len(data):
        opcode, length = struct.unpack_from("<BQ", data, at)
        yield at, opcode, length
        if opcode == 0x06 or opcode == 0x81:  # a chunk's and a cycle's records follow their heads
            at += 49 if opcode == 0x06 else 41
        else:
            at += 9 + length


def _length_or_count(data: bytearray, rng: random.Random, _: Original) -> None:
    """A number in a record's head or content."""
    at, _, length = rng.choice([*records(data)])
    size = rng.choice([1, 2, 4, 8, 8])
    place = at + (1 if rng.random() < 0.4 else rng.randrange(1, 9 + min(length, 120) + 1))
    if place + size > len(data):
        return
    old = int.from_bytes(data[place : place + size], "little")
    near = [
        old + 1,
        old - 1,
        old + 9,
        old * 2,
        len(data),
        len(data) - at,
        old ^ 1 << rng.randrange(64),
    ]
    value = rng.choice(NUMBERS + near * 3) % 256**size
    data[place : place + size] = value.to_bytes(size, "little")


def _bits(data: bytearray, rng: random.Random, _: Original) -> None:
    for _ in range(rng.choice([1, 1, 2, 8])):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _bytes(data: bytearray, rng: random.Random, _: Original) -> None:
    at = _place(data, rng)
    data[at : at + rng.randrange(40)] = rng.randbytes(rng.randrange(40))


def _place(data: bytearray, rng: random.Random) -> int:
    """Mostly where something is written."""
    at, opcode, length = rng.choice([*records(data)])
    if opcode == 0x80:
        length = min(length, 20)
    return min(len(data) - 1, at + rng.randrange(9 + max(1, min(length, len(data)))))


def _cut(data: bytearray, rng: random.Random, _: Original) -> None:
    at = _place(data, rng) if rng.random() < 0.7 else rng.randrange(len(data))
    del data[max(at, 1) :]


def _opcode(data: bytearray, rng: random.Random, _: Original) -> None:
    at, _, _ = rng.choice([*records(data)])
    data[at] = rng.choice([*range(0x10), 0x80, 0x81, 0x82, rng.randrange(256)])


def _zeros(data: bytearray, rng: random.Random, _: Original) -> None:
    at = rng.choice([0, _place(data, rng), _place(data, rng) & -4096])
    size = min(rng.choice([1, 8, 9, 50, 512, 4096]), len(data) - at)
    data[at : at + size] = bytes(size)


def _span(data: bytearray, rng: random.Random) -> tuple[int, int]:
    """One record, or several in a row."""
    starts = [at for at, _, _ in records(data)] + [len(data)]
    first = rng.randrange(max(1, len(starts) - 1))
    return starts[first], starts[min(first + rng.choice([1, 1, 2, 5]), len(starts) - 1)]


def _remove(data: bytearray, rng: random.Random, _: Original) -> None:
    start, end = _span(data, rng)
    del data[start:end]


def _double(data: bytearray, rng: random.Random, _: Original) -> None:
    start, end = _span(data, rng)
    data[end:end] = data[start : min(end, start + 8192)] * rng.choice([1, 1, 3])


def _move(data: bytearray, rng: random.Random, _: Original) -> None:
    start, end = _span(data, rng)
    piece = data[start : min(end, start + 8192)]
    del data[start:end]
    at, _ = _span(data, rng)
    if rng.random() < 0.5:
        data[at:at] = piece
    else:
        data[at : at + len(piece)] = piece


def _swap(data: bytearray, rng: random.Random, _: Original) -> None:
    (a, b), (c, d) = sorted([_span(data, rng), _span(data, rng)])
    if b <= c:
        data[a:d] = data[c:d] + data[b:c] + data[a:b]


def _splice(data: bytearray, rng: random.Random, other: Original) -> None:
    """A part of another log in place of one of this, or its end behind the beginning of this."""
    taken = bytearray(rng.choice([*other.files.values()]))
    start, end = _span(taken, rng)
    at, stop = _span(data, rng)
    if rng.random() < 0.4:
        data[at:] = taken[start:]
    else:
        data[at : stop if rng.random() < 0.5 else at] = taken[start : min(end, start + 8192)]


CHANGES: list[Callable[[bytearray, random.Random, Original], None]] = [
    _length_or_count, _length_or_count, _length_or_count, _bits, _bits, _bytes, _cut, _opcode, _zeros,
    _remove, _double, _move, _swap, _splice,
]  # fmt: skip


def make_right(data: bytearray) -> None:
    """Compute the checksums anew: of cycles, preamble, end, attachments and summary."""
    for at, opcode, length in records(data):
        if opcode == 0x81 and at + 41 <= len(data):
            (size,) = struct.unpack_from("<I", data, at + 29)
            crc = crc32(data[at + 41 : at + 41 + size], crc32(data[at + 9 : at + 33]))
            struct.pack_into("<I", data, at + 33, crc)
        elif opcode == 0x82 and at + 21 <= len(data):
            (start,) = struct.unpack_from("<Q", data, at + 9)
            struct.pack_into("<I", data, at + 17, crc32(data[start:at]))
        elif opcode == 0x09 and length >= 4 and at + 9 + length <= len(data):
            end = at + 9 + length - 4
            struct.pack_into("<I", data, end, crc32(data[at + 9 : end]))
    if len(data) > 37 and data[-37] == 2:
        (start,) = struct.unpack_from("<Q", data, len(data) - 28)
        if 0 < start < len(data):
            struct.pack_into("<I", data, len(data) - 12, crc32(data[start:-12]))


@dataclass
class Case:
    """A changed run. exact: its checksums were left alone, so what is read must be what was written."""

    original: Original
    files: dict[str, bytes]
    exact: bool
    changes: list[str]
    donors: list[Original]


def make_case(seeds: list[Original], rng: random.Random) -> Case:
    original = rng.choice(seeds)
    exact = rng.random() < 0.5
    files = dict(original.files)
    changes, donors = [], []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        name = rng.choice([*files])
        data = bytearray(files[name])
        change, other = rng.choice(CHANGES), rng.choice(seeds)
        if next(records(data), None) is not None:
            change(data, rng, other)
        if change is _splice:
            donors.append(other)
            # A cycle of another run is whole, but its channels have other names here.
            exact = exact and other.run == original.run
        if not exact:
            make_right(data)
        files[name] = bytes(data)
        changes.append(f"{change.__name__.strip('_')} {name}")
    return Case(original, files, exact, changes, donors)


# -- reading -------------------------------------------------------------------------------------


def read_everything(run: Path, case: Case, rng: random.Random) -> str:
    """Hold the case to the laws; says how it was read."""
    try:
        whole, loss = _read(run, case, rng)
    except FlowrunError as error:
        _check_text(error)
        whole, loss = set(), str(error)
    if case.exact and not case.donors and not whole >= case.original.cycles and loss is None:
        raise BrokenLawError(f"cycles are missing, unsaid: {sorted(case.original.cycles - whole)}")
    _command("info", run)
    _command("check", run)
    with contextlib.suppress(FlowrunError), Log(run, verify=False) as log:
        for message in log.messages():
            with contextlib.suppress(FlowrunError):
                message.outline  # noqa: B018
    kept = run.with_name("recovered")
    shutil.copytree(run, kept)
    try:
        recover(kept)
        after, _ = _read(kept, case, rng)
        if case.exact and not after >= whole:
            raise BrokenLawError(f"recovered, cycles are missing: {sorted(whole - after)}")
    except FlowrunError as error:
        _check_text(error)
        if case.exact and whole:
            raise BrokenLawError(f"read in part, but not recovered: {error}") from error
    if loss is None:
        return "read whole"
    return "read in part" if whole else "refused"


def _read(run: Path, case: Case, rng: random.Random) -> tuple[set[int], str | None]:
    found: set[int] = set()
    with Log(run) as log:
        for _ in (log.topics, log.metadata, log.attachments, log.finished, log.end, log.start_ns,
                  log.end_ns, len(log)):  # fmt: skip
            pass
        for record in log.cycles():
            found.add(record.cycle)
            for topic, tov_ns, payload in record.entries:
                _compare(case, record.cycle, topic, tov_ns, payload)
        loss = log.loss
        for message in log.messages():
            _compare(case, message.cycle, message.topic, message.tov_ns, message.payload)
            with contextlib.suppress(FlowrunError):
                fields = message.fields
                _compare_pixels(case, message.cycle, message.topic, fields)
        _access(log, case, rng, found)
        for topic in log.topics:
            with contextlib.suppress(FlowrunError):
                log.table(topic)
        check_log(log)
        with contextlib.suppress(FlowrunError), Log(run, follow=True, timeout_s=0) as other:
            compare_logs(log, other)
    return found, loss


def _access(log: Log, case: Case, rng: random.Random, found: set[int]) -> None:
    for cycle in [*rng.sample(sorted(found), min(6, len(found))), CYCLES + 5]:
        with contextlib.suppress(FlowrunError):
            record = log[cycle]
            for entry in record.entries:
                topic, tov_ns, payload = entry
                _compare(case, cycle, topic, tov_ns, payload)
                with contextlib.suppress(FlowrunError):
                    log.raw_payload(record, entry)
                    _compare_pixels(case, cycle, topic, log.message(record, entry).fields)
        for record in log.cycles(start_ns=1_000_000 + 1000 * cycle - 1, end=cycle + 2):
            for topic, tov_ns, payload in record.entries:
                _compare(case, record.cycle, topic, tov_ns, payload)


def _compare(case: Case, cycle: int, topic: str, tov_ns: int, payload: Any) -> None:
    if case.exact:
        seen = tov_ns, bytes(payload)
        if not any(it.messages.get((cycle, topic)) == seen for it in [case.original, *case.donors]):
            raise BrokenLawError(f"cycle {cycle}: {topic}: not the message that was written")


def _compare_pixels(case: Case, cycle: int, topic: str, fields: dict[str, Any]) -> None:
    if case.exact and "pixels" in fields:
        crc = crc32(np.ascontiguousarray(fields["pixels"]).tobytes())
        if not any(it.pixels.get((cycle, topic)) == crc for it in [case.original, *case.donors]):
            raise BrokenLawError(f"cycle {cycle}: {topic}: not the picture that was written")


def _command(verb: str, run: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        flowrun(["log", verb, str(run)])


def _check_text(error: FlowrunError) -> None:
    if not str(error):
        raise BrokenLawError(f"an error without a text: {error!r}")


# -- many cases ----------------------------------------------------------------------------------


class Fuzzer:
    """Runs cases in `folder`; the same seed and number give the same case."""

    def __init__(self, folder: Path, *, seed: int) -> None:
        self.seed = seed
        self.originals = originals(folder / "originals")
        self.run = folder / "case"
        self.outcomes: collections.Counter[str] = collections.Counter()

    def case(self, number: int) -> tuple[Case, random.Random]:
        rng = random.Random(self.seed << 32 | number)
        return make_case(self.originals, rng), rng

    def one(self, number: int) -> None:
        """Raises whatever is wrong."""
        case, rng = self.case(number)
        self.hold(case, rng)

    def hold(self, case: Case, rng: random.Random) -> None:
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.rmtree(self.run.with_name("recovered"), ignore_errors=True)
        self.run.mkdir()
        for name, data in case.files.items():
            (self.run / name).write_bytes(data)
        began = time.monotonic()
        outcome = read_everything(self.run, case, rng)
        if time.monotonic() - began > MOST_S:
            raise BrokenLawError(f"took {time.monotonic() - began:.1f} s")
        self.outcomes[outcome] += 1


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * mmap.PAGESIZE + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _child(fuzzer: Fuzzer, shared: memoryview, *, first: int, last: int, until: float) -> None:
    """Run cases until one is wrong; `shared` says which one runs, and since when."""
    _limit_memory()
    log_decode._pool.cache_clear()  # its threads stay with the parent
    signal.signal(signal.SIGALRM, _too_long)
    number = first
    while number < last and time.monotonic() < until:
        shared[0], shared[1] = number, time.monotonic_ns()
        signal.alarm(int(MOST_S) + 1)
        fuzzer.one(number)
        signal.alarm(0)
        number += 1
    shared[0] = number
    for place, name in enumerate(("read whole", "read in part", "refused"), 2):
        shared[place] += fuzzer.outcomes[name]


def _too_long(_signal: int, _frame: object) -> None:
    raise BrokenLawError(f"still reading after {MOST_S:g} s")


def fuzz(fuzzer: Fuzzer, *, cases: int, minutes: float, keep: Path, first: int = 0) -> list[str]:
    """Run cases in children; what was wrong, one line each."""
    found = []
    until = time.monotonic() + 60 * minutes if minutes else float("inf")
    total = first
    with mmap.mmap(-1, mmap.PAGESIZE) as page, memoryview(page).cast("Q") as shared:
        while first < cases and time.monotonic() < until:
            fuzzer.outcomes.clear()
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    with contextlib.suppress(AttributeError):
                        faults = (keep / "traceback.txt").open("w")
                    _child(fuzzer, shared, first=first, last=cases, until=until)
                    status = 0
                except BaseException:  # noqa: BLE001 - written down, whatever it is
                    signal.alarm(0)
                    for place, name in enumerate(("read whole", "read in part", "refused"), 2):
                        shared[place] += fuzzer.outcomes[name]
                    traceback.print_exc(file=faults)
                    faults.flush()
                finally:
                    os._exit(status)
            status = _wait(child, shared)
            if status == 0:
                total = shared[0]
                break
            number = shared[0]
            first = total = number + 1
            kept = keep / f"case-{fuzzer.seed}-{number}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(fuzzer.run, kept)
            case, _ = fuzzer.case(number)
            text = (keep / "traceback.txt").read_text().strip()
            (kept / "traceback.txt").write_text(text)
            why = text.splitlines()[-1] if text and os.WIFEXITED(status) else f"ended by {status}"
            found.append(f"case {number} ({case.original.name}; {', '.join(case.changes)}; "
                         f"{'exact' if case.exact else 'checksums right'}): {why}; {kept}")  # fmt: skip
            print(found[-1], flush=True)
        print(f"{total:,} cases of seed {fuzzer.seed}: {shared[2]:,} read whole, {shared[3]:,} in "
              f"part, {shared[4]:,} refused, {len(found)} wrong", flush=True)  # fmt: skip
    return found


def _wait(child: int, shared: memoryview) -> int:
    """The child's wait status; it is killed where it does not even take the alarm."""
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if shared[1] and time.monotonic_ns() - shared[1] > (MOST_S + 5) * 1e9:
            os.kill(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1]
        time.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=0, help="so long; else --cases")
    parser.add_argument("--cases", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="only this one, here, with its traceback")
    parser.add_argument("--keep", type=Path, help="where to keep cases that are wrong")
    args = parser.parse_args()
    warnings.simplefilter("error")
    if not args.minutes and not args.cases:
        args.minutes = 5
    root = Path(tempfile.mkdtemp(prefix="flowrun-fuzz-", dir=_memory()))
    keep = args.keep or Path(tempfile.gettempdir()) / "flowrun-fuzz"
    keep.mkdir(parents=True, exist_ok=True)
    try:
        fuzzer = Fuzzer(root, seed=args.seed)
        if args.case is not None:
            case, rng = fuzzer.case(args.case)
            print(case.original.name, case.changes, "exact" if case.exact else "checksums right")
            fuzzer.hold(case, rng)
            print(dict(fuzzer.outcomes))
            return 0
        cases = args.cases or 1 << 31
        return 1 if fuzz(fuzzer, cases=cases, minutes=args.minutes, keep=keep) else 0
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


if __name__ == "__main__":
    sys.exit(main())
