"""The runs of this user on this machine, by a socket each: `flowrun top` finds them without being told.

A run listens at `flowrun/PID.sock` in `$XDG_RUNTIME_DIR`, or in a folder of the user's own in that for
temporary files. It sends each client one JSON object: `pid`, `directory` (of its log, or null),
`url` (of its page, or null) and `report`, as `/api/v0/report` gives it. Only the user can connect.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowrun.runtime.server.status import Status

if TYPE_CHECKING:
    from flowrun.runtime.run.live import Run

__all__ = ["Announced", "announced", "running"]

_TIMEOUT_S = 2.0
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Announced:
    """A run that goes on.

    pid: its process.
    directory: where its log is; None for one that keeps none.
    url: where its page is, with the token if there is one; None where it is not served.
    report: as `/api/v0/report` gives it.
    """

    pid: int
    directory: Path | None
    url: str | None
    report: dict[str, Any]


@contextmanager
def announced(run: Run, url: str | None) -> Iterator[None]:
    """Answer `running` while the context is open, on a thread; where there can be no socket, the run
    goes on without one."""
    listener = None
    with contextlib.suppress(OSError):
        listener, path = _listen()
    if listener is None:
        yield
        return
    directory = None if run.directory is None else str(run.directory.absolute())
    said = {"pid": os.getpid(), "directory": directory, "url": url}
    status = Status(run)
    thread = threading.Thread(
        target=_answer, args=(listener, status, said), name="announced", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        thread.join(_TIMEOUT_S)
        with contextlib.suppress(OSError):
            listener.close()


def running() -> list[Announced]:
    """The runs of this user that go on now, the oldest first."""
    try:
        paths = sorted(_folder().glob("*.sock"), key=lambda it: it.lstat().st_mtime_ns)
    except OSError:
        return []
    asked = map(_ask, paths)
    return [it for it in asked if it is not None]


def _ask(path: Path) -> Announced | None:
    """What the run that listens at `path` says; None if none does any more."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_TIMEOUT_S)
        try:
            client.connect(str(path))
            with client.makefile("rb") as file:
                said = json.load(file)
            directory = said["directory"]
            place = None if directory is None else Path(directory)
            return Announced(said["pid"], place, said["url"], said["report"])
        except ConnectionRefusedError:  # its process was killed
            path.unlink(missing_ok=True)
        except (OSError, ValueError, KeyError, TypeError):
            pass
    return None


def _listen() -> tuple[socket.socket, Path]:
    path = _folder() / f"{os.getpid()}.sock"
    path.unlink(missing_ok=True)  # of an earlier process of that number
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener, path


def _folder() -> Path:
    """A folder that only this user can read and write. `OSError` if there can be none."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    user = os.getuid()
    folder = (
        Path(runtime) / "flowrun" if runtime else Path(tempfile.gettempdir()) / f"flowrun-{user}"
    )
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user or found.st_mode & _OTHERS:
        raise PermissionError(f"{folder} is somebody else's, or others can use it")
    return folder


def _answer(listener: socket.socket, status: Status, said: dict[str, Any]) -> None:
    """Until the listener is shut down, or a task has closed it."""
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            with client, contextlib.suppress(OSError):
                client.settimeout(_TIMEOUT_S)
                client.sendall(json.dumps({**said, "report": status.report()}).encode())
