"""Sections: packets that one decoder gets from a key frame on, which the log decodes in the same way.

A section begins with a key frame and a decoder that knows nothing before it. What comes of packets that
are damaged, or that others are missing before, is the same each time where the decoder `repeats`: the
log gets these packets too. Of other decoders the section is no longer sure then. Where groups are open,
the next one is a `Successor`: it is decoded besides the one before until its first picture shows that it
is a section of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from flowrun.msgs.image import VideoDecoder
from flowrun.runtime.pictures.planar import Kept, PlanarPicture, is_same
from flowrun.runtime.pictures.video import LetGo, PacketDecoder, Take
from flowrun.tasks.video.ahead import AheadDecoder
from flowrun.tasks.video.by_device import DeviceDecoder
from flowrun.tasks.video.packets import Origin

__all__ = ["MOST_HELD", "MOST_LATE", "Emit", "Held", "Picture", "Section", "Successor", "is_kept"]

MOST_HELD = 64
"""Packets after which a decoder must have given a picture, if it does at all."""
MOST_LATE = 4
"""Pictures that a section holds before the one before it must have given its own."""


class Picture(NamedTuple):
    """A decoded picture, valid during the call that it is given to.

    decoded: the `av.VideoFrame`, None where `kept` is given instead.
    pts: of its packet, in the container's units; None where it has none.
    origin: the packets of which it is decoded; None where the log must have its pixels.
    passed: how many pictures before it were not decoded.
    lasts: whether `decoded` is valid after that too.
    """

    decoded: Any
    kept: Kept | None
    pts: int | None
    origin: Origin | None
    passed: int = 0
    lasts: bool = False


Emit = Callable[[Picture], LetGo | None]
"""Returns what `Take` does."""


class Held(NamedTuple):
    """A picture that waits until it is known which section gives it."""

    number: int
    kept: Kept
    origin: Origin | None


def is_kept(decoded: Any) -> TypeGuard[Kept]:
    """Whether what a decoder gives is a picture that may be kept as it is, and no `av.VideoFrame`."""
    return isinstance(decoded, PlanarPicture | np.ndarray)


class Section:
    """Packets that one decoder gets.

    first: the number of its first packet.
    number: among the sections that the log may get; None of one that it does not.
    repeats: whether its decoder makes the same of damaged packets each time.
    is_sure: whether decoding its packets again gives the same pictures.
    is_whole: whether no packet is known to be missing or damaged.
    """

    def __init__(
        self,
        decoder: PacketDecoder | AheadDecoder | DeviceDecoder,
        first: int,
        number: int | None = None,
        *,
        repeats: bool = False,
    ) -> None:
        self.decoder = decoder
        self.first = first
        self.number = number
        self.is_sure = self.is_whole = number is not None
        self._repeats = repeats
        self.has_begun = False
        """Whether the picture of its first packet has come out."""
        self.skipped: Collection[int] = ()
        """Numbers of its pictures that the section before has given."""
        self._given: deque[int] = deque(maxlen=MOST_HELD)

    def doubt(self) -> None:
        """A packet is missing, or damaged."""
        self._note_damaged()
        if isinstance(self.decoder, AheadDecoder):
            self.decoder.start_over()
        elif isinstance(self.decoder, DeviceDecoder):
            self.decoder.doubt()

    def decode(self, number: int, data: Any, take: Take, *, is_key: bool) -> bool:
        """Decode a packet; False if the decoder refuses it."""
        took = self.decoder.decode(number, data, take, is_key=is_key)
        if not took:
            self._note_damaged()
        if not self.has_begun and number - self.first > MOST_HELD:
            self.is_sure = self.is_whole = False
        return took

    def _note_damaged(self) -> None:
        self.is_whole = False
        self.is_sure &= self._repeats

    def origin_of(self, number: int | None, decoded: Any, fed: int, drained: bool) -> Origin | None:  # noqa: FBT001
        """Where a picture comes from that has just come out; None if that is not sure."""
        is_corrupt = not is_kept(decoded) and bool(decoded.is_corrupt)
        if is_corrupt and self.has_begun:
            self._note_damaged()
        if isinstance(self.decoder, DeviceDecoder) and self.decoder.is_doubtful:
            self._note_damaged()
        self.has_begun |= number == self.first
        if number is None or number < self.first or number in self._given:
            return None
        self._given.append(number)
        if not self.is_sure or not self.has_begun or (is_corrupt and not self._repeats):
            return None
        assert self.number is not None
        is_damaged = is_corrupt or not self.is_whole
        return Origin(self.number, number, fed, drained, is_damaged)


class Successor:
    """A section that may take over from the one before: only its first picture shows that it can. The
    one before goes on until then.

    described: what decodes it.
    must_agree: whether the section before is whole; the first picture is then the same.
    """

    def __init__(self, section: Section, described: VideoDecoder, *, must_agree: bool) -> None:
        self.section = section
        self.described = described
        self.packets: list[tuple[int, bytes, bool]] = []
        """Number, bytes, whether it is a key frame; for the log."""
        self.held: list[Held] = []
        """Its pictures."""
        self.late: list[Held] = []
        """Those of the section before, from the successor's first one on."""
        self.given: set[int] = set()
        """Numbers of those that were given: the successor begins too late to wait for it."""
        self._must_agree = must_agree
        self._expected: Kept | None = None
        """Its first picture, as the section before decoded it."""

    def waits_for(self, number: int) -> bool:
        """Whether a picture of the section before waits, as this one may give it instead."""
        if self.given:
            self.given.add(number)
            return False
        return bool(self.late) or number == self.section.first

    def wait(self, picture: Held) -> None:
        self._expected = picture.kept if not self.late else self._expected
        self.late.append(picture)

    @property
    def fails(self) -> bool:
        """Whether it is no section of its own, as where what was called a key frame is none."""
        section = self.section
        if not section.is_whole and not section.has_begun:
            return True
        if not self._must_agree or not self.held or self._expected is None:
            return False
        return not section.is_whole or not is_same(self.held[0].kept, self._expected)

    @property
    def takes_over(self) -> bool:
        """Whether it does now, if it does not fail."""
        return bool(self.held) and (self._expected is not None or len(self.held) > MOST_LATE)
