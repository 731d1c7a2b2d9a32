"""Which pictures of a fleet's runs are the same one: what a process received is in its log too."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from flowrun.runtime.errors import LogError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import STARTED_NS

__all__ = ["Origin", "Origins", "origin_topic"]


class Origin(NamedTuple):
    """Where a picture was made.

    run: when that process's run began, nanoseconds since 1970 UTC; 0 where its log does not say so.
    output: the task's id and the port, "cam0_image". cycle: of that run.
    """

    run: int
    output: str
    cycle: int


def origin_topic(topic: str) -> str:
    """The topic that says where the messages of a link's `topic` come from, if it is one of a link."""
    return f"/{topic.strip('/').partition('/')[0]}/origin"


class Origins(ExitStack):
    """Tells where pictures were made. Logs that it reads stay open until the end of its `with`."""

    def __init__(self) -> None:
        super().__init__()
        self._logs: dict[Path, Log | None] = {}

    def of(self, path: Path, topic: str, cycle: int) -> Origin | None:
        """Where the picture of a topic and a cycle of the run at `path` was made; None where its log
        cannot be read, or does not say so."""
        log = self._log(path)
        if log is None:
            return None
        source, _, port = topic.strip("/").partition("/")
        said = origin_topic(topic)
        if said not in log.topics:
            run = int(log.metadata.get(STARTED_NS, "0"))
            return Origin(run, f"{source}_{port}", cycle) if run else None
        ports = [it for it in log.topics if it.startswith(f"/{source}/") and it != said]
        with suppress(LogError):
            for message in log.messages(said, cycle, cycle + 1):
                taken = message.fields["taken"]
                return Origin(message.fields["run"], port, taken[ports.index(topic)])
        return None

    def _log(self, path: Path) -> Log | None:
        if path not in self._logs:
            self._logs[path] = None
            with suppress(LogError):
                self._logs[path] = self.enter_context(Log(path, verify=False))
        return self._logs[path]
