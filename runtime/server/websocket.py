"""The WebSockets of a server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from flowrun.runtime.server.connections import LIMITS_S

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

__all__ = ["WebSocketConnection"]


class WebSocketConnection(WebSocketsSansIOProtocol):
    """A WebSocket of uvicorn's that is closed when its client makes no room for what it is sent."""

    _timer: asyncio.TimerHandle | None = None

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "websocket.send" and self.transport.is_closing():
            raise ClientDisconnected  # uvicorn hears of it when the loop has its turn
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            # A refusal is whole: uvicorn would log it as an app that has not answered.
            self.handshake_complete = True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._timer = self.loop.call_later(LIMITS_S["reply"], self._cut)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._end_timer()

    def _cut(self) -> None:
        self.transport.abort()

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
