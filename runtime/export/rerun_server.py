"""A log for Rerun's viewer, over the network: a recorded run, or one that goes on.

The viewer connects to `rerun+http://127.0.0.1:9876/proxy`. What it gets is what an export to Rerun
holds; see `export.rerun`. The server keeps what was sent, for viewers that come later, up to 1 GB: the
oldest goes first.
"""

from __future__ import annotations

import threading

from flowrun.runtime.errors import UsageError
from flowrun.runtime.export.going_on import POLL_S, settled
from flowrun.runtime.export.rerun import RerunRecording
from flowrun.runtime.export.selection import Selection
from flowrun.runtime.log.message import Bounds
from flowrun.runtime.log.reader import Log

__all__ = ["DEFAULT_PORT", "RerunServer"]

DEFAULT_PORT = 9876
_KEPT = "1GB"


class RerunServer:
    """Serves `log` until `stop`; needs the package rerun-sdk.

    log: a recorded run, or one that goes on.
    is_live: which of them it is.
    url: what the viewer connects to.

    Raises `UsageError` if it cannot listen at `port`.
    """

    def __init__(self, log: Log, *, port: int = DEFAULT_PORT) -> None:
        self._log = log
        self._ended = threading.Event()
        self.is_live: bool = log.is_written
        first = settled(log, self._ended) if self.is_live else None
        bounds = Bounds() if first is None else Bounds(start=first)
        self._recording = RerunRecording(log, Selection(None, bounds), "a server for Rerun")
        self.report = self._recording.report
        try:
            self.url: str = self._recording.stream.serve_grpc(
                grpc_port=port, server_memory_limit=_KEPT
            )
        except Exception as error:  # noqa: BLE001  # the SDK's own, of several kinds
            raise UsageError(f"cannot serve Rerun at port {port}: {error}") from None

    def send(self) -> None:
        """Send all of a recorded run; of one that goes on what comes, until it ends or `stop`."""
        following: int | None = None
        goes_on = True
        while goes_on and not self._ended.is_set():
            goes_on = self.is_live and self._log.is_written
            if self.is_live:
                self._log.refresh()
            for message in self._recording.messages(following):
                if self._ended.is_set():
                    return
                self._recording.write(message)
                following = message.cycle + 1
            self._recording.arrange()
            if goes_on:
                self._ended.wait(POLL_S)
        self._recording.stream.flush()

    def stop(self) -> None:
        """Close all connections."""
        self._ended.set()
        self._recording.stream.disconnect()
