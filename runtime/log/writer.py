"""Writes a run's log: what a cycle's bytes are, and when a new chunk or slab begins.

The cycle calls `commit` with messages bound before; nothing is queued and nothing is held back: when
`commit` returns, the cycle is in the page cache, whole and checked by its CRC, and survives the death
of the process. It never waits for the disk: a helper thread makes the next slab before this one is
full, and finishes the one before.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgpack
from zlib_ng.zlib_ng import crc32, crc32_combine

from flowrun.msgs.fields import Buffer
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message
from flowrun.runtime.errors import LogError, LogInUse, unwritable
from flowrun.runtime.events import Event
from flowrun.runtime.log.bound import BoundMessages, BoundOutput, Remembered, message_fronts
from flowrun.runtime.log.channels import Loggable, channels_of
from flowrun.runtime.log.lines import pack_log
from flowrun.runtime.log.lock import remove_lock, slab_files, take_lock
from flowrun.runtime.log.rolling import MIB, RollingSlabs, RunDescription
from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.format import Attachment
from flowrun.runtime.log.slab.writer import Slab
from flowrun.runtime.pictures.stored import PictureEncoder

__all__ = ["LogWriter"]

_LARGE = 64 << 10
"""From this size on, payloads are copied straight into the mapping instead of being joined first."""


_Message = tuple[int, int, bytes]
"""Channel, tov_ns and data of a message of the runtime's own."""

# Bound once: these are used in every cycle.
_pack_checked = fmt.CYCLE_CHECKED.pack
_CYCLE_HEAD = fmt.RECORD_HEAD.pack(fmt.CYCLE, fmt.CYCLE_CONTENT.size)
_STAMP_AT, _STAMP_ENDS = fmt.MESSAGE_FRONT.size, fmt.MESSAGE_HEAD.size
_HEAD_SIZE, _CYCLE_SIZE, _PAD = fmt.HEAD_SIZE, fmt.CYCLE_SIZE, fmt.PAD


class LogWriter:
    """Writes the log of one run into `directory`, which it creates and locks.

    outputs: in the order of `bind`'s messages.
    steps: number of steps of the plan.
    metadata: text about the run.
    attachments: files about the run.
    keep_slabs: number of slabs to keep, including the one in use; None keeps all.
    make_room: called before each slab is made, with the bytes that the run takes with it; on another
        thread, except for the first.
    Raises `LogError` if the directory is in use, not writable, or the disk is full.
    """

    def __init__(
        self,
        directory: Path,
        *,
        outputs: Sequence[Loggable],
        steps: int,
        metadata: Mapping[str, str],
        attachments: Sequence[Attachment] = (),
        library: str = "flowrun",
        slab_size_mib: int = 1024,
        section_size_mib: int = 100,
        keep_slabs: int | None = None,
        make_room: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.directory = directory
        self.messages = 0
        """Messages of outputs written so far."""
        self._records: deque[tuple[int, str, str, str, dict[str, Any]]] = deque()
        self._packed_records: list[_Message] = []
        schemas, channels, self._outputs = channels_of(outputs)
        self._pictures: dict[str, PictureEncoder] = {}
        ids = {channel.topic: channel.id for channel in channels}
        self._control = ids[fmt.CONTROL_TOPIC]
        self._log, self._keyframe = ids[fmt.LOG_TOPIC], ids[fmt.KEYFRAME_TOPIC]
        # One struct for the step table: its payload is a msgpack map of one binary.
        payload = b"\x81\xa8ticks_ns\xc6" + (8 * (steps + 1)).to_bytes(4, "big")
        front = fmt.MESSAGE_FRONT.pack(
            fmt.MESSAGE,
            fmt.MESSAGE_FIXED_SIZE + len(payload) + 8 * (steps + 1),
            ids[fmt.STEPS_TOPIC],
        )
        self._steps = front, payload
        self._pack_steps = struct.Struct(f"<{len(front)}sIQQ{len(payload)}s{steps + 1}Q").pack
        self._small_cycles = Remembered(_pack_small_cycle)
        self._pack = msgpack.Packer(use_bin_type=True).pack
        self._last = -1, 0
        description = RunDescription(
            library,
            dict(metadata) if keep_slabs is None else {**metadata, fmt.KEEP_SLABS: str(keep_slabs)},
            list(attachments),
            schemas,
            channels,
        )
        self._lock_fd = _lock(directory)
        try:
            self._slabs = RollingSlabs(
                directory,
                description,
                slab_size=slab_size_mib * MIB,
                section_size=section_size_mib * MIB,
                keep_slabs=keep_slabs,
                make_room=make_room,
            )
        except BaseException:
            os.close(self._lock_fd)
            with contextlib.suppress(OSError):  # what else is in there stays
                remove_lock(directory)
                directory.rmdir()
            raise

    # -- for the executor ----------------------------------------------------------------------

    def bind(self, messages: Sequence[Message]) -> BoundMessages:
        """Prepare to commit these messages, in the order of `outputs`, again and again."""
        bound = [
            BoundOutput(
                message.envelope,
                self._encoder(output, message),
                message_fronts(channel),
            )
            for message, (output, channel) in zip(messages, self._outputs, strict=True)
            if output.logged
        ]
        return BoundMessages(bound)

    def _encoder(
        self, output: Loggable, message: Message
    ) -> Callable[[int], Sequence[Buffer]] | None:
        if not output.payload:
            return lambda _cycle: ()
        if output.message_type.is_plain:
            return None
        view = message.view()
        if output.codec == "raw":
            return lambda _cycle: view.encode()
        assert isinstance(message, ImageRgb8Msg)
        assert isinstance(view, ImageRgb8Msg)
        picture, shown = message, view
        encoder = self._pictures.setdefault(output.topic, PictureEncoder(output.codec))
        return lambda cycle: encoder.encode(shown, cycle, video=picture.video)

    def commit(
        self,
        cycle: int,
        now_ns: int,
        bound: BoundMessages,
        *,
        start_ns: int,
        ends_ns: list[int],
        events: Sequence[Event],
        keyframe: bytes | None = None,
    ) -> None:
        """Write a cycle: the messages of `bound` that are present, `events`, waiting log records,
        and the steps.

        keyframe: the tasks' states before the cycle.
        Raises `LogError` if the file cannot grow, or there is no room for a new one; nothing of the
        cycle is kept then either, what was committed before is, and `finish` is the next to call.
        """
        slab = self._slabs.slab
        front, payload = self._steps
        steps = self._pack_steps(
            front, cycle & fmt.SEQUENCE_MASK, now_ns, now_ns, payload, start_ns, *ends_ns
        )
        stamp = steps[_STAMP_AT:_STAMP_ENDS]
        extra, total = b"", 1
        if events or self._records or self._packed_records or keyframe:
            extra, count = self._pack_extra(cycle, now_ns, events, keyframe)
            total += count
        while True:
            first = slab.position + _CYCLE_SIZE
            records, outputs = bound.encode(cycle, now_ns, stamp, extra, steps, first)
            size = len(records) if isinstance(records, bytes) else sum(map(len, records))
            end = first + size
            if end <= slab.room_ends_at or self._reserve(end):
                break
            self._slabs.go_on(size)  # and encode again: large pieces are aligned to the file
            slab = self._slabs.slab
        self._store(slab, _pack_checked(cycle, now_ns, total + outputs, size), records, size)
        if self._packed_records:
            self._packed_records = []
        self.messages += outputs
        self._last = cycle, now_ns
        if end > slab.attention_at:
            self._slabs.attend()

    def _store(self, slab: Slab, checked: bytes, records: bytes | list[Buffer], size: int) -> None:
        """Write a cycle over the slab's PAD, and commit it.

        checked: the CYCLE's content up to its crc.
        size: bytes of `records`.
        """
        mapping, position = slab.mapping, slab.position
        first = position + _CYCLE_SIZE
        end = first + size
        crc = crc32(checked)
        pad_length = slab.trailer_at - end - _HEAD_SIZE
        if size <= _LARGE:
            whole = records if isinstance(records, bytes) else b"".join(records)
            pack_into = self._small_cycles[size]
            crc = crc32(whole, crc)
            pack_into(mapping, position + _HEAD_SIZE, checked, crc, 0, whole, _PAD, pad_length)
        else:
            crc = self._write_parts(
                first, [records] if isinstance(records, bytes) else records, crc
            )
            fmt.RECORD_HEAD.pack_into(mapping, end, fmt.PAD, pad_length)
            content = checked + fmt.CYCLE_UNCHECKED.pack(crc, 0)
            mapping[position + _HEAD_SIZE : first] = content
        # All is there. This store makes a CYCLE of the PAD before it: in whichever order its bytes
        # appear, a reader sees one of the states of FORMAT.md, since of the length only the low
        # bytes change.
        mapping[position : position + _HEAD_SIZE] = _CYCLE_HEAD
        slab.cycles.append(position)
        slab.position = end

    def _write_parts(self, at: int, parts: Sequence[Buffer], crc: int) -> int:
        """Write parts, some of them large, one by one; returns `crc`, continued over them."""
        slab = self._slabs.slab
        for part in parts:
            size = len(part)
            if size > _LARGE:
                try:
                    crc = crc32_combine(crc, slab.write_large(at, part), size)
                except OSError as error:
                    raise self._cannot_grow(error) from error
            else:
                slab.mapping[at : at + size] = part
                crc = crc32(part, crc)
            at += size
        return crc

    def log_record(
        self, time_ns: int, level: str, message: str, name: str, fields: dict[str, Any]
    ) -> None:
        """Keep a log record for the next cycle's commit. From any thread; never blocks."""
        self._records.append((time_ns, level, message, name, fields))

    @property
    def size(self) -> int:
        """Bytes of the log so far, without what is preallocated."""
        return self._slabs.size

    def discard(self) -> None:
        """Remove the log of a run that never ran, and its directory if nothing else is in it."""
        with contextlib.suppress(LogError):
            self.finish({"reason": "discarded"})
        with contextlib.suppress(OSError):
            for path in slab_files(self.directory):
                path.unlink(missing_ok=True)
            remove_lock(self.directory)
            self.directory.rmdir()

    def finish(self, end: Mapping[str, str]) -> None:
        """Write the waiting log records, the run's end and the summary; the log is then finished.

        end: {reason, cycles, ended_ns, error?} as text. Raises `LogError` if the disk is full or
        the log was removed; what was committed is then whole all the same. Log records that come
        later are dropped.
        """
        self._forget_uncommitted()
        with ExitStack() as steps:  # each is taken whatever became of those before
            steps.callback(os.close, self._lock_fd)
            steps.callback(self._slabs.finish, end)
            if self._records or self._packed_records:
                # A cycle that never ran: it has no step table, and a replay passes over it.
                self._commit_records()
        self._records = deque(maxlen=0)

    # -- inside --------------------------------------------------------------------------------

    def _pack_extra(
        self, cycle: int, now_ns: int, events: Sequence[Event], keyframe: bytes | None
    ) -> tuple[bytes, int]:
        """The events, the keyframe and the log records that wait, and how many they are."""
        # Kept until they are committed: the cycle may have to be committed again without a message.
        self._packed_records += self._take_records()
        extra = [(self._control, now_ns, self._pack(event.pack())) for event in events]
        if keyframe is not None:
            extra.append((self._keyframe, now_ns, keyframe))
        extra += self._packed_records
        return _messages(cycle, now_ns, extra), len(extra)

    def _take_records(self) -> list[_Message]:
        packed = []
        while self._records:
            time_ns, level, message, name, fields = self._records.popleft()
            packed.append((self._log, time_ns, pack_log(time_ns, level, message, name, fields)))
        return packed

    def _commit_records(self) -> None:
        packed = self._packed_records + self._take_records()
        cycle, now_ns = self._last[0] + 1, max(self._last[1], packed[-1][1])
        records = _messages(cycle, now_ns, packed)
        size = len(records)
        if not self._reserve(self._slabs.slab.position + _CYCLE_SIZE + size):
            self._slabs.go_on(size)
        self._store(
            self._slabs.slab, _pack_checked(cycle, now_ns, len(packed), size), records, size
        )

    # -- slabs ---------------------------------------------------------------------------------

    def _reserve(self, end: int) -> bool:
        try:
            return self._slabs.slab.reserve(end)
        except OSError as error:
            raise self._cannot_grow(error) from error

    def _cannot_grow(self, error: OSError) -> LogError:
        self._forget_uncommitted()
        text = f"{self._slabs.slab.path}: the log cannot grow: {error.strerror}"
        return unwritable(text, error)

    def _forget_uncommitted(self) -> None:
        self._slabs.slab.forget_uncommitted()


def _messages(cycle: int, now_ns: int, messages: Sequence[_Message]) -> bytes:
    """The records of messages of the runtime's own."""
    sequence = cycle & fmt.SEQUENCE_MASK
    parts = []
    for channel, tov_ns, data in messages:
        size = fmt.MESSAGE_FIXED_SIZE + len(data)
        parts.append(fmt.MESSAGE_HEAD.pack(fmt.MESSAGE, size, channel, sequence, now_ns, tov_ns))
        parts.append(data)
    return b"".join(parts)


def _pack_small_cycle(size: int) -> Callable[..., None]:
    """What stores a cycle with `size` bytes of records, and the PAD after it."""
    checked = fmt.CYCLE_CHECKED.size
    return struct.Struct(f"<{checked}sII{size}sBQ").pack_into


def _lock(directory: Path) -> int:
    """Create `directory`, and lock it for this process until the descriptor is closed."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        fd = take_lock(directory)
    except OSError as error:
        text = f"{directory}: cannot create the run's directory: {error.strerror}"
        raise unwritable(text, error) from error
    if fd is None:
        raise LogInUse(f"{directory}: another process is writing this run")
    if slab_files(directory):
        os.close(fd)
        raise LogInUse(f"{directory}: holds a run already; a log is never written over")
    return fd
