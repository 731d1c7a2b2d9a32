"""`UdpSink`: each message as a JSON datagram."""

from __future__ import annotations

import socket
from typing import Annotated

from pydantic import Field, PositiveInt

from flowrun.msgs.message import Message
from flowrun.runtime.clock import monotonic_s
from flowrun.runtime.task import Context, Input, Task, TaskConfig
from flowrun.tasks.sinks.as_json import JsonSettings, Kept, to_json
from flowrun.tasks.sinks.outbox import Complaints, Outbox
from flowrun.tasks.sinks.settings import Host, Port

__all__ = ["UdpSink"]

_END_S = 2.0
_LOOK_UP_S = 5.0
"""Seconds between two attempts to find a host that has not been found."""
_LARGEST = 65_507
"""Bytes that a datagram of IPv4 holds."""

Address = tuple[socket.AddressFamily, tuple[object, ...]]


class UdpSink(Task):
    """Send each message as a datagram.

    Takes messages of any class at `message`. A datagram is one JSON object in UTF-8: task, port, type,
    cycle, time_ns, tov_ns, fields; docs/sinks.md describes it. Times are nanoseconds since
    1970 UTC.

    Whether anybody receives is not known, and no error. A message of more than `max_bytes`, or that the
    network does not take, is dropped, counted in the run's report by its cause, and logged. A replay
    sends nothing.
    """

    class Config(JsonSettings):
        host: Host = "127.0.0.1"
        """The receiver: a name or an address, also a broadcast or multicast one."""
        port: Port
        """Its port."""
        max_bytes: Annotated[int, Field(ge=64, le=_LARGEST)] = _LARGEST
        """The largest datagram that is sent; 1400 passes most networks in one piece."""
        queue: PositiveInt = 1000
        """The most messages that wait to be sent; beyond that the oldest is dropped."""

    acts_outside = True

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._outbox: Outbox[Kept] | None = None
        self._sockets: dict[socket.AddressFamily, socket.socket] = {}
        self._address: Address | None = None
        self._look_up_s = 0.0

    def start(self, ctx: Context) -> None:
        self._ctx, self._complaints = ctx, Complaints(ctx)
        self._outbox = Outbox(ctx, self._send, most=self.config.queue)

    def process(self, ctx: Context, message: Input[Message]) -> None:
        assert self._outbox is not None
        self._outbox.put(Kept.of(ctx, message, max_array=self.config.max_array))

    def stop(self, ctx: Context) -> None:
        del ctx
        if self._outbox is None:
            return
        self._outbox.close(_END_S)
        if not self._outbox.is_alive:
            for opened in self._sockets.values():
                opened.close()

    def _send(self, kept: Kept) -> None:
        config = self.config
        data = to_json(kept.plain()).encode(errors="replace")
        if len(data) > config.max_bytes:
            self._drop("too large", bytes=len(data), max_bytes=config.max_bytes, cycle=kept.cycle)
            return
        address = self._found()
        if address is None:
            self._drop("host not found", host=config.host)
            return
        family, place = address
        try:
            self._socket(family).sendto(data, place)
        except OSError as error:
            self._address = None  # it may be another one by now
            self._drop("the network does not take it", error=error.strerror, host=config.host)

    def _drop(self, cause: str, **fields: object) -> None:
        self._ctx.dropped(1, cause)
        self._complaints.say(f"dropped: {cause}", **fields)

    def _found(self) -> Address | None:
        """The receiver's address, looked up again where it has not been found."""
        if self._address is None and monotonic_s() >= self._look_up_s:
            self._look_up_s = monotonic_s() + _LOOK_UP_S
            try:
                [(family, *_, place), *_] = socket.getaddrinfo(
                    self.config.host, self.config.port, type=socket.SOCK_DGRAM
                )
            except OSError:
                return None
            self._address, self._look_up_s = (family, place), 0.0
        return self._address

    def _socket(self, family: socket.AddressFamily) -> socket.socket:
        opened = self._sockets.get(family)
        if opened is None:
            opened = self._sockets[family] = socket.socket(family, socket.SOCK_DGRAM)
            opened.settimeout(1.0)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        return opened
