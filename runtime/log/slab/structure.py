"""Where a slab's chunks are, how the run ended, and what is wrong after the preamble."""

from __future__ import annotations

from dataclasses import dataclass, field

from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.bytes import Damage, SlabBytes
from flowrun.runtime.log.slab.records import unpack_metadata

__all__ = ["ChunkSpan", "Structure", "read_end"]


@dataclass(slots=True)
class ChunkSpan:
    """A chunk's place: its opcode, its records, and the end of the whole record.

    info: what the summary says of it; None where the slab has none.
    """

    start: int
    records_end: int
    end: int
    crc: int = 0
    closed: bool = False
    info: fmt.ChunkInfo | None = None

    @property
    def records_start(self) -> int:
        return self.start + fmt.CHUNK_RECORDS_AT


@dataclass(slots=True)
class Structure:
    """What a slab's summary says, or a walk over it finds.

    end: the Metadata "flowrun.end", only in a run's last slab.
    finished, statistics: whether there is a summary, and what it counts.
    damage: what breaks the format after the preamble; it ends the slab there.
    """

    chunks: list[ChunkSpan] = field(default_factory=list)
    end: dict[str, str] | None = None
    finished: bool = False
    statistics: fmt.Statistics | None = None
    damage: Damage | None = None


def read_end(data: SlabBytes, offset: int, length: int) -> tuple[dict[str, str] | None, int]:
    """The Metadata "flowrun.end" at `offset`, checked by the CHECK after it, and the offset after that.

    None of a Metadata of another name.
    """
    check_at = offset + fmt.HEAD_SIZE + length
    opcode, check_length = data.head(check_at)
    if opcode != fmt.CHECK:
        raise Damage(check_at, f"opcode {opcode:#04x}: expected CHECK")
    data.check(check_at, check_length, start=offset)
    try:
        name, end = unpack_metadata(data.content(offset, length))
    except ValueError as error:
        raise Damage(offset, f"Metadata: {error}") from error
    return (end if name == fmt.END_NAME else None), check_at + fmt.HEAD_SIZE + check_length
