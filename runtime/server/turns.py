"""Whose turn it is to have a picture of a recorded run decoded."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request

__all__ = ["Turns"]

_DRAG_S = 0.25
"""How long after a large picture another one may come while somebody drags."""


class Turns:
    """Whose turn it is to have a picture of a run decoded.

    Large ones come one after the other. Small ones, such as those next to answers, are of other moments.
    While somebody drags, which asks for one large picture after the other, they wait: mostly nobody
    wants them any more when they could be decoded.
    """

    def __init__(self) -> None:
        self._large = asyncio.Lock()
        self._small = asyncio.Lock()
        self._asked_at = -math.inf

    @asynccontextmanager
    async def large(self) -> AsyncIterator[None]:
        """The turn of a large picture."""
        async with self._large:
            self._asked_at = asyncio.get_running_loop().time()
            yield
            self._asked_at = asyncio.get_running_loop().time()

    def drags(self) -> None:
        """Somebody decodes large ones elsewhere."""
        self._asked_at = asyncio.get_running_loop().time()

    @asynccontextmanager
    async def small(self, request: Request) -> AsyncIterator[None]:
        """The turn of a small one, which `request` asks for; at once if its client has gone."""
        async with self._small:
            until = self._asked_at + _DRAG_S
            while asyncio.get_running_loop().time() < until and not await request.is_disconnected():
                await asyncio.sleep(_DRAG_S / 4)
                until = self._asked_at + _DRAG_S
            yield
