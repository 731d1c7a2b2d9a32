"""The decoder of a section that has ended, for the next one where that cannot make a difference.

A new one starts threads, and fills the memory of its pictures with zeros, which the system has to find
first: of sections with 60 pictures of 1080p that was a tenth of the CPU time.
"""

from __future__ import annotations

from typing import NamedTuple

from flowrun.msgs.image import VideoDecoder
from flowrun.runtime.pictures.video import PacketDecoder

__all__ = ["Spare"]


class _Spared(NamedTuple):
    """As `Spare.put_back` got it."""

    decoder: PacketDecoder
    known: VideoDecoder
    threads: int
    said: bytes


class Spare:
    """At most one decoder of a source, which decodes several pictures at once."""

    def __init__(self) -> None:
        self._spared: _Spared | None = None

    def put_back(
        self, decoder: PacketDecoder, known: VideoDecoder, threads: int, *, said: bytes
    ) -> None:
        """Keep the decoder of a section in which nothing was damaged.

        known: what it was told, with what it has found out.
        said: what the section's first packet has said to last, and no other one (`said_to_last`): it may
            know that still.
        """
        self._spared = _Spared(decoder, known, threads, said)

    def take(
        self, known: VideoDecoder, threads: int, *, said: bytes | None
    ) -> PacketDecoder | None:
        """What decodes a section as a new decoder does; None where there is no such. It is kept no
        longer in either case.

        said: what the section's first packet says to last; None where that is not known.
        """
        spared, self._spared = self._spared, None
        if spared is None or spared[1:] != (known, threads, said):
            return None
        spared.decoder.begin_again()
        return spared.decoder
