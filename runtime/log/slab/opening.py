"""Opens one slab: what its preamble says, where its chunks are, and the file's mapping.

FORMAT.md says what the bytes mean.
"""

from __future__ import annotations

import errno
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from flowrun.runtime.errors import LogError
from flowrun.runtime.log.slab.bytes import Damage, SlabBytes
from flowrun.runtime.log.slab.preamble import Preamble, read_preamble
from flowrun.runtime.log.slab.structure import Structure
from flowrun.runtime.log.slab.summary import check_uncut, read_summary
from flowrun.runtime.log.slab.walk import walk

__all__ = ["OpenedSlab", "open_slab"]

_OPEN_TRIES = 5
"""How often a slab is read again that its writer changes while it is opened."""


@dataclass(frozen=True, slots=True)
class OpenedSlab:
    """What opening finds. size: bytes of the file, as it was read."""

    preamble: Preamble
    structure: Structure
    mapping: mmap.mmap
    size: int


def open_slab(path: Path) -> OpenedSlab:
    """The slab at `path`; `LogError` where it cannot be read, or its preamble is damaged."""
    try:
        with path.open("rb") as file:
            fd = file.fileno()
            for _ in range(1 + _OPEN_TRIES):
                data = SlabBytes(fd, os.fstat(fd).st_size)
                preamble = read_preamble(data, path)
                structure = _read_structure(data, preamble.size)
                size = os.fstat(fd).st_size
                if structure.damage is None or size == data.size:
                    break
                # Its writer grew or finished it while we read: what looks damaged is only torn.
            mapping = _mapped(fd, size)
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror}") from error
    for chunk in structure.chunks:
        chunk.records_end = min(chunk.records_end, size)
    return OpenedSlab(preamble, structure, mapping, data.size)


def _read_structure(data: SlabBytes, preamble_size: int) -> Structure:
    try:
        structure = read_summary(data, preamble_size)
    except (Damage, ValueError) as error:
        # The data may well be whole: read it from its beginning, but say so.
        structure, _ = walk(data, preamble_size)
        if structure.damage is None:
            offset = error.offset if isinstance(error, Damage) else data.size
            structure.damage = Damage(offset, f"the summary is damaged ({error})")
        return structure
    if structure is not None:
        return structure
    structure, summary_at = walk(data, preamble_size)
    if summary_at is not None:
        try:
            check_uncut(data, summary_at)
        except Damage as damage:
            structure.damage = damage
    return structure


def _mapped(fd: int, size: int) -> mmap.mmap:
    try:
        return mmap.mmap(fd, size, access=mmap.ACCESS_READ)
    except ValueError as error:  # the file was cut in this moment
        raise OSError(errno.EAGAIN, f"it changes while it is opened ({error})") from error
