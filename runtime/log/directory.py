"""The directories of runs: made so that a power cut does not take them, and never the same twice."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

from flowrun.runtime.log.slab import disk

__all__ = ["make_directory", "new_run_directory"]


def make_directory(path: Path) -> None:
    """Make `path`, and what it is in, where it is missing. `OSError` as `Path.mkdir`."""
    missing = list(itertools.takewhile(lambda it: not it.exists(), (path, *path.parents)))
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        _sync_name(directory)
    if not missing:
        path.mkdir(exist_ok=True)  # raises where it is a file


def new_run_directory(parent: Path, name: str) -> Path:
    """A new, empty directory `parent`/`name`, or with -2, -3, ... after it: two runs may begin in the
    same second. Where it cannot be made, the first of these paths: the log says why.
    """
    with contextlib.suppress(OSError):
        make_directory(parent)
        for number in itertools.count(1):
            path = parent / (name if number == 1 else f"{name}-{number}")
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                _sync_name(path)
                return path
    return parent / name


def _sync_name(path: Path) -> None:
    """Bring the name of `path` to the disk, if its directory may be read."""
    with contextlib.suppress(PermissionError):
        parent = os.open(path.parent, os.O_RDONLY)
        try:
            disk.sync_directory(parent)
        finally:
            os.close(parent)
