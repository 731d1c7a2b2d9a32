"""The options that say what of a graph file is meant, and with which values."""

from __future__ import annotations

import argparse

__all__ = ["add_mission", "add_settings"]


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
