"""A log for Foxglove's app, over a WebSocket: a recorded run with controls, or one that goes on.

The app connects to `ws://127.0.0.1:8765`. What it gets is what an export to Foxglove holds; see
`export.foxglove`. A recorded run has a time range: the app plays, pauses, seeks, sets the speed. After
a seek each topic shows its newest message before that moment, pictures from their key frame on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

from flowrun.runtime.clock import monotonic_s
from flowrun.runtime.errors import LogError, UsageError
from flowrun.runtime.export.foxglove import FoxgloveChannels, Put
from flowrun.runtime.export.going_on import POLL_S, newest_cycle, settled
from flowrun.runtime.export.selection import ExportReport, Selection
from flowrun.runtime.extras import import_optional
from flowrun.runtime.log.message import Bounds, LogMessage
from flowrun.runtime.log.reader import Log

__all__ = ["DEFAULT_PORT", "FoxgloveServer", "SdkSink"]

DEFAULT_PORT = 8765
_TICK_S = 0.02
_SUBSCRIBING_S = 0.1
"""The SDK says that somebody subscribes shortly before the messages go there."""
_BEFORE_NS = 3_000_000_000
"""How far before a moment the newest message of a topic is looked for."""


class FoxgloveServer:
    """Serves `log` until `stop`; needs the package foxglove-sdk.

    log: a recorded run, which `play` shows; or one that goes on, which `follow` does.
    is_live: which of them it is.
    host, port: where it listens; port 0 picks a free one, see `port`.
    selection: what is served.
    url, app_url: what the app connects to, and a link that opens it in a browser.

    Raises `UsageError` if it cannot listen there, `LogError` for a log without a cycle.
    """

    def __init__(
        self,
        log: Log,
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        selection: Selection | None = None,
    ) -> None:
        self._sdk = import_optional(
            "foxglove", "a server for Foxglove", extra="foxglove", install="foxglove-sdk"
        )
        start_ns, end_ns = log.start_ns, log.end_ns
        if start_ns is None or end_ns is None:
            raise LogError(f"{log.path}: no cycle in it: there is nothing to show")
        self._log = log
        self._range = (start_ns, end_ns)
        self._context = self._sdk.Context()
        self._sink = SdkSink(self._sdk, self._context)
        self.report = ExportReport()
        self._selection = selection or Selection()
        self._ended = threading.Event()
        self._asked = threading.Condition()
        self._playing, self._speed, self._at_ns = False, 1.0, start_ns
        self._seek_ns: int | None = start_ns
        self._again_s: float | None = None
        """When what is shown now is to be sent again, in `monotonic_s`."""
        self.is_live: bool = log.is_written
        self._listener = _Listener(self)
        options: dict[str, Any] = {} if self.is_live else {"playback_time_range": self._range}
        try:
            self._server = self._sdk.start_server(
                name=f"flowrun: {log.metadata.get('run_id', log.path.name)}",
                host=host,
                port=port,
                capabilities=[self._sdk.websocket.Capability.Time],
                server_listener=self._listener,
                context=self._context,
                **options,
            )
        except Exception as error:  # noqa: BLE001  # the SDK's own, of several kinds
            raise UsageError(f"cannot serve Foxglove at port {port} of {host!r}: {error}") from None
        self.port: int = self._server.port
        self.url = f"ws://{host}:{self.port}"
        self.app_url: str = self._server.app_url()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close all connections."""
        self._ended.set()
        self._wake()
        self._server.stop()

    # -- a recorded run ------------------------------------------------------------------------

    def play(self) -> None:
        """Send what the app asks for, until `stop`, on this thread."""
        shown = FoxgloveChannels(self._log, self._selection, self._sink, self.report)
        messages: Iterator[LogMessage] = iter(())
        waiting: LogMessage | None = None
        begun_s = begun_ns = 0.0
        while not self._ended.is_set():
            with self._asked:
                seek_ns, self._seek_ns = self._seek_ns, None
                playing, speed, at_ns = self._playing, self._speed, self._at_ns
            if seek_ns is not None:
                self._show_moment(shown, seek_ns)
                messages, waiting = self._from(shown, seek_ns), None
                begun_s, begun_ns = monotonic_s(), seek_ns
            if not playing:
                self._wait()
                begun_s, begun_ns = monotonic_s(), self._at_ns
                continue
            until_ns = int(begun_ns + (monotonic_s() - begun_s) * 1e9 * speed)
            while self._seek_ns is None:
                waiting = next(messages, None) if waiting is None else waiting
                if waiting is None or waiting.time_ns > until_ns:
                    break
                shown.write(waiting)
                waiting = None
            self._reach(min(until_ns, self._range[1]), at_ns)
            self._ended.wait(_TICK_S)

    def _from(self, shown: FoxgloveChannels, at_ns: int) -> Iterator[LogMessage]:
        selection = Selection(self._selection.topics, Bounds(start_ns=at_ns + 1))
        return selection.messages(self._log, *shown.topics)

    def _reach(self, now_ns: int, before_ns: int) -> None:
        """The moment is now `now_ns`, if nobody has asked for another since it was `before_ns`."""
        with self._asked:
            if self._seek_ns is not None or self._at_ns != before_ns:
                return
            self._at_ns = now_ns
            is_over = now_ns >= self._range[1]
            self._playing = self._playing and not is_over
        self._server.broadcast_time(now_ns)
        if is_over:
            self._server.broadcast_playback_state(self.state())

    def _show_moment(self, shown: FoxgloveChannels, at_ns: int) -> None:
        """Send the newest message of each topic up to `at_ns`."""
        newest: dict[str, LogMessage] = {}
        bounds = Bounds(start_ns=at_ns - _BEFORE_NS, end_ns=at_ns + 1)
        for message in self._log.messages(shown.topics, **bounds):
            newest[message.topic] = message
        shown.begin_again()
        for message in newest.values():
            shown.write(message)
        self._server.broadcast_time(at_ns)

    def ask(self, *, playing: bool, speed: float, seek_ns: int | None) -> None:
        """Play or pause, at `speed`, from `seek_ns` on if that is given. From any thread."""
        first, last = self._range
        with self._asked:
            if seek_ns is None and playing and self._at_ns >= last:
                seek_ns = first  # play once more
            if seek_ns is None and speed != self._speed:
                seek_ns = self._at_ns  # the clock begins again from here
            if seek_ns is not None:
                self._seek_ns = self._at_ns = min(max(seek_ns, first), last)
            self._playing, self._speed = playing, speed
        self._wake()

    def show_again(self) -> None:
        """Somebody is about to subscribe who has seen nothing yet. From any thread."""
        with self._asked:
            self._again_s = monotonic_s() + _SUBSCRIBING_S
        self._wake()

    def state(self, *, did_seek: bool = False, request: str | None = None) -> Any:
        """What the app shows of the playback."""
        sdk = self._sdk.websocket
        is_over = not self._playing and self._at_ns >= self._range[1]
        paused = sdk.PlaybackStatus.Ended if is_over else sdk.PlaybackStatus.Paused
        return sdk.PlaybackState(
            status=sdk.PlaybackStatus.Playing if self._playing else paused,
            current_time=self._at_ns,
            playback_speed=self._speed,
            did_seek=did_seek,
            request_id=request,
        )

    def _wait(self) -> None:
        """While it is paused, until something is asked for."""
        with self._asked:
            while not (self._ended.is_set() or self._playing or self._seek_ns is not None):
                if self._again_s is None:
                    self._asked.wait()
                elif (left_s := self._again_s - monotonic_s()) > 0:
                    self._asked.wait(left_s)
                else:
                    self._again_s, self._seek_ns = None, self._at_ns

    def _wake(self) -> None:
        with self._asked:
            self._asked.notify_all()

    # -- a run that goes on --------------------------------------------------------------------

    def follow(self) -> None:
        """Send what comes, until the run ends or `stop`, on this thread."""
        log = self._log
        selection = Selection(self._selection.topics, Bounds(start=settled(log, self._ended)))
        shown = FoxgloveChannels(log, selection, self._sink, self.report)
        following: int | None = None
        while not self._ended.wait(POLL_S):
            goes_on = log.is_written
            log.refresh()
            if not self._listener.count:
                following = None
            else:
                if following is None:
                    shown.begin_again()
                    following = newest_cycle(log)
                for message in log.messages(shown.topics, following):
                    shown.write(message)
                    following = message.cycle + 1
            if not goes_on:
                return


class SdkSink:
    """Where channels go: the clients of a server.

    sdk: the module `foxglove`. context: the server's.
    """

    def __init__(self, sdk: Any, context: Any) -> None:
        self._sdk, self._context = sdk, context

    def channel(
        self, name: str, encoding: str, schema: tuple[str, str, bytes], metadata: dict[str, str]
    ) -> Put:
        """A channel of the server's."""
        kind, form, data = schema
        described = self._sdk.Schema(name=kind, encoding=form, data=data) if any(schema) else None
        channel = self._sdk.Channel(
            name,
            schema=described,
            message_encoding=encoding or "json",
            context=self._context,
            metadata=metadata,
        )
        log: Callable[..., None] = channel.log

        def put(data: bytes, time_ns: int, _tov_ns: int, _cycle: int) -> None:
            log(bytes(data), log_time=time_ns)

        return put


class _Listener:
    """What the SDK calls on its threads, as `foxglove.websocket.ServerListener`."""

    def __init__(self, server: FoxgloveServer) -> None:
        self._server = server
        self._subscribed: set[tuple[int, int]] = set()

    @property
    def count(self) -> int:
        """Number of subscriptions."""
        return len(self._subscribed)

    def on_subscribe(self, client: Any, channel: Any) -> None:
        self._subscribed |= {(client.id, channel.id)}
        self._server.show_again()

    def on_unsubscribe(self, client: Any, channel: Any) -> None:
        self._subscribed -= {(client.id, channel.id)}

    def on_playback_control_request(self, request: Any) -> Any:
        self._server.ask(
            playing=request.playback_command.name == "Play",
            speed=request.playback_speed,
            seek_ns=request.seek_time,
        )
        return self._server.state(
            did_seek=request.seek_time is not None, request=request.request_id
        )

    def on_client_advertise(self, client: Any, channel: Any) -> None: ...
    def on_client_unadvertise(self, client: Any, client_channel_id: int) -> None: ...
    def on_message_data(self, client: Any, client_channel_id: int, data: bytes) -> None: ...
