"""Damage for logs: what disks, cut-off writers and people who mean harm make of the bytes of a file."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zlib_ng.zlib_ng import crc32

from support.fuzz.originals import Original
from support.fuzz.payloads import with_wrong_payloads
from support.log_bytes import Builder

FOOTER, MESSAGE, CHUNK, ATTACHMENT = 0x02, 0x05, 0x06, 0x09
PAD, CYCLE, CHECK, LINES = 0x80, 0x81, 0x82, 0x83
OPCODES = (*range(0x10), PAD, CYCLE, CHECK, LINES, 0xFF)
CHUNK_HEAD_SIZE, CYCLE_HEAD_SIZE, MESSAGE_HEAD_SIZE = 49, 41, 31
# fmt: off
NUMBERS = (
    0, 1, 2, 7, 8, 9, 16, 22, 31, 32, 40, 41, 49, 50, 127, 128, 255, 256, 4095, 4096, 2**15, 2**16 - 1,
    2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1,
    2**64 - 9, 2**64 - 50,
)
# fmt: on
# fmt: off
PAYLOADS = (
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 2000,
    b"\xc9\xff\xff\xff\xff\x01", b"\xd4\xff\x00", b"\x81\x90\x01", b"\xcf" + b"\xff" * 8, b"\xc0",
    b"\xff" * 9 + b"\x01", b"\x80\x80\x80\x80\x80\x01", b"\xca\x7f\xc0\x00\x00",
    b"\xa3<f8", b"\xa1O", b"\xab(2,3)V99999", b"\x93\xff\xff\xff", b"\x92\xce\xff\xff\xff\xff\x04",
    b"\x92\xcb" + struct.pack(">d", 3.0), b"\xa4size\x92\xcd\xff\xff\xcd\xff\xff", b"\xa4rawvideo"
)
# fmt: on
"""What is hard in msgpack and protobuf: counts without contents, depth, types of another kind."""
MOST_RECORDS = 3000
MOST_COPIED = 64 << 10


def records(data: bytes | bytearray) -> list[tuple[int, int, int]]:
    """Offset, opcode and length of the records, those in chunks too, as far as they can be followed."""
    found: list[tuple[int, int, int]] = []
    offset = 8
    while offset + 9 <= len(data) and len(found) < MOST_RECORDS:
        opcode, length = struct.unpack_from("<BQ", data, offset)
        found.append((offset, opcode, length))
        sizes = {
            CHUNK: CHUNK_HEAD_SIZE,
            CYCLE: CYCLE_HEAD_SIZE,
            LINES: CYCLE_HEAD_SIZE,
        }  # their records follow their heads
        offset += sizes.get(opcode, 9 + length)
    return found


def reseal(data: bytearray) -> None:
    """Make every checksum right, as one does who means harm; those first that others are over."""
    found = records(data)
    for offset, opcode, length in found:
        content = offset + 9
        if opcode in (CYCLE, LINES) and offset + CYCLE_HEAD_SIZE <= len(data):
            (size,) = struct.unpack_from("<I", data, content + 20)
            body = data[offset + CYCLE_HEAD_SIZE :][:size]
            start = crc32(bytes([LINES])) if opcode == LINES else 0
            struct.pack_into(
                "<I", data, content + 24, crc32(body, crc32(data[content : content + 24], start))
            )
        elif opcode == ATTACHMENT and length >= 4 and content + length <= len(data):
            end = content + length - 4
            struct.pack_into("<I", data, end, crc32(data[content:end]))
    for offset, opcode, _ in found:
        if opcode == CHUNK and offset + CHUNK_HEAD_SIZE <= len(data):
            crc, _, size = struct.unpack_from("<IIQ", data, offset + 33)
            if crc:
                held = data[offset + CHUNK_HEAD_SIZE :][:size]
                struct.pack_into("<I", data, offset + 33, crc32(held))
    footers = {len(data) - 37} if len(data) > 45 and data[-37] == FOOTER else set()
    for offset, opcode, _ in found:
        if opcode == CHECK and offset + 21 <= len(data):
            (start,) = struct.unpack_from("<Q", data, offset + 9)
            struct.pack_into("<I", data, offset + 17, crc32(data[start:offset]))
        elif opcode == FOOTER and offset + 29 <= len(data):
            footers.add(offset)
    for offset in sorted(footers):
        (start,) = struct.unpack_from("<Q", data, offset + 9)
        if start:
            struct.pack_into("<I", data, offset + 25, crc32(data[start : offset + 25]))


def _place(data: bytearray, rng: random.Random) -> int:
    """Anywhere, but mostly where something is written."""
    if rng.random() < 0.3:
        return rng.randrange(len(data))
    at, opcode, length = rng.choice(records(data))
    most = 20 if opcode == PAD else len(data)
    return min(len(data) - 1, at + rng.randrange(9 + max(1, min(length, most))))


def _start(data: bytearray, rng: random.Random) -> int:
    """Where a record begins."""
    return rng.choice(records(data) or [(8, 0, 0)])[0]


def _span(data: bytearray, rng: random.Random) -> tuple[int, int]:
    """One record, or several in a row; half of the time, cycles with all that is in them."""
    inside = (MESSAGE, PAD) if rng.random() < 0.5 else ()
    starts = [at for at, opcode, _ in records(data) if opcode not in inside] + [len(data)]
    first = rng.randrange(max(1, len(starts) - 1))
    return starts[first], starts[min(first + rng.choice((1, 1, 2, 5, 20)), len(starts) - 1)]


# -- each changes the bytes of a file in place -----------------------------------------------------


def flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def overwrite(data: bytearray, rng: random.Random) -> None:
    at = _place(data, rng)
    data[at : at + rng.choice((1, 4, 8, 40, 64))] = rng.randbytes(rng.choice((1, 4, 8, 40, 64)))


def zero_run(data: bytearray, rng: random.Random) -> None:
    at = rng.choice((0, _place(data, rng), _place(data, rng), _place(data, rng) & -4096))
    end = min(len(data), at + rng.choice((1, 8, 9, 41, 50, 512, 4096)))
    data[at:end] = bytes(end - at)


def attack_length(data: bytearray, rng: random.Random) -> None:
    at, _, length = rng.choice(records(data))
    near = (length + 1, length - 1, length + 9, len(data), len(data) - at, len(data) - at - 9)
    struct.pack_into("<Q", data, at + 1, rng.choice((*NUMBERS, *near)) % 2**64)


def attack_number(data: bytearray, rng: random.Random) -> None:
    """A count, a size, a time or an offset inside a record."""
    offset, _, length = rng.choice(records(data))
    size = rng.choice((1, 2, 4, 8, 8))
    at = offset + 9 + rng.randrange(max(1, min(length, 120)))
    if at + size <= len(data):
        old = int.from_bytes(data[at : at + size], "little")
        near = (
            old + 1,
            old - 1,
            old + 9,
            2 * old,
            len(data),
            len(data) - at,
            len(data) - offset,
            old ^ 1 << rng.randrange(64),
        )
        value = rng.choice((*NUMBERS, *3 * near)) % 256**size
        data[at : at + size] = value.to_bytes(size, "little")


def attack_opcode(data: bytearray, rng: random.Random) -> None:
    data[_start(data, rng)] = rng.choice((*OPCODES, rng.randrange(256)))


def truncate(data: bytearray, rng: random.Random) -> None:
    at = rng.choice(
        (rng.randrange(len(data)), _place(data, rng), _start(data, rng) + rng.randrange(-2, 12))
    )
    del data[max(at, 1) :]


def repeat_records(data: bytearray, rng: random.Random) -> None:
    start, end = _span(data, rng)
    at = rng.choice((end, end, _start(data, rng)))
    data[at:at] = data[start : min(end, start + MOST_COPIED)] * rng.choice((1, 1, 2, 3, 50))


def drop_records(data: bytearray, rng: random.Random) -> None:
    start, end = _span(data, rng)
    del data[start:end]


def move_records(data: bytearray, rng: random.Random) -> None:
    """To another place, or over what is there."""
    start, end = _span(data, rng)
    piece = data[start:end]
    del data[start:end]
    at = _start(data, rng)
    data[at : at + rng.choice((0, len(piece)))] = piece


def swap_records(data: bytearray, rng: random.Random) -> None:
    (a, b), (c, d) = sorted((_span(data, rng), _span(data, rng)))
    if b <= c:
        data[a:d] = data[c:d] + data[b:c] + data[a:b]


def insert(data: bytearray, rng: random.Random) -> None:
    at = rng.choice((_start(data, rng), rng.randrange(len(data))))
    size = rng.choice((1, 8, 9, 41, 4096))
    data[at:at] = rng.choice((bytes(size), rng.randbytes(size)))


def attack_payload(data: bytearray, rng: random.Random) -> None:
    """Something hard to decode in a message."""
    found = [it for it in records(data) if it[1] == MESSAGE and 22 < it[2] < len(data)]
    if found:
        offset, _, length = rng.choice(found)
        size = min(length - 22, 300 if rng.random() < 0.8 else length - 22)
        at = offset + MESSAGE_HEAD_SIZE + rng.randrange(size)
        hard = rng.choice(PAYLOADS) if rng.random() < 0.7 else rng.randbytes(rng.choice((1, 1, 4)))
        end = min(offset + 9 + length, at + len(hard))
        data[at:end] = hard[: end - at]


def splice(data: bytearray, rng: random.Random, other: bytes) -> None:
    """The beginning of one log and the end of another, or records of it in this, at records mostly."""
    taken = bytearray(other)
    start, end = _span(taken, rng)
    at, stop = _span(data, rng)
    piece = taken[start : min(end, start + MOST_COPIED)]
    action = rng.random()
    if action < 0.4:
        data[at:] = taken[start:]
    elif action < 0.55:
        at = rng.randrange(min(len(data), len(taken)))
        data[at:] = taken[at:]
    else:
        data[at : rng.choice((at, stop))] = piece


# fmt: off
MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip_bits, overwrite, zero_run, attack_length, attack_number, attack_opcode, truncate,
    repeat_records, drop_records, move_records, swap_records, insert, attack_payload,
)
# fmt: on


# -- a whole log, changed --------------------------------------------------------------------------


@dataclass
class Case:
    """A changed log. exact: its checksums were left alone, so what is read must be what was written.

    donors: the logs of the same run that parts were taken from.
    """

    original: Original
    files: dict[str, bytes]
    exact: bool
    changes: list[str]
    donors: list[Original]

    @property
    def sources(self) -> list[Original]:
        return [self.original, *self.donors]

    def __str__(self) -> str:
        sums = "exact" if self.exact else "checksums right"
        return f"{self.original.name}; {', '.join(self.changes)}; {sums}"


def make_case(originals: Sequence[Original], choices: Sequence[int]) -> Case:
    """The case that `choices` give: the first chooses the log, each other one chooses a change."""
    rng = random.Random(choices[0])
    original = rng.choice(originals)
    files = {name: slab.data for name, slab in original.slabs.items()}
    case = Case(original, files, rng.random() < 0.5, [], [])
    changed = set()
    for choice in choices[1:]:
        rng = random.Random(choice)
        name = rng.choice([*files])
        data = bytearray(files[name])
        if not case.exact and not case.changes and rng.random() < 0.45:
            change = "wrong payloads"
            data = _with_wrong_payloads(original, name, rng)
        elif len(data) <= 64 or not records(data):
            continue
        elif rng.random() < 0.12:
            same = [it for it in originals if it.run == original.run]
            other = rng.choice(rng.choice((same, originals)))
            slab = rng.choice([*other.slabs])
            change = f"splice ({other.name}: {slab})"
            splice(data, rng, other.slabs[slab].data)
            case.donors.append(other)
            # A cycle of another run is whole, but its channels have other names here.
            case.exact = case.exact and other.run == original.run
        else:
            mutation = rng.choice(MUTATIONS)
            change = mutation.__name__
            mutation(data, rng)
        files[name] = bytes(data)
        changed.add(name)
        case.changes.append(f"{change} in {name}")
    if not case.exact:
        for name in changed:
            data = bytearray(files[name])
            reseal(data)
            files[name] = bytes(data)
    return case


def _with_wrong_payloads(original: Original, name: str, rng: random.Random) -> bytearray:
    """The slab of that name as one that is unfinished, some of its payloads whole but wrong."""
    slab = original.slabs[name]
    log = Builder(data=bytearray(), topics=("/t/p",) * 100)
    log.data[:] = slab.preamble
    for number in slab.numbers:
        time_ns, messages = original.cycles[number]
        log.cycle(number, time_ns, with_wrong_payloads(messages, slab.channels, rng))
    return log.leave_open().data
