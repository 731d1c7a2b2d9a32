"""The options that say what of a graph file is meant, with which values, and for how long."""

from __future__ import annotations

import argparse
import re

from flowrun.runtime.errors import UsageError

__all__ = ["add_mission", "add_partition", "add_settings", "seconds"]

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h))+", re.ASCII)
_PART = re.compile(r"([\d.]+)(ms|s|m|h)")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_S = 365 * 24 * 3600.0


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add what says which values are in place of those of the graph file."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="TASK.KEY=VALUE",
        dest="settings",
        help="use this value instead of the file's; also runtime.KEY, logging.KEY and constants.NAME "
        "(may be repeated)",
    )


def add_mission(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """Add what says which mission of the graph is meant."""
    parser.add_argument("--mission", metavar="NAME", help=f"the mission of the graph ({otherwise})")


def add_partition(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """Add what says which process of a graph with partitions is meant."""
    parser.add_argument(
        "--partition", metavar="NAME[/INSTANCE]", help=f"the partition of the graph ({otherwise})"
    )


def seconds(option: str, text: str) -> float:
    """The time that `text`, given to `option`, means. `UsageError` if it is none, or not above 0."""
    if not _DURATION.fullmatch(text):
        raise UsageError(
            f"{option} {text}: expected a time with its unit, such as 500ms, 10s, 2m or 1h30m"
        )
    found = sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
    if not 0 < found <= _LONGEST_S:
        raise UsageError(f"{option} {text}: expected a time above 0, and at most a year (8760h)")
    return found
