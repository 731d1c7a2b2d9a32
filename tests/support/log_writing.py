"""Logs written by our writer: `/t0/out`, `/t1/out`, ..., without a graph."""

from flowrun.runtime.log.channels import LoggedOutput
from flowrun.runtime.log.writer import LogWriter

T0 = 1_700_000_000_000_000_000


def writer_of(directory, *types, **options):
    outputs = [LoggedOutput(f"t{i}", "out", f"/t{i}/out", kind) for i, kind in enumerate(types)]
    sizes = {"slab_size_mib": 2, "section_size_mib": 1, **options}
    return LogWriter(directory, outputs=outputs, steps=1, metadata={"run_id": "x"}, **sizes)


def commit(writer, bound, cycle, events=()):
    writer.commit(
        cycle, T0 + cycle, bound, start_ns=cycle, ends_ns=[cycle + 1], events=list(events)
    )


def payload(cycle, size):
    return (b"%d " % cycle * (size // 2 + 1))[:size]
