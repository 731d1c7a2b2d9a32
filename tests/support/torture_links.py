"""Two partitions as real processes, whose link is cut and which are killed, by a seed.

    PYTHONPATH=tests python -m support.torture_links [--kills 1000] [--cuts 200] [--stops 2] [--pairs 3]
        [--seed 1] [--recover] [--deliver latest] [--minutes 20] [--keep DIR]

`dock` sends to `gpu` through a proxy that the torture cuts. Several such pairs run at once and share the
kills. These come at any moment: while a process starts, while it takes what it lacks, while it writes,
at both ends at once.

At the end each cycle that a log of `dock` holds must have been taken in the logs of `gpu` once, in
order, with its bytes, and the fleet must replay. With --recover tasks go on with what they
remembered, and the count must go on as if nobody had been killed.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from support.linked_pair import ENDS, Pair, Tally

_SETTLE_EVERY = 20
"""Acts between two times at which the receiver must have what the sender has."""


class Tortured(Pair):
    """Whom acts happen to, by a seed."""

    def __init__(self, folder: Path, seed: int, **options: Any) -> None:
        super().__init__(folder, **options)
        self._chance = random.Random(seed)

    def play(self, acts: list[str], minutes: float) -> Tally:
        """Do `acts`, in an order of the seed's, for as long as that; compare what was sent with what
        came."""
        until = time.monotonic() + minutes * 60
        self._chance.shuffle(acts)
        with self.watched():
            for number, act in enumerate(acts, 1):
                if time.monotonic() > until:
                    break
                getattr(self, f"_{act}")()
                self.check_running()
                if number % _SETTLE_EVERY == 0:
                    self.settle()
            self.settle()
            self.end()
            self.compare()
            self.replay()
        return self.tally

    # -- acts ------------------------------------------------------------------------------------

    def _kill_one(self) -> None:
        self._kill([self._chance.choice(ENDS)])

    def _kill_both(self) -> None:
        self._kill(ENDS)

    def _kill(self, parts: Sequence[str]) -> None:
        """Anywhere in a start, or some cycles after it, however fast the machine is."""
        if self._chance.random() < 0.7:
            self.wait_grown(parts[0], self._chance.choice([1, 1, 3, 10, 30]))
        time.sleep(self._chance.uniform(0, 0.2))
        for part in parts:
            self.running[part].kill()
            self.tally.done["kills"] += 1
        for part in parts:
            self.start(part)

    def _cut(self) -> None:
        """Connections end, and sometimes none can be made for a while."""
        time.sleep(self._chance.uniform(0, 0.3))
        self.proxy.cut()
        time.sleep(self._chance.choice([0.0, self._chance.uniform(0, 1)]))
        self.proxy.mend()
        self.tally.done["cuts"] += 1

    def _hold(self) -> None:
        """Connections stay, and nothing comes through; sometimes for longer than a session lives."""
        self.proxy.hold()
        time.sleep(self._chance.choice([0.3, 0.3, 1.0, 6.0]))
        self.proxy.mend()
        self.tally.done["cuts"] += 1

    def _stop(self) -> None:
        process = self.running[self._chance.choice(ENDS)]
        process.send(signal.SIGSTOP)
        time.sleep(self._chance.choice([1.0, 8.0]))
        process.send(signal.SIGCONT)
        self.tally.done["stops"] += 1


def played(
    folder: str, seed: int, acts: list[str], minutes: float, options: dict[str, Any]
) -> Tally:
    """What one pair found, in a process of its own. options: of `Pair`."""
    return Tortured(Path(folder), seed, **options).play(acts, minutes)


def main() -> int:
    parser = argparse.ArgumentParser(description="torture of links")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--stops", type=int, default=1, help="of 1 or 8 s")
    parser.add_argument("--pairs", type=int, default=3, help="at once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--recover", action="store_true")
    parser.add_argument("--minutes", type=float, default=60, help="do nothing more after them")
    parser.add_argument("--deliver", default="every", choices=["every", "latest", "lockstep"])
    parser.add_argument("--keep", type=Path, help="a folder for all files, which stay")
    args = parser.parse_args()
    acts = ["kill_both"] * (args.kills // 10)
    acts += ["kill_one"] * (args.kills - 2 * len(acts))
    acts += ["hold"] * (args.cuts // 5) + ["cut"] * (args.cuts - args.cuts // 5)
    acts += ["stop"] * args.stops
    options = {"recover": args.recover, "deliver": args.deliver}
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pool = stack.enter_context(ProcessPoolExecutor(args.pairs, get_context("spawn")))
        coming = [
            pool.submit(
                played, f"{folder}/{n}", args.seed + n, acts[n :: args.pairs], args.minutes, options
            )
            for n in range(args.pairs)
        ]
        tallies = [it.result() for it in coming]
    done = sum((it.done for it in tallies), Counter[str]())
    faults = [f"pair {n}: {it}" for n, tally in enumerate(tallies) for it in tally.faults]
    for fault in faults:
        print(fault)
    print(
        f"{args.deliver}, seed {args.seed}, {args.pairs} pairs, {time.monotonic() - began:.0f} s: "
        f"{done['kills']} kills ({done['runs without a cycle']} before the first cycle), "
        f"{done['cuts']} cuts, {done['stops']} stops: {done['sent']} sent, "
        f"{done['got']} got, {done['lost']} lost, {done['twice']} twice, "
        f"{done['replays']} of {args.pairs} fleets replay"
        + (", the count goes on" if args.recover and not faults else "")
    )
    return 1 if faults or done["got"] < 100 else 0


if __name__ == "__main__":
    sys.exit(main())
