"""What was recorded, and what is made in its place now: pairs of messages, and their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowrun.runtime.replay.about import PictureTimes

if TYPE_CHECKING:  # who reads answers that are known needs no graph
    from flowrun.runtime.log.reader import Log
    from flowrun.runtime.replay.compare import Difference

__all__ = ["Pair", "PictureAt", "with_pictures"]


@dataclass(frozen=True, slots=True)
class PictureAt:
    """Where a log has the picture that a message is about.

    topic: of pictures, such as "/cam0/image". cycle: the one in which the picture was published.
    """

    topic: str
    cycle: int


@dataclass(frozen=True, slots=True)
class Pair:
    """A message of a recorded run, and what a replay made in its place.

    run: the run, as the job names it.
    variant: the job's.
    cycle: the cycle of the message. time_ns: its time, in nanoseconds since 1970 UTC.
    task, port: the output; "" for the port of an error.
    kind: the name of the message's class, such as "PromptResponseMsg"; "error" for errors, after which
        the run went on.
    recorded: the fields of the recorded message, as `plain` gives them, without measurements such as
        `latency_ms` and pixels; None where the log holds none. now: those of the message that was made
        instead; None where none was.
    difference: how they differ; None where they do not, and where the log has no such topic.
    picture: the picture that the message is about; None where none is known.
    shown: JPEG files, by "recorded" and "replayed", of a message that is a picture and differs.
    tov_ns: time of validity of the message.
    """

    run: Path
    variant: str
    cycle: int
    time_ns: int
    task: str
    port: str
    kind: str
    recorded: dict[str, Any] | None
    now: dict[str, Any] | None
    difference: Difference | None
    picture: PictureAt | None = None
    shown: Mapping[str, bytes] = field(default_factory=dict)
    tov_ns: int = 0


def with_pictures(
    pairs: Sequence[Pair], log: Log, topics: Mapping[tuple[str, str], list[str]]
) -> list[Pair]:
    """`pairs` with the picture that each is about: the one with the message's time of validity, at or
    before its cycle.

    topics: what `pictures_before` gives.
    """
    there = {name for name, topic in log.topics.items() if topic.is_picture}
    wanted = {name for pair in pairs for name in topics.get((pair.task, pair.port), ())} & there
    if not wanted:
        return list(pairs)
    times = PictureTimes(log, wanted, end=max(pair.cycle for pair in pairs) + 1)
    return [replace(pair, picture=_picture(pair, topics, times)) for pair in pairs]


def _picture(
    pair: Pair, topics: Mapping[tuple[str, str], list[str]], times: PictureTimes
) -> PictureAt | None:
    for topic in topics.get((pair.task, pair.port), ()):
        cycle = times.last(topic, pair.tov_ns, pair.cycle)
        if cycle is not None:
            return PictureAt(topic, cycle)
    return None
