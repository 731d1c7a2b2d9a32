"""Figures in the text format of Prometheus, and the endpoint that gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from fastapi import Response

from flowrun.runtime.server.bodies import refusals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from fastapi import APIRouter
    from prometheus_client import Metric

__all__ = ["Collects", "Exposition", "add_metrics_route"]


class Collects(Protocol):
    """What Prometheus' client calls a collector."""

    def collect(self) -> Iterator[Metric]:
        """The families of figures as they are now."""
        ...


class Exposition:
    """What a collector gives, and the figures of the process."""

    def __init__(self, collector: Collects) -> None:
        self._collector = collector
        self._registry: Any = None

    def reply(self) -> Response:
        """The text with the present figures."""
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

        if self._registry is None:
            self._registry = CollectorRegistry(auto_describe=False)
            ProcessCollector(registry=self._registry)
            self._registry.register(self._collector)
        text = generate_latest(self._registry)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def add_metrics_route(router: APIRouter, endpoint: Callable[[], Awaitable[Response]]) -> None:
    """Have `endpoint` answer `/metrics`, described as what `Exposition.reply` gives."""
    router.add_api_route(
        "/metrics",
        endpoint,
        responses={200: {"content": {"text/plain": {}}}, **refusals({})},
        response_class=Response,
    )
