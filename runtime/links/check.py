"""What one log has sent, compared with what another one got."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flowrun.msgs.difference import differing_field
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.graph.boundary import Boundary
from flowrun.runtime.graph.spec import PartitionSpec
from flowrun.runtime.links.sent import picker_of, sent_crc
from flowrun.runtime.links.spread import Spread, chosen, spread_key
from flowrun.runtime.links.wire import Stream
from flowrun.runtime.log.message import LoggedCycle, LogMessage
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.cycles import Entry
from flowrun.runtime.log.slab.format import CODEC
from flowrun.runtime.pictures.planar import PlanarPicture
from flowrun.runtime.pictures.stored import StoredPicture

__all__ = ["received", "recorded_spread"]

_OF_PICTURE = ("frame_id", "pts", "fps", "pixel_aspect", "size", "planes", "number", "crc")
"""Keys of a stored picture that both sides have alike, where both have them."""


def recorded_spread(
    sender: Log, boundary: Boundary, streams: Sequence[Stream], receiver: PartitionSpec
) -> Spread | None:
    """To which replicas of `receiver` the cycles of the log `sender` went; None where each process got
    all.

    boundary, streams: of one of the replicas.
    """
    if receiver.instances or receiver.replicas == 1:
        return None
    key = spread_key(boundary.peer, receiver.id, boundary.streams[0].link.spread)
    coded = picker_of(sender, streams).coded
    spread = Spread(receiver.id, chosen(key, receiver.processes), streams, coded)
    for cycle in sender.cycles():
        spread.look(cycle)
    return spread


def received(
    sender: Log,
    receiver: Log,
    origin: LogMessage,
    streams: Sequence[Stream],
    *,
    is_for: Callable[[int], bool] = lambda _cycle: True,
) -> str | None:
    """The first difference between what the sender's log has and what the receiver's log has of the
    sender's cycles that came in one cycle; None where there is none. Pictures are compared by what
    describes them and by their packets: neither side decodes any.

    origin: the receiver's `OriginMsg` of that cycle; the run that it names is `sender`'s.
    streams: in the order of both sides.
    is_for: see `sent_crc`.

    `LogError` where one of the logs lacks the cycles.
    """
    fields = origin.fields
    crc = sent_crc(sender, fields["first"], fields["cycle"], streams, is_for=is_for)
    where = f"cycle {origin.cycle}: "
    if fields["first"] <= fields["cycle"] and crc != fields["crc"]:
        return (
            f"{where}{origin.topic}: crc {fields['crc']:08x}; what the sender's log has of cycles "
            f"{fields['first']} to {fields['cycle']} gives {crc:08x}"
        )
    source = origin.topic.rpartition("/")[0]
    here = receiver[origin.cycle]
    for stream, cycle in zip(streams, fields["taken"], strict=True):
        topic = f"{source}/{stream.port}"
        got = _entry(here, topic)
        if cycle < 0:
            if got is not None:
                return f"{where}{topic}: a message; {stream.topic} sent none for this cycle"
            continue
        sent = _entry(sender[cycle], stream.topic)
        if sent is None or got is None:
            missing = stream.topic if sent is None else topic
            return f"{where}{topic}: of the sender's cycle {cycle}, which {missing} does not hold"
        different = _difference(sender, sent, receiver, got)
        if different is not None:
            return f"{where}{topic}, of cycle {cycle} of {stream.topic}: {different}"
    return None


def _entry(cycle: LoggedCycle, topic: str) -> Entry | None:
    return next((it for it in cycle.entries if it[0] == topic), None)


def _difference(sender: Log, sent: Entry, receiver: Log, got: Entry) -> str | None:
    """What differs between two entries of cycles."""
    if sent[1] != got[1]:
        return f"tov_ns {got[1]}; sent {sent[1]}"
    if CODEC in receiver.topics[got[0]].metadata:
        picture = StoredPicture.parse(got[2])
        if CODEC not in sender.topics[sent[0]].metadata:
            return _pixels_difference(ImageRgb8Msg().decode_fields(sent[2]), picture)
        return _picture_difference(StoredPicture.parse(sent[2]), picture)
    if bytes(sent[2]) == bytes(got[2]):
        return None
    at = next(
        (at for at, (one, other) in enumerate(zip(sent[2], got[2], strict=False)) if one != other),
        min(len(sent[2]), len(got[2])),
    )
    return f"{len(got[2])} bytes, of which byte {at} is another one; sent {len(sent[2])}"


def _pixels_difference(sent: dict[str, Any], got: StoredPicture) -> str | None:
    """What differs where the two logs keep the same picture in their own ways."""
    try:
        found = differing_field(sent, _fields(got))
    except ValueError as error:
        return str(error)
    return None if found is None else f"{found.name} {found.now}; sent {found.before}"


def _fields(picture: StoredPicture) -> dict[str, Any]:
    kept = picture.unpacked()
    return picture.fields(kept.made() if isinstance(kept, PlanarPicture) else kept)


def _picture_difference(sent: StoredPicture, got: StoredPicture) -> str | None:
    if sent.source != got.source:
        return f"source {got.source!r}; sent {sent.source!r}"
    for key in _OF_PICTURE:
        one, other = sent.own.get(key), got.own.get(key)
        if key in sent.own and key in got.own and one != other:
            return f"{key} {other!r}; sent {one!r}"
    if not sent.holds_packets:
        if (sent.own["codec"], sent.data) == (got.own["codec"], got.data):
            return None
        return _pixels_difference(_fields(sent), got)
    there: dict[int, Any] = {it.number: it for it in got.packets} if got.holds_packets else {}
    for packet in sent.packets:
        found = there.get(packet.number)
        if found is None:
            return f"packet {packet.number} is missing"
        if (found.is_key, found.data) != (packet.is_key, packet.data):
            return f"packet {packet.number} is another one"
    return None
