"""What came of golden runs, as one page: all differences of all runs, with their pictures."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from flowrun.runtime.errors import LogError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.recorded.frames import Frames
from flowrun.runtime.replay.page import Board, Entry, Page
from flowrun.runtime.replay.values import kind_of
from flowrun.runtime.testbench.golden import Verdict
from flowrun.runtime.testbench.pairs import Pair
from flowrun.runtime.testbench.verdict_files import headline

__all__ = ["as_page"]

_MOST_PICTURES = 300
_WIDTH = 360
"""Of a picture, in pixels."""
_LONGEST = 2000
"""Characters of a value."""


def as_page(verdicts: Sequence[Verdict], *, command: str) -> str:
    """The page as HTML.

    command: the command line that made it.
    """
    pairs = [
        (number, pair)
        for number, verdict in enumerate(verdicts)
        for pair in verdict.replayed.pairs
        if pair.difference is not None
    ]
    pictures = _pictures(verdicts, pairs)
    compared: Counter[str] = Counter()
    for verdict in verdicts:
        if verdict.replayed.report is not None:
            compared.update(verdict.replayed.report.per_task)
    board = Board(
        ("run", "graph", "", "what came of it"),
        [
            (
                it.run.name,
                "as recorded" if it.run.graph is None else str(it.run.graph),
                it.state,
                it.summary,
            )
            for it in verdicts
        ],
        [],
    )
    entries = [_entry(number, pair, verdicts[number], pictures) for number, pair in pairs]
    return Page(
        headline(verdicts),
        "Golden runs, replayed with the code and the graphs of now.",
        command,
        [(it.run.name, str(it.run.path)) for it in verdicts],
        entries,
        names=("recorded", "now"),
        notes=[f"{it.run.name}: {note}" for it in verdicts for note in it.replayed.notes],
        compared=compared,
        length_s=max((it.offset_s for it in entries), default=0.0),
        pictures=pictures,
        board=board,
    ).text()


def _key(run: int, pair: Pair) -> str:
    return "" if pair.picture is None else f"{run} {pair.picture.topic} {pair.picture.cycle}"


def _entry(run: int, pair: Pair, verdict: Verdict, pictures: dict[str, bytes]) -> Entry:
    difference = pair.difference
    assert difference is not None
    own = [(side, f"{run} {pair.cycle} {pair.task} {side}") for side in pair.shown]
    key = _key(run, pair)
    return Entry(
        run,
        pair.cycle,
        max(0, pair.time_ns - verdict.replayed.begin_ns) / 1e9,
        pair.task,
        _kind(pair),
        difference.recorded[:_LONGEST],
        difference.replayed[:_LONGEST],
        [
            (name, _text(was), _text(now), was != now)
            for name in dict.fromkeys([*(pair.recorded or {}), *(pair.now or {})])
            for was, now in [((pair.recorded or {}).get(name), (pair.now or {}).get(name))]
        ],
        camera="" if pair.picture is None else pair.picture.topic.strip("/").partition("/")[0],
        pictures=own or ([("frame", key)] if key in pictures else []),
        hint=difference.hint,
    )


def _kind(pair: Pair) -> str:
    assert pair.difference is not None
    field = "error" if pair.kind == "error" else pair.difference.field
    return kind_of(field, pair.recorded, pair.now, is_picture=bool(pair.shown))


def _text(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text[:_LONGEST]


def _pictures(verdicts: Sequence[Verdict], pairs: Sequence[tuple[int, Pair]]) -> dict[str, bytes]:
    """JPEG files by key: of messages that are pictures both of them; of others the picture that they are
    about, of many some that are spread evenly."""
    found = {
        f"{run} {pair.cycle} {pair.task} {side}": data
        for run, pair in pairs
        for side, data in pair.shown.items()
    }
    wanted = list({_key(run, pair): (run, pair) for run, pair in pairs if pair.picture}.values())
    if len(wanted) > _MOST_PICTURES:
        wanted = [wanted[len(wanted) * k // _MOST_PICTURES] for k in range(_MOST_PICTURES)]
    for run in dict.fromkeys(run for run, _ in wanted):
        with contextlib.suppress(LogError), Log(verdicts[run].run.path) as log:
            frames = Frames(log)
            for pair in (pair for number, pair in wanted if number == run):
                assert pair.picture is not None
                with contextlib.suppress(LogError):
                    found[_key(run, pair)] = frames.jpeg(
                        pair.picture.topic, pair.picture.cycle, width=_WIDTH
                    )
    return found
