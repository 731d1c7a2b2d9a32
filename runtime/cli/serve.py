"""`flowrun serve`: start and stop the graphs of a folder over HTTP."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from flowrun.runtime.cli.serving import add_listening, add_proxied
from flowrun.runtime.cli.signals import AsksFirst, listening
from flowrun.runtime.printing import print_if_read
from flowrun.runtime.wording import counted

__all__ = ["add_parser", "run"]

DEFAULT_PORT = 3000


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "serve",
        description="Serve the graphs of a folder by name, until Ctrl-C: clients start and stop them "
        "(flowrun pipeline ..., or HTTP). Each runs in a process of its own, as flowrun GRAPH would.",
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(), metavar="DIR", help="the folder (this one)"
    )
    parser.add_argument(
        "--start",
        action="append",
        default=[],
        metavar="NAME",
        help="start this graph at once; may be given several times",
    )
    parser.add_argument(
        "--restart",
        choices=("never", "on-failure", "always"),
        default="never",
        help="when those are started again by themselves (never)",
    )
    parser.add_argument(
        "--log-dir",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="where runs get their directories (runs)",
    )
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, metavar="N", help=f"0 picks one ({DEFAULT_PORT})"
    )
    add_listening(parser)
    add_proxied(parser)


def run(args: argparse.Namespace) -> int:
    """0 after a signal, 2 for a mistake in the options."""
    from functools import partial

    from flowrun.runtime.serve.app import create_app
    from flowrun.runtime.serve.graphs import Graphs
    from flowrun.runtime.serve.pipelines import Pipelines
    from flowrun.runtime.server.serve import Server, token_for
    from flowrun.runtime.server.site import Site

    graphs = Graphs(args.folder)
    site = Site(tuple(args.cors), args.root_path)
    given = os.environ.get("FLOWRUN_TOKEN") if args.token is None else args.token
    ending = AsksFirst()
    with listening(ending):
        token = token_for(given, args.host)
        with Pipelines.open(
            graphs, log_dir=args.log_dir, token=token, say=print_if_read, root_path=site.root_path
        ) as pipelines:
            first = [pipelines.find(name) for name in dict.fromkeys(args.start)]
            server = Server.start_app(
                partial(create_app, pipelines, site=site),
                host=args.host,
                port=args.port,
                token=token,
            )
            try:
                found = counted(len(graphs.paths()), "graph")
                print_if_read(f"serving {found} of {args.folder.absolute()} at {server.url}")
                for pipeline in first:
                    pipeline.start(args.restart)
                ending.asked.wait()
                print_if_read(f"{ending.name}: stopping")
            finally:
                server.stop()
    return 0
