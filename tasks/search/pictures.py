"""Pictures of an index: where they are, what was said of them, how well they fit."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Picture", "Said", "Scored"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: where it is.

    run: the path of its run, relative to the folder of the index. task: the camera.
    """

    run: str
    topic: str
    cycle: int
    time_ns: int
    task: str


@dataclass(frozen=True, slots=True)
class Said:
    """What was said of a picture: by a task of the run, or by the index's own model."""

    picture: Picture
    text: str
    by_model: bool = False


@dataclass(frozen=True, slots=True)
class Scored:
    """A picture that was found. score: how well it fits, up to 1. text: what was said of it."""

    score: float
    picture: Picture
    text: str = ""
