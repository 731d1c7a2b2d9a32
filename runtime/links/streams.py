"""The streams of a boundary as the wire has them."""

from __future__ import annotations

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.graph.boundary import Boundary
from flowrun.runtime.links.wire import Stream

__all__ = ["wire_streams"]


def wire_streams(boundary: Boundary) -> list[Stream]:
    """In the order of both ends."""
    return [
        Stream(
            it.topic,
            it.name,
            is_picture=issubclass(it.message_type, ImageRgb8Msg),
            deliver=it.link.deliver,
            carry=it.link.carry or "log",
            max_age_ms=it.link.max_age_ms,
        )
        for it in boundary.streams
    ]
