"""The messages that a replay made otherwise than they were recorded, as a page or as JSON: what a
changed prompt, model or line of code does to a recorded run."""

from __future__ import annotations

import base64
import contextlib
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message
from flowrun.runtime.atomic import whole_file
from flowrun.runtime.errors import LogError
from flowrun.runtime.pictures.encode import jpeg
from flowrun.runtime.recorded.frames import Frames
from flowrun.runtime.replay.about import PictureTimes, nearest_pictures
from flowrun.runtime.replay.compare import Difference, Recorded
from flowrun.runtime.replay.page import Entry, Page, Series
from flowrun.runtime.replay.replay import Replay, ReplayReport
from flowrun.runtime.replay.values import fields_of, kind_of, numbers_of, plain
from flowrun.runtime.wording import counted

__all__ = ["DifferenceReport"]

_WIDTH = 360
"""The greatest width and height of a picture on the page, in pixels."""
_WINDOW = 1000
"""Number of cycles before a message's own in which its picture is looked for."""
_MOST_NUMBERS = 64
"""Of an array that is shown; of a larger one its type and shape."""
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
    frame: tuple[str, int] | None = None
    """Topic and cycle of the picture that the message is about."""


class DifferenceReport:
    """Collects the differences of `replay`. Make it before the replay runs, and `write` it after.

    most_pictures: number of messages that are shown with pictures; of more, they are spread evenly.
    hook: what is given `on_difference` and `on_message`; `replay.hook`, if not given.
    """

    def __init__(
        self,
        replay: Replay,
        *,
        most_pictures: int = 200,
        hook: Callable[..., None] | None = None,
    ) -> None:
        self._replay = replay
        self._entries: list[_Entry] = []
        self._most_pictures = most_pictures
        self._pictures_left = most_pictures
        self._images = nearest_pictures(replay.plan)
        self._values: dict[str, list[tuple[int, float | None, float | None]]] = defaultdict(list)
        """By task, port and field, the time and both values of each message with a number."""
        (hook or replay.hook)(on_difference=self._take, on_message=self._note_values)

    def _take(
        self, difference: Difference, recorded: Recorded | None, made: Message | None
    ) -> None:
        before = None if recorded is None or made is None else fields_of(recorded, made)
        now = None if made is None or not made.present else dict(made.all_fields())
        measured: frozenset[str] = frozenset() if made is None else made.measured_fields
        was, is_now = (plain(fields, but=measured, most=_MOST_NUMBERS) for fields in (before, now))
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

    def _note_values(
        self,
        task: str,
        port: str,
        recorded: Recorded | None,
        made: Message,
        difference: Difference | None,
    ) -> None:
        """Note the numbers of a message, for the plot."""
        time_ns = self._replay.time_ns
        if time_ns is None or isinstance(made, ImageRgb8Msg):
            return
        now = numbers_of(dict(made.all_fields())) if made.present else {}
        was = now
        if difference is not None:
            was = {} if recorded is None else numbers_of(fields_of(recorded, made))
        for name in {**was, **now}:
            if name not in made.measured_fields:
                self._values[f"{task}.{port} {name}"].append(
                    (time_ns, was.get(name), now.get(name))
                )

    def write(self, path: Path, report: ReplayReport, *, command: str) -> None:
        """Write all differences to a file. Raises `LogError` if it cannot be written.

        path: where to; JSON if it ends in .json, otherwise a page that needs no other file.
        report: the report of the replay.
        command: the command line that ran the replay.
        """
        if path.suffix == ".json":
            text = json.dumps(self.as_json(report, command=command), indent=1) + "\n"
        else:
            self._find_pictures()
            text = self._as_page(report, command)
        with whole_file(path) as part:
            part.write_text(text, encoding="utf-8", errors="backslashreplace")

    def as_json(self, report: ReplayReport, *, command: str) -> dict[str, Any]:
        """What `write` puts into a file that ends in .json."""
        self._find_pictures()
        return self._as_json(report, command)

    # -- pictures ------------------------------------------------------------------------------

    def _find_pictures(self) -> None:
        """Find the picture that each message is about, and read as many as are shown: among the nearest
        pictures upstream of its task, the one with the message's time of validity."""
        log = self._replay.log
        wanted = {topic for topic in self._images.values() if topic in log.topics}
        about = [
            it
            for it in self._entries
            if self._images.get(it.difference.task) in wanted and not it.pictures
        ]
        if not about:
            return
        first = min(it.difference.cycle for it in about) - _WINDOW
        last = max(it.difference.cycle for it in about)
        times = PictureTimes(log, wanted, start=max(0, first), end=last + 1)
        for entry in about:
            topic, cycle = self._images[entry.difference.task], entry.difference.cycle
            found = times.last(topic, entry.tov_ns, cycle)
            if found is not None and found >= cycle - _WINDOW:
                entry.frame = topic, found
        self._read_pictures([it for it in about if it.frame is not None])

    def _read_pictures(self, entries: list[_Entry]) -> None:
        count = min(self._pictures_left, len(entries))
        self._pictures_left -= count
        frames = Frames(self._replay.log)
        for number in range(count):
            entry = entries[number * len(entries) // count]
            assert entry.frame is not None
            with contextlib.suppress(LogError):
                entry.pictures["frame"] = frames.jpeg(*entry.frame, width=_WIDTH)

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
        log, head = self._replay.log, self._head(report, command)
        begin_ns = next(log.cycles()).time_ns
        pictures: dict[str, bytes] = {}
        facts = [
            f"{counted(report.cycles, 'cycle')}",
            f"{counted(report.fed, 'message')} fed from the log",
        ]
        if report.tolerated:
            facts.append(f"{report.tolerated:,} more differ within the tolerance")
        if report.bare:
            facts.append(f"{report.bare:,} compared without payload, which the log does not hold")
        lead = f"{', '.join(facts)}."
        if report.recorded_error:
            lead += f" The recorded error came again: {report.recorded_error}."
        if not report.differing:
            lead += " All messages are identical."
        notes = [f"{note}." for note in self._replay.notes]
        shown = sum(bool(it.pictures) for it in self._entries)
        if shown >= self._most_pictures:
            notes.append(f"Only {shown:,} differences are shown with pictures.")
        return Page(
            f"{head['run']}: {report.differing:,} of {report.compared:,} messages differ",
            lead,
            command,
            [(log.path.absolute().name if log.path.is_dir() else log.path.stem, str(log.path))],
            [self._entry(entry, begin_ns, pictures) for entry in self._entries],
            notes=notes,
            compared=report.per_task,
            length_s=((log.end_ns or begin_ns) - begin_ns) / 1e9,
            pictures=pictures,
            series=[
                Series(name, [((at - begin_ns) / 1e9, was, now) for at, was, now in values])
                for name, values in sorted(self._values.items())
                if any(was != now for _, was, now in values)
            ],
        ).text()

    def _entry(self, entry: _Entry, begin_ns: int, pictures: dict[str, bytes]) -> Entry:
        """A difference as the page shows it; its pictures go into `pictures`, each one once."""
        difference, shown = entry.difference, []
        for caption, data in entry.pictures.items():
            if not data:
                continue
            key = f"{caption}{len(pictures)}"
            if entry.frame is not None:
                key = f"{entry.frame[0]} {entry.frame[1]}"
            pictures[key] = data
            shown.append((caption, key))
        rows = _rows(entry)
        differing = [row for row in rows if row[3]]
        # What was asked, and of whom, is changed on purpose; what was answered is what matters.
        differing.sort(key=lambda row: row[0] in ("prompt", "backend", "tokens"))
        was, now = differing[0][1:3] if differing else ("", "")
        camera = (
            entry.frame[0] if entry.frame is not None else self._images.get(difference.task, "")
        )
        return Entry(
            0,
            difference.cycle,
            (entry.time_ns - begin_ns) / 1e9,
            f"{difference.task}.{difference.port}" if difference.port else difference.task,
            kind_of(
                difference.field,
                entry.recorded,
                entry.replayed,
                is_picture="pixels" in (entry.replayed or ()),
            ),
            was,
            now,
            rows,
            camera=camera.strip("/").partition("/")[0],
            pictures=shown,
            hint=difference.hint,
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


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    if not pixels.size:
        return b""
    image = ImageRgb8Msg(pixels=pixels)
    part = min(1.0, _WIDTH / max(image.width, image.height))
    size = (max(1, round(part * it)) for it in (image.width, image.height))
    return jpeg(image.resized(*size) if part < 1 else pixels, quality=85)
