"""Sources that are no film but single pictures, each a packet of its own.

It is read like a container that PyAV has opened: `streams`, `demux`, `seek`, `close` and `duration`;
`interrupt` ends a wait.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__all__ = ["PictureFiles", "Snapshots", "StillStream", "Stills"]

_NO_PICTURE = b"\0"
"""In place of an empty file: to a decoder, an empty packet is the end."""


class StillStream:
    """A video stream of pictures, `rate` of them in a second.

    model: a stream of one of them, where there is one.
    """

    type = "video"
    start_time = 0
    disposition = 0
    frames = 0
    sample_aspect_ratio: Fraction | None = None
    container: Any = None

    def __init__(self, context: Any, rate: Fraction, model: Any = None) -> None:
        self.codec_context = context
        self.average_rate = self.guessed_rate = rate
        self.time_base = 1 / rate
        self._model = model

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or self._model is None:
            raise AttributeError(name)
        return getattr(self._model, name)


class _Streams(list[Any]):
    """The one stream."""

    @property
    def video(self) -> list[Any]:
        return list(self)

    def best(self, _kind: str) -> Any:
        return self[0]


class Stills(ABC):
    """A container of pictures that are made, read or fetched one after another."""

    duration: int | None = None
    size = -1
    format = SimpleNamespace(name="pictures", flags=0)

    def __init__(self, stream: StillStream) -> None:
        self.streams = _Streams([stream])
        self._stream = stream
        stream.container = self
        self._next = 0
        self._interrupted = threading.Event()

    def seek(self, offset_us: int) -> None:
        """Go on with the picture of that time, microseconds since the first one."""
        self._next = max(0, int(Fraction(offset_us, 1_000_000) * self._stream.average_rate))

    def demux(self, _stream: Any) -> Iterator[Any]:
        while (data := self._data(self._next)) is not None:
            yield self._packet(data)
            self._next += 1

    def interrupt(self) -> None:
        """From any thread: no more pictures."""
        self._interrupted.set()

    def close(self) -> None:
        self.interrupt()

    def _packet(self, data: bytes) -> Any:
        import av

        packet = av.Packet(data)
        packet.pts = packet.dts = self._next
        packet.time_base = self._stream.time_base
        packet.is_keyframe = True
        return packet

    @abstractmethod
    def _data(self, number: int) -> bytes | None:
        """The packet of picture `number`, None after the last one."""


class PictureFiles(Stills):
    """Files with one picture each."""

    def __init__(self, files: tuple[Path, ...], stream: StillStream) -> None:
        super().__init__(stream)
        self._files = files
        self.duration = int(len(files) / stream.average_rate * 1_000_000)

    def file_of(self, pts: int) -> Path:
        """The file that the packet of that time stamp holds."""
        return self._files[pts]

    def _data(self, number: int) -> bytes | None:
        if self._interrupted.is_set() or number >= len(self._files):
            return None
        return _contents(self._files[number]) or _NO_PICTURE


def _contents(path: Path) -> bytes:
    """The bytes of a file, which may have become anything since it was listed.

    Raises `OSError` if it is no file any more: a read of a pipe or a terminal waits for ever, and one
    of `/dev/zero` never ends.
    """
    with open(path, "rb", opener=_open_at_once) as file:  # `Path.open` has no opener
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file.read()
    raise OSError(errno.EINVAL, "it is no longer a file", str(path))


def _open_at_once(path: str, flags: int) -> int:
    """Not to wait in `open` for a pipe's writer, where nothing ends the wait."""
    return os.open(path, flags | os.O_NONBLOCK)


class Snapshots(Stills):
    """A picture that is fetched again and again, at the rate of `stream`.

    fetch: gives it; it may raise, which ends the stream.
    first: the one that was fetched already.
    """

    def __init__(self, stream: StillStream, *, fetch: Callable[[], bytes], first: bytes) -> None:
        super().__init__(stream)
        self._fetch, self._first = fetch, first
        self._period_s = float(stream.time_base)
        self._due_s = time.monotonic()

    def _data(self, number: int) -> bytes | None:
        if number == 0:
            return self._first
        now_s = time.monotonic()
        self._due_s = max(self._due_s + self._period_s, now_s)  # what is late is left out
        if self._interrupted.wait(self._due_s - now_s):
            return None
        return self._fetch()
