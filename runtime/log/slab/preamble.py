"""What a slab says before its first chunk: of the run, and of what its messages are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from flowrun.runtime.errors import LogDamaged, LogError
from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.bytes import Damage, SlabBytes
from flowrun.runtime.log.slab.records import (
    unpack_attachment,
    unpack_channel,
    unpack_header,
    unpack_metadata,
    unpack_schema,
)

__all__ = ["Preamble", "read_preamble"]

_OPCODES = (fmt.HEADER, fmt.METADATA, fmt.ATTACHMENT, fmt.SCHEMA, fmt.CHANNEL, fmt.CHECK)


@dataclass(slots=True)
class Preamble:
    """All of a slab from its MAGIC to its first CHECK.

    size: its bytes, so also the offset after it.
    metadata: of the Metadata record "flowrun".
    attachments: by name.
    schemas, channels: by id.
    channel_of: the channels again, by topic.
    places: where each Metadata and Attachment record is, by name.
    """

    size: int
    metadata: dict[str, str] = field(default_factory=dict)
    attachments: dict[str, fmt.Attachment] = field(default_factory=dict)
    schemas: dict[int, fmt.Schema] = field(default_factory=dict)
    channels: dict[int, fmt.Channel] = field(default_factory=dict)
    channel_of: dict[str, fmt.Channel] = field(default_factory=dict)
    places: dict[str, fmt.Placed] = field(default_factory=dict)


def read_preamble(data: SlabBytes, path: Path) -> Preamble:
    """The preamble of the slab at `path`; `LogError` where any of it is damaged: nothing in a slab can
    be read without it."""
    try:
        _check_magic(data, path)
        records = _checked_records(data, path)
        _, check_at, check_length = records.pop()
        preamble = Preamble(check_at + fmt.HEAD_SIZE + check_length)
        for opcode, offset, length in records:
            try:
                _keep(preamble, opcode, offset, data.content(offset, length))
            except ValueError as error:
                raise Damage(offset, str(error)) from error
    except Damage as damage:
        raise LogDamaged(f"{path}: {damage}; the preamble is needed to read a slab") from None
    written = preamble.metadata.get("format")
    if written != fmt.FORMAT:
        raise LogError(f"{path}: log format {written!r}; this flowrun reads format {fmt.FORMAT!r}")
    return preamble


def _check_magic(data: SlabBytes, path: Path) -> None:
    magic = data.read(0, min(data.size, len(fmt.MAGIC)))
    if not magic:
        raise LogDamaged(f"{path}: the file is empty")
    if magic == bytes(len(fmt.MAGIC)):
        raise LogDamaged(f"{path}: byte 0: its beginning was never written")
    if magic != fmt.MAGIC:
        raise LogDamaged(f"{path}: byte 0: not an MCAP file: it begins with {magic!r}")


def _checked_records(data: SlabBytes, path: Path) -> list[tuple[int, int, int]]:
    """Opcode, offset and length of each record, the Header the first and the CHECK the last."""
    records: list[tuple[int, int, int]] = []
    offset = len(fmt.MAGIC)
    opcode = 0
    while opcode != fmt.CHECK:
        opcode, length = data.head(offset)
        if opcode not in _OPCODES or (opcode == fmt.HEADER) != (not records):
            expected = "Metadata, Attachment, Schema, Channel or CHECK" if records else "Header"
            raise Damage(offset, f"unexpected record of opcode {opcode:#04x}: expected {expected}")
        available = data.size - offset - fmt.HEAD_SIZE
        if length > available:
            raise Damage(offset, f"truncated record: expected {length} bytes, got {available}")
        if not records:
            _check_profile(data, path, offset, length)
        records.append((opcode, offset, length))
        offset += fmt.HEAD_SIZE + length
    _, check_at, length = records[-1]
    data.check(check_at, length, start=0)
    return records


def _check_profile(data: SlabBytes, path: Path, offset: int, length: int) -> None:
    try:
        profile, _ = unpack_header(data.content(offset, length))
    except ValueError as error:
        raise Damage(offset, f"Header: {error}") from error
    if profile != fmt.PROFILE:
        raise LogDamaged(f"{path}: an MCAP file of profile {profile!r}, not a log of flowrun")


def _keep(preamble: Preamble, opcode: int, offset: int, content: bytes) -> None:
    placed = fmt.Placed(offset, fmt.HEAD_SIZE + len(content))
    if opcode == fmt.METADATA:
        name, metadata = unpack_metadata(content)
        preamble.places[name] = placed
        if name == fmt.METADATA_NAME:
            preamble.metadata = metadata
    elif opcode == fmt.ATTACHMENT:
        attachment = unpack_attachment(content)
        preamble.attachments[attachment.name] = attachment
        preamble.places[attachment.name] = placed
    elif opcode == fmt.SCHEMA:
        schema = unpack_schema(content)
        if schema.id in preamble.schemas:
            raise ValueError(f"a second Schema of id {schema.id}")
        preamble.schemas[schema.id] = schema
    elif opcode == fmt.CHANNEL:
        channel = unpack_channel(content)
        if channel.id in preamble.channels:
            raise ValueError(f"a second Channel of id {channel.id}")
        if channel.topic in preamble.channel_of:
            raise ValueError(f"a second Channel of topic {channel.topic!r}")
        preamble.channels[channel.id] = preamble.channel_of[channel.topic] = channel
