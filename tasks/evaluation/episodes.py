"""What an episode of a data set is made of: a run's pictures, in cycles, and numbers."""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.basic import BoolMsg, FloatMsg, IntMsg
from flowrun.runtime.atomic import file_name
from flowrun.runtime.errors import UsageError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.wording import listed, nearest
from flowrun.tasks.evaluation.recorded import RecordedRun

__all__ = ["Episode", "check_alike", "last_values", "read_episode", "uneven"]

_NUMBERS = frozenset(it.__name__ for it in (BoolMsg, FloatMsg, IntMsg))


@dataclass(frozen=True, slots=True)
class Episode:
    """A run.

    topics: of the cameras' pictures, by the camera's name. sizes: their height and width.
    rows: cycle and time of each picture; all cameras have one in that cycle.
    numbers: by task and port, cycle and value of each message that is a number.
    """

    run: RecordedRun
    topics: Mapping[str, str]
    sizes: Mapping[str, tuple[int, int]]
    rows: Sequence[tuple[int, int]]
    numbers: Mapping[str, Sequence[tuple[int, float]]]

    @property
    def name(self) -> str:
        return str(self.run.path)

    @property
    def gap_ns(self) -> float:
        """How far most pictures are apart."""
        gaps = [later - sooner for (_, sooner), (_, later) in pairwise(self.rows)]
        return statistics.median(gaps) if gaps else 1e8


def read_episode(run: RecordedRun, cameras: Sequence[str]) -> Episode:
    with Log(run.path) as log:
        topics = _cameras(log, run, cameras)
        names = {topic: camera for camera, topic in topics.items()}
        wanted = {name for name, topic in log.topics.items() if topic.schema_name in _NUMBERS}
        numbers: dict[str, list[tuple[int, float]]] = {_output(log, topic): [] for topic in wanted}
        taken: dict[str, dict[int, int]] = {camera: {} for camera in topics}
        sizes: dict[str, tuple[int, int]] = {}
        for message in log.messages([*names, *wanted]):
            if message.topic in wanted:
                value = message.fields.get("value")
                if isinstance(value, (bool, int, float)):
                    numbers[_output(log, message.topic)].append((message.cycle, float(value)))
                continue
            camera = names[message.topic]
            height, width = message.outline["pixels"].shape[:2]
            if sizes.setdefault(camera, (height, width)) != (height, width):
                raise UsageError(
                    f"{run.path}: the pictures of camera {camera!r} change their size in cycle "
                    f"{message.cycle}; LeRobot knows one size a camera"
                )
            taken[camera][message.cycle] = message.tov_ns
        first = next(iter(taken.values()))
        rows = [
            (cycle, tov_ns)
            for cycle, tov_ns in first.items()
            if all(cycle in it for it in taken.values())
        ]
        if not rows:
            raise UsageError(
                f"{run.path}: no cycle has a picture of each camera ({listed(list(topics))}); "
                "choose one with --camera"
            )
    return Episode(run, topics, sizes, rows, numbers)


def _output(log: Log, topic: str) -> str:
    said = log.topics[topic].metadata
    return f"{said.get('task', topic)}.{said.get('port', '')}".rstrip(".")


def _cameras(log: Log, run: RecordedRun, chosen: Sequence[str]) -> dict[str, str]:
    """Topics by camera: those that are chosen, or that tasks have answered about, or all."""
    pictures = {name: topic.metadata for name, topic in log.topics.items() if topic.is_picture}
    tasks = [said.get("task", "") for said in pictures.values()]
    there = {
        file_name(
            f"{said['task']}_{said.get('port', '')}"
            if tasks.count(said.get("task", "")) > 1 and "task" in said
            else said.get("task", name.strip("/"))
        ): name
        for name, said in pictures.items()
    }
    for name in chosen:
        if name not in there:
            raise UsageError(
                f"{run.path}: no camera {name!r}; there are: {listed(list(there)) or 'none'}"
                f"{nearest(name, there)}"
            )
    asked = {it.topic for it in run.askings}
    found = {
        name: topic
        for name, topic in there.items()
        if (name in chosen if chosen else topic in asked or not asked)
    }
    if not found:
        raise UsageError(f"{run.path}: there are no pictures in it")
    return found


def check_alike(episodes: Sequence[Episode]) -> None:
    first = episodes[0]
    for it in episodes[1:]:
        if it.sizes != first.sizes:
            raise UsageError(
                f"{it.name} has {_shown(it.sizes)}, but {first.name} has {_shown(first.sizes)}: a data "
                "set has the same cameras in each episode; choose with --camera, or write two"
            )


def _shown(sizes: Mapping[str, tuple[int, int]]) -> str:
    return ", ".join(f"{name} ({width}x{height})" for name, (height, width) in sizes.items())


def uneven(episode: Episode, fps: int) -> str | None:
    gaps = [later - sooner for (_, sooner), (_, later) in pairwise(episode.rows)]
    odd = sum(abs(gap * fps / 1e9 - 1) > 0.5 for gap in gaps)
    if not odd:
        return None
    return (
        f"{episode.name}: {odd:,} of {len(episode.rows):,} pictures were not taken 1/{fps} s after the "
        "one before; recorded.time_ns has the times"
    )


def last_values(found: Sequence[tuple[int, float]], cycles: Sequence[int]) -> NDArray[np.float32]:
    """Of each cycle the last value up to it; NaN before the first."""
    known = [cycle for cycle, _ in found]
    values = [float("nan"), *(value for _, value in found)]
    return np.array([values[bisect_right(known, cycle)] for cycle in cycles], np.float32)
