"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowrun.runtime.errors import LogError

__all__ = ["whole_file"]


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
            part.unlink(missing_ok=True)
