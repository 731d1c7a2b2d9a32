"""The run that a replay writes: what the tasks were fed, what they made, and what came from outside. It
can be replayed in turn."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from flowrun.msgs.image import ImageRgb8Msg, VideoDecoder, VideoPackets
from flowrun.msgs.message import Message
from flowrun.runtime.errors import ReplayError
from flowrun.runtime.events import Event
from flowrun.runtime.graph.plan import Slot
from flowrun.runtime.log.reader import Log, LoggedCycle
from flowrun.runtime.log.slab.format import KEYFRAME_INTERVAL
from flowrun.runtime.log.writer import LogWriter
from flowrun.runtime.pictures.stored import StoredPicture
from flowrun.runtime.replay.graph import REPLAY_FED, REPLAY_SET
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.provenance import versions
from flowrun.runtime.run.recording import attachments_of, metadata_of, numbered, sign
from flowrun.runtime.wording import mask_secrets

__all__ = ["ReplayLog"]


class ReplayLog:
    """The log of a replay, for `Replay.run`. Use it as a context manager, which finishes the log.

    replay: the replay to record.
    directory: where to write; must not hold a run.
    config: the config values that the replay changes.
    now_ns: the time at which the run began, for its metadata.
    changed: ids of fed tasks whose messages do not come as they were recorded, see `Faults`.

    Raises `LogError` as `LogWriter` does.
    """

    def __init__(
        self,
        replay: Replay,
        directory: Path,
        *,
        config: Mapping[str, Any],
        now_ns: int,
        changed: Collection[str] = (),
    ) -> None:
        plan, logging = replay.plan, replay.plan.graph.spec.logging
        if any(directory.absolute() == slab.path.parent.absolute() for slab in replay.log.slabs):
            raise ReplayError(f"{directory} is the run that is replayed; choose another directory")
        self._interval = logging.keyframe_interval
        self._secrets = plan.graph.spec.secrets
        self._log = replay.log
        self._cycles = 0
        self._now_ns = now_ns
        fed = [
            step.task.id for step in plan.steps[plan.source_count :] if step.task.id in replay.fed
        ]
        metadata = metadata_of(plan, directory, now_ns) | numbered(plan, directory)
        metadata |= {
            "replay_of": replay.log.metadata.get("run_id", replay.log.path.name),
            REPLAY_FED: " ".join(fed),
            REPLAY_SET: mask_secrets(json.dumps(dict(config), default=str), self._secrets),
            KEYFRAME_INTERVAL: str(self._interval),
        }
        attachments = attachments_of(plan, now_ns)
        self._writer = LogWriter(
            directory,
            outputs=plan.slots,
            steps=len(plan.steps),
            metadata=sign(metadata, attachments)[0],
            attachments=attachments,
            library=f"flowrun {versions()['flowrun']}",
            slab_size_mib=logging.slab_size_mib,
            section_size_mib=logging.section_size_mib,
            sync_s=logging.sync_s,
        )
        self._videos = {
            slot.index: _RecordedVideo(replay.log, slot)
            for slot in plan.slots
            if slot.codec == "packets"
            and slot.task_id in replay.fed
            and slot.task_id not in changed
        }
        self._bare = {
            slot.topic: slot.index
            for slot in plan.slots
            if slot.task_id in replay.fed and not slot.payload
        }
        """The slots whose messages are fed, and are written without payload."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        end = {"cycles": str(self._cycles), "ended_ns": str(self._now_ns)}
        if error is None:
            end["reason"] = "end of the replay"
        elif isinstance(error, KeyboardInterrupt):
            end["reason"] = "interrupted"
        else:
            if not self._cycles:
                self._writer.discard()
                return
            end |= {"reason": "error", "error": mask_secrets(str(error), self._secrets)}
        self._writer.finish(end)

    def wants_keyframe(self, cycle: int) -> bool:
        """At every interval, and in the first cycle, which may be in the middle of the run."""
        return self._interval > 0 and (self._cycles == 0 or cycle % self._interval == 0)

    def check(self) -> None:
        """As `LogWriter.check`."""
        self._writer.check()

    def bind(self, messages: Sequence[Message]) -> tuple[Sequence[Message], Any]:
        """As `LogWriter.bind`."""
        return messages, self._writer.bind(messages)

    def commit(
        self,
        cycle: int,
        now_ns: int,
        bound: tuple[Sequence[Message], Any],
        *,
        start_ns: int,
        ends_ns: list[int],
        events: Sequence[Event],
        keyframe: bytes | None = None,
    ) -> None:
        """As `LogWriter.commit`; fed pictures are written as the packets that they came in, and a fed
        message that was logged without payload as that it came."""
        messages, bound_messages = bound
        for index, video in self._videos.items():
            message = messages[index]
            if message.present and isinstance(message, ImageRgb8Msg):
                message.video = video.packets(self._log[cycle])
        came = self._mark_bare(cycle, messages)
        self._writer.commit(
            cycle,
            now_ns,
            bound_messages,
            start_ns=start_ns,
            ends_ns=ends_ns,
            events=events,
            keyframe=keyframe,
        )
        for message in came:
            message.envelope.present = False  # nobody may read what the log does not hold
        self._cycles += 1

    def _mark_bare(self, cycle: int, messages: Sequence[Message]) -> list[Message]:
        """Mark as present what came without payload; returns these messages."""
        if not self._bare:
            return []
        came = []
        for topic, tov_ns, _ in self._log[cycle].entries:
            if topic not in self._bare or messages[self._bare[topic]].present:
                continue
            message = messages[self._bare[topic]]
            message.envelope.present, message.envelope.tov_ns = True, tov_ns
            came.append(message)
        return came


class _RecordedVideo:
    """The packets of a recorded topic, to write again."""

    def __init__(self, log: Log, slot: Slot) -> None:
        self._log = log
        self._topic = slot.topic
        self._decoder: VideoDecoder | None = None
        self._section = -1

    def packets(self, cycle: LoggedCycle) -> VideoPackets | None:
        """The packets of the cycle's picture: of the first one of a section, all from its beginning
        on. None if the log holds its pixels instead."""
        stored = self._read(cycle)
        if stored is None or not stored.holds_packets:
            return None
        own = stored.own
        pictures = [stored]
        begins = own["section"] != self._section
        if begins:
            pictures = self._since(own["key"], cycle.cycle, own["section"])
            self._decoder = pictures[0].decoder if pictures else None
        self._section = own["section"]
        if self._decoder is None:
            return None
        return VideoPackets(
            self._decoder,
            tuple(
                (bytes(packet.data), packet.is_key)
                for picture in pictures
                for packet in picture.packets
            ),
            first=pictures[0].own["first"],
            number=own["number"],
            section=own["section"],
            begins=begins,
            drained=own["drained"],
            conversion=own.get("convert", 0),
            before=tuple(stored.before),
            time_ns=own.get("time_ns"),
            is_sure=own["codec"] == "packets",
            is_damaged=stored.is_damaged,
        )

    def _since(self, key: int, cycle: int, section: int) -> list[StoredPicture]:
        """The messages of the section from its first one on; none if the log lacks it."""
        found = [
            picture
            for record in self._log.cycles(key, cycle + 1)
            if (picture := self._read(record)) is not None
            and picture.holds_packets
            and picture.own["section"] == section
        ]
        return found if found and found[0].decoder is not None else []

    def _read(self, cycle: LoggedCycle) -> StoredPicture | None:
        for topic, _, payload in cycle.entries:
            if topic == self._topic:
                return StoredPicture.parse(payload)
        return None
