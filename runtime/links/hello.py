"""What two processes tell each other before anything is taken: whether their streams fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgpack
from zlib_ng.zlib_ng import crc32

from flowrun.msgs.message import Message
from flowrun.runtime.graph.boundary import Stream

__all__ = ["WIRE", "Hello", "misfit"]

_CRC_SIZE = 4
WIRE = 1
"""The version of what `wire` describes."""


class Hello(NamedTuple):
    """What a sender says.

    wire: its `WIRE`. streams: for each, its topic, its message, and a checksum of that one's schema.
    now_ns: its clock.
    """

    wire: int
    streams: list[list[Any]]
    now_ns: int

    @classmethod
    def of(cls, streams: Sequence[Stream], now_ns: int) -> Hello:
        return cls(WIRE, [_described(it) for it in streams], now_ns)

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb(list(self))
        return packed + crc32(packed).to_bytes(_CRC_SIZE, "little")

    @classmethod
    def unpack(cls, data: bytes) -> Hello | None:
        """None for other bytes, and where one of them was changed on the way: it would be another
        graph's."""
        packed, crc = data[:-_CRC_SIZE], data[-_CRC_SIZE:]
        if crc32(packed).to_bytes(_CRC_SIZE, "little") != crc:
            return None
        try:
            wire, streams, now_ns = msgpack.unpackb(packed)
            said = cls(int(wire), [list(it) for it in streams], int(now_ns))
        except (ValueError, TypeError, msgpack.UnpackException):
            return None
        return said if 0 <= said.now_ns < 2**63 else None  # the log holds what it is ahead


def misfit(said: Hello, sender: str, streams: Sequence[Stream]) -> str | None:
    """Why what `sender` sends is not what this process expects, with the line of the graph file; None if
    it is."""
    if said.wire != WIRE:
        return (
            f"{sender} speaks version {said.wire} of the links, this process version {WIRE}: run the "
            "same version of flowrun on both"
        )
    theirs: Mapping[str, list[Any]] = {it[0]: it for it in said.streams if it}
    for stream in streams:
        own = _described(stream)
        other = theirs.get(own[0])
        if other is None:
            return f"{stream.where}: {sender} does not send {own[0]}: it runs another graph"
        if other[1:2] != own[1:2]:
            return (
                f"{stream.where}: {sender} sends {other[1]} on {own[0]}; expected {own[1]}: it runs "
                "another graph"
            )
        if other != own:
            return (
                f"{stream.where}: {own[1]} of {sender} has other fields than here: run the same code on "
                "both"
            )
    if [it[0] for it in said.streams] != [it.topic for it in streams]:
        return f"{sender} sends its streams in another order: it runs another graph"
    return None


def _described(stream: Stream) -> list[Any]:
    kind: type[Message] = stream.message_type
    return [stream.topic, kind.__name__, crc32(kind.schema())]
