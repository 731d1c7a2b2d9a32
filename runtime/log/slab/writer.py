"""One slab: an MCAP file that grows in place through a mapping; see FORMAT.md for its states.

The slab knows where its open chunk ends and how to make room; what a cycle's bytes are is
`log.writer`'s business.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from zlib_ng.zlib_ng import crc32_combine

from flowrun.runtime.clock import ticks_ns
from flowrun.runtime.descriptor import Descriptor
from flowrun.runtime.errors import LogDamaged
from flowrun.runtime.log.slab import disk
from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.cycles import CycleReader
from flowrun.runtime.log.slab.disk import write_all
from flowrun.runtime.log.slab.index import MessagePlaces, message_places
from flowrun.runtime.log.slab.mapping import MappedFile
from flowrun.runtime.log.slab.pages import PagePopulator, page_faults
from flowrun.runtime.log.slab.records import (
    TRAILER,
    gap_before,
    pack_chunk_head,
    pack_message_index,
    pack_pad,
)
from flowrun.runtime.log.slab.structure import Structure

__all__ = ["CHUNK_SIZE", "FIRST_LOOK_AHEAD", "Slab"]

CHUNK_SIZE = 8 << 20
"""A chunk is closed when its records pass this: what a reader must scan to find one message."""

_PAGE = mmap.PAGESIZE
_LOOK_AHEAD = 32 << 20
"""How far ahead of the writer pages are populated at most: first-touch page faults cost several times
the copy of a picture, so a helper thread takes them."""
FIRST_LOOK_AHEAD = 4 << 20
_LOOK_AHEAD_NS = 100_000_000
"""For how long the pages ahead of the writer last it. They count as the program's memory, so a writer
of little has few."""
_BLOCK = 128 << 10
"""A large payload is copied in blocks of this size, each checked while the processor still holds it:
1.03 ms for a picture of 1080p, where copying all of it and then checking it took 1.55."""
_TOO_FAST_NS_PER_BYTE = 1.5
"""A writer that takes less for a byte would be in the middle of pages before they are ready, and
both would wait for each other: no pages are populated for it. Populating took 0.27 in a loop of its
own, 6 to 12 where others wanted the processor; 1080p at 30 fps comes at 5.3."""
_PREPARE_AT = 0.75
"""How full a slab is when the next one should be made."""
_LARGEST_END = 8 << 20
_WRITTEN_SECTION = 4 << 20
"""By how much a file grows whose blocks are taken by writing zeros: that takes 1 ms in a cycle."""


class Slab:
    """A slab that is being written.

    path: must not exist.
    ahead: the file's name until `begin`; readers pass over it.
    capacity: bytes mapped for cycles; an eighth more, at most 8 MiB, is preallocated for what ends
        a slab, so that it can be finished on a full disk. Where the file system cannot preallocate,
        blocks are taken section by section, and an eighth of the room is held back for the end.
    section: bytes by which the file grows.
    head: MAGIC and all records before the first chunk.
    look_ahead: bytes ahead of the writer that are populated at first; more as it writes faster.

    position: offset of the PAD that covers the room of the open chunk; what is written next
        replaces it.
    records_at: offset of the open chunk's records.
    trailer_at: offset of the trailer, where the room ends.
    mapping: the file, writable up to the trailer.
    cycles: offset of each CYCLE of the open chunk; the writer adds those that it has committed.
    prepare_at: the position from which on the slab will be full soon.
    head_size: bytes of `head`.

    The file may be cut under its writer, by a program that rotates logs, for one. That is noticed by the
    store that misses a page, and by all that asks the system for more; `check` finds it while nothing is
    stored. The slab is then lost: what is stored goes into memory, not to the file, where that which was
    committed before the cut stays, and `attend`, to which the writer comes next, raises `LogDamaged`.
    """

    def __init__(
        self,
        path: Path,
        *,
        ahead: Path,
        capacity: int,
        section: int,
        head: bytes,
        look_ahead: int = FIRST_LOOK_AHEAD,
    ) -> None:
        self.path = path
        self._ahead = ahead
        self.chunks: list[fmt.ChunkInfo] = []
        self.cycles = array("Q")
        self.head_size = len(head)
        self._section = max(_round_up(section, _PAGE), _round_up(len(head), _PAGE) + _PAGE)
        self.capacity = max(_round_up(capacity, _PAGE), self._section)
        self.prepare_at = int(self.capacity * _PREPARE_AT)
        self._most_ahead = _LOOK_AHEAD
        self.look_ahead = min(look_ahead, _LOOK_AHEAD)
        self._held_back = 0
        """Bytes before the trailer that cycles leave for what ends the slab."""
        self._sync_lock = threading.Lock()
        self._ends = False
        """Whether `finish` or `close` was called."""
        self._synced: tuple[int, int, int] | None = None
        """Position, trailer and number of closed chunks that have reached the disk."""
        self._lost_size: int | None = None
        """Bytes that the file had when it was found that the slab is lost."""
        self._checked: list[tuple[int, int, int]] = []
        """Start, end and CRC of the large payloads of the open chunk, in order."""
        self._asked_at = self._asked_ns = 0  # where the writer was, and when, at the last request
        made = os.open(ahead, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        self._file = Descriptor(made, path, ahead)
        try:
            fd = self._file.number
            # A mapping may not be longer than its file when it is made; afterwards it may.
            os.ftruncate(fd, self.capacity)
            self._mapped = MappedFile(fd, self.capacity, writable=True, on_loss=self._note_loss)
            self.mapping = self._mapped.view
            size = self._take_blocks(fd)
            self._set_trailer_at(size - len(TRAILER))
            write_all(fd, TRAILER, self.trailer_at)
            # In one go, and from the front: what a kill leaves is known for a slab without cycles.
            pad = fmt.RECORD_HEAD.pack(fmt.PAD, self.trailer_at - len(head) - fmt.HEAD_SIZE)
            write_all(fd, head + pad, 0)
        except BaseException:
            self._file.close()
            self._ahead.unlink(missing_ok=True)
            raise
        self.position = len(head)
        self._populator = PagePopulator(self._mapped.region.address)
        self._open_chunk()
        self._populate()
        self.attention_at = self.position
        self.attend()

    def _take_blocks(self, fd: int) -> int:
        """Take the blocks now: a full disk is then an error here, never a SIGBUS in a cycle.
        Returns the size that the file has then."""
        end = min(self.capacity // 8, _LARGEST_END)
        os.ftruncate(fd, 0)  # now: cutting a file later gives back what was preallocated
        preallocates = disk.preallocate(fd, self.capacity + end)
        if not preallocates:
            self._held_back = end
            self._section = min(self._section, _WRITTEN_SECTION)
            self._most_ahead = min(self._most_ahead, 2 * _WRITTEN_SECTION)
            self.look_ahead = min(self.look_ahead, self._most_ahead)
        # The look-ahead needs no growing then: a slab made ahead is zeros after its first PAD.
        size = max(self._section, _round_up(self.head_size + self._most_ahead, _PAGE))
        size = min(self.capacity, size)
        os.ftruncate(fd, size)
        if not preallocates:
            disk.write_zeros(fd, 0, size)
        return size

    def begin(self) -> None:
        """Give the file its name: from now on this is a slab of the run. `OSError` if it is gone."""
        self._ahead.rename(self.path)

    @property
    def identity(self) -> tuple[int, int]:
        """Device and number of the file, whatever its name is."""
        return self._file.identity

    @property
    def is_removed(self) -> bool:
        """Whether somebody has taken the file away; what is written is then lost."""
        try:
            return os.fstat(self._file.number).st_nlink == 0
        except FileNotFoundError:
            return True

    @property
    def is_lost(self) -> bool:
        """Whether what is stored does not go to the file any more."""
        return self._mapped.region.is_cut

    @property
    def is_whole(self) -> bool:
        """Whether the file is as this writer left it; may be wrong while a thread stores. `OSError` if
        nobody can say."""
        # A program that cuts it takes its last bytes away; one that writes over it changes the first.
        return (
            not self.is_lost
            and os.pread(self._file.number, len(TRAILER), self.trailer_at) == TRAILER
            and os.pread(self._file.number, len(fmt.MAGIC), 0) == fmt.MAGIC
        )

    def check(self) -> None:
        """Raise `LogDamaged` where the file is not as this writer left it; the slab is lost then.
        `OSError` if nobody can say."""
        if not self.is_whole:
            self._give_up()

    def _check_length(self) -> None:
        """Raise `LogDamaged` where the file was cut, before more is written to it: that would make it
        long again."""
        if self.is_lost or os.fstat(self._file.number).st_size < self.trailer_at + len(TRAILER):
            self._give_up()

    def _give_up(self) -> NoReturn:
        """Raise `LogDamaged` that says why the slab is lost, or why it is not as this writer left it."""
        why = "the system does not take what is written: the disk is full, or fails"
        if not self.is_lost:  # the system takes it, and it is not there
            why = "another program cut it or wrote over it while it was written"
            self._mapped.region.give_up()
        size = self._lost_size
        if size is not None and size < self.trailer_at + len(TRAILER):
            why = (
                f"another program cut it to {size} bytes while it was written: what came after "
                "is lost"
            )
        raise LogDamaged(f"{self.path}: {why}")

    def _note_loss(self) -> None:
        """Have the writer come to `attend`. May run within any store into the mapping."""
        if self._lost_size is None:
            with contextlib.suppress(OSError):
                self._lost_size = os.fstat(self._file.number).st_size
        self.attention_at = 0

    def reader(self, topics: Mapping[int, str]) -> CycleReader:
        """Reads, checked, cycles of which it is known where they are; the mapping lasts as long as it.
        On any thread. `ValueError` once the slab is closed.

        topics: by channel id.
        """
        view = self.mapping.toreadonly()
        return CycleReader(view, self._mapped.region, Structure(), topics, verify=True)

    def sync(self) -> None:
        """Bring all that is committed to the disk; does nothing where it is there. From any thread.
        `OSError` if the disk did not take it, or something that was written before."""
        with self._sync_lock:
            state = self.position, self.trailer_at, len(self.chunks)
            if self._ends or state == self._synced:
                return
            position, trailer_at, _ = state
            # The trailer first: a chunk that reaches to one that is not there would look cut off.
            disk.sync_pages(self._mapped.region.address, trailer_at, trailer_at + len(TRAILER))
            disk.sync_pages(self._mapped.region.address, 0, position + fmt.HEAD_SIZE)
            self._synced = state

    # -- room ----------------------------------------------------------------------------------

    def reserve(self, end: int) -> bool:
        """Make the room reach to `end` and a PAD's head after it; False if the slab is too small.
        Need not be called for an `end` up to `room_ends_at`. `OSError` if the file cannot grow."""
        needed = end + fmt.HEAD_SIZE + self._held_back + len(TRAILER)
        if needed > self.capacity:
            return False
        while self.trailer_at + len(TRAILER) < needed:
            self._grow()
        return True

    def attend(self) -> None:
        """Close a chunk that is long enough, and have the pages ahead of the writer populated.
        To be called when `position` has passed `attention_at`. `LogDamaged` if the slab is lost."""
        if self.is_lost:
            self._give_up()
        try:
            if self.position - self.records_at > CHUNK_SIZE:
                self._next_chunk()
            if self.position >= self._populated_to - self.look_ahead // 2:
                self._populate()
        except OSError:
            # The file cannot grow. Nothing needs the room yet: `reserve` tells who does.
            self.attention_at = self.capacity
            return
        if self.is_lost:
            self._give_up()
        self.attention_at = min(
            self.records_at + CHUNK_SIZE,
            max(self._populated_to - self.look_ahead // 2, self.position),
        )
        if self.position < self.prepare_at:
            self.attention_at = min(self.attention_at, self.prepare_at)

    def write_large(self, at: int, part: bytes | memoryview) -> int:
        """Write a large part of a payload at `at`, within the room; returns its CRC.

        Where the pages are not ready, the kernel is handed the bytes instead: it takes them into
        large folios, 1.6 ms for a picture of 1080p where faulting its pages in took 2.9. They may
        be populated and not be ready: those that the kernel has written to the disk meanwhile, zeros
        as they were, fault again. The faults of the first block show it.
        `OSError` if the disk is full, of a file system that does not preallocate; `LogDamaged` if the
        slab is lost.
        """
        end, crc = at + len(part), 0
        view, mapping = memoryview(part).cast("B"), self.mapping
        ready = end <= self._populator.ready_to
        faults = page_faults() if ready else 0
        start, size = 0, _BLOCK if ready else 8 * _BLOCK
        while start < len(view):
            block = view[start : start + size]
            if not ready:
                self._check_length()
                write_all(self._file.number, block, at + start)
            else:
                mapping[at + start : at + start + len(block)] = block
                if not start and page_faults() - faults > _BLOCK // _PAGE // 2:
                    ready, size = False, 8 * _BLOCK
                    self._populator.populate_again(end)
            crc = fmt.crc32(block, crc)
            start += len(block)
        self._checked.append((at, end, crc))
        return crc

    def forget_uncommitted(self) -> None:
        """Forget the large payloads after `position`: their cycle is not going to be committed."""
        self._checked = [it for it in self._checked if it[0] < self.position]

    def _populate(self) -> None:
        now_ns, written = ticks_ns(), self.position - self._asked_at
        while (
            self.look_ahead < self._most_ahead
            and self.look_ahead * (now_ns - self._asked_ns) < written * _LOOK_AHEAD_NS
        ):
            self.look_ahead = min(2 * self.look_ahead, self._most_ahead)
        end = min(self.position + self.look_ahead, self.capacity)
        while self.trailer_at + len(TRAILER) < end:
            self._grow()
        if now_ns - self._asked_ns < _TOO_FAST_NS_PER_BYTE * written:
            # Measured again when as much again has been written.
            self._populator.drop()
        else:
            self._populator.populate(self.position, end)
        self._asked_at, self._asked_ns = self.position, now_ns
        self._populated_to = end if end < self.capacity else self.capacity + self.look_ahead

    def _grow(self) -> None:
        """Move the trailer a section further; the stores' order is FORMAT.md's state "grow"."""
        self._check_length()
        old = self.trailer_at
        size = min(old + len(TRAILER) + self._section, self.capacity)
        new = size - len(TRAILER)
        try:
            if self._held_back:
                disk.write_zeros(self._file.number, old + len(TRAILER), size)
            write_all(self._file.number, TRAILER, new)
        except OSError:
            # A piece of it may have been written.
            os.ftruncate(self._file.number, old + len(TRAILER))
            raise
        if self.mapping[old : old + len(TRAILER)] != TRAILER:
            self._give_up()  # it was cut, and is long again only since the new trailer
        records_length = new - self.records_at
        self._store(self._chunk_at + fmt.CHUNK_LENGTH_AT, fmt.CHUNK_FIXED_SIZE + records_length)
        self.mapping[old : old + fmt.HEAD_SIZE] = fmt.RECORD_HEAD.pack(
            fmt.PAD, new - old - fmt.HEAD_SIZE
        )
        self._store(self._chunk_at + fmt.CHUNK_SIZE_AT, records_length)
        self._store(self._chunk_at + fmt.CHUNK_RECORDS_LENGTH_AT, records_length)
        self._set_trailer_at(new)
        self._store(self.position + 1, new - self.position - fmt.HEAD_SIZE)

    # -- chunks --------------------------------------------------------------------------------

    def _open_chunk(self, front: bytes = b"") -> None:
        """Write `front` and the head of a chunk over the top-level PAD at `position`."""
        gap = _gap_before_chunk(self.position + len(front))
        self._chunk_at = self.position + len(front) + gap
        self.records_at = self._chunk_at + fmt.CHUNK_RECORDS_AT
        room = self.trailer_at - self.records_at
        pad = fmt.RECORD_HEAD.pack(fmt.PAD, room - fmt.HEAD_SIZE)
        gap_pad = pack_pad(gap) if gap else b""
        self.commit_records(b"".join((front, gap_pad, pack_chunk_head(room), pad)))
        self.position = self.records_at

    def _next_chunk(self) -> None:
        """Close the open chunk and begin another, if the slab has room for one."""
        places = self._message_places()
        size = sum(fmt.MESSAGE_INDEX_SIZE + entries.nbytes for entries in places.values())
        end = self.position + size
        if self.reserve(end + _gap_before_chunk(end) + fmt.CHUNK_RECORDS_AT):
            self._open_chunk(self._close_chunk(places))

    def _message_places(self) -> MessagePlaces:
        try:
            return message_places(self.mapping, self.cycles, records_at=self.records_at)
        except (ValueError, IndexError):
            self.check()  # zeros may have been read in place of the chunk
            raise

    def _close_chunk(self, places: MessagePlaces) -> bytes:
        """Shorten the open chunk to its records; returns its MessageIndex records, unwritten."""
        at, length = self._chunk_at, self.position - self.records_at
        self._store(at + fmt.CHUNK_RECORDS_LENGTH_AT, length)
        self._store(at + fmt.CHUNK_SIZE_AT, length)
        self._store(at + fmt.CHUNK_LENGTH_AT, fmt.CHUNK_FIXED_SIZE + length)
        info = fmt.ChunkInfo(at, fmt.CHUNK_RECORDS_AT + length, length)
        packed, offset = [], self.position
        for channel, entries in places.items():
            first, last = int(entries[0, 0]), int(entries[-1, 0])
            info.start_time_ns = min(info.start_time_ns or first, first)
            info.end_time_ns = max(info.end_time_ns, last)
            info.message_counts[channel] = len(entries)
            info.message_index_offsets[channel] = offset
            packed.append(pack_message_index(channel, entries.tobytes()))
            offset += len(packed[-1])
        info.message_index_length = offset - self.position
        del self.cycles[:]
        crc = self._chunk_crc()
        self._store(at + fmt.CHUNK_START_TIME_AT, info.start_time_ns)
        self._store(at + fmt.CHUNK_END_TIME_AT, info.end_time_ns)
        self.mapping[at + fmt.CHUNK_CRC_AT : at + fmt.CHUNK_CRC_AT + 4] = crc.to_bytes(4, "little")
        self.chunks.append(info)
        return b"".join(packed)

    def _chunk_crc(self) -> int:
        """The CRC of the open chunk's records; that of large payloads is known and not read again."""
        crc, at = 0, self.records_at
        with memoryview(self.mapping) as view:
            for start, end, known in self._checked:
                crc = crc32_combine(fmt.crc32(view[at:start], crc), known, end - start)
                at = end
            crc = fmt.crc32(view[at : self.position], crc)
        self._checked = []
        return crc

    def commit_records(self, records: bytes) -> None:
        """Replace the PAD at `position` by `records`, the last of them a PAD's head.

        What follows the first record's head is written first, then its length, then its
        opcode: a reader sees the old state or the new one.
        """
        at, mapping = self.position, self.mapping
        mapping[at + fmt.HEAD_SIZE : at + len(records)] = records[fmt.HEAD_SIZE :]
        mapping[at + 1 : at + fmt.HEAD_SIZE] = records[1 : fmt.HEAD_SIZE]
        mapping[at] = records[0]

    # -- the end -------------------------------------------------------------------------------

    def finish(self, tail: Callable[[int, list[fmt.ChunkInfo]], bytes]) -> int:
        """Close the chunk, write the last chunk's index and `tail`, cut the file, let it go. All of
        it is on the disk then. Returns its size.

        tail: from the offset at which it will be and the slab's chunks to the bytes that end
            the file, the last MAGIC included.
        """
        with self._sync_lock:
            self._ends = True
        try:
            self.check()
            index, at = self._close_chunk(self._message_places()), self.position
            end = index + tail(at + len(index), self.chunks)
            self.check()
            needed = at + len(end) + fmt.HEAD_SIZE
            if needed > self.trailer_at:
                # Through the file, not the mapping: this may be more than was preallocated. And not
                # over the trailer that is there: it counts until the PAD reaches to the new one.
                new = max(needed, self.trailer_at + len(TRAILER))
                write_all(self._file.number, TRAILER, new)
                self._set_trailer_at(new)
                self._set_pad(at)
            write_all(self._file.number, end[fmt.HEAD_SIZE :], at + fmt.HEAD_SIZE)
            if self.mapping[at] != fmt.PAD:  # it was cut, and these bytes made it long again
                self._give_up()
            self.mapping[at + 1 : at + fmt.HEAD_SIZE] = end[1 : fmt.HEAD_SIZE]
            self.mapping[at] = end[0]
            # All of it is on the disk before the file is cut: a power cut leaves one or the other.
            if at + len(end) <= self.capacity:
                disk.sync_pages(self._mapped.region.address, 0, at + len(end))
            else:
                disk.sync_file(self._file.number)
            os.ftruncate(self._file.number, at + len(end))
            last = os.pread(self._file.number, len(fmt.MAGIC), at + len(end) - len(fmt.MAGIC))
            if self.is_lost or last != fmt.MAGIC:
                self._give_up()
            disk.sync_file(self._file.number)
            return at + len(end)
        finally:
            self.close()

    def close(self) -> None:
        """Let the file go as it is: unfinished, but readable."""
        self._populator.stop()
        with self._sync_lock:
            self._ends = True
            # Where somebody looks at the frames of all threads, one may keep a view of it for a moment;
            # it is unmapped when that is gone.
            with contextlib.suppress(BufferError):
                self.mapping.release()
            self._file.close()

    def discard(self) -> None:
        """Remove a slab that was never begun."""
        self._ahead.unlink(missing_ok=True)
        self.close()

    def _set_trailer_at(self, offset: int) -> None:
        self.trailer_at = offset
        self.room_ends_at = offset - fmt.HEAD_SIZE - self._held_back

    def _set_pad(self, at: int) -> None:
        self.mapping[at : at + fmt.HEAD_SIZE] = fmt.RECORD_HEAD.pack(
            fmt.PAD, self.trailer_at - at - fmt.HEAD_SIZE
        )

    def _store(self, at: int, value: int) -> None:
        self.mapping[at : at + 8] = fmt.U64.pack(value)


def _gap_before_chunk(at: int) -> int:
    """Bytes from `at` to where a chunk may begin."""
    return gap_before(at, alignment=8, remainder=fmt.CHUNK_START_REMAINDER)


def _round_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit
