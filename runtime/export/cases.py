"""What a run keeps of an alert that asks for it: a film, a picture, what was said meanwhile, an e-mail.

Each alert has a folder, `clips/<cycle>-<task>` in the run's own:

| file             | what it is                                                                     |
|------------------|--------------------------------------------------------------------------------|
| `case.json`      | what was raised, when, by which values; what the other files hold              |
| `<camera>.mp4`   | the camera's film, copied from the recorded packets where they make one        |
| `picture.jpg`    | the frame that the alert is about                                              |
| `messages.jsonl` | all messages of the time of the film but pictures, as `flowrun log export`     |
| `alert.eml`      | an e-mail with the picture, not sent: mail programs open it as a draft         |

All of it is made from the log alone, so that what a run was killed over is made when it is recovered. A
folder is there whole or not at all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from flowrun.msgs.alert import AlertMsg
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.atomic import file_name
from flowrun.runtime.errors import LogError
from flowrun.runtime.export.mp4 import export_mp4
from flowrun.runtime.export.selection import ExportReport, Selection
from flowrun.runtime.export.sources import pictures_before
from flowrun.runtime.export.text import export_jsonl
from flowrun.runtime.log.message import LogMessage
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import CODEC, GRAPH_RESOLVED
from flowrun.runtime.log.values import plain_value
from flowrun.runtime.pictures.encode import jpeg_of
from flowrun.runtime.pictures.stored import StoredPicture
from flowrun.runtime.wording import escaped, one_line

__all__ = ["CLIPS", "Case", "cameras_of", "cases_of", "make_case", "make_missing"]

CLIPS = "clips"
"""The folder of a run's directory that holds those of its alerts."""
_CASE = "case.json"
_VERSION = 1
_LONGEST_LEAD_NS = 30_000_000_000
"""How much earlier than asked for a copied film may begin, at the key frame before."""
_FIRST_STEP = 64
"""Cycles by which the log is searched backwards for the beginning of a film, at first."""
_ENCODED = "encoded"
"""How notes about a film begin that was not copied."""
_JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True)
class Case:
    """An alert of a run, of which something is to be kept.

    topic, task: which output has raised it. cycle: in which cycle. tov_ns: its frame's time.
    fields: of the `AlertMsg`.
    """

    topic: str
    task: str
    cycle: int
    tov_ns: int
    fields: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.cycle:08}-{file_name(self.task)}"

    @property
    def from_ns(self) -> int:
        """When the film begins, by the times of frames."""
        return int(self.fields["clip_from_ns"])

    @property
    def to_ns(self) -> int:
        """When it ends."""
        return int(self.fields["clip_to_ns"])


def cases_of(log: Log, start: int | None = None, end: int | None = None) -> Iterator[Case]:
    """The alerts with start <= cycle < end that ask for a film."""
    topics = [
        name for name, topic in log.topics.items() if topic.schema_name == AlertMsg.schema_name
    ]
    for message in log.messages(topics, start, end) if topics else ():
        try:
            case = _case(log, message)
        except LogError:
            continue
        if case.fields.get("clip_to_ns"):
            yield case


def _case(log: Log, message: LogMessage) -> Case:
    task = log.topics[message.topic].metadata.get("task", "")
    return Case(message.topic, task, message.cycle, message.tov_ns, message.fields)


def cameras_of(log: Log, topic: str) -> list[str]:
    """The topics of pictures from which the alerts of `topic` come: those of cameras, where there are
    some, and of tasks that draw, where not."""
    pictures = [name for name, it in log.topics.items() if it.is_picture]
    found = pictures_before(topic, pictures, log.attachments.get(GRAPH_RESOLVED, b""))
    copied = [name for name in pictures if log.topics[name].metadata.get(CODEC) == "packets"]
    if any(name in copied for name in found) or not copied:
        return [name for name in found if name in copied] or found
    # What it has seen was drawn by a task: the camera's own pictures are before that.
    before = [
        pictures_before(name, copied, log.attachments.get(GRAPH_RESOLVED, b"")) for name in found
    ]
    return list(dict.fromkeys(name for names in before for name in names)) or found


def make_missing(directory: Path) -> list[Path | str]:
    """Make the folders that the run at `directory` lacks; where each is, or why there is none."""
    made: list[Path | str] = []
    with Log(directory) as log:
        for case in cases_of(log):
            if not (directory / CLIPS / case.name / _CASE).exists():
                try:
                    made.append(make_case(log, case, directory))
                except (LogError, OSError) as error:
                    made.append(f"cycle {case.cycle}, task {case.task!r}: {error}")
    return made


def make_case(log: Log, case: Case, directory: Path) -> Path:
    """Make the folder of an alert in that of its run, from what the log holds by now; where it is.

    Raises `LogError`, and `OSError` where it cannot be written.
    """
    folder = directory / CLIPS / case.name
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        described = _describe(log, case, part)
        text = json.dumps(described, ensure_ascii=False, allow_nan=False, indent=1)
        (part / _CASE).write_text(f"{escaped(text)}\n")
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _describe(log: Log, case: Case, folder: Path) -> dict[str, Any]:
    """Write all files but the description, which is returned."""
    cameras = cameras_of(log, case.topic)
    films = [_film(log, case, topic, folder, alone=len(cameras) == 1) for topic in cameras]
    cycles = [
        case.cycle,
        *(film[key] for film in films for key in ("first_cycle", "last_cycle") if key in film),
    ]
    said = _messages(log, min(cycles), max(cycles), folder)
    picture = _picture(log, case, cameras, folder)
    fields = case.fields
    run = log.metadata.get("run_id", "")
    described: dict[str, Any] = {
        "version": _VERSION,
        "run": run,
        "graph": log.metadata.get("graph", ""),
        "task": case.task,
        "text": fields.get("text", ""),
        "severity": fields.get("severity", ""),
        "rule": fields.get("rule", ""),
        "values": plain_value(fields.get("values", {}), data=False),
        "cycle": case.cycle,
        "frame_cycle": fields.get("frame_cycle"),
        "frame_id": fields.get("frame_id"),
        "at": _date(case.tov_ns).isoformat(),
        "tov_ns": case.tov_ns,
        "since_ns": fields.get("since_ns"),
        "asked_for": {"from_ns": case.from_ns, "to_ns": case.to_ns},
        "films": films,
        "picture": picture,
        "messages": said,
        "email": "alert.eml",
        "open": f"flowrun view {log.path.name} --cycle {case.cycle}",
    }
    _write_email(described, folder)
    return described


def _film(log: Log, case: Case, topic: str, folder: Path, *, alone: bool) -> dict[str, Any]:
    """Write the film of a camera; what it holds."""
    task, port = (log.topics[topic].metadata.get(key, "") for key in ("task", "port"))
    found: dict[str, Any] = {"camera": task}
    stretch = _stretch(log, topic, case)
    if stretch is None:
        return found | {"file": None, "why": "the log holds no picture of that time"}
    first, last, notes = stretch
    name = f"{file_name(task or 'film')}.mp4" if alone else f"{file_name(f'{task}-{port}')}.mp4"
    selection = Selection((topic,), {"start": first.cycle, "end": last.cycle + 1})
    try:
        report: ExportReport = export_mp4(log, selection, folder / name)
    except (LogError, ValueError) as error:
        (folder / name).unlink(missing_ok=True)
        return found | {"file": None, "why": str(error)}
    notes += report.notes
    return found | {
        "file": name,
        "copied": not any(note.startswith(_ENCODED) for note in notes)
        and log.topics[topic].metadata.get(CODEC) == "packets",
        "pictures": report.count,
        "first_cycle": first.cycle,
        "last_cycle": last.cycle,
        "from_ns": first.tov_ns,
        "to_ns": last.tov_ns,
        "alert_at_s": round((case.tov_ns - first.tov_ns) / 1e9, 6),
        "notes": notes,
    }


def _stretch(log: Log, topic: str, case: Case) -> tuple[LogMessage, LogMessage, list[str]] | None:
    """The pictures with which the film begins and ends, and what must be said of it."""
    near = max(0, min(case.cycle, int(case.fields.get("frame_cycle", case.cycle))))
    start, step = near, _FIRST_STEP
    while start > 0:
        start = max(0, near - step)
        step *= 4
        earliest = next(log.messages(topic, start), None)
        if earliest is not None and earliest.tov_ns <= case.from_ns:
            break
    first = last = None
    notes = ["ends early: the log holds no later picture"]
    for message in log.messages(topic, start):
        if message.tov_ns > case.to_ns and message.cycle > near:
            notes = []
            break
        if first is None or message.tov_ns <= case.from_ns:
            first = message
        last = message
    if first is None or last is None:
        return None
    if first.tov_ns > case.from_ns:
        notes.append("begins late: the log holds no earlier picture")
    if log.topics[topic].metadata.get(CODEC) == "packets":
        first, more = _key_frame_before(log, topic, first, last)
        notes += more
    return first, last, notes


def _key_frame_before(
    log: Log, topic: str, first: LogMessage, last: LogMessage
) -> tuple[LogMessage, list[str]]:
    """The picture with which a film begins that has `first`: the key frame that it needs, or the next
    one where that is gone."""
    key = _key_of(first)
    begin = next(log.messages(topic, key, key + 1), None)
    if begin is not None:
        lead_ns = first.tov_ns - begin.tov_ns
        if lead_ns <= _LONGEST_LEAD_NS:
            return begin, []
        return first, [f"{_ENCODED}: the key frame before it is {lead_ns / 1e9:.0f} s earlier"]
    for message in log.messages(topic, first.cycle, last.cycle + 1):
        if _key_of(message) == message.cycle:
            return message, ["begins late: the log has no longer the key frame before"]
    return first, []


def _key_of(message: LogMessage) -> int:
    """The cycle of the key frame that a picture needs."""
    try:
        return int(StoredPicture.parse(message.payload).own.get("key", message.cycle))
    except ValueError:
        return message.cycle


def _messages(log: Log, first: int, last: int, folder: Path) -> str | None:
    """Write the messages of these cycles, without pictures and what the runtime notes for itself."""
    topics = tuple(
        name
        for name, topic in log.topics.items()
        if not topic.is_picture and not name.startswith("/flowrun/")
    )
    if not topics:
        return None
    name = "messages.jsonl"
    with (folder / name).open("w", encoding="utf-8", errors="replace") as file:
        export_jsonl(log, Selection(topics, {"start": first, "end": last + 1}), file)
    return name


def _picture(log: Log, case: Case, cameras: list[str], folder: Path) -> str | None:
    """Write the picture of the frame, of the camera that has taken it."""
    cycle = int(case.fields.get("frame_cycle", case.cycle))
    for topic in cameras:
        for message in log.messages(topic, cycle, cycle + 1):
            if len(cameras) > 1 and message.tov_ns != case.tov_ns:
                continue
            try:
                image = ImageRgb8Msg()
                image.restore(message.deferred, tov_ns=message.tov_ns)
                data = jpeg_of(image, quality=_JPEG_QUALITY)
            except (LogError, ValueError):  # the film may have it nevertheless
                continue
            (folder / "picture.jpg").write_bytes(data)
            return "picture.jpg"
    return None


def _write_email(described: dict[str, Any], folder: Path) -> None:
    mail = EmailMessage()
    mail["Subject"] = one_line(f"[{described['severity']}] {described['text']}")[:200]
    mail["Date"] = format_datetime(datetime.fromisoformat(described["at"]))
    mail["X-Unsent"] = "1"  # mail programs then offer to send it
    lines = [
        described["text"],
        "",
        f"task:   {described['task']}",
        f"time:   {described['at']}",
        f"rule:   {described['rule']}",
        *(f"        {name} = {value}" for name, value in described["values"].items()),
        f"run:    {described['run']}, cycle {described['cycle']}",
        f"open:   {described['open']}",
        *(f"film:   {film['file']}" for film in described["films"] if film["file"]),
    ]
    mail.set_content("\n".join(map(one_line, lines)) + "\n")
    if described["picture"] is not None:
        data = (folder / described["picture"]).read_bytes()
        mail.add_attachment(data, maintype="image", subtype="jpeg", filename="picture.jpg")
    (folder / "alert.eml").write_bytes(mail.as_bytes())


def _date(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns / 1e9, UTC)
