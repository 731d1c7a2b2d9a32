"""The bytes of a slab's file, read within their bounds, and the error for those that break the format.

They are read with `pread`: the file of a live run may be cut while it is opened, and a mapping would
answer that with SIGBUS.
"""

from __future__ import annotations

import os

from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.records import unpack_check

__all__ = ["Damage", "SlabBytes"]


class Damage(Exception):  # noqa: N818 - it ends the reading of a slab, and is shown, not raised, to users
    """A byte that breaks the format: where, and how."""

    def __init__(self, offset: int, text: str) -> None:
        super().__init__(f"byte {offset}: {text}")
        self.offset = offset


class SlabBytes:
    """The first `size` bytes of an open file. All methods raise `Damage`."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self.size = size

    def read(self, offset: int, size: int) -> bytes:
        if size < 0 or offset + size > self.size:
            raise Damage(
                offset, f"truncated record: expected {size} bytes, got {max(0, self.size - offset)}"
            )
        if size > fmt.MAX_HELD_SIZE:
            raise Damage(offset, f"{size} bytes; expected at most {fmt.MAX_HELD_SIZE}")
        data = os.pread(self._fd, size, offset)
        if len(data) < size:  # cut by its writer since it was opened
            raise Damage(offset, f"truncated record: expected {size} bytes, got {len(data)}")
        return data

    def head(self, offset: int) -> tuple[int, int]:
        """Opcode and length of the record at `offset`."""
        opcode, length = fmt.RECORD_HEAD.unpack(self.read(offset, fmt.HEAD_SIZE))
        return opcode, length

    def content(self, offset: int, length: int) -> bytes:
        """Content of the record at `offset`."""
        return self.read(offset + fmt.HEAD_SIZE, length)

    def check(self, offset: int, length: int, *, start: int) -> None:
        """Compare the CHECK at `offset` with the bytes from `start` to it."""
        try:
            given_start, crc = unpack_check(self.content(offset, length))
        except ValueError as error:
            raise Damage(offset, f"CHECK: {error}") from error
        if given_start != start:
            raise Damage(offset, f"CHECK from byte {given_start}: expected from byte {start}")
        actual = fmt.crc32(self.read(start, offset - start))
        if actual != crc:
            raise Damage(
                start, f"bytes up to {offset} have CRC {actual:#010x}; expected {crc:#010x}"
            )
