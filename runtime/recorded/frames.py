"""A picture of a log as a JPEG, upright, of square pixels.

Scrubbing asks for one picture after the other. The decoder of a topic goes on where the next one is
later in the same section or the one after it, and begins at the nearest key frame otherwise. When
somebody goes back step by step, those on the way are made with the first of them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.errors import LogError, LogNotFound
from flowrun.runtime.log.message import LogMessage
from flowrun.runtime.log.reader import Log
from flowrun.runtime.pictures.encode import jpeg, jpeg_of
from flowrun.runtime.pictures.squares import square_size
from flowrun.runtime.pictures.stored import StoredPicture

__all__ = ["SMALL", "Frames", "message_of", "shown_size"]

SMALL = 320
"""Pictures that are asked for at this width at most, such as those next to answers, are small ones."""

_QUALITY = 80
_MOST_BYTES = 16 << 20
"""Of JPEGs that are kept."""
_LONGEST_STEP = 30
_MOST_STEPS = 12
"""In cycles, the longest step back after which more of them are expected, and how many."""


def message_of(log: Log, topic: str, cycle: int) -> LogMessage:
    """The message of a topic in a cycle; `LogNotFound` where the log does not hold it."""
    record = log[cycle]
    for entry in record.entries:
        if entry[0] == topic:
            return log.message(record, entry)
    raise LogNotFound(f"{log.path}: cycle {cycle} has no message of {topic}")


def shown_size(message: LogMessage) -> tuple[int, int]:
    """Width and height of a picture as it is shown, without decoding it."""
    fields = message.outline
    height, width = fields["pixels"].shape[:2]
    height, width = square_size(height, width, fields.get("pixel_aspect", 1.0))
    return width, height


class Frames:
    """The pictures of `log`, which nobody else may use meanwhile."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int, int | None], bytes] = OrderedDict()
        self._size = 0
        self._asked: dict[tuple[str, int | None], int] = {}
        """By topic and width, the cycle that was asked for last."""

    @property
    def loss(self) -> str | None:
        """As that of the log."""
        return self._log.loss

    def jpeg(self, topic: str, cycle: int, *, width: int | None = None) -> bytes:
        """The picture of a topic in a cycle as a JPEG file. `LogError` where the log does not give it.

        width: of the JPEG in pixels, if the picture is wider.
        """
        key = topic, cycle, width
        with self._lock:
            before = self._asked.get((topic, width), cycle)
            self._asked[topic, width] = cycle
            if key not in self._kept:
                for earlier in self._on_the_way(topic, cycle, step=before - cycle):
                    if (topic, earlier, width) in self._kept:
                        continue
                    with suppress(LogError):
                        self._keep((topic, earlier, width), self._made(topic, earlier, width))
                self._keep(key, self._made(topic, cycle, width))
            self._kept.move_to_end(key)
            return self._kept[key]

    def _on_the_way(self, topic: str, cycle: int, *, step: int) -> Iterable[int]:
        """The cycles that are asked for next by somebody who goes back in such steps, of those that are
        decoded for `cycle` anyway: from its key frame on."""
        if not 0 < step <= _LONGEST_STEP:
            return ()
        try:
            own = StoredPicture.parse(message_of(self._log, topic, cycle).payload).own
        except (LogError, ValueError):
            return ()
        first = max(own.get("key", cycle), cycle - _MOST_STEPS * step)
        return reversed(range(cycle - step, first - 1, -step))

    def _keep(self, key: tuple[str, int, int | None], jpeg: bytes) -> None:
        self._size += len(jpeg) - len(self._kept.pop(key, b""))
        self._kept[key] = jpeg
        while self._size > _MOST_BYTES and len(self._kept) > 1:
            self._size -= len(self._kept.popitem(last=False)[1])

    def _made(self, topic: str, cycle: int, width: int | None) -> bytes:
        message = message_of(self._log, topic, cycle)
        image = ImageRgb8Msg()
        image.restore(message.deferred, tov_ns=message.tov_ns)
        height, shown = square_size(image.height, image.width, image.pixel_aspect)
        if width is None or width >= shown:
            return jpeg_of(image, quality=_QUALITY)
        return jpeg(image.resized(width, max(1, round(height * width / shown))), quality=_QUALITY)
