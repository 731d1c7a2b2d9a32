"""What goes over the wire: one message for each cycle and receiver, and what a sender's log answers.

The attachment of each is a `Head`, sealed by a CRC-32 of itself and the payload, so that a flipped byte
is found whatever carries it. Numbers are little-endian.

| bytes | name    | type | meaning |
|-------|---------|------|-------------------------------------------------------------------------------|
| 8     | run     | u64  | the sender's run: when it began, nanoseconds since 1970 UTC |
| 2     | part    | u16  | number of the sender's partition in the graph file |
| 2     | inst    | u16  | number of the sender among the partition's instances or replicas |
| 2     | kind    | u16  | `CYCLE`, `CONTEXT`, `STATUS` or `RIVAL` |
| 8     | first   | u64  | the first cycle that this stands for: those from it to `cycle` had nothing |
|       |         |      | for this receiver. *Why:* who lacks none before `first` lacks nothing |
| 8     | cycle   | u64  | number of the cycle in the sender's run |
| 8     | time_ns | u64  | the cycle's time |
| 4     | crc     | u32  | zlib CRC-32 of the 38 bytes above, continued over the payload |

The payload of `CYCLE` and `CONTEXT` is, for each message, u16 number of its stream, u64 tov_ns, u32 size
and the bytes that the sender's log has. A receiver that begins in the middle of a video gets the
messages since its key frame as `CONTEXT` first, which it decodes and does not show. That of `STATUS`,
which ends an answer, is a msgpack list; see `Status`. `RIVAL` tells a receiver that two processes run as
it: `first` is the run of the one that was heard of first, `cycle` that of the other.

What a receiver has, it says as a `Question`, with its own run, u64, as the attachment.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import NamedTuple

import msgpack
from zlib_ng.zlib_ng import crc32

__all__ = [
    "CONTEXT",
    "CYCLE",
    "RIVAL",
    "STATUS",
    "Carried",
    "Head",
    "Keys",
    "Peer",
    "Question",
    "Status",
    "Stream",
    "WireError",
    "graph_key",
    "opened",
    "pack_run",
    "packed",
    "sealed",
    "unpack_run",
    "unpacked",
]

CYCLE, CONTEXT, STATUS, RIVAL = range(4)

_HEAD = struct.Struct("<QHHHQQQ")
_CRC = struct.Struct("<I")
_ENTRY = struct.Struct("<HQI")
_QUESTION = struct.Struct("<QQI?")
_RUN = struct.Struct("<Q")


class WireError(Exception):
    """Bytes that no sender made: something on the way has changed them."""


class Peer(NamedTuple):
    """One process of a partition.

    partition: its id in the graph file. instance: its name among the partition's instances or replicas.
    part, inst: their numbers, from 0.
    """

    partition: str
    instance: str
    part: int
    inst: int

    def __str__(self) -> str:
        return f"{self.partition}/{self.instance}"


@dataclass(frozen=True, slots=True)
class Stream:
    """What one output of the sender is at the receiver.

    topic: in the sender's log.
    port: of the receiver's source task.
    is_picture: whether its messages are pictures that the sender's log stores by a codec: packets, or
        pixels made smaller. Others, also pictures, are messages as any.
    deliver: "every": each message has its cycle; "latest": the newest one that has come;
        "lockstep": as "every", and the sender waits for the receiver.
    carry: "packets" and "log": what the log has; "keyframes": of pictures only those that need no other.
    max_age_ms: messages that are older at the receiver are left out; None: none are.
    """

    topic: str
    port: str
    is_picture: bool = False
    deliver: str = "every"
    carry: str = "log"
    max_age_ms: int | None = None


class Head(NamedTuple):
    """See the module."""

    run: int
    part: int
    inst: int
    kind: int
    first: int
    cycle: int
    time_ns: int


class Carried(NamedTuple):
    """A message of a cycle. stream: its number among the streams of sender and receiver."""

    stream: int
    tov_ns: int
    data: bytes | memoryview


class Question(NamedTuple):
    """What a receiver asks a sender's log for.

    run, cycle: the first cycle that it lacks; run 0: whatever the oldest log begins with.
    most_bytes: of messages in the answer, which has one in any case. Of what a receiver has: 1 where it
        takes nothing more, as it has ended and no other run of it follows; else 0.
    context: whether to begin with `CONTEXT`. Of what a receiver has: whether it knows that the sender
        has ended.
    """

    run: int
    cycle: int
    most_bytes: int
    context: bool

    def pack(self) -> bytes:
        packed = _QUESTION.pack(*self)
        return packed + _CRC.pack(crc32(packed))

    @classmethod
    def unpack(cls, data: bytes) -> Question:
        """`WireError` for other bytes, and where one of them was changed on the way."""
        size = _QUESTION.size + _CRC.size
        if len(data) != size:
            raise WireError(f"a question of {len(data)} bytes; expected {size}")
        if _CRC.pack(crc32(data[: _QUESTION.size])) != data[_QUESTION.size :]:
            raise WireError("a question that was changed on the way")
        return cls(*_QUESTION.unpack_from(data))


@dataclass(frozen=True, slots=True)
class Status:
    """How an answer ends.

    run: the run that was asked for.
    begins: the first of its cycles, from the one asked for on, that the log still has, if it has any.
    upto: all cycles before it are in the answer, or have nothing for the receiver.
    count: number of messages in the answer.
    more: whether there is more to ask for.
    is_over: whether the run has no cycle from `upto` on and never will.
    follows: the run after it, 0 if there is none. follows_at: its first cycle.
    ended: whether no run follows, as the sender has ended in order.
    reason: why cycles before `begins`, or all, are no longer there; "" if none is missing.
    """

    run: int
    begins: int
    upto: int
    count: int
    more: bool
    is_over: bool
    follows: int
    follows_at: int
    ended: bool
    reason: str

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb(astuple(self))
        return packed

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> Status:
        """`WireError` for other bytes."""
        try:
            values = msgpack.unpackb(data)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise WireError(f"no status: {error}") from error
        kinds = [int, int, int, int, bool, bool, int, int, bool, str]
        if not isinstance(values, list) or [type(it) for it in values] != kinds:
            raise WireError("no status: other values than its fields")
        return cls(*values)


_KEY_CHARACTERS = re.compile(r"[^A-Za-z0-9_.-]")


def graph_key(name: str) -> str:
    """The name of a graph as a part of keys."""
    return _KEY_CHARACTERS.sub("_", name)


class Keys(NamedTuple):
    """The keys of one process of a graph's partition.

    cycles: put by it for a receiver. log, hello: answered by it. ack: put by it as a receiver, for a
    sender. alive: its liveliness token. news: put by it, of how all processes are doing.
    """

    base: str

    @classmethod
    def of(cls, graph: str, peer: Peer) -> Keys:
        return cls(f"flow/{graph}/{peer.partition}/{peer.instance}")

    def cycles(self, receiver: Peer) -> str:
        return f"{self.base}/cyc/{receiver.partition}/{receiver.instance}"

    def log(self, receiver: Peer) -> str:
        return f"{self.base}/log/{receiver.partition}/{receiver.instance}"

    def ack(self, sender: Peer) -> str:
        return f"{self.base}/ack/{sender.partition}/{sender.instance}"

    def hello(self, receiver: Peer) -> str:
        return f"{self.base}/hello/{receiver.partition}/{receiver.instance}"

    @property
    def alive(self) -> str:
        return f"{self.base}/alive"

    @property
    def news(self) -> str:
        return f"{self.base}/news"


def pack_run(run: int) -> bytes:
    """The attachment of what a receiver says it has."""
    packed = _RUN.pack(run)
    return packed + _CRC.pack(crc32(packed))


def unpack_run(attachment: bytes) -> int:
    """The receiver's run. `WireError` for other bytes."""
    front = attachment[: _RUN.size]
    if len(front) != _RUN.size or attachment[_RUN.size :] != _CRC.pack(crc32(front)):
        raise WireError("a receiver's run that was changed on the way")
    run: int = _RUN.unpack(front)[0]
    return run


def packed(messages: Iterable[Carried]) -> bytes:
    """The payload of a cycle's messages."""
    parts: list[bytes | memoryview] = []
    add, pack = parts.append, _ENTRY.pack
    for stream, tov_ns, data in messages:
        add(pack(stream, tov_ns, len(data)))
        add(data)
    return b"".join(parts)


def unpacked(payload: bytes, streams: Sequence[Stream]) -> list[Carried]:
    """The messages of a payload, views of it. `WireError` for bytes that are not those of `packed`."""
    found: list[Carried] = []
    at, view = 0, memoryview(payload)
    end, count, head_size = len(view), len(streams), _ENTRY.size
    unpack, add, new = _ENTRY.unpack_from, found.append, tuple.__new__
    while at < end:
        if at + head_size > end:
            raise WireError(f"a message's head at byte {at} of {end} is cut off")
        stream, tov_ns, size = unpack(view, at)
        at += head_size
        after = at + size
        if stream >= count:
            raise WireError(f"a message of stream {stream}; there are {count}")
        if after > end:
            raise WireError(f"a message of {size} bytes at byte {at} of {end}")
        add(new(Carried, (stream, tov_ns, view[at:after])))
        at = after
    return found


def sealed(head: Head, payload: bytes) -> bytes:
    """The attachment of a message."""
    front = _HEAD.pack(*head)
    return front + _CRC.pack(crc32(payload, crc32(front)))


def opened(attachment: bytes, payload: bytes) -> Head:
    """The head of a message; `WireError` where a byte of it, or of the payload, is not what was sent."""
    if len(attachment) != _HEAD.size + _CRC.size:
        raise WireError(
            f"an attachment of {len(attachment)} bytes; expected {_HEAD.size + _CRC.size}"
        )
    front = attachment[: _HEAD.size]
    (expected,) = _CRC.unpack_from(attachment, _HEAD.size)
    head = Head(*_HEAD.unpack(front))
    found = crc32(payload, crc32(front))
    if found != expected:
        raise WireError(
            f"run {head.run}, cycle {head.cycle}: CRC-32 {found:08x} of {len(payload)} bytes; the "
            f"sender had {expected:08x}"
        )
    return head
