"""The streams of a boundary of the graph, as the wire has them."""

from __future__ import annotations

from collections.abc import Sequence

from flowrun.runtime.graph.boundary import Boundary
from flowrun.runtime.links.wire import Stream

__all__ = ["streams_of"]


def streams_of(boundary: Boundary) -> Sequence[Stream]:
    """What goes over a boundary, in the order in which both sides number it."""
    return [
        Stream(
            it.topic,
            it.name,
            is_picture=it.codec != "raw",
            deliver=it.link.deliver,
            carry=it.link.carry or "log",
            max_age_ms=it.link.max_age_ms,
        )
        for it in boundary.streams
    ]
