"""What a message is about: its moment, and which pictures a topic's boxes are in."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Protocol

__all__ = ["Moment", "pictures_before"]


class Moment(Protocol):
    """What is known of a message besides its fields."""

    @property
    def cycle(self) -> int: ...

    @property
    def time_ns(self) -> int: ...

    @property
    def tov_ns(self) -> int: ...


def pictures_before(topic: str, pictures: Iterable[str], graph: bytes) -> list[str]:
    """The topics of `pictures` that are nearest before the task of `topic` in the graph; all where the
    graph does not say.

    graph: the log's attachment graph.json.
    """
    before: dict[str, list[str]] = {}
    try:
        for connection in json.loads(graph)["cnx"]:
            # An endpoint is "task" or "task.port".
            after, front = (connection[end].split(".")[0] for end in ("dst", "src"))
            before.setdefault(after, []).append(front)
    except (ValueError, KeyError, TypeError, AttributeError):
        before = {}
    made: dict[str, list[str]] = {}
    for picture in pictures:
        made.setdefault(_task(picture), []).append(picture)
    nearest = _nearest(_task(topic), before, made)
    return [it for it in pictures if not nearest or it in nearest]


def _nearest(task: str, before: dict[str, list[str]], made: dict[str, list[str]]) -> set[str]:
    found: set[str] = set()
    seen, waiting = {task}, [task]
    while waiting:
        for earlier in before.get(waiting.pop(), []):
            if earlier in made:
                found.update(made[earlier])
            elif earlier not in seen:
                seen.add(earlier)
                waiting.append(earlier)
    return found


def _task(topic: str) -> str:
    return topic.removeprefix("/").split("/")[0]
