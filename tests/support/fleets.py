"""The logs of a fleet: written by hand, and changed after their runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from flowrun.msgs import IntMsg, Message
from flowrun.runtime.events import Dropped, Event, Failed, Met
from flowrun.runtime.links.origin import OriginMsg
from flowrun.runtime.log.channels import LoggedOutput
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.records import cycle_crc
from flowrun.runtime.log.writer import LogWriter

S = 1_000_000_000
HOUR = 3600 * S
T0 = 1_700_000_000 * S
_GRAPH = {
    "partitions": {"a": {"replicas": 1}, "b": {"replicas": 1}, "c": {"instances": {"left": {}}}}
}
Fields = dict[str, Any]


def two_processes(fleet: Path) -> None:
    """`a`, which made ten cycles, was cut off and started again, and `b`, which took some of them."""
    sent_numbers(fleet / "a-0" / "a1", "a/0", 0, *range(1, 11), is_whole=False)
    sent_numbers(fleet / "a-0" / "a2", "a/0", 20, 21, 22, 23)
    gap = {"gap": "gone", "gap_run": T0, "gap_from": 4, "gap_to": -1}
    cycles = [
        (1.5, origin(0, 0, time_s=1), [Met("from_a", -2_500_000)]),
        (4.25, origin(0, 3, time_s=4, first=1, skipped=2), [Failed("t", "skip", "no")]),
        (5.0, None, [Dropped("t", 7)]),
        (21.5, origin(20, -1, time_s=0, first=0, **gap), [Met("from_a", 1_500_000)]),
        (22.0, origin(20, 0, time_s=21), ()),
    ]
    took_numbers(fleet / "b-0" / "b1", "b/0", 0.5, cycles)


def chain_of_clocks(fleet: Path, *, c_knows: bool = True) -> None:
    """`a`, `b`, which takes its numbers with a clock an hour behind, and `c`, which takes those of `b`
    with one a minute ahead of that. As `a` has it, they ran from second 1 to 3.

    c_knows: whether the log of `c` says by how much the clock of `b` is behind."""
    graph = {"partitions": {name: {"replicas": 1} for name in "abc"}}
    sent_numbers(fleet / "a-0" / "a1", "a/0", 0, 1, 2, 3, graph=graph)
    late, less = -HOUR // S, (-HOUR + 60 * S) // S
    of_a = [
        (late + 1.5, origin(0, 0, time_s=1), [Met("from_a", HOUR)]),
        (late + 2.5, origin(0, 1, time_s=2), ()),
    ]
    took_numbers(fleet / "b-0" / "b1", "b/0", late + 0.5, of_a, graph=graph)
    of_b = {"partition": "b", "run": T0 + int((late + 0.5) * S)}
    gap = {"gap": "gone", "gap_run": of_b["run"], "gap_from": 1, "gap_to": 1}
    met = [Met("from_b", -60 * S)]
    took = [
        (less + 2.0, origin(0, 0, time_s=late + 1.5, **of_b), met if c_knows else ()),
        (less + 3.0, origin(0, 1, time_s=0, first=2, **of_b, **gap), ()),
    ]
    took_numbers(fleet / "c-0" / "c1", "c/0", less + 0.5, took, graph=graph, source="from_b")


def sent_numbers(
    directory: Path,
    part: str,
    began_s: float,
    *at_s: float,
    is_whole: bool = True,
    graph: Fields | None = None,
) -> None:
    """A log of a process that sent a number in each cycle, at these seconds."""
    cycles = [(it, ({"value": 1},), ()) for it in at_s]
    _write(
        directory,
        part,
        began_s,
        [("n", "number", IntMsg())],
        cycles,
        is_whole=is_whole,
        graph=graph,
    )


def took_numbers(
    directory: Path,
    part: str,
    began_s: float,
    cycles: Iterable[tuple[float, Fields | None, Sequence[Event]]],
    *,
    graph: Fields | None = None,
    source: str = "from_a",
) -> None:
    """A log of a process that took them. cycles: the second of each, where its number came from (None:
    there is none), and its events."""
    outputs = [(source, "origin", OriginMsg()), (source, "n_number", IntMsg())]
    value = {"value": 1}
    made = [
        (at_s, (said, value if said and said["first"] <= said["cycle"] else None), events)
        for at_s, said, events in cycles
    ]
    _write(directory, part, began_s, outputs, made, graph=graph)


def origin(
    run_s: int, cycle: int, *, time_s: float, first: int | None = None, **more: Any
) -> Fields:
    """The fields of an `OriginMsg`: a cycle of a run of a/0, and the second when it was."""
    return {
        "partition": "a",
        "instance": "0",
        "run": T0 + run_s * S,
        "first": cycle if first is None else first,
        "cycle": cycle,
        "time_ns": T0 + int(time_s * S),
        "taken": [cycle],
        **more,
    }


def _write(
    directory: Path,
    part: str,
    began_s: float,
    outputs: Sequence[tuple[str, str, Message]],
    cycles: Iterable[tuple[float, Sequence[Fields | None], Sequence[Event]]],
    *,
    graph: Fields | None = None,
    is_whole: bool = True,
) -> None:
    data = json.dumps(graph or _GRAPH).encode()
    writer = LogWriter(
        directory,
        outputs=[
            LoggedOutput(task, port, f"/{task}/{port}", type(it)) for task, port, it in outputs
        ],
        steps=1,
        metadata={
            "graph": "g",
            "partition": part,
            "started_ns": str(T0 + int(began_s * S)),
            "run_id": directory.name,
        },
        attachments=[fmt.Attachment(fmt.GRAPH_RESOLVED, "application/json", data, T0, T0)],
        slab_size_mib=2,
        section_size_mib=1,
    )
    bound = writer.bind([it for _, _, it in outputs])
    for number, (at_s, said, events) in enumerate(cycles):
        for (_, _, message), fields in zip(outputs, said, strict=True):
            message.clear()
            if fields is not None:
                for name, value in fields.items():
                    setattr(message, name, value)
                message.publish(tov_ns=T0)
        time_ns = T0 + int(at_s * S)
        writer.commit(number, time_ns, bound, start_ns=0, ends_ns=[1], events=list(events))
    if is_whole:
        writer.finish({"reason": "test", "ended_ns": str(T0 + 100 * S)})
    else:
        writer.abandon()


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
