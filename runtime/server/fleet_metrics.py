"""The links of a run, and the other processes of its graph, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from flowrun.runtime.links.status import LINK_STATES, PART_STATES, LinkStatus, fleet_links
from flowrun.runtime.run.report import RunReport

if TYPE_CHECKING:
    from prometheus_client import Metric

__all__ = ["fleet_of", "links_of"]


def links_of(report: RunReport) -> Iterator[Metric]:
    """How the links to other partitions are doing; nothing of a run that is none."""
    yield from _links(
        "flowrun_link",
        ["part", "peer", "direction"],
        [([report.part or "", it.peer, it.direction], it) for it in report.links],
    )


def fleet_of(report: RunReport) -> Iterator[Metric]:
    """How all processes of the graph are doing, as this one knows, and all links between them."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    at = ["part"]
    states = GaugeMetricFamily(
        "flowrun_fleet_state", "1 for the state that a process is in.", labels=[*at, "state"]
    )
    cycles = CounterMetricFamily("flowrun_fleet_cycles", "Cycles that have ended.", labels=at)
    rates = GaugeMetricFamily("flowrun_fleet_cycle_rate_hz", "Cycles per second.", labels=at)
    errors = CounterMetricFamily("flowrun_fleet_errors", "Errors of its tasks.", labels=at)
    heard = GaugeMetricFamily(
        "flowrun_fleet_heard_seconds", "Time since something was heard of it.", labels=at
    )
    for it in report.fleet:
        for state in PART_STATES:
            states.add_metric([it.part, state], int(state == it.state))
        cycles.add_metric([it.part], it.cycles)
        rates.add_metric([it.part], it.cycle_rate_hz)
        errors.add_metric([it.part], it.errors)
        if it.heard_s is not None:
            heard.add_metric([it.part], it.heard_s)
    yield from (it for it in (states, cycles, rates, errors, heard) if it.samples)
    yield from _links(
        "flowrun_fleet_link",
        ["sender", "receiver"],
        [([it.sender, it.receiver], it.status) for it in fleet_links(report.fleet)],
    )


def _links(
    name: str, at: list[str], links: Sequence[tuple[list[str], LinkStatus]]
) -> Iterator[Metric]:
    """How links are doing; nothing where there are none.

    name: how the names of all begin. at: the labels that say which link it is; `links` has their values.
    """
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    states = GaugeMetricFamily(
        f"{name}_state", "1 for the state that a link is in.", labels=[*at, "state"]
    )
    lag = GaugeMetricFamily(
        f"{name}_lag_cycles", "The sender's cycles that the receiver lacks.", labels=at
    )
    gaps = CounterMetricFamily(f"{name}_gaps", "Gaps: cycles that never come.", labels=at)
    skipped = CounterMetricFamily(
        f"{name}_skipped", "Messages passed over for newer ones, or too old.", labels=at
    )
    damaged = CounterMetricFamily(
        f"{name}_damaged", "Messages that something on the way has changed.", labels=at
    )
    clocks = GaugeMetricFamily(
        f"{name}_clock_offset_seconds", "How far the sender's clock is ahead.", labels=at
    )
    again = CounterMetricFamily(
        f"{name}_reconnects", "How often the other end has come back.", labels=at
    )
    for of, it in links:
        for state in LINK_STATES:
            states.add_metric([*of, state], int(state == it.state))
        lag.add_metric(of, it.lag_cycles)
        again.add_metric(of, it.reconnects)
        if it.direction == "in":  # the sender does not know
            gaps.add_metric(of, it.gaps)
            skipped.add_metric(of, it.skipped)
            damaged.add_metric(of, it.damaged)
        if it.clock_offset_ms is not None:
            clocks.add_metric(of, it.clock_offset_ms / 1e3)
    yield from (it for it in (states, lag, gaps, skipped, damaged, clocks, again) if it.samples)
