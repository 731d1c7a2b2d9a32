"""Logs written by our writer: `/t0/out`, `/t1/out`, ..., without a graph."""

from flowrun.msgs import BytesMsg
from flowrun.runtime.log.channels import LoggedOutput
from flowrun.runtime.log.reader import Log
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


def write(directory, count, *, size=100, finish=True, **options):
    """`count` cycles of one message of `size` bytes that tells its cycle."""
    message = BytesMsg()
    writer = writer_of(directory, BytesMsg, **options)
    bound = writer.bind([message])
    for cycle in range(count):
        message.value = payload(cycle, size)
        message.publish(tov_ns=cycle)
        commit(writer, bound, cycle)
    if finish:
        writer.finish({"reason": "test"})
    return writer


def check_all_by_us(directory, count, size):
    with Log(directory) as log:
        assert log.loss is None
        ours = [(m.cycle, m.tov_ns, m.fields["value"]) for m in log.messages("/t0/out")]
    assert ours == [(cycle, cycle, payload(cycle, size)) for cycle in range(count)]
    return ours


def fill_until_next_is_made(directory, *, size=3000):
    """A writer whose next slab is made already, its slab not yet full; the cycles committed."""
    message = BytesMsg()
    writer = writer_of(directory, BytesMsg, slab_size_mib=1)
    bound = writer.bind([message])
    cycle = 0
    while writer._slabs._next is None:
        message.value = payload(cycle, size)
        message.publish(tov_ns=cycle)
        commit(writer, bound, cycle)
        cycle += 1
    writer._slabs._next.result()
    return writer, cycle
