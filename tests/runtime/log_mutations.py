"""Damage for logs: what disks, cut-off writers and people who mean harm make of the bytes of a slab."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Sequence

CHUNK_HEAD_SIZE = 49
MESSAGE, CHUNK, CYCLE, CHECK, FOOTER = 0x05, 0x06, 0x81, 0x82, 0x02
OPCODES = (*range(0x01, 0x10), 0x80, 0x81, 0x82, 0x00, 0x83, 0xFF)
NUMBERS = (
    0, 1, 2, 7, 8, 9, 22, 40, 41, 50, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
    2**40, 2**63 - 1, 2**63, 2**64 - 1, 2**64 - 9, 2**64 - 50,
)  # fmt: skip
PAYLOADS = (
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 2000,
    b"\xc9\xff\xff\xff\xff\x01", b"\xd4\xff\x00", b"\x81\x90\x01", b"\xcf" + b"\xff" * 8, b"\xc0",
    b"\xff" * 9 + b"\x01", b"\x80\x80\x80\x80\x80\x01", b"\xca\x7f\xc0\x00\x00",
    b"\xa3<f8", b"\xa1O", b"\xab(2,3)V99999", b"\x93\xff\xff\xff", b"\x92\xce\xff\xff\xff\xff\x04",
    b"\x92\xcb" + struct.pack(">d", 3.0), b"\xa4size\x92\xcd\xff\xff\xcd\xff\xff", b"\xa4rawvideo"
)  # fmt: skip
"""What is hard in msgpack and protobuf: counts without contents, depth, types of another kind."""
MOST_RECORDS = 3000


def records(data: bytes | bytearray) -> list[tuple[int, int, int]]:
    """Offset, opcode and length of the records, those in chunks too, as far as they can be followed."""
    found: list[tuple[int, int, int]] = []
    offset = 8
    while offset + 9 <= len(data) and len(found) < MOST_RECORDS:
        opcode, length = struct.unpack_from("<BQ", data, offset)
        found.append((offset, opcode, length))
        offset += CHUNK_HEAD_SIZE if opcode == CHUNK else 9 + length
    return found


def reseal(data: bytes | bytearray) -> bytes:
    """`data` with every checksum made right, as one does who means harm. The library's name is
    written in capitals, so that the log is told from one whose checksums are its writer's."""
    out = bytearray(data)
    if out[32:39] == b"flowrun":
        out[32:39] = b"FLOWRUN"
    size = len(out)
    for offset, opcode, length in records(out):
        content = offset + 9
        if opcode == CYCLE and length == 32 and content + 32 <= size:
            (count,) = struct.unpack_from("<I", out, content + 20)
            if content + 32 + count <= size:
                crc = zlib.crc32(out[content : content + 24])
                crc = zlib.crc32(out[content + 32 : content + 32 + count], crc)
                struct.pack_into("<I", out, content + 24, crc)
        elif opcode == CHUNK and content + 40 <= size:
            (held,) = struct.unpack_from("<Q", out, content + 32)
            if struct.unpack_from("<I", out, content + 24)[0] and content + 40 + held <= size:
                crc = zlib.crc32(out[content + 40 : content + 40 + held])
                struct.pack_into("<I", out, content + 24, crc)
        elif opcode == CHECK and content + 12 <= size:
            (start,) = struct.unpack_from("<Q", out, content)
            struct.pack_into("<I", out, content + 8, zlib.crc32(out[start:offset]))
        elif opcode == FOOTER and content + 20 <= size:
            (start,) = struct.unpack_from("<Q", out, content)
            if start:
                struct.pack_into("<I", out, content + 16, zlib.crc32(out[start : content + 16]))
    return bytes(out)


# -- each takes a log that may be changed in place, and gives it or another -------------------------


def flip_bits(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def overwrite(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data))
    data[at : at + rng.choice((1, 4, 8, 64))] = rng.randbytes(rng.choice((1, 4, 8, 64)))
    return data


def zero_run(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data))
    if rng.random() < 0.3:
        at -= at % 4096
    end = min(len(data), at + rng.choice((1, 8, 9, 41, 512, 4096)))
    data[at:end] = bytes(end - at)
    return data


def attack_length(data: bytearray, rng: random.Random) -> bytearray:
    offset, _, length = rng.choice(records(data))
    value = rng.choice((
        *NUMBERS, length + 1, length - 1, length + 9, len(data), len(data) - offset,
        len(data) - offset - 9,
    ))  # fmt: skip
    struct.pack_into("<Q", data, offset + 1, value % 2**64)
    return data


def attack_number(data: bytearray, rng: random.Random) -> bytearray:
    """A count, a size, a time or an offset inside a record."""
    offset, _, length = rng.choice(records(data))
    layout = rng.choice(("<Q", "<I", "<I", "<H"))
    at = offset + 9 + rng.randrange(max(1, min(length, 48)))
    if at + 8 <= len(data):
        (value,) = struct.unpack_from(layout, data, at)
        value = rng.choice((*NUMBERS, value + 1, value - 1, 2 * value))
        struct.pack_into(layout, data, at, value % 2 ** (8 * struct.calcsize(layout)))
    return data


def attack_opcode(data: bytearray, rng: random.Random) -> bytearray:
    data[rng.choice(records(data))[0]] = rng.choice(OPCODES)
    return data


def truncate(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data))
    if rng.random() < 0.5:
        at = max(0, rng.choice(records(data))[0] + rng.randrange(-2, 12))
    del data[at:]
    return data


def repeat_records(data: bytearray, rng: random.Random) -> bytearray:
    first, last = _some_records(data, rng)
    at = rng.choice(records(data))[0]
    data[at:at] = data[first:last] * rng.choice((1, 1, 2, 50))
    return data


def drop_records(data: bytearray, rng: random.Random) -> bytearray:
    first, last = _some_records(data, rng)
    del data[first:last]
    return data


def move_records(data: bytearray, rng: random.Random) -> bytearray:
    first, last = _some_records(data, rng)
    moved = data[first:last]
    del data[first:last]
    at = rng.choice(records(data) or [(8, 0, 0)])[0]
    data[at:at] = moved
    return data


def insert(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.choice(records(data))[0] if rng.random() < 0.5 else rng.randrange(len(data))
    size = rng.choice((1, 8, 9, 41, 4096))
    data[at:at] = bytes(size) if rng.random() < 0.5 else rng.randbytes(size)
    return data


def attack_payload(data: bytearray, rng: random.Random) -> bytearray:
    """Something hard to decode in a message."""
    messages = [it for it in records(data) if it[1] == MESSAGE and 22 < it[2] < len(data)]
    if messages:
        offset, _, length = rng.choice(messages)
        size = min(length - 22, 300 if rng.random() < 0.8 else length - 22)
        at = offset + 31 + rng.randrange(size)
        hard = rng.choice(PAYLOADS) if rng.random() < 0.7 else rng.randbytes(rng.choice((1, 1, 4)))
        end = min(offset + 9 + length, at + len(hard))
        data[at:end] = hard[: end - at]
    return data


def _some_records(data: bytearray, rng: random.Random) -> tuple[int, int]:
    found = records(data)
    first = rng.randrange(len(found))
    last = min(len(found), first + rng.choice((1, 1, 2, 5, 20)))
    end = found[last][0] if last < len(found) else len(data)
    return found[first][0], end


MUTATIONS: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (
    flip_bits, overwrite, zero_run, attack_length, attack_number, attack_opcode, truncate,
    repeat_records, drop_records, move_records, insert, attack_payload,
)  # fmt: skip


def splice(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """The beginning of one log and the end of another, at records or anywhere."""
    if rng.random() < 0.7:
        here, there = rng.choice(records(data))[0], rng.choice(records(other))[0]
    else:
        here = there = rng.randrange(min(len(data), len(other)))
    return data[:here] + other[there:]


def mutate(data: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """`data` damaged by one to four of the above; resealed or not."""
    if others and rng.random() < 0.1:
        data = splice(data, rng.choice(others), rng)
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if len(damaged) > 64 and records(damaged):
            damaged = rng.choice(MUTATIONS)(damaged, rng)
    if rng.random() < 0.5:
        return reseal(damaged)
    return bytes(damaged)
