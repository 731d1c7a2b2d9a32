"""The messages of one cycle record, bound once to be encoded cycle after cycle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgpack

from flowrun.msgs.envelope import Envelope
from flowrun.msgs.fields import Buffer
from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.records import gap_before, pack_pad

__all__ = ["BoundMessages", "BoundOutput", "Encoded", "Remembered", "message_fronts"]

Encoded = tuple[bytes | list[Buffer], int]
"""The records of a cycle, whole or in parts, and how many of them are messages of outputs."""

_T = TypeVar("_T")

_LONGEST = 1024
"""Sizes beyond are those of pictures, each another."""

_pack = msgpack.Packer(use_bin_type=True).pack
_pack_stamp = fmt.MESSAGE_STAMP.pack


class Remembered(dict[int, _T]):
    """What `make` gives for a size; made once for small ones, which repeat from cycle to cycle."""

    def __init__(self, make: Callable[[int], _T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, size: int) -> _T:
        made = self._make(size)
        if size <= _LONGEST:
            self[size] = made
        return made


def message_fronts(channel: int) -> Remembered[bytes]:
    """What a Message of `channel` begins with, by the size of its data: opcode, length, channel."""
    return Remembered(
        lambda size: fmt.MESSAGE_FRONT.pack(fmt.MESSAGE, fmt.MESSAGE_FIXED_SIZE + size, channel)
    )


class BoundOutput(NamedTuple):
    """A logged output.

    envelope: of the message, which is written where it is present.
    encode: what makes the payload, in pieces, for a cycle; None where it is the msgpack map of the
        envelope's fields.
    fronts: of its channel.
    """

    envelope: Envelope
    encode: Callable[[int], Sequence[Buffer]] | None
    fronts: Remembered[bytes]


class BoundMessages:
    """The messages of one cycle record, in the order of the file.

    encode: called with cycle, time, the stamp of messages that are valid at that time, the records
        of the runtime's own messages, that of the step table, and the file offset at which the
        cycle's records will begin.
    """

    __slots__ = ("encode",)

    def __init__(self, outputs: list[BoundOutput]) -> None:
        self.encode: Callable[[int, int, bytes, bytes, bytes, int], Encoded]
        self.encode = partial(_encode, outputs)
        if all(output.encode is None for output in outputs):
            self.encode = _written_out(outputs, self.encode)


def _encode(
    outputs: Sequence[BoundOutput],
    cycle: int,
    now_ns: int,
    stamp: bytes,
    extra: bytes,
    steps: bytes,
    at: int,
) -> Encoded:
    """The records in parts: a payload in pieces may be a picture, which is not copied."""
    parts: list[Buffer] = []
    count = 0
    for envelope, encode, fronts in outputs:
        if not envelope.present:
            continue
        own_stamp = stamp
        if envelope.tov_ns is not now_ns:
            own_stamp = _pack_stamp(cycle & fmt.SEQUENCE_MASK, now_ns, envelope.tov_ns)
        pieces = (_pack(envelope.fields),) if encode is None else encode(cycle)
        gap = _gap(at + sum(map(len, parts)) + fmt.MESSAGE_HEAD.size, pieces)
        if gap:
            parts.append(pack_pad(gap))
        parts += (fronts[sum(map(len, pieces))], own_stamp, *pieces)
        count += 1
    parts += (extra, steps)
    return parts, count


def _gap(payload_at: int, pieces: Sequence[Buffer]) -> int:
    """The PAD before a message so that its first large piece is aligned in the file."""
    for piece in pieces:
        if len(piece) >= fmt.ALIGNED_PART_SIZE:
            return gap_before(payload_at, alignment=fmt.PART_ALIGNMENT)
        payload_at += len(piece)
    return 0


_FUNCTION = """\
def encode(cycle, now_ns, stamp, extra, steps, at):
    count, first_stamp, stamped = {count}, stamp, now_ns
{outputs}
    return join(({parts}, extra, steps)), count
"""
_OUTPUT = """\
    if message_{i}.present:
        if message_{i}.tov_ns is not stamped:
            stamped = message_{i}.tov_ns
            stamp = pack_stamp(cycle & sequence_mask, now_ns, stamped)
        data_{i} = pack(fields_{i})
        if len(data_{i}) >= aligned_size:
            return in_parts(cycle, now_ns, first_stamp, extra, steps, at)
        front_{i}, stamp_{i} = fronts_{i}[len(data_{i})], stamp
    else:
        count -= 1
        front_{i} = stamp_{i} = data_{i} = b""
"""


def _written_out(
    outputs: Sequence[BoundOutput], in_parts: Callable[..., Encoded]
) -> Callable[..., Encoded]:
    """`_encode` for plain messages, as a function with `_OUTPUT` for each of them, compiled once.

    Logging a small message is what flowrun does most often. A loop over the outputs spends a fifth of
    the time on fetching what belongs to each and on a list of parts: 3.2 instead of 2.6 us for the 9
    outputs of graphs/caterpillar.yaml, where packing their fields alone takes 0.8.
    """
    names: dict[str, Any] = {
        "join": b"".join,
        "pack": _pack,
        "pack_stamp": _pack_stamp,
        "sequence_mask": fmt.SEQUENCE_MASK,
        "aligned_size": fmt.ALIGNED_PART_SIZE,
        "in_parts": in_parts,
    }
    for i, (envelope, _, fronts) in enumerate(outputs):
        names[f"message_{i}"], names[f"fields_{i}"] = envelope, envelope.fields
        names[f"fronts_{i}"] = fronts
    numbers = range(len(outputs))
    source = _FUNCTION.format(
        outputs="".join(_OUTPUT.format(i=i) for i in numbers),
        count=len(outputs),
        parts=", ".join(f"front_{i}, stamp_{i}, data_{i}" for i in numbers) or 'b""',
    )
    exec(compile(source, f"<{__name__}: {len(outputs)} outputs>", "exec"), names)  # noqa: S102
    encode: Callable[..., Encoded] = names["encode"]
    return encode
