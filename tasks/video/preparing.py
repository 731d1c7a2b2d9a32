"""Packets that wait while several cores decode them ahead, each for the sections that will get it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flowrun.msgs.image import VideoDecoder
from flowrun.tasks.video.ahead import AheadDecoder, Cores
from flowrun.tasks.video.incoming import Waiting
from flowrun.tasks.video.spare import Spare

__all__ = ["Preparing"]


class Preparing:
    """The sections of one source that are decoded ahead.

    cores: the source's share; None where it has one core.
    strict, in_parts: see `AheadDecoder`.
    lookahead: how many packets wait, at the most.
    """

    def __init__(self, cores: Cores | None, *, strict: bool, in_parts: bool) -> None:
        self._cores = cores
        self._strict, self._in_parts = strict, in_parts
        self.lookahead = 0 if cores is None else cores.threads()
        self._spare = Spare()
        self._open: list[AheadDecoder] = []
        """Those that get the packets that come."""

    def decoder(self, described: VideoDecoder) -> AheadDecoder | None:
        """What decodes a section on several cores, where there are any."""
        threads = 1 if self._cores is None else self._cores.threads()
        if threads == 1:
            return None
        self.lookahead = max(self.lookahead, threads)
        return AheadDecoder(
            described, threads, strict=self._strict, in_parts=self._in_parts, spare=self._spare
        )

    def prepare(self, waiting: Waiting) -> None:
        """Have the packet decoded ahead by those that will get it."""
        if waiting.begins:
            for decoder in self._open:
                decoder.end()
            self._open = [] if waiting.ahead is None else [waiting.ahead]
        elif not waiting.follows:
            self._open.clear()
        for decoder in self._open:
            _prepare(decoder, waiting)

    def begun(
        self,
        now: Waiting,
        later: Iterable[Waiting],
        described: VideoDecoder,
    ) -> AheadDecoder | None:
        """What decodes a section that begins with the packet `now`; it has got those that wait."""
        if now.ahead is not None:
            if now.ahead.known == described:
                return now.ahead
            self.leave(now.ahead)
        made = self.decoder(described)
        if made is None:
            return None
        _prepare(made, now)
        for waiting in later:
            if waiting.begins:
                made.end()
                return made
            if not waiting.follows:
                return made
            _prepare(made, waiting)
        self._open.append(made)
        return made

    def leave(self, decoder: Any) -> None:
        """Nothing more is decoded by this one."""
        if isinstance(decoder, AheadDecoder):
            self._open = [it for it in self._open if it is not decoder]
            if self._cores is not None:
                self._cores.report(is_damaged=decoder.is_damaged)

    def restart(self) -> None:
        """No packet that comes follows those before."""
        self._open.clear()

    def close(self) -> None:
        """The source has ended."""
        self._open.clear()
        if self._cores is not None:
            self._cores.leave()


def _prepare(decoder: AheadDecoder, it: Waiting) -> None:
    decoder.prepare(it.number, it.data, is_key=it.is_key, said=it.said)
