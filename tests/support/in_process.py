"""The work of worker processes, done in the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flowrun.runtime.testbench.spread import Broken, Done, Part


def spread_here(done: list[int]) -> Callable[..., Iterator[Part | Done | Broken]]:
    """What stands for `spread`. done: gets the number of parts that each piece has sent."""

    def spread(
        pieces: Sequence[Any], make: Callable[[], Any], *, processes: int
    ) -> Iterator[Part | Done | Broken]:
        assert processes > 0
        work = make()
        for index, piece in enumerate(pieces):
            parts: list[Any] = []
            work(piece, parts.append)
            yield from (Part(index, part) for part in parts)
            done.append(len(parts))
            yield Done(index, None)

    return spread
