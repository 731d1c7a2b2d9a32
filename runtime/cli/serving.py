"""The options of commands that serve a page and an API."""

from __future__ import annotations

import argparse

__all__ = ["add_listening", "add_proxied"]


def add_listening(parser: argparse.ArgumentParser) -> None:
    """Add --host and --token."""
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (127.0.0.1)")
    parser.add_argument(
        "--token",
        help="what clients must send; FLOWRUN_TOKEN in the environment if not given; made if neither is "
        "given and --host is not 127.0.0.1",
    )


def add_proxied(parser: argparse.ArgumentParser) -> None:
    """Add --cors and --root-path."""
    parser.add_argument(
        "--cors",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let pages of another site, such as https://example.org, read and change everything; "
        "may be repeated",
    )
    parser.add_argument(
        "--root-path",
        default="",
        metavar="PATH",
        help="the path below which a reverse proxy has the page and the API, such as /cameras",
    )
