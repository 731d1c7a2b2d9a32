"""The runs of a partition's process in a log directory: what it was before it came back."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

from flowrun.runtime.errors import LogError
from flowrun.runtime.log.files import slab_paths
from flowrun.runtime.log.slab.format import PARTITION, RUN_NUMBER, STARTED_NS
from flowrun.runtime.log.slab.reader import SlabReader

__all__ = ["Cursor", "OwnRun", "Runs"]


class Cursor(NamedTuple):
    """The next cycle that is wanted of a sender: its run, and the number there."""

    run: int
    cycle: int


class OwnRun(NamedTuple):
    """One run. run: how the wire names it. order: among those of its directory."""

    run: int
    path: Path
    order: tuple[int, int]


class Runs:
    """The runs of one process of a partition in `directory`, oldest first."""

    def __init__(self, directory: Path, *, graph: str, partition: str) -> None:
        self._directory = directory
        self._graph, self._partition = graph, partition
        self._known: dict[Path, OwnRun | None] = {}

    def look(self) -> list[OwnRun]:
        """Those that are there now. Only directories that were not seen before are opened."""
        try:
            paths = [it for it in self._directory.iterdir() if it.is_dir() and not it.is_symlink()]
        except OSError:
            return []
        self._known = {path: run for path, run in self._known.items() if path in paths}
        for path in paths:
            if path not in self._known:
                with contextlib.suppress(LogError, OSError):  # it may be about to begin
                    self._known[path] = self._read(path)
        return sorted(filter(None, self._known.values()), key=lambda run: run.order)

    def _read(self, path: Path) -> OwnRun | None:
        for slab_path in slab_paths(path):
            slab = SlabReader(slab_path, verify=False)
            slab.close()
            metadata = slab.preamble.metadata
            own = metadata.get("graph"), metadata.get(PARTITION)
            if own != (self._graph, self._partition):
                return None
            started = int(metadata.get(STARTED_NS, "0"))
            return OwnRun(started, path, (int(metadata.get(RUN_NUMBER, "0")), started))
        return None
