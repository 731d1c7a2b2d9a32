"""Everything of one moment of a run: what it had answered, what was set, what its cameras showed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import msgpack
import numpy as np

from flowrun.runtime.errors import LogError, LogNotFound
from flowrun.runtime.events import Dropped, Failed, Replaced
from flowrun.runtime.log.message import LogMessage, Topic
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import (
    CODEC,
    KEYFRAME_TOPIC,
    NO_PAYLOAD,
    PAYLOAD,
    STEP_TASKS,
    STEPS_TOPIC,
)
from flowrun.runtime.log.values import plain_value
from flowrun.runtime.pictures.stored import StoredPicture
from flowrun.runtime.recorded.controls import Controls
from flowrun.runtime.recorded.damage import damaged
from flowrun.runtime.recorded.film import packets_of
from flowrun.runtime.recorded.frames import message_of, shown_size
from flowrun.runtime.recorded.graph import graph_of, map_in
from flowrun.runtime.recorded.lanes import ALERTS, ANSWERS, named
from flowrun.runtime.recorded.latencies import steps_ms
from flowrun.runtime.recorded.places import Places, TopicPlaces
from flowrun.runtime.recorded.regions import REGIONS, regions
from flowrun.runtime.recorded.shadows import Comparisons

__all__ = ["Moments", "detections", "pictures_of"]

_DETECTIONS = "DetectionsMsg"
_RATE_NS = 5_000_000_000
_SEEN_NS = 60_000_000_000
_MOST_SEEN = 3000
_TRIES = 3
"""How many messages before one that cannot be read are tried instead of it."""


class Moments:
    """The moments of `log`, which are found by its `places` and `controls`."""

    def __init__(self, log: Log, places: Places, controls: Controls, shadows: Comparisons) -> None:
        self._log = log
        self._places = places
        self._controls = controls
        self._shadows = shadows
        self._graph = graph_of(log)
        self.pictures = pictures_of(log.topics)
        """By the name under which its pictures are asked for, each topic that has some."""

    def find(self, *, cycle: int | None = None, at_ns: int | None = None) -> tuple[int, int]:
        """Number and time of the last cycle at or before a cycle or a time. `LogNotFound` where the log
        holds none, or ends before."""
        steps = self._places.of(STEPS_TOPIC)
        if not len(steps):
            raise LogNotFound(f"{self._log.path}: the log holds no cycle")
        first, last = steps.near(0), steps.near(len(steps) - 1)
        if cycle is not None:
            if not first <= cycle <= last:
                raise LogNotFound(
                    f"cycle {cycle} is not in the log, which holds cycles {first} to {last}"
                )
            number = steps.before(cycle)
        else:
            assert at_ns is not None
            low, high = int(steps.times[0]), int(steps.times[-1])
            if not low <= at_ns <= high:
                raise LogNotFound(
                    f"time {at_ns} is not in the log, which holds the times from {low} to {high}"
                )
            number = max(1, int(np.searchsorted(steps.times, np.uint64(at_ns), side="right")))
        return steps.near(number - 1), int(steps.times[number - 1])

    def keys(self, cycles: list[int]) -> list[int]:
        """The cycle of the key frame that the picture at each of `cycles` needs, of the first camera
        whose packets are in the log; the cycle itself where there is none."""
        packets = [it for it in self.pictures.values() if it.metadata.get(CODEC) == "packets"]
        if not packets:
            return cycles
        places = self._places.of(packets[0].name)
        found: list[int] = []
        known: tuple[int, int] = (-1, -1)
        for cycle in cycles:
            number = places.before(cycle)
            if known[0] != number:
                known = number, self._key(places, number, cycle)
            found.append(known[1])
        return found

    def key_of(self, topic: str, cycle: int) -> int:
        """The cycle of the key frame that the picture of a topic in a cycle needs. `LogNotFound` where
        packets do not give that picture."""
        stored = _stored(message_of(self._log, topic, cycle))
        needs = None if stored is None else packets_of(stored)
        if needs is None:
            raise LogNotFound(f"cycle {cycle}: packets do not give the picture of {topic}")
        return needs["key"]

    def _key(self, places: TopicPlaces, number: int, cycle: int) -> int:
        if not number:
            return cycle
        try:
            own = StoredPicture.parse(self._places.payload_at(places.place(number - 1))).own
        except ValueError:  # it is damaged: asking for the picture says so
            return cycle
        key: int = own.get("key", cycle)
        return min(key, cycle)

    def at(self, cycle: int, time_ns: int, *, url: str) -> dict[str, Any]:
        """All of the moment of `cycle`, which `find` gave.

        url: of the run in the API, before "/image/...".
        """
        missing: list[str] = []
        steps = self._places.of(STEPS_TOPIC)
        number = steps.before(cycle)
        return {
            "cycle": cycle,
            "at_ns": time_ns,
            "first_cycle": steps.near(0),
            "last_cycle": steps.near(len(steps) - 1),
            "previous": steps.at_or_before(number - 2),
            "next": steps.at_or_after(number),
            "answers": self._newest(ANSWERS, cycle, url, missing),
            "alerts": self._newest(ALERTS, cycle, url, missing),
            "detections": self._newest(_DETECTIONS, cycle, url, missing),
            "regions": self._regions(cycle, missing),
            "settings": self._settings(cycle, missing),
            "sources": self._controls.states(cycle),
            "errors": [
                {"task": it.task, "text": it.text, "policy": it.policy, "place": it.place}
                for it in self._controls.events(cycle)
                if isinstance(it, Failed)
            ],
            "error_counts": self._controls.totals(cycle, Failed.kind),
            "dropped": self._controls.totals(cycle, Dropped.kind, Replaced.kind),
            "shadows": self._shadows.counts(cycle),
            "steps_ms": self._steps_ms(cycle, missing),
            "rates_hz": self._rates_hz(time_ns),
            "images": self._images(cycle, url, missing),
            "missing": list(dict.fromkeys(missing)),
        }

    def _newest(
        self, schema_name: str, cycle: int, url: str, missing: list[str]
    ) -> dict[str, dict[str, Any]]:
        """The last message at or before a cycle of each topic of that kind, with its picture."""
        found: dict[str, dict[str, Any]] = {}
        for name, topic in named(self._log.topics.values(), schema_name).items():
            message = self._last(topic.name, cycle, missing)
            if message is None:
                continue
            fields = message.fields
            found[name] = {
                "cycle": message.cycle,
                "at_ns": message.time_ns,
                "tov_ns": message.tov_ns,
                **_plain(fields),
                "frame": self._frame(topic, fields.get("frame_cycle"), url),
            }
            if schema_name == _DETECTIONS:
                found[name] |= _end_of(topic)
                found[name]["objects"] = detections(fields)
        return found

    def _regions(self, cycle: int, missing: list[str]) -> dict[str, dict[str, Any]]:
        """The last zones and lines at or before a cycle, and what had been counted there."""
        found: dict[str, dict[str, Any]] = {}
        for schema_name in REGIONS:
            for name, topic in named(self._log.topics.values(), schema_name).items():
                message = self._last(topic.name, cycle, missing)
                if message is not None:
                    fields = message.fields
                    found[name] = {
                        **_end_of(topic),
                        "cycle": message.cycle,
                        "tov_ns": message.tov_ns,
                        "width": fields.get("width"),
                        "height": fields.get("height"),
                        **regions(fields),
                    }
        return found

    def seen(self, time_ns: int) -> dict[str, dict[str, int]]:
        """By task and class, the number of objects in the minute before a time; of its last messages
        alone where there are very many. What is counted was not checked."""
        found: dict[str, dict[str, int]] = {}
        for name, topic in named(self._log.topics.values(), _DETECTIONS).items():
            places = self._places.of(topic.name)
            begin, end = _within(places, time_ns, _SEEN_NS)
            counts: Counter[str] = Counter()
            for index in range(max(begin, end - _MOST_SEEN), end):
                with suppress(ValueError, KeyError, TypeError, msgpack.UnpackException):
                    labels = msgpack.unpackb(self._places.payload_at(places.place(index)))["labels"]
                    counts.update(it for it in labels if isinstance(it, str))
            found[name] = dict(counts)
        return found

    def shadows(self, *, cycle: int | None, bins: int, most: int) -> dict[str, dict[str, Any]]:
        """The shadows at a cycle, None for the last one; see `Comparisons.find`."""
        steps = self._places.of(STEPS_TOPIC)
        if not len(steps):
            return {}
        at, time_ns = self.find(cycle=steps.near(len(steps) - 1) if cycle is None else cycle)
        budgets = {it["id"]: it["config"].get("budget") for it in self._graph["tasks"]}
        return self._shadows.find(at, time_ns, bins=bins, most=most, budgets=budgets)

    def _rates_hz(self, time_ns: int) -> dict[str, float]:
        """How often each task published in the seconds before a time, of those whose messages the log
        has; of several outputs the one with most."""
        steps = self._places.of(STEPS_TOPIC)
        since_s = min(_RATE_NS, time_ns - int(steps.times[0])) / 1e9
        found: dict[str, float] = {}
        for name, topic in self._log.topics.items():
            task = topic.metadata.get("task")
            if task is None or since_s <= 0:
                continue
            begin, end = _within(self._places.of(name), time_ns, _RATE_NS)
            found[task] = max(found.get(task, 0.0), round((end - begin) / since_s, 2))
        return found

    def _last(self, topic: str, cycle: int, missing: list[str]) -> LogMessage | None:
        """The last message of a topic at or before a cycle that can be read."""
        places = self._places.of(topic)
        number = places.before(cycle)
        for index in range(number - 1, max(-1, number - 1 - _TRIES), -1):
            cycle = places.cycle(index)
            try:
                message = message_of(self._log, topic, cycle)
                _ = message.outline
                return message
            except LogNotFound:  # its index says that it is there
                missing.append(self._unread(cycle))
            except LogError as error:
                missing.append(damaged(self._log, str(error)))
        return None

    def _unread(self, cycle: int) -> str:
        """Why a cycle of which the log knows cannot be read."""
        loss = self._log.loss
        return f"cycle {cycle}: it cannot be read" if loss is None else damaged(self._log, loss)

    def _settings(self, cycle: int, missing: list[str]) -> dict[str, dict[str, Any]]:
        found = {task["id"]: dict(task["config"]) for task in self._graph["tasks"]}
        # A flight recorder's log lacks what was set before it begins: a keyframe has it.
        first = self._places.of(STEPS_TOPIC).near(0)
        keyframe = self._last(KEYFRAME_TOPIC, cycle, missing) if first else None
        if keyframe is not None:
            for task, frozen in map_in(keyframe.fields.get("tasks")).items():
                found.setdefault(task, {}).update(map_in(map_in(frozen).get("live")))
        since = first if keyframe is None else keyframe.cycle
        for task, values in self._controls.settings(cycle, since=since).items():
            found.setdefault(task, {}).update(values)
        return {task: _plain(values) for task, values in found.items()}

    def _steps_ms(self, cycle: int, missing: list[str]) -> dict[str, float]:
        try:
            table = message_of(self._log, STEPS_TOPIC, cycle).payload
        except LogNotFound:
            missing.append(self._unread(cycle))
            return {}
        except LogError as error:
            missing.append(damaged(self._log, str(error)))
            return {}
        return steps_ms(table, self._log.metadata.get(STEP_TASKS, "").split())

    def _images(self, cycle: int, url: str, missing: list[str]) -> dict[str, dict[str, Any]]:
        found = {}
        for name, topic in self.pictures.items():
            message = self._last(topic.name, cycle, missing)
            if message is not None:
                stored = _stored(message)
                width, height = shown_size(message)
                rows, columns = message.outline["pixels"].shape[:2]
                found[name] = {
                    "cycle": message.cycle,
                    "at_ns": message.tov_ns,
                    "url": _image(url, name, message.cycle),
                    "width": width,
                    "height": height,
                    "pixels": [columns, rows],
                    "packets": None if stored is None else packets_of(stored),
                    "damaged": stored is not None and stored.is_damaged,
                }
        return found

    def _frame(self, topic: Topic, cycle: Any, url: str) -> dict[str, Any] | None:
        """The picture that a message is about: of the nearest task above its own that has some."""
        if not isinstance(cycle, int) or cycle < 0:
            return None
        for name in self._above(topic):
            if name in self.pictures:
                return {"task": name, "cycle": cycle, "url": _image(url, name, cycle)}
        return None

    def _above(self, topic: Topic) -> Iterator[str]:
        """The tasks whose messages that of `topic` gets, directly or not, the nearest first."""
        edges = [
            (edge["src"].partition(".")[0], *edge["dst"].split(".", 1))
            for edge in self._graph["cnx"]
        ]
        first, port = topic.metadata.get("task", topic.name), topic.metadata.get("port", "")
        # Of a task with pairs of ports, such as `left` and `left_answer`, the input of that pair alone.
        pair = [it for it in edges if it[1] == first and port.startswith(f"{it[-1]}_")]
        queue, seen = [first], {first}
        for at in queue:
            for source, target, *_ in pair if at == first and pair else edges:
                if target == at and source not in seen:
                    seen.add(source)
                    queue.append(source)
                    yield source


def _image(url: str, name: str, cycle: int) -> str:
    return f"{url}/image/{quote(name, safe='')}?cycle={cycle}"


def _end_of(topic: Topic) -> dict[str, str]:
    """The task and the port that publish the messages of a topic."""
    return {key: topic.metadata.get(key, "") for key in ("task", "port")}


def _stored(message: LogMessage) -> StoredPicture | None:
    """How a picture is stored; None where the message cannot be read, or its channel has no codec."""
    try:
        return StoredPicture.parse(message.payload)
    except (LogError, ValueError):
        return None


def _within(places: TopicPlaces, time_ns: int, span_ns: int) -> tuple[int, int]:
    """The messages of the time before and at `time_ns`: the first one, and the one after the last."""
    ends = np.array([max(0, time_ns - span_ns), time_ns], np.uint64)
    begin, end = np.searchsorted(places.times, ends, side="right").tolist()
    return begin, end


def pictures_of(topics: Mapping[str, Topic]) -> dict[str, Topic]:
    """The topics of pictures of which the log holds the payload, as `named` names them."""
    return named(
        topic
        for topic in topics.values()
        if topic.is_picture and topic.metadata.get(PAYLOAD) != NO_PAYLOAD
    )


def detections(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects of a `DetectionsMsg`, one map each; boxes in pixels of the frame, from its upper left
    corner."""
    trackers = fields.get("tracker_ids", ())
    found = []
    for number, (box, label) in enumerate(zip(fields["boxes"], fields["labels"], strict=False)):
        left, top, right, bottom = (float(it) for it in box)
        score = float(fields["scores"][number])
        found.append(
            {
                "x": left,
                "y": top,
                "width": right - left,
                "height": bottom - top,
                "confidence": score if score == score else None,  # noqa: PLR0124  # NaN: none
                "class": label,
                "class_id": int(fields["class_ids"][number]),
                "tracker_id": _tracker(trackers[number]) if len(trackers) else None,
            }
        )
    return found


def _tracker(number: int) -> int | None:
    """The id of a track; None for an object without."""
    return int(number) if number >= 0 else None


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON can hold of a message's fields, without arrays."""
    return {
        key: plain_value(value, data=False)
        for key, value in fields.items()
        if not isinstance(value, (np.ndarray, memoryview, bytes))
    }
