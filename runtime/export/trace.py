"""The step table as a trace for Perfetto (ui.perfetto.dev) and Chrome: when each task ran, how long.

Trace Event Format: one process, one track with the cycles and the tasks in them, one asynchronous
track for each background task, from the cycle of its input to the cycle of its result. Times are
microseconds since the first cycle of the file, by the monotonic clock of the run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgpack
import numpy as np

from flowrun.runtime.errors import LogDamaged
from flowrun.runtime.export.selection import ExportReport, Selection
from flowrun.runtime.log.message import LogMessage
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import CONTROL_TOPIC, STEP_TASKS, STEPS_TOPIC
from flowrun.runtime.printing import Writable

__all__ = ["export_trace"]

_IDS = {"pid": 1, "tid": 1}


def export_trace(log: Log, selection: Selection, stream: Writable) -> ExportReport:
    """Write the trace of the selected cycles as JSON.

    Steps have the names of their tasks, or numbers where the log does not name them.
    """
    report = ExportReport()
    meta = log.metadata
    trace = _Trace(stream, meta.get(STEP_TASKS, "").split())
    trace.begin(meta.get("graph", "flowrun"))
    controls: list[dict[str, Any]] = []
    for message in selection.messages(log, STEPS_TOPIC, CONTROL_TOPIC):
        # The step table is the last message of a cycle: its control messages come before it.
        if message.topic == CONTROL_TOPIC:
            controls.append(message.fields)
            continue
        trace.add_cycle(message, controls)
        controls = []
        report.count += 1
    if not trace.named:
        report.notes.append("steps are numbered: the log does not name the tasks of the plan")
    stream.write("\n],\n")
    stream.write(f'"displayTimeUnit":"ns","otherData":{json.dumps(meta)}}}\n')
    return report


class _Trace:
    def __init__(self, stream: Writable, steps: Sequence[str]) -> None:
        self._stream = stream
        self._steps = steps
        self.named = True
        self._origin: int | None = None
        self._starts: dict[int, int] = {}

    def begin(self, name: str) -> None:
        self._stream.write('{"traceEvents":[\n')
        process = {"ph": "M", "name": "process_name", **_IDS, "args": {"name": f"flowrun {name}"}}
        thread = {"ph": "M", "name": "thread_name", **_IDS, "args": {"name": "cycles"}}
        self._stream.write(json.dumps(process) + ",\n" + json.dumps(thread))

    def add_cycle(self, message: LogMessage, controls: list[dict[str, Any]]) -> None:
        try:
            ticks = np.frombuffer(msgpack.unpackb(message.payload)["ticks_ns"], "<u8").tolist()
            start, end = ticks[0], ticks[-1]
        except (ValueError, TypeError, LookupError, msgpack.UnpackException) as error:
            raise LogDamaged(
                f"cycle {message.cycle}: {message.topic}: no step table: {error}"
            ) from error
        if self._origin is None:
            self._origin = start
        self._starts[message.cycle] = start
        args = {"cycle": message.cycle, "time_ns": message.time_ns}
        self._slice(f"cycle {message.cycle}", "cycle", start, end, args)
        names = self._steps
        if len(names) != len(ticks) - 1:
            self.named = False
            names = [f"step {number}" for number in range(len(ticks) - 1)]
        for name, (begin, until) in zip(names, pairwise(ticks), strict=True):
            self._slice(name, "task", begin, until, {"cycle": message.cycle})
        for control in controls:
            self._add_control(control, message.cycle, start)

    def _slice(self, name: str, kind: str, start: int, end: int, args: dict[str, Any]) -> None:
        self._write(
            {
                "ph": "X",
                "name": name,
                "cat": kind,
                "ts": self._us(start),
                "dur": (end - start) / 1e3,
                **_IDS,
                "args": args,
            }
        )

    def _add_control(self, control: dict[str, Any], cycle: int, start: int) -> None:
        task, kind = control.get("task", ""), control.get("kind", "")
        if kind == "completion":
            of = control.get("input_cycle", -1)
            begun = self._starts.get(of)
            if begun is None:
                return  # its input is before the selected cycles
            event = {"name": task, "cat": "background", "id": f"{task} {of}", **_IDS}
            args = {"input_cycle": of, "result_cycle": cycle}
            self._write({"ph": "b", "ts": self._us(begun), **event, "args": args})
            self._write({"ph": "e", "ts": self._us(start), **event})
            return
        name = f"{task}.{', '.join(control['value'])}" if kind == "set" else task
        shown: dict[str, Any] = {"cycle": cycle}
        if control.get("value") is not None:
            shown["value"] = str(control["value"])
        if control.get("input_cycle", -1) >= 0:
            shown["input_cycle"] = control["input_cycle"]
        self._write(
            {
                "ph": "i",
                "s": "t",
                "name": f"{kind} {name}",
                "cat": "control",
                "ts": self._us(start),
                **_IDS,
                "args": shown,
            }
        )

    def _us(self, ticks: int) -> float:
        return (ticks - (self._origin or 0)) / 1e3

    def _write(self, event: dict[str, Any]) -> None:
        self._stream.write(",\n" + json.dumps(event, ensure_ascii=False))
