"""The recorded pictures that fit a text or a picture best, as text and JSON."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from flowrun.runtime.errors import LogError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.recorded.frames import Frames
from flowrun.tasks.search.index import Index
from flowrun.tasks.search.origins import Origin, Origins
from flowrun.tasks.search.pictures import Scored

__all__ = ["Hit", "as_json", "best", "rows", "thumbnails"]

_RANK = 60.0
"""How slowly places fall in value when two orders are made one: that of Cormack's paper on it."""

_SAID = 0.5
"""The part of a text that must have been said for it to count besides what is near."""
_NEAR_NS = 5_000_000_000
_SPARE = 4
"""How many times as many are looked for, as some are left out again."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A picture that was found.

    path: of its run. run: the run's id. task: the camera that it is from, or the task that answered.
    score: how well it fits: of a text, the part of it that was said of the picture; of a picture, and of
        a text where the model knows texts, the cosine of both vectors.
    text: what was said of it; "" where nothing was.
    """

    path: Path
    run: str
    topic: str
    cycle: int
    time_ns: int
    task: str
    score: float
    text: str

    @property
    def link(self) -> str:
        """The moment in `flowrun view`, while that runs."""
        return f"http://127.0.0.1:3000/?{urlencode({'run': self.run, 'cycle': self.cycle})}"

    @property
    def time(self) -> str:
        """In UTC, as ISO 8601 has it."""
        return datetime.fromtimestamp(self.time_ns / 1e9, UTC).isoformat(timespec="milliseconds")


def best(
    indexes: Sequence[tuple[Index, Mapping[str, Path]]],
    *,
    text: str | None,
    vector: Any,
    count: int,
) -> list[Hit]:
    """The `count` pictures of several indexes that fit best, the best first. One that several processes
    of a fleet have is there once, in the run of the one whose camera it is from where none fits better.

    indexes: each with its runs, by the name that it has for each.
    text: what is asked for; None where a picture is.
    vector: that of the picture, or of the text; None for a text of a model that has none.
    """
    near: list[Hit] = []
    saying: list[Hit] = []
    for index, runs in indexes:
        names = list(runs)
        if vector is not None:
            near += [_hit(it, runs) for it in index.near(vector, _SPARE * count, runs=names)]
        if text is not None:
            saying += [_hit(it, runs) for it in index.saying(text, _SPARE * count, runs=names)]
    with Origins() as origins:
        near, saying = (_apart(it, origins) for it in (near, saying))
    if not near or not saying:
        return (near or saying)[:count]
    values: dict[tuple[Path, str, int], tuple[float, Hit]] = {}  # by reciprocal rank fusion
    for hits in (near, [it for it in saying if it.score >= _SAID]):
        for place, hit in enumerate(hits):
            key = hit.path, hit.topic, hit.cycle
            value, first = values.get(key, (0.0, hit))
            values[key] = value + 1 / (_RANK + place), first
    ordered = sorted(values.values(), key=lambda it: -it[0])
    return [hit for _, hit in ordered[:count]]


def _apart(hits: Iterable[Hit], origins: Origins) -> list[Hit]:
    """The best first, without those of which something near in time says the same of the same camera,
    and those of which another process has the picture."""
    whence = {it: origins.of(it.path, it.topic, it.cycle) for it in hits}
    kept: dict[tuple[object, str, str], list[int]] = {}
    paths: dict[Origin, Path] = {}
    found = []
    for hit in sorted(whence, key=lambda it: (-it.score, _is_received(it, whence[it]))):
        origin = whence[hit]
        if origin is None:
            times = kept.setdefault((hit.path, hit.topic, hit.text), [])
        else:
            times = kept.setdefault((origin.run, origin.output, hit.text), [])
            if paths.setdefault(origin, hit.path) != hit.path:
                continue
        if not hit.text or all(abs(hit.time_ns - it) > _NEAR_NS for it in times):
            found.append(hit)
            times.append(hit.time_ns)
    return found


def _is_received(hit: Hit, origin: Origin | None) -> bool:
    return origin is not None and origin.output != hit.topic.strip("/").replace("/", "_")


def _hit(scored: Scored, runs: Mapping[str, Path]) -> Hit:
    it = scored.picture
    path = runs[it.run]
    name = path.absolute().name if path.is_dir() else path.stem
    return Hit(path, name, it.topic, it.cycle, it.time_ns, it.task, scored.score, scored.text)


def thumbnails(hits: Sequence[Hit], *, width: int) -> dict[Hit, bytes]:
    """The pictures that were found, as JPEGs of that width; without those that the log does not give."""
    found: dict[Hit, bytes] = {}
    for path in dict.fromkeys(it.path for it in hits):
        with contextlib.suppress(LogError), Log(path) as log:
            frames = Frames(log)
            for hit in sorted((it for it in hits if it.path == path), key=lambda it: it.cycle):
                with contextlib.suppress(LogError):
                    found[hit] = frames.jpeg(hit.topic, hit.cycle, width=width)
    return found


def as_json(hits: Sequence[Hit], pictures: Mapping[Hit, bytes]) -> list[dict[str, Any]]:
    """What was found, with a picture of each as a data URL."""
    return [
        {
            "run": str(it.path),
            "topic": it.topic,
            "cycle": it.cycle,
            "time": it.time,
            "time_ns": it.time_ns,
            "task": it.task,
            "score": round(it.score, 4),
            "text": it.text,
            "view": it.link,
            "thumbnail": data_url(pictures[it]) if it in pictures else None,
        }
        for it in hits
    ]


def data_url(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def rows(hits: Sequence[Hit]) -> list[tuple[str, ...]]:
    """What was found, in columns: score, time, run, task, cycle, what was said."""
    return [
        (f"{it.score:.2f}", it.time[:-10], str(it.path), it.task, f"{it.cycle:,}", it.text)
        for it in hits
    ]
