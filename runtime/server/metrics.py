"""A run for Prometheus, and whether it is well."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the endpoints.

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, get_args

from fastapi import APIRouter, Response

from flowrun.runtime.run.report import RunReport
from flowrun.runtime.server import bodies
from flowrun.runtime.server.bodies import Json, refusals
from flowrun.runtime.server.channels import Channels
from flowrun.runtime.server.exposition import Exposition, add_metrics_route
from flowrun.runtime.server.fleet_metrics import fleet_of, links_of
from flowrun.runtime.server.routes import new_router
from flowrun.runtime.task import HealthState, ShownState

if TYPE_CHECKING:
    from prometheus_client import Metric

__all__ = ["Metrics"]

_CYCLE_BUCKETS = range(10, 37)
"""Powers of two of nanoseconds, from a microsecond to a minute, of which a cycle is not more."""
_MODEL_BUCKETS = range(10, 28)
"""The same in microseconds, from a millisecond to two minutes."""
_RECENT_NS = 60_000_000_000
"""An error that was longer ago is no sign that something is wrong now."""
_STATES = get_args(ShownState)
_HEALTH_STATES = get_args(HealthState)
_Status = Literal["ok", "starting", "degraded", "stuck", "ended", "error"]
_WELL: tuple[_Status, ...] = ("ok", "starting", "degraded")


class Metrics:
    """The endpoints `/metrics` and `/health`."""

    def __init__(self, channels: Channels) -> None:
        self._status = channels.status
        self._observed = channels.observed
        self._streams = channels.streams
        self._exposition = Exposition(self)

    def router(self) -> APIRouter:
        router = new_router("")
        add_metrics_route(router, self.metrics)
        router.add_api_route(
            "/health",
            self.health,
            responses={
                200: {"model": bodies.Health},
                503: {"model": bodies.Health, "description": "It is stuck, or has ended."},
                **refusals({}),
            },
        )
        return router

    async def metrics(self) -> Response:
        """The run's figures in the text format of Prometheus: cycles, latencies, errors, drops, log.

        Counters begin when the server does.
        """
        return self._exposition.reply()

    async def health(self) -> Json:
        """Whether the run does what it should, in a word: 200 while it does, 503 otherwise.

        `starting`, `ok`, `degraded` (sources that are lost or not there yet, errors in the last
        minute, late background tasks, backends that fail), `stuck` (a task that the cycles wait for is
        beyond its deadline), `ended`, `error`.
        """
        run = self._status.run
        report = run.report()
        status, why = self._health(report)
        body = {
            "status": status,
            "why": why,
            "id": run.name,
            "cycles": report.cycles,
            "cycle_rate_hz": report.cycle_rate_hz,
        }
        return Json(body, status_code=200 if status in _WELL else 503)

    def _health(self, report: RunReport) -> tuple[_Status, str]:
        match self._status.run.state():
            case {"Error": text}:
                return "error", text
            case "Running":
                pass
            case _:
                return "ended", "the run has ended"
        tasks = report.tasks.items()
        late = {id_: it.late_s for id_, it in tasks if it.late_s is not None}
        stuck = [id_ for id_ in late if not report.tasks[id_].background]
        if stuck:
            return "stuck", "; ".join(f"task {id_} for {late[id_]:.0f} s" for id_ in stuck)
        if report.starting is not None or report.cycles == 0:
            return "starting", f"task {report.starting} starts" if report.starting else ""
        problems = [f"task {id_} is late" for id_ in late] + [
            f"source {id_} is {it.state}" + (f" ({it.code})" if it.code else "")
            for id_, it in tasks
            if it.state in ("connecting", "lost", "error")
        ]
        problems += [
            f"errors of task {id_}: {it.raised.count}, the last one: {it.raised.text}"
            for id_, it in tasks
            if it.raised is not None and report.at_ns - it.raised.time_ns < _RECENT_NS
        ]
        problems += [
            f"backend {name} of task {id_} has failed for {it.for_s:.0f} s: {it.detail}"
            for id_, task in tasks
            for name, it in task.backends.items()
            if it.used and it.state == "failing"
        ]
        problems += [
            f"server {server} of backend {name} of task {id_} has failed for {it.for_s:.0f} s: "
            f"{it.detail}"
            for id_, task in tasks
            for name, backend in task.backends.items()
            for server, it in backend.servers.items()
            if backend.used and backend.state != "failing" and it.state == "failing"
        ]
        problems += [
            f"link {'from' if it.direction == 'in' else 'to'} {it.peer} is {it.state}"
            + (f": {it.refused}" if it.refused else "")
            for it in report.links
            if it.state in ("lost", "refused")
        ]
        linked = {it.peer for it in report.links}
        problems += [
            f"partition {it.part} "
            + (f"has failed: {it.error}" if it.state == "failed" else f"is {it.state}")
            for it in report.fleet
            if it.state == "failed"
            or (it.state in ("gone", "stuck") and it.part not in {report.part, *linked})
        ]
        return ("degraded", "; ".join(problems)) if problems else ("ok", "")

    def collect(self) -> Iterator["Metric"]:
        """What Prometheus' client asks of a collector."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
            InfoMetricFamily,
        )

        run, seen = self._status.run, self._observed
        report = run.report()
        state = run.state()
        info = {"graph": run.name, "state": state if isinstance(state, str) else "Error"}
        yield InfoMetricFamily("flowrun_run", "The run.", value=info)
        yield GaugeMetricFamily(
            "flowrun_uptime_seconds", "Since the run was made.", report.uptime_s
        )
        yield GaugeMetricFamily(
            "flowrun_cycle_rate_hertz", "Cycles a second.", report.cycle_rate_hz
        )
        yield CounterMetricFamily("flowrun_cycles", "Cycles that have ended.", report.cycles)
        cycles = HistogramMetricFamily("flowrun_cycle_seconds", "How long cycles took.")
        cycles.add_metric(
            [], *_histogram(seen.durations, _CYCLE_BUCKETS, 1e-9, seen.spent_ns / 1e9)
        )
        yield cycles
        steps = GaugeMetricFamily(
            "flowrun_task_step_seconds",
            "How long a task's step took in the last cycles.",
            labels=["task", "quantile"],
        )
        rates = GaugeMetricFamily("flowrun_task_rate_hertz", "Messages a second.", labels=["task"])
        errors = CounterMetricFamily(
            "flowrun_task_errors", "What a task has raised.", labels=["task"]
        )
        restarts = CounterMetricFamily("flowrun_task_restarts", "Restarts.", labels=["task"])
        late = GaugeMetricFamily(
            "flowrun_task_late_seconds", "How long a late call has taken.", labels=["task"]
        )
        drops = CounterMetricFamily(
            "flowrun_dropped", "Inputs or pictures that were left out.", labels=["task", "cause"]
        )
        compared = CounterMetricFamily(
            "flowrun_shadow_compared",
            "Frames about which a task and its shadow have answered.",
            labels=["task", "shadow_of"],
        )
        disagreed = CounterMetricFamily(
            "flowrun_shadow_disagreed",
            "Of these, those about which they said different things.",
            labels=["task", "shadow_of"],
        )
        states = GaugeMetricFamily(
            "flowrun_source_state", "1 for the state that a source is in.", labels=["task", "state"]
        )
        backends = GaugeMetricFamily(
            "flowrun_backend_state",
            "1 for the state that a model or its server is in.",
            labels=["task", "backend", "state"],
        )
        at = ["task", "backend", "server"]
        servers = GaugeMetricFamily(
            "flowrun_backend_server_state",
            "1 for the state that a server of a farm is in.",
            labels=[*at, "state"],
        )
        outstanding = GaugeMetricFamily(
            "flowrun_backend_server_outstanding", "Questions that it has now.", labels=at
        )
        answers = CounterMetricFamily(
            "flowrun_backend_server_answers", "Questions that it has answered.", labels=at
        )
        failures = CounterMetricFamily(
            "flowrun_backend_server_failures", "Questions that it has not answered.", labels=at
        )
        for id_, task in report.tasks.items():
            for name, health in task.backends.items():
                for it in _HEALTH_STATES:
                    backends.add_metric([id_, name, it], int(it == health.state))
                for server, seen_of in health.servers.items():
                    for it in _HEALTH_STATES:
                        servers.add_metric([id_, name, server, it], int(it == seen_of.state))
                    outstanding.add_metric([id_, name, server], seen_of.outstanding)
                    answers.add_metric([id_, name, server], seen_of.answers)
                    failures.add_metric([id_, name, server], seen_of.failures)
            for quantile, us in (("0.5", task.p50_us), ("0.99", task.p99_us)):
                if us is not None:
                    steps.add_metric([id_, quantile], us / 1e6)
            if task.rate_hz is not None:
                rates.add_metric([id_], task.rate_hz)
            errors.add_metric([id_], 0 if task.raised is None else task.raised.count)
            restarts.add_metric([id_], seen.restarts[id_])
            late.add_metric([id_], task.late_s or 0.0)
            for cause, count in task.dropped_by.items():
                drops.add_metric([id_, cause], count)
            if task.shadow is not None:
                compared.add_metric([id_, task.shadow.of], task.shadow.compared)
                disagreed.add_metric([id_, task.shadow.of], task.shadow.disagreed)
            if task.state is not None:
                for state in _STATES:
                    states.add_metric([id_, state], int(state == task.state))
        yield from (steps, rates, errors, restarts, late, drops, states, backends)
        rare = (compared, disagreed, servers, outstanding, answers, failures)
        yield from (it for it in rare if it.samples)
        yield from links_of(report)
        yield from fleet_of(report)
        if report.log is not None:
            yield GaugeMetricFamily("flowrun_log_bytes", "Size of the log.", report.log.bytes)
            yield CounterMetricFamily(
                "flowrun_log_messages", "Messages in it.", report.log.messages
            )
        latency = HistogramMetricFamily(
            "flowrun_model_latency_seconds", "How long answers took.", labels=["task"]
        )
        tokens = CounterMetricFamily("flowrun_model_tokens", "Tokens of answers.", labels=["task"])
        for id_, replies in seen.replies.items():
            latency.add_metric(
                [id_],
                *_histogram(replies.durations, _MODEL_BUCKETS, 1e-6, replies.latency_ms / 1e3),
            )
            tokens.add_metric([id_], replies.tokens)
        yield from (latency, tokens)
        yield GaugeMetricFamily(
            "flowrun_streams", "Streams that clients have open.", self._streams.count
        )


def _histogram(
    durations: Sequence[int], powers: range, unit_s: float, sum_s: float
) -> tuple[list[tuple[str, float]], float]:
    """The cumulative buckets of a histogram, and its sum.

    durations: how many were less than 2^n units and no less than 2^(n - 1), by n.
    """
    counts = list(durations)  # other threads go on counting
    buckets = [(repr(2**power * unit_s), float(sum(counts[: power + 1]))) for power in powers]
    return [*buckets, ("+Inf", float(sum(counts)))], sum_s
