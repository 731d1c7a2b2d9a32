"""A picture of a log as a JPEG, upright, of square pixels.

Scrubbing asks for one picture after the other. The decoder of a topic goes on where the next one is
later in the same section or the one after it, and begins at the nearest key frame otherwise.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.errors import LogNotFound
from flowrun.runtime.log.message import LogMessage
from flowrun.runtime.log.reader import Log
from flowrun.runtime.pictures.encode import jpeg, jpeg_of
from flowrun.runtime.pictures.squares import square_size

__all__ = ["Frames", "message_of", "shown_size"]

_QUALITY = 80
_MOST_BYTES = 16 << 20
"""Of JPEGs that are kept."""


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

    def jpeg(self, topic: str, cycle: int, *, width: int | None = None) -> bytes:
        """The picture of a topic in a cycle as a JPEG file. `LogError` where the log does not give it.

        width: of the JPEG in pixels, if the picture is wider.
        """
        key = topic, cycle, width
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                found = self._made(topic, cycle, width)
                self._kept[key] = found
                self._size += len(found)
                while self._size > _MOST_BYTES:
                    self._size -= len(self._kept.popitem(last=False)[1])
            self._kept.move_to_end(key)
        return found

    def _made(self, topic: str, cycle: int, width: int | None) -> bytes:
        message = message_of(self._log, topic, cycle)
        image = ImageRgb8Msg()
        image.restore(message.deferred, tov_ns=message.tov_ns)
        height, shown = square_size(image.height, image.width, image.pixel_aspect)
        if width is None or width >= shown:
            return jpeg_of(image, quality=_QUALITY)
        return jpeg(image.resized(width, max(1, round(height * width / shown))), quality=_QUALITY)
