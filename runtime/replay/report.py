"""The messages that a replay made otherwise than they were recorded, as a page or as JSON: what a
changed prompt, model or line of code does to a recorded run."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message
from flowrun.runtime.atomic import whole_file
from flowrun.runtime.errors import LogError
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.compare import Difference, Recorded
from flowrun.runtime.replay.replay import Replay, ReplayReport

__all__ = ["DifferenceReport"]

_WIDTH = 360
"""The greatest width and height of a picture on the page, in pixels."""
_WINDOW = 1000
"""Number of cycles before a message's own in which its picture is looked for."""
_TEXT = 2000
"""Number of characters of a value that are shown."""


@dataclass(slots=True)
class _Entry:
    difference: Difference
    time_ns: int
    tov_ns: int
    recorded: dict[str, Any] | None
    replayed: dict[str, Any] | None
    pictures: dict[str, bytes] = field(default_factory=dict)
    """JPEG files, by caption."""


class DifferenceReport:
    """Collects the differences of `replay`. Make it before the replay runs, and `write` it after.

    most_pictures: number of messages that are shown with pictures.
    """

    def __init__(self, replay: Replay, *, most_pictures: int = 200) -> None:
        self._replay = replay
        self._entries: list[_Entry] = []
        self._most_pictures = most_pictures
        self._pictures_left = most_pictures
        self._images = _images_of(replay.plan)
        replay.hook(on_difference=self._take)

    def _take(
        self, difference: Difference, recorded: Recorded | None, made: Message | None
    ) -> None:
        before = None if recorded is None or made is None else _fields_of(recorded, made)
        now = None if made is None or not made.present else dict(made.all_fields())
        measured: frozenset[str] = frozenset() if made is None else made.measured_fields
        was, is_now = (_plain(fields, but=measured) for fields in (before, now))
        tov_ns = 0 if recorded is None else recorded.tov_ns
        if made is not None and made.present:
            tov_ns = made.tov_ns
        entry = _Entry(difference, self._replay.time_ns or 0, tov_ns, was, is_now)
        if isinstance(made, ImageRgb8Msg) and self._pictures_left:
            self._pictures_left -= 1
            for caption, fields in (("recorded", before), ("replayed", now)):
                if fields is not None and "pixels" in fields:
                    entry.pictures[caption] = _jpeg(fields["pixels"])
        self._entries.append(entry)

    def write(self, path: Path, report: ReplayReport, *, command: str) -> None:
        """Write all differences to a file. Raises `LogError` if it cannot be written.

        path: where to; JSON if it ends in .json, otherwise a page that needs no other file.
        report: the report of the replay.
        command: the command line that ran the replay.
        """
        self._find_pictures()
        if path.suffix == ".json":
            text = json.dumps(self._as_json(report, command), indent=1) + "\n"
        else:
            text = self._as_page(report, command)
        with whole_file(path) as part:
            part.write_text(text, encoding="utf-8", errors="backslashreplace")

    # -- pictures ------------------------------------------------------------------------------

    def _find_pictures(self) -> None:
        """Find the picture that each message is about: among the nearest pictures upstream of its
        task, the one with the message's time of validity."""
        log = self._replay.log
        for entry in self._entries:
            topic = self._images.get(entry.difference.task)
            if topic is None or entry.pictures or topic not in log.topics:
                continue
            if not self._pictures_left:
                return
            pixels = _picture_of(log, topic, entry.tov_ns, entry.difference.cycle)
            if pixels is not None:
                self._pictures_left -= 1
                entry.pictures["frame"] = _jpeg(pixels)

    # -- what is written -----------------------------------------------------------------------

    def _as_json(self, report: ReplayReport, command: str) -> dict[str, Any]:
        return {
            **self._head(report, command),
            "differences": [
                {
                    **asdict(entry.difference),
                    "time_ns": entry.time_ns,
                    "tov_ns": entry.tov_ns,
                    "recorded_message": entry.recorded,
                    "replayed_message": entry.replayed,
                    "pictures": {
                        name: base64.b64encode(data).decode()
                        for name, data in entry.pictures.items()
                    },
                }
                for entry in self._entries
            ],
        }

    def _as_page(self, report: ReplayReport, command: str) -> str:
        import jinja2

        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
        )
        begin_ns = next(self._replay.log.cycles()).time_ns
        entries = [
            {
                "difference": entry.difference,
                "offset_s": (entry.time_ns - begin_ns) / 1e9,
                "rows": _rows(entry),
                "pictures": {
                    name: base64.b64encode(data).decode() for name, data in entry.pictures.items()
                },
            }
            for entry in self._entries
        ]
        by_task = Counter(entry.difference.task for entry in self._entries)
        return environment.get_template("report.html").render(
            head=self._head(report, command),
            entries=entries,
            by_task=by_task,
            pictures_left=self._pictures_left,
            most_pictures=self._most_pictures,
        )

    def _head(self, report: ReplayReport, command: str) -> dict[str, Any]:
        log = self._replay.log
        return {
            "run": log.metadata.get("run_id", log.path.name),
            "graph": log.metadata.get("graph", ""),
            "command": command,
            "cycles": report.cycles,
            "compared": report.compared,
            "fed": report.fed,
            "differing": report.differing,
            "tolerated": report.tolerated,
            "bare": report.bare,
            "recorded_error": report.recorded_error,
            "notes": list(self._replay.notes),
        }


def _rows(entry: _Entry) -> list[tuple[str, str, str, bool]]:
    """The name, recorded value and replayed value of each field, and whether they differ."""
    difference, before, now = entry.difference, entry.recorded, entry.replayed
    if before is None or now is None or difference.field in ("", "tov_ns", "error"):
        name = difference.field or "message"
        return [(name, difference.recorded[:_TEXT], difference.replayed[:_TEXT], True)]
    rows = []
    for name in now:
        old, new = _text(before.get(name)), _text(now[name])
        if name == difference.field and old == new:  # arrays, shown by type and shape only
            old, new = difference.recorded, difference.replayed
        rows.append((name, old, new, old != new))
    return sorted(rows, key=lambda row: not row[3])


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _TEXT else f"{text[:_TEXT]}…"


def _fields_of(recorded: Recorded, made: Message) -> dict[str, Any]:
    try:
        return made.decode_fields(recorded.payload)
    except ValueError:
        return {"bytes": f"{len(recorded.payload)} bytes that are not a {type(made).__name__}"}


def _plain(fields: dict[str, Any] | None, *, but: frozenset[str]) -> dict[str, Any] | None:
    """Fields as JSON holds them; large arrays by type and shape."""
    if fields is None:
        return None
    return {name: _plain_value(value) for name, value in fields.items() if name not in but}


def _plain_value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.size <= 64 and value.dtype.kind in "biuf":
            return [_plain_value(item) for item in value.tolist()]
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [_plain_value(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain_value(item) for name, item in value.items()}
    return value


def _images_of(plan: Plan) -> dict[str, str]:
    """For each task, the topic of the pictures that reach it over the fewest connections."""
    found: dict[str, str] = {}
    distance: dict[str, int] = {}
    for step in plan.steps:
        best: tuple[int, str] | None = None
        for argument in step.arguments:
            if not argument.port.is_input or argument.slot is None:
                continue
            slot = plan.slots[argument.slot]
            if issubclass(slot.message_type, ImageRgb8Msg):
                candidate = (0, slot.topic)
            elif slot.task_id in found:
                candidate = (distance[slot.task_id] + 1, found[slot.task_id])
            else:
                continue
            best = candidate if best is None else min(best, candidate)
        if best is not None:
            distance[step.task.id], found[step.task.id] = best
    return found


def _picture_of(log: Log, topic: str, tov_ns: int, cycle: int) -> NDArray[np.uint8] | None:
    for message in log.messages(topic, cycle - _WINDOW, cycle + 1):
        if message.tov_ns == tov_ns:
            try:
                pixels: NDArray[np.uint8] | None = message.fields.get("pixels")
            except LogError:
                return None
            return pixels
    return None


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    if not pixels.size:
        return b""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((_WIDTH, _WIDTH))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return file.getvalue()
