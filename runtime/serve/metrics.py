"""All pipelines for Prometheus, and whether they are well."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the endpoints.

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

from fastapi import APIRouter, Response

from flowrun.runtime.serve.bodies import Health
from flowrun.runtime.serve.pipeline import Phase
from flowrun.runtime.serve.pipelines import Pipelines
from flowrun.runtime.server.bodies import Json, refusals
from flowrun.runtime.server.exposition import Exposition, add_metrics_route
from flowrun.runtime.server.routes import new_router

if TYPE_CHECKING:
    from prometheus_client import Metric

__all__ = ["Metrics"]

_PHASES = get_args(Phase)


class Metrics:
    """The endpoints `/metrics` and `/health` of the server of pipelines."""

    def __init__(self, pipelines: Pipelines) -> None:
        self._pipelines = pipelines
        self._exposition = Exposition(self)

    def router(self) -> APIRouter:
        router = new_router("")
        add_metrics_route(router, self.metrics)
        router.add_api_route(
            "/health", self.health, responses={200: {"model": Health}, **refusals({})}
        )
        return router

    async def metrics(self) -> Response:
        """How each pipeline is, in the text format of Prometheus; a run's own figures are below
        `/pipelines/NAME/metrics`."""
        return await asyncio.to_thread(self._exposition.reply)

    async def health(self) -> Json:
        """Whether the pipelines are as somebody wanted them: 200 as long as the server answers.

        `ok`, or `degraded` where one has failed or waits to be started again; `why` says which, and
        `/pipelines/NAME/health` how a run is.
        """
        found = await asyncio.to_thread(self._pipelines.all)
        states = {pipeline.name: pipeline.state() for pipeline in found}
        problems = [
            f"pipeline {name}: {state.error or 'it waits to be started again'}"
            for name, state in states.items()
            if state.error is not None or state.phase == "waiting"
        ]
        return Json(
            {
                "status": "degraded" if problems else "ok",
                "why": "; ".join(problems),
                "running": [name for name, state in states.items() if state.phase == "running"],
            }
        )

    def collect(self) -> Iterator["Metric"]:
        """What Prometheus' client asks of a collector."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        phases = GaugeMetricFamily(
            "flowrun_pipeline_phase",
            "1 for the phase that a pipeline is in.",
            labels=["pipeline", "phase"],
        )
        restarts = CounterMetricFamily(
            "flowrun_pipeline_restarts",
            "How often a pipeline was started again by itself since it was started.",
            labels=["pipeline"],
        )
        for pipeline in self._pipelines.all():
            state = pipeline.state()
            for phase in _PHASES:
                phases.add_metric([pipeline.name, phase], int(phase == state.phase))
            restarts.add_metric([pipeline.name], state.restarts)
        yield phases
        yield restarts
