"""How the processes of a fleet and the links between them are doing, as each of them says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, NamedTuple

__all__ = ["LINK_STATES", "PART_STATES", "FleetLink", "LinkStatus", "PartStatus", "fleet_links"]

LINK_STATES = ("connecting", "connected", "lost", "refused", "ended")
PART_STATES = ("unknown", "starting", "running", "stuck", "ended", "failed", "gone")


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """How one link is doing.

    peer: the process at its other end, "gpu/0". direction: "in" or "out".
    state: one of `LINK_STATES`.
    cursor: the sender's cycle after the last that is in the receiver's log, as far as is known here.
    newest: the sender's newest cycle that is known here.
    lag_cycles: how far `cursor` is behind it.
    waiting: number of cycles that have come and no cycle has taken.
    gaps, skipped: number of gaps, and of messages that were passed over.
    damaged: number of messages that something on the way has changed.
    clock_offset_ms: by how much the sender's clock is ahead; None where that is not known.
    refused: why, where it is.
    reconnects: how often the other end has come back.
    """

    peer: str
    direction: str
    state: str
    cursor: int
    newest: int
    lag_cycles: int
    waiting: int = 0
    gaps: int = 0
    skipped: int = 0
    damaged: int = 0
    clock_offset_ms: float | None = None
    refused: str = ""
    reconnects: int = 0


@dataclass(frozen=True, slots=True)
class PartStatus:
    """How one process of a fleet is doing.

    part: "gpu/0".
    state: one of `PART_STATES`. unknown: nothing was heard of it yet. gone: nothing is heard any more,
        and it has not said that it ends.
    cycles, cycle_rate_hz, uptime_s: as in a run's report.
    errors: number of errors that its tasks have raised. error: the last one, or why it failed.
    dropped: number of messages that its tasks left out.
    heard_s: seconds since the process that reports it heard of it; None where it never did.
    restarts: how often another run of it began while the process that reports it ran.
    run: its run's directory, by name.
    page: where its page is, without the token; None where it serves none.
    links: its own.
    """

    part: str
    state: str = "unknown"
    cycles: int = 0
    cycle_rate_hz: float = 0.0
    uptime_s: float = 0.0
    errors: int = 0
    error: str = ""
    dropped: int = 0
    heard_s: float | None = None
    restarts: int = 0
    run: str = ""
    page: str | None = None
    links: Sequence[LinkStatus] = ()

    @property
    def is_over(self) -> bool:
        """Whether it has said that it ends."""
        return self.state in ("ended", "failed")

    def as_data(self) -> dict[str, Any]:
        """What `from_data` takes."""
        own = {it.name: getattr(self, it.name) for it in fields(self) if it.name != "links"}
        links = [{it.name: getattr(link, it.name) for it in fields(link)} for link in self.links]
        return {**own, "links": links}

    @classmethod
    def from_data(cls, data: Any) -> PartStatus | None:
        """None for what is none. What another version says besides is left out."""
        if not isinstance(data, dict) or not isinstance(links := data.get("links"), list):
            return None
        own = _taken(_PART_KINDS, {**data, "links": ()})
        others = [_taken(_LINK_KINDS, it) for it in links]
        if own is None or None in others or own.get("state") not in PART_STATES:
            return None
        if any(it.get("state") not in LINK_STATES for it in others if it is not None):
            return None
        try:
            return cls(**{**own, "links": tuple(LinkStatus(**it) for it in others if it)})
        except TypeError:  # one is missing that has no default
            return None


class FleetLink(NamedTuple):
    """A link, as the end that knows more of it says it."""

    sender: str
    receiver: str
    status: LinkStatus


def fleet_links(fleet: Sequence[PartStatus]) -> list[FleetLink]:
    """All links of a fleet, each once: as its receiver says it, or its sender where that is gone."""
    found: dict[tuple[str, str], FleetLink] = {}
    for part in sorted(fleet, key=lambda it: it.state == "gone"):
        for link in part.links:
            is_in = link.direction == "in"
            ends = (link.peer, part.part) if is_in else (part.part, link.peer)
            if ends not in found or (is_in and part.state != "gone"):
                found[ends] = FleetLink(*ends, link)
    return sorted(found.values(), key=lambda it: it[:2])


_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "float | None": (int, float, type(None)),
    "str | None": (str, type(None)),
    "Sequence[LinkStatus]": (tuple,),
}
_PART_KINDS = {it.name: _KINDS[str(it.type)] for it in fields(PartStatus)}
_LINK_KINDS = {it.name: _KINDS[str(it.type)] for it in fields(LinkStatus)}


def _taken(kinds: dict[str, tuple[type, ...]], said: Any) -> dict[str, Any] | None:
    """Those of the values that have a field; None where one of them is of another kind."""
    if not isinstance(said, dict):
        return None
    found = {name: said[name] for name in kinds if name in said}
    return found if all(_fits(found[name], kinds[name]) for name in found) else None


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, float) and not isfinite(value):
        return False
    return isinstance(value, kinds) and not isinstance(value, bool)
