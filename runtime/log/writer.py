"""Writes a run's log: what a cycle's bytes are, and when a new chunk or slab begins.

The cycle calls `commit` with messages bound before; nothing is queued and nothing is held back: when
`commit` returns, the cycle is in the page cache, whole and checked by its CRC, and survives the death
of the process. It never waits for the disk: helper threads make the next slab before this one is full,
finish the one before, and bring to the disk what is committed, so that a power cut takes `sync_s`
seconds at most. What they find wrong is raised by the next `commit` or `check`. A finished log is on the
disk.

Log lines go into the next cycle; where none comes, a thread writes them by themselves.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgpack
from zlib_ng.zlib_ng import crc32, crc32_combine

from flowrun.msgs.fields import Buffer
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message
from flowrun.runtime.clock import monotonic_s
from flowrun.runtime.descriptor import Descriptor
from flowrun.runtime.errors import LogError, LogInUse, unwritable
from flowrun.runtime.events import Event
from flowrun.runtime.log.bound import BoundMessages, BoundOutput, Remembered, message_fronts
from flowrun.runtime.log.channels import Loggable, channels_of
from flowrun.runtime.log.committed import MOST_WAITING, CommittedCycles
from flowrun.runtime.log.directory import make_directory
from flowrun.runtime.log.lines import pack_log
from flowrun.runtime.log.lock import remove_lock, slab_files, take_lock
from flowrun.runtime.log.rolling import MIB, RollingSlabs, RunDescription
from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.format import Attachment
from flowrun.runtime.log.slab.writer import Slab
from flowrun.runtime.log.upkeep import Periodic
from flowrun.runtime.pictures.stored import PictureEncoder

__all__ = ["LogWriter"]

_LOOK_S = 0.4
"""Log lines that were there at a look and are at the next are written then: within a second."""
_MOST_LINES = 10_000
"""Number of log lines that may wait. Further ones are left out, and counted."""
_SLOW_SYNCS = 3
_LOCK_TRIES = 100
"""How often to ask for the lock of an empty directory: another run's start may hold it for a moment, to
find out whether it is litter."""
_SMALL = 1 << 10
"""Bytes of the records of most cycles without pictures: their sizes repeat."""
_LARGE = 64 << 10
"""From this size on, payloads are copied straight into the mapping instead of being joined first."""


_Message = tuple[int, int, bytes]
"""Channel, tov_ns and data of a message of the runtime's own."""

# Bound once: these are used in every cycle.
_pack_checked = fmt.CYCLE_CHECKED.pack
_CYCLE_HEAD = fmt.RECORD_HEAD.pack(fmt.CYCLE, fmt.CYCLE_CONTENT.size)
_LINES_HEAD = fmt.RECORD_HEAD.pack(fmt.LINES, fmt.CYCLE_CONTENT.size)
_LINES_CRC = fmt.CRC_STARTS[fmt.LINES]
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
    sync_s: seconds of committed cycles that a power cut may take; None leaves it to the system, which
        may take half a minute.
    on_slow_sync: called, on another thread, where cycles waited for the disk for longer than `sync_s`,
        three times in a row; with the seconds that they waited the last time.
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
        sync_s: float | None = 1.0,
        on_slow_sync: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.directory = directory
        self.messages = 0
        """Messages of outputs written so far."""
        self._lock = threading.Lock()
        """Held while a thread writes into the slab."""
        self._failure: LogError | None = None
        self._records: deque[tuple[int, str, str, str, dict[str, Any]]] = deque()
        self._left_out = 0
        """Log records that came while too many were waiting."""
        self._waited: object = None
        """The first record that waited at the last look."""
        self._packed_records: list[_Message] = []
        schemas, channels, self._outputs = channels_of(outputs)
        self._pictures: dict[str, PictureEncoder] = {}
        self._raw_bytes: Counter[str] = Counter()
        """By topic, what raw pictures have taken."""
        self._first_cycles: deque[int] = deque(maxlen=keep_slabs)
        """Of the last slabs, of which a flight recorder keeps this number."""
        ids = {channel.topic: channel.id for channel in channels}
        self._topics = {number: topic for topic, number in ids.items()}
        self._followed: CommittedCycles | None = None
        self.restate: Callable[[], Sequence[Event]] = tuple
        """Called at the commit of the first cycle of each slab and of cycles with a keyframe, on the
        thread that commits: what earlier records said, and a reader must know who no longer has them."""
        self._begins_slab = True
        """Whether the next cycle is the first of its slab."""
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
        # Lines that come before the first cycle have the time of the run's start.
        self._last = -1, int(metadata.get(fmt.STARTED_NS, "0"))
        description = RunDescription(
            library,
            dict(metadata) if keep_slabs is None else {**metadata, fmt.KEEP_SLABS: str(keep_slabs)},
            list(attachments),
            schemas,
            channels,
        )
        self._run_lock = _lock(directory)
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
            self._run_lock.close()
            with contextlib.suppress(OSError):  # what else is in there stays
                remove_lock(directory)
                directory.rmdir()
            raise
        self._sync_s = sync_s
        self._on_slow_sync = on_slow_sync
        self._slow_syncs = 0
        """How many of the last syncs were too late, in a row."""
        self._sync_began = monotonic_s()
        self._upkeep = [Periodic(self._look, period_s=_LOOK_S, name="flowrun-log")]
        if sync_s is not None:
            # Half of it: what is committed while the disk is at work waits for the next time.
            self._upkeep.append(Periodic(self._sync, period_s=sync_s / 2, name="flowrun-sync"))

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
            if not isinstance(view, ImageRgb8Msg):
                return lambda _cycle: view.encode()
            return lambda _cycle: self._counted(output.topic, view.encode())
        assert isinstance(message, ImageRgb8Msg)
        assert isinstance(view, ImageRgb8Msg)
        picture, shown = message, view
        encoder = self._pictures.setdefault(output.topic, PictureEncoder(output.codec))
        return lambda cycle: encoder.encode(shown, cycle, video=picture.video)

    def _counted(self, topic: str, parts: Sequence[Buffer]) -> Sequence[Buffer]:
        self._raw_bytes[topic] += sum(map(len, parts))
        return parts

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
        Raises `LogError` if the file cannot grow, or was cut, there is no room for a new one, or as
        `check`; nothing of the cycle is kept then either, what was committed before is, and `finish` is
        the next to call.
        """
        with self._lock:
            if self._failure is not None:  # `check`, without the call
                raise self._failure
            slab = self._slabs.slab
            front, payload = self._steps
            steps = self._pack_steps(
                front, cycle & fmt.SEQUENCE_MASK, now_ns, now_ns, payload, start_ns, *ends_ns
            )
            stamp = steps[_STAMP_AT:_STAMP_ENDS]
            extra, total = b"", 1
            if events or self._records or self._packed_records or keyframe or self._begins_slab:
                extra, count = self._pack_extra(cycle, now_ns, events, keyframe)
                total += count
            while True:
                first = slab.position + _CYCLE_SIZE
                records, outputs = bound.encode(cycle, now_ns, stamp, extra, steps, first)
                size = len(records) if isinstance(records, bytes) else sum(map(len, records))
                end = first + size
                if end <= slab.room_ends_at or self._reserve(end):
                    break
                self._go_on(cycle, size)  # and encode again: large pieces are aligned to the file
                slab = self._slabs.slab
                extra, count = self._pack_extra(cycle, now_ns, events, keyframe)
                total = 1 + count
            self._store(slab, _pack_checked(cycle, now_ns, total + outputs, size), records, size)
            if self._followed is not None:
                self._followed.add(cycle, slab, slab.cycles[-1])
            if end > slab.attention_at:
                self._slabs.attend()
            if self._packed_records:
                self._packed_records = []
            self.messages += outputs
            self._last = cycle, now_ns
            self._begins_slab = False

    @property
    def picture_bytes(self) -> dict[str, int]:
        """By topic, what pictures that are stored without packets have taken so far."""
        encoded = {topic: it.pixel_bytes for topic, it in list(self._pictures.items())}
        return {**self._raw_bytes, **encoded}

    def _go_on(self, cycle: int, size: int) -> None:
        """Begin the next slab with `cycle`, or with lines before it, of `size` bytes; where only some
        slabs are kept, tell what encodes pictures."""
        self._slabs.go_on(size)
        self._begins_slab = True
        self._first_cycles.append(cycle)
        if len(self._first_cycles) == self._first_cycles.maxlen:
            for encoder in self._pictures.values():
                encoder.first_kept = self._first_cycles[0]

    def follow(self, *, most: int = MOST_WAITING) -> CommittedCycles:
        """The cycles that are committed from now on, for one who takes them on another thread.

        most: how many wait for it; older ones are left to the log.
        """
        followed = self._followed = CommittedCycles(self._topics, most=most)
        return followed

    def check(self) -> None:
        """Raise the `LogError` that a helper thread met: the disk did not take what was committed, or
        a file was removed. To be called while there is no cycle to commit; takes no time."""
        if self._failure is not None:
            raise self._failure

    def _store(
        self,
        slab: Slab,
        checked: bytes,
        records: bytes | list[Buffer],
        size: int,
        *,
        head: bytes = _CYCLE_HEAD,
        crc_start: int = 0,
    ) -> None:
        """Write a cycle over the slab's PAD, and commit it.

        checked: the CYCLE's content up to its crc.
        size: bytes of `records`.
        head, crc_start: of a CYCLE; a LINES has others.
        """
        mapping, position = slab.mapping, slab.position
        first = position + _CYCLE_SIZE
        end = first + size
        crc = crc32(checked, crc_start)
        pad_length = slab.trailer_at - end - _HEAD_SIZE
        if size <= _LARGE:
            whole = records if isinstance(records, bytes) else b"".join(records)
            crc = crc32(whole, crc)
        if size <= _SMALL:
            pack_into = self._small_cycles[size]
            pack_into(mapping, position + _HEAD_SIZE, checked, crc, 0, whole, _PAD, pad_length)
        else:
            if size <= _LARGE:
                mapping[first:end] = whole
            else:
                parts = [records] if isinstance(records, bytes) else records
                crc = self._write_parts(first, parts, crc)
            fmt.RECORD_HEAD.pack_into(mapping, end, fmt.PAD, pad_length)
            content = checked + fmt.CYCLE_UNCHECKED.pack(crc, 0)
            mapping[position + _HEAD_SIZE : first] = content
        # All is there. This store makes a CYCLE of the PAD before it: in whichever order its bytes
        # appear, a reader sees one of the states of FORMAT.md, since of the length only the low
        # bytes change.
        mapping[position : position + _HEAD_SIZE] = head
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
        """Keep a log record for the next cycle's commit; it is in the file within a second, also where
        there is none. From any thread; never blocks. While 10,000 records wait, others are left out,
        and a line says how many."""
        if len(self._records) < _MOST_LINES:
            self._records.append((time_ns, level, message, name, fields))
        else:
            self._left_out += 1

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

    def let_go(self) -> None:
        """In a child process of a fork: write nothing, and do not hold the lock for the parent."""
        self._run_lock.close()

    def abandon(self) -> None:
        """Leave the log as a process that is killed does: whole, with all that was committed, and not
        finished."""
        for upkeep in self._upkeep:
            upkeep.stop()
        self._run_lock.close()
        self._slabs.abandon()

    def finish(self, end: Mapping[str, str]) -> None:
        """Write the waiting log records, the run's end and the summary; the log is then finished.

        end: {reason, cycles, ended_ns, error?} as text. Raises `LogError` if the disk is full or
        the log was removed; what was committed is then whole all the same. Log records that come
        later are dropped.
        """
        for upkeep in self._upkeep:
            upkeep.stop()
        self._forget_uncommitted()
        with ExitStack() as steps:  # each is taken whatever became of those before
            steps.callback(self._run_lock.close)
            steps.callback(self._slabs.finish, end)
            self._commit_records(is_last=True)
        self._records = deque(maxlen=0)

    # -- on other threads ----------------------------------------------------------------------

    def sync(self) -> None:
        """Bring to the disk what was committed before the call. `LogError` if the disk did not take
        it."""
        self._slabs.sync()

    def write_lines(self) -> None:
        """Write the log records that wait, without a cycle. `LogError` as `commit`."""
        with self._lock:
            self._commit_records()

    def _sync(self) -> bool:
        assert self._sync_s is not None
        began = monotonic_s()
        try:
            self.sync()
        except LogError as error:
            return self._fail(error)
        # What was committed right after the sync before had begun has waited for this one.
        waited = monotonic_s() - self._sync_began
        self._sync_began = began
        self._slow_syncs = self._slow_syncs + 1 if waited > self._sync_s else 0
        if self._slow_syncs == _SLOW_SYNCS:
            self._on_slow_sync(waited)
        return True

    def _look(self) -> bool:
        try:
            self._slabs.look(self._lock)
            self._keep_lock()
            waiting = self._records[0] if self._records else None
            if waiting is not None and waiting is self._waited:
                self.write_lines()
            self._waited = waiting
        except LogError as error:
            return self._fail(error)
        except IndexError:  # a cycle has just taken them
            pass
        return self._failure is None

    def _keep_lock(self) -> None:
        """Take the run's lock again, where a task has closed its descriptor. `LogError` if that is
        impossible: another process may then take the run for one that nobody writes."""
        if self._run_lock.is_open:
            return
        try:
            number = take_lock(self.directory)
        except OSError as error:
            text = f"{self.directory}: a task closed its lock, which cannot be taken again"
            raise LogError(f"{text}: {error.strerror}") from error
        if number is None:
            raise LogInUse(f"{self.directory}: a task closed its lock, which another process took")
        self._run_lock = Descriptor(number)
        text = "a task, or a library, closed file descriptors of the log; they were opened again"
        self.log_record(self._last[1], "warning", text, "flowrun", {})

    def _fail(self, error: LogError) -> bool:
        self._failure = self._failure or error
        return False

    # -- inside --------------------------------------------------------------------------------

    def _pack_extra(
        self, cycle: int, now_ns: int, events: Sequence[Event], keyframe: bytes | None
    ) -> tuple[bytes, int]:
        """What is said again, the events, the keyframe and the log records that wait, and how many they
        are."""
        # Kept until they are committed: the cycle may have to be committed again without a message.
        self._packed_records += self._take_records()
        restated = self.restate() if self._begins_slab or keyframe is not None else ()
        extra = [
            (self._control, now_ns, self._pack(event.pack())) for event in (*restated, *events)
        ]
        if keyframe is not None:
            extra.append((self._keyframe, now_ns, keyframe))
        extra += self._packed_records
        return _messages(cycle, now_ns, extra), len(extra)

    def _take_records(self) -> list[_Message]:
        packed = []
        while self._records:
            time_ns, level, message, name, fields = self._records.popleft()
            packed.append((self._log, time_ns, pack_log(time_ns, level, message, name, fields)))
        if packed and self._left_out:
            text = f"{self._left_out} log lines were left out: {_MOST_LINES} were waiting already"
            self._left_out = 0
            time_ns = packed[-1][1]
            packed.append((self._log, time_ns, pack_log(time_ns, "warning", text, "flowrun", {})))
        return packed

    def _commit_records(self, *, is_last: bool = False) -> None:
        """Write the waiting log records by themselves, for the cycle that comes next.

        is_last: no cycle comes; if one does, it may already have its time, earlier than that of its
            lines, and times must not decrease.
        """
        packed = self._packed_records + self._take_records()
        if not packed:
            return
        cycle, now_ns = self._last[0] + 1, self._last[1]
        if is_last:
            now_ns = max(now_ns, packed[-1][1])
        records = _messages(cycle, now_ns, packed)
        size = len(records)
        if not self._reserve(self._slabs.slab.position + _CYCLE_SIZE + size):
            self._go_on(cycle, size)
        slab = self._slabs.slab
        checked = _pack_checked(cycle, now_ns, len(packed), size)
        self._store(slab, checked, records, size, head=_LINES_HEAD, crc_start=_LINES_CRC)
        if slab.position > slab.attention_at:
            self._slabs.attend()
        self._packed_records = []

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


def _lock(directory: Path) -> Descriptor:
    """Create `directory`, and lock it for this process until the descriptor is closed."""
    try:
        fd = None
        for _ in range(_LOCK_TRIES):
            with contextlib.suppress(FileNotFoundError):  # tidied away by another run's start
                make_directory(directory)
                fd = take_lock(directory)
                if fd is not None or slab_files(directory):
                    break
    except OSError as error:
        text = f"{directory}: cannot create the run's directory: {error.strerror}"
        raise unwritable(text, error) from error
    if fd is None:
        raise LogInUse(f"{directory}: another process is writing this run")
    if slab_files(directory):
        os.close(fd)
        raise LogInUse(f"{directory}: holds a run already; a log is never written over")
    return Descriptor(fd)
