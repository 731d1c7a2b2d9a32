"""One recorded run: what it is, and everything that may be asked of it, from any thread."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from flowrun.runtime.clock import LiveClock, monotonic_s
from flowrun.runtime.errors import LogError, LogNotFound, UsageError
from flowrun.runtime.live_video import Shown
from flowrun.runtime.log.clip import write_clip
from flowrun.runtime.log.files import slab_paths
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import KEEP_SLABS, PARTITION, STARTED_NS, STEPS_TOPIC
from flowrun.runtime.recorded.clip import begin_of_clip
from flowrun.runtime.recorded.controls import Controls
from flowrun.runtime.recorded.damage import damaged, without_folder
from flowrun.runtime.recorded.film import shown_from
from flowrun.runtime.recorded.frames import SMALL, Frames, message_of
from flowrun.runtime.recorded.graph import graph_of
from flowrun.runtime.recorded.labels import LONGEST, Label, Labels, check_boxes
from flowrun.runtime.recorded.lanes import kind_of, lanes, named
from flowrun.runtime.recorded.latencies import latencies
from flowrun.runtime.recorded.lines import Level, lines
from flowrun.runtime.recorded.moment import Moments
from flowrun.runtime.recorded.places import Places
from flowrun.runtime.recorded.received import Received
from flowrun.runtime.recorded.shadows import Comparisons
from flowrun.runtime.wording import described, listed, nearest

__all__ = ["RecordedRun", "summary"]


_PART = 32
"""Pictures whose packets are read at once: others may read between."""
_RECENT_S = 0.5
_MOST_RECENT = 8


class RecordedRun:
    """The run at `path`, a run's directory or one slab, as `id`.

    It is opened when something is first asked of it. What a writer adds is seen by the next question.
    All methods raise `LogError` where the log cannot be read, and `LogNotFound` where it does not hold
    what is asked for.
    """

    def __init__(self, id_: str, path: Path) -> None:
        self.id = id_
        self.path = path
        self.directory = path if path.is_dir() else path.parent
        self.labels = Labels(self.directory)
        self._lock = threading.RLock()
        self._opened: _Opened | None = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[_Opened]:
        """The log as it is now; nobody else reads it within."""
        with self._lock:
            if self._opened is None:
                self._opened = _Opened(self.path)
            self._opened.refresh()
            yield self._opened

    def close(self) -> None:
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def summary(self) -> dict[str, Any]:
        """What the run is and how it ended, as `summary` gives it."""
        try:
            with self.reading() as opened:
                return summary(self.id, opened.log, cycles=len(opened.steps))
        except LogError as error:
            return unreadable(self.id, error, self.path)

    def details(self) -> dict[str, Any]:
        """`summary`, and the run's topics, tasks and pictures."""
        with self.reading() as opened:
            steps, graph = opened.steps, graph_of(opened.log)
            return {
                **summary(self.id, opened.log, cycles=len(steps)),
                "path": str(self.path),
                "bytes": sum(len(slab.view) for slab in opened.log.slabs),
                "first_cycle": steps.near(0) if len(steps) else None,
                "last_cycle": steps.near(len(steps) - 1) if len(steps) else None,
                "from_ns": int(steps.times[0]) if len(steps) else None,
                "to_ns": int(steps.times[-1]) if len(steps) else None,
                "metadata": opened.log.metadata,
                "tasks": graph["tasks"],
                "connections": graph["cnx"],
                "images": list(opened.moments.pictures),
                "outputs": [
                    {
                        "topic": topic.name,
                        "task": topic.metadata.get("task"),
                        "port": topic.metadata.get("port"),
                        "type": topic.schema_name,
                        "messages": len(opened.places.of(topic.name)),
                        "lane": kind_of(topic),
                    }
                    for topic in opened.log.topics.values()
                ],
            }

    def missing(self, *, is_first: bool) -> list[str]:
        """What the log does not hold, a sentence each. is_first: whether it should begin with cycle 0,
        as that of a run which is not continued from another does."""
        with self.reading() as opened:
            steps = opened.steps
            return missing(opened.log, steps.near(0) if is_first and len(steps) else None)

    def lanes(
        self, *, first: int | None, last: int | None, bins: int, keys: bool = False
    ) -> dict[str, Any]:
        """The lanes of the cycles from `first` to `last`; None for the first and last of the log.

        keys: whether to add, as "keys", the cycle of the key frame that the picture at the begin of
            each part needs: one whose own picture is there soonest.
        """
        with self.reading() as opened:
            key = first, last, bins, keys
            until, found = opened.recent.get(key, (0.0, {}))
            now = monotonic_s()
            if now >= until:
                found = self._lanes(opened, first=first, last=last, bins=bins, keys=keys)
                opened.recent[key] = now + _RECENT_S, found
                while len(opened.recent) > _MOST_RECENT:
                    del opened.recent[next(iter(opened.recent))]
            return found

    def _lanes(
        self, opened: _Opened, *, first: int | None, last: int | None, bins: int, keys: bool
    ) -> dict[str, Any]:
        steps = opened.steps
        begin, end = self._span(opened, first, last)
        from_ns, to_ns = int(steps.times[begin]), int(steps.times[end - 1])
        return {
            "from_cycle": steps.near(begin),
            "to_cycle": steps.near(end - 1),
            "from_ns": from_ns,
            "to_ns": to_ns,
            "first_cycle": steps.near(0),
            "last_cycle": steps.near(len(steps) - 1),
            "start_ns": int(steps.times[0]),
            "end_ns": int(steps.times[-1]),
            **self._counted(opened, from_ns=from_ns, to_ns=to_ns, bins=bins, keys=keys),
            **_state(opened.log),
            "missing": [
                *missing(opened.log, steps.near(0)),
                *(
                    ["the times of its cycles go back: not all of them are counted"]
                    * steps.goes_back
                ),
            ],
            "gaps": [],
        }

    def counted(self, *, from_ns: int, to_ns: int, bins: int, keys: bool) -> dict[str, Any]:
        """What `lanes` counts, of a span of time that may begin before the log and end after it. There
        must be a cycle in the log."""
        with self.reading() as opened:
            return self._counted(opened, from_ns=from_ns, to_ns=to_ns, bins=bins, keys=keys)

    def _counted(
        self, opened: _Opened, *, from_ns: int, to_ns: int, bins: int, keys: bool
    ) -> dict[str, Any]:
        found = lanes(
            opened.log.topics,
            opened.places,
            opened.controls,
            opened.shadows.disagreements(),
            from_ns=from_ns,
            to_ns=to_ns,
            bins=bins,
        )
        return found | ({"keys": opened.moments.keys(found["cycles"][:-1])} if keys else {})

    def span(self, first: int | None, last: int | None) -> tuple[tuple[int, int], tuple[int, int]]:
        """The number and the time of the first cycle at or after `first`, and of the last one at or
        before `last`."""
        with self.reading() as opened:
            steps = opened.steps
            begin, end = self._span(opened, first, last)
            return (
                (steps.near(begin), int(steps.times[begin])),
                (steps.near(end - 1), int(steps.times[end - 1])),
            )

    def _span(self, opened: _Opened, first: int | None, last: int | None) -> tuple[int, int]:
        """The places of the cycles from `first` to `last`: of the first one, and after the last one."""
        steps = opened.steps
        if not len(steps):
            raise LogNotFound(f"{self.path}: the log holds no cycle")
        begin = 0 if first is None else steps.before(first - 1)
        end = len(steps) if last is None else steps.before(last)
        if begin >= end:
            raise LogNotFound(
                f"cycles {first} to {last}: the log holds none of them; it holds cycles "
                f"{steps.near(0)} to {steps.near(len(steps) - 1)}"
            )
        return begin, end

    def moment(self, *, cycle: int | None, at_ns: int | None, url: str) -> dict[str, Any]:
        """Everything of a moment; see `Moments`. None for both: of the last cycle."""
        with self.reading() as opened:
            if cycle is None and at_ns is None and len(opened.steps):
                cycle = opened.steps.near(len(opened.steps) - 1)
            found = opened.moments.find(cycle=cycle, at_ns=at_ns)
            return opened.moments.at(*found, url=url)

    def label(
        self,
        cycle: int,
        label: str,
        *,
        task: str = "",
        expected: Any = "",
        field: str = "",
        note: str = "",
        who: str = "",
    ) -> Label:
        """Write down what somebody says about the answer of a task that counts at `cycle`, or about the
        moment, and return it; see `Label`.

        `UsageError` for a task that has given nothing until then, a field that its messages do not have,
        and a text that is too long; `LogNotFound` for a cycle that the log does not hold.
        """
        for name, text in (("task", task), ("label", label), ("field", field), ("note", note)):
            if len(text) > LONGEST:
                raise UsageError(
                    f"{name}: expected a text of at most {LONGEST:,} characters, got {described(text)}"
                )
        if len(json.dumps(expected)) > LONGEST + 2:
            raise UsageError(
                f"expected: a value of at most {LONGEST:,} characters; got {described(expected)}"
            )
        try:
            check_boxes(expected)
        except ValueError as error:
            raise UsageError(str(error)) from None
        with self.reading() as opened:
            at, time_ns = opened.moments.find(cycle=cycle)
            fields: dict[str, Any] = {}
            if task:
                at, time_ns, fields = opened.message_of(task, at)
            if field and field not in fields:
                raise UsageError(
                    f"task {described(task)} gives no field {described(field)}; its fields: "
                    f"{listed(fields) or 'none'}{nearest(field, fields)}"
                )
            frame = fields.get("frame_cycle")
            made = Label(
                cycle=at,
                task=task,
                label=label,
                expected=expected,
                note=note,
                at_ns=time_ns,
                made_ns=LiveClock().now_ns(),
                answer=str(fields.get("response", "")),
                prompt=str(fields.get("prompt", "")),
                frame_cycle=frame if isinstance(frame, int) else None,
                field=field,
                who=who,
            )
        self.labels.add(made)
        return made

    def lines(
        self, cycle: int | None, *, level: Level, task: str | None, most: int
    ) -> dict[str, Any]:
        """The newest log lines at or before a cycle; see `lines`."""
        with self.reading() as opened:
            return lines(opened.log, opened.places, cycle, level=level, task=task, most=most)

    def latencies(self, *, first: int | None, last: int | None, bins: int) -> dict[str, Any]:
        """How long things took in the cycles from `first` to `last`, as `latencies` gives it."""
        with self.reading() as opened:
            begin, end = self._span(opened, first, last)
            from_ns, to_ns = int(opened.steps.times[begin]), int(opened.steps.times[end - 1])
            return latencies(opened.log, opened.places, from_ns=from_ns, to_ns=to_ns, bins=bins)

    def seen(self, cycle: int | None) -> dict[str, dict[str, int]]:
        """The objects of the minute before a cycle, counted; see `Moments.seen`."""
        with self.reading() as opened:
            begin, end = self._span(opened, None, cycle)
            return opened.moments.seen(int(opened.steps.times[end - 1])) if end > begin else {}

    def shadows(self, cycle: int | None, *, bins: int, most: int) -> dict[str, dict[str, Any]]:
        """The shadows of the run at a cycle; see `Moments.shadows`."""
        with self.reading() as opened:
            return opened.moments.shadows(cycle=cycle, bins=bins, most=most)

    def film(
        self, name: str, cycle: int, *, first: int | None, ahead: int
    ) -> Iterator[list[Shown]]:
        """The packets of a camera, in parts: from the key frame that the picture at `cycle` needs up to
        that picture, and of `ahead` pictures after it that need the same key frame.

        name: as `Moments.pictures` has it. first: begin with this cycle, whose key frame is the same.
        """
        with self.reading() as opened:
            topic, last = self._picture(opened, name, cycle)
            begin = opened.moments.key_of(topic, last) if first is None else first
        left = ahead
        while True:
            with self.reading() as opened:
                part = []
                for shown in islice(shown_from(opened.log, topic, begin), _PART):
                    if shown.cycle > last:
                        if not left:
                            break
                        left -= 1
                    part.append(shown)
            yield part
            if len(part) < _PART:
                return
            begin = part[-1].cycle + 1

    def jpeg(self, name: str, cycle: int | None, *, width: int | None) -> tuple[bytes, int]:
        """The last picture of a task at or before a cycle, as a JPEG file, and its cycle.

        name: as `Moments.pictures` has it. cycle: None for the last one of the log.
        """
        with self.reading() as opened:
            topic, found = self._picture(opened, name, cycle)
            frames = opened.frames(is_small=width is not None and width <= SMALL)
        try:
            return frames.jpeg(topic, found, width=width), found
        except LogNotFound:
            if frames.loss is None:
                raise
            raise LogNotFound(f"no picture of cycle {found}: {frames.loss}") from None

    def _picture(self, opened: _Opened, name: str, cycle: int | None) -> tuple[str, int]:
        """The topic of a task's pictures, and the cycle of the last one at or before `cycle`."""
        pictures = opened.moments.pictures
        if name not in pictures:
            raise LogNotFound(
                f"no pictures of {name!r} in the log; tasks with pictures: "
                f"{listed(pictures)}{nearest(name, pictures)}"
            )
        topic = pictures[name].name
        places = opened.places.of(topic)
        if cycle is not None:
            opened.moments.find(cycle=cycle)
        number = len(places) if cycle is None else places.before(cycle)
        if not number:
            raise LogNotFound(f"no picture of {name!r} at or before cycle {cycle}")
        return topic, places.cycle(number - 1)

    def clip(self, first: int, last: int, path: Path) -> tuple[int, int]:
        """Write the cycles from `first` to `last` into a file that replays; the first cycle of the file,
        and the last. It begins earlier than `first` where a replay must."""
        with self.reading() as opened:
            begin = begin_of_clip(opened.log, opened.places, opened.moments.find(cycle=first)[0])
            end = opened.moments.find(cycle=last)[0]
            if last < first:
                raise UsageError(f"from={first} is after to={last}")
            log = opened.log
            write_clip(log, begin, end, path)
        return begin, end

    def file(self) -> Path | None:
        """The run's only slab, if it is finished: the whole log as one file."""
        with self.reading() as opened:
            slabs = opened.log.slabs
            return slabs[0].path if len(slabs) == 1 and opened.log.finished else None

    def graph(self) -> dict[str, list[dict[str, Any]]]:
        """The resolved graph, secrets masked; empty where the log holds none."""
        with self.reading() as opened:
            return graph_of(opened.log)


class _Opened:
    """The opened log of a run, and what is known about it."""

    def __init__(self, path: Path) -> None:
        self.log = Log(path)
        self.places = Places(self.log)
        self.controls = Controls(self.log, self.places)
        self.shadows = Comparisons(self.log, self.places, self.controls)
        self.moments = Moments(self.log, self.places, self.controls, self.shadows)
        self.received = Received(self.log, self.places, self.controls)
        self._frames: dict[bool, Frames] = {}
        self.recent: dict[Any, tuple[float, dict[str, Any]]] = {}
        """Lanes that were asked for, and how long they hold: many viewers ask for the same."""
        self._is_over = False
        self._path = path

    def refresh(self) -> None:
        if self._is_over:
            return
        self._is_over = self.log.finished
        if not self._is_over:
            self.log.refresh()
        if self.places.update() or not self.controls.by:
            self.controls.update()
            self.shadows.update()

    @property
    def steps(self) -> Any:
        """The places of the step tables, of which each cycle has one."""
        return self.places.of(STEPS_TOPIC)

    def message_of(self, task: str, cycle: int) -> tuple[int, int, dict[str, Any]]:
        """The last message of a task at or before a cycle: its cycle, its time, its fields, but for
        pixels. `UsageError` names the tasks that have given some."""
        topics = named(it for it in self.log.topics.values() if "task" in it.metadata)
        places = {name: self.places.of(it.name) for name, it in topics.items() if not it.is_picture}
        there = [name for name, it in places.items() if it.before(cycle)]
        if task not in there:
            raise UsageError(
                f"task {described(task)} has no answer at cycle {cycle}; those that have: "
                f"{listed(there) or 'none'}"
            )
        at = places[task].cycle(places[task].before(cycle) - 1)
        message = message_of(self.log, topics[task].name, at)
        return at, message.time_ns, message.fields

    def frames(self, *, is_small: bool) -> Frames:
        """The pictures, by a `Log` of their own: decoding them keeps nobody else waiting. Small ones are
        of other moments than large ones: a decoder for both would begin again and again."""
        if is_small not in self._frames:
            self._frames[is_small] = Frames(Log(self._path, follow=not self._is_over))
        return self._frames[is_small]

    def close(self) -> None:
        self.log.close()


def summary(id_: str, log: Log, *, cycles: int) -> dict[str, Any]:
    """What a run is: `state` is "running", "ended", "error" or "cut off"; `why` says why it ended, and
    what of it is missing."""
    metadata, end = log.metadata, log.end or {}
    started, ended = (number_in(it) for it in (metadata.get(STARTED_NS), end.get("ended_ns")))
    state = _state(log)
    why = [state.pop("why"), *missing(log, None)]
    return {
        "id": id_,
        "graph": metadata.get("graph", ""),
        "part": metadata.get(PARTITION),
        "started_ns": log.start_ns if started is None else started,
        "ended_ns": ended,
        "state": state["state"],
        "cycles": cycles,
        "why": "; ".join(it for it in why if it) or None,
    }


def number_in(text: str | None) -> int | None:
    """A time or a count that a log's metadata holds; None where it is none."""
    if text is None or not (text.isascii() and text.isdecimal()):
        return None
    return number if (number := int(text[:20])) < 2**63 else None


def unreadable(id_: str, error: LogError, path: Path) -> dict[str, Any]:
    """The summary of the run at `path`, which cannot be read."""
    return {
        "id": id_,
        "graph": "",
        "part": None,
        "started_ns": None,
        "ended_ns": None,
        "state": "unreadable",
        "cycles": 0,
        "why": without_folder(str(error), path.parent),
    }


def _state(log: Log) -> dict[str, Any]:
    end = log.end
    if end is None:
        with contextlib.suppress(LogError):
            if log.is_written:
                return {"state": "running", "why": None}
        return {"state": "cut off", "why": "its writer did not finish it"}
    error = end.get("error")
    if error is not None and end.get("reason") == "error":
        return {"state": "error", "why": error}
    return {"state": "ended", "why": "; ".join(filter(None, [end.get("reason"), error]))}


def missing(log: Log, first_cycle: int | None) -> list[str]:
    """What of a run its log does not hold, a sentence each, as far as it is known."""
    found = [] if log.loss is None else [damaged(log, log.loss)]
    if first_cycle and (before := log.metadata.get("continues")):
        since = log.metadata.get("gap_from_cycle", "0")
        found.append(
            f"cycles {since} to {first_cycle - 1}: they were not recorded; earlier ones are in the run "
            f"{before}"
        )
    elif first_cycle:
        keep = log.metadata.get(KEEP_SLABS)
        why = f"it keeps the last {keep} files" if keep else "they are not in this log"
        found.append(f"cycles 0 to {first_cycle - 1}: {why}")
    return found


def is_run(path: Path) -> bool:
    """Whether there are slabs of a run in a directory, or nobody may look."""
    try:
        return bool(slab_paths(path))
    except LogNotFound:
        return False
    except LogError:
        return True
