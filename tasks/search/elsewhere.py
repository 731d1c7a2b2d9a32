"""Which cameras of a run are those of another process of its fleet, whose run is searched too."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from flowrun.runtime.errors import LogError
from flowrun.runtime.log.files import slab_paths
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import PARTITION, STARTED_NS
from flowrun.runtime.recorded.graph import graph_of
from flowrun.runtime.recorded.places import Places
from flowrun.tasks.search.origins import origin_topic

__all__ = ["Elsewhere", "cameras_of"]


def cameras_of(log: Log) -> list[str]:
    """The topics of pictures that come from outside: those of tasks without inputs. Of a log that does
    not say which these are, all."""
    fed = {edge["dst"].partition(".")[0] for edge in graph_of(log)["cnx"]}
    pictures = {name: topic for name, topic in log.topics.items() if topic.is_picture}
    cameras = [name for name, it in pictures.items() if it.metadata.get("task") not in fed]
    return cameras or list(pictures)


class Elsewhere:
    """The pictures of a fleet's processes, for those that got them. runs: all that are searched."""

    def __init__(self, runs: Iterable[Path]) -> None:
        self.state: dict[int, list[str]] = {}
        """The files of each run that there is. What `received` says of a run that has ended changes with
        these alone."""
        self._senders: dict[int, Path] = {}
        """By when the run began, as what it sent says."""
        for path in runs:
            with suppress(LogError), Log(path, verify=False) as log:
                if PARTITION in log.metadata:
                    number = int(log.metadata.get(STARTED_NS, "0"))
                    self.state[number] = [it.name for it in slab_paths(path)]
                    self._senders[number] = path
        self._cameras: dict[int, dict[str, tuple[int, int]]] = {}

    def received(self, path: Path) -> list[str]:
        """The cameras of a run that are those of another one."""
        with Log(path, verify=False) as log:
            return [topic for topic in cameras_of(log) if self.has(log, topic)]

    def has(self, log: Log, topic: str) -> bool:
        """Whether each picture that the run of `log` has of a topic came from a camera of a run that is
        searched, and is in its log still."""
        said = origin_topic(topic)
        if said not in log.topics:
            return False
        ports = [it for it in log.topics if it.rpartition("/")[0] == said.rpartition("/")[0]]
        ports.remove(said)
        at, port = ports.index(topic), topic.rpartition("/")[2]
        spans: dict[int, tuple[int, int]] = {}
        try:
            for message in log.messages(said):
                run, cycle = message.fields["run"], message.fields["taken"][at]
                if cycle >= 0:
                    first, last = spans.get(run, (cycle, cycle))
                    spans[run] = min(first, cycle), max(last, cycle)
        except (LogError, LookupError, TypeError):
            return False
        return bool(spans) and all(self._holds(run, port, span) for run, span in spans.items())

    def _holds(self, run: int, port: str, span: tuple[int, int]) -> bool:
        if run not in self._cameras:
            self._cameras[run] = self._read(run)
        first, last = self._cameras[run].get(port, (0, -1))
        return first <= span[0] and span[1] <= last

    def _read(self, run: int) -> dict[str, tuple[int, int]]:
        """The first and the last cycle of each camera of a run, by its name at a receiver."""
        path = self._senders.get(run)
        found: dict[str, tuple[int, int]] = {}
        if path is not None:
            with suppress(LogError), Log(path, verify=False) as log:
                places = Places(log)
                places.update()
                for topic in cameras_of(log):
                    there = places.of(topic)
                    if len(there):
                        name = topic.strip("/").replace("/", "_")
                        found[name] = there.cycle(0), there.cycle(len(there) - 1)
        return found
