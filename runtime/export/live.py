"""Messages of a run that goes on, shown by viewers as they come: not what the log holds, but what is
handed over here.

Pictures are JPEGs. All else is as in an export of the log; see `export.rerun` and `export.foxglove`. It
is named as in the log: `/task/port`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message
from flowrun.runtime.errors import UsageError
from flowrun.runtime.export import foxglove_messages
from flowrun.runtime.export.foxglove import Channels, value_writer
from flowrun.runtime.export.foxglove_server import SdkSink
from flowrun.runtime.export.pictures import Stretches
from flowrun.runtime.export.rerun import Entities
from flowrun.runtime.export.rerun_server import RerunProcess
from flowrun.runtime.export.selection import ExportReport
from flowrun.runtime.extras import import_optional
from flowrun.runtime.log.message import Topic
from flowrun.runtime.pictures.encode import jpeg_of
from flowrun.runtime.pictures.squares import square_size

__all__ = ["FoxgloveViewer", "LiveMessage", "RerunViewer", "Viewer"]

_QUALITY = 80


class LiveMessage(NamedTuple):
    """A message, and what is known of it.

    topic: "/task/port" of the output that has published it.
    """

    message: Message
    topic: str
    cycle: int
    time_ns: int

    @property
    def tov_ns(self) -> int:
        return self.message.tov_ns

    @property
    def fields(self) -> dict[str, Any]:
        return self.message.all_fields()


class Viewer(Protocol):
    """What shows messages."""

    where: str
    """What its user connects to, or the file."""

    def show(self, it: LiveMessage) -> None: ...

    def close(self) -> None: ...


class _Pictures:
    """How the pictures of a topic went out; see `PictureExport.stretch`."""

    stretch = (1.0, 1.0)

    def note(self, image: ImageRgb8Msg) -> None:
        height, width = square_size(image.height, image.width, image.pixel_aspect)
        self.stretch = width / image.width, height / image.height

    def begin_again(self) -> None: ...


class RerunViewer:
    """Rerun: a server that viewers connect to, or a recording. Needs the package rerun-sdk.

    name: of the graph. run_id: of the run.
    path: the recording's file (.rrd); None: a server at `host` and `port`, which keeps 1 GB for viewers
        that come later.

    Raises `UsageError` if it cannot listen there.
    """

    def __init__(self, name: str, run_id: str, *, path: Path | None, host: str, port: int) -> None:
        rerun = import_optional("rerun", "RerunSink", extra="rerun", install="rerun-sdk")
        self._stream = rerun.RecordingStream(
            f"flowrun_{name}", recording_id=run_id, send_properties=False
        )
        self._stream.set_log_time_enabled(False)
        self._stream.set_log_tick_enabled(False)
        self._entities = Entities(rerun, self._stream)
        self._stretches = Stretches(b"")
        self._pictures: dict[str, _Pictures] = {}
        self._server: RerunProcess | None = None
        if path is None:
            self._server = RerunProcess(host=host, port=port)
            self.where = self._server.url
            self._stream.connect_grpc(self.where)
            return
        try:
            self._stream.save(str(path))
        except Exception as error:  # noqa: BLE001  # the SDK's own, of several kinds
            raise UsageError(f"cannot write {path}: {error}") from None
        self.where = str(path)

    def show(self, it: LiveMessage) -> None:
        self._entities.at(it)
        if isinstance(it.message, ImageRgb8Msg):
            _noted(self._pictures, self._stretches, it.topic).note(it.message)
            self._entities.jpeg(it.topic, jpeg_of(it.message, quality=_QUALITY))
        else:
            self._entities.values(it.topic, it.fields, self._stretches)
        self._entities.arrange(b"")

    def close(self) -> None:
        self._stream.flush()
        self._stream.disconnect()
        if self._server is not None:
            self._server.stop()


class FoxgloveViewer:
    """Foxglove: a WebSocket that the app connects to. Needs the package foxglove-sdk.

    name: of the run, as the app shows it.
    host, port: where it listens; port 0 picks a free one.

    Raises `UsageError` if it cannot listen there.
    """

    def __init__(self, name: str, *, host: str, port: int) -> None:
        sdk = import_optional("foxglove", "FoxgloveSink", extra="foxglove", install="foxglove-sdk")
        context = sdk.Context()
        self._channels = Channels(SdkSink(sdk, context), ExportReport())
        self._stretches = Stretches(b"")
        self._pictures: dict[str, _Pictures] = {}
        self._ways: dict[str, Any] = {}
        try:
            self._server = sdk.start_server(name=name, host=host, port=port, context=context)
        except Exception as error:  # noqa: BLE001  # the SDK's own, of several kinds
            raise UsageError(f"cannot serve Foxglove at port {port} of {host!r}: {error}") from None
        self.where = f"ws://{host}:{self._server.port}"

    def show(self, it: LiveMessage) -> None:
        if it.topic not in self._ways:
            self._ways[it.topic] = self._way(it)
        self._ways[it.topic](it)

    def close(self) -> None:
        self._server.stop()

    def _way(self, first: LiveMessage) -> Any:
        kind = first.message.own_class
        _, task, port = first.topic.split("/", 2)
        topic = Topic(
            first.topic,
            kind.message_encoding,
            kind.schema_name,
            kind.schema_encoding,
            kind.schema(),
            {"task": task, "port": port},
        )
        if not isinstance(first.message, ImageRgb8Msg):
            return value_writer(topic, self._channels, self._stretches)
        noted = _noted(self._pictures, self._stretches, first.topic)
        name, described = foxglove_messages.COMPRESSED_IMAGE
        write = self._channels.add(first.topic, "protobuf", (name, "protobuf", described()), topic)

        def picture(it: LiveMessage) -> None:
            image = it.message
            assert isinstance(image, ImageRgb8Msg)
            noted.note(image)
            data = foxglove_messages.pack_compressed(
                it.tov_ns, image.source, "jpeg", jpeg_of(image, quality=_QUALITY), is_video=False
            )
            write(it, data)

        return picture


def _noted(pictures: dict[str, _Pictures], stretches: Stretches, topic: str) -> _Pictures:
    if topic not in pictures:
        pictures[topic] = _Pictures()
        stretches.add(topic, pictures[topic])
    return pictures[topic]
