"""Partitions as processes that begin at once: forked from one in which flowrun is loaded.

They are processes as any, with their own sessions and logs, and end by any signal.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import signal
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path

from flowrun.runtime import cli
from flowrun.runtime.run import provenance

__all__ = ["Partition", "forking"]

_LOADED = (
    "av",
    "zenoh",
    "flowrun.runtime.children.warden",
    "flowrun.runtime.children.process",
    "flowrun.runtime.cli.again",
    "flowrun.runtime.cli.announced",
    "flowrun.runtime.cli.board",
    "flowrun.runtime.cli.memory",
    "flowrun.runtime.cli.run",
    "flowrun.runtime.cli.status",
    "flowrun.runtime.cli.terminal",
    "flowrun.runtime.graph.partitions",
    "flowrun.runtime.links.links",
    "flowrun.runtime.links.source",
    "flowrun.runtime.log.reader",
    "flowrun.runtime.replay.recovery",
    "flowrun.runtime.run.live",
    "flowrun.tasks",
    "support.forked_partitions",  # last: it freezes what is loaded
)
provenance._packages()  # what is installed: half a second that each process would take again
gc.collect()
gc.freeze()  # a fork shares what the collector does not visit


def forking() -> ForkServerContext:
    """Where `Partition` forks from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_LOADED))
    return context


class Partition:
    """`flowrun g.yaml --partition <part>` in `folder`, as a process; what it prints is in <part>.txt."""

    def __init__(
        self, context: ForkServerContext, folder: Path, part: str, *options: str, logs: str
    ) -> None:
        command = ["g.yaml", "--partition", part, "--log-dir", logs, "--plain", *options]
        self._process = context.Process(target=_run, args=(folder, part, command))
        self._process.start()

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def kill(self) -> None:
        """As SIGKILL does. Returns when it is gone."""
        self._process.kill()
        self._process.join()

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def limit_files(self, size: int | None) -> None:
        """Let no file of it grow beyond `size` bytes, as on a disk that is full; None: let them."""
        assert self._process.pid is not None
        limit = resource.RLIM_INFINITY if size is None else size
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU that it has taken."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait(self, timeout_s: float) -> int | None:
        """What it ended with; None if it goes on."""
        self._process.join(timeout_s)
        return self._process.exitcode


def _run(folder: Path, part: str, command: list[str]) -> None:
    os.chdir(folder)
    out = os.open(f"{part}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdin.close()
    sys.exit(cli.main(command))
