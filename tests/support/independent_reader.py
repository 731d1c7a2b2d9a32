"""A reader written from FORMAT.md alone, with the standard library.

It shares no code with flowrun, so that what both say about a file is what the document says.
"""

import struct
import zlib

MAGIC = b"\x89MCAP0\r\n"


def string(data, at):
    (size,) = struct.unpack_from("<I", data, at)
    return data[at + 4 : at + 4 + size].decode(), at + 4 + size


def read(data):
    """Cycles as (cycle, time_ns, [(topic, tov_ns, payload)]), and where damage ended it."""
    cycles, where = [], None
    try:
        _read_slab(data, cycles)
    except _Stop as stop:
        where = stop.args[0]
    return _with_lines(cycles), where


def _with_lines(found):
    """Log lines that were written before their cycle are among its messages."""
    cycles = []
    for _, cycle, time_ns, messages in found:
        if cycles and cycles[-1][0] == cycle:
            before = cycles.pop()[2]
            messages = before + messages  # noqa: PLW2901 - rarely
        cycles.append((cycle, time_ns, messages))
    return cycles


def channels(data):
    """Topic -> (schema name, message encoding, metadata) of a file whose front is sound."""
    schemas, found, at = {}, {}, 8
    while data[at] != 0x82:
        _, _, after = _head(data, at)
        if data[at] == 0x03:
            (number,) = struct.unpack_from("<H", data, at + 9)
            schemas[number], _ = string(data, at + 11)
        if data[at] == 0x04:
            (schema,) = struct.unpack_from("<H", data, at + 11)
            topic, place = string(data, at + 13)
            encoding, place = string(data, place)
            (size,) = struct.unpack_from("<I", data, place)
            place += 4
            end, metadata = place + size, {}
            while place < end:
                key, place = string(data, place)
                metadata[key], place = string(data, place)
            found[topic] = schemas.get(schema, ""), encoding, metadata
        at = after
    return found


class _Stop(Exception):  # noqa: N818
    """Damage, at an offset."""


def _head(data, at):
    if at + 9 > len(data):
        raise _Stop(at)
    opcode, length = struct.unpack_from("<BQ", data, at)
    return opcode, length, at + 9 + length


def _read_slab(data, cycles):
    if data[:8] != MAGIC:
        raise _Stop(0)
    topics = {}
    at = 8
    while True:  # the preamble, up to its CHECK
        opcode, _, after = _head(data, at)
        if opcode not in (0x01, 0x03, 0x04, 0x09, 0x0C, 0x82) or after > len(data):
            raise _Stop(at)
        if opcode == 0x82:
            _check(data, at, 0)
            break
        at = after
    place = 8
    while place < at:
        opcode, _, end = _head(data, place)
        if opcode == 0x04:
            (number,) = struct.unpack_from("<H", data, place + 9)
            topics[number], _ = string(data, place + 13)
        place = end
    chunks = []  # [offset, whether it is closed]
    damage = None
    try:
        _structure(data, after, chunks)
    except _Stop as stop:
        damage = stop
    for number, (chunk, closed) in enumerate(chunks):
        last = number == len(chunks) - 1
        _chunk(data, chunk, topics, cycles, closed=closed, last=last)
    if damage:
        raise damage


def _structure(data, at, chunks):
    pads = 0
    while True:
        opcode, length, after = _head(data, at)
        if opcode != 0x0F and chunks and not chunks[-1][1]:
            _close(data, chunks[-1])
        if opcode == 0x80:
            pads += 9 + length
        elif opcode in (0x06, 0x07):
            if opcode == 0x07 and (not chunks or length < 6 or (length - 6) % 16):
                raise _Stop(at)
            if pads > 64 and opcode == 0x06 and data[at + 49 : at + 50] in (b"\x81", b"\x83"):
                raise _Stop(at)
            if opcode == 0x06:
                if at + 49 > len(data):
                    raise _Stop(at)
                chunks.append([at, False])
                pads = 0
                _, length, *_, compression, records = struct.unpack_from("<BQQQQIIQ", data, at)
                if compression:
                    chunks.pop()
                if compression or records + 40 > length:
                    raise _Stop(at)
        elif opcode == 0x0C:
            _, _, end = _head(data, after)
            _check(data, after, at)
            after = end
        elif opcode == 0x0F:
            _end(data, at, length, chunks)
            return
        elif opcode in (0x03, 0x04, 0x0B) and pads == 13:
            return
        elif opcode != 0x82:
            raise _Stop(at)
        if after > len(data):
            raise _Stop(at)
        at = after


def _close(data, chunk):
    _, length, _, _, size, _, _, records = struct.unpack_from("<BQQQQIIQ", data, chunk[0])
    if not length - 40 == size == records:
        raise _Stop(chunk[0])
    chunk[1] = True


def _end(data, at, length, chunks):
    trailer = b"\x0f" + struct.pack("<QI", 4, 0) + b"\x02" + struct.pack("<Q", 20) + bytes(20)
    trailer += MAGIC
    if data[at : at + 50] != trailer:
        if chunks and not chunks[-1][1]:
            _close(data, chunks[-1])
        if length != 4 or data[at + 13 : at + 14] not in (b"\x03", b"\x04", b"\x0b"):
            raise _Stop(at)


def _check(data, at, start):
    opcode, length, after = _head(data, at)
    if opcode != 0x82 or length != 12 or after > len(data):
        raise _Stop(at)
    given, crc = struct.unpack_from("<QI", data, at + 9)
    if given != start or zlib.crc32(data[start:at]) != crc:
        raise _Stop(start)


def _chunk(data, chunk, topics, cycles, *, closed, last):
    *_, records = struct.unpack_from("<BQQQQIIQ", data, chunk)
    at, end = chunk + 49, min(chunk + 49 + records, len(data))
    while at < end:
        if data[at] == 0x80 and last and not closed:
            _unused(data, at, end)
            return
        if data[at] not in (0x81, 0x83) or at + 41 > end:
            raise _Stop(at)
        start = zlib.crc32(b"\x83") if data[at] == 0x83 else 0
        head = struct.unpack_from("<QQQIIII", data, at + 1)
        length, cycle, time_ns, count, size, crc, reserved = head
        stop = at + 41 + size
        if length != 32 or reserved or stop > end:
            raise _Stop(at)
        if zlib.crc32(data[at + 41 : stop], zlib.crc32(data[at + 9 : at + 33], start)) != crc:
            raise _Stop(at)
        if cycles and (cycle < cycles[-1][1] or (cycle, 0x81) == (cycles[-1][1], cycles[-1][0])):
            raise _Stop(at)
        messages = _messages(data, at + 41, stop, cycle, time_ns, topics)
        cycles.append((data[at], cycle, time_ns, messages))
        if len(messages) != count:
            cycles.pop()
            raise _Stop(at)
        at = stop


def _unused(data, start, end):
    at = start
    while end - at >= 9:
        opcode, _, after = _head(data, at)
        if opcode not in (0x80, 0x05):
            raise _Stop(start)
        at = after


def _messages(data, at, stop, cycle, time_ns, topics):
    found = []
    while at < stop:
        opcode, _, after = _head(data, at)
        if opcode == 0x05:
            channel, sequence, log_time, tov_ns = struct.unpack_from("<HIQQ", data, at + 9)
            if channel not in topics or sequence != cycle % 2**32 or log_time != time_ns:
                raise _Stop(at)
            found.append((topics[channel], tov_ns, bytes(data[at + 31 : after])))
        elif opcode != 0x80 or after > stop:
            raise _Stop(at)
        at = after
    return found
