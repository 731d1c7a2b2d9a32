"""What must hold of one process while it runs: it acknowledges nothing before it is in its log, and does
not go on before receivers in lock-step have what it sent."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Protocol

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.graph.spec import PartId
from flowrun.runtime.links.fake import FakeNetwork
from flowrun.runtime.links.own import peer_of
from flowrun.runtime.links.runs import Cursor
from flowrun.runtime.links.wire import Keys, Question, graph_key

__all__ = ["Promises"]


class Other(Protocol):
    """A process of the fleet."""

    @property
    def plan(self) -> Plan: ...

    @property
    def is_alive(self) -> bool: ...

    @property
    def promises(self) -> Promises: ...


class Promises:
    """Those of the process of `plan`. others: all processes, itself included."""

    def __init__(self, plan: Plan, network: FakeNetwork, others: Mapping[PartId, Other]) -> None:
        spec = plan.graph.spec
        assert spec.part is not None
        self._plan, self._part = plan, spec.part
        self._network, self._others = network, others
        self.broken: list[str] = []
        """A sentence on each that was not kept."""
        self.committed: dict[str, Cursor] = {}
        """By source task, the cursor after what its logs hold, over all runs."""
        self.crc = 0
        """Of all messages that it has published."""
        self._sources = {it.source for it in plan.graph.receives}
        own = Keys.of(graph_key(spec.name), peer_of(spec, self._part))
        self._acks = {own.ack(peer_of(spec, it.peer)): it for it in plan.graph.receives}
        self._in_step = {
            boundary.peer: [
                slot.index
                for slot in plan.slots
                for stream in boundary.streams
                if slot.topic == stream.topic and stream.link.deliver == "lockstep"
            ]
            for boundary in plan.graph.sends
            if not self._is_shared(boundary.peer)
        }
        self._awaited: dict[PartId, int] = {}
        """By receiver in lock-step, the cycle after the last that had something for it."""

    def begin(self) -> None:
        """A run begins."""
        self._awaited = {}

    def look(self, cycle: Any) -> None:
        """A cycle was committed."""
        for slot, message in zip(self._plan.slots, cycle.messages, strict=True):
            if message.present:
                self.crc = zlib.crc32(_described(slot.topic, message), self.crc)
                if slot.port == "origin" and slot.task_id in self._sources:
                    self.committed[slot.task_id] = Cursor(message.run, message.cycle + 1)
        for peer, slots in self._in_step.items():
            if any(cycle.messages[it].present for it in slots):
                self._awaited[peer] = cycle.time.cycle + 1

    def look_at_put(self, key: str, payload: bytes) -> None:
        """The process puts something on the network."""
        boundary = self._acks.get(key)
        if boundary is None:
            return
        said = Question.unpack(payload)
        has = self.committed.get(boundary.source, Cursor(0, 0))
        if (said.run, said.cycle) > has:
            self.broken.append(
                f"link {boundary.peer} -> {self._part}: cycle {said.cycle - 1} of run {said.run} was "
                "acknowledged before it was in the receiver's log"
            )

    def check_step(self, run: int) -> None:
        """The process is about to have a cycle. run: when its run began."""
        for peer, awaited in self._awaited.items():
            other = self._others[peer]
            source = next(it for it in other.plan.graph.receives if it.peer == self._part).source
            sees = other.is_alive and not self._network.are_cut(str(self._part), str(peer))
            if sees and other.promises.committed.get(source, Cursor(0, 0)) < (run, awaited):
                self.broken.append(
                    f"link {self._part} -> {peer}: {self._part} goes on though cycle {awaited - 1} of "
                    f"run {run} is not in the log of {peer}: it was sent in lock-step"
                )

    def _is_shared(self, part: PartId) -> bool:
        partition = next(it for it in self._plan.graph.spec.partitions if it.id == part.partition)
        return not partition.instances and partition.replicas > 1


def _described(topic: str, message: Message) -> bytes:
    """What a digest has of a message; not the pixels of pictures, which nobody may have asked for."""
    if isinstance(message, ImageRgb8Msg):
        return f"{topic} {message.tov_ns} {message.frame_id}".encode()
    return topic.encode() + b"".join(message.view().encode())
