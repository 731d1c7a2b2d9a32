"""Tries the properties of determinism on many random graphs; `make torture-graphs`.

    PYTHONPATH=tests python -m support.torture_graphs [--graphs 300] [--seed 1]

Each property is tried on that number of graphs. One that fails is printed, shrunk, with what went wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings

from flowrun.runtime.log.reader import Log
from support import determinism, helpers


class Counted:
    """Records runs, and counts what happened in them."""

    def __init__(self) -> None:
        self.cycles = 0
        self.controls: Counter[str] = Counter()

    def record(self, plan: Any, directory: Path, **options: Any) -> Any:
        """`helpers.record`."""
        recorded = helpers.record(plan, directory, **options)
        with Log(directory) as log:
            self.cycles += len(log)
            self.controls.update(m.fields["kind"] for m in log.messages("/flowrun/control"))
        return recorded


def tried(check: Callable[..., None], arguments: tuple[Any, ...], graphs: int, number: int) -> bool:
    """Try a property on random graphs, and print what was tried; whether it held."""
    counted = Counted()
    seen: Counter[str] = Counter()

    @functools.wraps(check)
    def counting(**values: Any) -> None:
        seen["graphs"] += 1
        check(**values)

    determinism.record = counted.record
    held = True
    try:
        seed(number)(
            settings(
                max_examples=graphs, deadline=None, database=None,
                suppress_health_check=list(HealthCheck),
            )(given(*arguments)(counting))
        )()  # fmt: skip
    except Exception:  # noqa: BLE001  # the other property gets its turn
        traceback.print_exc(file=sys.stdout)
        held = False
    finally:
        determinism.record = helpers.record
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counted.controls.items()))
    print(
        f"{check.__name__}: {'held' if held else 'FAILED'}: {seen['graphs']} graphs, "
        f"{counted.cycles} recorded cycles; control records: {kinds}",
        flush=True,
    )
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        held = [  # without the log lines of all these runs
            tried(check, arguments, args.graphs, args.seed)
            for check, arguments in determinism.PROPERTIES.items()
        ]
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
