"""A source's compressed packets, kept until the log takes them with the pictures they give."""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

from flowrun.msgs.image import UnseenPacket, VideoDecoder, VideoPackets

__all__ = ["Origin", "PacketQueue"]

_MOST_BYTES = 64 << 20
"""Of packets that no picture took, such as those of a live source while no cycle runs."""


class Origin(NamedTuple):
    """Where a picture comes from.

    section: the section of its packet.
    number: the number of its packet.
    fed: the number of the last packet that the decoder had got when the picture came out.
    drained: whether it came out when the section was at its end.
    is_damaged: whether packets that it may need are known to be missing or damaged.
    """

    section: int
    number: int
    fed: int
    drained: bool
    is_damaged: bool = False


class _Kept(NamedTuple):
    section: int
    number: int
    data: bytes
    is_key: bool
    time_ns: int | None

    @property
    def unseen(self) -> UnseenPacket:
        return UnseenPacket(self.data, self.is_key, self.time_ns)


class PacketQueue:
    """The packets of one stream, in decoding order. The reader's thread appends; the cycle takes.

    keeps_all: also those of which no picture is decoded; they go with the next picture.
    """

    def __init__(self, *, keeps_all: bool = False) -> None:
        self._keeps_all = keeps_all
        self._lock = threading.Lock()
        self._kept: deque[_Kept] = deque()
        self._size = 0
        self._sections: dict[int, tuple[VideoDecoder, int]] = {}
        """What decodes each section whose pictures may still be taken, and its first packet."""
        self._overflowed = False

    def begin_section(self, section: int, decoder: VideoDecoder, first: int) -> None:
        """The packets that are appended from now on are of a section that begins with packet
        `first`."""
        with self._lock:
            self._sections[section] = decoder, first
            self._overflowed = False

    def append(
        self,
        section: int,
        number: int,
        data: bytes,
        *,
        is_key: bool,
        time_ns: int | None = None,
    ) -> None:
        """Keep a packet that the decoder has got.

        time_ns: see `UnseenPacket`.
        """
        with self._lock:
            self._kept.append(_Kept(section, number, data, is_key, time_ns))
            self._size += len(data)
            if self._size > _MOST_BYTES:
                self._kept.clear()
                self._size = 0
                self._overflowed = True

    def forget_before(self, section: int) -> None:
        """Drop the packets of sections before `section`: no picture of them will be taken."""
        if self._keeps_all:
            return
        with self._lock:
            while self._kept and self._kept[0].section < section:
                self._drop()
            for older in [it for it in self._sections if it < section]:
                del self._sections[older]

    @property
    def overflowed(self) -> bool:
        """Whether packets of the newest section were dropped: nobody took them."""
        return self._overflowed

    def take(self, origin: Origin) -> VideoPackets | None:
        """The packets from which the picture was decoded, without those that were taken before.

        None where some were dropped.
        """
        with self._lock:
            before = []
            while self._kept and self._kept[0].section < origin.section:
                if self._keeps_all:
                    before.append(self._kept[0].unseen)
                self._drop()
            for section in [it for it in self._sections if it < origin.section]:
                del self._sections[section]
            if origin.section not in self._sections:
                return None
            decoder, begin = self._sections[origin.section]
            first = self._kept[0].number if self._kept else origin.fed + 1
            packets, time_ns = [], None
            while self._kept and self._kept[0][:2] <= (origin.section, origin.fed):
                packets.append((self._kept[0].data, self._kept[0].is_key))
                if self._kept[0].number == origin.number:
                    time_ns = self._kept[0].time_ns
                self._drop()
            return VideoPackets(
                decoder,
                tuple(packets),
                first,
                origin.number,
                origin.section,
                begins=first == begin,
                drained=origin.drained,
                before=tuple(before),
                time_ns=time_ns,
                is_damaged=origin.is_damaged,
            )

    def take_rest(self) -> tuple[UnseenPacket, ...]:
        """The packets of which no picture will be decoded, where all are kept."""
        with self._lock:
            rest = tuple(it.unseen for it in self._kept) if self._keeps_all else ()
            self._kept.clear()
            self._size = 0
            return rest

    def _drop(self) -> None:
        self._size -= len(self._kept.popleft().data)
