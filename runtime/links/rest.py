"""When a ring of partitions has ended: nothing is left to do in any, or under way between them.

A process of a ring cannot wait for its senders to end, as they wait for it. So each tells the others,
when all else has ended for it, how many cycles it had sent to each and taken of each at one moment
between two cycles. Nothing more comes from anywhere where, for each link of the ring, both ends say the
same; the moments need not be the same. *Why:* after its moment, a process can only do something when it
takes something. Of all that is taken so, look at the first: it was sent after the moment of its sender,
which had then taken something itself before that; or before that moment, and then both ends differ.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

__all__ = ["Rest", "have_ended"]


class Rest(NamedTuple):
    """A moment of one process, in which only the ring could bring it something to do.

    run: how the wire names its run.
    sent: by receiver, "gpu/0", the cycle after the last that had something for it; 0 for none.
    took: by sender, its run, and the cycle after the last of it that is in the log; 0 for none.
    """

    run: int
    sent: Mapping[str, int]
    took: Mapping[str, tuple[int, int]]

    @classmethod
    def from_data(cls, data: Any) -> Rest | None:
        """None for what `Rest` has not packed, such as that of another version."""
        try:
            run, sent, took = data
            return cls(
                int(run),
                {str(part): int(cycle) for part, cycle in sent.items()},
                {str(part): (int(of), int(cycle)) for part, (of, cycle) in took.items()},
            )
        except (TypeError, ValueError, AttributeError):
            return None


def have_ended(ring: Collection[str], rests: Mapping[str, Rest]) -> bool:
    """Whether nothing more comes to any process of a ring."""
    return all(part in rests for part in ring) and all(
        sender in rests and (rests[sender].run, rests[sender].sent.get(part, 0)) == took
        for part in ring
        for sender, took in rests[part].took.items()
    )
