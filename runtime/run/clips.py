"""Keeps what alerts ask for while a run goes on: a folder of each, made of what the log holds.

No cycle waits for it. An alert's folder is made when its cameras have shown the end of the film, on a
thread of its own; those that are left at the end of the run before its log is finished.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowrun.msgs.alert import AlertMsg
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.errors import LogError
from flowrun.runtime.export.sources import pictures_before
from flowrun.runtime.graph.masking import masked_graph
from flowrun.runtime.log.reader import Log

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from flowrun.runtime.engine.cycle import Cycle
    from flowrun.runtime.graph.plan import Plan

__all__ = ["ClipMaker", "asks_for_clips"]

_LATE_NS = 10_000_000_000
"""How long after the end of a film, by the cycles' time, a camera is waited for that shows nothing."""
_END_S = 60.0
"""Seconds that the end of a run waits for films."""


def asks_for_clips(plan: Plan) -> bool:
    """Whether a task of the plan may raise alerts that ask for films."""
    return any(issubclass(slot.message_type, AlertMsg) for slot in plan.slots)


@dataclass(slots=True)
class _Waiting:
    """An alert whose film is not over.

    directory: of the run.
    cameras: slots of pictures that are waited for.
    until_ns: when nobody is waited for any more, by the cycles' time.
    """

    directory: Path
    topic: str
    cycle: int
    to_ns: int
    cameras: frozenset[int]
    until_ns: int


class ClipMaker:
    """Makes the folders of the alerts of a run.

    directory: where the log is that is written now; None while there is none.
    log: gets a line for each folder.
    """

    def __init__(
        self, plan: Plan, directory: Callable[[], Path | None], log: FilteringBoundLogger
    ) -> None:
        self._directory = directory
        self._log = log
        graph = json.dumps(masked_graph(plan.graph.spec), default=str).encode()
        pictures = {
            slot.topic: slot.index
            for slot in plan.slots
            if slot.logged and issubclass(slot.message_type, ImageRgb8Msg)
        }
        self._pictures = list(pictures.values())
        self._alerting = [
            (
                slot.index,
                slot.topic,
                frozenset(pictures[it] for it in pictures_before(slot.topic, pictures, graph)),
            )
            for slot in plan.slots
            if slot.logged and issubclass(slot.message_type, AlertMsg)
        ]
        self._waiting: list[_Waiting] = []
        self._shown_ns: dict[int, int] = {}
        """By slot of pictures, the time of the newest, while somebody waits for it."""
        self._due: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._has_warned = False

    def look(self, cycle: Cycle) -> None:
        """A cycle has been committed; on its thread."""
        messages = cycle.messages
        for index, topic, cameras in self._alerting:
            if messages[index].present:
                self._note(cycle, topic, cameras, messages[index].view())
        if not self._waiting:
            return
        for index in self._pictures:
            if messages[index].present:
                self._shown_ns[index] = messages[index].tov_ns
        now_ns = cycle.time.now_ns
        for it in list(self._waiting):
            is_shown = all(self._shown_ns.get(index, 0) > it.to_ns for index in it.cameras)
            if is_shown or now_ns > it.until_ns:
                self._waiting.remove(it)
                self._make(it)
        if not self._waiting:
            self._shown_ns.clear()

    def close(self) -> None:
        """Make what is left. Returns when all of it is there, and after a minute in any case."""
        waiting, self._waiting = self._waiting, []
        for it in waiting:
            self._make(it)
        if self._thread is None:
            return
        self._due.put(None)
        self._thread.join(_END_S)
        if self._thread.is_alive():
            self._log.warning(
                "not all clips of alerts are made",
                waited_s=_END_S,
                hint="flowrun alerts clips RUN makes the others",
            )

    def _note(self, cycle: Cycle, topic: str, cameras: frozenset[int], alert: Any) -> None:
        if not alert.clip_to_ns:
            return
        directory = self._directory()
        if directory is None:
            if not self._has_warned:
                self._has_warned = True
                self._log.warning("no clip of an alert: the run keeps no log now")
            return
        lasts_ns = max(0, alert.clip_to_ns - alert.tov_ns)
        until_ns = cycle.time.now_ns + lasts_ns + _LATE_NS
        number = cycle.time.cycle
        self._waiting.append(
            _Waiting(directory, topic, number, alert.clip_to_ns, cameras, until_ns)
        )

    def _make(self, waiting: _Waiting) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="flowrun-clips", daemon=True)
            self._thread.start()
        self._due.put(waiting)

    def _work(self) -> None:
        # PyAV, which writes the films, is loaded here.
        from flowrun.runtime.export.cases import cases_of, make_case

        while (it := self._due.get()) is not None:
            try:
                with Log(it.directory, verify=False) as log:
                    for case in cases_of(log, it.cycle, it.cycle + 1):
                        if case.topic == it.topic:
                            folder = make_case(log, case, it.directory)
                            self._log.info(
                                "keeps a clip of an alert", cycle=it.cycle, path=str(folder)
                            )
            except (LogError, OSError) as error:
                self._log.warning("no clip of an alert", cycle=it.cycle, why=str(error))
            except Exception as error:  # noqa: BLE001  # the others must get their turn
                self._log.error("no clip of an alert", cycle=it.cycle, raised=error)
