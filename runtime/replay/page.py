"""Differences on a page: what changed, how often and where; then each of them, with its pictures.

The page is one file that needs no network. What comes from a run is data in it, never markup.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Board", "Entry", "Page", "Series"]

_TEMPLATE = Path(__file__).with_name("page.html")
_MOST_POINTS = 2000
"""Points of a series that are drawn."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A difference.

    run: its place in `Page.runs`. cycle, offset_s: where in the run.
    kind: "text", "number", "boxes", "picture", "missing", ...: what may be chosen by.
    camera: whose picture it is about; "" where none is known.
    variant: which of several ways to ask has made it; "" where there is one.
    was, now: both values in a line.
    fields: name, both values, and whether they differ, of each field that is shown.
    pictures: caption and key in `Page.pictures` of each picture.
    """

    run: int
    cycle: int
    offset_s: float
    task: str
    kind: str
    was: str
    now: str
    fields: Sequence[tuple[str, str, str, bool]]
    camera: str = ""
    variant: str = ""
    pictures: Sequence[tuple[str, str]] = ()
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """A value over time: seconds since the run began, the recorded value, the one of now; None where
    there is none."""

    name: str
    points: Sequence[tuple[float, float | None, float | None]]


@dataclass(frozen=True, slots=True)
class Board:
    """A table that comes first, and what to say of it."""

    heads: Sequence[str]
    lines: Sequence[Sequence[str]]
    sentences: Sequence[str]


@dataclass(slots=True)
class Page:
    """What is on the page.

    title, lead: what it is about, and in a sentence what came of it.
    command: the command line that made it.
    names: what the two sides are called.
    runs: id and path of each run, as `flowrun view` has them.
    compared: by task, how many messages were compared; per_variant: the same by variant.
    length_s: how long the longest run took.
    pictures: JPEG files by key.
    """

    title: str
    lead: str
    command: str
    runs: Sequence[tuple[str, str]]
    entries: Sequence[Entry]
    names: tuple[str, str] = ("recorded", "replayed")
    notes: Sequence[str] = ()
    compared: Mapping[str, int] = field(default_factory=dict)
    per_variant: Mapping[str, int] = field(default_factory=dict)
    length_s: float = 0.0
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    series: Sequence[Series] = ()
    board: Board | None = None

    def text(self) -> str:
        """The page as HTML."""
        words: dict[str, int] = {}

        def word(text: str) -> int:
            return words.setdefault(text, len(words))

        rows = [
            [
                it.cycle,
                round(it.offset_s, 3),
                word(it.task),
                word(it.kind),
                word(it.camera),
                word(it.variant),
                it.was,
                it.now,
                it.fields,
                it.pictures,
                it.hint,
                it.run,
            ]
            for it in self.entries
        ]
        data = {
            "title": self.title,
            "lead": self.lead,
            "command": self.command,
            "names": self.names,
            "notes": self.notes,
            "runs": [{"id": id_, "path": path} for id_, path in self.runs],
            "compared": self.compared,
            "per_variant": self.per_variant,
            "length_s": self.length_s,
            "words": list(words),
            "rows": rows,
            "pictures": {
                key: base64.b64encode(jpeg).decode() for key, jpeg in self.pictures.items()
            },
            "series": [{"name": it.name, "points": _thinned(it.points)} for it in self.series],
            "board": None
            if self.board is None
            else {
                "heads": self.board.heads,
                "lines": self.board.lines,
                "sentences": self.board.sentences,
            },
        }
        template = _TEMPLATE.read_text(encoding="utf-8")
        before, _, rest = template.partition("@TITLE@")
        middle, _, after = rest.partition("@DATA@")
        return "".join((before, html.escape(self.title), middle, _as_data(data), after))


def _as_data(value: Any) -> str:
    """JSON for within a script element, which no text of it can end."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _thinned(
    points: Sequence[tuple[float, float | None, float | None]],
) -> list[tuple[float, float | None, float | None]]:
    """Points evenly spread, and as many of those that differ as there is room for."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    differing = [at for at, (_, was, now) in enumerate(points) if was != now]
    half = _MOST_POINTS // 2
    some = {len(points) * k // half for k in range(half)}
    kept = min(half, len(differing))
    some |= {differing[len(differing) * k // kept] for k in range(kept)}
    return [points[at] for at in sorted(some)]
