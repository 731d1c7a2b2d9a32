"""Which recorded runs there are in folders."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from flowrun.runtime.errors import LogError, LogNotFound
from flowrun.runtime.log.files import slab_paths

__all__ = ["find_runs"]


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """The runs that `paths` mean: each is a run's directory, a slab of it, or a folder, of which all
    runs in it and in its folders are meant, in the order of their names. Each run comes once.

    `LogNotFound` for a path where there is none.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        runs = [path] if path.is_file() or _is_run(path) else _runs_below(path)
        if not runs:
            what = "there are no runs in it" if path.is_dir() else "there is no such file"
            raise LogNotFound(f"{path}: {what}")
        for run in runs:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def _runs_below(folder: Path) -> list[Path]:
    """The runs in a folder, but for those in hidden folders and in runs, such as what-ifs."""
    found: list[Path] = []
    for directory, names, _ in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in list(names):
            path = Path(directory, name)
            if _is_run(path):
                names.remove(name)
                found.append(path)
    return sorted(found)


def _is_run(path: Path) -> bool:
    try:
        return bool(slab_paths(path))
    except LogNotFound:
        return False
    except LogError:  # it cannot be listed: reading it will give the error
        return True
