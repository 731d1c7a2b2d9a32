"""An evaluation as a page: the leaderboard, and each answer that is not right, with its picture."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowrun.runtime.errors import LogError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.recorded.frames import Frames
from flowrun.runtime.replay.page import Board, Entry, Page
from flowrun.tasks.evaluation.evaluate import RECORDING, Evaluation
from flowrun.tasks.evaluation.recorded import DETECTIONS
from flowrun.tasks.evaluation.scores import shown

__all__ = ["page_of"]

_MOST_PICTURES = 300
_WIDTH = 360


def page_of(found: Evaluation, board: Board, *, lead: str, command: str) -> Page:
    """The page.

    board: the leaderboard. lead: what was compared, in a sentence.
    """
    differing = [
        (name, at)
        for name, its in found.scores.items()
        for at, score in enumerate(its)
        if score is not None and not score.right and (name != RECORDING or found.by != RECORDING)
    ]
    differing.sort(key=lambda it: (found.asked[it[1]].run, found.asked[it[1]].cycle))
    pictures = _pictures(found, [at for _, at in differing])
    of_variant = {name: sum(it is not None for it in its) for name, its in found.scores.items()}
    ends = [it.time_ns - found.runs[it.run].begin_ns for it in found.asked]
    best = found.standings[0].name if found.standings else ""
    return Page(
        f"{best} is first of {len(found.standings)}" if len(found.standings) > 1 else lead,
        lead,
        command,
        [(_id(run.path), str(run.path)) for run in found.runs],
        [_entry(found, name, at, pictures) for name, at in differing],
        names=("recorded" if found.by == RECORDING else "right", "answer"),
        notes=[f"{note}." for note in found.notes],
        per_variant=of_variant,
        length_s=max(ends, default=0) / 1e9,
        pictures=pictures,
        board=board,
    )


def _id(path: Path) -> str:
    return path.absolute().name if path.is_dir() else path.stem


def _key(run: int, topic: str, cycle: int) -> str:
    return f"{run} {topic} {cycle}"


def _entry(found: Evaluation, name: str, at: int, pictures: Mapping[str, bytes]) -> Entry:
    asked, truth, answer = found.asked[at], found.truths[at], found.answers[name][at]
    assert truth is not None
    kind = asked.asking.kind
    was = "" if truth.is_wrong else shown(kind, truth.fields)
    now = shown(kind, answer)
    rows = [("objects" if kind == DETECTIONS else "response", was, now, was != now)]
    if truth.is_wrong:
        rows.append(("known to be wrong", shown(kind, truth.fields), "", True))
    if kind == DETECTIONS:
        rows.append(("boxes", _boxes(truth.fields), _boxes(answer), True))
    score = found.scores[name][at]
    if score is not None and 0 < score.near < 1:
        rows.append(("score", "1", f"{score.near:.2f}", False))
    recorded = found.answers[RECORDING][at]
    for field in ("prompt", "tokens"):
        if field in recorded or field in answer:
            texts = str(recorded.get(field, "")), str(answer.get(field, ""))
            rows.append((field, *texts, texts[0] != texts[1]))
    rows.append(("time", _ms(recorded), _ms(answer), False))
    key = _key(asked.run, asked.picture.topic, asked.picture.cycle)
    run = found.runs[asked.run]
    return Entry(
        asked.run,
        asked.cycle,
        (asked.time_ns - run.begin_ns) / 1e9,
        asked.asking.name,
        "error" if "error" in answer else "boxes" if kind == DETECTIONS else "text",
        was,
        now,
        rows,
        camera=asked.asking.camera,
        variant=name,
        pictures=[("frame", key)] if key in pictures else [],
    )


def _ms(answer: Mapping[str, Any]) -> str:
    ms = answer.get("ms")
    return "" if ms is None else f"{ms:,.0f} ms"


def _boxes(fields: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{label} {', '.join(f'{edge:.0f}' for edge in box)}"
        for label, box in zip(fields.get("labels", ()), fields.get("boxes", ()), strict=False)
    )


def _pictures(found: Evaluation, places: Sequence[int]) -> dict[str, bytes]:
    """The pictures of answers, as JPEGs; of many, some that are spread evenly."""
    wanted = dict.fromkeys(
        (found.asked[at].run, found.asked[at].picture.topic, found.asked[at].picture.cycle)
        for at in places
    )
    order = sorted(wanted)
    if len(order) > _MOST_PICTURES:
        order = [order[len(order) * k // _MOST_PICTURES] for k in range(_MOST_PICTURES)]
    pictures: dict[str, bytes] = {}
    for run in dict.fromkeys(it[0] for it in order):
        with Log(found.runs[run].path) as log:
            frames = Frames(log)
            for _, topic, cycle in (it for it in order if it[0] == run):
                with contextlib.suppress(LogError):
                    pictures[_key(run, topic, cycle)] = frames.jpeg(topic, cycle, width=_WIDTH)
    return pictures
