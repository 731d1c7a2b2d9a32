"""What a run would have answered with another prompt, backend or model: `flowrun replay --set`.

The replay is a process of its own, at a low priority, and writes a run: into the folder `what-if` of the
run that it replays, where it is found again later. What it changed is read from the two runs.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowrun.runtime.atomic import whole_file
from flowrun.runtime.children.process import ChildProcess
from flowrun.runtime.errors import LogError, UsageError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.recorded.lanes import ANSWERS, named
from flowrun.runtime.wording import described, says_secret

__all__ = ["WHAT_IF", "Asked", "WhatIf", "changes", "check_values", "command_of"]

WHAT_IF = "what-if"
"""The folder in a run's directory that holds its what-ifs."""
_ASKED = "asked.json"
_MOST_CHANGES = 1000
_PROGRAM_KEYS = ("command", "uri", "url", "path", "host")
"""Keys with such a part in their names say what is run, or where pictures are sent."""


@dataclass(frozen=True, slots=True)
class Asked:
    """values: "task.key" -> value in place of the recorded one, for the cycles from first to last."""

    values: dict[str, Any]
    first: int
    last: int


class WhatIf:
    """One replay with other values: a process while it runs, later what it left.

    directory: its own, which holds the run that it writes in `run`.
    """

    def __init__(self, directory: Path, asked: Asked, process: ChildProcess | None = None) -> None:
        self.id = directory.name
        self.directory = directory
        self.run = directory / "run"
        self.asked = asked
        self._process = process
        self._is_cancelled = False

    @classmethod
    def start(cls, source: Path, parent: Path, asked: Asked, tasks: list[str]) -> WhatIf:
        """Replay the run at `source`; `LogError` if nothing can be written into `parent`.

        tasks: those that run; all others are fed from the log.
        """
        directory = _new_folder(parent)
        with whole_file(directory / _ASKED) as part:
            part.write_text(json.dumps(asdict(asked)), encoding="utf-8")
        process = ChildProcess(
            command_of(source, directory / "run", asked, tasks),
            folder=Path.cwd(),
            name=f"flowrun-what-if-{directory.name}",
        )
        try:
            process.start()
        except OSError as error:
            raise LogError(f"the replay cannot be started: {error.strerror}") from error
        return cls(directory, asked, process)

    @classmethod
    def found(cls, directory: Path) -> WhatIf | None:
        """The one that an earlier server left in a directory; None where there is none."""
        try:
            values = json.loads((directory / _ASKED).read_text(encoding="utf-8"))
            return cls(directory, Asked(values["values"], values["first"], values["last"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.status is None

    def stop(self) -> None:
        """End the process, if it runs."""
        if self._process is not None:
            self._process.stop()

    def cancel(self) -> None:
        """`stop`, because somebody does not want it any more."""
        self._is_cancelled |= self.is_running
        self.stop()

    def progress(self) -> dict[str, Any]:
        """Its state ("running", "done", "cancelled" or "error"), how much is done, and why it failed."""
        done, finished = 0, False
        try:
            with Log(self.run, verify=False) as log:
                done, finished = len(log), log.finished and "error" not in (log.end or {})
        except LogError:
            pass
        whole = self.asked.last - self.asked.first + 1
        ended = "done" if finished else "cancelled" if self._is_cancelled else "error"
        state = "running" if self.is_running else ended
        why = None
        if state == "error":
            lines = self._process.last_lines if self._process is not None else []
            why = "\n".join(lines) or "the replay was ended before it was done"
        return {
            "id": self.id,
            "set": self.asked.values,
            "from_cycle": self.asked.first,
            "to_cycle": self.asked.last,
            "state": state,
            "progress": 1.0 if state == "done" else min(1.0, done / whole),
            "why": why,
        }


def _new_folder(parent: Path) -> Path:
    try:
        parent.mkdir(exist_ok=True)
        number = max((int(it.name) for it in parent.iterdir() if it.name.isdecimal()), default=0)
        directory = parent / str(number + 1)
        directory.mkdir()
    except OSError as error:
        raise LogError(f"{parent}: cannot be written: {error.strerror}") from error
    return directory


def command_of(source: Path, into: Path, asked: Asked, tasks: list[str]) -> list[str]:
    """The command line of the replay."""
    words = [sys.executable, "-m", "flowrun.runtime.cli", "replay", str(source.absolute())]
    words += ["--log-dir", str(into.absolute())]
    words += ["--from", str(asked.first), "--to", str(asked.last)]
    for task in tasks:
        words += ["--task", task]
    for name, value in asked.values.items():
        words += ["--set", f"{name}={json.dumps(value)}"]  # YAML reads JSON
    nice = shutil.which("nice")
    return words if nice is None else [nice, "-n", "10", *words]


def check_values(values: Mapping[str, Any], graph: Mapping[str, Any]) -> list[str]:
    """Raise `UsageError` for values that a what-if does not take; the tasks that it runs: those whose
    values change, all that get their messages, and those that make what these need and no log holds.

    values: "task.key" -> value. graph: the resolved graph of the run.
    """
    if not values:
        raise UsageError("nothing to change: give task.key and its value, such as inference.prompt")
    tasks = [task["id"] for task in graph["tasks"]]
    changed = []
    for name, value in values.items():
        task, dot, key = name.partition(".")
        if not dot or not key:
            raise UsageError(f"{described(name)}: expected task.key")
        if task not in tasks:
            raise UsageError(f"unknown task {described(task)}; tasks: {', '.join(tasks) or 'none'}")
        if says_secret(key) or any(part in key.lower() for part in _PROGRAM_KEYS):
            raise UsageError(
                f"{name} is not changed over HTTP: it may say what is run, or where to; use "
                "flowrun replay --set"
            )
        if not _is_simple(value):
            raise UsageError(
                f"{name}: expected a text, a number, true, false, null or a list of these"
            )
        changed.append(task)
    run = _with_makers(_reached(changed, graph), graph)
    return [task for task in tasks if task in run]


def _is_simple(value: Any) -> bool:
    simple = (str, int, float, bool, type(None))
    return isinstance(value, simple) or (
        isinstance(value, list) and all(isinstance(item, simple) for item in value)
    )


def _reached(tasks: list[str], graph: Mapping[str, Any]) -> set[str]:
    """`tasks`, and all that get their messages, directly or not."""
    reached, queue = set(tasks), list(tasks)
    for at in queue:
        for edge in graph["cnx"]:
            target = edge["dst"].partition(".")[0]
            if edge["src"].partition(".")[0] == at and target not in reached:
                reached.add(target)
                queue.append(target)
    return reached


def _with_makers(tasks: set[str], graph: Mapping[str, Any]) -> set[str]:
    """`tasks`, and those that make their inputs where the log does not hold these; no sources."""
    inputs: dict[str, set[str]] = {}
    for edge in graph["cnx"]:
        source, target = (edge[end].partition(".")[0] for end in ("src", "dst"))
        inputs.setdefault(target, set()).add(source)
    unlogged = {task["id"] for task in graph["tasks"] if not _is_logged(task)}
    found, queue = set(tasks), list(tasks)
    for at in queue:
        for maker in inputs.get(at, set()) & unlogged & inputs.keys() - found:
            found.add(maker)
            queue.append(maker)
    return found


def _is_logged(task: Mapping[str, Any]) -> bool:
    logging = task.get("logging", {})
    return bool(logging.get("enabled", True)) and logging.get("payload", "all") != "none"


def changes(recorded: Log, replayed: Log, tasks: list[str]) -> dict[str, Any]:
    """What the answers of two logs of the same cycles differ in.

    tasks: those that were run again.
    """
    topics = {
        topic.name: name
        for name, topic in named(replayed.topics.values(), ANSWERS).items()
        if topic.metadata.get("task") in tasks
    }
    compared, differs = 0, []
    first = next((record.cycle for record in replayed.cycles()), 0)
    if topics:
        before = recorded.messages(list(topics), first)
        for was, now in _pairs(before, replayed.messages(list(topics))):
            compared += 1
            old, new = (None if it is None else it.fields for it in (was, now))
            if _text(old) == _text(new):
                continue
            at = was or now
            assert at is not None
            differs.append(
                {
                    "task": topics[at.topic],
                    "cycle": at.cycle,
                    "at_ns": at.time_ns,
                    "frame_cycle": (old or new or {}).get("frame_cycle"),
                    "before": _shown(old),
                    "after": _shown(new),
                }
            )
    return {
        "compared": compared,
        "differing": len(differs),
        "differs": differs[:_MOST_CHANGES],
    }


def _pairs(before: Iterator[Any], after: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
    """The messages of one topic and cycle in both logs, as far as the second one reaches; None where one
    lacks it."""
    old = next(before, None)
    for new in after:
        while old is not None and (old.cycle, old.topic) < (new.cycle, new.topic):
            yield old, None
            old = next(before, None)
        if old is not None and (old.cycle, old.topic) == (new.cycle, new.topic):
            yield old, new
            old = next(before, None)
        else:
            yield None, new


def _text(fields: Mapping[str, Any] | None) -> Any:
    return None if fields is None else (fields.get("response"), fields.get("truncated"))


def _shown(fields: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if fields is None:
        return None
    keys = ("prompt", "response", "truncated", "backend", "latency_ms", "tokens")
    return {key: fields[key] for key in keys if key in fields}
