"""Files that are written whole or not at all, and names for them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flowrun.runtime.errors import LogError, UsageError

__all__ = ["file_name", "require_place", "whole_file", "whole_folder"]

_NO_NAME = re.compile(r"[^\w.-]+")
_LONGEST_NAME = 120
"""Bytes, of the 255 that file systems allow: something is put before and after it."""


def file_name(text: str) -> str:
    """A text of somebody else's, such as a task's id in a log, as the name of a file, or a part of one:
    it leads to no other folder. An ordinary id stays as it is."""
    name = _NO_NAME.sub("-", text).encode(errors="replace")[:_LONGEST_NAME].decode(errors="ignore")
    return name if name.strip(".") else "_"


def require_place(option: str, path: Path | None, *endings: str) -> None:
    """`UsageError` where no file can be made at `path`, which was given to `option`: before the work
    whose result it is to take. None is no file.

    endings: of the file's name, one of which is expected, such as ".html".
    """
    if path is None:
        return
    if endings and path.suffix not in endings:
        raise UsageError(f"{option} {path}: expected a name ending in {_either(endings)}")
    if path.is_dir():
        raise UsageError(f"{option} {path}: it is a folder; name a file")
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {path.parent}")


def _either(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path next to `path` to write to. It is renamed to `path` at the end, and removed after an
    error: an interrupted export leaves no half file, and an older file as it was.

    A link is followed; a pipe or a device is written to directly. `LogError` for a directory.
    """
    if path.is_dir():
        raise LogError(f"{path}: cannot be written: it is a directory")
    is_stream = path.exists() and not path.is_file()
    target = path if is_stream else path.resolve()
    part = path if is_stream else target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        if not is_stream:
            part.replace(target)
    except OSError as error:
        raise LogError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        if not is_stream:
            with contextlib.suppress(OSError):  # none, or nothing can be in that place
                part.unlink()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder next to `path` to write to. It is moved to `path` at the end, and removed
    after an error. `UsageError` where something is at `path` already."""
    if path.exists():
        raise UsageError(f"{path} is there already; name a new folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{path.name}.", dir=path.parent, ignore_cleanup_errors=True
        ) as part:
            whole = Path(part, "whole")
            whole.mkdir()
            yield whole
            shutil.move(whole, path)
    except OSError as error:
        raise LogError(f"{path}: cannot be written: {error.strerror}") from error
