"""The pipelines of a server: one for each graph of its folder."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from flowrun.runtime.serve.graphs import Graphs
from flowrun.runtime.serve.pipeline import Pipeline, PipelineError, Place
from flowrun.runtime.wording import nearest

__all__ = ["Pipelines", "UnknownPipelineError"]

_LONGEST = 70
"""Bytes of a path in which `/flowrun-xxxxxxxx/1000.sock` is a socket; the system allows 107 in all."""


class UnknownPipelineError(PipelineError):
    """No graph has this name; the text names those that there are."""


class Pipelines:
    """The graphs of a folder as pipelines, each made when it is first asked for. The methods may be
    called from any thread."""

    def __init__(self, graphs: Graphs, place: Place) -> None:
        self.graphs = graphs
        self.place = place
        self._lock = threading.Lock()
        self._made: dict[str, Pipeline] = {}

    @classmethod
    @contextmanager
    def open(
        cls,
        graphs: Graphs,
        *,
        log_dir: Path,
        token: str | None,
        say: Callable[[str], None],
        root_path: str = "",
    ) -> Iterator[Pipelines]:
        """The pipelines of `graphs`; their runs have ended when the context has.

        The other arguments are those of `Place`.
        """
        with TemporaryDirectory(
            prefix="flowrun-", dir=_folder_of_sockets(), ignore_cleanup_errors=True
        ) as sockets:
            pipelines = cls(graphs, Place(log_dir, Path(sockets), token, say, root_path))
            try:
                yield pipelines
            finally:
                pipelines.stop_all()

    def all(self) -> list[Pipeline]:
        """Each graph of the folder, and each that runs or has failed though its file is gone; in the
        order of their names."""
        paths = self.graphs.paths()
        with self._lock:
            gone = [name for name in self._made if name not in paths]
            kept = [name for name in gone if self._made[name].state().phase != "stopped"]
            return [self._get(name, paths.get(name)) for name in sorted([*paths, *kept])]

    def find(self, name: str) -> Pipeline:
        """The pipeline of this name; `UnknownPipelineError` if there is none."""
        with self._lock:
            made = self._made.get(name)
            if made is not None and made.is_running:  # without a look at the folder
                return made
            paths = self.graphs.paths()
            if name in paths or (made is not None and made.state().phase != "stopped"):
                return self._get(name, paths.get(name))
        valid = ", ".join(paths) or f"none: {self.graphs.folder} holds no graph file"
        raise UnknownPipelineError(f"Pipeline not supported. Try {valid}{nearest(name, paths)}")

    def running(self) -> list[Pipeline]:
        """Those that run."""
        with self._lock:
            return [pipeline for pipeline in self._made.values() if pipeline.is_running]

    def stop_all(self) -> None:
        """End all runs at once, within 5 s."""
        with self._lock:
            made = list(self._made.values())
        if made:
            with ThreadPoolExecutor(len(made), thread_name_prefix="flowrun-stop") as pool:
                list(pool.map(_stop, made))

    def _get(self, name: str, path: Path | None) -> Pipeline:
        if name not in self._made:
            assert path is not None
            self._made[name] = Pipeline(
                name, path, self.place, socket_name=f"{len(self._made)}.sock"
            )
        elif path is not None:
            self._made[name].path = path
        return self._made[name]


def _folder_of_sockets() -> str:
    """Where temporary files are, unless the paths of sockets would be too long there."""
    usual = gettempdir()
    return usual if len(os.fsencode(usual)) <= _LONGEST else "/tmp"  # noqa: S108  # makes a folder of its own


def _stop(pipeline: Pipeline) -> None:
    try:
        pipeline.stop()
    except PipelineError:  # it does not run
        return
