"""Decoded pictures -> what is kept of them: the decoder takes their memory back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.runtime.pictures.asked import AskedPicture
from flowrun.runtime.pictures.planar import (
    Demand,
    InPlace,
    Kept,
    Layout,
    PlanarPicture,
    copied,
    kept,
    layout_of,
)
from flowrun.runtime.pictures.video import PutOff
from flowrun.tasks.video.numbering import Frame
from flowrun.tasks.video.sections import Picture

__all__ = ["Keeping"]

_HANDED_OVER = 1 << 20
"""Bytes of a picture whose CRC is worth a thread: it takes 25 us, as long as handing it over."""


class Keeping:
    """Keeps the planes of pictures that are decoded, or their pixels, and has ready what will be asked
    for: on a thread of its own, but where several decode, and the reader's has time.

    name: of the source.
    needs_crc: whether the log wants the CRC of each picture.
    lose: called for each picture of which nothing can be kept.
    is_awaited: whether the cycle waits for the next picture. It then gets it at once, and makes its
        pixels itself: both threads are busy, whichever of the two is slower.

    is_live: whether frames come at the source's own time. The cycle then gets each before anything is
        kept of it, and who looks at it waits for that; `do_put_off` is to be called afterwards.
    """

    def __init__(
        self,
        name: str,
        *,
        needs_crc: bool,
        lose: Callable[[], None],
        is_awaited: Callable[[], bool],
    ) -> None:
        self.is_live = False
        self._needs_crc, self._lose, self._is_awaited = needs_crc, lose, is_awaited
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"keep {name}")
        self._demand = Demand()
        """For the pixels, by the frames' ids: pictures that are far apart are not worth it."""
        self._asking = Demand()
        """For pictures at all, one after the other, however far apart they are."""
        self._begun: deque[tuple[partial[Frame], Kept | Future[Kept | None]]] = deque()
        """Frames in their order, with what is kept of each, now or soon; None where its colours cannot
        be converted."""
        self._put_off: deque[Callable[[], object]] = deque()
        self._number = 0
        """How many pictures have come."""

    def __len__(self) -> int:
        """How many frames wait for `take`."""
        return len(self._begun)

    @property
    def expects_next(self) -> bool:
        """Whether the next picture will be read, as the last ones were."""
        return self._asking.expects(self._number)

    def begin(self, framed: partial[Frame], picture: Picture) -> Future[Any] | None:
        """Begin to keep a picture. The decoder may have its memory again when the `Future` is done.

        framed: makes its frame of what is kept.
        """
        count = self._number
        self._number += 1
        if picture.kept is not None:
            if isinstance(picture.kept, AskedPicture):
                picture.kept.on_read = partial(self._asking.note, count)
            self._begun.append((framed, picture.kept))
            return None
        layout = layout_of(picture.decoded)
        if layout is None:
            pixels = self._pool.submit(_pixels, [picture.decoded])
            self._begun.append((framed, pixels))
            return pixels
        number = framed.keywords["frame_id"]
        planes: Future[NDArray[np.uint8]] | None = None
        if picture.lasts:
            data: Callable[[], NDArray[np.uint8]] = InPlace(picture.decoded, layout)
        else:  # who reads it waits for the copy; who passes it on does not
            copy = partial(_copy, [picture.decoded], layout)
            if self.is_live:
                planes = put_off = PutOff(copy)
                self._put_off.append(put_off.do)
            else:
                planes = Future()
                self._pool.submit(copy, planes)
            data = planes.result
        made = PlanarPicture(layout, data, on_read=partial(self._note_read, number, count))
        self._begun.append((framed, made))
        needs_crc = self._needs_crc and layout.size >= _HANDED_OVER
        if picture.lasts or not (needs_crc or self._demand.expects(number)):
            return planes
        prepare = partial(self._pool.submit, self._prepare, made, number)
        if self.is_live:
            self._put_off.append(prepare)
        else:
            prepare()
        return planes

    def take(self, count: int) -> Iterator[Frame]:
        """The first `count` frames, when they are kept."""
        for _ in range(count):
            framed, keeping = self._begun.popleft()
            found = keeping.result() if isinstance(keeping, Future) else keeping
            if found is None:
                self._lose()
                continue
            if isinstance(found, PlanarPicture) and not isinstance(found, AskedPicture):
                if found.is_in_place:
                    if not self._is_awaited():  # other threads decode meanwhile
                        self._prepare(found, framed.keywords["frame_id"])
                elif not self.is_live:
                    _ = found.data  # copied: the decoder's memory of it is free again
            yield framed(found)

    def do_put_off(self) -> None:
        """Keep what the cycle was given before it was kept."""
        while self._put_off:
            self._put_off.popleft()()

    def stop(self) -> None:
        """Keep what has begun, and end the thread."""
        self.do_put_off()
        self._pool.shutdown()

    def _note_read(self, number: int, count: int) -> None:
        """The pixels of a picture that was decoded at once were asked for."""
        self._demand.note(number)
        self._asking.note(count)

    def _prepare(self, picture: PlanarPicture, number: int) -> None:
        if self._needs_crc:
            _ = picture.crc
        if self._demand.expects(number):
            picture.prepare()


def _pixels(decoded: list[Any]) -> Kept | None:
    """The pixels of the one picture of the list, which is then empty: nothing holds the picture. None
    where its colours cannot be converted."""
    try:
        return kept(decoded.pop())
    except ValueError:
        return None


def _copy(decoded: list[Any], layout: Layout, planes: Future[NDArray[np.uint8]]) -> None:
    """Give `planes` those of the one picture of the list, which is then empty."""
    try:
        planes.set_result(copied(decoded.pop(), layout))
    except BaseException as error:  # noqa: BLE001  # raised where the picture is read
        planes.set_exception(error)
