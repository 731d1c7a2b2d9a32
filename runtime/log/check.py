"""Finds everything that is wrong with a log, also where reading the cycles does not look."""

from __future__ import annotations

from collections.abc import Callable

from flowrun.runtime.errors import LogError
from flowrun.runtime.log.message import LateLines
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.bytes import Damage
from flowrun.runtime.log.slab.reader import SlabReader
from flowrun.runtime.log.slab.records import unpack_message_index
from flowrun.runtime.log.slab.structure import ChunkSpan
from flowrun.runtime.pictures.stored import StoredPicture

__all__ = ["check_log"]


def check_log(
    log: Log,
    *,
    pictures: bool = True,
    progress: Callable[[int], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> tuple[int, int, list[str]]:
    """Cycles, messages, and what is wrong, in the order of the files; reads all of the log.

    Besides each cycle's crc: what other MCAP tools use, the chunks' CRCs, the MessageIndex records, and
    what the summary says of both; and that a channel without payloads has none.

    pictures: whether to decode the pictures that a codec stored, and compare their pixels with what
        was recorded of them.
    progress: called with the time of each cycle that has been read.
    note: called with a sentence on what is no damage: pictures of a flight recorder's log that come
        before its first key frame.
    """
    cycles = messages = 0
    first: int | None = None
    undecoded: list[str] = []
    early: dict[str, int] = {}
    coded = {name for name, it in log.topics.items() if fmt.CODEC in it.metadata}
    silent = {
        name for name, it in log.topics.items() if it.metadata.get(fmt.PAYLOAD) == fmt.NO_PAYLOAD
    }
    talking: dict[str, str] = {}
    for record in log.records():
        if progress is not None:
            progress(record.time_ns)
        first = record.cycle if first is None else first
        cycles += not isinstance(record, LateLines)
        messages += len(record.entries)
        for entry in record.entries:
            topic, _, payload = entry
            if pictures and topic in coded:
                try:
                    _ = log.message(record, entry).deferred
                except LogError as error:
                    if _begins_before(payload, first):
                        early[topic] = early.get(topic, 0) + 1
                    else:
                        undecoded.append(str(error))
            if topic in silent and payload:
                talking.setdefault(
                    topic,
                    f"cycle {record.cycle}: {topic}: a payload of {len(payload)} bytes; expected none, "
                    "as its channel says",
                )
    for topic, count in early.items():
        if note is not None:
            note(f"{topic}: the first {count} pictures come before the first key frame in the log")
    problems = [log.loss] if log.loss else []
    problems += [f"{log.path}: {it}" for it in talking.values()]
    problems += undecoded
    for name in sorted(silent):
        said = log.topics[name]
        if said.message_encoding or said.schema_name:
            problems.append(f"{log.path}: {name}: has an encoding or a schema, and no payloads")
    for slab in log.slabs:
        if not slab.structure.finished or slab.structure.damage is not None:
            continue
        for span in slab.structure.chunks:
            problems += [f"{slab.path}: byte {span.start}: {it}" for it in _check_chunk(slab, span)]
    return cycles, messages, problems


def _begins_before(payload: memoryview, first: int) -> bool:
    """Whether a picture's packets begin before the cycle `first`."""
    try:
        own = StoredPicture.parse(payload).own
    except ValueError:
        return False
    return bool(own["codec"] == "packets" and own["key"] < first)


def _check_chunk(slab: SlabReader, span: ChunkSpan) -> list[str]:
    view = slab.view
    head = fmt.CHUNK_HEAD.unpack_from(view, span.start)
    crc = head[5]
    actual = fmt.crc32(view[span.records_start : span.records_end])
    if crc not in (0, actual):
        return [f"chunk has CRC {actual:#010x}; expected {crc:#010x}"]
    offset = begin = slab.index_at(span)
    found_at: dict[int, int] = {}
    while offset + fmt.HEAD_SIZE < len(view) and view[offset] == fmt.MESSAGE_INDEX:
        _, length = fmt.RECORD_HEAD.unpack_from(view, offset)
        try:
            channel, entries = unpack_message_index(
                view[offset + fmt.HEAD_SIZE : offset + fmt.HEAD_SIZE + length]
            )
        except ValueError as error:
            return [f"message index at byte {offset}: {error}"]
        found_at[channel] = offset
        for time_ns, at in entries:
            place = span.records_start + at
            if place + fmt.MESSAGE_HEAD.size > span.records_end:
                return [f"message index at byte {offset} points past the end of the chunk"]
            opcode, _, found, _, log_time, _ = fmt.MESSAGE_HEAD.unpack_from(view, place)
            if (opcode, found, log_time) != (fmt.MESSAGE, channel, time_ns):
                return [f"message index at byte {offset} points to byte {place}: no such message"]
        offset += fmt.HEAD_SIZE + length
    return _check_indexed(slab, span, found_at, offset - begin)


def _check_indexed(
    slab: SlabReader, span: ChunkSpan, found_at: dict[int, int], length: int
) -> list[str]:
    """What the summary says of a chunk, against where its index is: `length` bytes, that of each channel
    at `found_at`."""
    info = span.info
    if info is None:
        return []
    listed = info.message_index_offsets, info.message_index_length
    # A recovery that finds an index of a wrong size lists none.
    if listed not in ((found_at, length), ({}, 0)):
        return [
            f"the summary puts its message indexes at {listed}; they are at {(found_at, length)}"
        ]
    index = slab.structure.chunks.index(span)
    try:
        times = [head.time_ns for head in slab.cycles.heads(index) if head.message_count]
    except Damage:
        return []  # found where the cycles are read
    actual = min(times, default=0), max(times, default=0)
    said = info.start_time_ns, info.end_time_ns
    _, _, start_ns, end_ns, *_ = fmt.CHUNK_HEAD.unpack_from(slab.view, span.start)
    if not actual == said == (start_ns, end_ns):
        return [
            f"its messages are of {actual}; the summary says {said}, the chunk {(start_ns, end_ns)}"
        ]
    return []
