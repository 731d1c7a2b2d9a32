"""Zenoh as the transport: package eclipse-zenoh, extra `links`.

What is used of it: publishers that drop, queryables, liveliness tokens. Multicast and gossip are off:
who is connected to whom, the graph file says.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from flowrun.runtime.errors import UsageError
from flowrun.runtime.extras import import_optional, require
from flowrun.runtime.links.transport import Query, Sample

__all__ = ["ZenohTransport", "config_of", "open_zenoh", "require_zenoh"]

_WHAT = "a graph with partitions"


def config_of(
    listen: Sequence[str], connect: Sequence[str], more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The configuration of a session, by Zenoh's keys.

    listen, connect: endpoints, such as "tcp/127.0.0.1:7447".
    more: further keys, as for TLS and access control.
    """
    return {
        "mode": "peer",
        "listen/endpoints": list(listen),
        "listen/exit_on_failure": True,
        "connect/endpoints": list(connect),
        "connect/exit_on_failure": False,
        "connect/timeout_ms": -1,
        "connect/retry": {
            "period_init_ms": 100,
            "period_max_ms": 1000,
            "period_increase_factor": 2,
        },
        "scouting/multicast/enabled": False,
        "scouting/gossip/enabled": False,
        # Zenoh would wait half a second for whom it connects to, at each start.
        "open/return_conditions/connect_scouted": False,
        "transport/link/tx/lease": 4000,
        "transport/link/tx/keep_alive": 4,
        # A cycle of 100 cameras has seven batches: with room for all of them, `put` does not wait for
        # the socket. They are allocated when they are needed.
        "transport/link/tx/queue/size/data": 16,
        # Between processes of one machine it takes half as much CPU again as TCP, at 440 kB a message.
        "transport/shared_memory/enabled": False,
        **(more or {}),
    }


def require_zenoh() -> None:
    """`UsageError` where eclipse-zenoh is not installed; loads nothing."""
    require("zenoh", _WHAT, extra="links", install="eclipse-zenoh")


def open_zenoh(config: Mapping[str, Any]) -> ZenohTransport:
    """A session. Returns before it is connected, and connects again whenever a connection is lost.

    config: as `config_of` gives it. `UsageError` where eclipse-zenoh is not installed, or cannot listen.
    """
    zenoh = import_optional("zenoh", _WHAT, extra="links", install="eclipse-zenoh")
    made = zenoh.Config()
    for key, value in config.items():
        made.insert_json5(key, _json5(value))
    try:
        session = zenoh.open(made)
    except zenoh.ZError as error:
        raise UsageError(_not_listening(config.get("listen/endpoints", ()), str(error))) from None
    return ZenohTransport(zenoh, session)


_ADVICE = {
    errno.EADDRINUSE: "another process listens there; end that one, or write another port",
    errno.EADDRNOTAVAIL: "this machine has no such address; 0.0.0.0 stands for all that it has",
    errno.EACCES: "it may not listen at this port; write one from 1024 on",
}
_IN_SOURCE = re.compile(r" at \S+\.rs:\d+\.?")
"""Where zenoh's own code raised the error."""


def _not_listening(addresses: Sequence[str], said: str) -> str:
    """A sentence on why zenoh does not listen. said: what it says itself."""
    said = _IN_SOURCE.sub("", said)
    where = next((it for it in addresses if it in said), ", ".join(addresses) or "any address")
    number = re.search(r"\(os error (\d+)\)", said)
    code = int(number[1]) if number else 0
    why = _ADVICE.get(code) or (os.strerror(code) if code else said)
    return f"cannot listen at {where}: {why}"


class ZenohTransport:
    """See `Transport`."""

    def __init__(self, zenoh: Any, session: Any) -> None:
        self._zenoh, self._session = zenoh, session
        self._publishers: dict[str, Any] = {}
        self._kept: list[Any] = []
        """What lasts as long as the session."""
        self._is_closed = threading.Event()

    def put(self, key: str, payload: bytes, attachment: bytes) -> None:
        if self._is_closed.is_set():
            return
        publisher = self._publishers.get(key)
        if publisher is None:
            drop = self._zenoh.CongestionControl.DROP
            publisher = self._session.declare_publisher(key, congestion_control=drop)
            self._publishers[key] = publisher
        publisher.put(payload, attachment=attachment)

    def subscribe(self, key: str, on_sample: Callable[[Sample], None]) -> None:
        # On a thread of Python's. On Zenoh's own (`indirect=False`) lock-step took longer, and so did
        # pictures of 100 cameras, on a busy machine.
        self._kept.append(
            self._session.declare_subscriber(key, lambda it: self._call(on_sample, _sample(it)))
        )

    def serve(self, key: str, on_query: Callable[[Query], None]) -> None:
        self._kept.append(
            self._session.declare_queryable(
                key, lambda it: self._call(on_query, _Query(it)), complete=True
            )
        )

    def query(
        self,
        key: str,
        parameters: bytes,
        on_reply: Callable[[Sample], None],
        on_done: Callable[[], None],
        *,
        timeout_s: float,
    ) -> None:
        if self._is_closed.is_set():
            on_done()
            return
        zenoh = self._zenoh
        self._session.get(
            key,
            zenoh.handlers.Callback(
                partial(self._reply, on_reply), lambda: self._call_done(on_done)
            ),
            consolidation=zenoh.ConsolidationMode.NONE,
            target=zenoh.QueryTarget.BEST_MATCHING,
            payload=parameters,
            timeout=timeout_s,
        )

    def declare_alive(self, key: str) -> None:
        self._kept.append(self._session.liveliness().declare_token(key))

    def watch_alive(self, key: str, on_change: Callable[[bool], None]) -> None:
        put = self._zenoh.SampleKind.PUT
        self._kept.append(
            self._session.liveliness().declare_subscriber(
                key, lambda it: self._call(on_change, it.kind == put), history=True
            )
        )

    def linked(self) -> set[str]:
        """The addresses to which there are connections, as numbers: "tls/192.168.1.7:7447"."""
        if self._is_closed.is_set():
            return set()
        return {str(it.dst).partition("?")[0] for it in self._session.info.links()}

    def close(self, *, timeout_s: float) -> None:
        """The session is closed on a thread of its own: where that takes longer than `timeout_s`, as
        when somebody does not answer, it is left behind."""
        self._is_closed.set()
        thread = threading.Thread(
            target=self._session.close, name="flowrun-zenoh-close", daemon=True
        )
        thread.start()
        thread.join(timeout_s)

    def _reply(self, on_reply: Callable[[Sample], None], reply: Any) -> None:
        if reply.ok is not None:
            self._call(on_reply, _sample(reply.ok))

    def _call(self, callback: Callable[[Any], None], argument: Any) -> None:
        if not self._is_closed.is_set():
            callback(argument)

    def _call_done(self, on_done: Callable[[], None]) -> None:
        if not self._is_closed.is_set():
            on_done()


class _Query:
    """See `Query`."""

    def __init__(self, query: Any) -> None:
        self._query = query
        self._key = query.key_expr
        payload = query.payload
        self._parameters = b"" if payload is None else payload.to_bytes()

    @property
    def parameters(self) -> bytes:
        return self._parameters

    def reply(self, payload: bytes, attachment: bytes) -> None:
        self._query.reply(self._key, payload, attachment=attachment)

    def finish(self) -> None:
        self._query.drop()


def _sample(sample: Any) -> Sample:
    attachment = sample.attachment
    return Sample(
        str(sample.key_expr),
        sample.payload.to_bytes(),
        b"" if attachment is None else attachment.to_bytes(),
    )


def _json5(value: Any) -> str:
    import json

    return json.dumps(value)
