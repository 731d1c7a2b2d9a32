"""Payloads that are whole but wrong: other values and types where a decoder looks for its own."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

import msgpack
import zstandard

from flowrun.msgs import protobuf

# fmt: off
WRONG: tuple[Any, ...] = (
    None, True, 0, -1, 1, 3, 64, 255, 2**16, 2**31 - 1, 2**31, 2**40, 2**63, 2**64 - 1, -(2**63), 0.5,
    float("nan"), float("inf"), "", "packets", "raw", "zstd", "ffv1", "O", "V99999999", "(2,3)f8", "<f8",
    "M8[", ",,", "<f4,(2)i4", "{'names':['a'],'formats':['O']}", "h264", "hevc", "rawvideo", "ass",
    "aac", "nonsense", b"", b"\x00" * 40, b"\x01\x64", [], [1], [8, 16], [65535, 65535],
    [2**31, 2**31], [-1, -1], [0, 5],
    [[[]]], {}, {"dtype": "<f4", "shape": [2**40], "data": b""},
    {"dtype": "O", "shape": [1], "data": b"12345678"}, {"dtype": "<f4", "shape": [0, -1], "data": b""},
    ["rawvideo", b"", 60000, 60000, "rgb24"], ["h264", b"\x01", 2**33, -1, "nope"],
)
# fmt: on
BOMB = zstandard.ZstdCompressor().compress(bytes(1 << 30))
"""A gigabyte of zeros in 32 KiB."""


def wrong_value(value: Any, rng: random.Random) -> Any:
    """`value` with one of the values in it, or itself, replaced, left out or repeated."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        changed = dict(value)
        key = rng.choice(list(changed))
        if rng.random() < 0.1:
            del changed[key]
        else:
            changed[key] = wrong_value(changed[key], rng)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.6:
        listed = list(value)
        at = rng.randrange(len(listed))
        action = rng.random()
        if action < 0.2:
            del listed[at]
        elif action < 0.4:
            listed.insert(at, rng.choice(WRONG))
        else:
            listed[at] = wrong_value(listed[at], rng)
        return listed
    if isinstance(value, int) and rng.random() < 0.3:
        return max(-(2**63), min(2**64 - 1, value + rng.choice((-1, 1, 7, 2**32))))
    if isinstance(value, bytes) and value and rng.random() < 0.5:
        return wrong_bytes(value, rng)
    return rng.choice(WRONG)


def wrong_bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    at = rng.randrange(len(changed))
    action = rng.random()
    if action < 0.4:
        changed[at] ^= 1 << rng.randrange(8)
    elif action < 0.6:
        del changed[at:]
    elif action < 0.8:
        del changed[: at + 1]
    else:
        changed[at:at] = rng.randbytes(rng.choice((1, 8, 100)))
    return bytes(changed)


def wrong_payload(payload: bytes, encoding: str, rng: random.Random) -> bytes:
    """A payload of `encoding` with something else in it."""
    try:
        if encoding == "msgpack":
            return bytes(msgpack.packb(wrong_value(msgpack.unpackb(payload), rng)))
        if encoding == "protobuf":
            return _wrong_protobuf(payload, rng)
    except (ValueError, TypeError):
        pass
    return wrong_bytes(payload, rng) if payload else rng.randbytes(9)


def _wrong_protobuf(payload: bytes, rng: random.Random) -> bytes:
    fields: list[tuple[int, Any]] = [
        (number, value if isinstance(value, int) else bytes(value))
        for number, value in protobuf.fields(memoryview(payload))
    ]
    at = rng.randrange(len(fields))
    number, value = fields[at]
    action = rng.random()
    if action < 0.4:
        at = next((i for i, (n, _) in enumerate(fields) if n == 1000), at)
        number, value = fields[at]
        fields[at] = number, bytes(msgpack.packb(wrong_value(msgpack.unpackb(value), rng)))
    elif action < 0.5:
        del fields[at]
    elif action < 0.6:
        fields.insert(at, (rng.choice((number, 1, 2, 3, 1000)), rng.choice((2**40, 5, b"x"))))
    elif action < 0.65:
        fields[at] = number, BOMB
    elif action < 0.85:
        fields[at] = number, rng.choice((0, 3, 2**32 - 1, 2**40, 2**64 - 1, b"", b"\xff\xfe"))
    elif isinstance(value, bytes) and value:
        fields[at] = number, wrong_bytes(value, rng)
    return b"".join(
        protobuf.varint_field(number, value)
        if isinstance(value, int)
        else protobuf.bytes_field(number, value)
        for number, value in fields
    )


def with_wrong_payloads(
    messages: Iterable[tuple[str, int, bytes]],
    channels: Mapping[str, tuple[int, str]],
    rng: random.Random,
) -> list[tuple[int, int, bytes]]:
    """Channel, tov_ns and payload of topic, tov_ns and payload; channels: topic -> id, encoding."""
    changed = []
    for topic, tov_ns, payload in messages:
        channel, encoding = channels[topic]
        wrong = payload if rng.random() < 0.6 else wrong_payload(payload, encoding, rng)
        changed.append((channel, tov_ns, wrong))
    return changed
