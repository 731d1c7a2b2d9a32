"""The log of a run: what of the plan goes into it, and its life from the first byte to the last."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flowrun.runtime.errors import LogError, NoKey, UsageError
from flowrun.runtime.graph.masking import masked_graph
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.graph.spec import GraphSpec
from flowrun.runtime.graph.unlogged import unlogged_sources, without_inputs
from flowrun.runtime.log.directory import new_run_directory
from flowrun.runtime.log.retention import OldRun, number_run, remove_old_runs, tidy
from flowrun.runtime.log.slab.format import (
    ENVIRONMENT,
    GRAPH_RESOLVED,
    GRAPH_SOURCE,
    KEYFRAME_INTERVAL,
    MISSION,
    PARTITION,
    PEAK_MEMORY,
    RUN_NUMBER,
    SETTINGS,
    SHADOWS,
    STARTED_NS,
    STEP_TASKS,
    Attachment,
)
from flowrun.runtime.log.writer import LogWriter
from flowrun.runtime.run.provenance import provenance, versions
from flowrun.runtime.run.trust import signed
from flowrun.runtime.simulated import is_simulated
from flowrun.runtime.wording import listed, mask_secrets, mask_urls

__all__ = ["Recording", "attachments_of", "metadata_of", "numbered", "sign"]

_SWITCH_S = 5.0
"""Seconds to wait for the cycle that runs when the log is to be stopped or begun."""
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
"""The unit in which the system counts the memory of a process."""
_NOT_NOW = "the run is still starting, has ended, or a task holds the cycle up"


class Recording:
    """The log of a live run of `plan`.

    directory: where it goes; None keeps no log.
    started_ns: when the run began.
    now_ns: the time, for its end.
    after: the run that this one goes on with, and the number of its first cycle; None: it starts from
        nothing.
    says: what more its metadata says.

    Raises `LogError` where the log cannot be begun, unless the graph lets the run go on without.
    """

    def __init__(
        self,
        plan: Plan,
        directory: Path | None,
        *,
        started_ns: int,
        now_ns: Callable[[], int],
        after: tuple[str, int] | None = None,
        says: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.directory = directory
        self.writer: LogWriter | None = None
        """None for a run that keeps no log."""
        self.error: LogError | None = None
        """Why the log ends before the run does."""
        self.directories: tuple[Path, ...] = ()
        """Of all logs that were begun, in order."""
        self.is_on = False
        """Whether cycles are written."""
        self._finishing = threading.Lock()
        self._switching = threading.Lock()
        self._is_finished = False
        self._plan = plan
        self._graph = plan.graph.spec
        self._now_ns = now_ns
        self._removed: list[OldRun] = []
        self._unsigned: str | None = None
        self._stopped_at = 0
        """The first cycle that is not in the log that was stopped last."""
        self._log: Any = None
        self.outlived = self._graph.logging.on_error == "continue"
        """Whether the run goes on where its log cannot."""
        if directory is None:
            return
        try:
            tidy(directory.parent, graph=self._graph.name)
            before = dict(says)
            if after is not None:
                before |= {"continues": after[0], "gap_from_cycle": str(after[1])}
            self.writer = self._make_writer(directory, started_ns, before)
            self.directories, self.is_on = (directory,), True
        except LogError as error:
            if not self.outlived:
                raise
            self.error = error

    @property
    def messages(self) -> int:
        """Number of messages of tasks written so far."""
        return self.writer.messages if self.writer is not None else 0

    @property
    def size(self) -> int:
        """Number of bytes written so far."""
        return self.writer.size if self.writer is not None else 0

    def log_record(
        self, time_ns: int, level: str, message: str, name: str, fields: dict[str, Any]
    ) -> None:
        """See `LogTarget`. What comes while the log is stopped is in none."""
        if self.writer is not None:
            self.writer.log_record(time_ns, level, message, name, fields)

    def switch(self, on: bool, log_to: Callable[..., int | None]) -> bool:  # noqa: FBT001
        """As `Run.record`. log_to: `Executor.log_to`."""
        if self.directory is None:
            raise UsageError("the run keeps no log")
        with self._switching:
            if self.error is not None:
                raise UsageError(f"the log has ended: {self.error}")
            if on == self.is_on:
                return False
            if on:
                self._begin(log_to)
            else:
                self._pause(log_to)
            return True

    def _pause(self, log_to: Callable[..., int | None]) -> None:
        self._log.info("recording stopped")
        cycle = log_to(None, timeout_s=_SWITCH_S)
        if cycle is None:
            raise UsageError(_NOT_NOW)
        self.is_on = False
        with self._finishing:
            if not self._is_finished:
                self._stopped_at = cycle
                self._finish("recording stopped", None, cycles=cycle)

    def _begin(self, log_to: Callable[..., int | None]) -> None:
        assert self.directory is not None
        before, now_ns = self.directory, self._now_ns()
        stamp = datetime.fromtimestamp(now_ns / 1e9, UTC).strftime("%Y%m%dT%H%M%SZ")
        directory = new_run_directory(before.parent, f"{self._graph.name}-{stamp}")
        gap = {"continues": before.name, "gap_from_cycle": str(self._stopped_at)}
        writer = self._make_writer(directory, now_ns, gap)
        cycle = log_to(writer, timeout_s=_SWITCH_S)
        if cycle is None:
            writer.discard()
            raise UsageError(_NOT_NOW)
        with self._finishing:
            self.writer, self.directory, self.is_on = writer, directory, True
            self.directories += (directory,)
            if self._is_finished:  # the run has ended meanwhile
                self._finish("end of the run", None, cycles=cycle)
        self._log.info(
            "recording begins again", after=before.name, cycles_left_out=cycle - self._stopped_at
        )

    def report_to(self, log: Any) -> None:
        """Log to `log` what has happened so far and what happens from now on. Log lines become
        messages of this log: there was none to report to while it was made."""
        self._log = log
        self._report_removed()
        if self.error is not None:
            log.error("the run is not logged", error=str(self.error))
        elif self.writer is not None:
            self._warn_of_unlogged_sources()
            if self._unsigned is not None:
                log.warning(
                    "the run is not signed: a replay will not know that it is yours",
                    why=self._unsigned,
                )

    def give_up(self, error: LogError, *, cycles: int) -> None:
        """Finish what there is of the log; the run goes on without."""
        self.error = error
        # The same error may come again from finishing; the log is readable all the same.
        with contextlib.suppress(LogError):
            self._finish("log error", mask_secrets(str(error), self._graph.secrets), cycles=cycles)
        self._log.error("the log ends here; the run goes on", error=str(error))

    def finish(self, reason: str, error: str | None, *, cycles: int) -> LogError | None:
        """Finish the log, unless it is finished, or `give_up` has; what went wrong with that, if
        something did. From any thread, while no other one commits a cycle."""
        with self._finishing:
            if self.error is not None or self._is_finished:
                return None
            self._is_finished = True
            if self.directories and not self.is_on:
                return None
            try:
                self._finish(reason, error, cycles=cycles)
            except LogError as failure:
                return failure
            return None

    def let_go(self) -> None:
        """In a child process of a fork: the log is the parent's."""
        if self.writer is not None:
            self.writer.let_go()
            self.writer = None

    def abandon(self) -> None:
        """Leave the log as a process that is killed does."""
        if self.writer is not None:
            self.writer.abandon()
            self.writer = None

    def discard(self) -> None:
        """Leave nothing of the log, unless it is finished. As `finish`, from any thread."""
        with self._finishing:
            if self.writer is not None and not self._is_finished:
                self._is_finished = True
                self.writer.discard()
                self.writer = None

    def _finish(self, reason: str, error: str | None, *, cycles: int) -> None:
        if self.writer is None:
            return
        end = {
            "reason": reason,
            "cycles": str(cycles),
            "ended_ns": str(self._now_ns()),
            PEAK_MEMORY: str(0 if is_simulated() else _peak_memory()),
        }
        self.writer.finish(end if error is None else {**end, "error": error})

    def _make_writer(self, directory: Path, started_ns: int, more: dict[str, str]) -> LogWriter:
        logging = self._graph.logging
        attachments = attachments_of(self._plan, started_ns)
        metadata = metadata_of(self._plan, directory, started_ns)
        metadata |= numbered(self._plan, directory) | more
        metadata, self._unsigned = sign(metadata, attachments)
        return LogWriter(
            directory,
            outputs=self._plan.slots,
            steps=len(self._plan.steps),
            metadata=metadata,
            attachments=attachments,
            library=f"flowrun {versions()['flowrun']}",
            slab_size_mib=logging.slab_size_mib,
            section_size_mib=logging.section_size_mib,
            keep_slabs=logging.keep_slabs if logging.mode == "ring" else None,
            make_room=partial(self._make_room, directory),
            sync_s=logging.sync_s,
            on_slow_sync=self._warn_of_slow_disk,
        )

    def _make_room(self, directory: Path, taken: int) -> None:
        """Keep the graph's runs within what `keep` allows; `taken` is the size of the present one."""
        keep = self._graph.logging.keep
        if keep.gib is None and keep.runs is None:
            return
        self._removed += remove_old_runs(
            directory.parent,
            graph=self._graph.name,
            graph_path=str(self._graph.path.absolute()),
            partition=None if self._graph.part is None else str(self._graph.part),
            runs=None if keep.runs is None else keep.runs - 1,
            size=None if keep.gib is None else max(0, int(keep.gib * 2**30) - taken),
            present=directory,
        )
        if self._log is not None:
            self._report_removed()

    def _report_removed(self) -> None:
        while self._removed:
            old = self._removed.pop(0)
            fields = {"path": str(old.path), "mib": round(old.size / 2**20, 1)}
            if old.problem is None:
                self._log.info("removed an old run", **fields)
            else:
                self._log.warning("cannot remove an old run", **fields, why=old.problem)

    def _warn_of_slow_disk(self, waited_s: float) -> None:
        if self._log is not None:
            self._log.warning(
                "the disk, or the machine, is slow: a power cut may take more than logging: {sync_s}",
                sync_s=self._graph.logging.sync_s,
                may_take_s=round(waited_s, 2),
            )

    def _warn_of_unlogged_sources(self) -> None:
        topics, tasks = unlogged_sources(self._plan), without_inputs(self._plan)
        if not topics:
            return
        if tasks:
            self._log.info(
                "a replay does not run the tasks that work on what a source gives, since the log does "
                "not hold that; it begins with what they have made",
                topics=listed(topics),
                tasks=listed(tasks),
            )
        else:
            self._log.warning(
                "the run cannot be replayed: it logs no payload of a source", topics=listed(topics)
            )


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES


def metadata_of(plan: Plan, directory: Path, started_ns: int) -> dict[str, str]:
    """What the log of a run says about it."""
    graph = plan.graph.spec
    return {
        "run_id": directory.name,
        "graph": graph.name,
        "graph_path": str(graph.path.absolute()),
        STARTED_NS: str(started_ns),
        ENVIRONMENT: json.dumps(dict(graph.environment)),
        "seed": str(graph.runtime.seed),
        KEYFRAME_INTERVAL: str(graph.logging.keyframe_interval),
        STEP_TASKS: " ".join(step.task.id for step in plan.steps),
        **_choices(graph),
        **provenance(plan),
    }


def _choices(graph: GraphSpec) -> dict[str, str]:
    """What was chosen when it started, and what the graph file includes; empty if nothing."""
    shadows = {task.id: task.shadow_of for task in graph.tasks if task.shadow_of}
    settings = [mask_secrets(text, graph.secrets) for text in graph.settings]
    found = {
        MISSION: graph.mission,
        PARTITION: None if graph.part is None else str(graph.part),
        SHADOWS: json.dumps(shadows) if shadows else None,
        SETTINGS: json.dumps(settings) if settings else None,
        "includes": json.dumps(dict(graph.includes)) if graph.includes else None,
    }
    return {name: text for name, text in found.items() if text is not None}


def numbered(plan: Plan, directory: Path) -> dict[str, str]:
    """Which run it is of those of its log directory, for its metadata; empty where nobody can count."""
    graph = plan.graph.spec
    keep = graph.logging.keep
    try:
        number = number_run(
            directory.parent,
            graph=graph.name,
            graph_path=str(graph.path.absolute()),
            after_all=keep.gib is not None or keep.runs is not None,
        )
    except OSError:
        return {}  # what it means for the run, its own directory will show
    return {RUN_NUMBER: str(number)}


def sign(
    metadata: dict[str, str], attachments: Iterable[Attachment]
) -> tuple[dict[str, str], str | None]:
    """`metadata` with the user's signature, or as it is and why there can be none."""
    [graph] = [item.data for item in attachments if item.name == GRAPH_SOURCE]
    try:
        return signed(metadata, graph, os.environ), None
    except NoKey as error:
        return metadata, str(error)


def attachments_of(plan: Plan, now_ns: int) -> list[Attachment]:
    """The graph file, and the resolved graph, secrets masked."""
    graph = plan.graph.spec
    text = mask_urls(graph.text if graph.stored_text is None else graph.stored_text)
    resolved = json.dumps(masked_graph(graph), indent=1, default=str).encode()
    return [
        Attachment(GRAPH_SOURCE, "application/yaml", text.encode(), now_ns, now_ns),
        Attachment(GRAPH_RESOLVED, "application/json", resolved, now_ns, now_ns),
    ]
