"""What the verbs about recorded runs share: which runs, their labels, results that are kept, a bar of
what is done."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowrun.runtime.printing import print_text
from flowrun.runtime.wording import one_line

if TYPE_CHECKING:
    from flowrun.runtime.recorded.labels import Label
    from flowrun.runtime.testbench.store import Store

__all__ = ["add_runs", "kept_results", "labels_of_runs", "shown_progress"]


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Add `runs`, for `find_runs`."""
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="a run's directory, a slab of it, or a folder of runs",
    )


def labels_of_runs(runs: Sequence[Path], file: Path | None) -> dict[Path, list[Label]]:
    """The labels of each run that can be read: those in `file`, or if that is None its own. What is
    wrong with them is printed on stderr, once."""
    from flowrun.runtime.errors import LogError
    from flowrun.runtime.log.reader import Log
    from flowrun.runtime.recorded.labels import labels_of

    found = {}
    told: dict[str, None] = {}
    for path in runs:
        try:
            with Log(path, verify=False) as log:
                run_id = log.metadata.get("run_id", "")
        except LogError:  # reading the run will give the error
            continue
        found[path], problems = labels_of(path, run_id, file)
        told.update(dict.fromkeys(problems))
    for problem in told:
        print_text(one_line(f"left out: {problem}"), file=sys.stderr)
    return found


@contextmanager
def kept_results(path: Path | None) -> Iterator[Store | None]:
    """Yields the store of results in the file at `path`, or if that is None the user's own. Where the
    user's own cannot be kept, as below a home that cannot be written, stderr says so, and it yields
    None."""
    from flowrun.runtime.errors import UsageError
    from flowrun.runtime.testbench.store import Store, store_path

    try:
        store = Store(path or store_path(os.environ))
    except UsageError as error:
        if path is not None:
            raise
        print_text(one_line(f"what is computed now is not kept: {error}"), file=sys.stderr)
        yield None
        return
    with store:
        yield store


@contextmanager
def shown_progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on stderr as soon as something is left to do. Yields a function to call with the number
    that is done, and that of all; or None where stderr is no terminal.

    what: what is counted, such as "answers".
    """
    if not sys.stderr.isatty():
        yield None
        return
    bar: Any = None
    task: Any = None

    def show(done: int, total: int) -> None:
        nonlocal bar, task
        if bar is None and done < total:
            from rich.console import Console
            from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

            columns = Progress.get_default_columns()[:3]
            bar = Progress(
                *columns,
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            bar.start()
            task = bar.add_task(what, total=total)
        if bar is not None:
            bar.update(task, completed=done, total=total)

    try:
        yield show
    finally:
        if bar is not None:
            bar.stop()
