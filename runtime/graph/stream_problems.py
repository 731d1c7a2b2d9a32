"""What is wrong with the streams between the partitions of a bound graph."""

from __future__ import annotations

from collections.abc import Iterator

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.errors import Problem
from flowrun.runtime.graph.bind import BoundGraph
from flowrun.runtime.graph.boundary import Stream
from flowrun.runtime.graph.parts import ALL_LANES, Parts, copy_name
from flowrun.runtime.graph.spec import PartId

__all__ = ["stream_problems"]


def stream_problems(bound: BoundGraph) -> list[Problem]:
    """What is wrong with the streams between the partitions of a whole graph."""
    parts = Parts(bound)
    problems = dict.fromkeys([*parts.problems, *_unlogged(parts)])
    for receiver in bound.spec.partitions:
        problems |= dict.fromkeys(_collisions(parts, receiver.parts[0]))
    return list(problems)


def _unlogged(parts: Parts) -> Iterator[Problem]:
    """The log is the queue: what is not in it cannot be sent."""
    for cnx, said in parts.connections():
        if parts.partition(cnx.src_task) == parts.partition(cnx.dst_task):
            continue
        task = parts.tasks[cnx.src_task]
        logging = task.spec.logging
        output = f"{cnx.src_task}.{cnx.src_port}"
        enabled = parts.bound.spec.logging.enable_task_logging
        if not (enabled and logging.enabled and logging.payload == "all"):
            why = (
                "'enabled: false'"
                if not logging.enabled
                else "'payload: none'"
                if logging.payload != "all"
                else "'enable_task_logging: false'"
            )
            yield Problem(
                said.where,
                f"{output!r} goes to partition {parts.partition(cnx.dst_task)!r} from the log, and "
                f"{why} keeps it out of that; leave that out",
            )
            continue
        port = next(it for it in task.ports if it.is_output and it.name == cnx.src_port)
        carry, where = said.link.carry, said.link_where.get("carry", said.where)
        if carry not in ("packets", "keyframes"):
            continue
        if not issubclass(port.message_type, ImageRgb8Msg):
            yield Problem(
                where,
                f"'carry: {carry}' is for pictures, and {output!r} gives "
                f"{port.message_type.__name__}; leave it out",
            )
        elif task.codec_of(port) != "packets":
            yield Problem(
                where,
                f"'carry: {carry}': the log has no packets of {output!r}, only pixels "
                f"(codec {task.codec_of(port)!r}); say carry: log to send these",
            )


def _collisions(parts: Parts, receiver: PartId) -> Iterator[Problem]:
    """Ids and ports of the part of `receiver` that two things would have."""
    own = {
        task.id
        for task in parts.bound.tasks
        if task.spec.partition == receiver.partition and parts.lanes.get(task.id) == ALL_LANES
    }
    sources: dict[str, PartId] = {}
    for partition in parts.bound.spec.partitions:
        for sender in partition.parts:
            if partition.id == receiver.partition:
                continue
            streams = parts.streams(sender, receiver)
            names: dict[str, Stream] = {}
            for stream in streams:
                other = names.setdefault(stream.name, stream)
                if other is not stream:
                    yield Problem(
                        stream.where,
                        f"'{stream.task}.{stream.port}' and '{other.task}.{other.port}' would both "
                        f"be {stream.name!r} in partition {receiver.partition!r}; rename a task",
                    )
            source = parts.source(sender)
            if streams and source in own:
                yield Problem(
                    streams[0].where,
                    f"partition {receiver.partition!r} has a task {source!r}, which is the name of "
                    f"what comes from partition {sender.partition!r}; rename it",
                )
            if streams and sources.setdefault(source, sender) != sender:
                yield Problem(
                    streams[0].where,
                    f"what comes from {sender} and from {sources[source]} would both be the task "
                    f"{source!r} in partition {receiver.partition!r}; rename one of the two",
                )
    made_by: dict[str, str] = {}
    for task in parts.bound.tasks:
        if task.spec.partition != receiver.partition or parts.lanes.get(task.id) == ALL_LANES:
            continue
        for lane in parts.lanes.get(task.id, ()):
            made = copy_name(task.id, lane, receiver.partition)
            maker = made_by.setdefault(made, task.id)
            if maker != task.id:
                text = f"tasks {maker!r} and {task.id!r} both make {made!r}; rename one of the two"
                yield Problem(task.spec.where, text)
            if made in own or made in sources:
                text = f"task {task.id!r} makes {made!r}, and there is one already; rename it"
                yield Problem(task.spec.where, text)
