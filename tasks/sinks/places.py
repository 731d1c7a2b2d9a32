"""Where a sink's file goes.

A path may hold placeholders, so that a second run writes another file:

| placeholder | what takes its place                                                          |
|-------------|-------------------------------------------------------------------------------|
| `{run}`     | the name of the run, as of its log's directory: `porch-20260301T081502Z`      |
| `{start}`   | the time (UTC) of the first message in the file: `20260301T081503Z`           |
| `{task}`    | the sink's id                                                                 |

A folder whose name holds one is made where it is missing; others must be there.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from weakref import WeakKeyDictionary

from flowrun.runtime.task import Context
from flowrun.runtime.wording import listed, nearest

__all__ = ["NewFile", "SinkFileError", "is_own", "lock", "note_own", "path_of", "problems_of"]

_BEGUN: WeakKeyDictionary[Context, set[Path]] = WeakKeyDictionary()
"""The files that each task has begun. A restarted task remembers nothing by itself."""
_PLACEHOLDERS = ("run", "start", "task")
_BRACES = re.compile(r"\{([^{}]*)\}|[{}]")


def problems_of(
    path: str, graph_dir: Path, *, suffixes: Collection[str], must_be_new: bool = False
) -> Iterator[str]:
    """What is wrong with a path, before the run.

    suffixes: the endings that it may have; none: any.
    must_be_new: whether there must be no such file yet.
    """
    for found in _BRACES.finditer(path):
        name = found[1]
        if name is None:
            yield f"{path!r}: a {found[0]!r} alone; placeholders: {_shown()}"
        elif name not in _PLACEHOLDERS:
            yield f"{path!r}: unknown placeholder {found[0]!r}; placeholders: {_shown()}" + nearest(
                name, _PLACEHOLDERS
            )
    whole = graph_dir / path
    if not path or path.endswith("/") or whole.is_dir():
        yield f"{path!r} is a folder; give the name of a file"
        return
    if "\0" in path:
        yield "a path holds no NUL"
        return
    suffix = whole.suffix.lower()
    if suffixes and suffix not in suffixes:
        yield f"{path!r}: must end in one of {listed(suffixes)}" + nearest(suffix, suffixes)
    folder = _fixed(whole.parent)
    if not folder.is_dir():
        kind = "is no folder" if folder.exists() else "no such folder"
        yield f"{path!r}: {kind}: {folder}; make it before the run"
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield f"{path!r}: may not write to the folder {folder}"
    elif whole.exists() and not os.access(whole, os.W_OK):
        yield f"{path!r}: may not write to the file"
    elif must_be_new and whole.exists():
        yield f"{path!r} exists; write {{run}} or {{start}} into the name, or set if_exists"


def path_of(path: str, ctx: Context, time_ns: int) -> Path:
    """The file, whose folders are made where the path says so.

    time_ns: the time of the first message in it.
    """
    start = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y%m%dT%H%M%SZ")
    values = {"run": ctx.run_id, "start": start, "task": ctx.task_id}
    whole = ctx.graph_dir / _BRACES.sub(lambda found: values.get(found[1], ""), path)
    template = (ctx.graph_dir / path).parent
    if _fixed(template) != template:
        whole.parent.mkdir(parents=True, exist_ok=True)
    return whole


def is_own(path: Path, ctx: Context) -> bool:
    """Whether the task has begun the file in this run, also before it was restarted after an error."""
    return path in _BEGUN.get(ctx, ())


def note_own(path: Path, ctx: Context) -> None:
    """The task begins the file."""
    _BEGUN.setdefault(ctx, set()).add(path)


class SinkFileError(OSError):
    """A file cannot be written, or is another one than it must be."""


class NewFile:
    """A file that has been made to be written, by nobody else until it is closed.

    path: the name that was free: the one wanted, or that with -2, -3, ... before its ending.
    """

    def __init__(self, wanted: Path, *, replaces: bool = False) -> None:
        """Make it, empty. `SinkFileError` where that fails.

        replaces: whether `wanted` is taken though it exists.
        """
        for number in count(1):
            self.path = wanted if number == 1 else wanted.with_stem(f"{wanted.stem}-{number}")
            try:
                flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | (0 if replaces else os.O_EXCL)
                self._fd = os.open(self.path, flags, 0o666)
            except FileExistsError:
                continue
            except OSError as error:
                raise SinkFileError(f"cannot write {self.path}: {error.strerror}") from None
            try:
                lock(self._fd, self.path)
            except SinkFileError:
                os.close(self._fd)
                raise
            return

    def close(self) -> None:
        os.close(self._fd)


def lock(fd: int, path: Path) -> None:
    """Have an open file for oneself. `SinkFileError` if another task or run has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SinkFileError(f"{path}: another task or run is writing it") from None
    except OSError:
        pass  # a file system without locks


def _fixed(folder: Path) -> Path:
    """The part of a folder's path that holds no placeholder."""
    while _BRACES.search(folder.name):
        folder = folder.parent
    for parent in folder.parents:
        if _BRACES.search(parent.name):
            return _fixed(parent)
    return folder


def _shown() -> str:
    return listed(f"{{{name}}}" for name in _PLACEHOLDERS)
