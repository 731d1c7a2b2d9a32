"""Tries the properties of determinism on many random graphs; `make torture-graphs`.

    PYTHONPATH=tests python -m support.torture_graphs [--graphs 2000] [--seed 1]

Each property is tried on that number of graphs. One that fails is printed, shrunk, with what went wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
from collections import Counter
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from flowrun.runtime.engine.keyframes import unpack_keyframe
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import KEYFRAME_TOPIC
from support import determinism, helpers


class Counted:
    """Records runs, and counts what happened in them."""

    def __init__(self) -> None:
        self.cycles = 0
        self.controls: Counter[str] = Counter()
        self.in_ring = 0
        self.in_flight = 0
        self.not_frozen = 0

    def record(self, plan: Any, directory: Path, **options: Any) -> Any:
        """`helpers.record`."""
        recorded = helpers.record(plan, directory, **options)
        with Log(directory) as log:
            self.cycles += len(log)
            self.controls.update(m.fields["kind"] for m in log.messages("/flowrun/control"))
            self.in_ring += any(cycle.cycle > 0 for cycle in islice(log.cycles(), 1))
            topics = [topic for topic in log.topics if topic == KEYFRAME_TOPIC]
            for message in chain.from_iterable(map(log.messages, topics)):
                for frozen in unpack_keyframe(message.payload).values():
                    self.in_flight += len(frozen.get("jobs", ()))
                    self.not_frozen += "error" in frozen
        return recorded


def tried(check: Callable[..., None], arguments: tuple[Any, ...], graphs: int, number: int) -> bool:
    """Try a property on random graphs, and print what was tried; whether it held."""
    counted = Counted()
    determinism.begun.clear()
    seen: Counter[str] = Counter()

    @functools.wraps(check)
    def counting(**values: Any) -> None:
        seen["graphs"] += 1
        try:
            check(**values)
        except Exception as error:
            # Which results come when is the machine's doing: the next time it may not fail.
            print(f"{check.__name__}(**{values!r}): {error!s:.2000}", flush=True)
            raise

    determinism.record = counted.record
    held = True
    try:
        seed(number)(
            settings(
                max_examples=graphs, deadline=None, database=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            )(given(*arguments)(counting))
        )()  # fmt: skip
    except Exception:  # noqa: BLE001  # printed; the other properties get their turn
        held = False
    finally:
        determinism.record = helpers.record
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counted.controls.items()))
    print(
        f"{check.__name__}: {'held' if held else 'FAILED'}: {seen['graphs']} graphs, "
        f"{counted.cycles} recorded cycles; control records: {kinds}; {counted.in_ring} "
        f"logs begin in the middle; in keyframes, {counted.in_flight} jobs in flight and "
        f"{counted.not_frozen} states that could not be had; replays begun in the middle: "
        f"{dict(determinism.begun)}",
        flush=True,
    )
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="the properties whose name holds this")
    args = parser.parse_args()
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        held = [  # without the log lines of all these runs
            tried(check, arguments, args.graphs, args.seed)
            for check, arguments in determinism.PROPERTIES.items()
            if args.only in check.__name__
        ]
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
