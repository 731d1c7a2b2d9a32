"""A log for Rerun's viewer, over the network: a recorded run, or one that goes on.

The viewer connects to `rerun+http://127.0.0.1:9876/proxy`. What it gets is what an export to Rerun
holds; see `export.rerun`. The server keeps what was sent, for viewers that come later, up to 1 GB: the
oldest goes first.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from pathlib import Path

from flowrun.runtime.children.process import ChildProcess
from flowrun.runtime.errors import UsageError
from flowrun.runtime.export.going_on import POLL_S, settled
from flowrun.runtime.export.rerun import RerunRecording
from flowrun.runtime.export.selection import Selection
from flowrun.runtime.log.message import Bounds
from flowrun.runtime.log.reader import Log

__all__ = ["DEFAULT_PORT", "RerunProcess", "RerunServer"]

DEFAULT_PORT = 9876
_KEPT = "1GB"
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # where the first one is reached from here


class RerunProcess:
    """Rerun's server as a process of its own, which ends with this one or by `stop`.

    That of the SDK, in this process, listens at every address of the machine.

    host, port: where it listens; port 0 is a free one.
    url: what viewers, and `RecordingStream.connect_grpc`, connect to.

    Raises `UsageError` if it cannot listen there.
    """

    def __init__(self, *, host: str, port: int) -> None:
        where = f"at port {port} of {host!r}"
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                bound, port = probe.getsockname()[:2]
        except OSError as error:
            raise UsageError(f"cannot serve Rerun {where}: {error.strerror}") from None
        command = [sys.executable, "-P", "-m", "rerun", "--serve-grpc"]
        command += ["--bind", bound, "--port", str(port), "--server-memory-limit", _KEPT]
        # CI: it then sends nothing about its use to its makers.
        self._process = ChildProcess(
            command, folder=Path.cwd(), name="flowrun-rerun", env={"CI": "true"}
        )
        self._process.start()
        reached = _ANY.get(bound, bound)
        while not _listens(reached, port):
            if self._process.wait(POLL_S) is not None:
                why = "; ".join(self._process.last_lines[-1:]) or "it has ended"
                raise UsageError(f"cannot serve Rerun {where}: {why}")
        name = f"[{reached}]" if ":" in reached else reached
        self.url = f"rerun+http://{name}:{port}/proxy"

    def stop(self) -> None:
        """Close all connections."""
        self._process.stop()


def _listens(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=POLL_S):
        return True
    return False


class RerunServer:
    """Serves `log` until `stop`; needs the package rerun-sdk.

    log: a recorded run, or one that goes on.
    host, port: where it listens.
    is_live: which of them it is.
    url: what the viewer connects to.

    Raises `UsageError` if it cannot listen there.
    """

    def __init__(self, log: Log, *, host: str = "127.0.0.1", port: int = DEFAULT_PORT) -> None:
        self._log = log
        self._ended = threading.Event()
        self.is_live: bool = log.is_written
        first = settled(log, self._ended) if self.is_live else None
        bounds = Bounds() if first is None else Bounds(start=first)
        self._recording = RerunRecording(log, Selection(None, bounds), "a server for Rerun")
        self.report = self._recording.report
        self._server = RerunProcess(host=host, port=port)
        self.url: str = self._server.url
        self._recording.stream.connect_grpc(self.url)

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
        self._server.stop()
