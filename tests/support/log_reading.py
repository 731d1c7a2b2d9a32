"""What our reader gives of logs built by hand."""

from flowrun.runtime.log.reader import Log
from support.log_bytes import small

END = {"reason": "done", "cycles": "5"}


def read(path):
    """Cycles as `Builder.written` has them, and the loss."""
    with Log(path) as log:
        cycles = [
            (cycle, time_ns, [(topic, tov_ns, bytes(data)) for topic, tov_ns, data in entries])
            for cycle, time_ns, entries in log.cycles()
        ]
        return cycles, log.loss


def run_of_three_slabs(tmp_path):
    written = []
    for slab in range(3):
        builder = small(chunk_cycles=3, cycles=20, first=20 * slab, slab=slab)
        (tmp_path / f"log_{slab:04}.mcap").write_bytes(
            builder.finish(END if slab == 2 else None).data
        )
        written += builder.written
    return written
