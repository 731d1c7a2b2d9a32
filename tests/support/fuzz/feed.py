"""Feeds the reader of logs with damaged ones, for as long as one likes; `make fuzz`.

    PYTHONPATH=tests python -m support.fuzz.feed [--seconds 60 | --cases 1000] [--seed 1]
                                                 [--kept runs/fuzz] [--case N | --coverage]

A case is one of the logs of `originals` with some of the changes of `mutations`; in half of
the cases all checksums are made right again, so that what they would have found goes on to what comes
after them. It is held to `laws`, in `MOST_S` and with `MOST_MEMORY`, in a child process whose
end, whatever it is, does not end the fuzzer. A log that breaks a law is kept, with what it broke; its
seed and --case give the same case again, here. --coverage: let atheris choose the cases, by the lines
of the reader that they reach.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import json
import os
import pickle
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

from support.fuzz import laws
from support.fuzz.mutations import Case, make_case
from support.fuzz.originals import Original, originals

COMMAND = ("-m", "support.fuzz.feed")
MOST_S = 10
"""A case that takes longer hangs; the usual one takes some milliseconds."""
MOST_MEMORY = 512 << 20
"""What a case may take besides what the process takes; the logs are smaller than 2 MiB."""


class Fuzzer:
    """Makes and examines cases in `folder`; the same seed and number give the same case."""

    def __init__(self, whole: list[Original], folder: Path, *, seed: int) -> None:
        self.originals = whole
        self.seed = seed
        self.run = folder / "case"
        """The log, as it was damaged."""

    def case(self, number: int) -> Case:
        rng = random.Random(f"{self.seed}:{number}")
        changes = rng.choice((1, 1, 1, 2, 3, 4))
        return make_case(self.originals, [rng.getrandbits(32) for _ in range(1 + changes)])

    def hold(self, case: Case) -> str:
        """How it was read; raises whatever is wrong."""
        for path in (self.run, self.run.with_name("recovered")):
            shutil.rmtree(path, ignore_errors=True)
        self.run.mkdir(parents=True)
        for name, data in case.files.items():
            (self.run / name).write_bytes(data)
        return laws.hold(self.run, case, random.Random(str(case)))

    def keep(self, kept: Path, case: Case, why: str) -> None:
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.run, kept)
        (kept / "why.txt").write_text(f"{case}\n\n{why}")
        last = why.strip().rpartition("\n")[2]
        print(f"{kept} breaks a law ({case}): {last}", flush=True)


def limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def child(args: argparse.Namespace, folder: Path) -> int:
    """Run cases until the time is over; one that ends the process is left to the parent."""
    fuzzer = Fuzzer(pickle.loads((folder / "originals").read_bytes()), folder, seed=args.seed)
    if args.coverage:
        from support.fuzz.coverage import choose_by_coverage  # needs atheris

        choose_by_coverage(args, fuzzer)
    until = time.monotonic() + args.seconds
    known: set[tuple[str, str]] = set()
    outcomes: collections.Counter[str] = collections.Counter()
    number = args.first
    limit_memory()
    with (folder / "faults.txt").open("w") as faults:
        faulthandler.enable(faults)
        while True:
            (folder / "state").write_text(json.dumps((number, outcomes)))
            if number >= args.cases if args.cases else time.monotonic() >= until:
                return 0
            case = fuzzer.case(number)
            faulthandler.dump_traceback_later(MOST_S, exit=True, file=faults)
            try:
                outcomes[fuzzer.hold(case)] += 1
            except Exception as error:  # noqa: BLE001 - the broken law
                outcomes["wrong"] += 1
                place = traceback.extract_tb(error.__traceback__)[-1]
                kind = type(error).__name__, f"{place.filename}:{place.lineno}"
                if kind not in known:
                    known.add(kind)
                    why = "".join(traceback.format_exception(error))
                    fuzzer.keep(args.kept / f"{args.seed}-{number}", case, why)
            finally:
                faulthandler.cancel_dump_traceback_later()
            number += 1


def watch(args: argparse.Namespace, folder: Path, command: Sequence[str]) -> int:
    """Children, one after the other, until the time is over; how many cases were wrong."""
    begun, first = time.monotonic(), args.first
    fuzzer = Fuzzer(originals(folder / "originals.d"), folder, seed=args.seed)
    (folder / "originals").write_bytes(pickle.dumps(fuzzer.originals))
    outcomes: collections.Counter[str] = collections.Counter()
    code = 1
    while code and (args.cases or time.monotonic() - begun < args.seconds):
        left = max(1, args.seconds - int(time.monotonic() - begun))
        (folder / "state").unlink(missing_ok=True)
        code = subprocess.run(
            [
                sys.executable,
                *command,
                "--child",
                folder,
                "--seconds",
                str(left),
                "--first",
                str(first),
                "--seed",
                str(args.seed),
                "--cases",
                str(args.cases),
                "--kept",
                args.kept,
                *["--coverage"] * args.coverage,
            ],
            check=False,
            env={**os.environ, "MALLOC_ARENA_MAX": "1"},  # an arena a thread is 64 MiB
        ).returncode
        if args.coverage:
            return code
        number, found = json.loads((folder / "state").read_text())
        outcomes.update(found)
        if code:
            outcomes["wrong"] += 1
            why = f"{(folder / 'faults.txt').read_text()}\nended the process: {code}"
            fuzzer.keep(args.kept / f"{args.seed}-{number}", fuzzer.case(number), why)
        first = number + 1
    counts = ", ".join(
        f"{outcomes[name]:,} {name}" for name in ("read whole", "read in part", "refused", "wrong")
    )
    took = time.monotonic() - begun
    print(f"{outcomes.total():,} cases of seed {args.seed} in {took:.0f} s: {counts}")
    return outcomes["wrong"]


def main(command: Sequence[str] = COMMAND) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--cases", type=int, default=0, help="up to this, however long it takes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="begin with this case")
    parser.add_argument("--case", type=int, help="only this one, here, with its traceback")
    parser.add_argument("--kept", type=Path, default=Path("runs/fuzz"), help="where logs are kept")
    parser.add_argument(
        "--coverage", action="store_true", help="let atheris choose; pip install -e .[fuzz]"
    )
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        warnings.simplefilter("error")
        return child(args, args.child)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="flowrun-fuzz-", dir=memory) as root:
        folder = Path(root)
        if args.case is None:
            return int(watch(args, folder, command) > 0)
        fuzzer = Fuzzer(originals(folder / "originals.d"), folder, seed=args.seed)
        case = fuzzer.case(args.case)
        print(case)
        print(fuzzer.hold(case))
    return 0


if __name__ == "__main__":
    sys.exit(main())
