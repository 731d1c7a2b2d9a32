"""What a recorded run is, without reading all of it.

What is counted comes from the summaries of the slabs; of the records of errors, where there may be
some, each is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flowrun.runtime.errors import LogError
from flowrun.runtime.events import Failed
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.bytes import Damage
from flowrun.runtime.log.slab.format import CONTROL_TOPIC, GRAPH_SOURCE
from flowrun.runtime.recorded.controls import Controls
from flowrun.runtime.recorded.lanes import ANSWERS
from flowrun.runtime.recorded.places import Places
from flowrun.runtime.recorded.run import number_in, summary
from flowrun.runtime.run.trust import why_not_own

__all__ = ["RunInfo", "run_info"]


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a recorded run is.

    graph: the graph's name. state: "ended", "error", "running", "cut off" or "unreadable"; why: why it
        ended, or cannot be read, and what of it is missing.
    started_ns: when it began, in nanoseconds since 1970 UTC; None where that is not known.
    duration_s: from there to its end; None while it runs.
    cycles, answers, errors: how many there are. bytes: the size of its slabs.
    problem: why `flowrun replay` would not run it as it is; None where it would.
    """

    path: Path
    graph: str
    state: str
    why: str | None
    started_ns: int | None
    duration_s: float | None
    cycles: int
    answers: int
    errors: int
    bytes: int
    problem: str | None


def run_info(path: Path, *, env: Mapping[str, str]) -> RunInfo:
    """What the run at `path` is; a log that cannot be read gives the state "unreadable".

    env: the environment variables that say where the user's own key is.
    """
    try:
        with Log(path, verify=False) as log:
            return _info(path, log, env)
    except LogError as error:
        return RunInfo(
            path, "", "unreadable", str(error), None, None, 0, 0, 0, _size(path), str(error)
        )


def _info(path: Path, log: Log, env: Mapping[str, str]) -> RunInfo:
    cycles = number_in((log.end or {}).get("cycles"))
    found = summary(path.name, log, cycles=len(log) if cycles is None else cycles)
    started, ended = found["started_ns"], found["ended_ns"]
    if ended is None and found["state"] != "running":
        ended = log.end_ns
    counts = _counts(log)
    answers = sum(counts[it.name] for it in log.topics.values() if it.schema_name == ANSWERS)
    return RunInfo(
        path,
        found["graph"],
        found["state"],
        found["why"],
        started,
        None if started is None or ended is None else max(0, ended - started) / 1e9,
        found["cycles"],
        answers,
        _errors(log) if counts.get(CONTROL_TOPIC) else 0,
        sum(len(slab.view) for slab in log.slabs),
        _problem(log, env),
    )


def _counts(log: Log) -> dict[str, int]:
    """The number of messages of each topic."""
    counts = dict.fromkeys(log.topics, 0)
    if all(slab.structure.statistics is not None for slab in log.slabs):
        for slab in log.slabs:
            assert slab.structure.statistics is not None
            for channel, count in slab.structure.statistics.channel_message_counts.items():
                counts[slab.preamble.channels[channel].topic] += count
        return counts
    places = Places(log)
    places.update()
    return {name: len(places.of(name)) for name in counts}


def _errors(log: Log) -> int:
    places = Places(log)
    try:
        places.update()
        controls = Controls(log, places)
        controls.update()
    except Damage:
        return 0
    return sum(
        sum(happened.counts) for (kind, _), happened in controls.by.items() if kind == Failed.kind
    )


def _problem(log: Log, env: Mapping[str, str]) -> str | None:
    text = log.attachments.get(GRAPH_SOURCE)
    if text is None:
        return "the log holds no graph"
    return why_not_own(log.metadata, text, env)


def _size(path: Path) -> int:
    try:
        files = [path] if path.is_file() else list(path.glob("*.mcap"))
        return sum(it.stat().st_size for it in files)
    except OSError:
        return 0
