"""Pictures of another process, as their packets: decoded when they are read, and given to this process's
own log as packets again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from zlib_ng.zlib_ng import crc32

from flowrun.msgs.image import ImageRgb8Msg, UnseenPacket, VideoDecoder, VideoPackets
from flowrun.runtime.pictures.asked import AskedPicture, Found
from flowrun.runtime.pictures.decode import PictureDecoder
from flowrun.runtime.pictures.planar import Kept, PlanarPicture
from flowrun.runtime.pictures.stored import StoredPicture

__all__ = ["PictureFeed"]

_MOST_BYTES = 64 << 20
"""Of packets of a section that are kept. Past it, its first ones are dropped, and a picture that needs
them again is not given."""


class _Section:
    """The messages of one section, which one decoder decodes. Whoever holds a picture of it holds it.

    key: the sender's cycle of its first message.
    """

    def __init__(self, key: int, described: VideoDecoder, number: int) -> None:
        self.key, self.described, self.number = key, described, number
        self.is_begun = False
        """Whether a picture of it was published."""
        self.decoder = PictureDecoder(self._stored, ahead=False)
        self._messages: dict[int, bytes] = {}
        self._size = 0

    def add(self, cycle: int, payload: bytes) -> None:
        self._messages[cycle] = payload
        self._size += len(payload)
        while self._size > _MOST_BYTES and len(self._messages) > 1:
            self._size -= len(self._messages.pop(next(iter(self._messages))))

    def _stored(self, start: int) -> Iterator[tuple[int, memoryview]]:
        for cycle, payload in list(self._messages.items()):
            if cycle >= start:
                yield cycle, memoryview(payload)


class PictureFeed:
    """The pictures of one stream, in order.

    note: called with a sentence on what is wrong with them, once for each kind.
    """

    def __init__(self, note: Callable[[str], None] = lambda _: None) -> None:
        self._note = note
        self._noted: set[str] = set()
        self._section: _Section | None = None
        self._sections = 0
        self._waiting: list[StoredPicture] = []
        """Those with packets of the section that came after the picture published last."""
        self._before: list[UnseenPacket] = []
        """Packets of earlier sections of which no picture was published."""

    def add(self, cycle: int, payload: bytes) -> StoredPicture | None:
        """Take the next message, of the sender's cycle `cycle`; None where its packets do not begin with
        a key frame that has come, so that nothing of it can be shown. `ValueError` for other bytes."""
        stored = StoredPicture.parse(memoryview(payload))
        if not stored.holds_packets:
            return stored
        own, section = stored.own, self._section
        if own["key"] == cycle:
            described = stored.decoder
            if described is None:
                raise ValueError("a section without its decoder")
            self._pass()
            self._sections += 1
            section = self._section = _Section(cycle, described, self._sections)
        elif section is None or section.key != own["key"]:
            self._section = None
            self._tell("begins", "pictures before the first key frame that has come are left out")
            return None
        self._before += stored.before
        section.add(cycle, payload)
        self._waiting.append(stored)
        return stored

    def show(self, image: ImageRgb8Msg, cycle: int, stored: StoredPicture) -> None:
        """Set `image` to the picture of the message that was added last, in the sender's cycle `cycle`.
        `ValueError` where it cannot be decoded."""
        kept = self._kept(cycle, stored)
        fields = stored.fields(kept)
        del fields["pixels"]
        for name, value in fields.items():
            setattr(image, name, value)
        if isinstance(kept, PlanarPicture):
            image.show(kept)
        else:
            image.hand_over("pixels", kept)
        image.video = self._video(stored) if stored.holds_packets else None

    def forget(self) -> None:
        """The sender has begun another run, or cycles of it are missing."""
        self._pass()
        self._section = None

    def _pass(self) -> None:
        """The section is over: what no picture was published of comes before the next one."""
        for stored in self._waiting:
            packets = stored.packets
            times = {stored.own["number"]: stored.own.get("time_ns")}
            self._before += [
                UnseenPacket(bytes(it.data), it.is_key, times.get(it.number)) for it in packets
            ]
        self._waiting = []

    def _video(self, stored: StoredPicture) -> VideoPackets:
        section = self._section
        assert section is not None
        waiting, self._waiting = self._waiting, []
        before, self._before = self._before, []
        begins, section.is_begun = not section.is_begun, True
        own = stored.own
        return VideoPackets(
            section.described,
            tuple((bytes(it.data), it.is_key) for picture in waiting for it in picture.packets),
            first=waiting[0].own["first"],
            number=own["number"],
            section=section.number,
            begins=begins,
            drained=own["drained"],
            conversion=own.get("convert", 0),
            before=tuple(it._replace(data=bytes(it.data)) for it in before),
            time_ns=own.get("time_ns"),
            is_sure=own["codec"] == "packets",
            is_damaged=stored.is_damaged,
        )

    def _kept(self, cycle: int, stored: StoredPicture) -> Kept:
        if stored.own["codec"] != "packets":
            return stored.unpacked()
        assert self._section is not None
        decoder = self._section.decoder
        if stored.layout is None:
            return decoder.picture(cycle, stored)
        return AskedPicture(stored.layout, partial(self._found, decoder, cycle, stored))

    def _found(self, decoder: PictureDecoder, cycle: int, stored: StoredPicture) -> Found:
        """The picture, when it is first read; on any thread."""
        found = decoder.found(cycle, stored)
        crc = stored.own.get("crc")
        if crc is not None and crc32(found.data) != crc:
            self._tell(
                "differs",
                "this machine decodes a picture otherwise than the sender did; the log keeps what is "
                "decoded here",
            )
            return Found(found.data, is_sure=False)
        return found

    def _tell(self, kind: str, text: str) -> None:
        if kind not in self._noted:
            self._noted.add(kind)
            self._note(text)
