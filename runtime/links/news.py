"""What the processes of a fleet tell each other of how they are: each knows them all.

A process puts all that it knows, again and again, for those that are connected to it; they pass it on.
So news gets wherever links lead, and one process is enough to look at. Nothing acts on it but a ring of
partitions, whose processes end when it says that none of them has anything to do: see `rest`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgpack
from zlib_ng.zlib_ng import crc32

from flowrun.runtime.links.rest import Rest
from flowrun.runtime.links.status import PartStatus
from flowrun.runtime.links.transport import Sample, Transport
from flowrun.runtime.links.wire import Keys, Peer

__all__ = ["News"]

_EVERY_S = 1.0
_MANY = 20
"""Processes from which on news is told less often: what is told grows with their square."""
_SILENT = 5
"""How many times the interval a process may be silent before it is gone."""
_REST = "rest"
_CRC_SIZE = 4


@dataclass(slots=True)
class _Heard:
    """The newest of one process. order: its run, and the number of what it said in it."""

    order: tuple[int, int]
    body: bytes
    status: PartStatus
    at_s: float
    restarts: int = 0
    rest: Rest | None = None


class News:
    """Of the processes `parts`, `own` among them.

    run: tells a run of this process from the ones before it.
    own_status: how this process is doing. own_rest: see `rest`; None while it has something to do.
    now_s: monotonic seconds.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        graph: str,
        own: Peer,
        parts: Sequence[Peer],
        run: int,
        own_status: Callable[[], PartStatus],
        now_s: Callable[[], float],
        own_rest: Callable[[], Rest | None] = lambda: None,
    ) -> None:
        self._transport, self._now_s = transport, now_s
        self._own_rest = own_rest
        self._own, self._own_status = own, own_status
        self._key = Keys.of(graph, own).news
        self._parts = [str(it) for it in parts]
        self._run, self._number = run, 0
        self._every_s = _EVERY_S * max(1.0, len(parts) / _MANY)
        self._said_at_s: float | None = None
        self._lock = threading.Lock()
        self._heard: dict[str, _Heard] = {}
        for peer in parts:
            if peer != own:
                transport.subscribe(Keys.of(graph, peer).news, self._take)

    def pump(self, now_s: float) -> None:
        """Say it, if it is time to."""
        if self._said_at_s is None or now_s - self._said_at_s >= self._every_s:
            self.say(now_s)

    def say(self, now_s: float) -> None:
        """Put all that is known here."""
        self._said_at_s = now_s
        self._number += 1
        own = msgpack.packb({**self._own_status().as_data(), _REST: self._own_rest()})
        said: list[Any] = [[str(self._own), self._run, self._number, own]]
        with self._lock:
            said += [[part, *it.order, it.body] for part, it in self._heard.items()]
        packed: bytes = msgpack.packb(said)
        self._transport.put(self._key, packed + crc32(packed).to_bytes(_CRC_SIZE, "little"), b"")

    def rests(self) -> dict[str, Rest]:
        """The processes that have nothing to do, as far as is known here. From any thread."""
        with self._lock:
            found = {part: it.rest for part, it in self._heard.items()}
        found[str(self._own)] = self._own_rest()
        return {part: rest for part, rest in found.items() if rest is not None}

    def all(self) -> list[PartStatus]:
        """How each process is doing, as far as is known here, in their order. From any thread."""
        now_s, own = self._now_s(), str(self._own)
        with self._lock:
            heard = dict(self._heard)
        return [
            replace(self._own_status(), heard_s=0.0)
            if part == own
            else self._seen(heard[part], now_s)
            if part in heard
            else PartStatus(part)
            for part in self._parts
        ]

    def _seen(self, it: _Heard, now_s: float) -> PartStatus:
        silent_s = max(0.0, now_s - it.at_s)
        state = it.status.state
        if silent_s >= _SILENT * self._every_s and not it.status.is_over:
            state = "gone"
        rate_hz = it.status.cycle_rate_hz if state == it.status.state else 0.0
        return replace(
            it.status,
            state=state,
            cycle_rate_hz=rate_hz,
            heard_s=round(silent_s, 1),
            restarts=it.restarts,
        )

    # -- from the transport, on any thread -----------------------------------------------------------

    def _take(self, sample: Sample) -> None:
        packed, crc = sample.payload[:-_CRC_SIZE], sample.payload[-_CRC_SIZE:]
        if crc32(packed).to_bytes(_CRC_SIZE, "little") != crc:
            return
        try:
            said = [(str(p), int(run), int(n), bytes(body)) for p, run, n, body in _list(packed)]
        except (ValueError, TypeError, msgpack.UnpackException):
            return  # of another version
        now_s = self._now_s()
        for part, run, number, body in said:
            if part in self._parts and part != str(self._own):
                self._note(part, (run, number), body, now_s)

    def _note(self, part: str, order: tuple[int, int], body: bytes, now_s: float) -> None:
        with self._lock:
            known = self._heard.get(part)
            if known is not None and order <= known.order:
                return
            try:
                data = msgpack.unpackb(body)
                status = PartStatus.from_data(data)
            except (ValueError, msgpack.UnpackException):
                return
            if status is None or status.part != part:
                return
            restarts = 0 if known is None else known.restarts + (order[0] != known.order[0])
            rest = Rest.from_data(data.get(_REST))
            self._heard[part] = _Heard(order, body, status, now_s, restarts, rest)


def _list(packed: bytes) -> list[Any]:
    found = msgpack.unpackb(packed)
    if not isinstance(found, list):
        raise TypeError(type(found))
    return found
