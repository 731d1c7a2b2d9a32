"""What Rerun shows when it opens an exported run.

    each picture, with the boxes found in it | the answers, one after the other
    the answer at the cursor                 | plots: times in ms, then the numbers of each topic
                                             | log lines and what happened to the run

Left to itself, Rerun makes a view of each field. It begins on the timeline `tov`, where boxes and
answers are next to their picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from flowrun.runtime.export.sources import pictures_before

__all__ = ["View", "blueprint"]

_ABOUT_FRAMES = frozenset(
    ("frame_id", "frame_cycle", "frame_width", "frame_height", "width", "height")
)
"""Fields that say which picture a message is about; nobody looks at their plot."""
_LEVELS = ("CRITICAL", "ERROR", "WARN", "INFO", "DEBUG")
"""What the log shows at first: without TRACE, which each background result is."""
_MOST_PLOTS = 8
# fmt: off
_COLORS = (
    (86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (204, 121, 167), (213, 94, 0)
)
# fmt: on
"""Okabe and Ito's, which also the colour-blind tell apart."""


@dataclass(slots=True)
class View:
    """What was written.

    pictures, boxes, answers: topics. lines: entities with log lines. numbers: topic -> fields.
    """

    pictures: list[str] = field(default_factory=list)
    boxes: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    numbers: dict[str, list[str]] = field(default_factory=dict)

    def saw_picture(self, topic: str) -> None:
        _add(self.pictures, topic)

    def saw_boxes(self, topic: str) -> None:
        _add(self.boxes, topic)

    def saw_answer(self, topic: str) -> None:
        _add(self.answers, topic)

    def saw_line(self, entity: str) -> None:
        _add(self.lines, entity)

    def saw_number(self, topic: str, name: str) -> None:
        _add(self.numbers.setdefault(topic, []), name)


def blueprint(rerun: Any, view: View, graph: bytes) -> Any:
    """The `rerun.blueprint.Blueprint` that shows `view`; None where there is nothing to show.

    graph: the log's attachment graph.json, which says what is found in which camera's pictures.
    """
    make = rerun.blueprint
    left, left_shares = [], []
    if view.pictures:
        about = {boxes: pictures_before(boxes, view.pictures, graph) for boxes in view.boxes}
        pictures = [
            make.Spatial2DView(
                origin=topic,
                name=topic,
                contents=[topic, *(boxes for boxes in view.boxes if topic in about[boxes])],
            )
            for topic in view.pictures
        ]
        left.append(make.Grid(*pictures) if len(pictures) > 1 else pictures[0])
        left_shares.append(5)
    if view.answers:
        now = [
            make.TextDocumentView(origin=f"{topic}/response", name=topic) for topic in view.answers
        ]
        left.append(make.Horizontal(*now) if len(now) > 1 else now[0])
        left_shares.append(1)
    right = _text(make, view) + _plots(rerun, view)
    if view.lines:
        right.append(_lines(make, "log", view.lines, ["loglevel", "body"], levels=_LEVELS))
    columns = []
    if left:
        columns.append(make.Vertical(*left, row_shares=left_shares))
    if right:
        columns.append(make.Vertical(*right))
    if not columns:
        return None
    return make.Blueprint(
        make.Horizontal(*columns, column_shares=[3, 2][: len(columns)]),
        make.SelectionPanel(state="collapsed"),
        make.TimePanel(timeline="tov"),
        auto_views=False,
    )


def _text(make: Any, view: View) -> list[Any]:
    if not view.answers:
        return []
    shown = ["entitypath", "body"] if len(view.answers) > 1 else ["body"]
    return [_lines(make, "answers", view.answers, shown)]


def _lines(
    make: Any, name: str, entities: list[str], shown: list[str], *, levels: Iterable[str] = ()
) -> Any:
    rows = make.TextLogRows(filter_by_log_level=list(levels)) if levels else None
    columns = make.TextLogColumns(timeline_columns=["cycle"], text_log_columns=shown)
    return make.TextLogView(
        origin="/", contents=list(entities), name=name, columns=columns, rows=rows
    )


def _plots(rerun: Any, view: View) -> list[Any]:
    """Tabs: all that took time in one plot, as they have one unit; the rest by topic."""
    took = [
        f"{topic}/{name}"
        for topic, names in view.numbers.items()
        for name in names
        if name.endswith("_ms")
    ]
    plots = [_plot(rerun, "/", took, "ms")] if took else []
    for topic, names in view.numbers.items():
        others = [
            f"{topic}/{name}"
            for name in names
            if name not in _ABOUT_FRAMES and not name.endswith("_ms")
        ]
        if others:
            plots.append(_plot(rerun, topic, others, topic))
    if len(plots) < 2:
        return plots
    return [rerun.blueprint.Tabs(*plots[:_MOST_PLOTS], active_tab=0)]


def _plot(rerun: Any, origin: str, entities: list[str], name: str) -> Any:
    # Rerun's own colours follow from the name, and are often nearly the same.
    lines = {
        entity: rerun.SeriesLines(colors=[color])
        for entity, color in zip(entities, cycle(_COLORS), strict=False)
    }
    return rerun.blueprint.TimeSeriesView(
        origin=origin, contents=entities, name=name, overrides=lines
    )


def _add(items: list[str], item: str) -> None:
    if item not in items:
        items.append(item)
