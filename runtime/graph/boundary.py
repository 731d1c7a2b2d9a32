"""What goes from one process of a partition to another: the streams that both know by the same order."""

from __future__ import annotations

from dataclasses import dataclass

from flowrun.msgs.message import Message
from flowrun.runtime.errors import Location
from flowrun.runtime.graph.spec import LinkSpec, PartId

__all__ = ["Boundary", "Stream"]


@dataclass(frozen=True, slots=True)
class Stream:
    """The messages of one output that go to another process.

    task, port: the output, in the sender. Its topic there is "/<task>/<port>".
    name: the port of the receiver's source task.
    message_type: what flows.
    codec: how the sender's log keeps it: "raw", as any message; otherwise pictures that are stored.
    link: what the file says of it; `carry` is filled in.
    where: the place of the connection.
    """

    task: str
    port: str
    name: str
    message_type: type[Message]
    codec: str
    link: LinkSpec
    where: Location

    @property
    def topic(self) -> str:
        """Its topic in the sender's log."""
        return f"/{self.task}/{self.port}"


@dataclass(frozen=True, slots=True)
class Boundary:
    """All streams from one process to another.

    peer: the other process.
    source: the receiver's task on which they appear, in this order, after its port "origin".
    """

    peer: PartId
    source: str
    streams: tuple[Stream, ...]
