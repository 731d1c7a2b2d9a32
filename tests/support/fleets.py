"""What happens to the logs of a fleet between its runs and their replay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.records import cycle_crc


def rewritten(run: Path, topic: str, *, cycle: int, data: Callable[[bytes], bytes]) -> None:
    """Have another payload of the same size in a run's log, which is whole all the same: the cycle's
    CRC is that of the new bytes."""
    with Log(run) as log:
        [slab] = log.slabs
        [old] = [bytes(payload) for name, _, payload in log[cycle].entries if name == topic]
        head = next(
            head
            for index in range(len(slab.structure.chunks))
            for head in slab.cycles.heads(index)
            if head.cycle == cycle and head.opcode == fmt.CYCLE
        )
        path = slab.path
    file = bytearray(path.read_bytes())
    records = slice(head.offset + fmt.CYCLE_SIZE, head.end)
    new = data(old)
    assert len(new) == len(old)
    file[records] = bytes(file[records]).replace(old, new)
    content = bytes(file[head.offset + fmt.HEAD_SIZE : head.offset + fmt.CYCLE_SIZE])
    crc_at = head.offset + fmt.HEAD_SIZE + fmt.CYCLE_CHECKED.size
    file[crc_at : crc_at + 4] = cycle_crc(content, bytes(file[records])).to_bytes(4, "little")
    path.write_bytes(file)
