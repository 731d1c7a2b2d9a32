"""A section of a file, decoded on several cores: the pictures are those that one thread gives.

FFmpeg decodes some pictures at once, each on a thread of its own, and hands them out in order; or the
parts of one picture. Where nothing is damaged these are the pictures of one thread. After damage they
depend on which thread was faster: then the section is decoded once more, in one thread, from its
beginning, and what was given of it before is left out.

A picture's `dts` is the number of the packet with which one thread would have given it: all that is
logged with a picture is therefore the same with any number of threads.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

from flowrun.msgs.image import VideoDecoder
from flowrun.runtime.pictures.memory import give_back_freed
from flowrun.runtime.pictures.video import PacketDecoder, Take
from flowrun.tasks.video.spare import Spare

__all__ = ["AheadDecoder", "Cores", "available_cores"]

_MOST_THREADS = 16
_MOST_KEPT = 64 << 20
"""Bytes of a section's packets that are kept for decoding it once more. A section that is longer goes on
in one thread."""
_MOST_LEFT_OUT = 64
"""Sections that are decoded in one thread after others were damaged, before more threads are tried."""


def available_cores() -> int:
    """The number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Cores:
    """The share of one source in the machine's cores.

    count: how many cores there are. has_spare: whether one thread more than cores decodes, as FFmpeg has
        it too: one always waits for another's picture.
    """

    _sources: ClassVar[weakref.WeakSet[Cores]] = weakref.WeakSet()
    _lock: ClassVar = threading.Lock()

    def __init__(self, count: int, *, has_spare: bool = True) -> None:
        self._count, self._has_spare = count, has_spare
        self._left_out = 0
        """Sections that are still to be decoded in one thread."""
        self._leave_out = 1
        """How many there will be after the next section with damage."""
        with self._lock:
            self._sources.add(self)

    def threads(self) -> int:
        """How many threads the next section gets."""
        if self._left_out:
            self._left_out -= 1
            return 1
        with self._lock:
            cores = self._count // max(1, len(self._sources))
        return 1 if cores < 2 else min(_MOST_THREADS, cores + self._has_spare)

    def leave(self) -> None:
        """The source has ended: the others share the cores."""
        with self._lock:
            self._sources.discard(self)

    def report(self, *, is_damaged: bool) -> None:
        """Hear how decoding a section on several threads went."""
        if is_damaged:
            self._left_out = self._leave_out
            self._leave_out = min(_MOST_LEFT_OUT, 2 * self._leave_out)
        else:
            self._leave_out = 1


class _Packet(NamedTuple):
    number: int
    data: bytes
    is_key: bool


class _Alone(NamedTuple):
    """What came of a section of one packet.

    took: whether the decoder took it. ended: whether all its pictures came out.
    """

    took: bool
    pictures: list[Any]
    last: list[Any]
    ended: bool
    reorder: int


class AheadDecoder:
    """Decodes a section as a `PacketDecoder` in one thread does.

    Each packet is given twice: to `prepare` as soon as it was read, to `decode` when its pictures are
    wanted. `threads` packets should be prepared ahead; the first `decode` of one that is not, or that
    no other was prepared after, ends the use of several threads.

    threads: how many.
    in_parts: see `PacketDecoder`. Each packet then gives one picture, its own, where nothing is damaged.
    spare: where its decoder may come from, and goes.
    """

    def __init__(
        self,
        decoder: VideoDecoder,
        threads: int,
        *,
        strict: bool,
        in_parts: bool = False,
        spare: Spare,
    ) -> None:
        self.known = decoder
        self.is_damaged = False
        """Whether it had to begin once more in one thread."""
        self._threads = threads
        self._in_parts = in_parts
        self._strict = strict
        self._spare = spare
        self._said: bytes | None = None
        """What its packets have said to last; None where that is not known, or others than the first
        have said something."""
        self._first: _Packet | None = None
        """The section's."""
        self._alone: Future[_Alone] | None = None
        self._ahead: PacketDecoder | None = None
        """None before there is a second packet, and when all pictures came out."""
        self._again: PacketDecoder | None = None
        self._is_broken = False
        self._newest = -1
        """The number of the last packet that was prepared."""
        self._delay: int | None = None
        """How many packets later pictures come out than in one thread; None before the first one."""
        self._made: dict[int, list[Any]] = {}
        """By packet with which they come out in one thread."""
        self._count = 0
        """How many of them there are, or were."""
        self._last: list[Any] | None = None
        """Those that come out at the end; None before it."""
        self._reorders: dict[int, int] = {}
        """`reorder` after each packet that was prepared."""
        self._fed: list[_Packet] = []
        self._size = 0

    def prepare(self, number: int, data: bytes, *, is_key: bool, said: bytes | None) -> None:
        """Begin to decode a packet, the one after the last.

        said: see `said_to_last`.
        """
        if self._last is not None:
            return
        packet = _Packet(number, data, is_key)
        self._newest = number
        if self._ahead is None and self._first is None:
            self._first, self._said = packet, said
        elif not self._is_broken:
            if self._ahead is None:
                assert self._first is not None
                self._ahead = self._new()
                self._send(self._first)
            if said != b"":
                self._said = None
            self._send(packet)

    def end(self) -> None:
        """No more packets will be prepared."""
        if self._first is not None and not self._uses_threads:
            self._alone = _pool(os.getpid()).submit(
                _decode_alone, self.known, self._first, strict=self._strict
            )

    def decode(self, number: int, data: bytes, take: Take, *, is_key: bool) -> bool:
        """As `PacketDecoder.decode` in one thread."""
        if self._alone is not None and self._again is None:
            alone = self._alone.result()
            self._hand_out(alone.pictures, take)
            return alone.took
        if self._again is None and not self._has(number):
            self.start_over()
        if self._again is not None:
            return self._again.decode(number, data, take, is_key=is_key)
        self._fed.append(_Packet(number, data, is_key))
        self._size += len(data)
        self._reorders.pop(number - 1, None)
        self._hand_out(self._made.pop(number, ()), take)
        return True

    def drain(self, take: Take) -> bool:
        """As `PacketDecoder.drain`."""
        if self._again is None:
            if self._alone is not None:
                alone = self._alone.result()
                self._hand_out(alone.last, take)
                return alone.ended
            self._finish()
            if self._is_broken or self._last is None:
                self.start_over()
        if self._again is not None:
            return self._again.drain(take)
        assert self._last is not None
        self._hand_out(self._last, take)
        return True

    def start_over(self) -> None:
        """Go on in one thread: with damage, its pictures are other ones."""
        if self._again is not None or self._alone is not None:
            return
        self._again = PacketDecoder(self.known, strict=self._strict)
        for number, data, is_key in self._fed:
            self._again.decode(number, data, _leave_out, is_key=is_key)
        self.is_damaged = self._uses_threads
        self._ahead = None
        self._fed.clear()
        self._made.clear()

    @property
    def lasts(self) -> bool:
        """Whether pictures may be kept: memory does not matter to those without damage."""
        return self._again is None

    @property
    def reorder(self) -> int:
        """As `PacketDecoder.reorder`."""
        if self._again is not None:
            return self._again.reorder
        if self._alone is not None:
            return self._alone.result().reorder
        if not self._fed:
            return self.known.reorder
        usual = 0 if self._in_parts else self._threads - 1
        delay = usual if self._delay is None else self._delay
        at = min(self._fed[-1].number + delay, self._newest)
        return self._reorders[self._newest if self._last is not None else at]

    # -- ahead ---------------------------------------------------------------------------------

    def _has(self, number: int) -> bool:
        """Whether all pictures that come out with this packet are there."""
        if self._size > _MOST_KEPT:
            return False
        if number + self._threads > self._newest:  # none comes after those that were prepared
            self._finish()
        return self._uses_threads and number <= self._newest and not self._is_broken

    @property
    def _uses_threads(self) -> bool:
        return self._ahead is not None or self._last is not None

    def _new(self) -> PacketDecoder:
        """What decodes the section, and knows nothing of packets before that makes a difference."""
        spare = self._spare.take(self.known, self._threads, said=self._said)
        return spare or PacketDecoder(
            self.known, ahead=True, threads=self._threads, in_parts=self._in_parts, strict=True
        )

    def _send(self, packet: _Packet) -> None:
        assert self._ahead is not None
        came: list[int | None] = []

        def take(number: int | None, decoded: Any) -> None:
            # Kept, against what `Take` says: memory does not matter to pictures without damage.
            given_with = decoded.dts
            came.append(number)
            if decoded.is_corrupt or given_with is None:
                self._is_broken = True
            else:
                self._delay = packet.number - given_with if self._delay is None else self._delay
                self._made.setdefault(given_with, []).append(decoded)
                self._count += 1

        if not self._ahead.decode(packet.number, packet.data, take, is_key=packet.is_key):
            self._is_broken = True
        if self._in_parts and came != [packet.number]:
            self._is_broken = True
        self._reorders[packet.number] = self._ahead.reorder

    def _finish(self) -> None:
        """Have all pictures come out. A section that has fewer than packets is taken for damaged."""
        if self._last is not None or self._ahead is None or self._is_broken:
            return
        assert self._first is not None
        last: list[Any] = []

        def take(_number: int | None, decoded: Any) -> None:
            if decoded.is_corrupt:
                self._is_broken = True
            elif decoded.dts is None:
                last.append(decoded)
            else:
                self._made.setdefault(decoded.dts, []).append(decoded)
                self._count += 1

        drained = self._ahead.drain(take)
        self._last = last
        # At the end FFmpeg does not say what it refuses.
        if not drained or self._count + len(last) < self._newest - self._first.number + 1:
            self._is_broken = True
        reorder = self._reorders[self._newest] = self._ahead.reorder
        if self._is_broken or self._said is None:
            self._ahead = None
            give_back_freed()
            return
        known = replace(self.known, reorder=reorder)
        self._spare.put_back(self._ahead, known, self._threads, said=self._said)
        self._ahead = None

    def _hand_out(self, pictures: Any, take: Take) -> None:
        for picture in pictures:
            take(picture.pts, picture)


@functools.cache
def _pool(_process: int) -> ThreadPoolExecutor:
    """One a process: a fork has none of its parent's threads."""
    return ThreadPoolExecutor(
        min(_MOST_THREADS, available_cores()), thread_name_prefix="flowrun-decode"
    )


def _decode_alone(decoder: VideoDecoder, packet: _Packet, *, strict: bool) -> _Alone:
    pictures: list[Any] = []
    last: list[Any] = []
    one = PacketDecoder(decoder, strict=strict)
    took = one.decode(
        packet.number,
        packet.data,
        lambda _, decoded: pictures.append(decoded),
        is_key=packet.is_key,
    )
    ended = one.drain(lambda _, decoded: last.append(decoded))
    return _Alone(took, pictures, last, ended, one.reorder)


def _leave_out(_number: int | None, _decoded: Any) -> None:
    """What was given before."""
