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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
from zlib_ng.zlib_ng import crc32, crc32_combine

from flowrun.msgs.fields import MessageTypeError
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message
from flowrun.runtime.errors import LogError
from flowrun.runtime.events import Event
from flowrun.runtime.log.channels import Output, channels_of
from flowrun.runtime.log.lines import pack_log
from flowrun.runtime.log.lock import remove_lock, slab_files, take_lock
from flowrun.runtime.log.rolling import MIB, RollingSlabs, RunDescription
from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.format import Attachment
from flowrun.runtime.log.slab.records import gap_before, pack_cycle_head, pack_pad
from flowrun.runtime.pictures.stored import PictureEncoder

__all__ = ["LogWriter"]

_LARGE = 64 << 10
"""From this size on, payloads are copied straight into the mapping instead of being joined first."""


# Bound once: these are called in every cycle.
_MESSAGE_HEAD = fmt.MESSAGE_HEAD.pack
_RECORD_HEAD = fmt.RECORD_HEAD.pack
_CYCLE_CHECKED = fmt.CYCLE_CHECKED.pack
_CRC_AND_RESERVED = struct.Struct("<II").pack
_CYCLE_HEAD = fmt.RECORD_HEAD.pack(fmt.CYCLE, fmt.CYCLE_CONTENT.size)
_CYCLE_SIZE = fmt.CYCLE_SIZE


_Encode = Callable[[int], Sequence[bytes | memoryview]]
_BoundOutput = tuple[
    Message,
    dict[str, Any],
    Callable[[dict[str, Any]], bool],
    int,
    Callable[[Any], bytes],
    _Encode,
]
"""Message, its fields, whether the packer does for them, channel id, packer, what encodes it for a
cycle if not."""


@dataclass(slots=True)
class _Bound:
    """The messages of one cycle record, ready to be committed again and again."""

    outputs: list[_BoundOutput]


class LogWriter:
    """Writes the log of one run into `directory`, which it creates and locks.

    outputs: in the order of `bind`'s messages. steps: how many the plan has. metadata: text about
    the run. attachments: files. keep_slabs: remove all slabs but the last so many, the one being
    written included, as the log goes on; a slab made ahead comes on top. None keeps all. make_room:
    called in front of each slab with the bytes that the run takes with it, on another thread but for
    the first.
    Raises `LogError` if the directory is in use, not writable, or the disk is full.
    """

    def __init__(
        self,
        directory: Path,
        *,
        outputs: Sequence[Output],
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
        self._packed_records: list[tuple[int, int, bytes]] = []
        schemas, channels, self._outputs = channels_of(outputs)
        self._pictures: dict[str, PictureEncoder] = {}
        ids = {channel.topic: channel.id for channel in channels}
        self._steps, self._control = ids[fmt.STEPS_TOPIC], ids[fmt.CONTROL_TOPIC]
        self._log, self._keyframe = ids[fmt.LOG_TOPIC], ids[fmt.KEYFRAME_TOPIC]
        # One struct for the Message's head and its payload, a msgpack map of one binary.
        self._steps_front = b"\x81\xa8ticks_ns\xc6" + (8 * (steps + 1)).to_bytes(4, "big")
        packed_steps = struct.Struct(f"<BQHIQQ{len(self._steps_front)}s{steps + 1}Q")
        self._pack_steps = packed_steps.pack
        self._steps_length = packed_steps.size - fmt.HEAD_SIZE
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

    def bind(self, messages: Sequence[Message]) -> _Bound:
        """Prepare to commit these messages, in the order of `outputs`, again and again."""
        outputs: list[_BoundOutput] = []
        for message, (output, channel) in zip(messages, self._outputs, strict=True):
            if not output.logged:
                continue
            if not output.payload:
                outputs.append((message, {}, _always, channel, _no_payload, _never))
                continue
            kind = output.message_type
            is_sure = kind.has_sure_types if kind.is_plain else _not_plain
            encode = self._encode(output.topic, output.codec, message)
            fields = message.__dict__
            outputs.append((message, fields, is_sure, channel, self._pack, encode))
        return _Bound(outputs)

    def _encode(self, topic: str, codec: str, message: Message) -> _Encode:
        if codec == "raw":
            return lambda _cycle: message.encode()
        assert isinstance(message, ImageRgb8Msg)
        picture = message
        encoder = self._pictures.setdefault(topic, PictureEncoder(codec))
        return lambda cycle: encoder.encode(picture, cycle)

    def commit(
        self,
        cycle: int,
        now_ns: int,
        bound: _Bound,
        *,
        start_ns: int,
        ends_ns: list[int],
        events: Sequence[Event],
        keyframe: bytes | None = None,
    ) -> None:
        """Write a cycle: what of `bound` is present, `events`, waiting log records, the steps, and
        the tasks' states in front of the cycle, if given.

        Raises `MessageTypeError` if a message cannot be encoded; nothing of the cycle is kept then,
        and it can be committed without that message.
        Raises `LogError` if the file cannot grow, or there is no room for a new one; nothing of the
        cycle is kept then either, what was committed before is, and `finish` is the next to call.
        """
        slab = self._slabs.slab
        head, sequence = _MESSAGE_HEAD, cycle & 0xFFFFFFFF
        parts: list[bytes | memoryview] = []
        at = first = slab.position + _CYCLE_SIZE
        count = 0
        try:
            for message, fields, is_sure, channel, pack, encode in bound.outputs:
                if not message.present:
                    continue
                try:
                    data = pack(fields) if is_sure(fields) else None
                except (KeyError, TypeError, ValueError, OverflowError):
                    message.encode()  # raises, and says which field
                    raise
                if data is not None:
                    size = len(data)
                    parts += (head(5, size + 22, channel, sequence, now_ns, message.tov_ns), data)
                else:
                    pieces = encode(cycle)
                    size = sum(map(len, pieces))
                    gap = _gap(at + fmt.MESSAGE_HEAD.size, pieces)
                    if gap:
                        parts.append(pack_pad(gap))
                        at += gap
                    parts.append(head(5, size + 22, channel, sequence, now_ns, message.tov_ns))
                    parts += pieces
                at += size + 31
                count += 1
        except MessageTypeError:
            self._forget_uncommitted()
            raise
        except struct.error:
            self._forget_uncommitted()
            for message, *_ in bound.outputs:
                if message.present:
                    message.check_envelope()
            raise
        total = count + 1
        if events or self._records or self._packed_records or keyframe:
            for channel, tov_ns, data in self._extra(events, now_ns, keyframe):
                parts += (head(5, len(data) + 22, channel, sequence, now_ns, tov_ns), data)
                at += len(data) + 31
                total += 1
        parts.append(self._pack_steps(
            5, self._steps_length, self._steps, sequence, now_ns, now_ns, self._steps_front,
            start_ns, *ends_ns,
        ))  # fmt: skip
        at += self._steps_length + 9
        if at > slab.room_ends_at and not self._reserve(at):
            self._slabs.go_on(at - first)
            self.commit(
                cycle, now_ns, bound, start_ns=start_ns, ends_ns=ends_ns, events=events,
                keyframe=keyframe,
            )  # fmt: skip
            return
        checked = _CYCLE_CHECKED(cycle, now_ns, total, at - first)
        pad = _RECORD_HEAD(fmt.PAD, slab.trailer_at - at - 9)
        mapping, position = slab.mapping, slab.position
        if at - first > _LARGE and max(map(len, parts)) > _LARGE:
            crc = self._write_parts(first, parts, crc32(checked))
            mapping[at : at + 9] = pad
            mapping[position + 9 : first] = checked + _CRC_AND_RESERVED(crc, 0)
        else:
            body = b"".join(parts)
            crc = crc32(body, crc32(checked))
            mapping[position + 9 : at + 9] = b"".join(
                (checked, _CRC_AND_RESERVED(crc, 0), body, pad)
            )
        # All is there. This store makes a CYCLE of the PAD in front of it: in whichever order its
        # bytes appear, a reader sees one of `log_format`'s states, since of the length only the
        # low bytes change.
        mapping[position : position + 9] = _CYCLE_HEAD
        slab.cycles.append(position)
        slab.position = at
        if self._packed_records:
            self._packed_records = []
        self.messages += count
        self._last = cycle, now_ns
        if at > slab.attention_at:
            self._slabs.attend()

    def _write_parts(self, at: int, parts: Sequence[bytes | memoryview], crc: int) -> int:
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
        with ExitStack() as steps:  # each is taken whatever became of those in front
            steps.callback(os.close, self._lock_fd)
            steps.callback(self._slabs.finish, end)
            if self._records or self._packed_records:
                # A cycle that never ran: it has no step table, and a replay passes over it.
                self._commit_records()
        self._records = deque(maxlen=0)

    # -- inside --------------------------------------------------------------------------------

    def _extra(
        self, events: Sequence[Event], now_ns: int, keyframe: bytes | None
    ) -> list[tuple[int, int, bytes]]:
        """(channel, tov_ns, data) of the keyframe, the events and the log records that wait."""
        if self._records:
            # Kept until they are committed: a cycle that does not fit is packed again.
            self._packed_records += self._take_records()
        extra = [(self._control, now_ns, self._pack(event.pack())) for event in events]
        if keyframe is not None:
            extra.append((self._keyframe, now_ns, keyframe))
        return extra + self._packed_records

    def _take_records(self) -> list[tuple[int, int, bytes]]:
        packed = []
        while self._records:
            time_ns, level, message, name, fields = self._records.popleft()
            packed.append((self._log, time_ns, pack_log(time_ns, level, message, name, fields)))
        return packed

    def _commit_records(self) -> None:
        packed = self._packed_records + self._take_records()
        cycle, now_ns = self._last[0] + 1, max(self._last[1], packed[-1][1])
        size = sum(31 + len(data) for _, _, data in packed)
        if not self._reserve(self._slabs.slab.position + fmt.CYCLE_SIZE + size):
            self._slabs.go_on(size)
        slab = self._slabs.slab
        at = slab.position + fmt.CYCLE_SIZE
        body = []
        for channel, tov_ns, data in packed:
            body += [fmt.MESSAGE_HEAD.pack(5, len(data) + 22, channel, cycle & 0xFFFFFFFF,
                                           now_ns, tov_ns), data]  # fmt: skip
            at += 31 + len(data)
        records = b"".join(body)
        pad = fmt.RECORD_HEAD.pack(fmt.PAD, slab.trailer_at - at - fmt.HEAD_SIZE)
        slab.commit_records(pack_cycle_head(cycle, now_ns, len(packed), records) + records + pad)
        slab.cycles.append(slab.position)
        slab.position = at

    # -- slabs ---------------------------------------------------------------------------------

    def _reserve(self, end: int) -> bool:
        try:
            return self._slabs.slab.reserve(end)
        except OSError as error:
            raise self._cannot_grow(error) from error

    def _cannot_grow(self, error: OSError) -> LogError:
        self._forget_uncommitted()
        return LogError(f"{self._slabs.slab.path}: the log cannot grow: {error.strerror}")

    def _forget_uncommitted(self) -> None:
        self._slabs.slab.forget_uncommitted()


def _never(_cycle: int) -> Sequence[bytes]:
    raise AssertionError("what has no payload is not encoded")


def _always(_fields: object) -> bool:
    return True


def _not_plain(_fields: object) -> bool:
    return False


def _no_payload(_fields: object) -> bytes:
    return b""


def _gap(payload_at: int, pieces: Sequence[bytes | memoryview]) -> int:
    """The PAD in front of a message so that its first large piece is aligned in the file."""
    for piece in pieces:
        if len(piece) >= fmt.ALIGNED_PART_SIZE:
            return gap_before(payload_at, alignment=fmt.PART_ALIGNMENT)
        payload_at += len(piece)
    return 0


def _lock(directory: Path) -> int:
    """Create `directory`, and lock it for this process as long as the descriptor is open."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        fd = take_lock(directory)
    except OSError as error:
        raise LogError(
            f"{directory}: cannot create the run's directory: {error.strerror}; "
            "choose another with --log-dir, or run with --no-log"
        ) from error
    if fd is None:
        raise LogError(f"{directory}: another process is writing this run")
    if slab_files(directory):
        os.close(fd)
        raise LogError(f"{directory}: holds a run already; a log is never written over")
    return fd
