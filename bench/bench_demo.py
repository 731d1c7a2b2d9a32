"""How soon `flowrun demo` answers, from its start to the first answer.

    python bench/bench_demo.py [--rounds 3] [--wheel]

--wheel: of a wheel of this tree, installed with its constraints into a venv of its own, which takes
minutes; otherwise of the flowrun of this Python. It runs in an empty folder. The first round also reads
the libraries from the disk. Exits with 1 if the median takes more than 10 s.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_S = 10.0
STEPS = {"page": r"page and API at", "model": r"model loaded", "answer": r"\(cap en, "}


def installed(folder: Path) -> Path:
    """The flowrun of a wheel of this tree, in a new venv in `folder`."""
    venv.create(folder / "venv", with_pip=True)
    pip = [folder / "venv" / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "-q"]
    constraints = ["-c", ROOT / "constraints.txt"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", folder, ROOT], check=True)
    [wheel] = folder.glob("*.whl")
    subprocess.run([*pip, "install", *constraints, "torch"], check=True)
    subprocess.run([*pip, "install", *constraints, f"{wheel}[models]"], check=True)
    return folder / "venv" / "bin" / "flowrun"


def steps(flowrun: Path, folder: Path) -> dict[str, float]:
    """Seconds until each of the steps."""
    words = ["demo", "--plain", "--port", "0", "--no-browser"]
    begin = time.monotonic()
    found: dict[str, float] = {}
    with subprocess.Popen(
        [flowrun, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            for name, pattern in STEPS.items():
                if name not in found and re.search(pattern, line):
                    found[name] = time.monotonic() - begin
            if "answer" in found:
                run.terminate()
                run.stdout.read()
                return found
    raise SystemExit(f"flowrun demo ended without an answer: {run.returncode}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--wheel", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flowrun = installed(folder) if args.wheel else Path(sys.executable).with_name("flowrun")
        (folder / "empty").mkdir()
        rounds = []
        for _ in range(args.rounds):
            rounds.append(steps(flowrun, folder / "empty"))
            print(", ".join(f"{step} {at:.1f} s" for step, at in rounds[-1].items()), flush=True)
    median = statistics.median(it["answer"] for it in rounds)
    print(f"first answer: {median:.1f} s; asked: {MOST_S:.0f} s")
    return 0 if median <= MOST_S else 1


if __name__ == "__main__":
    sys.exit(main())
