"""A camera's packets as the log holds them, for those who decode them themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flowrun.msgs.image import VideoPackets
from flowrun.runtime.errors import LogNotFound
from flowrun.runtime.live_video import Shown
from flowrun.runtime.log.message import LogMessage
from flowrun.runtime.log.reader import Log
from flowrun.runtime.pictures.stored import StoredPicture
from flowrun.runtime.recorded.frames import message_of

__all__ = ["packets_of", "shown_from"]


def packets_of(stored: StoredPicture) -> dict[str, int] | None:
    """What a decoder needs for a picture: `key`, the cycle with whose packets it begins, and `number`,
    that of the packet that gives it. None where packets do not give it to any decoder, or not all of
    them are in the log."""
    own = stored.own
    return {"key": own["key"], "number": own["number"]} if stored.is_of_packets else None


def shown_from(log: Log, topic: str, first: int) -> Iterator[Shown]:
    """The pictures of a topic from cycle `first` on, to the end of the section that `first` is in, as
    their packets; to the first packets that are damaged, or that the log has lost, if there are any.

    `LogNotFound` where the section's beginning is not in the log, `LogError` where the log is damaged.
    """
    decoder = section = None
    following: int | None = None
    for message in log.messages(topic, first):
        stored = _parsed(message)
        own = stored.own
        if not stored.holds_packets or stored.is_damaged:
            return
        if section is None:
            section = own["section"]
            begin = message_of(log, topic, own["key"])
            decoder = _parsed(begin).decoder
            if decoder is None:
                raise LogNotFound(f"{log.path}: no section of {topic} begins in cycle {own['key']}")
        if own["section"] != section or following not in (None, own["first"]):
            return
        following = own["first"] + len(stored.packets)
        assert decoder is not None
        video = VideoPackets(
            decoder,
            tuple((bytes(packet.data), packet.is_key) for packet in stored.packets),
            first=own["first"],
            number=own["number"],
            section=section,
            begins=own["key"] == message.cycle,
            drained=own["drained"],
        )
        yield Shown(message.cycle, message.tov_ns, video, own["fps"], _aspect(own))


def _aspect(own: dict[str, Any]) -> float:
    return float(own.get("pixel_aspect", 1.0))


def _parsed(message: LogMessage) -> StoredPicture:
    try:
        return StoredPicture.parse(message.payload)
    except ValueError as error:
        raise LogNotFound(f"cycle {message.cycle}: {error}") from None
