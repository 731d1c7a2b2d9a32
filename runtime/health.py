"""How those are doing that a task asks for its answers: models, and servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

__all__ = ["Backends", "Health", "HealthState", "ServerHealth"]

HealthState = Literal["unused", "loading", "ok", "failing"]
"""How a backend is doing:

| state   | meaning                                                                          |
|---------|----------------------------------------------------------------------------------|
| unused  | it was not needed yet, and nobody has asked it                                   |
| loading | it gets ready                                                                    |
| ok      | it answered when it was last asked                                               |
| failing | it did not                                                                       |
"""


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """How a server of a farm is doing.

    state, for_s, seen_s, detail: as of `Health`.
    outstanding: how many questions of this task it has now.
    answers: how many it has answered.
    failures: how many it was asked, and did not answer.
    """

    state: HealthState
    for_s: float
    seen_s: float
    detail: str
    outstanding: int
    answers: int
    failures: int


@dataclass(frozen=True, slots=True)
class Health:
    """How one of those is doing that a task asks for its answers: a model, or a server.

    for_s: how long it has been in this state, in seconds.
    seen_s: how long ago it was last seen to be, in seconds.
    detail: what it does while it loads, or what was wrong when it last failed.
    used: whether it is the one in force, or one of its fallbacks.
    servers: of a farm, how each server is doing, by its address without secrets.
    """

    state: HealthState
    for_s: float
    seen_s: float
    detail: str
    used: bool
    servers: Mapping[str, ServerHealth] = field(default_factory=dict)


class Backends(Protocol):
    """Those that a task asks for its answers. Both methods are called on any thread, also after the end,
    and return at once."""

    def health(self) -> Mapping[str, Health]:
        """By name, how each is doing."""

    def ask(self) -> None:
        """Somebody looks at the run: those may be asked of which nothing new is known. Called once a
        second and more often; what costs somebody something must be done less often than that."""
