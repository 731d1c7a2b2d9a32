"""The pixels of one topic's stored pictures, in whichever order they are asked for.

Compressed packets are decoded from the last key frame on. Asked for one picture after the other, each
packet is decoded once; a jump costs what lies between its picture and the key frame before.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.runtime.pictures.stored import StoredPicture
from flowrun.runtime.pictures.video import PacketDecoder, RgbConverter, picture_rgb

__all__ = ["PictureDecoder"]

_of_thread = threading.local()
_MOST_KEY_FRAMES = 8
_FARTHEST = 64
"""Within this number of messages after a picture's own, its packet must have given it: decoders hold
back 16 for their order and one for each of their threads."""

_AHEAD = 4
"""This number of pictures is decoded and converted while one is looked at, where they are asked for one
after the other. Decoding takes 3 to 8 ms at 1080p, converting 5: all cores share them."""

Stored = Callable[[int], Iterator[tuple[int, memoryview]]]
"""The messages of the topic from a cycle on: cycle and payload."""


class PictureDecoder:
    """Decodes the pictures of one topic.

    stored: reads the topic's messages. ahead: decode ahead on all cores, for a log that is complete.
    """

    def __init__(self, stored: Stored, *, ahead: bool) -> None:
        self._stored = stored
        self._ahead = ahead
        self._decoder: PacketDecoder | None = None
        self._section = -1
        self._source: Iterator[tuple[int, memoryview]] = iter(())
        self._next_cycle = 0
        """The first cycle whose packets have not been decoded."""
        self._begun = False
        self._asked = -1
        """The last cycle asked for since decoding began at a key frame."""
        self._decoded: dict[tuple[int, int], Any] = {}
        """Pictures that came out and were not asked for yet, by section and number."""
        self._stored_as: dict[tuple[int, int], StoredPicture] = {}
        """The messages of pictures that were not asked for yet."""
        self._newest: tuple[int, NDArray[np.uint8]] | None = None

    def pixels(self, cycle: int, picture: StoredPicture) -> NDArray[np.uint8]:
        """The pixels (H, W, 3) of the message of `cycle`, read-only.

        `ValueError` where what is stored does not give the recorded ones; never others.
        """
        own = picture.own
        if own["codec"] != "packets":
            return picture.unpacked()
        if self._newest is not None and self._newest[0] == cycle:
            return self._newest[1]
        if own["key"] < 0:
            raise ValueError("it comes before the first key frame in the log")
        problem = "its packets do not give it"
        # Pictures come out in the order in which they are shown, which is that of the cycles.
        follows = self._asked < cycle and own["key"] < self._next_cycle
        for begin in chain([None] if follows else [], self._key_frames(picture)):
            if begin is not None:
                self._restart(begin)
            try:
                found = self._find(cycle, picture)
            except ValueError as error:
                problem = str(error)
                continue
            if found is not None:
                self._newest = cycle, found
                return found
        self._next_cycle = 0  # begin at a key frame
        first, _ = next(self._stored(0), (-1, b""))
        if first > own["key"]:  # a flight recorder's log begins after it
            raise ValueError("it comes before the first key frame in the log")
        raise ValueError(problem)

    def _key_frames(self, picture: StoredPicture) -> Iterator[int]:
        """Where to begin decoding: at the last key frame; where that does not give the picture, as
        where decoders want some pictures to settle (open GOP), farther and farther back."""
        begin = picture.own["key"]
        yield begin
        begin = picture.own["key_before"]
        for _ in range(_MOST_KEY_FRAMES):
            if begin < 0:
                return
            yield begin
            cycle, payload = next(self._stored(begin), (-1, memoryview(b"")))
            if cycle != begin:
                return  # not in the log
            begin = StoredPicture.parse(payload).own["key_before"]

    def _restart(self, cycle: int) -> None:
        self._decoder = None
        self._section = -1
        self._begun = False
        self._decoded.clear()
        self._stored_as.clear()
        self._asked = -1
        self._next_cycle = cycle
        self._source = self._stored(cycle)

    def _find(self, cycle: int, picture: StoredPicture) -> NDArray[np.uint8] | None:
        wanted = picture.own["section"], picture.own["number"]
        goes_on = self._asked >= 0
        self._asked = cycle
        after = 0
        while wanted not in self._decoded and after < _FARTHEST:
            if not self._feed_next():
                self._drain()
                break
            after += self._next_cycle > cycle + 1
        if wanted not in self._decoded:
            return None
        for made in list(self._decoded):  # earlier ones were never published, or not asked for
            decoded = self._decoded.pop(made)
            self._stored_as.pop(made, None)
            if made == wanted:
                break
        if self._ahead and goes_on:
            self._prepare()
        if isinstance(decoded, Future):
            pixels: NDArray[np.uint8] = decoded.result()
            return pixels
        return _convert(decoded, picture)

    def _prepare(self) -> None:
        """Decode the pictures that are usually asked for next, and convert them meanwhile."""
        for _ in range(_AHEAD):
            if len(self._decoded) >= _AHEAD or not self._feed_next():
                break
        for made, decoded in self._decoded.items():
            stored = self._stored_as.get(made)
            if stored is not None and not isinstance(decoded, Future):
                self._decoded[made] = _pool(os.getpid()).submit(_convert, decoded, stored)

    def _feed_next(self) -> bool:
        """Decode the packets of the next message; False if there is none."""
        entry = next(self._source, None)
        if entry is None:  # a log that grows may have more by now
            self._source = self._stored(self._next_cycle)
            entry = next(self._source, None)
            if entry is None:
                return False
        cycle, payload = entry
        self._next_cycle = cycle + 1
        picture = StoredPicture.parse(payload)
        if picture.own["codec"] != "packets":
            return True
        section = picture.own["section"]
        self._stored_as[section, picture.own["number"]] = picture
        if section != self._section:
            self._drain()
            self._section = section
        for _, number, data, is_key in picture.packets:
            if not self._begun:
                if not is_key:
                    continue
                decoder = picture.decoder
                if decoder is None:
                    raise ValueError("a key frame without its decoder")
                self._decoder = PacketDecoder(decoder, ahead=self._ahead)
                self._begun = True
            assert self._decoder is not None
            self._keep(self._decoder.decode(number, data))
        return True

    def _drain(self) -> None:
        if self._decoder is not None:
            self._keep(self._decoder.drain())
        self._decoder, self._begun = None, False

    def _keep(self, decoded: list[tuple[int, Any]]) -> None:
        for number, made in decoded:
            self._decoded[self._section, number] = made
        while len(self._decoded) > _FARTHEST:  # of pictures that were never published
            del self._decoded[next(iter(self._decoded))]
        while len(self._stored_as) > 2 * _FARTHEST:
            del self._stored_as[next(iter(self._stored_as))]


@functools.cache
def _pool(_process: int) -> ThreadPoolExecutor:
    """One a process: a fork has none of its parent's threads."""
    return ThreadPoolExecutor(min(_AHEAD, os.cpu_count() or 1), thread_name_prefix="flowrun-rgb")


def _convert(decoded: Any, picture: StoredPicture) -> NDArray[np.uint8]:
    """The pixels of a decoded picture; `ValueError` if they are not the recorded ones."""
    converter = getattr(_of_thread, "converter", None)
    if converter is None:
        converter = _of_thread.converter = RgbConverter()
    return picture.checked(picture_rgb(decoded, picture.own["color"], converter))
