"""Opens one slab: what its preamble says, where its chunks are, and the file's mapping.

FORMAT.md says what the bytes mean.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flowrun.runtime.errors import LogError
from flowrun.runtime.log.slab.bytes import Damage, SlabBytes
from flowrun.runtime.log.slab.mapping import MappedFile
from flowrun.runtime.log.slab.preamble import Preamble, read_preamble
from flowrun.runtime.log.slab.structure import Structure
from flowrun.runtime.log.slab.summary import check_uncut, read_summary
from flowrun.runtime.log.slab.walk import walk

__all__ = ["OpenedSlab", "open_file", "open_slab"]

_OPEN_TRIES = 20
"""How often a slab is read again that its writer changes while it is opened. It grows and is finished
once in a while; twice within one reading is rare."""


@dataclass(frozen=True, slots=True)
class OpenedSlab:
    """What opening finds.

    mapped: the file's bytes, read-only.
    size: bytes of the file, as it was read.
    """

    preamble: Preamble
    structure: Structure
    mapped: MappedFile
    size: int


def open_slab(path: Path) -> OpenedSlab:
    """The slab at `path`; `LogError` where it cannot be read, or its preamble is damaged."""
    try:
        with open_file(path, os.O_RDONLY) as fd:
            for _ in range(_OPEN_TRIES):
                data = SlabBytes(fd, os.fstat(fd).st_size)
                preamble = read_preamble(data, path)
                structure = _read_structure(data, preamble.size)
                size = os.fstat(fd).st_size
                mapped = MappedFile(fd, size)
                cut = os.fstat(fd).st_size < size
                if not cut and (structure.damage is None or size == data.size):
                    break
                # Its writer grew or finished it while we read: what looks damaged is only torn.
            if cut:
                raise LogError(f"{path}: cannot be read: it is cut again and again")
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror}") from error
    for chunk in structure.chunks:
        chunk.records_end = min(chunk.records_end, size)
    return OpenedSlab(preamble, structure, mapped, data.size)


@contextmanager
def open_file(path: Path, flags: int) -> Iterator[int]:
    """The descriptor of a regular file, within. `LogError` for a link, a pipe or a device: in a run that
    comes from somebody else it may lead anywhere, or never end. `OSError` if it cannot be opened."""
    _check_regular(path, os.lstat(path))
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        _check_regular(path, os.fstat(fd))
        yield fd
    finally:
        os.close(fd)


def _check_regular(path: Path, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise LogError(f"{path}: is a symbolic link; expected a file of the run itself")
    if not stat.S_ISREG(found.st_mode):
        raise LogError(f"{path}: is not a regular file")


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
