"""The figures of a recorded run, as tables."""

from __future__ import annotations

from collections.abc import Mapping

from flowrun.runtime.printing import print_table, print_text, size
from flowrun.runtime.recorded.stats import RunStats, StepStats, Times
from flowrun.runtime.wording import one_line

__all__ = ["dropped", "ms", "print_stats", "rate", "share"]

_PATH = (
    "from source to sink", "p50 ms", "p99 ms", "max ms", "in its cycle: p50", "p99", "max", "messages",
)  # fmt: skip


def print_stats(stats: RunStats) -> None:
    """Print them: the run, its tasks, the ways from sources to sinks, the topics of its log."""
    p50, p99, longest = _three(stats.cycle)
    largest = size(stats.largest_cycle)
    memory = "-" if stats.memory_bytes is None else f"at most {size(stats.memory_bytes)}"
    rows = [
        ("cycles", f"{stats.cycles:,} in {stats.duration_s:,.1f} s, {rate(stats.rate_hz)} Hz"),
        ("a cycle", f"{p50} ms (p50), {p99} (p99), {longest} (max)"),
        ("log", f"{size(stats.log_bytes)}, at most {largest} of messages in a cycle"),
        ("memory", memory),
    ]
    print_table(("", ""), rows)
    print_text()
    print_table(
        ("task", "p50 ms", "p99 ms", "max ms", "share", "Hz", "messages", "dropped", "errors"),
        [
            (
                step.task + (" (background)" if step.background else ""),
                *_three(step.times),
                share(step),
                rate(step.rate_hz),
                "-" if step.cycles is None else f"{step.cycles:,}",
                dropped(step.dropped) or "0",
                f"{step.errors:,}",
            )
            for step in stats.steps
        ],
    )
    if stats.paths:
        print_text()
        print_table(
            _PATH,
            [
                (
                    " -> ".join(path.tasks),
                    *(("-", "-", "-") if path.from_source is None else _three(path.from_source)),
                    *_three(path.in_cycle),
                    f"{path.in_cycle.count:,}",
                )
                for path in stats.paths
            ],
        )
    print_text()
    print_table(
        ("topic", "messages", "Hz", "size", "size/s", "largest"),
        [
            (
                port.topic,
                f"{port.messages:,}",
                rate(port.rate_hz),
                size(port.bytes),
                "-" if port.bytes_per_s is None else size(round(port.bytes_per_s)),
                size(port.largest),
            )
            for port in stats.ports
        ],
    )
    for note in stats.notes:
        print_text(one_line(f"note: {note}"))


def ms(value: float | None) -> str:
    """Milliseconds to the microsecond, or to three digits of more."""
    if value is None:
        return "-"
    if value < 0.001:
        return "<0.001"
    return f"{value:.3f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def rate(value: float | None) -> str:
    """Times a second, as a number in a table."""
    return "-" if value is None else f"{value:,.1f}"


def share(step: StepStats) -> str:
    """The part of the cycles' time that a step took, in percent."""
    return "-" if step.share is None else f"{step.share * 100:.1f} %"


def dropped(by: Mapping[str, int]) -> str:
    """What was left out, and why; "" where nothing was."""
    return ", ".join(f"{count:,} {cause}" for cause, count in by.items())


def _three(times: Times) -> tuple[str, str, str]:
    return ms(times.p50_ms), ms(times.p99_ms), ms(times.max_ms)
