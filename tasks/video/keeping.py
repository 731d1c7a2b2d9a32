"""Decoded pictures -> what is kept of them: the decoder takes their memory back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from flowrun.runtime.pictures.asked import AskedPicture
from flowrun.runtime.pictures.planar import (
    Demand,
    InPlace,
    Kept,
    PlanarPicture,
    kept,
    layout_of,
)
from flowrun.runtime.pictures.video import LetGo
from flowrun.tasks.video.numbering import Frame
from flowrun.tasks.video.sections import Picture

__all__ = ["Keeping"]


class Keeping:
    """Keeps the planes of pictures that are decoded, or their pixels, and has ready what will be asked
    for: on a thread of its own, but where several decode, and the reader's has time.

    name: of the source.
    needs_crc: whether the log wants the CRC of each picture.
    lose: called for each picture of which nothing can be kept.
    is_awaited: whether the next picture goes to the cycle at once, which makes its pixels itself; one
        that has to wait in any case is made ready meanwhile.

    is_live: whether frames come at the source's own time. The cycle then gets each before anything is
        kept of it: what the decoder's thread does first, delays it.
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
        self._number = 0
        """How many pictures have come."""

    def __len__(self) -> int:
        """How many frames wait for `take`."""
        return len(self._begun)

    @property
    def expects_next(self) -> bool:
        """Whether the next picture will be read, as the last ones were."""
        return self._asking.expects(self._number)

    def begin(self, framed: partial[Frame], picture: Picture) -> LetGo | None:
        """Begin to keep a picture; returns as `Take`.

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
            return pixels.exception
        number = framed.keywords["frame_id"]
        planes = InPlace(picture.decoded, layout, stays=picture.lasts)
        made = PlanarPicture(layout, planes, on_read=partial(self._note_read, number, count))
        self._begun.append((framed, made))
        if picture.lasts:
            return None
        if not self.is_live:
            self._pool.submit(self._keep, made, number)
        return made.leave_decoder

    def take(self, count: int) -> Iterator[Frame]:
        """The first `count` frames, when they are kept."""
        for _ in range(count):
            framed, keeping = self._begun.popleft()
            found = keeping.result() if isinstance(keeping, Future) else keeping
            if found is None:
                self._lose()
                continue
            number, is_awaited = framed.keywords["frame_id"], self._is_awaited()
            if not isinstance(found, PlanarPicture) or not found.is_in_place:
                yield framed(found)
            elif self.is_live:
                yield framed(found)
                if not is_awaited:
                    self._pool.submit(self._keep, found, number)
            else:
                if found.is_borrowed:
                    found.leave_decoder()
                elif not is_awaited:  # other threads decode meanwhile
                    self._prepare(found, number)
                yield framed(found)

    def stop(self) -> None:
        """Keep what has begun, and end the thread."""
        self._pool.shutdown()

    def _note_read(self, number: int, count: int) -> None:
        """The pixels of a picture that was decoded at once were asked for."""
        self._demand.note(number)
        self._asking.note(count)

    def _keep(self, picture: PlanarPicture, number: int) -> None:
        picture.leave_decoder()
        self._prepare(picture, number)

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
