"""The source task of another partition's outputs: what a part of a graph has in place of the tasks that
run elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from pydantic import Field

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message
from flowrun.runtime.errors import FlowrunError, UsageError
from flowrun.runtime.links.arrived import Gap, Taken
from flowrun.runtime.links.delivery import Batch, Passed, next_batch
from flowrun.runtime.links.feed import PictureFeed
from flowrun.runtime.links.origin import OriginMsg
from flowrun.runtime.links.receiver import Receiver
from flowrun.runtime.links.runs import Cursor
from flowrun.runtime.links.wire import Peer, Stream
from flowrun.runtime.task import Context, Output, State, Task, TaskConfig

__all__ = ["GapError", "Incoming", "LinkSource"]


class GapError(FlowrunError):
    """Messages of another partition are lost, and the graph says `on_gap: stop`."""


class Incoming:
    """What a `LinkSource` takes its messages from.

    sender: who sends them. streams: in the order of the task's outputs.
    stops_at_gap: whether a gap ends the run.
    """

    def __init__(
        self,
        receiver: Receiver,
        *,
        sender: Peer,
        streams: Sequence[Stream],
        stops_at_gap: bool = False,
    ) -> None:
        self.receiver, self.sender, self.streams = receiver, sender, streams
        self.stops_at_gap = stops_at_gap
        self.published: Cursor | None = None
        """The cursor after what was published last."""
        self.gaps = self.skipped = 0
        """Number of gaps, and of messages that were passed over, so far."""
        self._report: Callable[[State, str], None] = lambda _state, _code: None
        self._is_there: bool | None = None

    def report_to(self, report: Callable[[State, str], None]) -> None:
        """Call `report` with the state of the source, from now on."""
        self._report = report
        if self._is_there is not None:
            self.note_sender(is_there=self._is_there)

    def note_sender(self, *, is_there: bool) -> None:
        """The sender has come, or is gone."""
        self._is_there = is_there
        if is_there:
            self._report("running", "")
        elif not self.receiver.ended:
            self._report("lost", "not_found")


class LinkSource(Task):
    """Publish what a process of another partition sends, one of its cycles in one cycle.

    Where all that a cycle brings is to be delivered as the latest, the newest of the cycles that have
    come is published, and `origin` says how many messages were passed over.
    """

    class Config(TaskConfig):
        partition: str = Field(description="the partition that sends")
        instance: str = Field(default="0", description="its instance or replica")

    picture_codecs = ("packets", "raw", "zstd", "ffv1")
    streams_are_outputs: ClassVar[bool] = True
    """Whether the last parameter of `process` stands for the outputs that the graph gives it."""

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._incoming: Incoming | None = None
        self._feeds: dict[int, PictureFeed] = {}
        self._run = 0
        self._stop: Callable[[], None] = lambda: None

    def receive_from(self, incoming: Incoming) -> None:
        """Publish what comes there. To be called before the run starts."""
        self._incoming = incoming

    def start(self, ctx: Context) -> None:
        incoming = self._incoming
        if incoming is None:
            raise UsageError(
                f"task {ctx.task_id!r} gets what partition {self.config.partition!r} sends: run the "
                "graph with --partition, or with `flowrun up`"
            )
        ctx.live()
        ctx.report("connecting")
        self._feeds = {
            number: PictureFeed(lambda text: ctx.log.warning(text, sender=str(incoming.sender)))
            for number, stream in enumerate(incoming.streams)
            if stream.is_picture
        }
        incoming.report_to(ctx.report)
        incoming.receiver.wake = ctx.wake
        ctx.wake()

    def process(self, ctx: Context, origin: Output[OriginMsg], *streams: Output[Message]) -> None:
        incoming = self._incoming
        assert incoming is not None
        context, batch = next_batch(incoming.receiver, incoming.streams, ctx.now_ns)
        for taken in context:
            self._decode_only(taken)
        if batch is None:
            if incoming.receiver.ended and not incoming.receiver.waiting:
                ctx.finish()
            return
        if batch.gap is not None:
            self._note_gap(ctx, batch.gap)
        elif batch.run != self._run:
            for feed in self._feeds.values():
                feed.forget()
        self._run = batch.run
        shown = self._publish(ctx, batch, streams)
        self._describe(origin, batch, shown)
        incoming.published = batch.after
        if incoming.receiver.waiting:
            ctx.wake_at(0)

    def _publish(self, ctx: Context, batch: Batch, outputs: Sequence[Message]) -> list[int]:
        """Publish what is shown; returns the sender's cycle of each output's message."""
        shown = [-1] * len(outputs)
        assert self._incoming is not None
        for passed in batch.passed:
            number = passed.message.stream
            output = outputs[number]
            if number in self._feeds:
                assert isinstance(output, ImageRgb8Msg)
                is_shown = self._publish_picture(ctx, passed, output)
            elif passed.shown:
                fields = output.decode_fields(passed.message.data)
                output.restore(fields, tov_ns=passed.message.tov_ns)
                is_shown = True
            else:
                is_shown = False
            if is_shown:
                shown[number] = passed.cycle
        skipped = sum(not it.shown and not it.is_old for it in batch.passed)
        if skipped:
            ctx.dropped(skipped, "a newer one has come")
        old = sum(it.is_old for it in batch.passed)
        if old:
            ctx.dropped(old, "too old")
        self._incoming.skipped += skipped + old
        return shown

    def _publish_picture(self, ctx: Context, passed: Passed, output: ImageRgb8Msg) -> bool:
        feed = self._feeds[passed.message.stream]
        try:
            stored = feed.add(passed.cycle, bytes(passed.message.data))
            if stored is None or not passed.shown:
                if stored is None:
                    ctx.dropped(1, "no key frame has come")
                return False
            feed.show(output, passed.cycle, stored)
        except ValueError as error:
            ctx.log.warning("a picture that came cannot be shown", why=str(error))
            ctx.dropped(1, "it cannot be decoded")
            return False
        output.publish(tov_ns=passed.message.tov_ns)
        return True

    def _decode_only(self, taken: Taken) -> None:
        self._run = taken.head.run
        for message in taken.messages:
            feed = self._feeds.get(message.stream)
            if feed is not None:
                feed.add(taken.head.cycle, bytes(message.data))

    def _note_gap(self, ctx: Context, gap: Gap) -> None:
        incoming = self._incoming
        assert incoming is not None
        incoming.gaps += 1
        for feed in self._feeds.values():
            feed.forget()
        last = "the end of its run" if gap.last < 0 else str(gap.last)
        text = f"cycles {gap.first} to {last} of {incoming.sender} never come: {gap.reason}"
        if incoming.stops_at_gap:
            raise GapError(f"{text}; on_gap: record goes on without them")
        ctx.log.warning(text, run=gap.run)

    def _describe(self, origin: OriginMsg, batch: Batch, shown: list[int]) -> None:
        gap = batch.gap
        fields: dict[str, Any] = {
            "partition": self.config.partition,
            "instance": self.config.instance,
            "run": batch.run,
            "first": batch.first,
            "cycle": batch.cycle,
            "time_ns": batch.time_ns,
            "taken": shown,
            "crc": batch.crc,
            "skipped": batch.skipped,
        }
        if gap is not None:
            fields |= {
                "gap": gap.reason, "gap_run": gap.run, "gap_from": gap.first, "gap_to": gap.last
            }  # fmt: skip
        for name, value in fields.items():
            setattr(origin, name, value)
        origin.publish(tov_ns=batch.time_ns)
