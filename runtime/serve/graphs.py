"""The graphs of a folder, by name. The folder is read each time: what is added or changed counts."""

from __future__ import annotations

import re
from pathlib import Path

from flowrun.runtime.errors import UsageError

__all__ = ["Graphs"]

_TASKS = re.compile(rb"""(?m)^(?:\{\s*)?["']?tasks["']?\s*:""")
"""What every graph file has at its top level, whatever else is wrong with it."""
_LOOKED_AT = 1 << 20


class Graphs:
    """The graph files of `folder`.

    Raises `UsageError` if it is no folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            what = "is no folder" if folder.exists() else "not found"
            raise UsageError(f"{folder}: {what}; name a folder that holds graph files")
        self.folder = folder

    def paths(self) -> dict[str, Path]:
        """Name -> file, in the order of the names. The name is the file's, without its suffix; of two
        that share it, the one that ends in `.yaml` counts."""
        found: dict[str, Path] = {}
        for suffix in (".yaml", ".yml"):
            for path in self.folder.glob(f"[!.]*{suffix}"):
                if path.stem not in found and _is_graph(path):
                    found[path.stem] = path
        return dict(sorted(found.items()))


def _is_graph(path: Path) -> bool:
    """Whether a YAML file is meant as a graph; others may be next to them."""
    try:
        with path.open("rb") as file:
            return _TASKS.search(file.read(_LOOKED_AT)) is not None
    except OSError:
        return False
