"""`RerunSink` and `FoxgloveSink`: messages in the viewers of others, while the run goes on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

from flowrun.msgs.detections import DetectionsMsg
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message
from flowrun.msgs.text import PromptResponseMsg
from flowrun.runtime.extras import missing
from flowrun.runtime.task import Context, Input, Task, TaskConfig
from flowrun.tasks.sinks.outbox import Outbox
from flowrun.tasks.sinks.places import NewFile, path_of, problems_of
from flowrun.tasks.sinks.settings import Host

if TYPE_CHECKING:
    from flowrun.runtime.export.live import LiveMessage, Viewer

__all__ = ["FoxgloveSink", "RerunSink"]

_END_S = 5.0
"""The longest that the end of a run waits for a viewer to be shown what has come."""
_END_OF_FILE_S = 60.0
"""The same for a recording, which nobody's viewer delays."""
_RERUN_PORT, _FOXGLOVE_PORT = 9876, 8765


class _Settings(TaskConfig):
    queue: PositiveInt = 100
    """The most messages that wait to be shown; beyond that the oldest is dropped. For a recording the
    cycle waits, unless a source of the run is live."""


class _ViewerSink(Task):
    """Common to both: what is connected is shown, by a thread."""

    Config: type[_Settings] = _Settings
    acts_outside = True
    end_s = _END_S

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._outbox: Outbox[LiveMessage] | None = None
        self._viewer: Viewer | None = None

    @abstractmethod
    def viewer(self, ctx: Context) -> Viewer:
        """What shows the messages. `UsageError` or `SinkFileError` where it cannot be made."""

    def begin(self, ctx: Context) -> Outbox[LiveMessage]:
        """Make the viewer."""
        self._ctx = ctx
        self._viewer = viewer = self.viewer(ctx)
        ctx.log.info("shows the run", where=viewer.where)
        self._outbox = Outbox(ctx, viewer.show, most=self.config.queue, waits=self.waits)
        return self._outbox

    def waits(self) -> bool:
        """Whether a cycle waits for the viewer."""
        return False

    def process(
        self,
        ctx: Context,
        image: Input[ImageRgb8Msg] | None,
        detections: Input[DetectionsMsg] | None,
        answer: Input[PromptResponseMsg] | None,
        message: Input[Message] | None,
    ) -> None:
        from flowrun.runtime.export.live import LiveMessage

        outbox = self._outbox or self.begin(ctx)
        for port, it in (
            ("image", image),
            ("detections", detections),
            ("answer", answer),
            ("message", message),
        ):
            if it is not None:
                topic = "/" + ctx.fed_by.get(port, f"{ctx.task_id}.{port}").replace(".", "/", 1)
                outbox.put(LiveMessage(it.copy(), topic, ctx.cycle, ctx.now_ns))

    def stop(self, ctx: Context) -> None:
        del ctx
        try:
            if self._outbox is not None:
                self._outbox.close(self.end_s)
        finally:
            if self._viewer is not None:
                self._viewer.close()


class RerunSink(_ViewerSink):
    """Show messages in Rerun while the run goes on, or write them as a recording.

    Takes pictures at `image`, `detections`, `answer`, and messages of any class, also more pictures, at
    `message`; connect what is to be shown. Pictures are JPEGs. The viewer connects to
    `rerun+http://127.0.0.1:9876/proxy`; the server asks for nothing, and keeps 1 GB for viewers that
    come later. `flowrun GRAPH --rerun` shows all that the log holds, without this task. A replay shows
    nothing.
    """

    class Config(_Settings):
        path: str | None = None
        """A recording (.rrd) to write in place of serving; a relative path starts at the graph file, and
        {run}, {start} (UTC) and {task} have values of the run. Where it exists, NAME-2 is written."""
        host: Host = "127.0.0.1"
        """The address at which to listen; 0.0.0.0 for all of this machine."""
        port: Annotated[int, Field(ge=1, le=65535)] = _RERUN_PORT
        """The port that the viewer connects to."""

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._file: NewFile | None = None

    @classmethod
    def check(cls, config: TaskConfig, graph_dir: Path) -> Iterator[tuple[str, str]]:
        assert isinstance(config, cls.Config)
        text = missing("RerunSink", ["rerun"], extra="rerun", install=["rerun-sdk"])
        if text is not None:
            yield "", text
        if config.path is not None:
            for text in problems_of(config.path, graph_dir, suffixes=[".rrd"]):
                yield "path", text

    def start(self, ctx: Context) -> None:
        if self.config.path is None:
            self.begin(ctx)

    def waits(self) -> bool:
        return self.config.path is not None and not self._ctx.follows_live

    def viewer(self, ctx: Context) -> Viewer:
        from flowrun.runtime.export.live import RerunViewer

        config = self.config
        if config.path is not None:
            self.end_s = _END_OF_FILE_S
            self._file = NewFile(path_of(config.path, ctx, ctx.now_ns))
        path = None if self._file is None else self._file.path
        return RerunViewer(ctx.run_id, ctx.run_id, path=path, host=config.host, port=config.port)

    def stop(self, ctx: Context) -> None:
        try:
            super().stop(ctx)
        finally:
            if self._file is not None:
                self._file.close()


class FoxgloveSink(_ViewerSink):
    """Show messages in Foxglove while the run goes on.

    Takes pictures at `image`, `detections`, `answer`, and messages of any class, also more pictures, at
    `message`; connect what is to be shown. Pictures are JPEGs. The app connects to
    `ws://127.0.0.1:8765`. `flowrun GRAPH --foxglove` shows all that the log holds, without this task. A
    replay shows nothing.
    """

    class Config(_Settings):
        host: Host = "127.0.0.1"
        """The address at which to listen; 0.0.0.0 for all of this machine."""
        port: Annotated[int, Field(ge=0, le=65535)] = _FOXGLOVE_PORT
        """The port that the app connects to; 0: a free one, which the log names."""

    @classmethod
    def check(cls, config: TaskConfig, _graph_dir: Path) -> Iterator[tuple[str, str]]:
        assert isinstance(config, cls.Config)
        text = missing("FoxgloveSink", ["foxglove"], extra="foxglove", install=["foxglove-sdk"])
        if text is not None:
            yield "", text

    def start(self, ctx: Context) -> None:
        self.begin(ctx)

    def viewer(self, ctx: Context) -> Viewer:
        from flowrun.runtime.export.live import FoxgloveViewer

        return FoxgloveViewer(
            f"flowrun: {ctx.run_id}", host=self.config.host, port=self.config.port
        )
